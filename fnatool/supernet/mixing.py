"""All candidates of a block at once, by mixing the largest weights before the operator, with the marginals of the
block's one softmax.

    channels  W ⊙ Σ_m P(m | keep) · M_m    M_m: the columns that read kept channels of the atom, within the
                                           groups' diagonal blocks
    kernel    W ⊙ Σ_k P(k | keep) · C_k    C_k: the taps at the centre
    skip      the branch's last affine · P(keep), where all after it up to the merge is homogeneous;
              else exit and entry are weighed

What *makes* channels is not touched: every channel is computed whole, normalised as in the member that keeps it, and
weighed where it is read. So no activation is multiplied, and a choice of one candidate is that member exactly, whatever
the statistics.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fnatool.supernet.segments import Segment
from fnatool.supernet.variants import Key, Variants
from passes.channels.groups import possible
from passes.graph.tensors import Shape
from passes.network.analysis import Analysis
from passes.space.space import Choices
from passes.target.take import Take, taken


@dataclass(frozen=True)
class Mask:
    """What the choice of a block does to one weight: `masks` [ways, positions], and which candidate is which way
    [candidates, ways].
    """

    block: int
    masks: Tensor
    ways: Tensor
    shape: Shape

    def mixed(self, kept: Tensor) -> Tensor:
        """Σ_way P(way) · mask, for the probabilities of the candidates given that the block is kept; broadcasts to the
        weight.

        In the type of the probabilities, under autocast too: half of it would round away what α learns in a step.
        """
        kind = kept.device.type
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            return (kept @ self.ways @ self.masks).reshape(self.shape)


@dataclass(frozen=True)
class Mixture:
    """How a segment's weights are mixed, and which of them P(keep) is folded into (none: exit and entry are
    weighed).
    """

    masks: Mapping[str, tuple[Mask, ...]]
    folded: tuple[str, ...] = ()

    def to(self, like: Tensor) -> Mixture:
        """The same for probabilities on the device and of the type of `like`."""
        moved = {
            name: tuple(dataclasses.replace(mask, masks=mask.masks.to(like), ways=mask.ways.to(like)) for mask in masks)
            for name, masks in self.masks.items()
        }
        return Mixture(moved, self.folded)

    def __call__(self, weights: Mapping[str, Tensor], kept: Sequence[Tensor], keep: Tensor | None) -> dict[str, Tensor]:
        """The mixed weights. kept: per block P(candidate | keep); keep: P(keep) of the segment's block, None where it
        always is.
        """
        found = dict(weights)
        for name, masks in self.masks.items():
            for mask in masks:
                found[name] = found[name] * mask.mixed(kept[mask.block])
        if keep is not None:
            for name in self.folded:
                found[name] = found[name] * keep
        return found


def mixture(variants: Variants, segment: Segment) -> Mixture:
    """The mixture of a segment: of its own block's choice, or for a stretch of those of the blocks that it reads inside
    of.
    """
    blocks = segment.varying if segment.block is None else (segment.block,)
    masks: dict[str, list[Mask]] = {}
    for block in blocks:
        count = len(variants.choices.blocks[block].candidates)
        own = segment.block is not None  # then the other blocks' choices do not matter
        ways = [
            variants.whole(segment, (k,)) if own else _alone(variants, block, variants.alike(block, k))
            for k in range(count)
        ]
        takes = [variants.takes(segment, way) for way in ways]
        for name in sorted({name for row in takes for name in row}):
            shape = variants.reading.shapes.shapes[name]
            for reading in (_channels, _kernel):
                found = _mask(block, [reading(row.get(name), shape) for row in takes])
                if found is not None:
                    masks.setdefault(name, []).append(found)
    return Mixture({name: tuple(found) for name, found in masks.items()}, _folded(variants, segment))


def _alone(variants: Variants, block: int, candidate: int) -> Key:
    """The largest member but for one block."""
    return tuple(candidate if k == block else largest for k, largest in enumerate(variants.largest))


def _mask(block: int, rows: Sequence[np.ndarray]) -> Mask | None:
    """The distinct masks among those of the candidates, broadcast to one shape; None where all are ones."""
    if all(row.all() for row in rows):
        return None
    rows = np.broadcast_arrays(*rows)
    distinct: dict[bytes, int] = {}
    which = [distinct.setdefault(row.tobytes(), len(distinct)) for row in rows]
    masks = np.stack([rows[which.index(way)].ravel() for way in distinct.values()]).astype(np.float32)
    ways = np.zeros((len(rows), len(distinct)), np.float32)
    ways[np.arange(len(rows)), which] = 1
    return Mask(block, torch.from_numpy(masks), torch.from_numpy(ways), rows[0].shape)


def _kernel(take: Take | None, shape: Shape) -> np.ndarray:
    """The taps that a Take keeps, over all axes of the kernel at once."""
    axes = {} if take is None else {axis: along.index for axis, along in take.axes.items() if along.role == "kernel"}
    return _outer(axes, shape)


def _channels(take: Take | None, shape: Shape) -> np.ndarray:
    """The columns that a Take keeps: those that read kept channels, and of other groups none. Rows are all kept."""
    if take is None:
        return np.ones([1] * len(shape), bool)
    axes = {axis: along for axis, along in take.axes.items() if along.role == "consumes"}
    if take.regroup is None:
        return _outer({axis: along.index for axis, along in axes.items()}, shape)
    rows, columns = shape[:2]
    numbers = np.arange(1, rows * columns + 1).reshape(rows, columns, *[1] * (len(shape) - 2))
    kept = taken(dataclasses.replace(take, axes=axes), numbers, "fna", 0)
    mask = np.zeros(rows * columns + 1, bool)
    mask[kept] = True
    return mask[1:].reshape(numbers.shape)


def _outer(axes: Mapping[int, np.ndarray], shape: Shape) -> np.ndarray:
    mask = np.ones([1] * len(shape), bool)
    for axis, index in axes.items():
        along = np.zeros(shape[axis], bool)
        along[index] = True
        mask = mask & along.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return mask


# --- skip ---------------------------------------------------------------------------------------


def _folded(variants: Variants, segment: Segment) -> tuple[str, ...]:
    """The weights that scale a skippable block's branch; none where no weights do exactly that."""
    if segment.block is None or not variants.choices.blocks[segment.block].skippable:
        return ()
    block = variants.choices.blocks[segment.block]
    silence = variants.analysis.silences[block.stage, block.block]
    trained = {variants.sources[weight.name]: weight.name for weight in variants.reading.weights}
    if silence.why is not None or not silence.scales or not set(silence.tensors) <= set(trained):
        return ()
    return tuple(trained[name] for name in silence.tensors)


# --- what cannot be mixed -----------------------------------------------------------------------


def unmixable(analysis: Analysis, choices: Choices) -> dict[str, str]:
    """Knobs of the largest network with several values that cannot be mixed before the operator, each with the reason.

    analysis: of the largest network.
    """
    found: dict[str, str] = {}
    for block in choices.blocks:
        for tail in block.candidates[0]:
            name = f"{block.name}.{tail}"
            values = {row[tail] for row in block.candidates}
            why = _why_not(analysis, name, values) if len(values) > 1 else None
            if why is not None:
                found[name] = why
    return found


def _why_not(analysis: Analysis, name: str, values: set[int]) -> str | None:
    atom, grouping = analysis.atoms.get(name), analysis.groups.get(name)
    if atom is not None:
        return atom.drift
    if grouping is not None:
        fitting = possible(grouping.rows, grouping.columns, grouping.inputs)
        odd = sorted(values - set(fitting))
        return f"{odd[0]} groups do not divide the channels of the largest network" if odd else None
    return None


def without(choices: Choices, knobs: Mapping[str, str]) -> Choices:
    """The choices with these knobs at the value they have in the largest member."""
    largest = choices.largest()
    blocks = []
    for block, k in zip(choices.blocks, largest, strict=True):
        tied = {tail: value for tail, value in block.candidates[k].items() if f"{block.name}.{tail}" in knobs}
        rows = tuple(row for row in block.candidates if all(row[tail] == value for tail, value in tied.items()))
        blocks.append(dataclasses.replace(block, candidates=rows))
    return dataclasses.replace(choices, blocks=tuple(blocks))
