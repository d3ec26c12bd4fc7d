"""Which layers of a target are solved anew, and which tensor of the seed each is to come close to."""

from __future__ import annotations

import numpy as np
from nets import Net

from passes.graph.view import view
from passes.network.analyse import analyse
from passes.target.apply import apply
from passes.target.matching import MatchedLayer, matched_layers
from passes.target.planner import plan
from passes.target.spec import Spec, Value


def found(net: Net, knobs: dict[str, Value], select: str = "first") -> list[MatchedLayer]:
    """The layers that are solved anew where the network is remapped so."""
    graph = net.graph()
    analysis = analyse(graph)
    made = plan(analysis, Spec(knobs), select=select)
    return list(matched_layers(analysis, made, view(apply(analysis.normal or graph, made))))


def said(net: Net, knobs: dict[str, Value]) -> list[tuple[str, str, str]]:
    """Layer, its tensor, and the seed's."""
    return [(layer.node, layer.tensor, layer.seed) for layer in found(net, knobs)]


def residual(blocks: int = 3, *, norms: bool = True) -> Net:
    """A stem, residual blocks e → d (depthwise) → l, each closed by s and a Relu, and a classifier."""
    net = Net()
    conv = (
        net.conv_bn
        if norms
        else lambda x, out, width, kernel=1, **how: net.conv(x, out, width, kernel, bias=True, **how)
    )
    y = net.relu(conv("x", "stem", 6, 3))
    for k in range(blocks):
        inner = net.relu(conv(net.relu(conv(y, f"e{k}", 10)), f"d{k}", 10, 3, group=0))
        y = net.relu(net.op("Add", f"s{k}", y, conv(inner, f"l{k}", 6)))
    net.classifier(y)
    return net


def test_what_reads_a_narrowed_width_is_matched_where_its_block_ends() -> None:
    assert said(residual(), {"stage0.block1.hidden": 8})[:1] == [("l1", "s1", "s1")]


def test_behind_a_layer_the_last_of_every_block_and_the_head_learn_too() -> None:
    assert said(residual(), {"stage0.block1.hidden": 8}) == [("l1", "s1", "s1"), ("l2", "s2", "s2"), ("y", "y", "y")]


def test_a_branch_that_is_not_behind_is_left_alone() -> None:
    net = Net()
    y = net.conv_bn_relu("x", "stem", 6, 3)
    left = net.conv(net.conv_bn_relu(y, "c", 8), "d", 6)
    right = net.conv(net.relu(net.conv_bn(y, "e", 8)), "f", 6)
    net.classifier(net.op("Mul", "m", left, right))
    assert [layer.node for layer in found(net, {"node:c.width": 4})] == ["d", "y"]


def test_the_steps_between_are_known() -> None:
    layer, *_ = found(residual(), {"stage0.block1.hidden": 8})
    assert layer.steps == ("l1.n", "s1")
    assert layer.block == "stage0.block1"
    layer, *_ = found(residual(norms=False), {"stage0.block1.hidden": 8})
    assert layer.steps == ("s1",)


def test_the_block_before_dropped_ones_learns_what_the_seed_has_behind_them() -> None:
    assert said(residual(), {"stage0.depth": 1})[:1] == [("l0", "s0", "s2")]
    assert said(residual(), {"stage0.depth": 2, "stage0.block1.from": 2})[:1] == [("l0", "s0", "s1")]


def test_a_lost_tap_is_made_up_for_by_its_layer_and_the_last_of_its_block() -> None:
    net = Net()
    y = net.conv_bn_relu("x", "stem", 6, 3)
    inner = net.conv_bn_relu(net.conv_bn_relu(y, "e", 10), "d", 10, 5, group=0)
    net.classifier(net.op("Add", "s", y, net.conv_bn(inner, "l", 6)))
    assert said(net, {"stage0.block0.kernel": 3})[:2] == [("d", "d.n", "d.n"), ("l", "s", "s")]


def test_a_narrower_trunk_is_compared_on_the_channels_that_stay() -> None:
    layers = found(residual(2), {"stage0.width": 4})
    assert [layer.node for layer in layers] == ["e0", "l0", "e1", "l1", "y"]
    assert [layer.matches.tolist() for layer in layers[1:4:2]] == [[0, 1, 2, 3]] * 2
    assert layers[-1].tensor == "y"
    np.testing.assert_array_equal(layers[-1].rows, range(5))


def test_selected_channels_are_matched_by_what_they_were() -> None:
    net = residual(1)
    net.weights["l0.w"][[0, 2]] *= 1e-3
    net.weights["e0.w"][:, [0, 2]] *= 1e-3
    net.weights["stem.w"][[0, 2]] *= 1e-3
    net.weights["fc.w"][:, [0, 2]] *= 1e-3
    layer = next(layer for layer in found(net, {"stage0.width": 4}, "l1") if layer.node == "l0")
    assert layer.rows.tolist() == [0, 1, 2, 3]
    assert layer.matches.tolist() == [1, 3, 4, 5]


def test_grown_channels_have_no_match() -> None:
    net = residual(1)
    layers = {layer.node: layer for layer in found(net, {"stage0.width": 8, "stage0.block0.hidden": 8})}
    assert layers["l0"].rows.tolist() == layers["l0"].matches.tolist() == [0, 1, 2, 3, 4, 5]


def test_growth_alone_solves_nothing() -> None:
    assert said(residual(), {"stage0.depth": 5, "stage0.block0.hidden": 12, "stage0.width": 8}) == []


def test_a_copied_block_is_left_alone() -> None:
    assert said(residual(1), {"stage0.depth": 2, "stage0.block1.hidden": 8}) == []


def test_layers_that_share_a_weight_are_left_alone() -> None:
    net = Net()
    y = net.conv_bn_relu("x", "c", 8)
    shared = net.constant("shared", np.random.default_rng(0).standard_normal((5, 8, 1, 1)))
    for name in ("a", "b"):
        net.op("Conv", name, y, shared, kernel_shape=[1, 1])
    net.op("Add", "y", "a", "b")
    assert said(net, {"node:c.width": 4}) == []


def test_a_tensor_that_is_read_twice_is_where_the_way_ends() -> None:
    net = Net()
    y = net.conv_bn_relu("x", "c", 8)
    z = net.conv_bn(y, "d", 6)
    net.classifier(net.op("Mul", "m", z, net.op("Sigmoid", "g", z)))
    assert said(net, {"node:c.width": 4})[:1] == [("d", "d.n", "d.n")]


def test_scales_and_shifts_written_out_are_steps() -> None:
    net = Net()
    y = net.conv_bn_relu("x", "c", 8)
    scaled = net.op("Mul", "m", net.conv(y, "d", 6), net.constant("gamma", np.full((6, 1, 1), 2.0)))
    net.classifier(net.relu(net.op("Add", "a", scaled, net.constant("beta", np.ones((1, 6, 1, 1))))))
    layer, *_ = found(net, {"node:c.width": 4})
    assert (layer.tensor, layer.steps) == ("a", ("m", "a"))


def test_a_constant_laid_along_space_is_no_step() -> None:
    net = Net()
    y = net.conv_bn_relu("x", "c", 8)
    net.classifier(net.op("Add", "a", net.conv(y, "d", 6), net.constant("place", np.ones((1, 1, 1, 8)))))
    assert said(net, {"node:c.width": 4})[:1] == [("d", "d", "d")]
