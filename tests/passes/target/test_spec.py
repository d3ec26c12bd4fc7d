"""Specs: what is refused and how it is said, patterns, relative values, and the order of resolution."""

from __future__ import annotations

import functools
import json
import re

import numpy as np
import pytest
from nets import Net, bundled

from passes import Analysis, Spec, UserError, analyse, apply, own_spec, parse, plan, resolve
from passes.nearest import closest
from passes.target.resolve import differences


@functools.cache
def seed() -> Analysis:
    return analyse(bundled())


@functools.cache
def odd() -> Analysis:
    """A network with a grouped convolution, an even kernel, a frozen output in the middle and a normalisation over
    channels.
    """
    net = Net()
    y = net.conv_bn_relu("x", "g1", 16, 3)
    y = net.conv_bn_relu(y, "g2", 24, 3, group=4)
    y = net.conv(y, "even", 10, 4)
    net.conv(y, "tap", 7, 5)
    net.classifier(net.op("LRN", "n", net.conv("tap", "last", 12), size=3))
    return net.analysis("y", "tap")


def resolved(found: Analysis | None = None, **knobs: int | str) -> dict[str, int]:
    return dict(resolve(found or seed(), Spec({key.replace("__", "."): value for key, value in knobs.items()})).values)


def refused(knobs: dict[str, int | str], found: Analysis | None = None) -> str:
    with pytest.raises(UserError) as caught:
        resolve(found or seed(), Spec(knobs))
    return str(caught.value)


# --- the document -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "a spec is a JSON object with 'version' and 'knobs', not a list"),
        ("x", "a spec is a JSON object with 'version' and 'knobs', not a string"),
        ({}, "this spec has version None; this fnatool reads version 1"),
        ({"version": 2}, "this spec has version 2; this fnatool reads version 1"),
        ({"version": True}, "this spec has version True"),
        ({"version": 1, "knob": {}}, "a spec has the keys 'version', 'seed' and 'knobs', not 'knob'"),
        ({"version": 1, "stage1.width": 8}, "not 'stage1.width'; knobs go inside 'knobs'"),
        (
            {"version": 1, "seed": 5},
            "'seed' is the string 'sha256:…' that 'fnatool inspect --spec' prints, not a number",
        ),
        ({"version": 1, "knobs": []}, "'knobs' is an object of knob: value, not a list"),
        ({"version": 1, "knobs": {"a": 1.5}}, "'a' must be an integer or a string such as"),
        ({"version": 1, "knobs": {"a": None}}, "not null"),
        ({"version": 1, "knobs": {"a": True}}, "not true/false"),
        ({"version": 1, "knobs": {"a": {}}}, "not an object"),
    ],
)
def test_a_document_that_is_no_spec_is_refused(document: object, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        parse(document)


def test_a_spec_survives_its_document() -> None:
    spec = Spec({"stage1.width": 40, "stage2.depth": "+1"}, "sha256:0")
    assert parse(json.loads(json.dumps(spec.to_json()))) == spec


# --- keys ---------------------------------------------------------------------------------------


def test_what_is_unsaid_keeps_the_seed_s_value() -> None:
    assert resolved() == {name: knob.value for name, knob in seed().knobs.items()}


def test_a_star_stands_for_one_segment() -> None:
    values = resolved(**{"stage2.*.kernel": 5})
    assert {name for name, value in values.items() if value == 5} == {f"stage2.block{j}.kernel" for j in range(3)}


def test_two_stars_stand_for_any() -> None:
    values = resolved(**{"**.kernel": 5})
    assert sum(value == 5 for value in values.values()) == 18


def test_a_star_does_not_reach_over_a_dot() -> None:
    assert "matches no knob" in refused({"stage2.*kernel": 5, "*kernel": 5})


def test_a_star_may_be_a_part_of_a_segment() -> None:
    values = resolved(**{"stage*.width": "+8"})
    assert [values[f"stage{i}.width"] for i in range(7)] == [24, 32, 40, 72, 104, 168, 328]


def test_an_exact_key_beats_a_pattern() -> None:
    values = resolved(**{"stage2.*.kernel": 5, "stage2.block1.kernel": 7})
    assert [values[f"stage2.block{j}.kernel"] for j in range(3)] == [5, 7, 5]


def test_patterns_may_overlap_where_they_agree() -> None:
    assert resolved(**{"stage2.*.kernel": 5, "**.kernel": "+2"})["stage2.block0.kernel"] == 5


def test_patterns_that_disagree_are_both_named() -> None:
    message = refused({"stage2.*.kernel": 5, "**.kernel": 7})
    assert (
        message == "'stage2.*.kernel' and '**.kernel' disagree on 'stage2.block0.kernel': 5 and 7; name the knob itself"
    )


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    message = (
        f"pattern 'stage9.*.kernel' matches no knob of this model; 'fnatool inspect' lists all {len(seed().knobs) + 3}"
    )
    assert refused({"stage9.*.kernel": 5}) == message


def test_an_unknown_key_names_the_nearest() -> None:
    message = refused({"stage2.block0.kernal": 5})
    assert message.startswith("'stage2.block0.kernal' is not a knob of this model; did you mean 'stage2.block0.kernel'")
    assert message.endswith(f"? 'fnatool inspect' lists all {len(seed().knobs) + 3}")


def test_the_nearest_is_in_the_stage_that_was_named() -> None:
    assert "did you mean 'stage2.block" in refused({"stage2.kernal": 5})


def test_a_key_far_from_all_others_gets_no_suggestion() -> None:
    assert refused({"zzz": 1}).startswith("'zzz' is not a knob of this model; 'fnatool inspect' lists all")
    assert closest("zzz", ["stage0.width"]) == "; 'fnatool inspect' lists all 1"


def test_special_letters_in_a_key_mean_themselves() -> None:
    assert "matches no knob" in refused({"stage2.block0.kerne.*": 5})
    assert "matches no knob" in refused({"stage[0-9]*": 5})


# --- frozen knobs -------------------------------------------------------------------------------


def test_an_exact_key_on_a_frozen_knob_is_an_error_with_the_reason() -> None:
    assert refused({"node:fc.width": 21}) == "'node:fc.width' is frozen at 19: graph output 'logits'"
    assert refused({"node:fc.width": "x2"}) == "'node:fc.width' is frozen at 19: graph output 'logits'"


def test_a_frozen_knob_may_be_given_the_value_it_has() -> None:
    assert resolved(**{"node:fc.width": 19})["node:fc.width"] == 19
    assert resolved(**{"node:fc.width": "x1"})["node:fc.width"] == 19


def test_a_pattern_skips_frozen_knobs_and_says_so() -> None:
    found = resolve(seed(), Spec({"stage*.depth": "+1"}))
    assert [found.values[f"stage{i}.depth"] for i in range(7)] == [1, 3, 4, 5, 4, 4, 1]
    assert found.notes == ("pattern 'stage*.depth' skipped 2 frozen knob(s): stage0.depth, stage6.depth",)


def test_a_long_list_of_skipped_knobs_is_cut() -> None:
    net = Net()
    taps = [net.conv("x", f"c{k}", 4) for k in range(5)]
    found = resolve(net.analysis(*taps), Spec({"node:*.width": 8}))
    assert found.notes == (
        "pattern 'node:*.width' skipped 5 frozen knob(s): node:c0.width, node:c1.width, node:c2.width and 2 more",
    )


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "big", "1.25", "*2", "x", "x-1", "+1.5", "++1", "x1e9", "x9999999", "12"])
def test_a_string_that_is_not_relative_is_an_error(value: str) -> None:
    assert "is neither an integer nor relative to the seed's value" in refused({"stage1.width": value})


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"stage1.width": 1}, "'stage1.width': 1 is out of range for 'stage1.width', which goes from 2 to 65536"),
        ({"stage1.width": 0}, "out of range"),
        ({"stage1.width": -8}, "out of range"),
        ({"stage1.width": 10**9}, "out of range"),
        ({"stage1.width": "x60000"}, "'stage1.width': 'x60000' asks 'stage1.width' for 1440000, but the most is 65536"),
        ({"stage1.width": "-23"}, "'stage1.width': 1 is out of range"),
        ({"stage1.depth": 0}, "'stage1.depth': 0 is out of range for 'stage1.depth', which goes from 1 to 256"),
        ({"stage*.depth": "-5"}, "out of range"),
        (
            {"stage1.block0.kernel": 4},
            "'stage1.block0.kernel': 4 is not possible for 'stage1.block0.kernel': a kernel of 3 stays odd",
        ),
        ({"stage1.block0.kernel": 1}, "out of range"),
        ({"stage1.block0.kernel": 33}, "out of range"),
    ],
)
def test_an_impossible_value_is_an_error(knobs: dict[str, int | str], message: str) -> None:
    assert message in refused(knobs)


def test_an_even_kernel_stays_even() -> None:
    assert "a kernel of 4 stays even" in refused({"node:even.kernel": 5}, odd())
    assert resolved(odd(), **{"node:even.kernel": 6})["node:even.kernel"] == 6


def test_a_width_in_groups_is_a_multiple_of_them() -> None:
    message = refused({"node:g2.width": 26}, odd())
    assert message == "'node:g2.width': 'node:g2.width' must be a multiple of 4; the nearest are 24 and 28"
    assert resolved(odd(), **{"node:g2.width": 28})["node:g2.width"] == 28


@pytest.mark.parametrize(
    ("value", "stage0", "stage1", "stage6"),  # 16, 24 and 320 channels
    [
        ("x1", 16, 24, 320),
        ("x1.25", 20, 32, 400),  # 20: 8 would move it by 20 %, so 4
        ("x1.5", 24, 36, 480),  # 36: 32 and 40 are 11 % away, so 4
        ("x2", 32, 48, 640),
        ("x0.5", 8, 12, 160),
        ("x0.75", 12, 18, 240),
        ("x1.01", 16, 24, 320),
        ("x0.99", 16, 24, 320),
        ("x0.01", 2, 2, 3),
    ],
)
def test_a_factor_is_rounded_to_eight_channels_where_that_moves_it_by_a_tenth_at_most(
    value: str, stage0: int, stage1: int, stage6: int
) -> None:
    values = resolved(**{"stage*.width": value})
    assert [values[f"stage{i}.width"] for i in (0, 1, 6)] == [stage0, stage1, stage6]


def test_a_difference_is_meant_as_it_is() -> None:
    values = resolved(**{"stage*.width": "+3"})
    assert [values[f"stage{i}.width"] for i in (0, 1, 6)] == [19, 27, 323]


def test_rounding_is_within_a_tenth_and_never_crosses_the_seed_s_value() -> None:
    for percent in range(30, 300, 7):
        values = resolved(**{"stage*.width": f"x{percent / 100}"})
        for i in range(7):
            own, made = seed().knobs[f"stage{i}.width"].value, values[f"stage{i}.width"]
            assert abs(made - own * percent / 100) <= max(0.1 * own * percent / 100, 1)
            assert (made - own) * (percent - 100) >= 0


def test_a_relative_width_in_groups_is_a_multiple_of_them() -> None:
    for percent in range(30, 300, 11):
        assert resolved(odd(), **{"node:g2.width": f"x{percent / 100}"})["node:g2.width"] % 4 == 0


def test_a_relative_width_below_the_least_is_the_least() -> None:
    least = odd().knobs["node:g2.width"].min
    assert least % 4 == 0
    assert resolved(odd(), **{"node:g2.width": "x0.01"})["node:g2.width"] == least


@pytest.mark.parametrize(("value", "expected"), [("+2", 5), ("+4", 7), ("x2", 5), ("x2.4", 7), ("x1", 3), ("x1.2", 3)])
def test_a_relative_kernel_keeps_its_parity(value: str, expected: int) -> None:
    assert resolved(**{"stage1.block0.kernel": value})["stage1.block0.kernel"] == expected


def test_a_kernel_one_tap_larger_is_impossible() -> None:
    assert "4 is not possible" in refused({"stage1.block0.kernel": "+1"})


def test_a_relative_depth_counts_blocks() -> None:
    values = resolved(**{"stage3.depth": "-2", "stage4.depth": "x2"})
    assert (values["stage3.depth"], values["stage4.depth"]) == (2, 6)


def test_growth_says_why_it_is_not_exact() -> None:
    knob = odd().knobs["node:last.width"]
    assert knob.growth == "approximate"
    assert knob.why == "'n' (LRN) looks at neighbouring channels"


# --- depth and from -----------------------------------------------------------------------------


def test_a_new_block_comes_from_the_last_and_takes_its_values() -> None:
    found = resolve(seed(), Spec({"stage2.depth": 5}))
    assert found.sources[2] == (0, 1, 2, 2, 2)
    assert found.values["stage2.block4.hidden"] == 192
    assert found.values["stage2.block4.from"] == 2


def test_from_says_another_choice() -> None:
    found = resolve(seed(), Spec({"stage2.depth": 4, "stage2.block1.from": 2, "stage2.block3.from": 1}))
    assert found.sources[2] == (0, 2, 2, 1)


def test_a_block_takes_the_values_of_the_block_it_comes_from() -> None:
    net = Net()
    y = net.conv_bn_relu("x", "stem", 8, 3)
    for k, (hidden, kernel) in enumerate([(10, 3), (12, 5), (14, 3)]):
        branch = net.conv_bn_relu(y, f"e{k}", hidden, kernel)
        y = net.op("Add", f"s{k}", y, net.conv_bn(branch, f"l{k}", 8))
    net.classifier(y)
    values = resolved(net.analysis(), **{"stage0.block1.from": 0, "stage0.block2.from": 1})
    assert [values[f"stage0.block{j}.hidden"] for j in range(3)] == [10, 10, 12]
    assert [values[f"stage0.block{j}.kernel"] for j in range(3)] == [3, 3, 5]


def test_relative_values_of_a_block_are_relative_to_the_block_it_comes_from() -> None:
    assert resolved(**{"stage1.depth": 3, "stage1.block2.hidden": "x2"})["stage1.block2.hidden"] == 288


def test_depth_is_resolved_before_the_blocks_it_makes() -> None:
    assert resolved(**{"stage1.block3.kernel": 7, "stage1.depth": 4})["stage1.block3.kernel"] == 7
    assert resolved(**{"stage1.*.kernel": 7, "stage1.depth": 4})["stage1.block3.kernel"] == 7


def test_a_block_beyond_the_depth_is_an_error_that_says_what_to_do() -> None:
    message = (
        "'stage1.block3.kernel': stage1 has 2 block(s) in the target, counted from 0; set 'stage1.depth' to 4 or more"
    )
    assert refused({"stage1.block3.kernel": 7}) == message
    assert "stage3 has 2 block(s)" in refused({"stage3.depth": 2, "stage3.block2.hidden": 96})


@pytest.mark.parametrize("value", [0, 3])
def test_a_block_cannot_come_from_where_none_fits(value: int) -> None:
    assert f"'stage2.block1.from': {value} is out of range" in refused({"stage2.block1.from": value})


def test_block_zero_comes_from_zero() -> None:
    assert "'stage2.block0.from' is not a knob" in refused({"stage2.block0.from": 0})


def test_from_is_written_only_where_it_is_not_the_default() -> None:
    spec = resolve(seed(), Spec({"stage2.depth": 4, "stage2.block3.from": 1})).spec()
    assert [key for key in spec.knobs if key.endswith(".from")] == ["stage2.block3.from"]


# --- closure ------------------------------------------------------------------------------------


def test_the_own_spec_has_every_knob_but_the_default_from() -> None:
    spec = own_spec(seed(), "sha256:0")
    assert spec.seed == "sha256:0"
    knobs = {name: knob.value for name, knob in seed().knobs.items() if knob.kind != "from"}
    assert dict(spec.knobs) == {"input.size": (160, 160), "input.channels": 3, "batch": "free", **knobs}


def test_the_own_spec_resolves_to_itself_and_plans_nothing() -> None:
    spec = own_spec(seed())
    assert resolve(seed(), spec).spec() == spec
    assert plan(seed(), spec).identity


def test_a_resolved_spec_resolves_to_itself() -> None:
    once = resolve(
        seed(), Spec({"stage*.width": "x1.25", "stage2.depth": 5, "stage2.block3.from": 1, "**.kernel": "+2"})
    )
    again = resolve(seed(), once.spec())
    assert again.values == once.values
    assert again.sources == once.sources


def test_the_target_is_what_its_resolved_spec_says() -> None:
    wanted = Spec(
        {"stage1.width": 40, "stage2.depth": 5, "stage3.depth": 2, "stage2.block4.hidden": 64, "stage4.*.kernel": 5}
    )
    found = plan(seed(), wanted)
    target = analyse(apply(bundled(), found), table=found.table)
    assert differences(target, found.resolved.spec()) == []
    assert dict(own_spec(target).knobs) == {
        key: value for key, value in found.resolved.spec().knobs.items() if not key.endswith(".from")
    }


def test_a_difference_is_one_sentence() -> None:
    asked = Spec({"stage1.width": 40, "stage7.width": 8, "stage1.depth": 2})
    assert differences(seed(), asked) == [
        "'stage1.width' should be 40, the model has 24",
        "'stage7.width' should be 8, but the model has no such knob",
    ]


def test_a_relative_value_cannot_be_told_from_the_model_alone() -> None:
    message = (
        "'stage1.width' is relative to the seed's value (x2), which the model does not tell; name the seed "
        "with --against"
    )
    assert differences(seed(), Spec({"stage1.width": "x2"})) == [message]


def test_a_pattern_is_compared_on_every_knob_it_matches_that_is_not_frozen() -> None:
    assert differences(seed(), Spec({"stage[0-9].width": 1})) == [
        "'stage[0-9].width' should be 1, but the model has no such knob"
    ]
    assert differences(seed(), Spec({"stage1.*.hidden": 96})) == [
        "'stage1.block1.hidden' should be 96, the model has 144"
    ]
    assert differences(seed(), Spec({"node:*.width": 32})) == ["'node:head.width' should be 32, the model has 1280"]


def test_knobs_are_in_the_order_of_the_network() -> None:
    names = list(resolve(seed(), Spec({"stage1.depth": 3})).values)
    stages = [int(re.findall(r"\d+", name)[0]) for name in names if name.startswith("stage")]
    assert stages == sorted(stages)
    assert names.index("stage1.block2.hidden") < names.index("stage2.depth")
    assert names[0] == "output_stride"
    assert all(name.startswith("node:") for name in names[1 + len(stages) :])
    assert np.all(np.diff(stages) >= 0)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("224x224", "[224, 224]"),
        ("224 × 160", "[224, 160]"),
        ("[96,128]", "[96, 128]"),
        ("(96, 128)", "[96, 128]"),
        ("224", "write 224,"),
    ],
)
def test_a_size_in_a_string_is_told_as_it_is_written(value: str, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        resolve(seed(), Spec({"input.size": value}))


def test_a_number_in_a_string_is_told_without_quotation_marks() -> None:
    with pytest.raises(UserError, match="write 8, without quotation marks"):
        resolve(seed(), Spec({"stage0.width": "8"}))


def unlike() -> Analysis:
    """Three residual blocks, of which only the last has a second kernel."""
    net = Net()
    y = net.conv_bn_relu("x", "stem", 6, 3)
    for k in range(3):
        inner = net.relu(net.conv_bn(y, f"e{k}", 8, 3))
        inner = net.relu(net.conv_bn(inner, f"m{k}", 8, 3)) if k == 2 else inner
        y = net.op("Add", f"s{k}", net.conv_bn(inner, f"l{k}", 6, 1), y)
    net.classifier(y)
    return net.analysis()


def test_a_knob_that_the_block_taken_does_not_have_is_said_to_be_the_blocks() -> None:
    assert "stage0.block2.kernel2" in unlike().knobs
    message = refused({"stage0.block2.from": 1, "stage0.block2.kernel2": 5}, unlike())
    assert "comes from the seed's block 1, which has no such knob" in message
    assert "'stage0.block2.from'" in message


def test_a_block_that_is_not_there_is_not_advised_where_the_depth_is_frozen() -> None:
    net = Net()
    y = net.conv_bn_relu("x", "stem", 6, 3)
    y = net.op("Add", "s0", net.conv_bn(y, "a", 8), net.conv_bn(y, "b", 8))
    net.classifier(y)
    found = net.analysis()
    assert found.knobs["stage0.depth"].growth == "frozen"
    message = refused({"stage0.block3.kernel": 3}, found)
    assert "its depth is frozen: " in message
    assert "set 'stage0.depth'" not in message
