"""Output strides: strides become dilations, the finer map holds the old one, and what that freezes is said with the
reason.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from nets import Net, graph, values, weight
from sized import W3, attention, focus, gated, image_pooling, levels, unet
from strided import STEPS, Step, by_name, conv, drift, encoder, free, pool, remapped, residual, strides

from fnatool.runtime.verify import run_inner
from passes import Spec, analyse, apply, plan


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
    (
        "maximum 3×3",
        (4, 8, 16),
        "not 2: 's3' (MaxPool) would need 4 pads on a window of 3, and ONNX Runtime wants fewer than that",
    ),
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
        (
            "not 4: 's3' would need a dilation of 2: AveragePool has dilations from opset 19 on, this model is "
            "opset 18; convert it first"
        ),
    )
    assert strides(encoder(STEPS["maximum 2×2"], 64, opset=9))[2] == (
        "not 4: 's3' would need a dilation of 2: MaxPool has dilations from opset 10 on, this model is opset "
        "9; convert it first"
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


def test_strides_along_one_axis_only() -> None:
    net = Net(size=48)
    y = net.relu(net.conv("x", "c0", 6, 3, stride=2))
    net.weights |= {
        "a.w": weight((6, 6, 3, 3), net.rng),
        "b.w": weight((6, 6, 3, 3), net.rng),
        "c.w": weight((6, 6, 3, 3), net.rng),
    }
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


def test_strides_along_a_line_and_in_a_volume_become_dilations_too() -> None:
    for shape, kernel in (("1,3,64", (3,)), ("1,3,16,16,16", (3, 3, 3))):
        how = f"pads = {[1] * 2 * len(kernel)}, strides = {[2] * len(kernel)}"
        body = f"a = Conv <{how}> (x, w) b = Conv <{how}> (a, v) c = Conv <pads = {[1] * 2 * len(kernel)}> (b, v)"
        made = graph(f"g (float[{shape}] x) => (c) {{ {body} }}", {"w": (8, 3, *kernel), "v": (8, 8, *kernel)})
        analysis, _, target = remapped(made, {"output_stride": 2})
        (old,), (new,) = values(made, analysis, "c"), values(target, analysis, "c")
        assert drift(old, new, *[2] * len(kernel)) < 1e-5


def inception() -> gs.Graph:
    """Branches of stride 2 with valid windows, a pool beside a convolution, then branches of stride 1 that pool with
    pads.
    """
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


def test_shortcuts_that_average_need_dilations_at_the_second_stride_only() -> None:
    assert strides(residual("average"))[0] == (8, 16)
    why = strides(residual("average", opset=19))[2]
    assert why is not None
    assert why.startswith(
        "not 4: 'm3' (Add) joins maps of 16 samples (4 for each there was) and of 14 samples (4 for each there was)"
    )
    assert why.endswith(
        "; 'v3' (AveragePool) would need 2 pads on a window of 2 to keep its map, and ONNX Runtime wants fewer "
        "than that"
    )
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


def test_what_resamples_a_finer_map_freezes_the_stride() -> None:
    assert strides(unet(32, 64)) == ((8,), "frozen", "'d' (ConvTranspose) resamples a map, which has no dilation")
    assert strides(focus(32, 64)) == (
        (2,),
        "frozen",
        "'a' (Slice) takes positions of a map, which no dilation could do",
    )
    assert (
        strides(image_pooling(32, 64))[2]
        == "'e' (Concat) joins maps of 32 samples (4 for each there was) and of 8 samples"
    )
    assert strides(gated(32, 64)) == ((1, 2, 4), "approximate", "'f' averages over the finer map")
    assert strides(levels(32, 64))[2] == "'k' (Concat) lays maps end to end"
    why = strides(attention(32, 64))[2]
    assert why == "'o' (MatMul) sums over a map, which would have more samples"
