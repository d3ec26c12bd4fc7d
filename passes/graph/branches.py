"""Branches that are decided before anything runs: an If whose condition is a constant, or follows from static sizes or
a number of axes.

Exporters write them where a function is made for several ranks, or a size may be 1. The branch taken is put where the
If stands; names inside it that are taken outside get new ones. Sequences that are joined as soon as they are made
(torch's cat) become the Concat they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from passes.errors import RefusedModel
from passes.graph.order import order
from passes.graph.shapes import Walk
from passes.graph.view import Node, View, linked, unique

Shape = tuple[int, ...]
Constants = Mapping[str, tuple[Shape, "np.dtype[np.generic]", np.ndarray | None]]
"""Initializer → shape, type and, of small ones, values."""


@dataclass(frozen=True)
class Decided:
    """The graph with the branches taken in place of their Ifs, and how many there were."""

    graph: onnx.GraphProto
    branches: int
    sequences: int


def has_branches(graph: onnx.GraphProto) -> bool:
    """Whether there is anything to decide."""
    return any(node.op_type in ("If", "ConcatFromSequence") and not node.domain for node in graph.node)


def decide(model: onnx.ModelProto, constants: Constants) -> Decided:
    """The model's graph without the Ifs that are decided; one that is not stays, as other control flow does.

    Raises RefusedModel where the branch taken is not sound, and where shape inference finds that nodes do not fit.
    """
    work = _Work(model, constants)
    waiting = [model.graph.node[index] for index in order(model.graph).nodes][::-1]
    while waiting:
        node = waiting.pop()
        branch = work.taken(node)
        if branch is None:
            work.keep(node)
        else:
            work.branches += 1
            waiting += work.spliced(node, branch)[::-1]
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    del graph.node[:]
    graph.node.extend(_used(work.kept, work.unused, [value.name for value in graph.output]))
    return Decided(graph, work.branches, work.sequences)


class _Work:
    """What has been walked so far: the nodes kept, the names taken, and what is known of the tensors."""

    def __init__(self, model: onnx.ModelProto, constants: Constants) -> None:
        graph = model.graph
        given = {name: gs.Constant(name, _stand_in(*constant)) for name, constant in constants.items()}
        inputs = {value.name: _declared(value) for value in graph.input}
        domains = {entry.domain: entry.version for entry in model.opset_import}
        empty = View(
            nodes=(),
            by_name={},
            producer={},
            readers={},
            constants={},
            inputs=inputs,
            outputs=tuple(v.name for v in graph.output),
            opset=domains.get("", domains.get("ai.onnx", 0)),
            domains=domains,
        )
        self.walk = Walk(linked([_node(node) for node in graph.node if not _bodies(node)], given, empty))
        self.walk.start({})
        self.kept: list[NodeProto] = []
        self.names = (
            {name for node in graph.node for name in (*node.input, *node.output, node.name)}
            | inputs.keys()
            | given.keys()
        )
        self.sequences, self.branches = 0, 0
        self.made: dict[str, Sequence[str]] = {}  # a sequence → the tensors in it
        read = {name for node in graph.node for name in _reads(node)} | {value.name for value in graph.output}
        self.unused = {node.output[0] for node in graph.node if node.output and not read.intersection(node.output)}

    def keep(self, node: NodeProto) -> None:
        """The node stays, and is walked."""
        if node.op_type == "SequenceConstruct" and not node.domain:
            self.made[node.output[0]] = list(node.input)
        joined = self.made.get(node.input[0]) if node.op_type == "ConcatFromSequence" and not node.domain else None
        if joined is not None and not any(a.name == "new_axis" and a.i for a in node.attribute):
            axis = next(a.i for a in node.attribute if a.name == "axis")
            node = helper.make_node("Concat", joined, list(node.output), name=node.name, axis=axis)
            self.sequences += 1
        self.kept.append(node)
        if not _bodies(node):
            self.walk.visit(_node(node))

    def taken(self, node: NodeProto) -> onnx.GraphProto | None:
        """The branch of an If that is decided; None for another node, or where the condition is known only when it
        runs.
        """
        if node.op_type != "If" or node.domain or not node.input:
            return None
        value = self.walk.values.get(node.input[0])
        if value is None or value.free.any() or value.array.size != 1:
            return None
        wanted = "then_branch" if bool(value.array.reshape(())) else "else_branch"
        return next((a.g for a in node.attribute if a.name == wanted), None)

    def spliced(self, node: NodeProto, branch: onnx.GraphProto) -> list[NodeProto]:
        """The nodes of the branch, in order, under names that nothing else has; they make what the If made."""
        if len(branch.output) < len(node.output):
            raise RefusedModel(
                f"the branches of If '{node.name}' make {len(branch.output)} of its {len(node.output)} outputs"
            )
        names: dict[str, str] = {}
        nodes = [branch.node[index] for index in order(branch).nodes]
        constants = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in branch.initializer]
        made = {name for inner in (*constants, *nodes) for name in inner.output if name}
        copies = []
        for name, value in zip(node.output, branch.output, strict=False):
            if value.name in made and value.name not in names:
                names[value.name] = name
            else:
                copies.append((value.name, name))
        for name in sorted(made - names.keys()):
            names[name] = self.named(name)
        result = [_renamed(inner, names) for inner in (*constants, *nodes)]
        for inner in result:
            inner.name = self.named(inner.name) if inner.name else ""
        return result + [helper.make_node("Identity", [names.get(source, source)], [name]) for source, name in copies]

    def named(self, name: str) -> str:
        """The name, or one like it that is not taken; it is now."""
        own = unique(name, self.names.__contains__)
        self.names.add(own)
        return own


def _reads(node: NodeProto) -> set[str]:
    """What a node and the graphs in it read."""
    return {
        *node.input,
        *(name for body in _bodies(node) for inner in body.node for name in _reads(inner)),
        *_results(node),
    }


def _results(node: NodeProto) -> list[str]:
    return [value.name for body in _bodies(node) for value in body.output]


def _bodies(node: NodeProto) -> list[onnx.GraphProto]:
    return [graph for a in node.attribute for graph in (*((a.g,) if a.HasField("g") else ()), *a.graphs)]


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """A copy that reads and makes tensors under other names, in the graphs inside it too."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    for body in _bodies(copy):
        inner = [_renamed(own, names) for own in body.node]
        del body.node[:]
        body.node.extend(inner)
        for value in body.output:
            value.name = names.get(value.name, value.name)
    return copy


def _used(nodes: Sequence[NodeProto], unused: set[str], outputs: Sequence[str]) -> list[NodeProto]:
    """The nodes without those that only a decided condition needed: what was unused before stays, for the check to
    find.
    """
    wanted = {*outputs, *unused}
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(_reads(node))
    return kept[::-1]


def _stand_in(shape: Shape, dtype: np.dtype[np.generic], values: np.ndarray | None) -> np.ndarray:
    """The values, or an array of that shape that takes no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape) if values is None else values


def _declared(value: onnx.ValueInfoProto) -> tuple[tuple[int | str | None, ...] | None, int]:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None, tensor.elem_type
    sizes = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim]
    return tuple(sizes), tensor.elem_type


def _node(proto: NodeProto) -> Node:
    """The node as the passes read it."""
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    op = f"{domain}::{proto.op_type}" if domain else proto.op_type
    attrs = {a.name: READ[a.type](a) for a in proto.attribute if a.type in READ}
    return Node(proto.name or ", ".join(proto.output), op, tuple(proto.input), tuple(proto.output), attrs)


READ: Mapping[int, Callable[[AttributeProto], object]] = {
    AttributeProto.FLOAT: lambda a: a.f,
    AttributeProto.INT: lambda a: a.i,
    AttributeProto.STRING: lambda a: a.s.decode(errors="replace"),
    AttributeProto.FLOATS: lambda a: list(a.floats),
    AttributeProto.INTS: lambda a: list(a.ints),
    AttributeProto.STRINGS: lambda a: [text.decode(errors="replace") for text in a.strings],
    AttributeProto.TENSOR: lambda a: gs.Constant(a.name, _array(a.t)),
}
"""The kinds of attributes that nodes of the passes have."""


def _array(tensor: TensorProto) -> np.ndarray:
    if tensor.data_location == TensorProto.EXTERNAL:
        raise RefusedModel(
            f"tensor '{tensor.name}' inside a branch lies in another file, which is not supported; save it "
            "inside the model"
        )
    return numpy_helper.to_array(tensor)
