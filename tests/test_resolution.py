"""Output stride and image size: what the finer maps hold, what a graph of another size computes, and what is refused with which reason."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from nets import Net, bundled, values, weight

from fnatool.verify import verify
from passes import Analysis, Plan, Spec, UserError, analyse, apply, own_spec, parse, plan
from passes.cost import cost
from passes.plan import planned_cost
from passes.view import Node, view

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
    ("maximum 3×3, rounded up", (4, 8, 16), "not 2: 's3' (MaxPool) would need 4 pads on a window of 3"),
    ("maximum 2×2, rounded up", (8, 16), "not 4: 's3' (MaxPool) would need 2 pads on a window of 2"),
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
        "not 4: 's3' would need a dilation of 2: AveragePool has dilations from opset 19 on, this model is opset 18",
    )
    assert strides(encoder(STEPS["maximum 2×2"], 64, opset=9))[2] == (
        "not 4: 's3' would need a dilation of 2: MaxPool has dilations from opset 10 on, this model is opset 9"
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


def residual(shortcut: str, opset: int = 17) -> gs.Graph:
    """Residual stages of stride 2 whose shortcuts pool by averages or by strides, or whose convolutions blur first."""
    net = Net(size=64, opset=opset)
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
    assert planned_cost(found, analysis) == cost(again.view, again.shapes, again.identities)


def test_the_papers_segmentation_backbone_has_the_published_multiply_adds() -> None:
    """FNA++: the seed at 1024×2048 and output stride 16 takes 19.04B, without the last 1×1 convolution and the head."""
    _, analysis = seed()
    found = planned_cost(plan(analysis, Spec({"input.size": (1024, 2048), "output_stride": 16})), analysis)
    assert found.macs is not None
    assert round((found.macs - found.node_macs["head"] - found.node_macs["fc"]) / 1e9, 2) == 19.04
