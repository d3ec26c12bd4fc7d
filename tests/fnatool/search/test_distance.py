"""Distances of features: the formula, what is kept of them, how they are dealt out, and the member that is chosen by
them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from supers import images, seed
from torch import Tensor

from fnatool.nn.reading import Reading
from fnatool.search.config import Distance
from fnatool.search.distance import Known, Meter, Reference, changes, known, reference
from fnatool.search.nearest import (
    PATIENCE,
    TRIED,
    choose,
    nearest_member,
    nearest_of,
    predicted,
    predictions,
    scores_of,
    swapped,
    table,
)
from fnatool.search.solver import Budget, likeliest
from fnatool.search.trunks import Pick, Trunk
from fnatool.supernet.members import Members, members_of, up_to
from fnatool.training.processes import World
from passes import UserError, apply, plan
from passes.space.costs import Table, cost_tables, extremes
from passes.space.space import Choices, SpaceBlock, members, own_choices, without_growth
from passes.target.kept import KeptChannels

NAME = "residual"
CPU = torch.device("cpu")


def features() -> tuple[str, ...]:
    return (seed(NAME)[1].stages[-1].blocks[-1].exit,)


def batches() -> Iterator[tuple[Tensor, ...]]:
    """Eight images in two batches."""
    yield from ((part,) for part in images(NAME, 8).split(4))


def meter(path: Path, world: World | None = None) -> Meter:
    graph, analysis, found = seed(NAME)
    made = members_of(graph, analysis, without_growth(analysis, found), features(), select="l1")
    like = reference(Reading(up_to(graph, features())), batches, CPU)
    return Meter(made, batches, like, known(path, "a run", made.choices), world or World(0, 1, CPU))


def budget(choices: Choices, share: float) -> list[Budget]:
    costs = cost_tables(seed(NAME)[1], choices)["madds"]
    low, high = extremes(costs, choices)
    return [Budget("madds", int(low + share * (high - low)), costs)]


# --- the measure --------------------------------------------------------------------------------


def test_the_distance_is_that_of_the_remapped_network_by_the_formula(tmp_path: Path) -> None:
    graph, analysis, _ = seed(NAME)
    made = meter(tmp_path / "d.json")
    member = (0, *(0 for _ in made.members.choices.blocks[1:]))
    spec = made.members.choices.spec(member)
    nets = [Reading(up_to(one, features())) for one in (graph, apply(graph, plan(analysis, spec, select="l1")))]
    seeds, own = (
        [
            net({weight.name: net.initial(weight) for weight in net.weights}, x, norms="batch")[0].double().numpy()
            for x in batches()
        ]
        for net in nets
    )
    whole = np.concatenate(seeds)
    expected = ((np.concatenate(own) - whole) ** 2).sum() / ((whole - whole.mean(0)) ** 2).sum()
    assert made.of([member]) == [pytest.approx(expected, rel=1e-4)]


def test_places_count_by_their_weights() -> None:
    like = Reference(
        features=((torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [4.0]])),),
        spread=(2.0, 8.0),
        weights=(3.0, 1.0),
        kept=(None, None),
        lost=(0.0, 0.0),
    )
    own = [(torch.tensor([[2.0], [3.0]]), torch.tensor([[2.0], [4.0]]))]
    assert like.distance(own) == pytest.approx((3 * 1 / 2 + 1 * 4 / 8) / 4)


def test_the_seed_is_at_no_distance_and_every_change_is_farther(tmp_path: Path) -> None:
    made = meter(tmp_path / "d.json")
    own = nearest_member(seed(NAME)[1], made.members.choices)
    assert list(own) == list(own_choices(seed(NAME)[1], made.members.choices))
    assert made.of([own]) == [pytest.approx(0, abs=1e-10)]
    for row, mine in zip(table(made, own), own, strict=True):
        assert all(value > 0.001 for k, value in enumerate(row) if k != mine)


def test_what_is_behind_the_change_alone_gives_the_bits_of_the_whole(tmp_path: Path) -> None:
    part, whole = meter(tmp_path / "part.json"), meter(tmp_path / "whole.json")
    own = nearest_member(seed(NAME)[1], part.members.choices)
    rows = [member for row in changes(part.members.choices, own) for member in row]
    assert part.around(own, rows) == whole.of(rows)
    with pytest.raises(ValueError, match="more than one block"):
        part.around(own, [tuple(0 for _ in own)])


def test_features_that_are_the_same_for_all_images_or_no_numbers_are_refused() -> None:
    graph, *_ = seed(NAME)
    reading = Reading(up_to(graph, features()))
    with pytest.raises(UserError, match="are the same for all of these images"):
        reference(reading, lambda: iter([(images(NAME, 1),)]), CPU)
    with pytest.raises(UserError, match="are not finite"):
        reference(reading, lambda: iter([(images(NAME, 2) * math.inf,)]), CPU)


def test_a_channel_that_is_gone_is_as_far_as_it_is_from_its_mean() -> None:
    # two images, three channels: from their mean 2, 8 and 2
    seeds = torch.tensor([[[1.0], [4.0], [0.0]], [[3.0], [8.0], [2.0]]])
    like = reference_of(seeds)
    assert like.distance([[seeds]]) == 0
    first_and_last = KeptChannels(1, np.array([0, 1]), np.array([0, 2]))
    narrow = like.narrowed([first_and_last])
    assert narrow.distance([[seeds[:, [0, 2]]]]) == pytest.approx(8 / 12)
    assert narrow.distance([[seeds[:, [0, 2]] + torch.tensor([[1.0], [0.0]])]]) == pytest.approx((8 + 2) / 12)
    assert like.narrowed([None]).distance([[seeds + 1]]) == pytest.approx(6 / 12)
    # one channel of the network is none of the seed's
    fresh = KeptChannels(1, np.array([0, 2, 3]), np.array([0, 1, 2]))
    assert like.narrowed([fresh]).distance([[seeds[:, [0, 0, 1, 2]]]]) == 0


def reference_of(values: Tensor) -> Reference:
    """What a network with these features over two images in two batches is compared with."""
    spread = float((values - values.mean(0)).square().sum())
    return Reference(((values,),), (spread,), (1.0,), (None,), (0.0,))


def test_with_a_narrower_trunk_the_distance_is_that_of_the_remapped_network_by_the_formula(tmp_path: Path) -> None:
    graph, analysis, found = seed(NAME)
    choices = replace(without_growth(analysis, found), trunks=({}, {"stage0.width": 4}))
    made = members_of(graph, analysis, choices.at(1), features(), select="l1")
    (kept,) = made.kept
    assert kept is not None
    assert kept.own.tolist() == [0, 1, 2, 3]
    assert kept.seed.tolist() != kept.own.tolist()  # l1 keeps others than the first
    like = reference(Reading(up_to(graph, features())), batches, CPU).narrowed(made.kept)
    narrow = Meter(made, batches, like, known(tmp_path / "d.json", "a run", choices), World(0, 1, CPU), 1)
    member = made.choices.largest()
    target = apply(graph, plan(analysis, made.choices.spec(member), select="l1"))
    seeds, own = (
        np.concatenate(
            [
                net({w.name: net.initial(w) for w in net.weights}, x, norms="batch")[0].double().numpy()
                for x in batches()
            ]
        )
        for net in (Reading(up_to(one, features())) for one in (graph, target))
    )
    around = (seeds - seeds.mean(0)) ** 2
    gone = [k for k in range(seeds.shape[1]) if k not in kept.seed]
    expected = (((own - seeds[:, kept.seed]) ** 2).sum() + around[:, gone].sum()) / around.sum()
    assert narrow.of([member]) == [pytest.approx(expected, rel=1e-4)]
    assert list(narrow.known.distances) == [(1, *member)]


# --- kept ---------------------------------------------------------------------------------------


def test_what_was_measured_is_not_measured_again_and_an_interrupted_table_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, path = meter(tmp_path / "whole.json"), tmp_path / "d.json"
    own = nearest_member(seed(NAME)[1], whole.members.choices)
    expected = table(whole, own)
    count = 0
    learn = Known.add

    def killed(self: Known, found: dict[tuple[int, ...], float]) -> None:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        learn(self, found)

    monkeypatch.setattr(Known, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        table(meter(path), own)
    monkeypatch.undo()
    assert len(json.loads(path.read_text())["distances"]) == 3
    assert table(meter(path), own) == expected
    assert path.read_text() == (tmp_path / "whole.json").read_text()
    monkeypatch.setattr(Meter, "_behind", lambda *_: pytest.fail("measured again"))
    assert table(meter(path), own) == expected


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda found: {**found, "key": "another"}, "is of a run with another model, config or data"),
        (lambda found: {**found, "version": 9}, "says no distances"),
        (lambda found: {**found, "distances": [[[0, 0], 1.0]]}, "no member of this space"),
        (lambda found: {**found, "distances": [[[], 1.0]]}, "no member of this space"),
        (lambda found: {**found, "distances": [[[0, 99, 0], 1.0]]}, "no member of this space"),
        (lambda found: {**found, "distances": [[[1, 0, 0], 1.0]]}, "no member of this space"),
        (lambda found: {**found, "distances": [[[True, 0, 0], 1.0]]}, "no member of this space"),
        (lambda found: {**found, "distances": [[[0, True, 0], 1.0]]}, "no member of this space"),
        (lambda found: {**found, "distances": [[[0, 0, 0], -1.0]]}, "a distance is none"),
        (lambda found: {**found, "distances": [[[0, 0, 0], "near"]]}, "a distance is none"),
        (lambda found: {**found, "distances": [7]}, "no member of this space"),
        (lambda found: [], "says no distances"),
    ],
)
def test_distances_of_another_run_and_damaged_ones_are_refused(
    change: Callable[[dict[str, object]], object], part: str, tmp_path: Path
) -> None:
    path = tmp_path / "d.json"
    made = meter(path)
    made.of([made.members.choices.largest()])
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=part):
        meter(path)


def test_a_member_that_computes_no_number_is_infinitely_far_and_kept_as_that(tmp_path: Path) -> None:
    found = Known(tmp_path / "d.json", "a run")
    found.add({(0, 0, 0): math.inf, (0, 1, 0): 0.5})
    choices = meter(tmp_path / "other.json").members.choices
    assert known(tmp_path / "d.json", "a run", choices).distances == {(0, 0, 0): math.inf, (0, 1, 0): 0.5}
    assert scores_of([[0.0, 2.0, math.inf], [1.0, math.inf]]) == [[0.0, -2.0, -4.0], [-1.0, -4.0]]


class Pair(World):
    """One of two processes, the other of which has nothing to say."""

    def gather(self, item: object) -> list[object]:
        return [item, {}]


def test_two_processes_measure_half_each(tmp_path: Path) -> None:
    rows: list[dict[tuple[int, ...], float]] = []
    for rank in (0, 1):
        made = meter(tmp_path / f"{rank}.json", Pair(rank, 2, CPU))
        own = nearest_member(seed(NAME)[1], made.members.choices)
        every = [member for row in changes(made.members.choices, own) for member in row]
        with pytest.raises(KeyError):
            made.around(own, every)
        rows.append(made.known.distances)
    one = meter(tmp_path / "one.json")
    expected = dict(zip(((0, *member) for member in every), one.around(own, every), strict=True))
    assert not rows[0].keys() & rows[1].keys()
    assert rows[0] | rows[1] == expected
    assert (tmp_path / "0.json").exists()
    assert not (tmp_path / "1.json").exists()


# --- chosen -------------------------------------------------------------------------------------


def test_where_swaps_bring_nothing_the_choice_ends(tmp_path: Path) -> None:
    rows = tuple({"hidden": k} for k in (8, 16, 24, 32))
    choices = Choices(tuple(SpaceBlock(0, j, j, rows, False) for j in range(5)), {0: 5}, {})
    costs = Table(0, ((8, 16, 24, 32),) * 5)
    scores = [[-0.8, -0.4, -0.2, 0.0]] * 5
    budgets = [Budget("params", 100, costs)]
    best = likeliest(choices, scores, budgets)
    every = Known(
        tmp_path / "flat.json", "a run", {(0, *member): 1.0 for member in members(choices)} | {(0, *best): 0.5}
    )
    made = replace(meter(tmp_path / "d.json"), members=cast(Members, SimpleNamespace(choices=choices)), known=every)
    counts: list[int] = []
    assert choose(made, scores, budgets, Distance(members=4096), done=counts.append) == best
    assert sum(counts) == 1 + PATIENCE * TRIED


def test_the_member_chosen_is_the_nearest_of_all_that_keep_the_budget(tmp_path: Path) -> None:
    made = meter(tmp_path / "d.json")
    choices = made.members.choices
    budgets = budget(choices, 0.6)
    every = [member for member in members(choices) if budgets[0].table.of(member) <= budgets[0].limit]
    nearest_of_all = min(every, key=lambda member: made.of([member])[0])
    own = nearest_member(seed(NAME)[1], choices)
    found = choose(made, scores_of(table(made, own)), budgets, Distance(members=len(every)))
    assert found == nearest_of_all
    assert budgets[0].table.of(found) <= budgets[0].limit


def test_one_member_is_measured_where_one_is_asked_for_and_more_never_find_worse(tmp_path: Path) -> None:
    made = meter(tmp_path / "d.json")
    choices = made.members.choices
    scores = scores_of(table(made, nearest_member(seed(NAME)[1], choices)))
    before = len(made.known.distances)
    found = [choose(made, scores, budget(choices, 0.4), Distance(members=count)) for count in (1, 4, 8)]
    distances = made.of(found)
    assert distances == sorted(distances, reverse=True)
    assert len(made.known.distances) <= before + 8
    assert found == [choose(made, scores, budget(choices, 0.4), Distance(members=count)) for count in (1, 4, 8)]


def test_a_budget_that_no_member_keeps_is_said(tmp_path: Path) -> None:
    made = meter(tmp_path / "d.json")
    scores = [[0.0] * (len(block.candidates) + block.skippable) for block in made.members.choices.blocks]
    costs = Table(10, tuple(tuple(1 for _ in block.candidates) for block in made.members.choices.blocks))
    with pytest.raises(UserError, match="the smallest member of this space has"):
        choose(made, scores, [Budget("madds", 9, costs)], Distance())


def test_swaps_change_one_or_two_blocks_and_keep_the_budget_and_the_fewest_blocks(tmp_path: Path) -> None:
    _, analysis, found = seed("gated")
    choices = without_growth(analysis, found)
    costs = cost_tables(analysis, choices)["madds"]
    limit = sum(extremes(costs, choices)) // 2
    start = tuple(0 for _ in choices.blocks)
    rows = swapped(choices, start, [Budget("madds", limit, costs)])
    expected = {
        member
        for member in members(choices)
        if costs.of(member) <= limit and 1 <= sum(a != b for a, b in zip(member, start, strict=True)) <= 2
    }
    assert len(rows) == len(set(rows))
    assert set(rows) == expected
    assert expected


def test_a_prediction_is_the_sum_of_changes_until_measurements_say_otherwise() -> None:
    rows = tuple({"kernel": k} for k in (3, 5, 7, 9))
    choices = Choices(tuple(SpaceBlock(0, j, j, rows, j > 0) for j in range(3)), {0: 1}, {})
    rng = np.random.default_rng(0)
    scores = [(-rng.random(len(block.candidates) + block.skippable)).tolist() for block in choices.blocks]
    every = list(members(choices))

    def sums(rows: Sequence[Sequence[float]]) -> list[float]:
        return [-sum(row[k] for row, k in zip(rows, member, strict=True)) for member in every]

    assert predicted(choices, scores, {})(every).tolist() == pytest.approx(sums(scores))
    # one choice is worse
    truth = [[value - 2.0 * (b == 0 and k == 1) for k, value in enumerate(row)] for b, row in enumerate(scores)]
    some = dict(list(zip(every, sums(truth), strict=True))[::3])
    before, after = (spearmanr(predicted(choices, scores, seen)(every), sums(truth)).statistic for seen in ({}, some))
    assert before < 0.7 < 0.9 < after


# --- trunks -------------------------------------------------------------------------------------

BLOCK = (SpaceBlock(0, 0, 0, ({"hidden": 1}, {"hidden": 2}), False),)


def trunks(*bases: int) -> list[Trunk]:
    """Trunks of one block, whose candidates cost 1 and 2 beyond each base."""
    choices = Choices(BLOCK, {0: 1}, {}, tuple({"w": k} for k, _ in enumerate(bases)))
    return [Trunk(k, choices.at(k), {"madds": Table(base, ((1, 2),))}) for k, base in enumerate(bases)]


def within(limit: int) -> list[Budget]:
    return [Budget("madds", limit, Table(0, ((1, 2),)))]


def test_trunks_are_asked_in_the_order_of_their_largest_and_those_farther_than_what_was_found_are_not() -> None:
    asked = []

    def best(trunk: Trunk) -> tuple[tuple[int, ...], float]:
        asked.append(trunk.number)
        return (0,), {0: 0.5, 1: 0.3, 2: 0.3, 3: 0.4}[trunk.number]

    found = nearest_of(trunks(9, 8, 7, 6), [0.0, 0.2, 0.1, 0.35], within(99), best)
    assert asked == [0, 2, 1]  # that of 0.35 has nothing nearer than 0.3
    assert found == Pick(trunks(9, 8, 7, 6)[2], (0,))
    asked.clear()
    # the least of all others is more
    assert nearest_of(trunks(9, 8, 7, 6), [0.0, 0.2, 0.1, 0.35], within(7), best).trunk.number == 3
    assert asked == [3]


def test_beyond_one_a_trunk_that_starts_a_little_farther_is_asked_too() -> None:
    asked = []

    def best(trunk: Trunk) -> tuple[tuple[int, ...], float]:
        asked.append(trunk.number)
        return (0,), {0: 1.2, 1: 0.9, 2: 0.1}[trunk.number]

    assert nearest_of(trunks(9, 8, 7), [0.0, 1.3, 1.9], within(99), best).trunk.number == 1
    assert asked == [0, 1]


def test_a_trunk_as_near_as_a_wider_one_does_not_take_its_place() -> None:
    assert nearest_of(trunks(9, 8), [0.1, 0.1], within(99), lambda trunk: ((0,), 0.4)).trunk.number == 0


def test_where_no_trunk_keeps_the_budget_the_smallest_of_all_is_said_and_a_trunk_without_a_number_is_passed_over() -> (
    None
):
    with pytest.raises(UserError, match="the smallest member of this space has 7 madds, the budget allows 6"):
        nearest_of(trunks(9, 6), [0.0, 0.1], within(6), lambda trunk: pytest.fail("asked"))

    def broken(trunk: Trunk) -> tuple[tuple[int, ...], float]:
        if trunk.number == 0:
            raise UserError("none has finite features")
        return (1,), 0.7

    assert nearest_of(trunks(9, 6), [0.0, 0.1], within(99), broken).trunk.number == 1
    with pytest.raises(UserError, match="none has finite features"):
        nearest_of(trunks(9), [0.0], within(99), broken)


def test_single_changes_predict_members_of_every_trunk_and_a_front_of_all() -> None:
    rows = trunks(10, 4)
    said = predictions({0: 0.0, 1: 0.5}, (1,), {0: [[-0.2, 0.0]]})
    picks = [Pick(trunk, member) for trunk in rows for member in ((0,), (1,))]
    assert [said.distance(pick) for pick in picks] == pytest.approx([0.2, 0.0, 0.7, 0.5])
    assert said.nearest(rows, within(11)) == picks[0]
    assert said.nearest(rows, within(10)) == picks[3]
    assert [(pick.trunk.number, pick.member, cost) for pick, cost in said.front(rows, "madds", None, 9)] == [
        (1, (0,), 5), (1, (1,), 6), (0, (0,), 11), (0, (1,), 12),
    ]  # fmt: skip
    assert [cost for _, cost in said.front(rows, "madds", 11, 2)] == [5, 11]
    # a space without the seed; a table for each
    shifted = predictions({0: 0.1, 1: 0.5}, (1,), {0: [[-0.3, -0.1]], 1: [[-0.9, -0.5]]})
    assert [shifted.distance(pick) for pick in picks] == pytest.approx([0.3, 0.1, 0.9, 0.5])
    with pytest.raises(UserError, match="the smallest member of this space has 5 madds"):
        said.front(rows, "madds", 4, 2)


def test_a_space_without_blocks_has_one_member_with_each_trunk() -> None:
    choices = Choices((), {}, {}, ({}, {"w": 1}))
    rows = [Trunk(k, choices.at(k), {"madds": Table(base, ())}) for k, base in enumerate((9, 4))]
    said = predictions({0: 0.0, 1: 0.5}, (), {0: []})
    assert said.nearest(rows, [Budget("madds", 8, rows[0].tables["madds"])]) == Pick(rows[1], ())
    assert [cost for _, cost in said.front(rows, "madds", None, 4)] == [4, 9]


def test_where_the_space_does_not_hold_the_seed_the_nearest_candidates_stand_for_it() -> None:
    from passes.space.space import Space
    from passes.space.space import choices as chosen

    _, analysis, _ = seed(NAME)
    found = chosen(analysis, Space({"stage0.*.hidden": (2, 6)}))
    assert nearest_member(analysis, found) == (1, 1)
    assert own_choices(analysis, found) == (None, None)
