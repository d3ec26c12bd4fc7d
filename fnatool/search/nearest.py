"""The member nearest to the seed within budgets, by the distances of single changes and then of whole members. Nothing
is trained.

    Δ_bc = d(the seed with block b as candidate c)       min Σ_b Δ_b,c(b)  within the budgets: an integer program
    then members near its optimum are measured whole, and one or two blocks of the best one are changed
    while that brings it nearer

What the whole members' distances say beyond the sum goes into the prediction of the next ones: d(m) ≈ a + s · Σ Δ + Σ
u_b,c(b), with a and s by least squares and u by ridge regression of what is left.

All this with each trunk that may have something nearer, its Δ measured anew: those with the seed's trunk order
candidates otherwise (rank correlation 0.04 … 0.18 on a network whose BatchNormalization is folded). d(m) ≈ d(nearest
with the trunk) + Σ (Δ − d(nearest with it)).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fnatool.search.config import Distance
from fnatool.search.distance import Meter, changes
from fnatool.search.sampling import Member
from fnatool.search.solver import Budget, Scores, likeliest, pareto, score_of
from fnatool.search.trunks import Pick, Trunk, require_cheap
from passes.errors import UserError
from passes.network.analysis import Analysis
from passes.network.knobs import block_knob
from passes.space.costs import extremes
from passes.space.space import SKIP, Choices, own_choices

Done = Callable[[int], None]
Predict = Callable[[Sequence[Member]], npt.NDArray[np.float64]]
SAME = 1e-9  # what computes the seed's features but for rounding: nothing is nearer
TRIED = 8  # members that are measured before the prediction is made anew
PATIENCE = 2  # times that so many are tried and none is nearer: then the best one stays
BEYOND = 1.5  # times: distances beyond 1 order members little
RIDGE = 2.0  # λ: about as many measurements as it takes to believe that a single choice is other than its Δ says


def silent(count: int) -> None:
    """Nobody is told how many more are done."""


def nearest_member(analysis: Analysis, choices: Choices) -> Member:
    """The member that is the seed, as far as the space has it: of other blocks the candidate whose values are nearest
    to its.
    """
    found = []
    for block, own in zip(choices.blocks, own_choices(analysis, choices), strict=True):
        seed = [analysis.knobs[block_knob(block.stage, block.source, tail)].value for tail in block.candidates[0]]
        rows = [
            sum(abs(np.log(value / at)) for value, at in zip(row.values(), seed, strict=True))
            for row in block.candidates
        ]
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
    """The nearest of the members within the budgets that were measured whole: at most `how.members`, fewer where swaps
    bring nothing.

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
        raise UserError(
            f"none of the {len(known)} architectures within the budget that were looked at has finite features"
        )
    return best


def nearest_of(
    trunks: Sequence[Trunk],
    starts: Sequence[float],
    budgets: Sequence[Budget],
    best: Callable[[Trunk], tuple[Member, float]],
) -> Pick:
    """The nearest member within the budgets over all trunks, of those at the same distance that with the first of
    these.

    starts: the distance of each trunk with nothing else changed, in whose order they are asked. What has been found is
    seldom beaten with a trunk that starts farther, which is not asked; but beyond 1, as far as features are from their
    mean, by one that starts less than `BEYOND` times as far. best: the nearest member within the budgets with a trunk,
    and its distance. Raises UserError where no member keeps the budgets, or with no trunk any has finite features.
    """
    require_cheap(trunks, budgets)
    found: tuple[float, Pick] | None = None
    refused: list[UserError] = []
    for start, trunk in sorted(zip(starts, trunks, strict=True), key=lambda pair: pair[0]):
        if not trunk.keeps(budgets) or (found is not None and start >= found[0] * (BEYOND if found[0] > 1 else 1)):
            continue
        try:
            member, distance = best(trunk)
        except UserError as error:
            refused.append(error)
            continue
        if found is None or distance < found[0]:
            found = distance, Pick(trunk, member)
    if found is None:
        raise (
            refused[0]
            if refused
            else UserError("no member of this space keeps all these budgets at once; allow one of them more")
        )
    return found[1]


@dataclass(frozen=True)
class Predicted:
    """What single changes say of whole members, by the number of the trunk: `scores` as −Δ, and what is to be added to
    Σ Δ.
    """

    scores: Mapping[int, Scores]
    offsets: Mapping[int, float]

    def distance(self, pick: Pick) -> float:
        """Of a member, without measuring it."""
        return self.offsets[pick.trunk.number] - score_of(self.scores[pick.trunk.number], pick.member)

    def nearest(self, trunks: Sequence[Trunk], budgets: Sequence[Budget]) -> Pick:
        """The member within the budgets that is predicted to be nearest. Raises UserError where none keeps them."""
        require_cheap(trunks, budgets)
        picks = []
        for trunk in trunks:
            if trunk.keeps(budgets):
                with suppress(UserError):  # that keeps each of the budgets, but not all at once
                    picks.append(
                        Pick(trunk, likeliest(trunk.choices, self.scores[trunk.number], trunk.within(budgets)))
                    )
        if not picks:
            raise UserError("no member of this space keeps all these budgets at once; allow one of them more")
        return min(picks, key=self.distance)

    def front(self, trunks: Sequence[Trunk], kind: str, limit: int | None, count: int) -> list[tuple[Pick, int]]:
        """Up to `count` members with their costs, the dearer the nearer, from the cheapest to the best within the
        limit, if any.
        """
        rows: list[tuple[int, float, int, Pick]] = []
        for trunk in trunks:
            table = trunk.tables[kind]
            low, high = extremes(table, trunk.choices)
            if limit is None or low <= limit:
                for one in pareto(
                    trunk.choices,
                    self.scores[trunk.number],
                    Budget(kind, high if limit is None else limit, table),
                    count,
                ):
                    pick = Pick(trunk, one.member)
                    rows.append((one.cost, self.distance(pick), trunk.number, pick))
        if not rows and limit is not None:
            require_cheap(trunks, [Budget(kind, limit, trunks[0].tables[kind])])
        kept: list[tuple[Pick, int]] = []
        least = math.inf
        for cost, distance, _, pick in sorted(rows, key=lambda row: row[:3]):
            if distance < least:
                kept.append((pick, cost))
                least = distance
        places = dict.fromkeys(np.linspace(0, len(kept) - 1, min(count, len(kept))).round().astype(int).tolist())
        return [kept[k] for k in places]


def predictions(starts: Mapping[int, float], base: Member, scores: Mapping[int, Scores]) -> Predicted:
    """What distances of the base with each trunk come to, and scores of single changes with some: the first's serve
    those without.
    """
    whole = {number: scores.get(number, scores[0]) for number in starts}
    return Predicted(whole, {number: start + score_of(whole[number], base) for number, start in starts.items()})


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
        ends = [
            start + choice if choice != SKIP else end - 1
            for start, end, choice in zip(starts, starts[1:], member, strict=False)
        ]
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
