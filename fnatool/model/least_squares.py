"""Least squares that shrinks towards what is there, from sums over all positions.

    D(λ) = argmin  Σ ‖e − D x‖² + λ ‖D‖²  =  (Σ e xᵀ) (Σ x xᵀ + λ I)⁻¹

with e what is missing and x what is read, a 1 at its end, so that W + D(λ) is W for λ → ∞ and plain least
squares for λ → 0 (ridge regression about W; Hoerl and Kennard 1970). The strength is relative: λ = strength ·
the mean of the reads' squares, and for the 1, whose square that is, strength itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

STRENGTHS = tuple(10.0 ** (k / 2) for k in range(-8, 5))  # 1e-4 … 100


class Sums(Protocol):
    """See `fnatool.nn.moments.PositionSums`."""

    @property
    def count(self) -> int: ...

    @property
    def gram(self) -> np.ndarray: ...

    @property
    def cross(self) -> np.ndarray: ...

    @property
    def square(self) -> float: ...


@dataclass(frozen=True)
class LayerChange:
    """What is added to a layer, [groups, rows, reads + 1], the strength it was found with, and Σ e² on what was kept
    back without it and

    with it.
    """

    rows: np.ndarray
    strength: float
    before: float
    after: float


@dataclass(frozen=True)
class Basis:
    """The sums in the basis in which x xᵀ is diagonal, so that every strength is a division: cross [g, rows, d] and
    values [g, d].

    An x is `turn` · its coordinates.
    """

    cross: np.ndarray
    values: np.ndarray
    turn: np.ndarray

    @classmethod
    def of(cls, used: Sums) -> Basis | None:
        """None where nothing is read but zeros."""
        size = used.gram.shape[1]
        squares = np.einsum("gii->gi", used.gram)
        mean = float(squares[:, :-1].mean()) if size > 1 else 1.0
        if mean <= 0:
            return None
        scale = np.full(size, mean)
        scale[-1] = used.count
        whiten = 1 / np.sqrt(scale)
        values, vectors = np.linalg.eigh(used.gram * whiten[:, None] * whiten)
        turn = whiten[:, None] * vectors
        return cls(used.cross @ turn, np.maximum(values, 0), turn)

    def coordinates(self, strength: float) -> np.ndarray:
        """D(λ) in this basis; where strength and value are 0, nothing is known and nothing changes."""
        divisor = self.values + strength
        known = divisor > np.finfo(float).eps * divisor.max()
        return self.cross * np.where(known, 1 / np.where(known, divisor, 1), 0)[:, None, :]

    def rows(self, strength: float) -> np.ndarray:
        """D(λ)."""
        return np.asarray(self.coordinates(strength) @ np.swapaxes(self.turn, 1, 2))


def solved(used: Sums, strength: float) -> np.ndarray:
    """D(λ) [groups, rows, reads + 1]"""
    basis = Basis.of(used)
    return np.zeros_like(used.cross) if basis is None else basis.rows(strength)


def best(used: Sums, kept: Sums, strengths: Sequence[float] = STRENGTHS) -> LayerChange | None:
    """The change of the strength that leaves least missing on what was kept back; None where none helps there."""
    basis = Basis.of(used)
    if basis is None:
        return None
    gram, cross = np.swapaxes(basis.turn, 1, 2) @ kept.gram @ basis.turn, kept.cross @ basis.turn
    left = []
    for strength in strengths:
        found = basis.coordinates(strength)
        # Σ ‖e − D x‖² = Σ e² − 2 ⟨D, Σ e xᵀ⟩ + ⟨D Σ x xᵀ, D⟩
        left.append(kept.square - 2 * float((found * cross).sum()) + float(((found @ gram) * found).sum()))
    least = int(np.argmin(left))
    if not left[least] < kept.square * HELPS:
        return None
    return LayerChange(basis.rows(strengths[least]), strengths[least], kept.square, max(left[least], 0.0))


HELPS = 0.99  # of what is missing without it: what saves less is chance
