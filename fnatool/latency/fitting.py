"""t(member) = a + b · Σ of its parts, fitted on members that were timed whole; and the members to fit it on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from passes.errors import UserError
from passes.space.costs import Table
from passes.space.space import SKIP, Choices

DRAWS = 40  # random members for each that is taken
LEANING = 3.0  # how far a draw may lean towards cheap or dear candidates: weights from e^−3 to e^3

Member = tuple[int, ...]


@dataclass(frozen=True)
class Fit:
    """a in nanoseconds and b, the mean of |predicted / measured − 1|, and the same where each member is predicted
    without itself.
    """

    a: float
    b: float
    error: float
    error_left_out: float

    def of(self, total: float) -> float:
        """The nanoseconds of a member whose parts sum to so many."""
        return self.a + self.b * total


def fit(sums: Sequence[float], measured: Sequence[float]) -> Fit:
    """The a and b of the least squares of relative errors, Σ ((a + b·s − t) / t)².

    Raises UserError where members do not get slower with their parts: then what was measured is noise.
    """
    s, t = np.array(sums, float), np.array(measured, float)
    a, b = _least_squares(s, t)
    if b <= 0:
        raise UserError(
            "whole members do not get slower with their parts: the machine was too busy to measure on; give "
            "more --rounds"
        )
    left_out = []
    for k in range(len(s)):
        others = np.arange(len(s)) != k
        rest = _least_squares(s[others], t[others])
        left_out.append(abs((rest[0] + rest[1] * s[k]) / t[k] - 1))
    return Fit(a, b, float(np.mean(abs((a + b * s) / t - 1))), float(np.mean(left_out)))


def _least_squares(s: np.ndarray, t: np.ndarray) -> tuple[float, float]:
    if np.ptp(s) == 0:  # one point, or the same one again: no intercept can be told
        return 0.0, float(np.linalg.lstsq((s / t)[:, None], np.ones(len(t)), rcond=None)[0][0])
    a, b = np.linalg.lstsq(np.stack([1 / t, s / t], 1), np.ones(len(t)), rcond=None)[0]
    return float(a), float(b)


def applied(found: Fit, table: Table) -> Table:
    """The Table whose sums are a + b · those of the given one, in whole nanoseconds."""
    return Table(
        round(found.of(table.base)), tuple(tuple(round(found.b * cost) for cost in row) for row in table.blocks)
    )


# --- members ------------------------------------------------------------------------------------


def random_member(found: Choices, rng: np.random.Generator) -> Member:
    """A member with every choice of a block, skipping among them, equally likely; a stage with too few blocks gets some
    back.
    """
    return _drawn(found, [list(range(len(block.candidates))) for block in found.blocks], 0.0, rng)


def spread(found: Choices, table: Table, count: int, seed: int) -> tuple[Member, ...]:
    """Up to `count` different random members whose costs lie evenly between cheap and dear; the same seed gives the
    same.
    """
    rng = np.random.default_rng(seed)
    ranked = [sorted(range(len(row)), key=row.__getitem__) for row in table.blocks]
    drawn = {_drawn(found, ranked, rng.uniform(-LEANING, LEANING), rng): None for _ in range(count * DRAWS)}
    members = sorted(drawn, key=table.of)
    costs = np.array([table.of(member) for member in members], float)
    chosen: list[int] = []
    for target in np.linspace(costs[0], costs[-1], min(count, len(members))):
        free = [k for k in range(len(members)) if k not in chosen]
        chosen.append(min(free, key=lambda k: abs(costs[k] - target)))
    return tuple(members[k] for k in sorted(chosen))


def _drawn(found: Choices, ranked: Sequence[Sequence[int]], leaning: float, rng: np.random.Generator) -> Member:
    """A member; leaning > 0 makes the last of a block's ranked candidates e^leaning times as likely as skipping it, or
    as its first.
    """
    member = []
    for block, order in zip(found.blocks, ranked, strict=True):
        options = [*([SKIP] if block.skippable else []), *order]
        weights = np.exp(leaning * np.linspace(0, 1, len(options)))
        member.append(options[int(rng.choice(len(options), p=weights / weights.sum()))])
    for _, group in itertools.groupby(range(len(found.blocks)), key=lambda k: found.blocks[k].stage):
        inside = list(group)
        skipped = [k for k in inside if member[k] == SKIP]
        lacking = found.least[found.blocks[inside[0]].stage] - (len(inside) - len(skipped))
        for k in rng.permutation(skipped).tolist()[: max(lacking, 0)]:
            member[k] = int(rng.choice(ranked[k]))
    return tuple(member)
