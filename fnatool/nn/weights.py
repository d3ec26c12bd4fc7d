"""Which constants of a graph training changes, under which names, and where each is written in the file.

Trained is what is learnt (passes/learnt.py says the rule): weights, biases, scales, position embeddings. Numbers
(bounds, scales of a resize, epsilons) are not, nor what prepares the input before the first layer, nor anchors, grids
and masks. Running statistics are kept apart: they are updated, not trained.

Exporters write equal tensors once. A vector that several layers read is each one's own, unless they share their large
weight too.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from passes.graph.learnt import learnt_uses
from passes.graph.shapes import constant_value
from passes.graph.view import Node, View, build, element_type, in_order, linked, live, unique, view

Use = tuple[str, int]  # node and slot
Role = Literal["trained", "statistic", "fixed"]


@dataclass(frozen=True)
class Weight:
    """A constant of the file with one meaning: a parameter, a running statistic, or what stays as it is beside them.

    It comes from the constant `source` of the file; `places` are the inputs that must read it there once it is no
    longer what the constant holds for its other readers. `type` is ONNX's element type in the file, `held` the one it
    is computed in.
    """

    name: str
    source: str
    places: tuple[Use, ...]
    type: int
    held: int
    role: Role


@dataclass(frozen=True)
class PreparedGraph:
    """A graph as torch reads it: every constant by name, and those that training changes with one meaning each.

    `weights` are parameters and statistics, and the fixed readings of a constant that is also one of those.
    """

    graph: gs.Graph
    weights: tuple[Weight, ...]


def prepare(graph: gs.Graph) -> PreparedGraph:
    """The graph without Constant nodes, in single precision where it was in half, its weights read directly and each
    one's own.

    Node and tensor names stay; arrays are shared where their type stays. Raises RefusedModel for a Constant without a
    dense value.
    """
    work = _Work(view(graph), graph)
    work.take_constants()
    work.hold_in_single()
    work.bypass()
    weights = work.own_weights()
    return PreparedGraph(work.build(), weights)


@dataclass(frozen=True)
class _Reader:
    """A use of a constant: the input that reads it, the inputs of the file that lead there, and the tensor by which it
    came.
    """

    use: Use
    path: tuple[Use, ...]  # from the constant on; the last is the use itself
    through: str = ""


class _Work:
    """The nodes and constants being prepared."""

    def __init__(self, seen: View, like: gs.Graph) -> None:
        self.like = like
        self.seen = seen
        self.outputs = frozenset(seen.outputs)
        self.inputs = seen.inputs
        self.nodes = {node.name: node for node in live(seen.nodes, seen.outputs)}
        self.constants: dict[str, gs.Constant] = dict(seen.constants)
        self.stored: dict[str, int] = {}  # the type in the file of what is held in another
        self.bypassed: dict[Use, _Reader] = {}

    def build(self) -> gs.Graph:
        used = {name for node in self.nodes.values() for name in node.inputs} | self.outputs
        constants = {name: constant for name, constant in self.constants.items() if name in used}
        return build(list(self.nodes.values()), constants, self.like)

    def take_constants(self) -> None:
        """Constant nodes become constants."""
        for node in list(self.nodes.values()):
            if node.op == "Constant":
                self.constants[node.outputs[0]] = gs.Constant(node.outputs[0], constant_value(node))
                del self.nodes[node.name]

    def hold_in_single(self) -> None:
        """Constants, inputs and casts in half precision are in single precision: what trains needs it, and autocast
        gives the rest.
        """
        self.widen_inputs()
        for name, constant in self.constants.items():
            kind = element_type(constant.dtype)
            if kind in HALVES:
                self.stored[name] = kind
                self.constants[name] = gs.Constant(name, np.asarray(constant.values).astype(np.float32))
        for node in list(self.nodes.values()):
            if _cast_to(node) in HALVES:
                self.nodes[node.name] = replace(node, attrs={**node.attrs, "to": onnx.TensorProto.FLOAT})
            value = node.attrs.get("value")
            if node.op == "ConstantOfShape" and isinstance(value, gs.Constant) and element_type(value.dtype) in HALVES:
                wide = gs.Constant(value.name, np.asarray(value.values).astype(np.float32))
                self.nodes[node.name] = replace(node, attrs={**node.attrs, "value": wide})

    def widen_inputs(self) -> None:
        """Nodes read a half-precision input through a cast."""
        halves = [name for name, (_, kind) in self.inputs.items() if kind in HALVES and name not in self.constants]
        read = {name for node in self.nodes.values() for name in (*node.inputs, *node.outputs)}
        wide = {name: unique(f"{name}_single", read.__contains__) for name in halves}
        if not wide:
            return
        casts = {
            name: Node(
                unique(f"Cast_{name}", self.nodes.__contains__), "Cast", (name,), (to,), {"to": onnx.TensorProto.FLOAT}
            )
            for name, to in wide.items()
        }
        nodes = [
            replace(node, inputs=tuple(wide.get(name, name) for name in node.inputs)) for node in self.nodes.values()
        ]
        self.nodes = {node.name: node for node in (*casts.values(), *nodes)}

    def bypass(self) -> None:
        """Readers of a constant through Identity, or a Cast to the type it has, read it directly; such nodes go, except
        for outputs.
        """
        made: dict[str, tuple[str, tuple[Use, ...]]] = {}
        for node in list(self.nodes.values()):
            inputs = list(node.inputs)
            for slot, name in enumerate(node.inputs):
                if name in made:
                    inputs[slot], path = made[name]
                    use = (node.name, slot)
                    self.bypassed[use] = _Reader(use, (*path, use), name)
            if tuple(inputs) != node.inputs:
                node = self.nodes[node.name] = replace(node, inputs=tuple(inputs))
            if self.is_the_same(node) and node.outputs[0] not in self.outputs:
                made[node.outputs[0]] = (inputs[0], self.reader((node.name, 0)).path)
                del self.nodes[node.name]

    def is_the_same(self, node: Node) -> bool:
        """Whether the node hands a constant on as it is."""
        constant = self.constants.get(node.input(0))
        return constant is not None and (
            node.op == "Identity" or (node.op == "Cast" and _cast_to(node) == element_type(constant.dtype))
        )

    def reader(self, use: Use) -> _Reader:
        """How a constant comes to an input."""
        return self.bypassed.get(use, _Reader(use, (use,)))

    def own_weights(self) -> tuple[Weight, ...]:
        """The weights; a constant with several meanings is split into one per meaning."""
        readers: dict[str, list[_Reader]] = {}
        for node in self.nodes.values():
            for slot, name in enumerate(node.inputs):
                if name in self.constants:
                    readers.setdefault(name, []).append(self.reader((node.name, slot)))
        roles = _Roles(linked(in_order(list(self.nodes.values())), self.constants, self.seen))
        taken = (
            set(self.constants) | {output for node in self.nodes.values() for output in node.outputs} | set(self.inputs)
        )
        taken |= {reader.through for uses in readers.values() for reader in uses}
        weights = []
        for name, uses in readers.items():
            held = element_type(self.constants[name].dtype)
            for k, (group, role) in enumerate(
                roles.meanings(name, uses, {n for n, found in readers.items() if len(found) > 1})
            ):
                own = name if k == 0 else self.split(name, group, uses, taken)
                if role != "fixed" or k > 0:
                    places = tuple(dict.fromkeys(_place(reader, group, uses) for reader in group))
                    weights.append(
                        Weight(
                            name=own, source=name, places=places, type=self.stored.get(name, held), held=held, role=role
                        )
                    )
        return tuple(weights)

    def split(self, name: str, group: Sequence[_Reader], uses: Sequence[_Reader], taken: set[str]) -> str:
        """The group reads a copy of the constant under a name of its own: the one the exporter gave its Identity, or
        after its reader.
        """
        through = group[0].through
        alone = through and all((other.through == through) == (other in group) for other in uses)
        own = through if alone else unique(f"{name}_{group[0].use[0]}", taken.__contains__)
        taken.add(own)
        self.constants[own] = gs.Constant(own, self.constants[name].values)
        for reader in group:
            node, slot = reader.use
            inputs = list(self.nodes[node].inputs)
            inputs[slot] = own
            self.nodes[node] = replace(self.nodes[node], inputs=tuple(inputs))
        return own


def _place(reader: _Reader, group: Sequence[_Reader], uses: Sequence[_Reader]) -> Use:
    """The input nearest to the constant that leads to nothing but this group."""
    for place in reader.path:
        if all(other in group for other in uses if place in other.path):
            return place
    return reader.use


def _cast_to(node: Node) -> int:
    if node.op != "Cast":
        return 0
    to = node.attrs["to"]
    return to if isinstance(to, int) else element_type(to)


HALVES = frozenset({onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})
FLOATING = HALVES | {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}


# --- what a constant means to its readers -------------------------------------------------------

STATISTICS = {"BatchNormalization": frozenset({3, 4})}


class _Roles:
    """What each use of a constant means."""

    def __init__(self, seen: View) -> None:
        self.nodes, self.constants = seen.by_name, seen.constants
        self.producer = {name: self.nodes[node] for name, node in seen.producer.items()}
        self.learnt = learnt_uses(seen)

    def of(self, name: str, use: Use) -> Role:
        """What a constant is to one of its readers."""
        constant, node, slot = self.constants[name], self.nodes[use[0]], use[1]
        if element_type(constant.dtype) not in FLOATING:
            return "fixed"
        if slot in STATISTICS.get(node.op, ()):
            return "statistic"
        return "trained" if use in self.learnt else "fixed"

    def meanings(self, name: str, uses: Sequence[_Reader], shared: Container[str]) -> list[tuple[list[_Reader], Role]]:
        """The uses in groups that mean one tensor, each with its role; the first group keeps the constant's name."""
        rated = [(reader, self.of(name, reader.use)) for reader in uses]
        if all(role == "fixed" for _, role in rated):
            return [(list(uses), "fixed")]
        if len(uses) == 1 or self.is_large(name):
            return [(list(uses), next(role for _, role in rated if role != "fixed"))]
        groups: dict[tuple[Role, object], list[_Reader]] = {}
        for reader, role in rated:
            node = self.nodes[reader.use[0]]
            layer = self.layer(node)
            meaning = (layer, node.op, reader.use[1]) if layer in shared else reader.use
            groups.setdefault((role, None if role == "fixed" else meaning), []).append(reader)
        return [(group, role) for (role, _), group in sorted(groups.items(), key=lambda item: item[0][0] == "fixed")]

    def is_large(self, name: str) -> bool:
        """Whether a constant has content on two or more axes: what no exporter finds equal by chance."""
        constant = self.constants[name]
        if sum(size > 1 for size in constant.shape) < 2:
            return False
        values = np.ravel(constant.values)
        return any(bool((part != values[0]).any()) for part in (values[:64], values))

    def layer(self, node: Node) -> str:
        """The large weight of the layer that a vector at this node belongs to, '' where there is none."""
        for _ in range(len(self.nodes)):
            large = [name for name in node.inputs if name in self.constants and self.is_large(name)]
            if large:
                return large[0]
            above = [self.producer[name] for name in node.inputs if name in self.producer]
            if len(above) != 1:
                return ""
            node = above[0]
        return ""
