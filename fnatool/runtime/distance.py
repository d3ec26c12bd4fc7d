"""How far two networks' values of one tensor are apart, and how far rounding alone may bring them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

TOLERANCE = 1e-4  # of the spread of the values
HALF_TOLERANCE = 2e-3  # for networks that hold 16-bit weights
DOUBLE_TOLERANCE = 1e-7  # for what is computed in float64: far above rounding, far below what float32 lets pass
NUDGE = 1e-6  # relative: about eight units in the last place of a float32
ROUNDING_FACTOR = 10.0  # a planted error moves values by orders of magnitude more


def distance(before: np.ndarray, after: np.ndarray) -> float:
    """max |after − before| / (max − min of before); infinite where the shapes differ, or a value is not finite in one
    of them only.
    """
    if before.shape != after.shape:
        return float("inf")
    if not before.size:
        return 0.0
    before, after = before.astype(np.float64), after.astype(np.float64)
    finite = np.isfinite(before)
    if not np.array_equal(finite, np.isfinite(after)):
        return float("inf")
    if not finite.any():
        return 0.0
    moved = float(np.abs(after[finite] - before[finite]).max())
    spread = float(np.ptp(before[finite])) or float(np.abs(before[finite]).max()) or 1.0
    return moved / spread


def nudged(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs moved by about a rounding error: ROUNDING_FACTOR times what that changes is what rounding may."""
    rng = np.random.default_rng(1)
    return {
        k: (v * (1 + NUDGE * rng.standard_normal(v.shape))).astype(v.dtype) if v.dtype.kind == "f" else v
        for k, v in feeds.items()
    }
