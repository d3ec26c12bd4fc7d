"""Parts of a network as networks of their own, so that each can be timed alone; equal ones are recognised by their
signature.

How fast a network runs depends on its operators, shapes, types and attributes, not on what its weights hold. So a
network to be timed is a Bare one: names are counted anew, and of the weights only shapes and types are left. Two Bare
networks with the same bytes are equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from passes.errors import RefusedModel
from passes.graph.components import connected
from passes.graph.operators import of_form
from passes.graph.tensors import Shape, Shapes
from passes.graph.view import Node, View, build

SIZED_BY_VALUES = of_form("resampling")  # whose floating-point inputs are sizes, not weights


@dataclass(frozen=True)
class BareWeight:
    """An initializer of a Bare network: its name, shape, and numpy type by name."""

    name: str
    shape: Shape
    dtype: str


@dataclass(frozen=True)
class Bare:
    """A network without the values of its weights: the ONNX model as bytes, in which they are missing, and what is
    missing.
    """

    model: bytes
    weights: tuple[BareWeight, ...]

    @property
    def signature(self) -> str:
        """The same for two networks that differ in names and in the values of their weights alone."""
        digest = hashlib.sha256(self.model)
        digest.update(repr([(weight.name, weight.shape, weight.dtype) for weight in self.weights]).encode())
        return digest.hexdigest()


def cut(graph: gs.Graph, seen: View, shapes: Shapes, nodes: Set[str]) -> gs.Graph:
    """The network of these nodes alone: what they read from outside are its inputs, what is read outside are its
    outputs, in that order.

    Sizes are those of `shapes`; a number that is known there and computed outside is a constant inside. Raises
    RefusedModel where the size of an input is not known.
    """
    inside = [node for node in seen.nodes if node.name in nodes]
    made = {name for node in inside for name in node.outputs if name}
    outside = [
        name for name in dict.fromkeys(name for node in inside for name in node.inputs) if name and name not in made
    ]
    constants = {name: seen.constants[name] for name in outside if name in seen.constants}
    constants |= {name: _number(name, shapes) for name in outside if name not in constants and name in shapes.values}
    result = build(inside, constants, graph)
    tensors = {tensor.name: tensor for node in result.nodes for tensor in (*node.inputs, *node.outputs)}
    inputs = [name for name in outside if name not in constants]
    outputs = [name for node in inside for name in node.outputs if name and _is_seen(name, nodes, seen)]
    for name in inputs:
        if name not in shapes.shapes or name not in shapes.types:
            raise RefusedModel(f"the size of tensor '{name}' is not known, so what reads it cannot be run alone")
    for name in (*inputs, *outputs):
        tensors[name].shape = shapes.shapes.get(name)
        if name in shapes.types:
            tensors[name].dtype = onnx.helper.tensor_dtype_to_np_dtype(shapes.types[name])
    result.inputs, result.outputs = [tensors[name] for name in inputs], [tensors[name] for name in outputs]
    return result


def _number(name: str, shapes: Shapes) -> gs.Constant:
    kind = onnx.helper.tensor_dtype_to_np_dtype(shapes.types[name])
    return gs.Constant(name, np.asarray(shapes.values[name].array).astype(kind))


def _is_seen(name: str, inside: Set[str], seen: View) -> bool:
    return name in seen.outputs or any(reader not in inside for reader, _ in seen.readers.get(name, ()))


def components(seen: View, nodes: Set[str]) -> list[frozenset[str]]:
    """These nodes in groups that hand no tensor to each other directly, in the order of their first nodes."""
    order = [node.name for node in seen.nodes if node.name in nodes]
    index = {name: k for k, name in enumerate(order)}
    edges = [
        (index[a], index[b]) for name in order for a, b in _edges(seen.by_name[name], seen) if a in index and b in index
    ]
    rows, columns = np.array(edges, np.int64).reshape(-1, 2).T
    groups: dict[int, list[str]] = {}
    for name, label in zip(order, connected(rows, columns, len(order)).tolist(), strict=True):
        groups.setdefault(label, []).append(name)
    return [frozenset(group) for group in groups.values()]


def _edges(node: Node, seen: View) -> Iterable[tuple[str, str]]:
    return ((seen.producer[name], node.name) for name in node.inputs if name in seen.producer)


def bare(graph: gs.Graph, sizes: Mapping[str, Shape] | None = None) -> Bare:
    """The network with names counted anew and without the values of its weights; `sizes` are given to its inputs. It is
    not changed.
    """
    copy = graph.copy()
    for tensor in copy.inputs:
        tensor.shape = (sizes or {}).get(tensor.name, tensor.shape)
    weights = _weights(copy)
    _rename(copy)
    copy.name, copy.doc_string, copy.producer_name, copy.producer_version = "bare", "", "", ""
    missing = tuple(BareWeight(w.name, tuple(int(n) for n in w.shape), str(np.dtype(w.dtype))) for w in weights)
    proto = gs.export_onnx(copy, do_type_check=False)
    names = {weight.name for weight in missing}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in names]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    del proto.graph.value_info[:]
    return Bare(proto.SerializeToString(deterministic=True), missing)


def _weights(graph: gs.Graph) -> list[gs.Constant]:
    """The constants whose values do not matter to how long it takes: floating-point ones of several elements that are
    no sizes.
    """
    found: dict[str, gs.Constant] = {}
    kept: set[str] = set()
    for node in graph.nodes:
        for tensor in node.inputs:
            if not isinstance(tensor, gs.Constant):
                continue
            if node.op in SIZED_BY_VALUES or isinstance(tensor.dtype, int) or np.dtype(tensor.dtype).kind != "f":
                kept.add(tensor.name)
            elif np.prod(tensor.shape, dtype=np.int64) > 1:
                found[tensor.name] = tensor
    return [tensor for name, tensor in found.items() if name not in kept]


def _rename(graph: gs.Graph) -> None:
    count = 0
    done: set[int] = set()
    for tensor in _in_order(graph):
        if tensor.name and id(tensor) not in done:
            done.add(id(tensor))
            tensor.name = f"t{count}"
            count += 1
    for k, node in enumerate(graph.nodes):
        node.name = f"n{k}"


def _in_order(graph: gs.Graph) -> list[gs.Tensor]:
    inner: Sequence[gs.Tensor] = [tensor for node in graph.nodes for tensor in (*node.inputs, *node.outputs)]
    return [*graph.inputs, *inner, *graph.outputs]
