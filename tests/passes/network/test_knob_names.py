"""The grammar of knob names: what is made is read again, and every knob of a network has a kind."""

from __future__ import annotations

import pytest
from nets import bundled

from passes.network.analyse import analyse
from passes.network.knobs import (
    IMAGE,
    KINDS,
    STRIDE,
    KnobName,
    block_knob,
    block_of,
    kind_of,
    knob_order,
    named,
    node_knob,
    stage_knob,
)


@pytest.mark.parametrize(
    ("knob", "said"),
    [
        ("stage3.depth", KnobName(3, None, "depth")),
        ("stage12.block40.kernel2", KnobName(12, 40, "kernel2")),
        ("stage0.block1.exit", KnobName(0, 1, "exit")),
        ("node:a.stage1.block2.width", None),
        ("output_stride", None),
        ("stage.depth", None),
        ("stage1", None),
    ],
)
def test_a_name_says_its_stage_its_block_and_what_is_set(knob: str, said: KnobName | None) -> None:
    assert named(knob) == said


def test_what_is_made_is_read_again() -> None:
    assert named(stage_knob(4, "width")) == KnobName(4, None, "width")
    assert block_of(block_knob(4, 2, "se2")) == (4, 2, "se2")
    assert block_of(stage_knob(4, "width")) is None
    assert named(node_knob("stage1.block1", "width")) is None


@pytest.mark.parametrize(
    ("knob", "kind"),
    [
        ("stage1.block0.kernel2", "kernel"),
        ("**.kernel", "kernel"),
        ("stage*.kernel*", "kernel"),
        ("stage1.*", ""),
        ("node:Conv_0.groups", "groups"),
        ("node:a/b.Conv_0", ""),
    ],
)
def test_the_end_of_a_name_or_pattern_says_the_kind(knob: str, kind: str) -> None:
    assert kind_of(knob) == kind


def test_stages_come_after_the_stride_and_before_nodes() -> None:
    names = [
        node_knob("Conv_0", "width"),
        "stage1.block0.kernel",
        "stage1.width",
        "stage0.block10.kernel2",
        "stage0.block10.kernel",
    ]
    names += ["stage0.block2.hidden", "stage0.depth", STRIDE]
    assert sorted(names, key=knob_order) == [
        STRIDE,
        *("stage0.depth", "stage0.block2.hidden", "stage0.block10.kernel", "stage0.block10.kernel2"),
        *("stage1.width", "stage1.block0.kernel", "node:Conv_0.width"),
    ]


def test_every_knob_of_a_network_has_a_kind() -> None:
    assert {kind_of(name) or name for name in analyse(bundled()).knobs} <= KINDS.keys()
    assert {IMAGE, STRIDE} <= KINDS.keys()
