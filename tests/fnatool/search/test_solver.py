"""Derivation: never over the budget, as good as trying every member, and a front of distinct members."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from preferences import preferences
from spaces import small

from fnatool.search.solver import Budget, argmax, likeliest, pareto, score_of
from passes import UserError
from passes.space.costs import Table, cost_tables, extremes
from passes.space.space import SKIP, Choices, SpaceBlock, members


def table(found: Choices, seed: int, scale: float) -> Table:
    rng = np.random.default_rng(seed)
    return Table(
        int(scale),
        tuple(tuple((rng.random(len(b.candidates)) * scale).astype(np.int64).tolist()) for b in found.blocks),
    )


@pytest.mark.parametrize("scale", [1e2, 1e6, 1e10])
def test_two_hundred_budgets_are_kept_and_as_well_used_as_can_be(scale: float) -> None:
    _, found = small()
    every = list(members(found))
    for seed in range(200 // 3 + 1):
        scores, costs = preferences(found, seed), table(found, seed, scale)
        limit = int(np.random.default_rng(seed).uniform(*extremes(costs, found)))
        member = likeliest(found, scores, [Budget("madds", limit, costs)])
        assert costs.of(member) <= limit
        best = max(score_of(scores, other) for other in every if costs.of(other) <= limit)
        assert score_of(scores, member) == pytest.approx(best, abs=1e-9)


def test_several_budgets_hold_at_once() -> None:
    _, found = small()
    scores, one, two = preferences(found, 0), table(found, 1, 1e6), table(found, 2, 1e3)
    limits = [int(sum(extremes(t, found)) * 0.4) for t in (one, two)]
    member = likeliest(found, scores, [Budget("madds", limits[0], one), Budget("params", limits[1], two)])
    assert one.of(member) <= limits[0]
    assert two.of(member) <= limits[1]


def test_a_budget_below_the_smallest_member_names_it() -> None:
    analysis, found = small()
    costs = cost_tables(analysis, found)["madds"]
    low, _ = extremes(costs, found)
    with pytest.raises(
        UserError, match=rf"the smallest member of this space has {low:,} madds, the budget allows {low - 1:,}"
    ):
        likeliest(found, preferences(found, 0), [Budget("madds", low - 1, costs)])
    assert costs.of(likeliest(found, preferences(found, 0), [Budget("madds", low, costs)])) == low


def test_a_front_has_distinct_members_the_dearer_the_better() -> None:
    analysis, found = small()
    costs = cost_tables(analysis, found)["madds"]
    front = pareto(found, preferences(found, 3), Budget("madds", 10**12, costs), 8)
    assert len({one.member for one in front}) == 8
    assert all(a.cost < b.cost and a.score < b.score for a, b in itertools.pairwise(front))


@pytest.mark.parametrize("scale", [1e8, 1e10])
def test_a_budget_just_below_a_member_is_kept_and_well_used(scale: float) -> None:
    _, found = small()
    every = list(members(found))
    for seed in range(20):
        scores, costs = preferences(found, seed), table(found, seed, scale)
        for limit in (costs.of(every[97 * seed]) - 1, extremes(costs, found)[0]):
            if limit >= extremes(costs, found)[0]:
                member = likeliest(found, scores, [Budget("madds", limit, costs)])
                best = max(score_of(scores, other) for other in every if costs.of(other) <= limit)
                assert costs.of(member) <= limit
                assert score_of(scores, member) == pytest.approx(best, abs=1e-9)


def test_a_long_front_of_a_large_network_has_no_gaps_that_cannot_be_solved() -> None:
    blocks = tuple(SpaceBlock(0, j, j, tuple({"kernel": k} for k in (3, 5, 7)), j > 0) for j in range(14))
    found = Choices(blocks, {0: 4}, {})
    for seed in range(3):
        costs = table(found, seed, 3e9)
        front = pareto(found, preferences(found, seed), Budget("madds", 10**12, costs), 30)
        assert all(a.cost < b.cost and a.score < b.score for a, b in itertools.pairwise(front))
        assert len(front) >= 20


def test_argmax_takes_each_block_by_itself_but_keeps_the_fewest_blocks() -> None:
    _, found = small()
    scores = [[0.0] * len(b.candidates) + ([5.0] if b.skippable else []) for b in found.blocks]
    assert argmax(found, scores) == (0, SKIP, SKIP, SKIP)
    kept = Choices(found.blocks, {0: 2}, found.fixed)
    scores[2][3] = 4.0
    assert argmax(kept, scores) == (0, SKIP, 3, SKIP)
