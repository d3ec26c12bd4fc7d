"""What a knob says of itself is true: one that cannot move is frozen, and what is unknown is said to be unknown."""

from __future__ import annotations

import onnx_graphsurgeon as gs
import pytest
from nets import Net, graph

from passes.errors import RefusedModel
from passes.network.analyse import analyse


def test_a_kernel_that_can_neither_grow_nor_shrink_is_frozen_with_the_reason() -> None:
    net = Net(size=40)
    net.constant("w", net.rng.standard_normal((4, 3, 31, 31)))
    net.op("Conv", "y", "x", "w")
    knob = analyse(net.graph()).knobs["node:y.kernel"]
    assert (knob.min, knob.max, knob.growth) == (31, 31, "frozen")
    assert knob.why == "its pads leave no room to take taps from, and a kernel grows to 31 at most"


def test_every_knob_that_is_not_frozen_has_another_value() -> None:
    net = Net()
    net.classifier(net.conv_bn_relu("x", "a", 7, 3))
    for knob in analyse(net.graph()).knobs.values():
        assert knob.growth == "frozen" or knob.min < knob.max, knob


def foreign(after: str) -> gs.Graph:
    text = f"g (float[1,3,8,8] x) => (float[A,B,C,D] y) {{ [odd] a = elsewhere.Blur (x) {after} }}"
    return graph(text, {"w": (4, 3, 3, 3)})


def test_sizes_that_nothing_knows_are_said_to_be_unknown() -> None:
    with pytest.raises(
        RefusedModel, match=r"of what 'odd' \(elsewhere::Blur\) makes are unknown \(no rule is known for its operator\)"
    ):
        analyse(foreign("y = Conv (a, w)"))
    image = analyse(foreign("b = Relu (a) c = Conv (x, w) d = Relu (c) y = Concat <axis = 1> (b, d)")).image
    assert image.axes == (2, 3)
    data = graph(
        "g (float[1,3,8,8] x) => (float[A,B,C,D] y) { [where] n = NonZero (x) f = Cast <to = 1> (n) u = "
        "Unsqueeze (f, z) y = Conv (u, w) }",
        {"w": (4, 3, 3, 3)},
    )
    with pytest.raises(
        RefusedModel, match=r"'where' \(NonZero\) makes are unknown \(they depend on values that it computes\)"
    ):
        analyse(data)
