"""Least squares that shrinks: against numpy's own on tiny systems, and what it comes to at both ends."""

from __future__ import annotations

import numpy as np
import pytest

from fnatool.model.least_squares import STRENGTHS, best, solved
from fnatool.nn.moments import PositionSums

Arrays = tuple[np.ndarray, np.ndarray]


def moments(read: np.ndarray, missing: np.ndarray) -> PositionSums:
    """The sums over positions of [groups, reads, n] and [groups, rows, n]."""
    wide = np.concatenate([read, np.ones((read.shape[0], 1, read.shape[2]))], 1)
    return PositionSums(
        read.shape[2],
        wide @ wide.transpose(0, 2, 1),
        missing @ wide.transpose(0, 2, 1),
        float(np.square(missing).sum()),
    )


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def direct(read: np.ndarray, missing: np.ndarray, strength: float) -> np.ndarray:
    """The same written as a longer system, of one group: rows √λ that ask for 0."""
    wide = np.concatenate([read[0], np.ones((1, read.shape[2]))])
    root = np.sqrt(strength * np.array([np.square(read).sum() / read.shape[1]] * read.shape[1] + [read.shape[2]]))
    asked = np.concatenate([missing[0].T, np.zeros((len(root), missing.shape[1]))])
    return np.asarray(np.linalg.lstsq(np.concatenate([wide.T, np.diag(root)]), asked, rcond=None)[0].T)[None]


def test_without_strength_it_is_plain_least_squares() -> None:
    read, missing = noise(1, 4, 30), noise(1, 3, 30)
    wide = np.concatenate([read[0], np.ones((1, 30))])
    expected = np.linalg.lstsq(wide.T, missing[0].T, rcond=None)[0].T
    np.testing.assert_allclose(solved(moments(read, missing), 0)[0], expected, atol=1e-10)


def test_without_strength_the_least_change_is_found_where_many_fit() -> None:
    read, missing = noise(1, 9, 4), noise(1, 3, 4)
    found = solved(moments(read, missing), 0)
    wide = np.concatenate([read[0], np.ones((1, 4))])
    np.testing.assert_allclose(found[0] @ wide, missing[0], atol=1e-6)


def test_with_all_strength_nothing_changes() -> None:
    found = solved(moments(noise(1, 4, 30), noise(1, 3, 30)), 1e15)
    assert np.abs(found).max() < 1e-12


@pytest.mark.parametrize("strength", [1e-4, 0.1, 3.0])
def test_in_between_it_is_the_longer_system(strength: float) -> None:
    read, missing = 5 * noise(1, 4, 30) + 2, noise(1, 3, 30)
    np.testing.assert_allclose(solved(moments(read, missing), strength), direct(read, missing, strength), atol=1e-9)


def test_groups_are_solved_each_for_itself() -> None:
    read, missing = noise(2, 4, 30), noise(2, 3, 30)
    scale = np.square(read).sum((1, 2), keepdims=True)
    read = read / np.sqrt(scale)  # of one scale, which is common to all groups
    both = solved(moments(read, missing), 0.1)
    for group in range(2):
        alone = solved(moments(read[group : group + 1], missing[group : group + 1]), 0.1)
        np.testing.assert_allclose(both[group], alone[0], atol=1e-9)


def test_a_dead_input_changes_nothing() -> None:
    sums = moments(np.zeros((1, 4, 30)), noise(1, 3, 30))
    assert not solved(sums, 0.1).any()
    assert best(sums, sums) is None


def linear(count: int, noisy: float, seed: int) -> Arrays:
    """What three rows miss, as a fixed linear function of twelve reads, with noise."""
    read = noise(1, 12, count, seed=seed)
    return read, np.random.default_rng(5).standard_normal((1, 3, 12)) @ read + noisy * noise(
        1, 3, count, seed=seed + 10
    )


def test_what_is_linear_is_found_with_the_least_strength() -> None:
    change = best(moments(*linear(200, 0, 1)), moments(*linear(50, 0, 2)))
    assert change is not None
    assert change.strength == STRENGTHS[0]
    assert change.after < 1e-6 * change.before


def test_few_noisy_positions_take_more_strength_than_many() -> None:
    few = best(moments(*linear(15, 3, 1)), moments(*linear(400, 3, 2)))
    many = best(moments(*linear(4000, 3, 1)), moments(*linear(400, 3, 2)))
    assert few is not None
    assert many is not None
    assert few.strength > many.strength


def test_the_distance_said_is_that_on_what_was_kept_back() -> None:
    used, (read, missing) = moments(*linear(100, 1, 1)), linear(50, 1, 2)
    change = best(used, moments(read, missing))
    assert change is not None
    wide = np.concatenate([read, np.ones((1, 1, 50))], 1)
    assert change.after == pytest.approx(np.square(missing - change.rows @ wide).sum())
    assert change.before == pytest.approx(np.square(missing).sum())


def test_noise_alone_helps_nothing_and_changes_nothing() -> None:
    assert (
        best(moments(noise(1, 30, 40), noise(1, 3, 40)), moments(noise(1, 30, 300, seed=1), noise(1, 3, 300, seed=1)))
        is None
    )
