"""Pixels of an outline are those whose middles are in it."""

from __future__ import annotations

import numpy as np
import pytest

from fnatool.data.outlines import filled


def of(*points: tuple[float, float]) -> list[list[int]]:
    return filled(np.array(points, np.float32), (3, 4)).astype(int).tolist()


def test_a_rectangle_of_whole_pixels_holds_them_alone() -> None:
    assert of((1, 1), (3, 1), (3, 2), (1, 2)) == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("shift", [-0.4, 0.4])
def test_less_than_half_a_pixel_changes_nothing(shift: float) -> None:
    assert of((1 + shift, 1), (3, 1), (3, 2 + shift), (1 + shift, 2 + shift)) == [
        [0, 0, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 0, 0],
    ]


def test_neighbours_share_no_pixel_and_leave_none() -> None:
    one = filled(np.array([(0, 0), (2.5, 0), (1.5, 3), (0, 3)], np.float32), (3, 4))
    other = filled(np.array([(2.5, 0), (4, 0), (4, 3), (1.5, 3)], np.float32), (3, 4))
    assert (one ^ other).all()


def test_a_triangle_and_the_direction_does_not_matter() -> None:
    corners = [(0.0, 0.0), (4.0, 0.0), (0.0, 3.0)]
    assert of(*corners) == of(*reversed(corners)) == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]


def test_an_outline_that_crosses_itself_is_even_odd() -> None:
    assert sum(map(sum, of((0, 0), (4, 0), (0, 3), (4, 3)))) < 12
