"""Spaces: what each block may choose, what a member is as a Spec, and that the blocks' costs add up to the member's."""

from __future__ import annotations

import functools

import numpy as np
import onnx_graphsurgeon as gs
import pytest
import seeds_of_heads
import supers
from nets import Net, bundled
from spaces import net, small

from passes import Analysis, Spec, UserError, analyse, apply, plan
from passes.network.cost import cost
from passes.space.costs import cost_tables, extremes
from passes.space.presets import preset
from passes.space.space import (
    SKIP,
    Space,
    choices,
    held_to,
    members,
    own_choices,
    parse_space,
    trunk_share,
    without_growth,
)
from passes.target.plan import planned_cost
from passes.target.resolve import resolve


@functools.cache
def seed() -> tuple[gs.Graph, Analysis]:
    made = bundled()
    return made, analyse(made)


def test_a_block_chooses_among_all_combinations_of_its_own_knobs() -> None:
    _, found = small()
    assert [block.name for block in found.blocks] == [f"stage0.block{j}" for j in range(4)]
    assert [block.source for block in found.blocks] == [0, 1, 2, 2]
    assert [block.skippable for block in found.blocks] == [False, True, True, True]
    assert len(found.blocks[0].candidates) == 8
    assert {"kernel": 5, "groups": 2, "hidden": 4} in found.blocks[3].candidates
    assert found.size == sum(1 for _ in members(found)) == 8 * 9**3


def test_a_member_is_the_spec_of_the_blocks_it_keeps() -> None:
    analysis, found = small()
    first = dict(found.blocks[0].candidates[0])
    spec = found.spec((0, SKIP, 3, SKIP))
    assert spec.knobs["stage0.depth"] == 2
    assert spec.knobs["stage0.block1.from"] == 2
    assert {tail: spec.knobs[f"stage0.block0.{tail}"] for tail in first} == first
    assert len(plan(analysis, spec).table[0]) == 2


def test_the_seeds_own_member_costs_what_the_seed_does() -> None:
    for analysis, space in ((seed()[1], preset("auto", seed()[1])), (seed()[1], preset("fna-segmentation", seed()[1]))):
        found = choices(analysis, space)
        own = own_choices(analysis, found)
        member = [k for k in own if k is not None]
        assert len(member) == len(found.blocks)
        assert {kind: table.of(member) for kind, table in cost_tables(analysis, found).items()} == {
            "madds": analysis.cost.macs,
            "params": analysis.cost.params,
        }
        assert resolve(analysis, found.spec(member)).values == resolve(analysis, Spec({})).values


def test_what_the_seed_has_need_not_be_among_the_choices() -> None:
    analysis, _ = small()
    space = {
        "stage0.depth": (2, 3, 4),
        "stage0.*.kernel": (3, 5),
        "stage0.block1.hidden": (4, 6),
        "stage0.block2.hidden": (4,),
    }
    found = choices(analysis, Space(space))
    own = own_choices(analysis, found)
    assert own[1] is None
    assert own[3] == SKIP
    assert [found.blocks[k].candidates[own[k] or 0]["kernel"] for k in (0, 2)] == [3, 3]


def test_the_largest_member_has_every_block_and_the_fewest_groups() -> None:
    _, found = small()
    assert [dict(found.blocks[j].candidates[k]) for j, k in enumerate(found.largest())] == [
        {"kernel": 5, "groups": 1, "hidden": 8}
    ] * 4


def test_the_costs_of_the_blocks_add_up_to_that_of_the_member_as_it_is_built() -> None:
    made = net()
    analysis, found = small()
    tables = cost_tables(analysis, found)
    rng = np.random.default_rng(0)
    every = list(members(found))
    for k in rng.choice(len(every), 12, replace=False):
        target = analyse(apply(made, plan(analysis, found.spec(every[k]))))
        real = cost(target.view, target.shapes)
        assert (tables["madds"].of(every[k]), tables["params"].of(every[k])) == (real.macs, real.params)


def test_a_head_that_reads_inside_a_block_costs_what_the_block_chooses() -> None:
    _, analysis, found = supers.seed("headed")
    assert any(block.tapped for stage in analysis.stages for block in stage.blocks)
    tables = cost_tables(analysis, found)
    every = list(members(found))
    for number in np.random.default_rng(0).choice(len(every), 20, replace=False):
        member = every[number]
        real = planned_cost(plan(analysis, found.spec(member)), analysis)
        assert (tables["madds"].of(member), tables["params"].of(member)) == (real.macs, real.params)
    assert all(cost >= 0 for table in tables.values() for row in table.blocks for cost in row)


def test_the_extremes_are_those_of_all_members() -> None:
    analysis, found = small()
    for table in cost_tables(analysis, found).values():
        costs = [table.of(member) for member in members(found)]
        assert extremes(table, found) == (min(costs), max(costs))


def test_the_published_detection_space_is_what_the_bundled_seed_gives() -> None:
    _, analysis = seed()
    knobs = {
        f"stage{i}.{key}": row
        for i in range(1, 6)
        for key, row in {"depth": [1, 2, 3, 4], "*.kernel": [3, 5, 7]}.items()
    }
    knobs |= {f"stage{i}.*.hidden": ["x0.5", "x1"] for i in range(1, 7)} | {"stage6.*.kernel": [3, 5, 7]}
    found = choices(analysis, parse_space({"version": 1, "knobs": knobs}))
    assert [len(block.candidates) for block in found.blocks] == [1] + [6] * 21
    assert sum(block.skippable for block in found.blocks) == 15


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "a space is a JSON object"),
        ({"version": 2, "knobs": {}}, "this fnatool reads version 1"),
        ({"version": 1, "knobs": {}, "seed": "x"}, "not 'seed'"),
        ({"version": 1, "knobs": {"stage0.depth": []}}, "must be a list of integers"),
        ({"version": 1, "knobs": {"stage0.depth": [1.5]}}, "must be a list of integers"),
    ],
)
def test_what_is_no_space_says_so(document: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_space(document)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"**.stride": (6, 8)}, "'**.stride' has 2 values, but a search chooses only depth"),
        ({"stage0.width": (6, 5), "**.width": (6, 5, 4)}, "'stage0.width' has 2 values and '**.width' 3, but"),
        ({"stage0.block1.from": (2,), "stage0.depth": (1, 2)}, "'stage0.block1.from': which blocks"),
        ({"node:stem.kernel": (3, 5)}, "'node:stem.kernel' is not a block's own"),
        ({"stage0.kernal": (3, 5)}, "'stage0.kernal' has 2 values"),
        ({"stage0.*.kernel7": (3, 5)}, "matches no knob"),
        ({"stage0.*.kernel": (3, 4)}, "4 is not possible"),
        ({"stage0.depth": (1, 3)}, "list all from the least to the most"),
        ({"stage0.width": (6,)}, "there is nothing to search"),
    ],
)
def test_a_space_that_cannot_be_searched_says_why(knobs: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(UserError) as error:
        choices(analyse(net()), Space(knobs))
    assert message in str(error.value)


def test_a_knob_outside_blocks_with_one_value_is_part_of_every_member() -> None:
    analysis, _ = small()
    found = choices(analysis, Space({"node:stem.kernel": (5,), "stage0.*.kernel": (3, 5)}))
    assert found.spec(found.largest()).knobs["node:stem.kernel"] == 5
    assert resolve(analysis, found.spec(found.largest())).values["node:stem.kernel"] == 5


def test_blocks_before_one_that_a_head_reads_stay_where_they_are() -> None:
    body = seeds_of_heads.mobile()
    last = max(i for i, stage in enumerate(analyse(body.graph()).stages) if len(stage.blocks) == 2)
    style = seeds_of_heads.small("ssdlite", 3, f"stage{last}.block1.hidden", f"stage{last + 1}.exit")
    head = seeds_of_heads.again(seeds_of_heads.made(body.graph(), style))
    found = choices(head, Space({f"stage{last}.depth": (1, 2, 3)}))
    assert [block.skippable for block in found.blocks if block.stage == last] == [False, False, True]


def test_a_member_that_is_none_says_why() -> None:
    _, found = small()
    for member, message in (
        ((0, 0), "4 blocks, not 2"),
        ((SKIP, 0, 0, 0), "no candidate -1"),
        ((0, 99, 0, 0), "no candidate 99"),
    ):
        with pytest.raises(UserError, match=message):
            found.require_member(member)


def test_fixed_knobs_are_part_of_every_member() -> None:
    analysis = analyse(net())
    found = choices(analysis, Space({"stage0.*.kernel": (3, 5), "stage0.width": ("x2",)}))
    assert plan(analysis, found.spec(found.largest())).resolved.values["stage0.width"] == 12
    assert Spec(found.fixed).knobs == {"stage0.width": "x2"}


def test_the_automatic_space_holds_the_seed_and_a_further_block_chooses_like_the_last() -> None:
    analysis = analyse(net())
    found = choices(analysis, preset("coarse", analysis))
    own = {"kernel": 3, "hidden": 8, "groups": 1}
    assert all(own in [dict(candidate) for candidate in block.candidates] for block in found.blocks)
    # two kernels, two widths, one group or two
    assert [len(block.candidates) for block in found.blocks] == [8, 8, 8, 8]
    finer = choices(analysis, preset("auto", analysis))
    assert [len(block.candidates) for block in finer.blocks] == [12, 12, 12, 12]
    assert found.least == {0: 2}
    tables = cost_tables(analysis, found)
    low, high = extremes(tables["madds"], found)
    assert low < (analysis.cost.macs or 0) < high


def widths(space: Space, knob: str) -> list[object]:
    return sorted(space.knobs[knob], key=int)


def test_the_automatic_space_offers_eighths_of_hidden_widths_down_to_half_in_multiples() -> None:
    _, analysis = seed()
    space = preset("auto", analysis)
    assert widths(space, "stage5.block1.hidden") == [480, 600, 720, 840, 960]
    # in eights where that moves them by a tenth at most
    assert widths(space, "stage1.block1.hidden") == [72, 88, 112, 128, 144]
    held = preset("auto", analysis, 32)
    assert widths(held, "stage5.block1.hidden") == [480, 608, 704, 832, 960]
    assert widths(held, "stage1.block1.hidden") == [64, 96, 128]  # 144, what the seed has, is no multiple
    assert all(int(width) % 32 == 0 for key, row in held.knobs.items() if "hidden" in key for width in row)


def test_with_too_many_candidates_the_automatic_space_goes_without_groups_then_without_kernels() -> None:
    made = Net(channels=3)
    y = made.conv_bn_relu("x", "stem", 32, 3)
    for k in range(2):
        inner = made.conv_bn_relu(
            made.conv_bn_relu(made.conv_bn_relu(y, f"a{k}", 64, 3), f"b{k}", 64, 3), f"c{k}", 64, 3
        )
        y = made.op("Add", f"s{k}", y, made.conv_bn(inner, f"d{k}", 32))
    made.classifier(y)
    analysis = analyse(made.graph())
    found = choices(analysis, preset("auto", analysis))
    assert max(len(block.candidates) for block in found.blocks) <= 128
    tails = {tail for block in found.blocks for tail in block.candidates[0]}
    assert not any(tail.startswith("groups") for tail in tails)
    assert any(tail.startswith("hidden") for tail in tails)


def test_a_block_of_many_widths_chooses_its_largest_ones_alone() -> None:
    made = Net(channels=3)
    y = made.conv_bn_relu("x", "stem", 16, 3)
    for k in range(2):
        inner = y
        for j in range(9):
            inner = made.conv_bn_relu(inner, f"{'abcdefghi'[j]}{k}", 8 * (j + 2), 3)
        y = made.op("Add", f"s{k}", y, made.conv_bn(inner, f"z{k}", 16))
    made.classifier(y)
    analysis = analyse(made.graph())
    found = choices(analysis, preset("auto", analysis))
    assert {len(block.candidates) for block in found.blocks} == {128}
    assert {frozenset(block.candidates[0]) for block in found.blocks} == {frozenset(f"hidden{k}" for k in range(3, 10))}


def test_without_growth_a_block_chooses_among_what_computes_less_than_the_seed() -> None:
    analysis, found = small()
    left = without_growth(analysis, found)
    assert [block.name for block in left.blocks] == ["stage0.block0", "stage0.block1", "stage0.block2"]
    assert {frozenset(row.items()) for row in left.blocks[0].candidates} == {
        frozenset({"kernel": 3, "hidden": hidden, "groups": groups}.items()) for hidden in (4, 8) for groups in (1, 2)
    }
    assert [block.skippable for block in left.blocks] == [False, True, True]
    assert left.least == found.least
    grown = choices(
        analysis, Space({"stage0.depth": (4,), "stage0.*.kernel": (5, 7), "stage0.*.hidden": ("x1.5", "x0.5")})
    )
    kept = without_growth(analysis, grown)
    assert [dict(row) for row in kept.blocks[3].candidates] == [{"kernel": 5, "hidden": 12}, {"kernel": 5, "hidden": 4}]


def test_widths_are_held_to_a_multiple_and_a_block_left_with_none_says_so() -> None:
    analysis, found = small()
    held = held_to(8, analysis, found)
    assert {row["hidden"] for block in held.blocks for row in block.candidates} == {8}
    assert {row["kernel"] for block in held.blocks for row in block.candidates} == {3, 5}
    with pytest.raises(
        UserError, match=r"stage0.block0 has no widths that are multiples of 16 to choose from \(hidden 4, 8\)"
    ):
        held_to(16, analysis, found)


def test_the_published_presets_are_the_papers_and_refuse_other_seeds() -> None:
    _, analysis = seed()
    for name, most in (("fna-detection", [4, 4, 4, 4, 4, 1]), ("fna-segmentation", [4, 4, 6, 6, 4, 1])):
        found = choices(analysis, preset(name, analysis))
        assert [sum(block.stage == i for block in found.blocks) for i in range(1, 7)] == most
        assert {len(block.candidates) for block in found.blocks if block.stage} == {6}
    with pytest.raises(UserError, match="use 'auto'"):
        preset("fna-detection", analyse(net()))
    with pytest.raises(UserError, match="there is no space 'fna'"):
        preset("fna", analysis)


# --- widths outside blocks ----------------------------------------------------------------------


def plain(*widths: int) -> Analysis:
    """A network without blocks: convolutions of these widths."""
    made = Net()
    y = "x"
    for k, width in enumerate(widths):
        y = made.conv_bn_relu(y, f"c{k}", width, 3)
    made.classifier(y)
    return analyse(made.graph())


def test_several_widths_outside_blocks_are_columns_and_the_nearest_to_the_seed_is_the_first() -> None:
    analysis = analyse(net())
    found = choices(analysis, Space({"stage0.*.hidden": (4, 8), "stage0.width": (3, 12, 6, 4)}))
    assert found.trunks == ({}, {"stage0.width": 4}, {"stage0.width": 12}, {"stage0.width": 3})
    assert found.size == 4 * 2**3
    assert [round(trunk_share(analysis, found, k), 3) for k in range(4)] == [1, 0.667, 2, 0.5]
    own = found.largest()
    assert "stage0.width" not in found.spec(own).knobs
    assert found.at(3).spec(own).knobs["stage0.width"] == 3
    assert cost_tables(analysis, found.at(3))["madds"].of(own) == planned(analysis, found.at(3).spec(own))


def planned(analysis: Analysis, spec: Spec) -> int | None:
    return planned_cost(plan(analysis, spec), analysis).macs


def test_columns_of_several_keys_go_together() -> None:
    analysis = plain(16, 32)
    found = choices(analysis, Space({"node:c0.width": (16, 12, 8), "node:*1.width": (32, 32, "x0.5")}))
    assert found.blocks == ()
    assert found.trunks == ({}, {"node:c0.width": 12}, {"node:c0.width": 8, "node:c1.width": 16})
    assert [found.at(k).spec(()).knobs for k in range(3)] == [dict(trunk) for trunk in found.trunks]
    assert [
        extremes(table, found.at(k)) for k in range(3) for table in [cost_tables(analysis, found.at(k))["madds"]]
    ] == [(cost, cost) for cost in (planned(analysis, found.at(k).spec(())) for k in range(3))]


def test_a_trunk_that_grows_or_is_no_multiple_is_left_out() -> None:
    analysis = plain(16, 32)
    found = choices(analysis, Space({"node:c0.width": (16, 12, 8, 8), "node:c1.width": (32, 32, 40, 24)}))
    assert without_growth(analysis, found).trunks == (
        {},
        {"node:c0.width": 12},
        {"node:c0.width": 8, "node:c1.width": 24},
    )
    assert held_to(8, analysis, found).trunks == (
        {},
        *[trunk for trunk in found.trunks if trunk.get("node:c0.width") == 8],
    )
    odd = choices(analysis, Space({"node:c0.width": (12, 15)}))
    with pytest.raises(UserError, match="no column consists of multiples of 8"):
        held_to(8, analysis, odd)


def test_the_automatic_space_offers_all_widths_outside_blocks_together_down_to_half() -> None:
    assert preset("auto", plain(16, 32)).knobs == {
        "node:c0.width": (16, 14, 12, 10, 8),
        "node:c1.width": (32, 28, 24, 20, 16),
    }
    assert preset("auto", plain(16, 4)).knobs == {"node:c0.width": (16, 14, 12, 10, 8)}  # so few channels stay
    assert preset("auto", plain(16, 36), 8).knobs == {
        "node:c0.width": (16, 16, 16, 8, 8),
        "node:c1.width": (36, 32, 24, 24, 16),
    }
    _, analysis = seed()
    space = preset("auto", analysis)
    assert space.knobs["stage2.width"] == (32, 28, 24, 20, 16)
    assert space.knobs["stage6.width"] == (320, 280, 240, 200, 160)
    assert len(choices(analysis, space).trunks) == 5


def test_a_network_in_which_nothing_may_shrink_has_nothing_to_search_and_says_why() -> None:
    made = Net()
    made.classifier(made.conv_bn_relu("x", "stem", 6, 3))
    with pytest.raises(
        UserError,
        match="there is nothing to search: this network has no blocks with anything to choose, and its widths are "
        "frozen",
    ):
        preset("auto", analyse(made.graph()))
