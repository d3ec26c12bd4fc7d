"""Where a target tensor's values come from, and what its fresh entries hold.

A Take holds one index vector per changed axis, −1 where an entry is fresh. Copies, widths and kernels are all Takes; a
strategy is only a fill policy:

* fna — the paper's rules: fresh weights are 1e-5 · kaiming_uniform, fresh 1-D entries their initial value, copied
  blocks are copies.
* preserve — growth keeps the function and can learn: every path from old to old through something new has exactly one
  zero factor. Fresh producers copy the strongest channels (plus a little noise), their outgoing columns are zero; a
  copied block's last affine is zero.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from passes.channels.groups import Regroup, regrouped, regrouped_shape
from passes.errors import UserError
from passes.graph.tensors import Shape

MAX_TARGET_BYTES = 1 << 36


def bytes_made(take: Take, source: Sequence[int]) -> int:
    """The bytes of what a Take makes, four to a number."""
    return math.prod(map(int, take.shape(tuple(source)))) * 4


def require_room(total: int) -> None:
    """Refuse before memory is taken; total is in bytes, or as many as are known to be needed."""
    if total > MAX_TARGET_BYTES:
        raise UserError(
            f"the target would hold {total / 2**30:.0f} GiB of weights, or more; the most is "
            f"{MAX_TARGET_BYTES >> 30} GiB"
        )


STRATEGIES = ("fna", "preserve")
FNA_NOISE = 1e-5  # times kaiming_uniform (FNA, issue 18)
COPY_NOISE = 1e-2  # of the weight's standard deviation: enough to tell a copied channel from its parent


@dataclass(frozen=True)
class Along:
    """One axis of a Take: the source position of each new entry (−1 fresh), the position a fresh one may copy, and how
    it is filled.

    `role` is creates, consumes or kernel; `by_rule` marks fresh entries that follow the fna rule even under preserve.
    """

    index: np.ndarray
    parent: np.ndarray
    role: str
    by_rule: np.ndarray

    @cached_property
    def fresh(self) -> np.ndarray:
        """Which entries are no old ones."""
        return self.index < 0

    @cached_property
    def grows(self) -> bool:
        """Whether any entry is fresh."""
        return bool(self.fresh.any())

    @cached_property
    def starts(self) -> bool:
        """Whether it takes after the first positions, in their order."""
        return np.array_equal(self.parent, np.arange(self.parent.size))


@dataclass(frozen=True)
class Take:
    """A target tensor: its source, the axes that change, whether it is a weight, and the initial value of fresh entries
    if it is not.

    `held`: all its old entries have this value, so that the copied block it belongs to computes its entry (0: that part
    of it is silent); `inside_silent`: it is in such a block. `regroup`: a convolution's weight gets other groups; the
    axes are those it has in between (see groups.py).
    """

    target: str
    source: str
    axes: Mapping[int, Along]
    fill: float = 0.0
    held: float | None = None
    inside_silent: bool = False
    weight: bool = True
    regroup: Regroup | None = None

    @property
    def silent(self) -> bool:
        """Whether its old entries are zero."""
        return self.held == 0

    @property
    def unchanged(self) -> bool:
        """Whether the target is the source, array and all."""
        return not self.axes and self.held is None and self.regroup is None

    def shape(self, source: Shape) -> Shape:
        """The target's shape, from the source's."""
        groups = self.regroup
        shape = source if groups is None else regrouped_shape(source, groups.seed, groups.ground)
        shape = tuple(int(self.axes[axis].index.size) if axis in self.axes else size for axis, size in enumerate(shape))
        return shape if groups is None else regrouped_shape(shape, groups.ground, groups.target)


def taken(take: Take, old: np.ndarray, strategy: str, seed: int | Sequence[int]) -> np.ndarray:
    """The values of a Take: old entries where they go, fresh ones by the strategy, with noise from the seed. The source
    is not written.
    """
    groups = take.regroup
    if groups is None:
        return _resized(take, old, strategy, seed)
    new = _resized(take, regrouped(old, groups.seed, groups.ground), strategy, seed)
    return regrouped(new, groups.ground, groups.target)


def _resized(take: Take, old: np.ndarray, strategy: str, seed: int | Sequence[int]) -> np.ndarray:
    if take.held is None and not any(along.grows for along in take.axes.values()):
        return np.ascontiguousarray(_picked(old, take.axes))
    fresh = {axis: along.fresh for axis, along in take.axes.items()}
    rng = np.random.default_rng(seed)
    new = _grown(old, take, whole=strategy == "preserve")
    if strategy == "preserve":
        _preserve(new, take, fresh, rng)
    for axis, along in take.axes.items():
        if along.role == "kernel":
            new[_at(new, axis, fresh[axis])] = 0
    _by_rule(new, take, rng)
    return new


def _picked(array: np.ndarray, axes: Mapping[int, Along]) -> np.ndarray:
    """The entries of the array that each new one has or may copy."""
    for axis, along in axes.items():
        first = (slice(None),) * axis + (slice(0, along.parent.size),)
        array = array[first] if along.starts else np.take(array, along.parent, axis)
    return array


def _grown(old: np.ndarray, take: Take, *, whole: bool) -> np.ndarray:
    """A new array with the old entries where they go, and with what fresh ones may copy; but if not whole, those by
    rule hold anything.

    What lies together is copied together: a weight of 100 MB is read once, not once for every axis.
    """
    blocks = [
        _runs(along.parent, np.ones(along.index.size, bool) if whole else ~along.by_rule)
        for along in take.axes.values()
    ]
    if math.prod(map(len, blocks)) > MOST_BLOCKS:
        new = _picked(old, take.axes)
        return new.copy() if new is old or new.base is not None else new
    shape = [take.axes[axis].index.size if axis in take.axes else size for axis, size in enumerate(old.shape)]
    new = np.empty(shape, old.dtype)
    for block in itertools.product(*blocks):
        to, source = [slice(None)] * old.ndim, [slice(None)] * old.ndim
        for axis, (at, place) in zip(take.axes, block, strict=True):
            to[axis], source[axis] = at, place
        new[tuple(to)] = old[tuple(source)]
    return new


MOST_BLOCKS = 64  # that are copied one by one


def _runs(index: np.ndarray, mask: np.ndarray) -> list[tuple[slice, slice]]:
    """The longest runs of positions in the mask whose sources follow each other too: where each is and where it comes
    from.
    """
    at = np.flatnonzero(mask)
    source = index[at]
    ends = np.flatnonzero((np.diff(at) != 1) | (np.diff(source) != 1)) + 1
    starts = np.concatenate([[0], ends]) if at.size else ends
    pairs = zip(starts.tolist(), [*ends.tolist(), at.size], strict=True) if at.size else ()
    return [(slice(int(at[a]), int(at[a]) + b - a), slice(int(source[a]), int(source[a]) + b - a)) for a, b in pairs]


def _at(array: np.ndarray, axis: int, mask: np.ndarray) -> tuple[slice | np.ndarray, ...]:
    return (slice(None),) * axis + (np.flatnonzero(mask),)


def _preserve(new: np.ndarray, take: Take, fresh: Mapping[int, np.ndarray], rng: np.random.Generator) -> None:
    """Exactly one zero factor on every path from old to old through something new.

    W[old row, fresh column] = 0; W[fresh row, ·] = W[parent, ·] + noise; in a silenced block nothing is zero but its
    last affine.
    """
    rows = [axis for axis, along in take.axes.items() if along.role == "creates" and fresh[axis].any()]
    columns = [axis for axis, along in take.axes.items() if along.role == "consumes" and fresh[axis].any()]
    old_rows = np.ones(new.shape, bool)
    for axis in rows:
        old_rows[_at(new, axis, fresh[axis])] = False
    if rows and take.weight and new.ndim >= 2:
        noise = rng.standard_normal(new.shape, np.float32) * np.float32(
            COPY_NOISE * float(np.std(new, dtype=np.float64))
        )
        new[~old_rows] += noise[~old_rows].astype(new.dtype)
    if columns and not take.inside_silent:
        reads_fresh = np.zeros(new.shape, bool)
        for axis in columns:
            reads_fresh[_at(new, axis, fresh[axis])] = True
        new[reads_fresh & old_rows] = 0
    if take.held is not None:
        new[old_rows] = take.held


def _by_rule(new: np.ndarray, take: Take, rng: np.random.Generator) -> None:
    """Fresh entries by the paper's rule: weights 1e-5 · kaiming_uniform (bound √(6 / fan_in)), per-channel values their
    initial one.
    """
    axes = {axis: along for axis, along in take.axes.items() if along.by_rule.any()}
    if not axes:
        return
    places = _suffixes(new, axes)
    if not take.weight or new.ndim < 2:
        for place in places:
            new[place] = take.fill
        return
    making = next((axis for axis, along in take.axes.items() if along.role == "creates"), 0)
    fan_in = max(new.size // new.shape[making], 1)
    bound = np.sqrt(6.0 / fan_in)
    for place in places:
        if isinstance(place, np.ndarray):
            new[place] = _noise(rng, (int(np.count_nonzero(place)),), bound)
            continue
        part = new[place]
        rows = max(ROUND // max(part[:1].size, 1), 1)
        for start in range(0, part.shape[0], rows):
            part[start : start + rows] = _noise(rng, part[start : start + rows].shape, bound)


ROUND = 1 << 16  # numbers drawn at a time: as many as stay near the processor


def _noise(rng: np.random.Generator, shape: Sequence[int], bound: float) -> np.ndarray:
    values = rng.uniform(-1.0, 1.0, shape)
    values *= FNA_NOISE
    values *= bound
    return values


Place = tuple[slice, ...] | np.ndarray


def _suffixes(new: np.ndarray, axes: Mapping[int, Along]) -> Sequence[Place]:
    """Where an entry is by rule: parts which together, one after the other, have them in the order of the array.

    Mostly the last rows and, before those, the last columns; else a mask.
    """
    starts = {axis: int(along.by_rule.size - np.count_nonzero(along.by_rule)) for axis, along in axes.items()}
    if all(along.by_rule[starts[axis] :].all() for axis, along in axes.items()) and (
        len(axes) == 1 or (len(axes) == 2 and 0 in axes)
    ):
        others = [
            (slice(0, starts.get(0, new.shape[0])), *(slice(None),) * (axis - 1), slice(starts[axis], None))
            for axis in axes
            if axis
        ]
        return [*others, *([(slice(starts[0], None),)] if 0 in axes else [])]
    mask = np.zeros(new.shape, bool)
    for axis, along in axes.items():
        mask[_at(new, axis, along.by_rule)] = True
    return [mask]
