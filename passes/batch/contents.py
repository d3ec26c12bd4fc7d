"""What the axes of a tensor count, where samples are among it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from passes.graph.tensors import Shape

SAMPLES: Literal["samples"] = "samples"
Factor = int | Literal["samples"]
Content = tuple[Factor, ...]
"""What an axis counts, row-major: the samples, and numbers; () is one."""
Axes = tuple[Content, ...]


class Mixed(Exception):
    """Samples cannot be told apart beyond a node, or another number of them has no place there: the reason."""


def number(size: int) -> Content:
    """An axis of so many entries that are no samples."""
    return () if size == 1 else (size,)


def without_samples(shape: Sequence[int]) -> Axes:
    """Axes none of which counts samples."""
    return tuple(map(number, shape))


def counts_samples(content: Content) -> bool:
    """Whether samples are among what the axis counts."""
    return SAMPLES in content


def any_samples(axes: Axes) -> bool:
    """Whether any axis counts samples."""
    return any(map(counts_samples, axes))


def size_at(content: Content, samples: int) -> int:
    """The size of the axis with so many samples."""
    return math.prod(samples if factor == SAMPLES else factor for factor in content)


def shape_at(axes: Axes, samples: int) -> Shape:
    """The shape with so many samples."""
    return tuple(size_at(content, samples) for content in axes)


def scaled(old: int, new: int, samples: tuple[int, int]) -> Content:
    """What an axis counts that has another size where there are other samples; samples: before and after. Raises
    Mixed.
    """
    if old == new:
        return number(old)
    before, after = samples
    if old * after != new * before or old % before:
        raise Mixed(f"an axis of {old} would be one of {new} with {after} samples instead of {before}")
    return (SAMPLES, *number(old // before))
