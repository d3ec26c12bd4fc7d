"""A network with a head is a network: its stages and knobs stay, the head has knobs of its own, and it remaps whole."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from nets import bundled
from seeds_of_heads import STYLES, again, made, mobile, small

from fnatool.runtime.verify import verify
from passes import Plan, Spec, apply, plan
from passes.errors import UserError
from passes.heads import Attached, HeadSpec
from passes.network.analyse import analyse
from passes.network.analysis import Analysis
from passes.network.stages import stage_table

HALVED = Spec({"**.width": "x0.5", "**.hidden": "x0.5"})
GROWN = Spec({"**.width": "x1.5", "**.hidden": "x1.5", "**.kernel": "+2", "stage0.depth": "+1", "stage2.depth": "+1"})
INNER = {
    "linear": set(),
    "deeplabv3": {f"{name}.conv" for name in ("aspp0", "aspp1", "aspp2", "aspp3", "image", "project")},
    "retinanet": {"fpn.p5.lateral", "fpn.p3", *(f"{tower}.p3.conv{k}" for tower in ("cls", "box") for k in range(4))},
    "ssdlite": {"extra0.reduce", "extra0.expand"},
    "simplebaseline": {"deconv0", "deconv1", "deconv2"},
}


def headed(style: str) -> tuple[Attached, Analysis]:
    found = made(mobile().graph(), small(style))
    return found, again(found)


def remapped(style: str, spec: Spec, strategy: str = "fna") -> tuple[gs.Graph, gs.Graph, Analysis, Plan]:
    """With its head: the network, its remap, the analysis and the plan."""
    found, analysis = headed(style)
    way = plan(analysis, spec, strategy=strategy)
    return found.graph, apply(found.graph, way), analysis, way


def shared_parameters(found: Analysis) -> int:
    """How many of the head's parameters several nodes read."""
    return sum(len(found.view.readers[name]) > 1 for name in found.cost.tensor_params if name.startswith("head."))


@pytest.mark.parametrize("style", STYLES)
def test_the_heads_inner_channels_have_knobs_that_grow_exactly(style: str) -> None:
    knobs = {
        knob.name: knob
        for knob in headed(style)[1].knobs.values()
        if knob.kind == "width" and knob.name.startswith("node:head.")
    }
    open_ = {name for name, knob in knobs.items() if knob.growth == "exact"}
    assert open_ == {f"node:head.{name}.width" for name in INNER[style]}
    assert all(knob.why for name, knob in knobs.items() if name not in open_)


@pytest.mark.parametrize("style", STYLES)
def test_the_seeds_own_knobs_keep_their_names(style: str) -> None:
    """All in the stages, even the hidden channels that SSDLite taps; behind the taps there is nothing left to have a
    knob.
    """
    before = {name for name in analyse(mobile().graph()).knobs if name.startswith("stage")}
    assert before <= set(headed(style)[1].knobs)


@pytest.mark.parametrize("style", STYLES)
def test_everything_can_be_halved(style: str) -> None:
    before, after, analysis, way = remapped(style, HALVED)
    result = verify(before, after, analysis, way)
    assert result.exact
    assert result.first is None
    assert analyse(after, table=way.table).cost.params < 0.45 * analysis.cost.params or style == "linear"


@pytest.mark.parametrize("style", STYLES)
def test_everything_can_grow_and_compute_the_same(style: str) -> None:
    before, after, analysis, way = remapped(style, GROWN, "preserve")
    result = verify(before, after, analysis, way)
    assert result.exact
    assert result.first is None
    assert [len(stage.blocks) for stage in analyse(after, table=way.table).stages] == [3, 1, 3, 1]


@pytest.mark.parametrize("style", [style for style in STYLES if style != "linear"])
def test_a_growth_that_goes_wrong_in_the_head_is_noticed(style: str) -> None:
    before, after, analysis, way = remapped(style, GROWN, "preserve")
    guilty = {
        "deeplabv3": "project.conv",
        "retinanet": "box.conv2",
        "ssdlite": "extra0.expand",
        "simplebaseline": "deconv1",
    }[style]
    tensor = after.tensors()[f"head.{guilty}.weight"]
    tensor.values = np.roll(tensor.values, 1, 0 if style == "simplebaseline" else 1)  # what it reads, in another order
    first = verify(before, after, analysis, way).first
    assert first is not None
    assert first.node.startswith("head.")


def test_weights_of_the_towers_stay_one_parameter_with_their_biases() -> None:
    found, analysis = headed("retinanet")
    assert shared_parameters(analysis) == 2 * (4 + 1) * 2  # two towers, five convolutions each, a weight and a bias
    for spec, strategy in ((HALVED, "fna"), (GROWN, "preserve")):
        way = plan(analysis, spec, strategy=strategy)
        assert shared_parameters(analyse(apply(found.graph, way), table=way.table)) == 20


def test_one_knob_resizes_a_tower_on_all_levels() -> None:
    found, analysis = headed("retinanet")
    target = apply(found.graph, plan(analysis, Spec({"node:head.cls.p3.conv1.width": 5})))
    weights = {name: tuple(t.values.shape) for name, t in target.tensors().items() if isinstance(t, gs.Constant)}
    assert weights["head.cls.conv1.weight"] == (5, 8, 3, 3)
    assert weights["head.cls.conv1.bias"] == (5,)
    assert weights["head.cls.conv2.weight"] == (8, 5, 3, 3)
    assert weights["head.box.conv1.weight"] == (8, 8, 3, 3)


# --- a block that is tapped inside --------------------------------------------------------------


def tapped() -> tuple[Attached, Analysis]:
    """A head on the hidden channels of a residual block, the second of its stage, and on the last map."""
    found = made(mobile().graph(), HeadSpec("ssdlite", 3, ("stage2.block1.hidden", "last.n.r"), levels=3))
    return found, again(found)


def test_a_block_that_is_tapped_inside_is_a_block_still() -> None:
    _, analysis = tapped()
    assert [len(stage.blocks) for stage in analysis.stages] == [2, 1, 2, 1]
    assert analysis.stages[2].blocks[1].tapped == ("s2b1e.n.r",)
    assert analysis.knobs["stage2.block1.hidden"].growth == "exact"


def test_it_grows_and_is_repeated_and_the_head_goes_on_reading_the_first() -> None:
    found, analysis = tapped()
    way = plan(
        analysis, Spec({"stage2.depth": 4, "stage2.block1.hidden": 60, "stage2.block3.hidden": 48}), strategy="preserve"
    )
    target = apply(found.graph, way)
    result = verify(found.graph, target, analysis, way)
    assert result.exact
    assert result.first is None
    after = analyse(target, table=way.table)
    assert [after.knobs[f"stage2.block{j}.hidden"].value for j in (1, 2, 3)] == [60, 40, 48]
    assert [block.tapped for block in after.stages[2].blocks] == [(), ("s2b1e.n.r",), (), ()]


def test_it_cannot_be_dropped() -> None:
    _, analysis = tapped()
    with pytest.raises(
        UserError,
        match=r"stage2 would lose the seed's block 1, whose 's2b1e.n.r' a head reads; keep it by 'stage2.depth'",
    ):
        plan(analysis, Spec({"stage2.depth": 1}))


def test_a_table_is_not_believed_where_the_graph_shows_the_inside_of_a_block() -> None:
    table = stage_table(analyse(mobile().graph()).stages)
    shown = mobile().graph("y", "s2b1e.n.r")
    assert analyse(shown, table=table).stages == analyse(shown).stages
    assert len(analyse(shown).stages[2].blocks) == 1


# --- the bundled seed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "output", "shape"),
    [
        (HeadSpec("retinanet", 3, width=8), "cls_logits", (1, 9 * (32 * 24 + 16 * 12 + 8 * 6 + 4 * 3 + 2 * 2), 3)),
        (HeadSpec("deeplabv3", 3, width=8), "mask_logits", (1, 3, 8, 6)),
    ],
)
def test_with_its_head_a_network_takes_another_image_size(head: HeadSpec, output: str, shape: tuple[int, ...]) -> None:
    found = made(bundled(), head)
    target = apply(found.graph, plan(again(found), Spec({"input.size": [256, 192]})))
    assert analyse(target).shapes.shapes[output] == shape
