"""A graph that is being brought into normal form: what its steps read and change, and how one begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from passes.errors import RefusedModel
from passes.graph.shapes import infer, open_axes
from passes.graph.tensors import Shape, Shapes
from passes.graph.view import Node, View, build, linked, nodes_of, unique, view


@dataclass
class Work:
    """A copy of the graph given that is being changed, and its View as long as it holds."""

    given: gs.Graph
    sizes: Mapping[str, Shape]
    _seen: View | None = None
    _shapes: Shapes | None = None
    _graph: gs.Graph | None = None  # until a step has something to change, its View says all

    @property
    def graph(self) -> gs.Graph:
        """The graph as it is now, to be changed."""
        if self._graph is None:
            self._graph = build(self.seen.nodes, self.seen.constants, self.given)
        return self._graph

    @property
    def seen(self) -> View:
        """The View of the graph as it is now."""
        if self._seen is None:
            self._seen = view(self.graph)
        return self._seen

    def has(self, *ops: str) -> bool:
        """Whether a node is of one of these operators."""
        return any(node.op in ops for node in self.seen.nodes)

    @property
    def shapes(self) -> Shapes:
        """The Shapes of the graph as it is now."""
        if self._shapes is None:
            self._shapes = replace(infer(self.seen, self.sizes), free_axes=open_axes(self.seen))
        return self._shapes

    def forget(self) -> None:
        """The graph has changed."""
        self._seen = self._shapes = None

    def become(self, graph: gs.Graph) -> None:
        """This is the graph now."""
        self._graph = graph
        self.forget()

    def replace_by_constants(self, values: dict[str, np.ndarray]) -> None:
        """The tensors named become initializers; nodes left without a used output go."""
        constants = {name: gs.Constant(name, np.asarray(array, order="C")) for name, array in values.items()}
        outputs = {tensor.name for tensor in self.graph.outputs}
        kept = []
        for node in self.graph.nodes:
            if all(t.name in values for t in node.outputs if t.name) and not any(
                t.name in outputs for t in node.outputs
            ):
                node.inputs.clear()
                continue
            kept.append(node)
            for slot, tensor in enumerate(node.inputs):
                if tensor.name in constants:
                    node.inputs[slot] = constants[tensor.name]
        self.graph.nodes[:] = kept

    def drop_unread(self) -> None:
        """Nodes none of whose outputs is read or is a graph output go, from the end."""
        wanted = {tensor.name for tensor in self.graph.outputs}
        kept = []
        self.forget()
        order = {node.name: i for i, node in enumerate(self.seen.nodes)}
        for node in sorted(self.graph.nodes, key=lambda n: -order[n.name]):
            if any(t.name in wanted for t in node.outputs):
                kept.append(node)
                wanted.update(t.name for t in node.inputs)
            else:
                node.inputs.clear()
        names = {node.name for node in kept}
        self.graph.nodes[:] = [node for node in self.graph.nodes if node.name in names]


def begun(graph: gs.Graph, sizes: Mapping[str, Shape]) -> Work:
    """A copy to work on, every node with a name of its own."""
    refuse_control_flow(graph)
    seen = view(graph)
    nodes = named(seen.nodes)
    same = all(new is old for new, old in zip(nodes, seen.nodes, strict=True))
    return Work(graph, sizes, seen if same else linked(nodes, seen.constants, seen))


def named(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, each with a name of its own: `<Op>_<k>` in topological order where it has none."""
    taken = {node.name for node in nodes if node.name}
    used: set[str] = set()
    named = []
    for k, node in enumerate(nodes):
        name = node.name
        if not name or name in used:
            name = unique(name or f"{node.op.rpartition('::')[2]}_{k}", lambda other: other in taken or other in used)
        used.add(name)
        named.append(node if name == node.name else replace(node, name=name))
    return named


def refuse_control_flow(graph: gs.Graph) -> None:
    """Graphs inside nodes are not rewritten: their tensors could not follow a change outside."""
    for node in nodes_of(graph):
        if any(isinstance(value, gs.Graph) for value in node.attrs.values()):
            raise RefusedModel(
                f"node '{node.name}' ({node.op}) has a graph inside; export the model without control flow"
            )
