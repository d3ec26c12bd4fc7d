"""The size of the image: a graph of another size computes what the network of that size does, and what freezes it is
said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from nets import Net, graph, values
from sized import SIZED, W3, computed, unet, whole_map
from strided import STEPS, by_name, encoder, encoder_with_classifier, free, refused, remapped, residual, seed, strides

from passes import Spec, analyse, apply, own_spec, plan
from passes.graph.view import view
from passes.maps.positions import Stuck
from passes.network import resolution
from passes.network.images import Image
from passes.network.knobs import Size
from passes.network.resolution import SizedView
from passes.target.plan import planned_cost


@pytest.mark.parametrize("build", SIZED)
@pytest.mark.parametrize("size", [(32, 32), (64, 96), (16, 48)])
def test_another_size_computes_what_the_network_of_that_size_does(
    build: Callable[[int, int], gs.Graph], size: tuple[int, int]
) -> None:
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
        assert found.notes == (
            f"'f', which the graph computes from the image's size, is what it is at {size[0]}×{size[1]}",
        )
        return
    back = apply(target, plan(again, own_spec(analysis)))
    (mine,), (theirs,) = values(back, analysis, "y"), values(made, analysis, "y")
    np.testing.assert_array_equal(mine, theirs)
    old, new = (
        {name: view(g).values(name) for name in view(g).constants}
        for g in (apply(made, plan(analysis, Spec({}))), back)
    )
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


def test_a_size_that_is_written_beside_computed_ones_freezes_the_image_with_the_reason() -> None:
    net = Net(size=8)
    y = net.conv("x", "a", 4, 3, stride=2)
    net.op("Shape", "shape", y)
    net.op(
        "Resize",
        "big",
        y,
        "",
        "",
        net.op("Mul", "sizes", "shape", net.constant("by", [1, 1, 2, 2], np.int64)),
        mode="nearest",
    )
    net.op("Expand", "four", net.op("GlobalAveragePool", "mean", y), net.constant("written", [1, 1, 4, 4], np.int64))
    net.op("Concat", "y", y, "four", axis=1)
    image = analyse(net.graph("y", "big")).image
    assert image.why == "'y' (Concat) joins the map with 'four', which has 4 positions whatever the image"


def test_whether_the_image_can_change_is_tried_when_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Size] = []

    def at_size(target: SizedView, wanted: tuple[Image, Size], *rest: object) -> SizedView:
        tried.append(wanted[1])
        raise Stuck("as it is")

    monkeypatch.setattr(resolution, "at_size", at_size)
    image = analyse(whole_map(32, 64)).image
    assert (image.size, tried) == ((32, 64), [])
    assert (image.why, image.why, tried) == ("as it is", "as it is", [(64, 128)])


def frozen(
    body: str, *, weights: Mapping[str, tuple[int, ...]] | None = None, shape: str = "1,3,32,64", opset: int = 17
) -> str:
    """Why the image of x → body → y cannot change."""
    found = analyse(graph(f"g (float[{shape}] x) => (y) {{ {body} }}", {**W3, **(weights or {})}, opset)).image
    assert found.why is not None
    return found.why


CONV = "a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)"


WEIGHT_EACH = "(MatMul) has a weight for each position of the map"


FROZEN = [
    (
        "a weight a position",
        f"{CONV} f = Flatten (a) y = Gemm (f, m)",
        {"m": (1024, 5)},
        "'y' (Gemm) has a weight for each position",
    ),
    ("a mixer", f"{CONV} y = MatMul (a, m)", {"m": (16, 5)}, f"'y' {WEIGHT_EACH}"),
    (
        "positions",
        f"{CONV} y = Add (a, m)",
        {"m": (1, 8, 8, 16)},
        "'y' (Add) joins the map with 'm', which has 8 positions whatever",
    ),
    (
        "a scale each",
        f"{CONV} y = LayerNormalization <axis = 1> (a, m)",
        {"m": (8, 8, 16)},
        "'y' (LayerNormalization) joins the map with",
    ),
    (
        "a wrong bias",
        f"{CONV} y = LayerNormalization <axis = 3> (a, m, n)",
        {"m": (16,), "n": (3,)},
        "'y' (LayerNormalization) joins",
    ),
    ("unknown", f'{CONV} y = Einsum <equation = "abcd->abcd"> (a)', {}, "operator Einsum ('y') has no rule for space"),
    (
        "no convolution",
        "f = Flatten (x) y = Gemm (f, m)",
        {"m": (6144, 5)},
        "convolutions slide over no input, and the image is the one",
    ),
]


@pytest.mark.parametrize(("body", "weights", "why"), [row[1:] for row in FROZEN], ids=[row[0] for row in FROZEN])
def test_what_depends_on_the_size_freezes_it(body: str, weights: Mapping[str, tuple[int, ...]], why: str) -> None:
    assert frozen(body, weights=weights).startswith(why)


NUMBERS = [
    ("a crop", "y = Slice (a, zero, two, two)", "'y' (Slice) cuts a map at position 2, which is written in the file"),
    (
        "a pick",
        "y = Gather <axis = 2> (a, two)",
        "'y' (Gather) picks positions of a map by numbers written in the file",
    ),
    ("windows", "y = Reshape (a, parts)", "'y' (Reshape) cuts a map into parts of a size that is written in the file"),
    (
        "a batch of positions",
        "t = Transpose <perm = [0,2,3,1]> (a) y = Reshape (t, rows)",
        "output 'y' would have 512 entries on axis 0",
    ),
    (
        "an odd enlargement",
        "y = Resize (a, , , sizes)",
        "'y' (Resize) makes 12 positions of 8, a size that is written in the file",
    ),
    (
        "a spread",
        "g1 = GlobalAveragePool (a) e = Expand (g1, same) i = Neg (e) y = Mul (a, i)",
        "'y' (Mul) joins the map with 'i', which",
    ),
]


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
    two = analyse(
        graph("g (float[1,3,8,8] x, float[1,3,8,8] z) => (y) { a = Conv (x, w) b = Conv (z, w) y = Add (a, b) }", W3)
    ).image
    assert two.why == "convolutions slide over 2 inputs (x, z), and the image is the one they slide over"


def test_a_size_that_does_not_fit_names_the_node_and_a_size_that_might() -> None:
    message = refused(unet(32, 64), {"input.size": [52, 100]})
    assert message == (
        "'input.size': 52×100 is not possible: 'e' (Concat) joins maps of 13 samples and of 12 samples; "
        "52 and 100 are no multiple of 8, the total stride: try one"
    )
    small = refused(encoder(STEPS["3×3, valid"], 64), {"input.size": 16})
    assert small.startswith("'input.size': 16×16 is not possible: 's3' (Conv) has a window of 3 on a map of")


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


def test_outputs_say_their_new_size_and_what_they_leave_open_stays_open() -> None:
    made = unet(32, 64)
    made.outputs[0].shape = [1, 4, "rows", 64]
    _, found, target = remapped(made, {"input.size": [64, 64]})
    assert found.declared == {"x": {2: 64}, "y": {2: 64}}
    assert target.outputs[0].shape == [1, 4, "rows", 64]
    stretched = apply(made, plan(analyse(made), Spec({"input.size": (32, 128)})))
    assert stretched.outputs[0].shape == [1, 4, "rows", 128]


def test_names_stay_the_same_where_maps_shrink_to_one_position() -> None:
    made, analysis = seed()
    small = analyse(apply(made, plan(analysis, Spec({"input.size": 32}))))
    assert small.shapes.shapes[small.stages[-1].blocks[-1].exit][2:] == (1, 1)
    assert list(small.knobs) == list(analysis.knobs)
