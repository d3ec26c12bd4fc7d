"""From learnt preferences to architectures within a budget: an exact multiple-choice problem, solved by integer
programming (HiGHS).

    maximise    Σ_b score(b, c_b)
    subject to  base + Σ_b cost(b, c_b) ≤ budget,   one choice c_b per block,   at least so many blocks a stage

The score of a choice is log softmax(α)_c, so that the sum is the log-probability of the member.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from passes.errors import UserError
from passes.space.costs import Table, extremes
from passes.space.space import SKIP, Choices

Member = tuple[int, ...]
Scores = Sequence[Sequence[float]]  # per block one per candidate, and one more for skipping where that is possible
# the solver's tolerance lets a budget be exceeded by a millionth: then it gets a smaller one, so many times at most
TIMES = 32


@dataclass(frozen=True)
class Budget:
    """A limit on one kind of cost (a unit of its own: multiply-adds, parameters, nanoseconds), and what every choice
    costs.
    """

    kind: str
    limit: int
    table: Table


@dataclass(frozen=True)
class Solution:
    """A member, its score (log-probability), and its cost of the kind that was limited."""

    member: Member
    score: float
    cost: int


def score_of(scores: Sequence[Sequence[float]], member: Sequence[int]) -> float:
    """Σ of the chosen scores; a skippable block's last score is that of skipping it."""
    return float(sum(row[k] for row, k in zip(scores, member, strict=True)))


def argmax(choices: Choices, scores: Sequence[Sequence[float]]) -> Member:
    """The best choice of every block by itself, as published; a stage that would keep too few blocks keeps those
    nearest to staying.
    """
    member = [
        _own(int(np.argmax(row)), len(block.candidates)) for block, row in zip(choices.blocks, scores, strict=True)
    ]
    for i, least in choices.least.items():
        inside = [k for k, block in enumerate(choices.blocks) if block.stage == i]
        missing = least - sum(member[k] != SKIP for k in inside)
        skipped = sorted((k for k in inside if member[k] == SKIP), key=lambda k: scores[k][-1] - max(scores[k][:-1]))
        for k in skipped[: max(missing, 0)]:
            member[k] = int(np.argmax(scores[k][:-1]))
    return tuple(member)


def _own(choice: int, candidates: int) -> int:
    return SKIP if choice == candidates else choice


def likeliest(choices: Choices, scores: Sequence[Sequence[float]], budgets: Sequence[Budget]) -> Member:
    """The member of the highest score that costs at most every budget.

    scores: per block one per candidate, and one more for skipping where that is possible. Raises UserError where no
    member is so cheap.
    """
    for budget in budgets:
        low, _ = extremes(budget.table, choices)
        if budget.limit < low:
            raise UserError(
                f"the smallest member of this space has {low:,} {budget.kind}, the budget allows {budget.limit:,}"
            )
    if not choices.blocks:
        return ()
    excluded: list[Member] = []  # those that only the solver's tolerance lets in
    for _ in range(TIMES):
        member = _solve(choices, scores, budgets, excluded)
        if all(budget.table.of(member) <= budget.limit for budget in budgets):
            return member
        excluded.append(member)
    return _below(choices, scores, budgets)


def _below(choices: Choices, scores: Scores, budgets: Sequence[Budget]) -> Member:
    """A member within the budgets where many are above them by less than the tolerance: of smaller budgets, by twice as
    much each time.
    """
    least = [extremes(budget.table, choices)[0] for budget in budgets]
    step = 1
    while True:
        tighter = [
            replace(budget, limit=max(budget.limit - step, low)) for budget, low in zip(budgets, least, strict=True)
        ]
        member = _solve(choices, scores, tighter, [])
        if all(budget.table.of(member) <= budget.limit for budget in budgets):
            return member
        if all(budget.limit == low for budget, low in zip(tighter, least, strict=True)):
            raise UserError("no member of this space keeps all these budgets at once; allow one of them more")
        step *= 2


def _solve(choices: Choices, scores: Scores, budgets: Sequence[Budget], excluded: Sequence[Member]) -> Member:
    """One integer program, without the members excluded. x[b, c] = 1 chooses candidate c of block b; with none a block
    is skipped.

    A block that stays costs its least at least: that is no part of the program, so that its unit is as small as it can
    be.
    """
    columns = [(b, c) for b, block in enumerate(choices.blocks) for c in range(len(block.candidates))]
    gain = np.array([scores[b][c] - (scores[b][-1] if choices.blocks[b].skippable else 0.0) for b, c in columns])
    rows: list[tuple[np.ndarray, float, float]] = []
    owner = np.array([b for b, _ in columns])
    for b, block in enumerate(choices.blocks):
        rows.append(((owner == b).astype(float), 0.0 if block.skippable else 1.0, 1.0))
    stages = np.array([block.stage for block in choices.blocks])[owner]
    for i, least in choices.least.items():
        rows.append(((stages == i).astype(float), float(least), np.inf))
    for budget in budgets:
        fixed = [
            0 if block.skippable else min(row) for block, row in zip(choices.blocks, budget.table.blocks, strict=True)
        ]
        room = budget.limit - budget.table.base - sum(fixed)
        unit = float(max(room, 1))
        costs = np.array([budget.table.blocks[b][c] - fixed[b] for b, c in columns], float) / unit
        rows.append((costs, -np.inf, room / unit))
    # at least one of its choices is another: Σ (1 − x) over its candidates + Σ x over the blocks it skips ≥ 1
    for other in excluded:
        signs = np.array([1.0 if other[b] == SKIP else -1.0 if other[b] == c else 0.0 for b, c in columns])
        rows.append((signs, 1.0 - sum(k != SKIP for k in other), np.inf))
    matrix = coo_array(np.array([row for row, _, _ in rows]))
    bounds = LinearConstraint(matrix, [low for _, low, _ in rows], [high for _, _, high in rows])
    found = milp(
        -gain,
        integrality=np.ones(gain.size, np.int64),
        bounds=Bounds(0, 1),
        constraints=bounds,
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise UserError("no member of this space keeps all these budgets at once; allow one of them more")
    member = [SKIP] * len(choices.blocks)
    for (b, c), chosen in zip(columns, found.x > 0.5, strict=True):
        if chosen:
            member[b] = c
    return tuple(member)


def pareto(choices: Choices, scores: Sequence[Sequence[float]], budget: Budget, count: int) -> list[Solution]:
    """Up to `count` distinct members, the cheaper the worse, from the cheapest to the best that the budget allows; in
    order of cost.

    Budgets spread evenly over the range of costs, then halving the widest gaps.
    """
    low, _ = extremes(budget.table, choices)
    found: dict[Member, Solution] = {}

    def at(limit: int) -> Solution:
        member = likeliest(choices, scores, [Budget(budget.kind, limit, budget.table)])
        one = Solution(member, score_of(scores, member), budget.table.of(member))
        found[member] = one
        return one

    best = at(budget.limit)
    for limit in np.linspace(low, best.cost, count).astype(np.int64)[:-1].tolist():
        at(max(limit, low))
    tried: set[tuple[int, int]] = set()
    while len(found) < count:
        costs = sorted({one.cost for one in found.values()})
        gaps = [(b - a, a, b) for a, b in itertools.pairwise(costs) if b - a > 1 and (a, b) not in tried]
        if not gaps:
            break
        _, a, b = max(gaps)
        tried.add((a, b))
        at((a + b) // 2)
        at(b - 1)
    rows = sorted(found.values(), key=lambda one: (one.cost, -one.score))
    front: list[Solution] = []
    for one in rows:
        if not front or one.score > front[-1].score:
            front.append(one)
    return front[-count:]
