"""A Take done by torch: the part of a weight that a smaller network has of it, as a view where its positions are a run.

Only what shrinks can be a slice: a Take with fresh entries is none, except for the zeros between the groups of a
convolution.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from passes.target.take import Take

Slice = Callable[[Tensor], Tensor]


def slicing(take: Take) -> Slice:
    """What takes the target's values of a tensor that has the source's; the gradient of the slice goes to where it lies
    in the whole.

    Raises ValueError for a Take with fresh entries.
    """
    steps: list[Slice] = []
    groups = take.regroup
    if groups is not None and groups.seed != groups.ground:
        steps.append(functools.partial(regrouped, seed=groups.seed, target=groups.ground))
    for axis, along in take.axes.items():
        steps.append(_along(axis, along.index))
    if groups is not None and groups.ground != groups.target:
        steps.append(functools.partial(regrouped, seed=groups.ground, target=groups.target))
    return lambda tensor: functools.reduce(lambda value, step: step(value), steps, tensor)


def _along(axis: int, index: np.ndarray) -> Slice:
    """The positions of one axis: a run is narrowed to, several are joined."""
    if (index < 0).any():
        raise ValueError("a slice has no fresh entries")
    ends = np.flatnonzero(np.diff(index) != 1) + 1
    runs = [(int(run[0]), int(run.size)) for run in np.split(index, ends)]
    if len(runs) == 1:
        return lambda tensor: tensor.narrow(axis, *runs[0])
    return lambda tensor: torch.cat([tensor.narrow(axis, *run) for run in runs], axis)


def regrouped(weight: Tensor, seed: int, target: int) -> Tensor:
    """A convolution's weight of `seed` groups as one of `target` (see passes/groups.py)."""
    merged = math.gcd(seed, target)
    return _cut(_merge(weight, seed, merged), merged, target)


def _merge(weight: Tensor, seed: int, target: int) -> Tensor:
    """Fewer groups: the old ones stand on the diagonal, zeros between them."""
    times = seed // target
    if times == 1:
        return weight
    rows, columns, *taps = weight.shape
    blocks = weight.reshape(target, times, rows // seed, 1, columns, *taps)
    eye = torch.eye(times, dtype=weight.dtype, device=weight.device).reshape(1, times, 1, times, 1, *[1] * len(taps))
    return (blocks * eye).reshape(rows, times * columns, *taps)


def _cut(weight: Tensor, seed: int, target: int) -> Tensor:
    """More groups: the blocks on the diagonal."""
    times = target // seed
    if times == 1:
        return weight
    rows, columns, *taps = weight.shape
    blocks = weight.reshape(seed, times, rows // target, times, columns // times, *taps)
    return blocks.diagonal(0, 1, 3).movedim(-1, 1).reshape(rows, columns // times, *taps)
