"""Output stride and image size: what the finer maps hold, what a graph of another size computes, and what is refused with which reason."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from nets import Net, bundled, graph, values, weight

from fnatool.cli.main import run
from fnatool.runtime.verify import run_inner, verify
from passes import Analysis, Plan, Spec, UserError, analyse, apply, own_spec, parse, plan, resolve
from passes.graph.view import Node, view
from passes.network.cost import cost
from passes.target.plan import planned_cost
from passes.target.resolve import differences

Step = Callable[[Net, str, str], str]


def remapped(made: gs.Graph, knobs: Mapping[str, object], **how: object) -> tuple[Analysis, Plan, gs.Graph]:
    analysis = analyse(made)
    found = plan(analysis, parse({"version": 1, "knobs": knobs}), **how)  # type: ignore[arg-type]
    return analysis, found, apply(made, found)


def refused(made: gs.Graph, knobs: Mapping[str, object], **how: object) -> str:
    with pytest.raises(UserError) as caught:
        remapped(made, knobs, **how)
    return str(caught.value)


def by_name(made: gs.Graph) -> Mapping[str, Node]:
    return view(made).by_name


def strides(made: gs.Graph) -> tuple[tuple[int, ...], str, str | None]:
    """The output strides that are possible, the growth, and why."""
    found = analyse(made).strides
    return found.values, found.growth, found.why


def drift(seed: np.ndarray, finer: np.ndarray, *steps: int) -> float:
    """How far every step-th position of the finer map is from the seed's map, relative to the spread."""
    sampled = finer[(..., *(slice(None, None, step) for step in steps))]
    assert sampled.shape == seed.shape
    return float(np.abs(sampled - seed).max() / np.ptp(seed))


# --- strides become dilations -------------------------------------------------------------------------------------------------------------


def conv(kernel: int, pads: Sequence[int], dilation: int = 1) -> Step:
    def step(net: Net, x: str, out: str) -> str:
        net.conv(x, out, 6, kernel, stride=2)
        net.nodes.pop()
        how = {"kernel_shape": [kernel] * 2, "strides": [2, 2], "pads": list(pads), "dilations": [dilation] * 2}
        net.op("Conv", out, x, f"{out}.w", **how)
        net.channels[out] = 6
        return out

    return step


def pool(kind: str, kernel: int, pads: Sequence[int] = (0, 0, 0, 0), **how: int) -> Step:
    return lambda net, x, out: net.op(kind, out, x, kernel_shape=[kernel] * 2, strides=[2, 2], pads=list(pads), **how)


def padded(mode: str) -> Step:
    def step(net: Net, x: str, out: str) -> str:
        net.constant(f"{out}.pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)
        net.op("Pad", f"{out}.p", x, f"{out}.pads", mode=mode)
        return conv(3, (0, 0, 0, 0))(net, f"{out}.p", out)

    return step


STEPS: Mapping[str, Step] = {
    "3×3": conv(3, (1, 1, 1, 1)),
    "3×3, Keras": conv(3, (0, 0, 1, 1)),
    "3×3, SAME_LOWER": conv(3, (1, 1, 0, 0)),
    "3×3, valid": conv(3, (0, 0, 0, 0)),
    "3×3, dilated": conv(3, (2, 2, 2, 2), 2),
    "1×1": conv(1, (0, 0, 0, 0)),
    "2×2": conv(2, (0, 0, 0, 0)),
    "4×4": conv(4, (1, 1, 1, 1)),
    "5×5": conv(5, (2, 2, 2, 2)),
    "7×7": conv(7, (3, 3, 3, 3)),
    "maximum 3×3": pool("MaxPool", 3, (1, 1, 1, 1)),
    "maximum 2×2": pool("MaxPool", 2),
    "maximum 1×1": pool("MaxPool", 1),
    "maximum 3×3, rounded up": pool("MaxPool", 3, ceil_mode=1),
    "maximum 2×2, rounded up": pool("MaxPool", 2, ceil_mode=1),
    "maximum 3×3 with pads, rounded up": pool("MaxPool", 3, (1, 1, 1, 1), ceil_mode=1),
    "average 2×2": pool("AveragePool", 2),
    "average 3×3": pool("AveragePool", 3, (1, 1, 1, 1)),
    "average 3×3 with pads": pool("AveragePool", 3, (1, 1, 1, 1), count_include_pad=1),
    "average 3×3, rounded up": pool("AveragePool", 3, ceil_mode=1),
    "zeros around": padded("constant"),
    "reflected around": padded("reflect"),
}


def encoder(step: Step, size: int, opset: int = 19) -> gs.Graph:
    """x → c0 (stride 2) → three times a step of stride 2 (s1, s2, s3) and a 3×3 convolution (c1, c2, c3), which also goes out."""
    net = Net(size=size, opset=opset)
    y = net.relu(net.conv("x", "c0", 6, 3, stride=2))
    for k in (1, 2, 3):
        y = net.relu(net.conv(step(net, y, f"s{k}"), f"c{k}", 6, 3, bias=True))
    return net.graph(y)


@pytest.mark.parametrize("size", [64, 71])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_the_new_map_sampled_is_the_old_one(step: Step, size: int) -> None:
    made = encoder(step, size)
    analysis = analyse(made)
    assert analysis.strides.value == 16
    assert 8 in analysis.strides.values
    assert analysis.strides.growth == "exact"
    tensors = ["c0", "s1", "c1", "s2", "c2", "s3", "c3"]
    seed = dict(zip(tensors, values(made, analysis, *tensors), strict=True))
    for limit in analysis.strides.values[:-1]:
        target = apply(made, plan(analysis, Spec({"output_stride": limit})))
        finer = dict(zip(tensors, values(target, analysis, *tensors), strict=True))
        for k, tensor in enumerate(tensors):
            step_size = max(2 ** ((k + 1) // 2 + 1) // limit, 1)
            assert drift(seed[tensor], finer[tensor], step_size, step_size) < 1e-5, (limit, tensor)
        assert analyse(target).strides.value == limit


POSSIBLE = [
    ("3×3", (1, 2, 4, 8, 16), None),
    ("maximum 3×3", (4, 8, 16), "not 2: 's3' (MaxPool) would need 4 pads on a window of 3, and ONNX Runtime wants fewer than that"),
    ("maximum 3×3, rounded up", (2, 4, 8, 16), "not 1: 's3' (MaxPool) would need 5 pads on a window of 3"),
    ("maximum 2×2, rounded up", (4, 8, 16), "not 2: 's3' (MaxPool) would need 4 pads on a window of 2"),
    ("average 3×3", (4, 8, 16), "not 2: 's3' (AveragePool) would need 4 pads on a window of 3"),
    ("reflected around", (8, 16), "not 4: 's3.p' (Pad) repeats the border of a map, which has samples in between"),
]


@pytest.mark.parametrize(("step", "possible", "why"), POSSIBLE, ids=[row[0] for row in POSSIBLE])
def test_a_stride_that_no_runtime_could_take_is_said(step: str, possible: tuple[int, ...], why: str | None) -> None:
    found, _, reason = strides(encoder(STEPS[step], 70))
    assert found == possible
    assert reason == why if why is None else reason is not None and reason.startswith(why)


def test_pools_have_dilations_from_a_version_on() -> None:
    assert strides(encoder(STEPS["average 2×2"], 64, opset=18)) == (
        (8, 16),
        "exact",
        "not 4: 's3' would need a dilation of 2: AveragePool has dilations from opset 19 on, this model is opset 18; convert it first",
    )
    assert strides(encoder(STEPS["maximum 2×2"], 64, opset=9))[2] == (
        "not 4: 's3' would need a dilation of 2: MaxPool has dilations from opset 10 on, this model is opset 9; convert it first"
    )
    assert strides(encoder(STEPS["maximum 2×2"], 64, opset=10))[0] == (1, 2, 4, 8, 16)


def test_pads_of_keras_keep_the_size_of_the_map() -> None:
    _, found, target = remapped(encoder(STEPS["3×3, Keras"], 64), {"output_stride": 4})
    nodes = by_name(target)
    assert [nodes[name].attrs["strides"] for name in ("s1", "s2", "s3")] == [[2, 2], [1, 1], [1, 1]]
    assert [nodes[name].attrs["pads"] for name in ("s1", "s2", "s3")] == [[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 4, 4]]
    assert [nodes[name].attrs["dilations"] for name in ("s1", "s2", "s3")] == [[1, 1], [1, 1], [2, 2]]
    assert [nodes[name].attrs.get("dilations") for name in ("c1", "c2", "c3")] == [None, [2, 2], [4, 4]]
    assert nodes["c3"].attrs["pads"] == [4, 4, 4, 4]
    assert [found.sizes[name][2:] for name in ("c1", "s2", "c2", "s3", "c3")] == [(16, 16)] * 5


def test_a_pool_of_two_keeps_the_size_of_the_map_where_runtimes_allow() -> None:
    _, found, target = remapped(encoder(STEPS["maximum 2×2"], 64), {"output_stride": 4})
    nodes = by_name(target)
    assert [nodes[name].attrs["pads"] for name in ("s1", "s2", "s3")] == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]
    assert [found.sizes[name][2] for name in ("s1", "s2", "s3")] == [16, 16, 14]


def test_rounding_up_becomes_pads() -> None:
    _, found, target = remapped(encoder(STEPS["maximum 3×3, rounded up"], 64), {"output_stride": 8})
    node = by_name(target)["s3"]
    assert (node.attrs["ceil_mode"], node.attrs["pads"]) == (0, [0, 0, 2, 2])
    assert found.sizes["s3"][2:] == (8, 8)


def test_the_bundled_seed_at_every_stride_and_an_odd_size() -> None:
    made, analysis = seed()
    for limit in (16, 8):
        found = plan(analysis, Spec({"output_stride": limit, "input.size": (97, 130)}))
        assert found.compared is not None
        for one in (found.compared, plan(analysis, Spec({"output_stride": limit}))):
            result = verify(made, apply(made, one), analysis, one)
            assert len(result.drifts) == 52  # all but the classifier, which averages over the finer map
            assert result.exact
            assert result.first is None
            assert result.worst < 1e-4
        sized = apply(made, plan(analysis, Spec({"input.size": (97, 130)})))
        again = analyse(sized)
        small = plan(again, Spec({"output_stride": limit}))
        assert verify(sized, apply(sized, small), again, small).worst < 1e-4


@functools.cache
def seed() -> tuple[gs.Graph, Analysis]:
    made = bundled()
    return made, analyse(made)


def test_strides_along_one_axis_only() -> None:
    net = Net(size=48)
    y = net.relu(net.conv("x", "c0", 6, 3, stride=2))
    net.weights |= {"a.w": weight((6, 6, 3, 3), net.rng), "b.w": weight((6, 6, 3, 3), net.rng), "c.w": weight((6, 6, 3, 3), net.rng)}
    for name, step in (("a", [2, 1]), ("b", [2, 1]), ("c", [1, 2])):
        y = net.op("Conv", name, y, f"{name}.w", kernel_shape=[3, 3], pads=[1] * 4, strides=step)
    made = net.graph("c")
    analysis, found, target = remapped(made, {"output_stride": 2})
    assert analysis.strides.values == (1, 2, 4, 8)
    old, new = values(made, analysis, "b", "c"), values(target, analysis, "b", "c")
    assert drift(old[0], new[0], 4, 1) < 1e-5
    assert drift(old[1], new[1], 4, 2) < 1e-5
    assert by_name(target)["c"].attrs["dilations"] == [4, 1]
    assert found.sizes["c"][2:] == (24, 24)


def test_strides_of_three() -> None:
    net = Net(size=54)
    y = net.conv("x", "c0", 6, 3, stride=3)
    y = net.conv(y, "c1", 6, 5, stride=3)
    made = net.graph(net.conv(y, "c2", 6, 3))
    analysis, _, target = remapped(made, {"output_stride": 3})
    assert analysis.strides.values == (1, 3, 9)
    (old,), (new,) = values(made, analysis, "c2"), values(target, analysis, "c2")
    assert drift(old, new, 3, 3) < 1e-5


def inception() -> gs.Graph:
    """Branches of stride 2 with valid windows, a pool beside a convolution, then branches of stride 1 that pool with pads."""
    net = Net(size=95, opset=11)
    y = net.relu(net.conv("x", "c0", 6, 3, stride=2))
    for k in (1, 2, 3):
        a = conv(3, (0, 0, 0, 0))(net, y, f"a{k}")
        b = pool("MaxPool", 3)(net, y, f"b{k}")
        y = net.op("Concat", f"m{k}", a, b, axis=1)
        net.channels[y] = 12
        inner = net.op("MaxPool", f"i{k}", y, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1]) if k < 3 else y
        y = net.op("Concat", f"j{k}", net.conv(y, f"p{k}", 2, 5), net.conv(inner, f"q{k}", 4), axis=1)
        net.channels[y] = 6
    net.classifier(y)
    return net.graph()


def test_an_inception_keeps_its_samples_until_its_pools_would_need_too_many_pads() -> None:
    made = inception()
    assert strides(made)[:2] == ((4, 8, 16), "exact")
    analysis, _, target = remapped(made, {"output_stride": 4})
    for tensor, step in (("j2", 2), ("a3", 4), ("b3", 4), ("j3", 4)):
        (old,), (new,) = values(made, analysis, tensor), values(target, analysis, tensor)
        assert drift(old, new, step, step) < 1e-5


def residual(shortcut: str, opset: int = 17, size: int = 64) -> gs.Graph:
    """Residual stages of stride 2 whose shortcuts pool by averages or by strides, or whose convolutions blur first."""
    net = Net(size=size, opset=opset)
    y = net.relu(net.conv("x", "stem", 8, 3, stride=2))
    for k in (1, 2, 3):
        if shortcut == "average":
            short = net.conv(pool("AveragePool", 2)(net, y, f"v{k}"), f"d{k}", 8)
        else:
            short = net.conv(y, f"d{k}", 8, stride=2)
        if shortcut == "blur":
            net.constant(f"k{k}.pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)
            inner = net.op("Pad", f"r{k}", net.relu(net.conv(y, f"a{k}", 8, 3)), f"k{k}.pads", mode="reflect")
            net.constant(f"b{k}.w", weight((8, 1, 3, 3), net.rng))
            inner = net.op("Conv", f"b{k}", inner, f"b{k}.w", kernel_shape=[3, 3], strides=[2, 2], group=8)
        else:
            inner = net.conv(y, f"a{k}", 8, 3, stride=2)
        y = net.relu(net.op("Add", f"m{k}", net.conv_bn(net.relu(inner), f"e{k}", 8, 3), short))
    net.classifier(y)
    return net.graph()


def test_shortcuts_that_average_need_dilations_at_the_second_stride_only() -> None:
    assert strides(residual("average"))[0] == (8, 16)
    why = strides(residual("average", opset=19))[2]
    assert why is not None
    assert why.startswith("not 4: 'm3' (Add) joins maps of 16 samples (4 for each there was) and of 14 samples (4 for each there was)")
    assert why.endswith("; 'v3' (AveragePool) would need 2 pads on a window of 2 to keep its map, and ONNX Runtime wants fewer than that")
    made = residual("average")
    analysis, _, target = remapped(made, {"output_stride": 8})
    (old,), (new,) = values(made, analysis, "m3"), values(target, analysis, "m3")
    assert drift(old, new, 2, 2) < 1e-5


def test_blurred_strides_are_exact_once() -> None:
    made = residual("blur")
    assert strides(made)[0] == (8, 16)
    analysis, _, target = remapped(made, {"output_stride": 8})
    (old,), (new,) = values(made, analysis, "m3"), values(target, analysis, "m3")
    assert drift(old, new, 2, 2) < 1e-5


def squeezing() -> gs.Graph:
    """Three strides, and a squeeze-excite behind the second and behind the last."""
    net = Net(size=64)
    y = net.relu(net.conv("x", "c0", 8, 3, stride=2))
    for k in (1, 2):
        y = net.relu(net.conv(y, f"c{k}", 8, 3, stride=2))
        net.op("GlobalAveragePool", f"g{k}", y)
        gate = net.op("Sigmoid", f"o{k}", net.conv(f"g{k}", f"w{k}", 8))
        y = net.conv(net.op("Mul", f"m{k}", y, gate), f"d{k}", 8, 3)
    net.classifier(y)
    return net.graph()


def test_a_gate_that_averages_over_a_finer_map_makes_it_approximate() -> None:
    made = squeezing()
    assert strides(made) == ((1, 2, 4, 8), "approximate", "'g2' averages over the finer map")
    message = refused(made, {"output_stride": 4}, strategy="preserve")
    assert message == "'output_stride' cannot shrink exactly: 'g2' averages over the finer map; use --strategy fna, or --allow-drift"
    analysis, found, target = remapped(made, {"output_stride": 4}, strategy="preserve", allow_drift=True)
    assert found.averages == ("g2",)
    result = verify(made, target, analysis, found)
    assert [one.tensor for one in result.drifts] == ["c0", "c1", "w1", "d1", "c2"]
    assert result.exact
    assert result.first is None


def test_an_average_at_the_head_is_not_compared_and_nothing_else_is_left_out() -> None:
    made = encoder_with_classifier()
    analysis, found, target = remapped(made, {"output_stride": 4}, strategy="preserve")
    assert [one.tensor for one in verify(made, target, analysis, found).drifts] == ["c0", "s1", "c1", "s2", "c2", "s3", "c3"]
    same = plan(analysis, Spec({"node:c1.width": 8}), strategy="preserve")
    assert [one.tensor for one in verify(made, apply(made, same), analysis, same).drifts][-1] == "y"


def encoder_with_classifier(size: int = 64) -> gs.Graph:
    net = Net(size=size)
    y = net.relu(net.conv("x", "c0", 6, 3, stride=2))
    for k in (1, 2, 3):
        y = net.relu(net.conv(conv(3, (1, 1, 1, 1))(net, y, f"s{k}"), f"c{k}", 6, 3, bias=True))
    net.classifier(y)
    return net.graph()


WRONG: Mapping[str, Callable[[gs.Node], None]] = {
    "dilation": lambda node: node.attrs.update(dilations=[1, 1], pads=[1, 1, 1, 1]),
    "pads": lambda node: node.attrs.update(pads=[3, 3, 5, 5]),
    "shift": lambda node: node.attrs.update(pads=[1, 2, 3, 2]),
    "size": lambda node: node.attrs.update(strides=[2, 2]),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("name", ["c2", "s3", "c3"])
def test_a_planted_error_is_found_and_named(name: str, wrong: Callable[[gs.Node], None]) -> None:
    made = encoder_with_classifier()
    analysis, found, target = remapped(made, {"output_stride": 4})
    assert verify(made, target, analysis, found).first is None
    node = next(node for node in target.nodes if node.name == name)
    if name == "c3" and wrong is not WRONG["size"]:
        wrong(node)
        node.attrs["pads"] = [pad + 2 for pad in node.attrs["pads"]] if node.attrs["dilations"] == [4, 4] else node.attrs["pads"]
    else:
        wrong(node)
    first = verify(made, target, analysis, found).first
    assert first is not None
    assert first.node == name


def test_sampling_that_is_shifted_is_found() -> None:
    made = encoder_with_classifier()
    analysis, found, target = remapped(made, {"output_stride": 4})
    samples = {**found.samples, "s2": replace(found.samples["s2"], sizes=(6, 2, 8, 16), steps=(1, 2, 1, 2))}  # the first 8 rows of 16
    first = verify(made, target, analysis, replace(found, samples=samples)).first
    assert first is not None
    assert first.node == "s2"


def test_depth_width_kernel_stride_and_size_in_one_spec() -> None:
    made, analysis = seed()
    knobs = {"stage3.depth": 5, "stage4.width": "x1.25", "stage2.*.kernel": 5, "output_stride": 8, "input.size": [96, 224]}
    found = plan(analysis, parse({"version": 1, "knobs": knobs}), strategy="preserve")
    target = apply(made, found)
    assert found.compared is not None
    result = verify(made, apply(made, found.compared), analysis, found.compared)
    assert (result.exact, result.first) == (True, None)
    again = analyse(target, table=found.table)
    assert (again.image.size, again.strides.value) == ((96, 224), 8)
    assert own_spec(again).knobs == found.resolved.spec().knobs
    assert planned_cost(found, analysis) == cost(again.view, again.shapes)


def test_the_papers_segmentation_backbone_has_the_published_multiply_adds() -> None:
    """FNA++: the seed at 1024×2048 and output stride 16 takes 19.04B, without the last 1×1 convolution and the head."""
    _, analysis = seed()
    found = planned_cost(plan(analysis, Spec({"input.size": (1024, 2048), "output_stride": 16})), analysis)
    assert found.macs is not None
    assert round((found.macs - found.node_macs["head"] - found.node_macs["fc"]) / 1e9, 2) == 19.04


def test_a_size_that_is_written_beside_computed_ones_freezes_the_image_with_the_reason() -> None:
    net = Net(size=8)
    y = net.conv("x", "a", 4, 3, stride=2)
    net.op("Shape", "shape", y)
    net.op("Resize", "big", y, "", "", net.op("Mul", "sizes", "shape", net.constant("by", [1, 1, 2, 2], np.int64)), mode="nearest")
    net.op("Expand", "four", net.op("GlobalAveragePool", "mean", y), net.constant("written", [1, 1, 4, 4], np.int64))
    net.op("Concat", "y", y, "four", axis=1)
    image = analyse(net.graph("y", "big")).image
    assert image.why == "'y' (Concat) joins the map with 'four', which has 4 positions whatever the image"


# --- the size of the image ----------------------------------------------------------------------------------------------------------------

W3 = {"w": (8, 3, 3, 3)}


def shuffled(h: int, w: int) -> gs.Graph:
    """Channels shuffled by reshapes that name the size."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,4,{h // 2},{w // 2}] y)
        <int64[5] split = {{1,2,4,{h // 2},{w // 2}}}, int64[4] joined = {{1,8,-1,{w // 2}}}> {{
            c = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w)
            a = Reshape (c, split)
            b = Transpose <perm = [0,2,1,3,4]> (a)
            d = Reshape (b, joined)
            y = Conv <pads = [1,1,1,1]> (d, v)
        }}""",
        {**W3, "v": (4, 8, 3, 3)},
    )


def unet(h: int, w: int) -> gs.Graph:
    """Down twice, and up by a transposed convolution, by a factor, and to the image's size, which is written."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,4,{h},{w}] y)
        <int64[4] sizes = {{1,4,{h},{w}}}, float[4] scales = {{1,1,2,2}}> {{
            a = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w)
            b = Conv <pads = [1,1,1,1], strides = [2,2]> (a, v)
            c = MaxPool <kernel_shape = [2,2], strides = [2,2]> (b)
            d = ConvTranspose <strides = [2,2]> (c, u)
            e = Concat <axis = 1> (b, d)
            f = Conv <pads = [1,1,1,1]> (e, t)
            g1 = Resize <mode = "linear"> (f, , scales)
            i = Add (g1, a)
            j = Conv (i, s)
            y = Resize <mode = "linear"> (j, , , sizes)
        }}""",
        {**W3, "v": (8, 8, 3, 3), "u": (8, 8, 2, 2), "t": (8, 16, 3, 3), "s": (4, 8, 1, 1)},
    )


def image_pooling(h: int, w: int) -> gs.Graph:
    """A branch that pools the whole map and spreads it again, to a size that is written."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,4,{h // 4},{w // 4}] y) <int64[4] sizes = {{1,8,{h // 4},{w // 4}}}> {{
            a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)
            b = GlobalAveragePool (a)
            c = Conv (b, v)
            d = Resize <mode = "linear"> (c, , , sizes)
            e = Concat <axis = 1> (a, d)
            y = Conv (e, u)
        }}""",
        {**W3, "v": (8, 8, 1, 1), "u": (4, 16, 1, 1)},
    )


def whole_map(h: int, w: int) -> gs.Graph:
    """Older exporters pool globally with a window as large as the map."""
    return graph(
        f"""g (float[N,3,{h},{w}] x) => (float[N,5] y) <int64[2] flat = {{-1,8}}> {{
            a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)
            b = AveragePool <kernel_shape = [{h // 4},{w // 4}], strides = [{h // 4},{w // 4}]> (a)
            c = Reshape (b, flat)
            y = Gemm <transB = 1> (c, v)
        }}""",
        {**W3, "v": (5, 8)},
    )


def attention(h: int, w: int) -> gs.Graph:
    """Every position looks at all others; their number is written."""
    n = h * w // 16
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,8,{h // 4},{w // 4}] y)
        <int64[3] flat = {{1,8,{n}}}, int64[4] back = {{1,8,{h // 4},{w // 4}}}> {{
            a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)
            b = Reshape (a, flat)
            t = Transpose <perm = [0,2,1]> (b)
            m = MatMul (t, b)
            s = Softmax <axis = -1> (m)
            o = MatMul (s, t)
            p = Transpose <perm = [0,2,1]> (o)
            y = Reshape (p, back)
        }}""",
        W3,
    )


def focus(h: int, w: int) -> gs.Graph:
    """Every second row and column, up to an end that is written."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,4,{h // 2},{w // 2}] y)
        <int64[2] zero = {{0,0}}, int64[2] one = {{1,1}}, int64[2] ends = {{{h},{w}}}, int64[2] axes = {{2,3}}, int64[2] steps = {{2,2}}> {{
            a = Slice (x, zero, ends, axes, steps)
            b = Slice (x, one, ends, axes, steps)
            c = Concat <axis = 1> (a, b)
            d = Conv <pads = [1,1,1,1]> (c, w)
            y = Conv (d, v)
        }}""",
        {"w": (8, 6, 3, 3), "v": (4, 8, 1, 1)},
    )


def channels_last(h: int, w: int) -> gs.Graph:
    """Images with their colours last, as TensorFlow has them, and a normalisation over channels there."""
    return graph(
        f"""g (float[1,{h},{w},3] x) => (float[1,{h // 4},{w // 4},8] y) {{
            t = Transpose <perm = [0,3,1,2]> (x)
            a = Conv <auto_pad = "SAME_UPPER", strides = [2,2]> (t, w)
            b = MaxPool <auto_pad = "SAME_UPPER", kernel_shape = [3,3], strides = [2,2]> (a)
            p = Transpose <perm = [0,2,3,1]> (b)
            n = LayerNormalization (p, scale, shift)
            y = Relu (n)
        }}""",
        {**W3, "scale": (8,), "shift": (8,)},
    )


def computed(h: int, w: int) -> gs.Graph:
    """A mean written as a sum over as many positions as a shape says."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,8,1,1] y) <int64[2] axes = {{2,3}}, int64[1] two = {{2}}, int64[1] four = {{4}}> {{
            a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)
            b = ReduceSum (a, axes)
            s = Shape (a)
            t = Slice (s, two, four)
            n = ReduceProd <keepdims = 0> (t)
            f = Cast <to = 1> (n)
            y = Div (b, f)
        }}""",
        W3,
    )


def levels(h: int, w: int) -> gs.Graph:
    """Predictions of two maps, row by row in one list, as a detector has them."""
    a, b = h * w // 16, h * w // 64
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,{a + b},4] y) <int64[3] first = {{1,{a},4}}, int64[3] second = {{1,-1,4}}> {{
            a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)
            b = Conv <pads = [1,1,1,1], strides = [2,2]> (a, v)
            c = Conv (a, u)
            d = Conv (b, u)
            e = Transpose <perm = [0,2,3,1]> (c)
            f = Transpose <perm = [0,2,3,1]> (d)
            i = Reshape (e, first)
            j = Reshape (f, second)
            k = Concat <axis = 1> (i, j)
            y = Sigmoid (k)
        }}""",
        {**W3, "v": (8, 8, 3, 3), "u": (4, 8, 1, 1)},
    )


def gated(h: int, w: int) -> gs.Graph:
    """Gates expanded to their map's size, which is written or computed from it."""
    return graph(
        f"""g (float[N,3,{h},{w}] x) => (float[N,8,{h // 4},{w // 4}] y) <int64[4] same = {{1,8,{h // 4},{w // 4}}}> {{
            a = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w)
            b = GlobalAveragePool (a)
            s = Shape (a)
            c = Expand (b, s)
            d = Mul (c, a)
            e = Conv <pads = [1,1,1,1], strides = [2,2]> (d, v)
            f = GlobalAveragePool (e)
            i = Expand (f, same)
            y = Mul (e, i)
        }}""",
        {**W3, "v": (8, 8, 3, 3)},
    )


def left_out(h: int, w: int) -> gs.Graph:
    """Regions and factors that a Resize does without are empty lists, as many exporters write them."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,4,{h},{w}] y)
        <float[0] none, float[4] scales = {{1,1,2,2}}, int64[4] sizes = {{1,4,{h},{w}}}> {{
            a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)
            b = Resize <mode = "linear"> (a, none, scales)
            c = Conv (b, v)
            y = Resize <mode = "nearest"> (c, none, none, sizes)
        }}""",
        {**W3, "v": (4, 8, 1, 1), "none": np.zeros(0, np.float32)},
    )


def beside_a_map(h: int, w: int) -> gs.Graph:
    """A map made as large as another, as torch's older exporter writes it: batch and channels are computed, the size is written."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,4,{h},{w}] y)
        <int64[1] zero = {{0}}, int64[1] two = {{2}}, int64[2] same = {{{h // 4},{w // 4}}}, int64[2] whole = {{{h},{w}}}> {{
            a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)
            b = Conv <pads = [1,1,1,1], strides = [2,2]> (a, v)
            s = Shape (b)
            few = Slice (s, zero, two, zero)
            sizes = Concat <axis = 0> (few, same)
            c = Resize <mode = "nearest"> (b, , , sizes)
            d = Add (c, a)
            e = Conv (d, u)
            t = Shape (e)
            more = Slice (t, zero, two, zero)
            image = Concat <axis = 0> (more, whole)
            y = Resize <mode = "linear"> (e, , , image)
        }}""",
        {**W3, "v": (8, 8, 3, 3), "u": (4, 8, 1, 1)},
    )


def by_computed_factor(h: int, w: int) -> gs.Graph:
    """The same before Resize had sizes: a written size over that of the map is a factor."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,8,{h // 4},{w // 4}] y)
        <float[2] same = {{{h // 4},{w // 4}}}, float[2] ones = {{1,1}}> {{
            a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)
            b = Conv <pads = [1,1,1,1], strides = [2,2]> (a, v)
            s = Shape (b)
            hw = Slice <starts = [2], ends = [4], axes = [0]> (s)
            f = Cast <to = 1> (hw)
            by = Div (same, f)
            scales = Concat <axis = 0> (ones, by)
            c = Upsample <mode = "nearest"> (b, scales)
            y = Add (c, a)
        }}""",
        {**W3, "v": (8, 8, 3, 3)},
        opset=9,
    )


def shuffled_up(h: int, w: int) -> gs.Graph:
    """Channels become positions by reshapes (a pixel shuffle before the operator was exported); the image is added and a window slides."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,5,{2 * h},{2 * w}] y)
        <int64[6] split = {{1,3,2,2,{h},{w}}}, int64[4] joined = {{1,3,{2 * h},{2 * w}}}, float[4] scales = {{1,1,2,2}}> {{
            a = Conv <pads = [1,1,1,1]> (x, w)
            b = Reshape (a, split)
            c = Transpose <perm = [0,1,4,2,5,3]> (b)
            d = Reshape (c, joined)
            e = Resize <mode = "linear"> (x, , scales)
            f = Add (d, e)
            i = Add (e, d)
            j = Sub (f, i)
            k = Conv <pads = [1,1,1,1]> (d, v)
            l = Conv <pads = [1,1,1,1]> (j, v)
            y = Add (k, l)
        }}""",
        {"w": (12, 3, 3, 3), "v": (5, 3, 3, 3)},
    )


def spread(h: int, w: int) -> gs.Graph:
    """Slopes and zeros spread over the map by sizes that are written, as converters from other frameworks leave them."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,8,{h // 2},{w // 2}] y)
        <int64[4] wide = {{1,8,{h // 2},{w // 2}}}, int64[4] more = {{1,2,{h // 2},{w // 2}}}, float[1,1,1,1] zero = {{0}}> {{
            a = Conv <auto_pad = "SAME_UPPER", strides = [2,2]> (x, w)
            slopes = Expand (slope, wide)
            b = PRelu (a, slopes)
            zeros = Expand (zero, more)
            c = Concat <axis = 1> (b, zeros)
            d = Conv (c, v)
            others = Expand (other, wide)
            y = PRelu (d, others)
        }}""",
        {
            **W3,
            "slope": np.linspace(0.1, 0.5, 8, dtype=np.float32).reshape(1, 8, 1, 1),
            "other": np.full((1, 8, 1, 1), 0.3, np.float32),
            "v": (8, 10, 1, 1),
        },
        opset=11,
    )


OF_SIZES = (beside_a_map, by_computed_factor, left_out, shuffled_up, spread)
SIZED = (gated, shuffled, unet, image_pooling, whole_map, attention, focus, channels_last, computed, levels, *OF_SIZES)


@pytest.mark.parametrize("build", SIZED)
@pytest.mark.parametrize("size", [(32, 32), (64, 96), (16, 48)])
def test_another_size_computes_what_the_network_of_that_size_does(build: Callable[[int, int], gs.Graph], size: tuple[int, int]) -> None:
    made, wanted = build(32, 64), build(*size)
    analysis, found, target = remapped(made, {"input.size": list(size)})
    other = analyse(wanted)
    (mine,), (theirs,) = values(target, other, "y"), values(wanted, other, "y")
    np.testing.assert_array_equal(mine, theirs)
    assert [list(t.shape) for t in target.outputs] == [list(t.shape) for t in wanted.outputs]
    assert [list(t.shape) for t in target.inputs] == [list(t.shape) for t in wanted.inputs]
    again = analyse(target)
    assert again.image.size == size
    assert planned_cost(found, analysis) == again.cost
    if build is computed:
        assert found.notes == (f"'f', which the graph computes from the image's size, is what it is at {size[0]}×{size[1]}",)
        return
    back = apply(target, plan(again, own_spec(analysis)))
    (mine,), (theirs,) = values(back, analysis, "y"), values(made, analysis, "y")
    np.testing.assert_array_equal(mine, theirs)
    old, new = ({name: view(g).values(name) for name in view(g).constants} for g in (apply(made, plan(analysis, Spec({}))), back))
    assert old.keys() == new.keys()
    assert [name for name in old if not np.array_equal(old[name], new[name])] == []


def padded_by_arithmetic(h: int, w: int) -> gs.Graph:
    """TensorFlow's padding, computed from the size of the image; then a slice that ends where a shape says."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (y)
        <int64[1] two = {{2}}, int64[1] four = {{4}}, int64[2] ones = {{1,1}}, int64[2] zeros = {{0,0}}, int64[2] axes = {{2,3}}> {{
            s = Shape (x)
            hw = Slice (s, two, four)
            odd = Mod (hw, two)
            total = Add (odd, ones)
            first = Div (total, two)
            last = Sub (total, first)
            pads = Concat <axis = 0> (zeros, first, zeros, last)
            p = Pad (x, pads)
            a = Conv <strides = [2,2]> (p, w)
            t = Shape (a)
            ends = Slice (t, two, four)
            b = Slice (a, ones, ends, axes)
            y = Conv (b, v)
        }}""",
        {**W3, "v": (8, 8, 3, 3)},
    )


@pytest.mark.parametrize("size", [(33, 47), (64, 33)])
def test_pads_and_ranges_computed_from_the_size_are_those_of_the_new_one(size: tuple[int, int]) -> None:
    made, wanted = padded_by_arithmetic(32, 64), padded_by_arithmetic(*size)
    _, _, target = remapped(made, {"input.size": list(size)})
    other = analyse(wanted)
    (mine,), (theirs,) = values(target, other, "y"), values(wanted, other, "y")
    np.testing.assert_array_equal(mine, theirs)


def test_height_and_width_are_what_the_first_convolution_slides_over() -> None:
    made = graph(
        """g (float[1,16,24,3] x) => (y)
        <int64[1] last = {-1}, int64[1] start = {-9}, int64[1] colours = {3}, int64[3] sizes = {1,1,1}, float[1,3,1,1] mean = {1,2,3}> {
            a = Slice (x, last, start, colours, last)
            t = Transpose <perm = [0,3,2,1]> (a)
            p, q, r = Split <axis = 1> (t, sizes)
            c = Concat <axis = 1> (r, q, p)
            d = Sub (c, mean)
            m = MaxPool <kernel_shape = [2,2], strides = [2,2]> (d)
            y = Conv (m, w)
        }""",
        W3,
    )
    image = analyse(made).image
    assert (image.input, image.axes, image.size) == ("x", (2, 1), (24, 16))
    _, found, _ = remapped(made, {"input.size": [48, 32]})
    assert (found.sizes["x"], found.sizes["y"]) == ((1, 32, 48, 3), (1, 8, 22, 14))


def test_a_window_over_a_map_by_chance_is_no_global_pooling() -> None:
    made = residual("average", size=16)
    assert analyse(made).shapes.shapes["v3"][2:] == (1, 1)
    analysis, found, target = remapped(made, {"input.size": 32})
    assert (analysis.strides.value, found.notes) == (16, ())
    other = residual("average", size=32)
    (mine,), (theirs,) = values(target, analyse(other), "y"), values(other, analyse(other), "y")
    np.testing.assert_array_equal(mine, theirs)


def test_a_window_over_the_whole_map_stays_one_and_that_is_said() -> None:
    _, found, target = remapped(whole_map(32, 64), {"input.size": [64, 64]})
    assert by_name(target)["b"].attrs["kernel_shape"] == [16, 16]
    assert found.notes == ("'b' (AveragePool) covers the whole map and stays global",)
    assert strides(whole_map(32, 64))[:2] == ((1, 4), "exact")


def frozen(body: str, *, weights: Mapping[str, tuple[int, ...]] | None = None, shape: str = "1,3,32,64", opset: int = 17) -> str:
    """Why the image of x → body → y cannot change."""
    found = analyse(graph(f"g (float[{shape}] x) => (y) {{ {body} }}", {**W3, **(weights or {})}, opset)).image
    assert found.why is not None
    return found.why


CONV = "a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)"
WEIGHT_EACH = "(MatMul) has a weight for each position of the map"
FROZEN = [
    ("a weight a position", f"{CONV} f = Flatten (a) y = Gemm (f, m)", {"m": (1024, 5)}, "'y' (Gemm) has a weight for each position"),
    ("a mixer", f"{CONV} y = MatMul (a, m)", {"m": (16, 5)}, f"'y' {WEIGHT_EACH}"),
    ("positions", f"{CONV} y = Add (a, m)", {"m": (1, 8, 8, 16)}, "'y' (Add) joins the map with 'm', which has 8 positions whatever"),
    ("a scale each", f"{CONV} y = LayerNormalization <axis = 1> (a, m)", {"m": (8, 8, 16)}, "'y' (LayerNormalization) joins the map with"),
    ("a wrong bias", f"{CONV} y = LayerNormalization <axis = 3> (a, m, n)", {"m": (16,), "n": (3,)}, "'y' (LayerNormalization) joins"),
    ("unknown", f'{CONV} y = Einsum <equation = "abcd->abcd"> (a)', {}, "operator Einsum ('y') has no rule for space"),
    ("no convolution", "f = Flatten (x) y = Gemm (f, m)", {"m": (6144, 5)}, "convolutions slide over no input, and the image is the one"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "weights", "why"), [row[1:] for row in FROZEN], ids=[row[0] for row in FROZEN])
def test_what_depends_on_the_size_freezes_it(body: str, weights: Mapping[str, tuple[int, ...]], why: str) -> None:
    assert frozen(body, weights=weights).startswith(why)


NUMBERS = [
    ("a crop", "y = Slice (a, zero, two, two)", "'y' (Slice) cuts a map at position 2, which is written in the file"),
    ("a pick", "y = Gather <axis = 2> (a, two)", "'y' (Gather) picks positions of a map by numbers written in the file"),
    ("windows", "y = Reshape (a, parts)", "'y' (Reshape) cuts a map into parts of a size that is written in the file"),
    ("a batch of positions", "t = Transpose <perm = [0,2,3,1]> (a) y = Reshape (t, rows)", "output 'y' would have 512 entries on axis 0"),
    ("an odd enlargement", "y = Resize (a, , , sizes)", "'y' (Resize) makes 12 positions of 8, a size that is written in the file"),
    ("a spread", "g1 = GlobalAveragePool (a) e = Expand (g1, same) i = Neg (e) y = Mul (a, i)", "'y' (Mul) joins the map with 'i', which"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "why"), [row[1:] for row in NUMBERS], ids=[row[0] for row in NUMBERS])
def test_numbers_that_cannot_follow_the_image_freeze_it(body: str, why: str) -> None:
    numbers = "int64[1] zero = {0}, int64[1] two = {2}, int64[6] parts = {1,8,2,4,2,8}, int64[2] rows = {-1,8}"
    sizes = "int64[4] sizes = {1,8,12,24}, int64[4] same = {1,8,8,16}"
    found = analyse(graph(f"g (float[1,3,32,64] x) => (y) <{numbers}, {sizes}> {{ {CONV} {body} }}", W3)).image
    assert found.why is not None
    assert found.why.startswith(why)


def test_only_one_image_of_two_axes_in_space_has_a_size() -> None:
    line = frozen("y = Conv (x, m)", weights={"m": (4, 3, 3)}, shape="1,3,32")
    assert line == "'x' has 3 axes, 1 of them in space; an image has 4, 2 of them in space"
    volume = frozen("y = Conv (x, m)", weights={"m": (4, 3, 3, 3, 3)}, shape="1,3,8,8,8")
    assert volume == "'x' has 5 axes, 3 of them in space; an image has 4, 2 of them in space"
    two = analyse(graph("g (float[1,3,8,8] x, float[1,3,8,8] z) => (y) { a = Conv (x, w) b = Conv (z, w) y = Add (a, b) }", W3)).image
    assert two.why == "convolutions slide over 2 inputs (x, z), and the image is the one they slide over"


def test_strides_along_a_line_and_in_a_volume_become_dilations_too() -> None:
    for shape, kernel in (("1,3,64", (3,)), ("1,3,16,16,16", (3, 3, 3))):
        how = f"pads = {[1] * 2 * len(kernel)}, strides = {[2] * len(kernel)}"
        body = f"a = Conv <{how}> (x, w) b = Conv <{how}> (a, v) c = Conv <pads = {[1] * 2 * len(kernel)}> (b, v)"
        made = graph(f"g (float[{shape}] x) => (c) {{ {body} }}", {"w": (8, 3, *kernel), "v": (8, 8, *kernel)})
        analysis, _, target = remapped(made, {"output_stride": 2})
        (old,), (new,) = values(made, analysis, "c"), values(target, analysis, "c")
        assert drift(old, new, *[2] * len(kernel)) < 1e-5


def test_a_size_that_does_not_fit_names_the_node_and_a_size_that_might() -> None:
    message = refused(unet(32, 64), {"input.size": [52, 100]})
    assert message == (
        "'input.size': 52×100 is not possible: 'e' (Concat) joins maps of 13 samples and of 12 samples; "
        "52 and 100 are no multiple of 8, the total stride: try one"
    )
    small = refused(encoder(STEPS["3×3, valid"], 64), {"input.size": 16})
    assert small.startswith("'input.size': 16×16 is not possible: 's3' (Conv) has a window of 3 on a map of")


def free(made: gs.Graph, *names: str) -> gs.Graph:
    """The same graph, whose input says names in place of height and width."""
    made.inputs[0].shape = [*made.inputs[0].shape[:2], *names]
    return made


def test_a_free_size_runs_already_and_one_that_is_given_is_the_only_one() -> None:
    made = free(encoder_with_classifier(), "height", "width")
    analysis = analyse(made)
    assert (analysis.image.free, analysis.image.why, analysis.cost.macs) == (True, None, None)
    assert "input.size" not in own_spec(analysis).knobs
    assert plan(analysis, own_spec(analysis)).identity
    found = plan(analysis, Spec({"input.size": (48, 80)}))
    target = apply(made, found)
    assert target.inputs[0].shape == [1, 3, 48, 80]
    again = analyse(target)
    assert again.image == replace(analysis.image, size=(48, 80), free=False)
    assert planned_cost(found, analysis) == again.cost
    assert not found.identity
    half = apply(made, plan(analysis, Spec({"output_stride": 8})))
    assert half.inputs[0].shape == [1, 3, "height", "width"]
    assert not plan(analysis, Spec({"input.size": analysis.image.size})).identity  # type: ignore[dict-item]


def test_dilations_of_a_free_size_are_right_at_every_size() -> None:
    for name in ("3×3", "3×3, Keras", "maximum 3×3, rounded up", "3×3, valid"):
        made = free(encoder(STEPS[name], 64), "h", "w")
        analysis = analyse(made)
        target = apply(made, plan(analysis, Spec({"output_stride": 4})))
        for size in (64, 71, 80, 93):
            feeds = {"x": np.random.default_rng(size).standard_normal((1, 3, size, size)).astype(np.float32)}
            old, new = (run_inner(one, feeds, ["s3"], "it")["s3"] for one in (made, target))
            assert drift(old, new, 4, 4) < 1e-5, (name, size)


def test_pads_chosen_at_run_time_freeze_the_stride_of_a_free_size() -> None:
    text = """g (float[1,3,{0}] x) => (b) {{
        a = Conv <auto_pad = "SAME_UPPER", strides = [2,2]> (x, w) b = Conv <auto_pad = "SAME_UPPER", strides = [{1}]> (a, v) }}"""
    weights = {**W3, "v": (8, 8, 3, 3)}
    why = "the pads of 'b' (Conv) depend on the image size, which is free; give it one first, in a remap of its own"
    assert strides(graph(text.format("H,W", "2,2"), weights)) == ((4,), "frozen", why)
    assert strides(graph(text.format("32,32", "2,2"), weights))[0] == (1, 2, 4)


def test_outputs_say_their_new_size_and_what_they_leave_open_stays_open() -> None:
    made = unet(32, 64)
    made.outputs[0].shape = [1, 4, "rows", 64]
    _, found, target = remapped(made, {"input.size": [64, 64]})
    assert found.declared == {"x": {2: 64}, "y": {2: 64}}
    assert target.outputs[0].shape == [1, 4, "rows", 64]
    stretched = apply(made, plan(analyse(made), Spec({"input.size": (32, 128)})))
    assert stretched.outputs[0].shape == [1, 4, "rows", 128]


def test_what_resamples_a_finer_map_freezes_the_stride() -> None:
    assert strides(unet(32, 64)) == ((8,), "frozen", "'d' (ConvTranspose) resamples a map, which has no dilation")
    assert strides(focus(32, 64)) == ((2,), "frozen", "'a' (Slice) takes positions of a map, which no dilation could do")
    assert strides(image_pooling(32, 64))[2] == "'e' (Concat) joins maps of 32 samples (4 for each there was) and of 8 samples"
    assert strides(gated(32, 64)) == ((1, 2, 4), "approximate", "'f' averages over the finer map")
    assert strides(levels(32, 64))[2] == "'k' (Concat) lays maps end to end"
    why = strides(attention(32, 64))[2]
    assert why == "'o' (MatMul) sums over a map, which would have more samples"


# --- the spec -----------------------------------------------------------------------------------------------------------------------------


def image_of(analysis: Analysis, value: object) -> tuple[int, int] | None:
    return resolve(analysis, parse({"version": 1, "knobs": {"input.size": value}})).image


def test_the_size_is_a_pair_an_integer_for_both_or_relative() -> None:
    _, analysis = seed()
    asked = ([512, 1024], 96, "x2", "x0.5", "+32", "-64")
    assert [image_of(analysis, value) for value in asked] == [(512, 1024), (96, 96), (320, 320), (80, 80), (192, 192), (96, 96)]


@pytest.mark.parametrize("value", [[1, 2, 3], [224], [1.5, 2], [True, 2], ["a", "b"], {}, None, True, 1.5])
def test_other_sizes_are_no_sizes(value: object) -> None:
    with pytest.raises(UserError, match=r"'input\.size' must be"):
        parse({"version": 1, "knobs": {"input.size": value}})


@pytest.mark.parametrize("value", [0, -5, [0, 5], [32769, 32], "x1000", "-160", "big"])
def test_sizes_out_of_range_are_refused(value: object) -> None:
    _, analysis = seed()
    with pytest.raises(UserError, match=r"'input\.size': "):
        image_of(analysis, value)


def test_a_list_is_for_the_size_only() -> None:
    with pytest.raises(UserError, match=r"'output_stride' must be an integer or a string .* not a list"):
        parse({"version": 1, "knobs": {"output_stride": [16, 16]}})


def test_strides_are_those_on_the_way_and_never_larger() -> None:
    made, analysis = seed()
    assert resolve(analysis, Spec({"output_stride": "x0.5"})).values["output_stride"] == 16
    assert (
        refused(made, {"output_stride": 12}) == "'output_stride': 12 is not possible for 'output_stride', which can be 1, 2, 4, 8, 16, 32"
    )
    dilated = apply(made, plan(analysis, Spec({"output_stride": 8})))
    assert refused(dilated, {"output_stride": 16}) == (
        "'output_stride': 16 is more than the 8 of this network; dilations are not turned back into strides"
    )


def test_patterns_say_nothing_of_size_and_stride() -> None:
    _, analysis = seed()
    found = resolve(analysis, Spec({"**": "x1"}))
    assert (found.values["output_stride"], found.image) == (32, (160, 160))
    for pattern in ("output_*", "input.*"):
        with pytest.raises(UserError, match="matches no knob of this model"):
            resolve(analysis, Spec({pattern: 8}))


def test_a_model_that_is_not_what_the_spec_says_is_told_so() -> None:
    made, analysis = seed()
    target = analyse(apply(made, plan(analysis, Spec({"output_stride": 8, "input.size": (96, 224)}))))
    assert differences(target, Spec({"input.size": (96, 224), "output_stride": 8})) == []
    assert differences(target, Spec({"input.size": 96, "output_stride": 16})) == [
        "'input.size' should be 96×96, the model has 96×224",
        "'output_stride' should be 16, the model has 8",
    ]
    assert "which the model does not tell" in differences(target, Spec({"input.size": "x2"}))[0]
    unsized = analyse(free(encoder_with_classifier(), "h", "w"))
    assert differences(unsized, Spec({"input.size": 64})) == ["'input.size' should be 64×64, the model leaves it free"]
    frozen_image = analyse(graph("g (float[1,6] x) => (y) { y = Gemm (x, m) }", {"m": (6, 5)}))
    assert differences(frozen_image, Spec({"input.size": 64})) == ["'input.size' should be 64×64, the model has none"]
    assert "'input.size' is frozen: convolutions slide over no input" in refused_size(frozen_image, 64)


def refused_size(analysis: Analysis, value: int) -> str:
    with pytest.raises(UserError) as caught:
        resolve(analysis, Spec({"input.size": value}))
    return str(caught.value)


def test_names_stay_the_same_where_maps_shrink_to_one_position() -> None:
    made, analysis = seed()
    small = analyse(apply(made, plan(analysis, Spec({"input.size": 32}))))
    assert small.shapes.shapes[small.stages[-1].blocks[-1].exit][2:] == (1, 1)
    assert list(small.knobs) == list(analysis.knobs)


# --- as its user meets it -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with seeds to remap."""
    monkeypatch.chdir(tmp_path)
    onnx.save(gs.export_onnx(squeezing()), "gated.onnx")
    onnx.save(gs.export_onnx(unet(32, 64)), "unet.onnx")
    onnx.save(gs.export_onnx(free(encoder_with_classifier(), "h", "w")), "free.onnx")
    return tmp_path


def run_with(seed: str, knobs: Mapping[str, object], *arguments: str) -> int:
    Path("spec.json").write_text(json.dumps({"version": 1, "knobs": knobs}))
    return run(["remap", seed, "--spec", "spec.json", "-o", "out.onnx", *arguments])


def test_a_remap_lists_both_and_check_knows_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    knobs = {"input.size": [64, 96], "output_stride": 16, "stage4.width": 120}
    assert run_with("mobilenetv2_bn", knobs, "--strategy", "preserve", "--report", "report.json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines[:3]] == ["input.size: 160×160 → 64×96", "output_stride: 32 → 16", "stage4.width: 96 → 120"]
    assert lines[-2].startswith("exact: 52 inner tensors compared with the seed in ONNX Runtime")
    report = json.loads(Path("report.json").read_text())
    assert report["changes"][0] == {"knob": "input.size", "from": [160, 160], "to": [64, 96]}
    assert (report["spec"]["input.size"], report["drifts"]) == ([64, 96], [])
    assert run(["check", "out.onnx", "--spec", "spec.json", "--against", "mobilenetv2_bn"]) == 0
    assert run(["check", "out.onnx", "--against", "mobilenetv2_bn"]) == 1
    assert "it is float ?x3x64x96, the seed's is float ?x3x160x160" in " ".join(capsys.readouterr().out.split())
    assert run(["inspect", "out.onnx", "--spec"]) == 0
    assert '"input.size": [64, 96],' in capsys.readouterr().out
    other = {"version": 1, "knobs": {**knobs, "input.size": 64, "output_stride": 8}}
    Path("other.json").write_text(json.dumps(other))
    assert run(["check", "out.onnx", "--spec", "other.json", "--against", "mobilenetv2_bn"]) == 1
    found = " ".join(capsys.readouterr().out.split())
    assert "'input.size' should be 64×64, the model has 64×96" in found
    assert "'output_stride' should be 8, the model has 16" in found


def test_a_gate_over_a_finer_map_is_stated(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with("gated.onnx", {"output_stride": 4}) == 0
    out = capsys.readouterr().out
    assert "the function changes (output_stride shrinks: 'g2' averages over a finer map): 5 inner tensors compared" in " ".join(out.split())
    assert run_with("gated.onnx", {"output_stride": 4}, "--strategy", "preserve", "--force") == 2
    assert "'g2' averages over the finer map; use --strategy fna, or --allow-drift" in capsys.readouterr().err


def test_a_wrong_size_is_one_message_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with("unet.onnx", {"input.size": [50, 64]}) == 2
    message = capsys.readouterr().err
    assert message.startswith("fnatool: 'input.size': 50×64 is not possible: ")
    assert message.endswith("50 is no multiple of 8, the total stride: try one\n")
    assert run_with("unet.onnx", {"output_stride": 4}) == 2
    assert (
        capsys.readouterr().err == "fnatool: 'output_stride' is frozen at 8: 'd' (ConvTranspose) resamples a map, which has no dilation\n"
    )
    assert not Path("out.onnx").exists()


def test_inspect_shows_what_is_free_and_what_is_frozen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "free.onnx"]) == 0
    assert "any size runs already; one given becomes the only one" in capsys.readouterr().out
    assert run(["inspect", "free.onnx", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["knobs"][0]["value"] is None
    assert run(["inspect", "unet.onnx", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frozen"][0]["name"] == "output_stride"
    for knob in ("input.size", "output_stride"):
        assert run(["inspect", "unet.onnx", "--group", knob]) == 2
        assert "changes no weight" in capsys.readouterr().err


def test_a_free_size_is_given_from_the_command_line_once_and_for_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with("free.onnx", {"input.size": [48, 80], "output_stride": 8}) == 0
    assert capsys.readouterr().out.splitlines()[0].strip() == "input.size: free → 48×80"
    dims = onnx.load("out.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [1, 3, 48, 80]
    assert run(["check", "out.onnx", "--spec", "spec.json", "--against", "free.onnx"]) == 0


def test_an_error_planted_in_a_remap_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(made: gs.Graph, found: Plan) -> gs.Graph:
        target = apply(made, found)
        node = next(node for node in target.nodes if node.attrs.get("dilations") == [2, 2])
        node.attrs["pads"] = [1, 2, 3, 2]
        return target

    for module in ("remapped", "verified"):
        monkeypatch.setattr(f"fnatool.model.{module}.apply", shifted)
    for knobs in ({"output_stride": 16}, {"output_stride": 16, "input.size": 96}):
        assert run_with("mobilenetv2_bn", knobs) == 1
        assert "this remap must be exact but is not: " in capsys.readouterr().err
        assert not Path("out.onnx").exists()
