"""The last choice of a search: members within the budget, drawn by what it prefers, and the best of them."""

from __future__ import annotations

import math
import types
from collections import Counter
from pathlib import Path
from typing import cast

import pytest
import sets
import torch
from preferences import preferences
from spaces import small

from fnatool.data.checking import checked
from fnatool.search.finalists import finalists, least
from fnatool.search.scoring import Scoring, chooser, score
from fnatool.search.solver import Budget, likeliest
from fnatool.supernet.network import SuperNetwork
from fnatool.tasks.classification import Classification
from fnatool.tasks.finite import NotFinite
from fnatool.tasks.reading import read
from fnatool.tasks.task import PLAIN
from fnatool.training.samples import Evaluation, Training
from passes import UserError
from passes.space.costs import cost_tables, extremes
from passes.space.space import Choices, SpaceBlock


def test_finalists_are_distinct_keep_the_budget_and_begin_with_the_likeliest() -> None:
    analysis, found = small()
    costs = cost_tables(analysis, found)["madds"]
    budget = Budget("madds", sum(extremes(costs, found)) // 2, costs)
    scores = preferences(found, 0)
    members = finalists(found, scores, [budget], 12, seed=0)
    assert len(members) == len(set(members)) == 12
    assert all(costs.of(member) <= budget.limit for member in members)
    assert members[0] == likeliest(found, scores, [budget])
    for member in members:
        found.require_member(member)
    assert members == finalists(found, scores, [budget], 12, seed=0)
    assert members[:5] == finalists(found, scores, [budget], 5, seed=0)
    assert members != finalists(found, scores, [budget], 12, seed=1)


def test_without_a_budget_they_are_drawn_as_likely_as_they_are() -> None:
    rows = ({"kernel": 3}, {"kernel": 5})
    found = Choices(tuple(SpaceBlock(0, j, j, rows, False) for j in range(2)), {0: 2}, {})
    shares = [[0.9, 0.1], [0.7, 0.3]]
    scores = [[math.log(share) for share in row] for row in shares]
    # the first that is not the likeliest
    drawn = Counter(finalists(found, scores, [], 2, seed=seed)[1] for seed in range(400))
    others = {(0, 1): 0.27, (1, 0): 0.07, (1, 1): 0.03}
    for member, weight in others.items():
        expected = weight / sum(others.values())
        assert drawn[member] / 400 == pytest.approx(expected, abs=4 * math.sqrt(expected / 400))


def test_there_are_fewer_where_no_others_keep_the_budget() -> None:
    analysis, found = small()
    costs = cost_tables(analysis, found)["madds"]
    low, _ = extremes(costs, found)
    scores = preferences(found, 0)
    assert finalists(found, scores, [Budget("madds", low, costs)], 8, seed=0) == [
        likeliest(found, scores, [Budget("madds", low, costs)])
    ]
    with pytest.raises(UserError, match="the smallest member"):
        finalists(found, scores, [Budget("madds", low - 1, costs)], 8, seed=0)


def test_the_member_of_the_least_loss_is_found_and_one_alone_is_not_looked_at() -> None:
    losses = {(0,): 2.0, (1,): 1.0, (2,): 1.0}
    assert least(list(losses), losses.__getitem__) == (1,)
    assert least([(0,), (1,)], {(0,): math.nan, (1,): 9.0}.__getitem__) == (1,)
    assert least([(0,)], lambda member: pytest.fail("looked at")) == (0,)


def test_a_member_that_computes_no_numbers_never_wins() -> None:
    def loss(member: tuple[int, ...]) -> float:
        if member != (2,):
            raise NotFinite("output 'logits' is not finite")
        return 7.0

    assert least([(0,), (1,), (2,)], loss) == (2,)
    with pytest.raises(
        NotFinite,
        match=r"none of the 2 architectures looked at .* computes finite values: output 'logits' is not finite",
    ):
        least([(0,), (1,)], loss)
    with pytest.raises(NotFinite, match="their losses are nan, inf"):
        least([(0,), (1,)], {(0,): math.nan, (1,): math.inf}.__getitem__)


class Broken(torch.nn.Module):
    """In place of a super network: whatever the member, its output is NaN."""

    reading = types.SimpleNamespace(inputs=("x",), facts=types.SimpleNamespace(types={"x": 1}))

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward_member(self, inputs: torch.Tensor, member: object, **_: object) -> dict[str, torch.Tensor]:
        return {"logits": torch.full((len(inputs), 3), math.nan)}


def test_no_figure_and_no_loss_is_made_of_a_broken_super_network(tmp_path: Path) -> None:
    (split,) = checked([read(sets.image_folder(tmp_path), task="classification")], cache=tmp_path / "cache")
    describe = Classification(classes=split.classes)
    training = Training(split, describe, (8, 8), PLAIN, 0)
    how = Scoring(
        calibration=training,
        choosing=training,
        validation=Evaluation(split, describe, (8, 8)),
        images=(4, 4),
        batch=2,
        workers=0,
        seed=0,
        frozen=True,
    )
    network = cast(SuperNetwork, Broken())
    with chooser(network, how) as loss:
        for ask in (loss, lambda member: score(network, member, how)):
            with pytest.raises(NotFinite, match="output 'logits' is not finite"):
                ask((0,))
