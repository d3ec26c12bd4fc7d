"""What a long network costs: as much for every layer as a short one."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from onnx import shape_inference

from passes import analyse, apply, parse, plan
from passes.graph import shapes as inference
from passes.graph.shapes import infer
from passes.graph.view import view

FACTOR = 8  # for a network of four times the length; time that grows with the square of it would be 16


def residual(blocks: int) -> gs.Graph:
    """A stem and blocks of two convolutions around which the data goes too."""
    rng = np.random.default_rng(0)
    x = gs.Variable("x", np.float32, [1, 3, 8, 8])
    nodes: list[gs.Node] = []

    def made(op: str, name: str, inputs: list[gs.Tensor], **attrs: object) -> gs.Variable:
        output = gs.Variable(f"{name}_out", np.float32)
        nodes.append(gs.Node(op, name, attrs, inputs, [output]))
        return output

    def convolved(name: str, data: gs.Tensor, inputs: int) -> gs.Variable:
        weight = gs.Constant(f"{name}.weight", rng.standard_normal((4, inputs, 3, 3)).astype(np.float32))
        return made("Conv", name, [data, weight], kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    trunk = convolved("stem", x, 3)
    for k in range(blocks):
        inner = made("Relu", f"b{k}.act", [convolved(f"b{k}.one", trunk, 4)])
        trunk = made("Relu", f"b{k}.exit", [made("Add", f"b{k}.add", [trunk, convolved(f"b{k}.two", inner, 4)])])
    pooled = made("Flatten", "flat", [made("GlobalAveragePool", "pool", [trunk])])
    head = gs.Constant("head.weight", rng.standard_normal((4, 10)).astype(np.float32))
    y = gs.Variable("y", np.float32, [1, 10])
    nodes.append(gs.Node("MatMul", "head", {}, [pooled, head], [y]))
    return gs.Graph(nodes, [x], [y], opset=17)


def remapped(blocks: int) -> float:
    """Seconds of processor time in which a network of so many blocks is analysed and gets other widths."""
    graph = residual(blocks)
    start = time.process_time()
    found = analyse(graph)
    apply(graph, plan(found, parse({"version": 1, "knobs": {"**.width*": 6, "**.hidden*": 2}})))
    return time.process_time() - start


def tied(layers: int) -> gs.Graph:
    """Convolutions whose channels are all tied together behind each of them: added to themselves in two other
    orders.
    """
    x = gs.Variable("x", np.float32, [1, 4, 4, 4])
    nodes: list[gs.Node] = []
    trunk: gs.Tensor = x
    for k in range(layers):
        weight = gs.Constant(f"{k}.weight", np.ones((4, 4, 1, 1), np.float32))
        trunk = added(nodes, f"{k}.conv", "Conv", [trunk, weight])
        for order in ([3, 2, 1, 0], [1, 0, 3, 2]):
            name = f"{k}.{order[0]}"
            turned = added(
                nodes, f"{name}.turn", "Gather", [trunk, gs.Constant(f"{name}.order", np.array(order))], axis=1
            )
            trunk = added(nodes, f"{name}.add", "Add", [trunk, turned])
    y = gs.Variable("y", np.float32, [1, 4, 4, 4])
    nodes.append(gs.Node("Relu", "exit", {}, [trunk], [y]))
    return gs.Graph(nodes, [x], [y], opset=17)


def added(nodes: list[gs.Node], name: str, op: str, inputs: list[gs.Tensor], **attrs: object) -> gs.Variable:
    """What a new node makes."""
    output = gs.Variable(f"{name}_out", np.float32)
    nodes.append(gs.Node(op, name, attrs, inputs, [output]))
    return output


def analysed(layers: int) -> float:
    """Seconds of processor time in which a network of so many layers is analysed."""
    made = tied(layers)
    start = time.process_time()
    found = analyse(made)
    seconds = time.process_time() - start
    why = found.knobs[f"node:{layers - 2}.conv.width"].why
    assert why is not None
    assert why.startswith("its 4 channels are tied together")
    return seconds


def test_the_time_to_say_why_channels_are_tied_grows_as_the_network_does() -> None:
    analysed(5)
    short, long = (min(analysed(layers) for _ in range(2)) for layers in (120, 480))
    assert long < 6 * short


def test_the_time_of_a_remap_grows_as_the_network_does() -> None:
    remapped(10)  # what is done once is done
    short, long = (min(remapped(blocks) for _ in range(2)) for blocks in (40, 160))
    assert long < FACTOR * short


def test_equal_layers_are_inferred_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    ask: Callable[..., object] = shape_inference.infer_node_outputs

    def counted(*given: object, **options: object) -> object:
        asked.append(given)
        return ask(*given, **options)

    monkeypatch.setattr(shape_inference, "infer_node_outputs", counted)
    monkeypatch.setattr(inference, "ANSWERS", {})
    for blocks in (2, 20):
        found = infer(view(residual(blocks)))
        assert found.shapes["y"] == (1, 10)
    assert len(asked) == 7, (
        "of both networks, a stem, and one each of Conv, Relu, Add, GlobalAveragePool, Flatten and MatMul"
    )
