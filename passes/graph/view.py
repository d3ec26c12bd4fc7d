"""A graph by name: what every analysis reads instead of onnx-graphsurgeon's objects.

gs nodes and tensors compare by name or content and are unhashable, so no analysis keeps them; a View holds names,
attributes and arrays only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
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

    @property
    def attributes(self) -> str | None:
        """The attributes as a text that differs where they do (1, 1.0 and True do); None where one holds a tensor or a
        graph.
        """
        return repr(self.attrs) if all(map(_is_plain, self.attrs.values())) else None

    def input(self, slot: int) -> str:
        """The name of the input at slot, '' where it is absent."""
        return self.inputs[slot] if slot < len(self.inputs) else ""

    def ints(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """The integer-list attribute, or the default."""
        return tuple(map(int, self.attrs.get(name, default)))

    def int(self, name: str, default: int) -> int:
        """The integer attribute, or the default."""
        return int(self.attrs.get(name, default))


def _is_plain(value: object) -> bool:
    """Whether an attribute is a number, a text, a type, or a list of those: what is printed tells it from others."""
    return isinstance(value[0] if isinstance(value, (list, tuple)) and value else value, PLAIN)


PLAIN = (int, float, str, bytes, np.dtype, type, list, tuple)  # types of attributes; a list is of one type


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
    """ONNX's number for a numpy dtype, for what gs keeps where numpy has none, or for ONNX's own name (a Cast before
    opset 6).
    """
    if isinstance(dtype, int):
        return dtype
    if isinstance(dtype, str) and dtype in onnx.TensorProto.DataType.keys():  # noqa: SIM118
        return int(onnx.TensorProto.DataType.Value(dtype))
    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


Records = tuple[Sequence[Node], Mapping[str, gs.Constant]]
"""The nodes of a graph in its own order, and constants by name."""


class Recorded(gs.Graph):  # type: ignore[misc]
    """A graph whose nodes are known as records: its objects are made when someone first asks for them, and say all from
    then on.

    Who reads names alone, as a View does, and a file that is written, never asks: of a long network the objects take
    longer than the rest of reading it.
    """

    def __init__(
        self, records: Records, types: Mapping[str, Any], made: Callable[[], list[gs.Node]], *, whole: bool, **said: Any
    ) -> None:
        """types: the element types of what nodes make, by name; made: the objects, in the order of the records; said:
        as of any graph.

        whole: the records and types say all that the objects will, as they do not where shapes are known.
        """
        super().__init__([], **said)
        self.types = types
        self.whole = whole
        self._records: Records | None = records
        self._made = made

    @property
    def nodes(self) -> list[gs.Node]:
        """The objects of the nodes."""
        if self._records is not None:
            self.nodes = self._made()
        return self._nodes

    @nodes.setter
    def nodes(self, nodes: list[gs.Node]) -> None:
        self._records = None
        self._nodes = nodes

    @property
    def records(self) -> Records | None:
        """The nodes and the constants by name (others too than are read), as long as no object was asked for."""
        return self._records


def nodes_of(graph: gs.Graph) -> Sequence[Node | gs.Node]:
    """The nodes in the graph's own order: records where it has them, else objects; op, name and attributes are the
    same.
    """
    known = graph.records if isinstance(graph, Recorded) else None
    return graph.nodes if known is None else known[0]


def whole_records(graph: gs.Graph) -> Records | None:
    """The records of a graph of which they say all; None where objects do."""
    return graph.records if isinstance(graph, Recorded) and graph.whole else None


def records(graph: gs.Graph) -> tuple[list[Node], dict[str, gs.Constant]]:
    """The nodes of a graph in its own order, and its constants by name, in the order of their use."""
    known = graph.records if isinstance(graph, Recorded) else None
    if known is None:
        return _read(graph)
    nodes, values = known
    used = (
        name
        for names in (*(node.inputs for node in nodes), [tensor.name for tensor in graph.outputs])
        for name in names
    )
    return list(nodes), {name: values[name] for name in used if name in values}


def _read(graph: gs.Graph) -> tuple[list[Node], dict[str, gs.Constant]]:
    """The records of a graph of objects."""
    constants: dict[str, gs.Constant] = {}
    nodes = []
    for node in graph.nodes:
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant):
                constants[tensor.name] = tensor
        op = node.op if node.domain in CORE_DOMAINS else f"{node.domain}::{node.op}"
        nodes.append(
            Node(node.name, op, tuple(t.name for t in node.inputs), tuple(t.name for t in node.outputs), node.attrs)
        )
    for tensor in graph.outputs:
        if isinstance(tensor, gs.Constant):
            constants[tensor.name] = tensor
    return nodes, constants


def view(graph: gs.Graph) -> View:
    """The View of a graph. Raises RefusedModel for a cycle, naming a node in it."""
    nodes, constants = records(graph)
    inputs = {
        t.name: (None if t.shape is None else tuple(t.shape), element_type(t.dtype))
        for t in graph.inputs
        if isinstance(t, gs.Variable)
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
    if (
        all(value for value in node.attrs.values() if isinstance(value, list))
        or node.op.rpartition("::")[2] == "Constant"
    ):
        return node
    return replace(
        node, attrs={name: value for name, value in node.attrs.items() if not isinstance(value, list) or value}
    )


def build(nodes: Sequence[Node], constants: Mapping[str, gs.Constant], like: gs.Graph) -> gs.Graph:
    """A graph of these nodes and constants with the inputs, outputs, name and versions of another; arrays are shared,
    objects are not.
    """
    ends: dict[str, gs.Tensor] = {}
    for tensor in (*like.inputs, *like.outputs):
        own = constants.get(tensor.name)
        ends[tensor.name] = tensor.copy() if own is None else gs.Constant(tensor.name, own._values)
    known = _types(like)
    types = {name: known.get(name) for node in nodes for name in node.outputs}
    return Recorded(
        (nodes, {**constants, **{name: tensor for name, tensor in ends.items() if name in constants}}), types,
        partial(_objects, nodes, constants, ends, types), whole=True,
        inputs=[ends[tensor.name] for tensor in like.inputs], outputs=[ends[tensor.name] for tensor in like.outputs],
        name=like.name, doc_string=like.doc_string, opset=like.opset, import_domains=like.import_domains,
        ir_version=like.ir_version, producer_name=like.producer_name, producer_version=like.producer_version,
    )  # fmt: skip


def _types(graph: gs.Graph) -> Mapping[str, Any]:
    """The element types of what the nodes of a graph make, by name."""
    if isinstance(graph, Recorded) and graph.records is not None:
        return graph.types
    return {tensor.name: tensor.dtype for node in graph.nodes for tensor in node.outputs}


def _objects(
    nodes: Sequence[Node], constants: Mapping[str, gs.Constant], ends: Mapping[str, gs.Tensor], types: Mapping[str, Any]
) -> list[gs.Node]:
    """The nodes as objects, whose tensors are their own but for the ends of the graph."""
    tensors = {**{name: gs.Constant(name, constant._values) for name, constant in constants.items()}, **ends}

    def tensor(name: str) -> gs.Tensor:
        if not name:
            return gs.Variable.empty()
        if name not in tensors:
            tensors[name] = gs.Variable(name, types.get(name))
        return tensors[name]

    made = []
    for node in nodes:
        domain, _, op = node.op.rpartition("::")
        inputs, outputs = [tensor(name) for name in node.inputs], [tensor(name) for name in node.outputs]
        made.append(gs.Node(op, node.name, dict(node.attrs), inputs, outputs, domain=domain or None))
    return made


def in_order(nodes: Sequence[Node]) -> list[Node]:
    """The nodes with every producer before its readers, otherwise in the order given. Raises RefusedModel for a
    cycle.
    """
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
                raise RefusedModel(
                    f"the graph has a cycle through node '{nodes[i].name}'; an ONNX graph must be acyclic"
                )
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
