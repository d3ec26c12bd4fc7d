"""Heads as graphs: what they give, on which graphs they stand, and that they compute what their equations say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from nets import Net, graph, weight
from seeds_of_heads import OUTPUTS, STYLES, again, made, mobile, plain, small

from fnatool.runtime.verify import noise, run_inner
from passes.errors import UserError
from passes.heads import Attached, HeadSpec, retinanet, ssdlite
from passes.heads.detection import HeadGeometry, stride_of
from passes.heads.writer import FeatureMap
from passes.network.analyse import analyse


def run(found: gs.Graph, *tensors: str, size: tuple[int, ...] | None = None) -> list[np.ndarray]:
    """Tensors for noise of the size given, or of the graph's."""
    feeds = noise(analyse(found, sizes={"x": size} if size else None), 3)
    return list(run_inner(found, feeds, tensors, "the graph").values())


def shapes(found: Attached) -> dict[str, list[object]]:
    return {tensor.name: list(tensor.shape) for tensor in found.graph.outputs}


# --- what they give -----------------------------------------------------------------------------

GIVEN = {
    "linear": {"logits": [1, 3]},
    "deeplabv3": {"mask_logits": [1, 3, 2, 2]},
    "retinanet": {"cls_logits": [1, 765, 3], "boxes": [1, 765, 4]},  # 9 · (8² + 4² + 2² + 1²)
    "ssdlite": {"cls_logits": [1, 84, 4], "boxes": [1, 84, 4]},  # 4 · (4² + 2² + 1²); the background is a class
    "simplebaseline": {"heatmaps": [1, 3, 16, 16]},
}


@pytest.mark.parametrize("style", STYLES)
def test_outputs_are_what_they_are_declared_to_be(style: str) -> None:
    found = made(mobile().graph(), small(style))
    assert shapes(found) == GIVEN[style]
    for name, values in zip(OUTPUTS[style], run(found.graph, *OUTPUTS[style]), strict=True):
        assert list(values.shape) == GIVEN[style][name]
        assert np.isfinite(values).all()


@pytest.mark.parametrize("style", STYLES)
def test_a_free_batch_stays_free(style: str) -> None:
    found = made(mobile().graph(batch="N"), small(style))
    assert {name: ["N", *shape[1:]] for name, shape in GIVEN[style].items()} == shapes(found)
    for name, values in zip(OUTPUTS[style], run(found.graph, *OUTPUTS[style], size=(3, 3, 64, 64)), strict=True):
        assert values.shape == (3, *GIVEN[style][name][1:])


@pytest.mark.parametrize("style", [style for style in STYLES if style != "ssdlite"])
@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_a_free_image_size_stays_free(style: str, size: tuple[int, int]) -> None:
    seed = mobile().graph(batch="N")
    seed.inputs[0].shape = ["N", 3, "h", "w"]
    found = made(seed, small(style), sizes={"x": (1, 3, 128, 128)})
    names = [extent for shape in shapes(found).values() for extent in shape if isinstance(extent, str)]
    assert set(names) <= {"N", "mask_height", "mask_width", "heat_height", "heat_width", "anchors"}
    first = run(found.graph, OUTPUTS[style][0], size=(2, 3, *size))[0]
    cells = size[0] * size[1] // 32**2
    expected = {
        "linear": (2, 3),
        "deeplabv3": (2, 3, size[0] // 32, size[1] // 32),
        "retinanet": (2, 9 * (cells * (16 + 4 + 1) + math.ceil(size[0] / 64) * math.ceil(size[1] / 64)), 3),
        "simplebaseline": (2, 3, size[0] // 4, size[1] // 4),
    }
    assert first.shape == expected[style]


@pytest.mark.parametrize("style", ["deeplabv3", "retinanet"])
def test_a_free_and_a_fixed_image_size_compute_the_same(style: str) -> None:
    seed = mobile().graph()
    fixed = made(seed, small(style))
    free = mobile().graph()
    free.inputs[0].shape = [1, 3, "h", "w"]
    opened = made(free, small(style), sizes={"x": (1, 3, 64, 64)})
    for a, b in zip(
        run(fixed.graph, *OUTPUTS[style]), run(opened.graph, *OUTPUTS[style], size=(1, 3, 64, 64)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("opset", [11, 12, 13, 14, 16, 18, 19, 21])
def test_every_opset_from_11_on_is_written_for(style: str, opset: int) -> None:
    found = made(mobile(opset=opset).graph(), small(style))
    assert all(np.isfinite(values).all() for values in run(found.graph, *OUTPUTS[style]))


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_maps_of_odd_extents_are_brought_together(opset: int) -> None:
    found = made(mobile(104, opset=opset).graph(), small("retinanet"))  # 13, 7, 4: not one twice the next
    assert [level.space for level in found.detection.levels] == [(13, 13), (7, 7), (4, 4), (2, 2)]
    assert run(found.graph, "boxes")[0].shape == (1, 9 * (169 + 49 + 16 + 4), 4)


def test_an_older_opset_is_refused_with_what_to_do() -> None:
    with pytest.raises(UserError, match=r"opset 11 and newer, this model has 10; convert it first"):
        made(mobile(opset=10).graph(), small("linear"))


@pytest.mark.parametrize("style", STYLES)
def test_half_precision_stays_half_precision(style: str) -> None:
    seed = mobile().graph()
    seed.inputs[0].dtype = np.float16
    for tensor in seed.tensors().values():
        if isinstance(tensor, gs.Constant) and tensor.dtype == np.float32:
            tensor.values = tensor.values.astype(np.float16)
    found = made(seed, small(style))
    floats = {
        t.dtype for t in found.graph.tensors().values() if isinstance(t, gs.Constant) and np.dtype(t.dtype).kind == "f"
    }
    assert floats <= {np.dtype(np.float16), np.dtype(np.float32)}
    assert all(
        t.name.endswith(".scales")
        for t in found.graph.tensors().values()
        if isinstance(t, gs.Constant) and t.dtype == np.float32
    )
    assert {tensor.dtype for tensor in found.graph.outputs} == {np.dtype(np.float16)}
    assert all(values.dtype == np.float16 and np.isfinite(values).all() for values in run(found.graph, *OUTPUTS[style]))


@pytest.mark.parametrize("style", STYLES)
def test_channels_on_the_last_axis_are_moved_first(style: str) -> None:
    net = mobile()
    net.op("Transpose", "moved", "last.n.r", perm=[0, 2, 3, 1])
    net.op("Relu", "here", "moved")
    seed = net.graph("here")
    levels = 2 if style in ("retinanet", "ssdlite") else None
    found = made(seed, replace(small(style, 3, "here"), levels=levels))
    assert found.taps[0].axis == 3
    assert all(np.isfinite(values).all() for values in run(found.graph, *OUTPUTS[style]))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("free", [False, True])
def test_a_tap_that_only_the_normal_form_has_is_the_tensor_before_it_was_turned(style: str, free: bool) -> None:
    """Transposes around every layer: what the seed computes with channels last, its normal form does with channels
    first.
    """
    seed = channels_last("N" if free else 1)
    levels = 2 if style in ("retinanet", "ssdlite") else None
    found = made(seed, replace(small(style, 3, "end_moved"), levels=levels))
    assert found.base is not seed
    assert "end_moved" not in {tensor.name for node in seed.nodes for tensor in node.outputs}
    (turned,) = run(seed, "end")
    (tapped,) = run(found.graph, "end_moved")
    np.testing.assert_array_equal(tapped, turned.transpose(0, 3, 1, 2))
    for name, values in zip(OUTPUTS[style], run(found.graph, *OUTPUTS[style]), strict=True):
        assert np.isfinite(values).all()
        assert list(values.shape)[1:] == shapes(found)[name][1:]


def channels_last(batch: int | str) -> gs.Graph:
    """Three convolutions, each between Transposes and gated by itself with channels last; a classifier behind the
    mean.
    """
    net = Net(size=64)
    y = "x"
    for k, width in enumerate((6, 8, 12)):
        first = net.conv(y, f"c{k}", width, 3, stride=2)
        last = net.op("Transpose", f"t{k}", first, perm=[0, 2, 3, 1])
        y = net.op("Mul", "end" if k == 2 else f"g{k}", last, net.op("Sigmoid", f"s{k}", last))
        if k < 2:
            y = net.op("Transpose", f"b{k}", y, perm=[0, 3, 1, 2])
            net.channels[y] = width
    net.op(
        "MatMul",
        "scores",
        net.op("ReduceMean", "mean", y, axes=[1, 2], keepdims=0),
        net.constant("fc", weight((12, 5), net.rng)),
    )
    return net.graph("scores", batch=batch)


# --- what stays, what goes ----------------------------------------------------------------------


def test_what_is_behind_the_taps_goes_and_all_else_stays() -> None:
    seed = mobile().graph()
    found = made(seed, small("deeplabv3", 3, "stage2.exit"))
    own = [node.name for node in found.graph.nodes if not node.name.startswith("head.")]
    before = [node.name for node in seed.nodes]
    assert own == before[: before.index("s2b1a") + 1]
    kept = {
        name: t
        for name, t in found.graph.tensors().items()
        if isinstance(t, gs.Constant) and not name.startswith("head.")
    }
    assert set(kept) == {t.name for node in seed.nodes[: len(own)] for t in node.inputs if isinstance(t, gs.Constant)}
    assert all(t._values is seed.tensors()[name]._values for name, t in kept.items())
    assert len(found.table) == 3


def test_the_seed_is_not_changed() -> None:
    seed = mobile().graph()
    before = [(node.name, [t.name for t in node.inputs], [t.name for t in node.outputs]) for node in seed.nodes]
    made(seed, small("retinanet"))
    assert before == [(node.name, [t.name for t in node.inputs], [t.name for t in node.outputs]) for node in seed.nodes]
    assert [tensor.name for tensor in seed.outputs] == ["y"]


def test_one_generator_state_gives_one_head_and_another_another() -> None:
    seed = mobile().graph()
    values = []
    for number in (0, 0, 1):
        found = made(seed, small("retinanet"), rng_seed=number).graph.tensors()
        values.append(
            b"".join(
                t.values.tobytes()
                for name, t in found.items()
                if isinstance(t, gs.Constant) and name.startswith("head.")
            )
        )
    assert values[0] == values[1] != values[2]


def test_a_second_head_takes_the_place_of_the_first() -> None:
    first = made(mobile().graph(), small("deeplabv3"))
    second = made(first.graph, small("retinanet"))
    assert shapes(second) == GIVEN["retinanet"]
    assert not any(node.name.startswith("head.aspp") for node in second.graph.nodes)


def test_names_that_the_seed_has_are_left_to_it() -> None:
    net = mobile()
    net.nodes = [node for node in net.nodes if node.name != "last"]
    net.weights["head.aspp0.conv.weight"] = net.weights.pop("last.w")
    net.op("Conv", "last", "s3b0p.n", "head.aspp0.conv.weight", kernel_shape=[1, 1])
    found = made(net.graph(), small("deeplabv3", 3, "last"))
    assert found.graph.tensors()["head.aspp0.conv.weight"].values.shape == (24, 12, 1, 1)
    assert found.graph.tensors()["head.aspp0.conv.weight_2"].values.shape == (8, 24, 1, 1)


def test_an_output_that_the_seed_needs_the_name_of_is_refused() -> None:
    net = Net(size=16)
    net.relu(net.conv("x", "logits", 4, 3))
    net.conv("logits.r", "y", 4)
    with pytest.raises(
        UserError, match="the head's output is called 'logits', and a tensor before the taps is too; rename that one"
    ):
        made(net.graph(), small("linear", 3, "logits.r"))


# --- initial values -----------------------------------------------------------------------------


def test_batch_normalisations_have_seen_nothing() -> None:
    found = made(mobile().graph(), small("ssdlite"))
    for node in found.graph.nodes:
        if node.op == "BatchNormalization" and node.name.startswith("head."):
            assert [set(t.values.tolist()) for t in node.inputs[1:]] == [{1.0}, {0.0}, {0.0}, {1.0}]
            assert node.attrs["epsilon"] == pytest.approx(1e-3)


def test_convolutions_keep_the_variance() -> None:
    found = made(mobile().graph(), HeadSpec("retinanet", 3, width=64, levels=4)).graph.tensors()
    assert found["head.cls.conv1.weight"].values.std() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.02)
    assert found["head.fpn.p3.weight"].values.std() == pytest.approx(math.sqrt(1 / (9 * 64)), rel=0.02)
    assert found["head.cls.predictor.weight"].values.std() == pytest.approx(0.01, rel=0.02)
    assert not found["head.cls.conv1.bias"].values.any()


def test_every_class_begins_with_the_probability_of_focal_loss() -> None:
    scores = run(made(mobile().graph(), small("retinanet")).graph, "cls_logits")[0]
    assert (1 / (1 + np.exp(-scores))).mean() == pytest.approx(0.01, rel=0.2)


# --- RetinaNet and SSDLite ----------------------------------------------------------------------


def test_one_tower_serves_all_levels() -> None:
    found = made(mobile().graph(), small("retinanet"))
    for name in ("head.cls.conv0", "head.box.conv3", "head.cls.predictor"):
        for part in ("weight", "bias"):
            assert len(found.graph.tensors()[f"{name}.{part}"].outputs) == 4


def rows_in_order(found: Attached) -> list[float]:
    """How far cls_logits is from the predictors' maps read level by level, row by row, anchor by anchor."""
    maps = [f"head.cls.{name}.predictor" for name in ("p3", "p4", "p5", "p6")]
    rows, *levels = run(found.graph, "cls_logits", *maps)
    start, far = 0, []
    for level in levels:
        _, channels, height, width = level.shape
        for i in range(height):
            for j in range(width):
                here = level[0, :, i, j].reshape(9, channels // 9)
                far.append(float(np.abs(rows[0, start : start + 9] - here).max()))
                start += 9
    assert start == rows.shape[1]
    return far


def test_rows_are_locations_row_by_row_with_anchors_last() -> None:
    assert max(rows_in_order(made(mobile().graph(), small("retinanet")))) == 0


def test_rows_in_another_order_are_noticed() -> None:
    found = made(mobile().graph(), small("retinanet"))
    for node in found.graph.nodes:
        if node.op == "Transpose":
            node.attrs["perm"] = [0, 1, 3, 2]  # anchors first
    assert max(rows_in_order(found)) > 1e-3


def test_the_pyramid_adds_the_coarser_map_to_the_finer() -> None:
    found = made(mobile().graph(), small("retinanet"))
    fine, coarse, total = run(found.graph, "head.fpn.p4.lateral", "head.fpn.p5.lateral", "head.fpn.p4.sum")
    np.testing.assert_allclose(total, fine + coarse.repeat(2, 2).repeat(2, 3), rtol=0, atol=1e-6)


def test_the_anchors_of_retinanet_are_the_papers() -> None:
    boxes = np.array(retinanet.anchors((8, 8)))
    sizes = np.sqrt(boxes.prod(1)).reshape(3, 3)
    np.testing.assert_allclose(sizes, [[32, 40.3175, 50.7968]] * 3, rtol=1e-5)
    np.testing.assert_allclose((boxes[:, 1] / boxes[:, 0]).reshape(3, 3), [[0.5] * 3, [1.0] * 3, [2.0] * 3])


def test_the_anchors_of_ssd_are_the_released_ones() -> None:
    """At 300 pixels the sizes of FNA's released configuration: 30, 60, 114, 168, 222, 276, and beyond the last 330."""
    found = ssdlite.anchors(6, 300)
    assert [len(level) for level in found] == [4, 6, 6, 6, 4, 4]
    assert [level[0][0] for level in found] == [30, 60, 114, 168, 222, 276]
    larger = [30 * 60, 60 * 114, 114 * 168, 168 * 222, 222 * 276, 276 * 330]
    np.testing.assert_allclose([level[1][0] ** 2 for level in found], larger)
    np.testing.assert_allclose(
        found[1][2:], [(84.85, 42.43), (42.43, 84.85), (103.92, 34.64), (34.64, 103.92)], atol=0.01
    )


@pytest.mark.parametrize(
    ("space", "running", "fixed", "expected"),
    [
        ((8, 8), (8, 8), False, (8, 8)),
        ((7, 7), (8, 8), True, (10, 10)),  # a network that loses its border
        ((3, 3), None, True, (22, 22)),
        ((8, 4), (8, 16), False, (8, 16)),
    ],
)
def test_levels_cover_the_image(
    space: tuple[int, int], running: tuple[int, int] | None, fixed: bool, expected: tuple[int, int]
) -> None:
    assert stride_of(FeatureMap("", 1, space), running, HeadGeometry((64, 64), fixed, ())) == expected


def test_a_map_that_misses_the_border_of_a_free_image_is_refused() -> None:
    with pytest.raises(UserError, match=r"a map of 7×7 at stride 8×8 does not cover an image of 64×64"):
        stride_of(FeatureMap("", 1, (7, 7)), (8, 8), HeadGeometry((64, 64), False, ()))


def test_ssd_needs_to_know_the_image_size() -> None:
    seed = mobile().graph()
    seed.inputs[0].shape = [1, 3, "h", "w"]
    with pytest.raises(UserError, match=r"SSDLite's anchors are made for one image size.*--input x=1x3x320x320"):
        made(seed, small("ssdlite"))
    assert made(seed, small("ssdlite"), sizes={"x": (1, 3, 64, 64)}).detection.levels[0].space == (4, 4)


@pytest.mark.parametrize(("style", "levels", "fitting"), [("retinanet", 5, 4), ("ssdlite", 6, 3)])
def test_an_image_too_small_for_the_levels_is_refused_with_how_many_fit(style: str, levels: int, fitting: int) -> None:
    with pytest.raises(UserError, match=rf"an image of 64×64 is too small for {levels} levels.*--levels {fitting}\)"):
        made(mobile().graph(), HeadSpec(style, 3))
    assert len(made(mobile().graph(), HeadSpec(style, 3, levels=fitting)).detection.levels) == fitting


# --- DeepLabv3 and pose -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tap", "rates"), [("stage3.exit", [3, 6, 9]), ("stage2.exit", [6, 12, 18]), ("stage1.exit", [12, 24, 36])]
)
def test_rates_are_in_proportion_to_the_output_stride(tap: str, rates: list[int]) -> None:
    nodes = made(mobile().graph(), small("deeplabv3", 3, tap)).graph.nodes
    depthwise = [node for node in nodes if node.name.startswith("head.aspp") and node.attrs.get("group", 1) > 1]
    assert [node.attrs["dilations"][0] for node in depthwise] == rates
    assert [node.attrs["pads"] for node in depthwise] == [[rate] * 4 for rate in rates]


def test_the_mean_of_the_image_is_everywhere() -> None:
    found = made(mobile().graph(), small("deeplabv3"))
    spread, one = run(found.graph, "head.image.spread", "head.image.relu")
    assert spread.shape == (1, 8, 2, 2)
    np.testing.assert_array_equal(spread, np.broadcast_to(one, spread.shape))


# --- classifiers --------------------------------------------------------------------------------


def seed_with(classifier: str) -> gs.Graph:
    """A network whose classifier is written one of the ways there are; its scores are the tensor s, of 5 classes."""
    net = Net(size=16)
    y = net.conv_bn_relu("x", "body", 6, 3, stride=2)
    net.weights["w"] = weight((5, 6), net.rng)
    net.weights["b"] = weight((5,), net.rng)
    if classifier in ("conv", "bent"):
        net.weights["w"] = net.weights["w"][:, :, None, None]
        net.op("Conv", "c", y, "w", "b")
        net.op("GlobalAveragePool", "pool", net.relu("c") if classifier == "bent" else "c")
        net.op("Flatten", "s", "pool")
        net.op("Identity", "y", "s")
        return net.graph()
    net.op("Flatten", "flat", net.op("GlobalAveragePool", "pool", y))
    if classifier == "matmul":
        net.weights["w"] = np.ascontiguousarray(net.weights["w"].T)
        net.op("MatMul", "m", "flat", "w")
        net.op("Add", "s", "m", "b")
    elif classifier == "scaled":
        net.op("Gemm", "s", "flat", "w", "b", transB=1, alpha=2.0, beta=0.5)
    else:
        net.op("Gemm", "s", "flat", "w", "b", transB=1)
    net.op("Softmax", "y", "s", axis=1)
    return net.graph()


@pytest.mark.parametrize("classifier", ["gemm", "matmul", "scaled", "conv"])
def test_rows_that_are_kept_give_the_seeds_scores(classifier: str) -> None:
    seed = seed_with(classifier)
    found = made(seed, HeadSpec("linear", 4, keep=(3, 0)))
    before, after = run(seed, "s")[0], run(found.graph, "logits")[0]
    np.testing.assert_allclose(after[:, :2], before[:, [3, 0]], rtol=0, atol=1e-5)


def test_rows_that_are_not_the_seeds_are_noticed() -> None:
    seed = seed_with("gemm")
    found = made(seed, HeadSpec("linear", 4, keep=(3, 0)))
    found.graph.tensors()["head.classifier.weight"].values = np.roll(
        found.graph.tensors()["head.classifier.weight"].values, 1, 1
    )
    before, after = run(seed, "s")[0], run(found.graph, "logits")[0]
    assert np.abs(after[:, :2] - before[:, [3, 0]]).max() > 1e-3


def test_all_rows_are_kept_in_their_order() -> None:
    seed = seed_with("gemm")
    found = made(seed, HeadSpec("linear", 7, keep="all"))
    before, after = run(seed, "s")[0], run(found.graph, "logits")[0]
    np.testing.assert_allclose(after[:, :5], before, rtol=0, atol=1e-5)


def test_fresh_rows_are_small_and_have_no_bias() -> None:
    found = made(seed_with("gemm"), HeadSpec("linear", 500, keep=(3, 0))).graph.tensors()
    assert found["head.classifier.weight"].values[2:].std() == pytest.approx(0.01, rel=0.05)
    assert found["head.classifier.bias"].values[2:].any() == np.False_


def test_a_tap_that_is_a_map_is_pooled() -> None:
    seed = mobile().graph()
    found = made(seed, HeadSpec("linear", 4, ("stage1.exit",)))
    features, scores = run(found.graph, "s1b0p.n", "logits")
    weights = found.graph.tensors()["head.classifier.weight"].values
    np.testing.assert_allclose(scores, features.mean((2, 3)) @ weights.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("seed", "head", "message"),
    [
        ("gemm", HeadSpec("linear", 4, keep=(5,)), "the seed has no class 5: its 5 classes are counted from 0"),
        ("gemm", HeadSpec("linear", 2, keep=(0, 1, 2)), "3 rows to keep are more than the 2 classes asked for"),
        (
            "gemm",
            HeadSpec("linear", 2, ("body",), keep=(0,)),
            "rows can be kept where the head taps what the seed's classifier reads: 'flat'",
        ),
        ("gemm", HeadSpec("linear", 4, keep="all"), "5 rows to keep are more than the 4 classes asked for"),
        ("bent", HeadSpec("linear", 2, keep=(0,)), "pass 'c.r' (Relu) before they are pooled"),
    ],
)
def test_rows_that_cannot_be_kept_are_refused(seed: str, head: HeadSpec, message: str) -> None:
    with pytest.raises(UserError) as refused:
        made(seed_with(seed), head)
    assert message in str(refused.value)


def test_a_seed_without_a_classifier_has_no_rows() -> None:
    seed = plain().graph("p4")
    assert made(seed, HeadSpec("linear", 2)).taps[0].tensor == "p4"
    with pytest.raises(UserError, match="this seed has no classifier whose rows could be kept"):
        made(seed, HeadSpec("linear", 2, keep=(0,)))


# --- what cannot be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            HeadSpec("yolo", 3),
            "'yolo' is no style of head; there are linear, deeplabv3, retinanet, ssdlite, simplebaseline",
        ),
        (HeadSpec("deeplabv3", 0), "classes: 0 is out of range, which goes from 1 to 65536"),
        (HeadSpec("simplebaseline", 0), "joints: 0 is out of range"),
        (HeadSpec("deeplabv3", 3, width=0), "width: 0 is out of range"),
        (HeadSpec("retinanet", 3, levels=0), "levels: 0 is out of range, which goes from 1 to 16"),
        (HeadSpec("ssdlite", 3, width=8), "a ssdlite head has no choice of width; leave it out"),
        (HeadSpec("deeplabv3", 3, levels=2), "a deeplabv3 head has no choice of levels; leave it out"),
        (HeadSpec("deeplabv3", 3, keep=(0,)), "rows of a deeplabv3 head can be kept where the model has one"),
        (HeadSpec("deeplabv3", 3, ("stage1.exit", "stage2.exit")), "a deeplabv3 head taps 1 map(s), not 2"),
        (
            HeadSpec("retinanet", 3, ("stage2.exit", "stage1.exit"), levels=4),
            "tap 'stage1.exit' has stride 8×8, the one before it 16×16",
        ),
        (HeadSpec("retinanet", 3, levels=2), "2 levels are fewer than the 3 maps tapped"),
        (HeadSpec("retinanet", 3, ("y",)), "tap 'y' is no map"),
        (
            HeadSpec("retinanet", 60_000, levels=4),
            "'cls.predictor' of this head would be a weight of 540000×256×3×3 numbers",
        ),
    ],
)
def test_a_head_that_cannot_be_is_refused_with_the_reason(head: HeadSpec, message: str) -> None:
    with pytest.raises(UserError) as refused:
        made(mobile().graph(), head)
    assert message in str(refused.value)


def test_two_inputs_are_refused_by_name() -> None:
    made_graph = graph(
        "net (float[1,3,8,8] x, float[1,3,8,8] z) => (float[N,M,h,w] y) { a = Conv (x, w) b = Conv (z, v) y = "
        "Add (a, b) }",
        {"w": (4, 3, 1, 1), "v": (4, 3, 1, 1)},
    )
    with pytest.raises(UserError, match=r"networks that look at one image; this model has the inputs 'x', 'z'"):
        made(made_graph, small("deeplabv3"))


def test_a_sequence_is_no_image() -> None:
    made_graph = graph("net (float[1,3,8] x) => (float[N,M,h] y) { y = Conv (x, w) }", {"w": (4, 3, 1)})
    with pytest.raises(UserError, match=r"input 'x' \[1, 3, 8\] has 3 axes"):
        made(made_graph, small("deeplabv3"))


@pytest.mark.parametrize("style", STYLES)
def test_stages_are_found_as_before(style: str) -> None:
    seed = mobile().graph()
    before, after = analyse(seed), again(made(seed, small(style)))
    assert [stage.blocks[-1].exit for stage in after.stages] == [stage.blocks[-1].exit for stage in before.stages]
    assert [len(stage.blocks) for stage in after.stages] == [2, 1, 2, 1]
