"""A network with what goes before and behind it, as one graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from passes.deploy.postprocessing import Axis, End, Ending
from passes.deploy.preprocessing import Framing, Placed, Size, Taking, preprocessed
from passes.deploy.steps import Steps
from passes.graph.view import Node, View, build, in_order, live, view

IMAGE, BOX = "image", "box"


@dataclass(frozen=True)
class Front:
    """What goes before a network: how images are framed and taken, the layout and the size of the images (None:
    any).
    """

    framing: Framing
    taking: Taking
    layout: str = "NHWC"
    size: Size | None = None


Finish = Callable[[Steps, Mapping[str, str], Ending], list[End]]
"""Writes what goes behind a network, whose outputs have these names."""


def assembled(
    graph: gs.Graph, *, batch: Axis, size: Size, front: Front | None, finish: Finish | None, engine: bool,
    real: npt.DTypeLike
) -> gs.Graph:  # fmt: skip
    """The graph (one input, of that size) for images uint8 instead of its input, and with answers instead of its
    outputs, as asked.

    batch: how many images, or the name of that axis. engine: it is for a runtime that computes with bytes only once
    they are floats, and has no NonMaxSuppression. Everything else is as it was; nodes that no output needs are gone.
    """
    seen = _renamed(view(graph))
    steps = Steps(seen.opset, _names(seen), real=real)
    entry = next(name for name in seen.inputs if name not in seen.constants)
    given = [tensor for tensor in graph.inputs if f"network.{tensor.name}" == entry]
    kept: dict[str, str] = {}  # names that stay
    placed, inputs, outputs = None, [tensor.copy() for tensor in given], [tensor.copy() for tensor in graph.outputs]
    nodes = list(seen.nodes)
    if front is None:
        kept[entry] = given[0].name
    else:
        entered, values, placed = _entered(steps, front, batch, engine=engine)
        inputs = list(entered)
        nodes = [_called(node, {entry: values}) for node in nodes]
    if finish is None:
        kept.update(zip(seen.outputs, (tensor.name for tensor in graph.outputs), strict=True))
    else:
        names = dict(zip((tensor.name for tensor in graph.outputs), seen.outputs, strict=True))
        ends = finish(steps, names, Ending(size, placed, batch, engine))
        for end in ends:
            steps.node("Identity", end.tensor, output=end.name)
        outputs = [gs.Variable(end.name, np.dtype(end.dtype), list(end.shape)) for end in ends]
    nodes = [_called(node, kept) for node in (*nodes, *steps.nodes)]
    whole = live(in_order(nodes), [tensor.name for tensor in outputs])
    frame = gs.Graph(
        inputs=inputs, outputs=outputs, name=graph.name, doc_string=graph.doc_string, opset=graph.opset,
        import_domains=graph.import_domains, producer_name=graph.producer_name, producer_version=graph.producer_version,
    )  # fmt: skip
    frame.ir_version = graph.ir_version
    used = {name for node in whole for name in node.inputs}
    return build(
        whole, {name: value for name, value in {**seen.constants, **steps.constants}.items() if name in used}, frame
    )


def _called(node: Node, names: Mapping[str, str]) -> Node:
    """The node with other names for tensors."""
    inputs, outputs = (tuple(names.get(name, name) for name in row) for row in (node.inputs, node.outputs))
    return replace(node, inputs=inputs, outputs=outputs)


def _renamed(seen: View) -> View:
    """The same with `network.` before the names of all tensors that nodes make or take as inputs, so that others are
    free.
    """
    names = {name: f"network.{name}" for name in (*seen.inputs, *seen.producer) if name not in seen.constants}
    nodes = tuple(_called(node, names) for node in seen.nodes)
    inputs = {names.get(name, name): value for name, value in seen.inputs.items()}
    return replace(seen, nodes=nodes, inputs=inputs, outputs=tuple(names.get(name, name) for name in seen.outputs))


def _names(seen: View) -> set[str]:
    return {
        *seen.constants,
        *seen.inputs,
        *(name for node in seen.nodes for name in (node.name, *node.outputs)),
        IMAGE,
        BOX,
    }


def _entered(steps: Steps, front: Front, batch: Axis, *, engine: bool) -> tuple[list[gs.Variable], str, Placed]:
    """The new inputs, what the network takes of them, and where an image lies in that."""
    sides: tuple[Axis, Axis] = front.size or ("height", "width")
    shape = [batch, *sides, 3] if front.layout == "NHWC" else [batch, 3, *sides]
    image = gs.Variable(IMAGE, np.uint8, shape)
    around = front.framing.kind == "around"
    pixels = steps.cast(IMAGE, np.float32) if engine else IMAGE
    pixels = pixels if front.layout == "NHWC" else steps.transposed(pixels, 0, 2, 3, 1)
    values, placed = preprocessed(steps, pixels, BOX, front.framing, front.taking)
    return [image, *([gs.Variable(BOX, np.float32, [4])] if around else [])], values, placed
