"""The member nearest to the seed within budgets, by the distances of single changes and then of whole members. Nothing is trained.

    Δ_bc = d(the seed with block b as candidate c)       min Σ_b Δ_b,c(b)  within the budgets: an integer program
    then members near its optimum are measured whole, and one or two blocks of the best one are changed while that brings it nearer

What the whole members' distances say beyond the sum goes into the prediction of the next ones: d(m) ≈ a + s · Σ Δ + Σ u_b,c(b), with
a and s by least squares and u by ridge regression of what is left.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fnatool.search.config import Distance
from fnatool.search.distance import Meter, changes
from fnatool.search.sampling import Member
from fnatool.search.solver import Budget, Scores, likeliest
from passes.errors import UserError
from passes.network.analysis import Analysis
from passes.network.knobs import block_knob
from passes.space.space import SKIP, Choices, own_choices

Done = Callable[[int], None]
Predict = Callable[[Sequence[Member]], npt.NDArray[np.float64]]
SAME = 1e-9  # what computes the seed's features but for rounding: nothing is nearer
TRIED = 8  # members that are measured before the prediction is made anew
PATIENCE = 2  # times that so many are tried and none is nearer: then the best one stays
RIDGE = 2.0  # λ: about as many measurements as it takes to believe that a single choice is other than its Δ says


def silent(count: int) -> None:
    """Nobody is told how many more are done."""


def nearest_member(analysis: Analysis, choices: Choices) -> Member:
    """The member that is the seed, as far as the space has it: of other blocks the candidate whose values are nearest to its."""
    found = []
    for block, own in zip(choices.blocks, own_choices(analysis, choices), strict=True):
        seed = [analysis.knobs[block_knob(block.stage, block.source, tail)].value for tail in block.candidates[0]]
        rows = [sum(abs(np.log(value / at)) for value, at in zip(row.values(), seed, strict=True)) for row in block.candidates]
        found.append(int(np.argmin(rows)) if own is None else own)
    return tuple(found)


def table(meter: Meter, base: Member, done: Done = silent) -> list[list[float]]:
    """Δ: per block the distance of each change of the base there alone, that of skipping it last where it can be."""
    rows = changes(meter.members.choices, base)
    found = iter(meter.around(base, [member for row in rows for member in row], done))
    return [[next(found) for _ in row] for row in rows]


def scores_of(deltas: Sequence[Sequence[float]]) -> list[list[float]]:
    """What the solver maximises, −Δ. A change after which nothing is a number is as bad as all others together."""
    worst = sum(max((value for value in row if np.isfinite(value)), default=0.0) for row in deltas) + 1.0
    return [[-value if np.isfinite(value) else -worst for value in row] for row in deltas]


def choose(meter: Meter, scores: Scores, budgets: Sequence[Budget], how: Distance, *, done: Done = silent) -> Member:
    """The nearest of the members within the budgets that were measured whole: at most `how.members`, fewer where swaps bring nothing.

    Raises UserError where no member keeps the budgets, or none of those measured has finite features.
    """
    choices = meter.members.choices
    best = likeliest(choices, scores, budgets)
    known = dict(zip([best], meter.of([best], done), strict=True))
    vain = 0
    while len(known) < how.members and known[best] > SAME and vain < PATIENCE:
        others = [member for member in swapped(choices, best, budgets) if member not in known]
        if not others:
            break
        order = np.argsort(predicted(choices, scores, known)(others), kind="stable")
        tried = [others[k] for k in order[: min(TRIED, how.members - len(known))]]
        known |= zip(tried, meter.of(tried, done), strict=True)
        nearest = min(known, key=lambda member: known[member])
        vain = vain + 1 if nearest == best else 0
        best = nearest
    if not np.isfinite(known[best]):
        raise UserError(f"none of the {len(known)} architectures within the budget that were looked at has finite features")
    return best


def swapped(choices: Choices, member: Member, budgets: Sequence[Budget]) -> list[Member]:
    """All members within the budgets that differ from this one in one or two blocks."""
    single = [(b, k) for b, ways in enumerate(_ways(choices)) for k in ways if k != member[b]]
    pairs = ((one, other) for one, other in itertools.combinations(single, 2) if one[0] != other[0])
    found = []
    for swap in (*((one,) for one in single), *pairs):
        changed = list(member)
        for block, way in swap:
            changed[block] = way
        if _is_within(choices, changed, budgets):
            found.append(tuple(changed))
    return found


def predicted(choices: Choices, scores: Scores, known: Mapping[Member, float]) -> Predict:
    """The distances of members as those known and Σ Δ say: at first Σ Δ alone."""
    deltas = -np.concatenate([np.asarray(row, float) for row in scores])
    finite = {member: value for member, value in known.items() if np.isfinite(value)}
    if len(finite) < 2:
        return lambda members: _rows(choices, members) @ deltas
    rows, values = _rows(choices, list(finite)), np.array(list(finite.values()))
    sums = np.stack([np.ones(len(values)), rows @ deltas], 1)
    line = np.linalg.lstsq(sums, values, rcond=None)[0]
    own = rows.T @ np.linalg.solve(rows @ rows.T + RIDGE * np.eye(len(values)), values - sums @ line)
    slope = max(float(line[1]), 0.0)  # few that lie close together may say that what changes less is farther

    def predict(members: Sequence[Member]) -> npt.NDArray[np.float64]:
        found = _rows(choices, members)
        return np.asarray(slope * (found @ deltas) + found @ own)

    return predict


def _rows(choices: Choices, members: Sequence[Member]) -> npt.NDArray[np.float64]:
    """[members, changes]: 1 for each block's choice; a skipped block has its last column."""
    starts = np.cumsum([0, *(len(ways) for ways in _ways(choices))])
    found = np.zeros((len(members), int(starts[-1])))
    for k, member in enumerate(members):
        ends = [start + choice if choice != SKIP else end - 1 for start, end, choice in zip(starts, starts[1:], member, strict=False)]
        found[k, ends] = 1
    return found


def _ways(choices: Choices) -> list[list[int]]:
    """Per block its candidates, and SKIP where that is possible."""
    return [[*range(len(block.candidates)), *([SKIP] if block.skippable else [])] for block in choices.blocks]


def _is_within(choices: Choices, member: Sequence[int], budgets: Sequence[Budget]) -> bool:
    """It is a member, and keeps the budgets."""
    if any(budget.table.of(member) > budget.limit for budget in budgets):
        return False
    try:
        choices.require_member(member)
    except UserError:
        return False
    return True
