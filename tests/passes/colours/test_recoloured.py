"""Another number of channels of the image: the network makes of what they mean what it made, or what stands in the way
is named.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
from tiny import model

from passes.colours.following import Lost
from passes.colours.recoloured import LUMINANCE, Recolouring, recoloured, with_channels
from passes.graph.normalise import normalise
from passes.graph.shapes import infer
from passes.graph.view import view

Build = Callable[[], gs.Graph]
RNG = np.random.default_rng(0)
W = RNG.standard_normal((5, 3, 3, 3)).astype(np.float32)
FOCUS = RNG.standard_normal((5, 12, 3, 3)).astype(np.float32)
GREY = RNG.standard_normal((5, 1, 3, 3)).astype(np.float32)
ONE = np.array([0.5], np.float32).reshape(1, 1, 1, 1)
EACH = np.array([0.4, 0.5, 0.6], np.float32).reshape(1, 3, 1, 1)
EACH_ALIKE = np.full((1, 3, 1, 1), 0.5, np.float32)
BGR = np.array([2, 1, 0])
LAYER = "c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (%s, w)  y = Relu (c)"


def net(body: str, image: str = "float[1,3,8,8]", **weights: np.ndarray) -> gs.Graph:
    return gs.import_onnx(model(f"g ({image} x) => (float[n,c,h,w] y) {{ {body} }}", dict(weights)))


ALIKE = {
    "a convolution": lambda: net(LAYER % "x", w=W),
    "one scale for all": lambda: net("m = Sub (x, k)  s = Div (m, k)  " + LAYER % "s", w=W, k=ONE),
    "a scale for each, all alike": lambda: net("m = Sub (x, k)  " + LAYER % "m", w=W, k=EACH_ALIKE),
    "colours turned round": lambda: net("b = Gather <axis = 1> (x, i)  " + LAYER % "b", w=W, i=BGR),
    "pixels at the end": lambda: net("t = Transpose <perm = [0, 3, 1, 2]> (x)  " + LAYER % "t", "float[1,8,8,3]", w=W),
    "a focus": lambda: net(
        "a = Slice (x, f00, e, ax, st)  b = Slice (x, f10, e, ax, st)  c1 = Slice (x, f01, e, ax, st)  d = "
        "Slice (x, f11, e, ax, st)"
        "j = Concat <axis = 1> (a, b, c1, d)  " + LAYER % "j",
        w=FOCUS,
        f00=np.array([0, 0]),
        f10=np.array([1, 0]),
        f01=np.array([0, 1]),
        f11=np.array([1, 1]),
        e=np.array([99, 99]),
        ax=np.array([2, 3]),
        st=np.array([2, 2]),
    ),
    "a resized image": lambda: net(
        'r = Resize <mode = "linear"> (x, "", "", s)  ' + LAYER % "r", w=W, s=np.array([1, 3, 16, 16])
    ),
    "two readers": lambda: net(
        "c = Conv <kernel_shape = [3, 3]> (x, w)  d = Conv <kernel_shape = [3, 3]> (x, v)  y = Add (c, d)",
        w=W,
        v=W[::-1].copy(),
    ),
}


def run(graph: gs.Graph, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(gs.export_onnx(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def asked(graph: gs.Graph, channels: int, *, noise: bool = False) -> Recolouring:
    return Recolouring("x", 3 if graph.inputs[0].shape[1] == 8 else 1, channels, noise)


def other(graph: gs.Graph, channels: int, *, noise: bool = False) -> gs.Graph:
    seen = normalise(graph).graph
    return with_channels(seen, infer(view(seen)), asked(graph, channels, noise=noise))


def image(graph: gs.Graph, channels: int) -> np.ndarray:
    x = RNG.standard_normal((1, channels, 8, 8)).astype(np.float32)
    return x if graph.inputs[0].shape[1] != 8 else np.ascontiguousarray(x.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("build", ALIKE.values(), ids=ALIKE)
def test_a_grey_image_counts_in_every_colour(build: Build) -> None:
    graph = build()
    made, x = other(graph, 1), image(graph, 1)
    axis = asked(graph, 1).axis
    assert made.inputs[0].shape[axis] == 1
    assert not any(node.op == "Concat" and len(node.inputs) == 3 for node in made.nodes)
    np.testing.assert_allclose(run(made, x), run(graph, np.repeat(x, 3, axis)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", ALIKE.values(), ids=ALIKE)
@pytest.mark.parametrize("channels", [4, 6])
def test_fresh_channels_are_not_read(build: Build, channels: int) -> None:
    graph = build()
    made, x = other(graph, channels), image(graph, channels)
    np.testing.assert_allclose(run(made, x), run(graph, x.take([0, 1, 2], asked(graph, 4).axis)), rtol=1e-4, atol=1e-4)
    noisy = other(graph, channels, noise=True)
    moved = np.abs(run(noisy, x) - run(made, x)).max()
    assert 0 < moved < 1e-2


def test_a_filter_for_each_colour_gets_others_beside_it() -> None:
    graph = net("d = Conv <kernel_shape = [3, 3], group = 3> (x, v)  " + LAYER % "d", v=W[:3, :1].copy(), w=W)
    x = image(graph, 5)
    np.testing.assert_allclose(run(other(graph, 5), x), run(graph, x[:, :3]), rtol=1e-4, atol=1e-4)


def test_numbers_for_each_colour_stay_where_there_are_more() -> None:
    graph = net("m = Sub (x, k)  " + LAYER % "m", w=W, k=EACH)
    x = image(graph, 5)
    np.testing.assert_allclose(run(other(graph, 5), x), run(graph, x[:, :3]), rtol=1e-4, atol=1e-4)


REPEATED = {
    "a mean for each colour": lambda: net("m = Sub (x, k)  " + LAYER % "m", w=W, k=EACH),
    "a channel by itself": lambda: net(
        "d = Conv <kernel_shape = [3, 3], group = 3> (x, v)  " + LAYER % "d", v=W[:3, :1].copy(), w=W
    ),
    "half precision": lambda: net(
        "h = Cast <to = 10> (x)  c = Conv <kernel_shape = [3, 3]> (h, w)  y = Cast <to = 1> (c)", w=W.astype(np.float16)
    ),
    "a cut colour": lambda: net("r, g, b = Split <axis = 1> (x)  j = Concat <axis = 1> (b, g, r)  " + LAYER % "j", w=W),
}


@pytest.mark.parametrize("build", REPEATED.values(), ids=REPEATED)
def test_where_the_columns_cannot_be_summed_the_one_channel_is_repeated(build: Build) -> None:
    graph = build()
    made, x = other(graph, 1), image(graph, 1)
    assert made.nodes[0].op == "Concat"
    np.testing.assert_allclose(run(made, x), run(graph, np.repeat(x, 3, 1)), rtol=1e-5, atol=1e-5)
    seen = normalise(graph).graph
    assert recoloured(view(seen), infer(view(seen)), asked(graph, 1)).repeated


def test_three_colours_count_by_their_luminance() -> None:
    graph = net("m = Sub (x, k)  " + LAYER % "m", "float[1,1,8,8]", w=GREY, k=ONE)
    made, x = other(graph, 3), image(graph, 3)
    grey = np.einsum("nchw,c->nhw", x, np.array(LUMINANCE, np.float32))[:, None]
    np.testing.assert_allclose(run(made, x), run(graph, grey), rtol=1e-4, atol=1e-4)


def test_fewer_colours_are_the_first() -> None:
    graph = net(LAYER % "x", w=W)
    x = image(graph, 2)
    np.testing.assert_allclose(
        run(other(graph, 2), x), run(graph, np.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0)))), rtol=1e-4, atol=1e-4
    )


DEPTHWISE = "y = Conv <kernel_shape = [3, 3], group = 3> (x, w)"
NORM = "n = ReduceL2 <axes = [1], keepdims = 1> (x)  s = Div (x, n)  " + LAYER % "s"
LOST = {
    "each channel by itself": (
        lambda: net(DEPTHWISE, w=W[:3, :1].copy()),
        4,
        "output 'y' has the channels of the image",
    ),
    "several of each": (lambda: net(DEPTHWISE, w=np.concatenate([W[:3, :1]] * 2)), 4, "makes several channels of each"),
    "a norm of all": (lambda: net(NORM, w=W), 4, "ReduceL2"),
    "the image handed on": (lambda: net("y = Neg (x)"), 4, "output 'y'"),
    "a bent luminance": (
        lambda: net("m = Sigmoid (x)  " + LAYER % "m", "float[1,1,8,8]", w=GREY),
        3,
        "Sigmoid.*luminance",
    ),
}


@pytest.mark.parametrize(("build", "channels", "why"), LOST.values(), ids=LOST)
def test_what_stands_in_the_way_is_named(build: Build, channels: int, why: str) -> None:
    with pytest.raises(Lost, match=why):
        other(build(), channels)
