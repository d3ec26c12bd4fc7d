"""A graph that declares a free batch, but holds sizes for one sample, made to take any number of them.

Exporters write the batch they saw into Reshape and Resize, and join constants of one sample to the data. With a batch of N in front,

    Reshape(x, [1, c, …])     becomes  Reshape(x, [0, c, …]): what x has in front,
    Resize(x, sizes=[1, …])   takes    Concat(Shape(x)[:1], sizes[1:]),
    Concat(x, k [1, …])       takes    Expand(k, Concat(Shape(x)[:1], shape of k[1:])).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from passes.errors import RefusedModel
from passes.graph.operators import SIZES
from passes.graph.regrouping import regrouped
from passes.graph.shapes import infer
from passes.graph.tensors import Shape, Shapes
from passes.graph.view import Node, View, build, unique, view

INPUTS_OF_SLICE = 10  # the version since which the bounds of a Slice are inputs


def freed(graph: gs.Graph) -> gs.Graph:
    """The graph for any number of samples, where it declares that; the same object where nothing had to be changed, or none would help."""
    seen = view(graph)
    free = [name for name, (shape, _) in seen.inputs.items() if name not in seen.constants and _is_free(shape)]
    if not free or seen.opset < INPUTS_OF_SLICE:
        return graph
    try:
        once = infer(seen)
    except RefusedModel:
        return graph
    if _takes_two(seen, once, free):
        return graph
    work = _Work(seen, once, free)
    nodes = [changed for node in seen.nodes for changed in work.changed(node)]
    if not work.changes:
        return graph
    made = build(nodes, {**seen.constants, **work.constants}, graph)
    return made if _takes_two(view(made), once, free) else graph


def _is_free(shape: Sequence[int | str | None] | None) -> bool:
    return shape is not None and len(shape) > 2 and not isinstance(shape[0], int)


def _takes_two(seen: View, once: Shapes, free: Sequence[str]) -> bool:
    """Whether two samples go through by ONNX's rules, and every output with one sample in front then has two."""
    try:
        twice = infer(seen, {name: (2, *once.shapes[name][1:]) for name in free})
    except RefusedModel:
        return False
    shapes = [(once.shapes.get(name), twice.shapes.get(name)) for name in seen.outputs]
    return all(two is None or one is None or one[:1] != (1,) or two[0] == 2 for one, two in shapes)


class _Work:
    """The nodes being changed, and the constants they need."""

    def __init__(self, seen: View, shapes: Shapes, free: Sequence[str]) -> None:
        self.seen, self.shapes = seen, shapes
        self.data = set(free)
        for node in seen.nodes:
            if node.op not in SIZES and not self.data.isdisjoint(node.inputs):
                self.data.update(node.outputs)
        self.constants: dict[str, gs.Constant] = {}
        self.taken = {*seen.constants, *seen.inputs, *seen.producer, *seen.by_name}
        self.changes = 0

    def changed(self, node: Node) -> list[Node]:
        """The nodes in place of one."""
        if not self.data.isdisjoint(node.outputs) and node.op in CHANGES:
            made = CHANGES[node.op](self, node)
            self.changes += made != [node]
            return made
        return [node]

    def name(self, stem: str) -> str:
        """A name that nothing has yet."""
        found = unique(stem, self.taken.__contains__)
        self.taken.add(found)
        return found

    def constant(self, stem: str, values: Sequence[int]) -> str:
        """The name of a new constant."""
        name = self.name(stem)
        self.constants[name] = gs.Constant(name, np.array(values, np.int64))
        return name

    def node(self, op: str, inputs: Sequence[str], **attrs: int) -> Node:
        """A new node of one output."""
        name = self.name(f"{inputs[0]}_{op}")
        return Node(name, op, tuple(inputs), (self.name(f"{name}_out"),), attrs)

    def written(self, name: str) -> list[int] | None:
        """The numbers of a tensor that depend on no free size, None where there are others."""
        value = self.shapes.values.get(name)
        return None if value is None or value.free.any() or value.array.ndim != 1 else [int(v) for v in value.array]

    def has_one(self, name: str) -> bool:
        """Whether the first size in a list of sizes is a 1 that depends on nothing."""
        value = self.shapes.values.get(name)
        return value is not None and value.array.ndim == 1 and value.array.size > 0 and value.array[0] == 1 and not bool(value.free[0])

    def shape(self, name: str) -> Shape:
        """The sizes for one sample, () where they are unknown."""
        return self.shapes.shapes.get(name, ())

    def batch(self, data: str) -> list[Node]:
        """How many samples a tensor has, as a list of one number: the output of the last node."""
        sizes = self.node("Shape", [data])
        cut = self.node("Slice", [sizes.outputs[0], self.constant("batch_from", [0]), self.constant("batch_to", [1])])
        return [sizes, cut]

    def tail(self, name: str) -> tuple[list[Node], str]:
        """All but the first of a list of sizes."""
        numbers = self.written(name)
        if numbers is not None:
            return [], self.constant(f"{name}_sizes", numbers[1:])
        cut = self.node("Slice", [name, self.constant("sizes_from", [1]), self.constant("sizes_to", [2**31])])
        return [cut], cut.outputs[0]


def _reshape(work: _Work, node: Node) -> list[Node]:
    source, target = work.shape(node.inputs[0]), work.shape(node.outputs[0])
    if not work.has_one(node.input(1)) or node.inputs[0] not in work.data or source[:1] != (1,) or target[:1] != (1,):
        return [node]
    if not any(before == (0,) and after == (0,) for before, after in regrouped(source, target)) or node.int("allowzero", 0):
        return [node]
    numbers = work.written(node.inputs[1])
    if numbers is not None:
        return [replace(node, inputs=(node.inputs[0], work.constant(f"{node.inputs[1]}_free", [0, *numbers[1:]])))]
    cut, rest = work.tail(node.inputs[1])
    joined = work.node("Concat", [work.constant("front", [0]), rest], axis=0)
    return [*cut, joined, replace(node, inputs=(node.inputs[0], joined.outputs[0]))]


def _resize(work: _Work, node: Node) -> list[Node]:
    sizes = node.input(3)
    whole = "axes" not in node.attrs or node.ints("axes", ())[0] == 0
    if work.seen.opset < 11 or not sizes or not whole or not work.has_one(sizes) or work.shape(node.inputs[0])[:1] != (1,):
        return [node]
    batch = work.batch(node.inputs[0])
    cut, rest = work.tail(sizes)
    joined = work.node("Concat", [batch[-1].outputs[0], rest], axis=0)
    return [*batch, *cut, joined, replace(node, inputs=(*node.inputs[:3], joined.outputs[0]))]


def _concat(work: _Work, node: Node) -> list[Node]:
    rank = len(work.shape(node.outputs[0]))
    moving = [name for name in node.inputs if name in work.data]
    fixed = [name for name in node.inputs if name not in work.data and work.shape(name)[:1] == (1,)]
    if rank < 2 or not moving or not fixed or node.int("axis", 0) % rank == 0:
        return [node]
    batch = work.batch(moving[0])
    made = batch
    instead: dict[str, str] = {}
    for name in fixed:
        joined = work.node("Concat", [batch[-1].outputs[0], work.constant(f"{name}_sizes", work.shape(name)[1:])], axis=0)
        wide = work.node("Expand", [name, joined.outputs[0]])
        made, instead = [*made, joined, wide], {**instead, name: wide.outputs[0]}
    return [*made, replace(node, inputs=tuple(instead.get(name, name) for name in node.inputs))]


CHANGES = {"Reshape": _reshape, "Resize": _resize, "Concat": _concat}
