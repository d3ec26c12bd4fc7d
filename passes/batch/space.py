"""The samples of a network on their way from its inputs: what the rules ask, and what they write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_graphsurgeon as gs

from passes.batch.contents import (
    SAMPLES,
    Axes,
    Content,
    Mixed,
    any_samples,
    counts_samples,
    shape_at,
    size_at,
    without_samples,
)
from passes.graph.tensors import Shape, Shapes
from passes.graph.view import Node, View, unique


@dataclass
class BatchSpace:
    """Where samples lie in every tensor, and the nodes and constants of the graph for another number of them.

    `old`: how many there are; `new`: how many there are to be, or where that is to be free (`free`) a number to try it
    with; `source`: an input whose axis 0 counts them. `axes`: what the axes of a tensor count, where samples are among
    it; `after`: numbers that the graph computes from how many samples there are, as they are then. `nodes` and
    `constants` are those made so far; `changes` says how many places were others before.
    """

    view: View
    shapes: Shapes
    old: int
    new: int
    source: str
    free: bool
    axes: dict[str, Axes] = field(default_factory=dict)
    after: dict[str, np.ndarray] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, gs.Constant] = field(default_factory=dict)
    changes: int = 0
    counted: str = ""
    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        seen = self.view
        self.taken |= {*seen.constants, *seen.inputs, *seen.producer, *seen.by_name}

    # --- what rules ask ---

    def shape(self, name: str) -> Shape:
        """The tensor's shape before. Raises Mixed where it is unknown."""
        shape = self.shapes.shapes.get(name)
        if shape is None:
            raise Mixed(f"the size of '{name}' is unknown")
        return shape

    def of(self, name: str) -> Axes:
        """What the tensor's axes count."""
        known = self.axes.get(name)
        return without_samples(self.shape(name)) if known is None else known

    def has_samples(self, name: str) -> bool:
        """Whether samples are in the tensor."""
        return name in self.axes

    def numbers(self, node: Node, slot: int) -> np.ndarray | None:
        """The numbers of an input before; None where it is absent or unknown."""
        value = self.shapes.values.get(node.input(slot)) if node.input(slot) else None
        return None if value is None else value.array

    def numbers_after(self, node: Node, slot: int) -> np.ndarray | None:
        """The same with the other number of samples, as the graph computes them."""
        return self.after.get(node.input(slot), self.numbers(node, slot))

    def computed(self, node: Node, slot: int) -> np.ndarray:
        """Which of these numbers depend on a size that is free."""
        return np.asarray(self.shapes.values[node.input(slot)].free).ravel()

    def is_open(self) -> bool:
        """Whether an input has a free size beside its first."""
        return any(
            not isinstance(size, int)
            for name, (shape, _) in self.view.inputs.items()
            if name not in self.view.constants
            for size in (shape or ())[1:]
        )

    # --- what is written ---

    def write(self, *nodes: Node) -> None:
        """These nodes come next in the graph."""
        self.nodes.extend(nodes)

    def changed(self) -> None:
        """A place is another than before."""
        self.changes += 1

    def name(self, stem: str) -> str:
        """A name that nothing has yet."""
        found = unique(stem, self.taken.__contains__)
        self.taken.add(found)
        return found

    def constant(self, stem: str, values: np.ndarray | Sequence[int]) -> str:
        """The name of a new constant."""
        name = self.name(stem)
        array = values if isinstance(values, np.ndarray) else np.array(values, np.int64)
        self.constants[name] = gs.Constant(name, array)
        return name

    def node(self, op: str, inputs: Sequence[str], **attrs: object) -> str:
        """The output of a new node of one output, which comes next in the graph."""
        name = self.name(f"{inputs[0]}_{op}")
        output = self.name(f"{name}_out")
        self.write(Node(name, op, tuple(inputs), (output,), attrs))
        return output

    def count(self) -> str:
        """How many samples there are in a run, as a list of one number."""
        if not self.counted:
            sizes = self.node("Shape", [self.source])
            self.counted = self.node(
                "Slice", [sizes, self.constant("samples_from", [0]), self.constant("samples_to", [1])]
            )
        return self.counted

    def size(self, content: Content) -> str:
        """The size of an axis in a run, as a list of one number."""
        if not counts_samples(content) or not self.free:
            return self.constant("size", [size_at(content, self.new)])
        found, others = self.count(), size_at(content, 1)
        if content.count(SAMPLES) != 1:
            raise Mixed("an axis counts pairs of samples")
        return found if others == 1 else self.node("Mul", [found, self.constant("size", [others])])

    def sizes(self, axes: Axes) -> str:
        """The sizes of these axes in a run, as a list."""
        if not self.free or not any_samples(axes):
            return self.constant("sizes", shape_at(axes, self.new))
        parts, known = list[str](), list[int]()
        for content in axes:
            if counts_samples(content):
                parts += [self.constant("sizes", known)] if known else []
                parts.append(self.size(content))
                known = []
            else:
                known.append(size_at(content, self.new))
        parts += [self.constant("sizes", known)] if known else []
        return parts[0] if len(parts) == 1 else self.node("Concat", parts, axis=0)

    def spread(self, name: str, wanted: Axes) -> str:
        """The tensor with samples wherever they are wanted, of what is the same for all samples. Raises Mixed where it
        is not.
        """
        own = self.of(name)
        if own == wanted:
            return name
        for axis, (content, other) in enumerate(zip(own, wanted, strict=True)):
            if content == other or size_at(content, self.old) == 1:
                continue
            if (
                not counts_samples(other)
                or counts_samples(content)
                or size_at(content, self.old) != size_at(other, self.old)
            ):
                raise Mixed(f"'{name}' has {size_at(content, self.old)} entries on axis {axis}, whatever the samples")
            name = self.one_of(name, axis, other)
        # where a size of 1 is asked for it stays
        sizes = tuple(content if counts_samples(content) else () for content in wanted)
        self.changed()
        return self.node("Expand", [name, self.sizes(sizes)])

    def one_of(self, name: str, axis: int, wanted: Content) -> str:
        """The tensor with one entry on an axis that counts samples, where all of them are alike. Raises Mixed."""
        if wanted != (SAMPLES,):
            raise Mixed(
                f"'{name}' has {size_at(wanted, self.old)} entries for {self.old} samples, and what others "
                "would have is not known"
            )
        if name not in self.view.constants:
            if not self._is_alike(name, axis):
                raise Mixed(
                    f"'{name}' has an entry for each of {self.old} samples, and what others would have is not known"
                )
            self.changed()
            numbers = (
                self.constant(f"one_{what}", [value]) for what, value in (("from", 0), ("to", 1), ("axis", axis))
            )
            return self.node("Slice", [name, *numbers])
        values = self.view.values(name)
        first = values.take([0], axis)
        if not np.array_equal(np.broadcast_to(first, values.shape), values):
            raise Mixed(f"'{name}' holds other values for each of the {self.old} samples")
        self.changed()
        return self.constant(name, np.ascontiguousarray(first))

    def _is_alike(self, name: str, axis: int) -> bool:
        """Whether all entries on an axis are one that was broadcast."""
        node = self.view.by_name.get(self.view.producer.get(name, ""))
        if node is None or node.op not in ("Expand", "ConstantOfShape"):
            return False
        if node.op == "ConstantOfShape":
            return True
        source, rank = self.shape(node.inputs[0]), len(self.shape(name))
        own = axis - (rank - len(source))
        return own < 0 or source[own] == 1

    def rewired(self, node: Node, inputs: Mapping[int, str]) -> Node:
        """The node with other inputs."""
        if not inputs:
            return node
        self.changed()
        slots = max(len(node.inputs), max(inputs) + 1)
        return replace(node, inputs=tuple(inputs.get(slot, node.input(slot)) for slot in range(slots)))


Made = tuple[Node, Sequence[Axes]]
"""A node as it is to be, and what the axes of its outputs count."""

Rule = Callable[[Node, BatchSpace], Made]
"""Where samples go in a node that reads some. What it needs beside itself it writes into the space. Raises Mixed."""


def listed_axes(node: Node, space: BatchSpace, slot: int) -> tuple[int, ...]:
    """The axes from an input or the attribute, () where neither is given."""
    if not node.input(slot):
        return node.ints("axes", ())
    found = space.numbers(node, slot)
    if found is None:
        raise Mixed(f"'{node.name}' ({node.op}) works on axes that are computed")
    return tuple(int(axis) for axis in found.ravel())
