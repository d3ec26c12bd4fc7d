"""The values of a network back into the graph that they were read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from torch import Tensor

from fnatool.nn.program import to_array
from fnatool.nn.site import TYPES
from fnatool.nn.weights import Weight
from passes.errors import UserError
from passes.graph.shapes import constant_value
from passes.graph.view import Node, unique, view


def stored(graph: gs.Graph, sources: Sequence[Weight], values: Mapping[str, Tensor]) -> gs.Graph:
    """A copy of the graph with these values; arrays that did not change are shared with it, byte for byte.

    Raises UserError for a value that does not have the shape of its initializer.
    """
    copy = graph.copy()
    file = _File(copy)
    for source in dict.fromkeys(weight.source for weight in sources):
        weights = [weight for weight in sources if weight.source == source]
        old = file.array(source)
        new = [_array(weight, values.get(weight.name), old) for weight in weights]
        for weight, array in zip(weights[1:], new[1:], strict=True):
            if not _same(array, new[0]):
                file.separate(weight, array)
        if not _same(new[0], old):
            file.write(source, new[0])
    return copy


def _array(weight: Weight, value: Tensor | None, old: np.ndarray) -> np.ndarray:
    """The value in the type of the file."""
    if value is None:
        return old  # a fixed reading
    if tuple(value.shape) != old.shape:
        raise UserError(
            f"'{weight.name}' has shape {tuple(value.shape)} in the module and {old.shape} in the graph; save "
            "what was loaded"
        )
    return to_array(value.detach().to(TYPES[weight.type]))


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a is b or a.tobytes() == b.tobytes()


class _File:
    """A graph whose constants are written."""

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self.nodes: dict[str, gs.Node] = {node.name: node for node in graph.nodes}
        self.makers: dict[str, gs.Node] = {node.outputs[0].name: node for node in graph.nodes if node.op == "Constant"}
        self.constants: dict[str, gs.Constant] = dict(view(graph).constants)
        tensors = {tensor.name for node in graph.nodes for tensor in (*node.inputs, *node.outputs)}
        self.taken = tensors | {tensor.name for tensor in (*graph.inputs, *graph.outputs)}

    def array(self, name: str) -> np.ndarray:
        """The values of a constant."""
        if name in self.constants:
            return np.asarray(self.constants[name].values)
        maker = self.makers[name]
        return constant_value(Node(maker.name, maker.op, (), (name,), maker.attrs))

    def write(self, name: str, array: np.ndarray) -> None:
        """The constant has these values, in the form it had."""
        if name in self.constants:
            self.constants[name].values = array
            return
        attrs: dict[str, Any] = self.makers[name].attrs
        if "value" in attrs:
            attrs["value"] = gs.Constant(attrs["value"].name, array)
        elif "value_floats" in attrs:
            attrs["value_floats"] = array.tolist()
        else:
            attrs["value_float"] = array.item()

    def separate(self, weight: Weight, array: np.ndarray) -> None:
        """The places of a weight read an initializer of their own."""
        node = weight.places[0][0]
        name = (
            weight.name if weight.name not in self.taken else unique(f"{weight.source}_{node}", self.taken.__contains__)
        )
        self.taken.add(name)
        own = gs.Constant(name, array)
        for node, slot in weight.places:
            self.nodes[node].inputs[slot] = own
