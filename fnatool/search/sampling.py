"""Which member a weight step trains: a pure function of seed and step, so that a run resumed anywhere draws what it
would have drawn.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from passes.space.space import SKIP, Choices

Member = tuple[int, ...]


def uniform(choices: Choices) -> list[list[float]]:
    """Every candidate of a block alike, and skipping it where possible."""
    counts = [len(block.candidates) + block.skippable for block in choices.blocks]
    return [[1 / count] * count for count in counts]


def sample(choices: Choices, probabilities: Sequence[Sequence[float]], *, seed: int, step: int) -> Member:
    """A member drawn block by block, given that every stage keeps as many blocks as it has to.

    probabilities: per block one per candidate, and one more for skipping where that is possible; they need not add up
    to 1.
    """
    rng = np.random.default_rng([seed, step])
    member: list[int] = []
    for i, group in itertools.groupby(range(len(choices.blocks)), key=lambda k: choices.blocks[k].stage):
        member += _stage(choices, probabilities, (list(group), choices.least[i]), rng)
    return tuple(member)


def _stage(
    choices: Choices, probabilities: Sequence[Sequence[float]], stage: tuple[list[int], int], rng: np.random.Generator
) -> list[int]:
    """The choices of a stage's blocks, of which at least so many stay."""
    blocks, least = stage
    rows = [np.asarray(probabilities[k], float) for k in blocks]
    counts = [len(choices.blocks[k].candidates) for k in blocks]
    keeps = [float(row[:count].sum() / row.sum()) for row, count in zip(rows, counts, strict=True)]
    enough = _enough(keeps, least)
    chosen = []
    for j, (row, count) in enumerate(zip(rows, counts, strict=True)):
        draws = rng.random(2)
        stays, goes = keeps[j] * enough[j + 1][max(least - 1, 0)], (1 - keeps[j]) * enough[j + 1][least]
        keep = len(row) == count or len(blocks) - j <= least or draws[0] * (stays + goes) < stays
        chosen.append(_pick(row[:count], draws[1]) if keep else SKIP)
        least = max(least - keep, 0)
    return chosen


def _enough(keeps: Sequence[float], least: int) -> list[list[float]]:
    """[j][n]: the probability that of the blocks from j on at least n stay."""
    found = [[1.0] + [0.0] * least]
    for keep in reversed(keeps):
        after = found[0]
        found.insert(0, [1.0] + [keep * after[n - 1] + (1 - keep) * after[n] for n in range(1, least + 1)])
    return found


def _pick(weights: np.ndarray, draw: float) -> int:
    """The candidate at which the cumulated weights pass the draw; where all are zero, any."""
    total = np.cumsum(weights if weights.sum() > 0 else np.ones_like(weights))
    return int(min(np.searchsorted(total, draw * total[-1], side="right"), len(weights) - 1))
