"""What the axes of a tensor count: positions in the image, before and after the change, or plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True, slots=True)
class Side:
    """One extent of a map in space, before and after the change.

    `axis`: the input and its axis that it comes from; `stride`: pixels of the image from one sample to the next,
    afterwards (None: no one number); `old`, `new`: how many samples; `rate`: samples afterwards per sample before.
    """

    axis: tuple[str, int]
    stride: Fraction | None
    old: int
    new: int
    rate: int = 1

    @property
    def changed(self) -> bool:
        """Whether it has other samples than before."""
        return self.new != self.old or self.rate != 1


@dataclass(frozen=True, slots=True)
class Pooled:
    """What a window as large as the map leaves of an extent: one sample. Its node stays global when the map grows.

    Where a map of one position is combined with it, or a window, a resampling or another pooling runs over it, it was a
    window after all.
    """

    node: str


Factor = int | Side | Pooled
Content = tuple[Factor, ...]
"""What an axis counts, row-major; () is one, and no factor is the number 1."""
Axes = tuple[Content, ...]


@dataclass(frozen=True)
class Map:
    """The axes of a tensor that comes from the image; `averaged`: the first node on the way here that looked at a whole
    finer map.
    """

    axes: Axes
    averaged: str = ""


@dataclass(frozen=True)
class Sampling:
    """The samples of a finer tensor that the coarser one had: split into `sizes`, every `steps`-th of each, joined to
    `shape`.
    """

    sizes: Sequence[int]
    steps: Sequence[int]
    shape: Sequence[int]

    def of(self, array: np.ndarray) -> np.ndarray:
        """The sampled tensor."""
        return array.reshape(self.sizes)[tuple(slice(None, None, step) for step in self.steps)].reshape(self.shape)


def plain(shape: Sequence[int]) -> Axes:
    """Axes that count nothing in space."""
    return tuple(map(count, shape))


def count(number: int) -> Content:
    """An axis of so many entries that are no positions."""
    return () if number == 1 else (number,)


def before(factor: Factor) -> int:
    """The factor's size before the change."""
    return factor if isinstance(factor, int) else factor.old if isinstance(factor, Side) else 1


def after(factor: Factor) -> int:
    """The factor's size after the change."""
    return factor if isinstance(factor, int) else factor.new if isinstance(factor, Side) else 1


def size_before(content: Content) -> int:
    """The axis' size before the change."""
    return math.prod(map(before, content))


def size_after(content: Content) -> int:
    """The axis' size after the change."""
    return math.prod(map(after, content))


def sides(content: Content) -> list[Side]:
    """The extents of maps in an axis."""
    return [factor for factor in content if isinstance(factor, Side)]


def has_space(content: Content) -> bool:
    """Whether the axis counts positions, or what a window over all of them left."""
    return any(not isinstance(factor, int) for factor in content)


def changed(content: Content) -> bool:
    """Whether the axis has other samples than before."""
    return any(side.changed for side in sides(content))


def finer(content: Content) -> bool:
    """Whether the axis has samples between those it had."""
    return any(side.rate != 1 and side.new != side.old for side in sides(content))


def one_side(content: Content) -> Side | None:
    """The extent that is all the axis counts; positions and the parts that each is cut into are the positions of a
    finer map.
    """
    if not content or not isinstance(content[0], Side):
        return None
    side, parts = content[0], [factor for factor in content[1:] if isinstance(factor, int)]
    if len(content) == 1:
        return side
    if len(parts) < len(content) - 1 or side.rate != 1:
        return None
    by = math.prod(parts)
    return Side(side.axis, None if side.stride is None else side.stride / by, side.old * by, side.new * by)
