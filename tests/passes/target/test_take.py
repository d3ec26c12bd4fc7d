"""What the fresh entries of a tensor hold."""

from __future__ import annotations

import numpy as np
import pytest

from passes.target import take
from passes.target.take import Along, Take, taken


def grown(size: int, by: int, role: str) -> Along:
    """An axis of `size` entries that gets `by` more at its end, by rule."""
    index = np.array([*range(size), *[-1] * by])
    return Along(index, np.where(index < 0, 0, index), role, index < 0)


OLD = np.arange(6 * 5 * 3 * 3, dtype=np.float32).reshape(6, 5, 3, 3)
WIDER = Take("w", "w", {0: grown(6, 4, "creates"), 1: grown(5, 2, "consumes")})


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_noise_is_the_same_however_much_is_drawn_at_a_time(
    axes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    wider = Take("w", "w", {axis: WIDER.axes[axis] for axis in axes})
    whole = taken(wider, OLD, "fna", (0, 7))
    assert (whole[:6, :5] == OLD).all()
    assert 0 < np.abs(whole[6:]).max(initial=np.abs(whole[:, 5:]).max(initial=0)) < 1e-4
    monkeypatch.setattr(take, "ROUND", 1)
    np.testing.assert_array_equal(taken(wider, OLD, "fna", (0, 7)), whole)


def test_noise_comes_in_the_order_of_new_columns_then_new_rows() -> None:
    new = taken(WIDER, OLD, "fna", 3)
    drawn = np.random.default_rng(3).uniform(-1, 1, 6 * 2 * 9 + 4 * 7 * 9) * take.FNA_NOISE * np.sqrt(6 / (7 * 9))
    np.testing.assert_allclose(np.concatenate([new[:6, 5:].ravel(), new[6:].ravel()]), drawn, rtol=1e-6)


def test_where_nothing_is_fresh_no_noise_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np.random, "default_rng", None)
    kept = np.array([0, 2])
    narrower = Take("w", "w", {0: Along(kept, kept, "creates", np.zeros(2, bool))})
    np.testing.assert_array_equal(taken(narrower, OLD, "fna", 0), OLD[kept])
