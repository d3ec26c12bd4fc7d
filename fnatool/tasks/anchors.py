"""Anchors as `description.Level` says them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fnatool.tasks.description import Level

Size = tuple[int, int]  # height, width of the input


def counts(levels: Sequence[Level], size: Size) -> tuple[int, ...]:
    """How many anchors each level has on an input of that size."""
    return tuple(math.prod(_positions(level, size)) * len(level.sizes) for level in levels)


def anchors(levels: Sequence[Level], size: Size) -> npt.NDArray[np.float32]:
    """[A, 4] left, top, right, bottom of all anchors in pixels of the input: level by level, row by row, (size, ratio) by (size, ratio)."""
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
