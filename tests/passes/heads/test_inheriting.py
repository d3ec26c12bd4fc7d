"""A head for other classes goes on from the head of the same style that the network has."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from nets import values
from seeds_of_heads import STYLES, again, made, mobile, small

from passes.errors import UserError
from passes.heads import Attached, HeadSpec, attach
from passes.heads.inheriting import Keep, OwnHead, inherited, missing

LEARNT = ("weight", "bias", "running_mean", "running_var")
HEADS = [style for style in STYLES if style != "linear"]


def first(style: str) -> Attached:
    """A head for three, with weights and statistics of its own."""
    found = made(mobile().graph(), small(style))
    rng = np.random.default_rng(7)
    for name, tensor in found.graph.tensors().items():
        if isinstance(tensor, gs.Constant) and name.startswith("head.") and name.rpartition(".")[2] in LEARNT:
            low = 0.5 if "running_var" in name else -0.5
            tensor.values = rng.uniform(low, 1.0, tensor.values.shape).astype(np.float32)
    return found


def second(before: Attached, style: str, count: int, keep: Keep = ()) -> Attached:
    """A head for others in its place."""
    head = HeadSpec(style, count, keep=keep, own=before.own)
    return attach(before.graph, again(before), head, rng=np.random.default_rng(1))


@pytest.mark.parametrize("style", HEADS)
def test_kept_classes_have_the_scores_that_they_had(style: str) -> None:
    before = first(style)
    after = second(before, style, 5, keep=(2, 0))
    assert after.inherits
    assert [tap.tensor for tap in after.taps] == [tap.tensor for tap in before.taps]
    name = before.graph.outputs[0].name
    old, new = (values(found.graph, again(found), name)[0] for found in (before, after))
    axis = 1 if old.ndim == 4 else 2
    behind = old.shape[axis] - 3  # the background
    old, new = np.moveaxis(old, axis, 0), np.moveaxis(new, axis, 0)
    assert len(new) == behind + 5
    spread = old.max() - old.min()
    np.testing.assert_allclose(new[: behind + 2], old[[*range(behind), behind + 2, behind]], rtol=0, atol=1e-5 * spread)
    assert np.abs(new[behind + 2 :] - old[: len(new) - behind - 2]).max() > 1e-3 * spread


@pytest.mark.parametrize("style", ["retinanet", "ssdlite"])
def test_boxes_stay_where_they_were(style: str) -> None:
    before = first(style)
    after = second(before, style, 1)
    old, new = (values(found.graph, again(found), "boxes")[0] for found in (before, after))
    assert old.tobytes() == new.tobytes()


def test_other_taps_or_options_make_a_fresh_head() -> None:
    before = first("retinanet")
    head = HeadSpec("retinanet", 3, width=8, levels=4, own=before.own)
    assert not attach(before.graph, again(before), head, rng=np.random.default_rng(1)).inherits
    other = HeadSpec("deeplabv3", 3, own=before.own)
    assert not attach(before.graph, again(before), other, rng=np.random.default_rng(1)).inherits


def test_a_head_that_is_not_as_it_was_made_is_not_gone_on_from() -> None:
    before = first("deeplabv3")
    for node in before.graph.nodes:
        for tensor in node.inputs:
            tensor.name = tensor.name.replace("head.image.conv.weight", "renamed")
    assert not second(before, "deeplabv3", 4).inherits
    with pytest.raises(UserError, match="has other weights than it was made with"):
        second(before, "deeplabv3", 4, keep=(0,))


def test_rows_that_are_not_there_are_refused() -> None:
    before = first("deeplabv3")
    with pytest.raises(UserError, match="the seed has no class 3: its 3 classes are counted from 0"):
        second(before, "deeplabv3", 4, keep=(3,))
    with pytest.raises(UserError, match="3 rows to keep are more than the 2 classes asked for"):
        second(before, "deeplabv3", 2, keep="all")


def test_rows_lie_anchor_by_anchor_behind_the_background() -> None:
    fresh = {"w": np.zeros((2 * (1 + 3), 1)), "n": np.array([2, 4])}
    wider = {"w": np.zeros((2 * (1 + 4), 1)), "n": np.array([2, 5])}
    old = {"w": gs.Constant("w", np.arange(2.0 * (1 + 2)).reshape(6, 1))}  # two classes, two anchors
    assert missing(fresh, wider, old) == ""
    found = inherited(fresh, wider, old, keep=(1,), count=3)
    assert found["w"].ravel().tolist() == [0, 2, 0, 0, 3, 5, 0, 0]
    assert found["n"].tolist() == [2, 4]
    assert missing({"w": np.zeros((8, 2))}, {"w": np.zeros((10, 2))}, old) == "w"
    assert OwnHead("ssdlite", ("a",)) == OwnHead("ssdlite", ("a",), None, None)
