"""Anchors: how a detector's description says them, and where they are on an input of some size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fnatool.tasks.description import Extent, Positive, Strict

Size = tuple[int, int]  # height, width of the input


class Level(Strict):
    """The anchors of one feature map: at every position one for each (size, ratio), in that order.

    `stride` is (down, across), in pixels. The position in row y and column x has its centre at ((x + ½) · across, (y +
    ½) · down) of the input; an anchor there is size / √ratio wide and size · √ratio high. The map of an input of H rows
    has ⌈H / down⌉ rows.
    """

    stride: tuple[Extent, Extent]
    sizes: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=64)]
    ratios: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if len(self.sizes) != len(self.ratios):
            raise ValueError(
                f"every anchor has a size and a ratio, but there are {len(self.sizes)} sizes and "
                f"{len(self.ratios)} ratios"
            )
        return self


def counts(levels: Sequence[Level], size: Size) -> tuple[int, ...]:
    """How many anchors each level has on an input of that size."""
    return tuple(math.prod(_positions(level, size)) * len(level.sizes) for level in levels)


def anchors(levels: Sequence[Level], size: Size) -> npt.NDArray[np.float32]:
    """[A, 4] left, top, right, bottom of all anchors in pixels of the input: level by level, row by row, (size, ratio)
    by (size, ratio).
    """
    return np.concatenate([_of_level(level, size) for level in levels])


def _of_level(level: Level, size: Size) -> npt.NDArray[np.float32]:
    (rows, columns), (down, across) = _positions(level, size), level.stride
    y, x = np.meshgrid((np.arange(rows) + 0.5) * down, (np.arange(columns) + 0.5) * across, indexing="ij")
    centres = np.stack([x, y, x, y], -1)[:, :, None]  # [rows, columns, 1, 4]
    sizes, roots = np.array(level.sizes), np.sqrt(level.ratios)
    half = np.stack([sizes / roots, sizes * roots], -1) / 2  # [anchors, 2] width and height
    corners = centres + np.concatenate([-half, half], -1)
    return np.asarray(corners.reshape(-1, 4), np.float32)


def _positions(level: Level, size: Size) -> tuple[int, int]:
    return math.ceil(size[0] / level.stride[0]), math.ceil(size[1] / level.stride[1])
