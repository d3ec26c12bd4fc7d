"""Preferences for candidates."""

from __future__ import annotations

import numpy as np

from passes.space.space import Choices


def preferences(found: Choices, seed: int) -> list[list[float]]:
    """log p of every candidate, and of skipping."""
    rng = np.random.default_rng(seed)
    return [np.log(rng.dirichlet(np.ones(len(block.candidates) + block.skippable))).tolist() for block in found.blocks]
