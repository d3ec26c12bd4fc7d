"""Which pixels an outline holds: those whose middles are in it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def filled(points: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """[h, w], true where the middle of the pixel is in the polygon of these corners [n, 2] (x, y), by the even-odd
    rule.
    """
    # in each row, how often the outline is crossed just before a pixel's middle
    turns = np.zeros((size[0], size[1] + 1), np.int32)
    corners = points.astype(np.float64)
    for (x, y), (to_x, to_y) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        rows = np.arange(*sorted((_first(y, size[0]), _first(to_y, size[0]))))
        if rows.size:
            crossing = x + (rows + 0.5 - y) / (to_y - y) * (to_x - x)
            np.add.at(turns, (rows, np.clip(np.ceil(crossing - 0.5), 0, size[1]).astype(int)), 1)
    inside: npt.NDArray[np.bool_] = turns.cumsum(1)[:, :-1] % 2 == 1
    return inside


def _first(y: float, height: int) -> int:
    """The first row whose middle is at y or below."""
    return int(np.clip(np.ceil(y - 0.5), 0, height))
