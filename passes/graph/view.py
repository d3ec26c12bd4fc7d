"""A graph by name: what every analysis reads instead of onnx-graphsurgeon's objects.

gs nodes and tensors compare by name or content and are unhashable, so no analysis keeps them; a View holds names, attributes and arrays
only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from passes.errors import RefusedModel

CORE_DOMAINS = (None, "", "ai.onnx")


@dataclass(frozen=True, slots=True)
class Node:
    """One operator: `op` is its type, prefixed with the domain where that is not ONNX's own; absent inputs are ''."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any]

    def input(self, slot: int) -> str:
        """The name of the input at slot, '' where it is absent."""
        return self.inputs[slot] if slot < len(self.inputs) else ""

    def ints(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """The integer-list attribute, or the default."""
        return tuple(map(int, self.attrs.get(name, default)))

    def int(self, name: str, default: int) -> int:
        """The integer attribute, or the default."""
        return int(self.attrs.get(name, default))


@dataclass(frozen=True)
class View:
    """Nodes in topological order, who makes and who reads each tensor, and the constants by name."""

    nodes: tuple[Node, ...]
    by_name: Mapping[str, Node]
    producer: Mapping[str, str]
    readers: Mapping[str, tuple[tuple[str, int], ...]]
    constants: Mapping[str, gs.Constant]
    inputs: Mapping[str, tuple[tuple[int | str | None, ...] | None, int]]
    outputs: tuple[str, ...]
    opset: int
    domains: Mapping[str, int]

    def values(self, name: str) -> np.ndarray:
        """The array of a constant; never written in place."""
        return np.asarray(self.constants[name].values)

    def dtype(self, name: str) -> int:
        """The ONNX element type of a constant."""
        return element_type(self.constants[name].dtype)


@functools.cache
def element_type(dtype: Any) -> int:
    """ONNX's number for a numpy dtype, for what gs keeps where numpy has none, or for ONNX's own name (a Cast before opset 6)."""
    if isinstance(dtype, int):
        return dtype
    if isinstance(dtype, str) and dtype in onnx.TensorProto.DataType.keys():  # noqa: SIM118
        return int(onnx.TensorProto.DataType.Value(dtype))
    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def records(graph: gs.Graph) -> tuple[list[Node], dict[str, gs.Constant]]:
    """The nodes of a graph in its own order, and its constants by name."""
    constants: dict[str, gs.Constant] = {}
    nodes = []
    for node in graph.nodes:
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant):
                constants[tensor.name] = tensor
        op = node.op if node.domain in CORE_DOMAINS else f"{node.domain}::{node.op}"
        nodes.append(Node(node.name, op, tuple(t.name for t in node.inputs), tuple(t.name for t in node.outputs), node.attrs))
    for tensor in graph.outputs:
        if isinstance(tensor, gs.Constant):
            constants[tensor.name] = tensor
    return nodes, constants


def view(graph: gs.Graph) -> View:
    """The View of a graph. Raises RefusedModel for a cycle, naming a node in it."""
    nodes, constants = records(graph)
    inputs = {
        t.name: (None if t.shape is None else tuple(t.shape), element_type(t.dtype)) for t in graph.inputs if isinstance(t, gs.Variable)
    }
    domains = {entry.domain or "": int(entry.version) for entry in graph.import_domains or ()}
    opset = domains.get("", domains.get("ai.onnx", int(graph.opset)))
    empty = View(
        nodes=(),
        by_name={},
        producer={},
        readers={},
        constants={},
        inputs=inputs,
        outputs=tuple(t.name for t in graph.outputs),
        opset=opset,
        domains=domains,
    )
    return linked(in_order([_saying(node) for node in nodes]), constants, empty)


def linked(ordered: Sequence[Node], constants: Mapping[str, gs.Constant], like: View) -> View:
    """A View of these nodes (in topological order) and constants, with the inputs, outputs and versions of another."""
    readers: dict[str, list[tuple[str, int]]] = {}
    for node in ordered:
        for slot, name in enumerate(node.inputs):
            if name:
                readers.setdefault(name, []).append((node.name, slot))
    return replace(
        like,
        nodes=tuple(ordered),
        by_name={node.name: node for node in ordered},
        producer={output: node.name for node in ordered for output in node.outputs if output},
        readers={name: tuple(uses) for name, uses in readers.items()},
        constants=constants,
    )


def _saying(node: Node) -> Node:
    """The node with the attributes that say something: an empty list is none, except in a Constant."""
    if all(value for value in node.attrs.values() if isinstance(value, list)) or node.op.rpartition("::")[2] == "Constant":
        return node
    return replace(node, attrs={name: value for name, value in node.attrs.items() if not isinstance(value, list) or value})


def build(nodes: Sequence[Node], constants: Mapping[str, gs.Constant], like: gs.Graph) -> gs.Graph:
    """A graph of these nodes and constants with the inputs, outputs, name and versions of another; arrays are shared, objects are not."""
    tensors: dict[str, gs.Tensor] = {name: gs.Constant(name, constant._values) for name, constant in constants.items()}
    known = {tensor.name: tensor for tensor in (*like.inputs, *like.outputs)}
    dtypes = {tensor.name: tensor.dtype for node in like.nodes for tensor in node.outputs}

    def tensor(name: str) -> gs.Tensor:
        if not name:
            return gs.Variable.empty()
        if name not in tensors:
            old = known.get(name)
            tensors[name] = gs.Variable(name, dtypes.get(name)) if old is None else old.copy()
        return tensors[name]

    made = []
    for node in nodes:
        domain, _, op = node.op.rpartition("::")
        inputs, outputs = [tensor(name) for name in node.inputs], [tensor(name) for name in node.outputs]
        made.append(gs.Node(op, node.name, dict(node.attrs), inputs, outputs, domain=domain or None))
    return gs.Graph(
        made, [tensor(t.name) for t in like.inputs], [tensor(t.name) for t in like.outputs], name=like.name, doc_string=like.doc_string,
        opset=like.opset, import_domains=like.import_domains, ir_version=like.ir_version,
        producer_name=like.producer_name, producer_version=like.producer_version,
    )  # fmt: skip


def in_order(nodes: Sequence[Node]) -> list[Node]:
    """The nodes with every producer before its readers, otherwise in the order given. Raises RefusedModel for a cycle."""
    producer = {output: i for i, node in enumerate(nodes) for output in node.outputs if output}
    done = [False] * len(nodes)
    active = [False] * len(nodes)
    ordered: list[Node] = []
    for start in range(len(nodes)):
        stack = [] if done[start] else [start]
        while stack:
            i = stack[-1]
            if done[i]:
                stack.pop()
                continue
            waiting = [j for name in nodes[i].inputs if (j := producer.get(name, -1)) >= 0 and not done[j]]
            if not waiting:
                done[i] = True
                ordered.append(nodes[i])
                stack.pop()
            elif active[i]:
                raise RefusedModel(f"the graph has a cycle through node '{nodes[i].name}'; an ONNX graph must be acyclic")
            else:
                active[i] = True
                stack.extend(reversed(waiting))
    return ordered


def live(nodes: Sequence[Node], wanted: Iterable[str]) -> list[Node]:
    """The nodes that the wanted tensors need, in their order."""
    needed = set(wanted)
    kept = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.outputs):
            kept.append(node)
            needed.update(name for name in node.inputs if name)
    return kept[::-1]


def unique(name: str, taken: Callable[[str], bool]) -> str:
    """name, or name_2, name_3, ... : the first that is not taken."""
    if not taken(name):
        return name
    k = 2
    while taken(f"{name}_{k}"):
        k += 1
    return f"{name}_{k}"
