"""What of a network's constants is learnt: what training changes, what counts as a parameter, what a budget is about.

The rule. Learnt is a floating-point constant (of a quantised layer an integer one)

1. that a layer reads where its weights, biases and scales belong (`Operator.weights`); or
2. of several elements, that the data meets on its way (`MEETS`: added, multiplied, joined, or computed into something
   that is), if
   - the data has passed a layer before: what prepares an input (a pixel's mean and scale) is as fixed as the input, and
     what is computed with sizes is no data; and
   - a layer with weights follows on a way to an output (a position embedding, a LayerScale, a class token), or it has
     one entry for every channel of the layer before (a bias or a scale of the last layer, written as an operator of its
     own).

Why: what a network adds or multiplies behind its last layer turns numbers into answers. Anchors, grids of positions,
strides and variances of boxes have the shapes of learnt tables; trained, they would no longer say where the boxes are.
Before a layer nothing is an answer yet.

Not learnt, wherever they stand: what a formula gives, that is, numbers in equal steps along every axis (a grid, the
bins of a distribution over distances), and tables of two values (a mask: open or closed). The ones and zeros that fill
the scale and the bias of a normalisation with which exporters write another one are not, nor are running statistics,
which are kept, not trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx

from passes.graph.arrays import distinct
from passes.graph.operators import SIZES, WEIGHTED, having, of
from passes.graph.view import Node, View

Use = tuple[str, int]  # node and input slot

MEETS = having(lambda row: row.joins or row.form in ("unary", "layout", "moving", "reduction", "softmax")) | {
    "LpNormalization",
    "Pow",
}
"""Operators that take a tensor of several elements on its way into the network, at their first input or as operand."""

APART = having(
    lambda row: (row.keeps_channels and row.form != "softmax") or row.affine or row.form == "resampling"
) | {"Pad", "Pow", "Transpose"}  # fmt: skip
"""Operators that leave the channels of their first input apart and in their order."""

FLOATS = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
)
STEPS = 8  # entries in equal steps that are no accident


def learnt_uses(seen: View) -> frozenset[Use]:
    """The inputs of nodes that read a constant which is learnt there; see the rule above."""
    rule = _Rule(seen)
    return frozenset(
        (node.name, slot)
        for node in seen.nodes
        for slot, name in enumerate(node.inputs)
        if name in seen.constants and rule.holds(node, slot)
    )


def dense_weights(node: Node, seen: View) -> tuple[str, ...]:
    """The constants with which a node makes channels from others, () for one that is no layer, or one of integers."""
    return tuple(
        name for slot in of(node.op).dense if node.op in WEIGHTED and (name := node.input(slot)) in seen.constants
    )


def learnt(seen: View) -> dict[str, tuple[Use, ...]]:
    """The constants that are learnt, each with the inputs that read it as such, in the order of the graph."""
    uses = learnt_uses(seen)
    found: dict[str, list[Use]] = {}
    for node in seen.nodes:
        for slot, name in enumerate(node.inputs):
            if (node.name, slot) in uses:
                found.setdefault(name, []).append((node.name, slot))
    return {name: tuple(read) for name, read in found.items()}


class _Rule:
    """The rule for one graph: what is raw, and after which nodes a layer follows."""

    def __init__(self, seen: View) -> None:
        self.seen = seen
        self.made_of_constants: set[str] = set(seen.constants)
        self.raw = {name for name in seen.inputs if name not in seen.constants}  # no layer has been passed
        self.sizes: set[str] = set()  # numbers made of how large tensors are
        for node in seen.nodes:
            read = [name for name in node.inputs if name]
            if self.is_size(node):
                self.sizes.update(node.outputs)
                self.made_of_constants.update(node.outputs)
                continue
            data = self.data(node)
            if read and not data:
                self.made_of_constants.update(node.outputs)
            elif data and self.raw.issuperset(data) and not of(node.op).weights:
                self.raw.update(node.outputs)
        self.followed: dict[str, bool] = {}
        for node in reversed(seen.nodes):
            readers = [seen.by_name[reader] for name in node.outputs for reader, _ in seen.readers.get(name, ())]
            self.followed[node.name] = any(self.followed[reader.name] or self.is_layer(reader) for reader in readers)

    def data(self, node: Node) -> list[str]:
        """The inputs of a node that follow from the network's own."""
        return [name for name in node.inputs if name and name not in self.made_of_constants]

    def is_size(self, node: Node) -> bool:
        """Whether the node makes a number of sizes: it reads them, moves them, or computes with them and constants."""
        if node.op in SIZES or node.input(0) in self.sizes:
            return node.op not in ("ConstantOfShape", "Expand")
        return of(node.op).joins and not self.sizes.isdisjoint(node.inputs) and not self.data(node)

    def is_layer(self, node: Node) -> bool:
        """Whether the node mixes channels by a weight that is none of a few numbers."""
        weights = [node.input(slot) for slot in of(node.op).dense if node.input(slot) in self.made_of_constants]
        return any(name not in self.seen.constants or not self.is_given(name) for name in weights)

    def is_given(self, name: str) -> bool:
        """Whether a matrix is a formula's: in equal steps, or of a few numbers as what turns centres and sizes into
        corners.
        """
        array = np.asarray(self.seen.values(name))
        return is_stepped(array) or (1 < few(array, 4) <= 4 and array.size >= 9)

    def holds(self, node: Node, slot: int) -> bool:
        """Whether a constant is learnt where this node reads it."""
        seen, name, row = self.seen, node.inputs[slot], of(node.op)
        if row.integers and slot in row.weights:
            return True
        if seen.dtype(name) not in FLOATS:
            return False
        shape = tuple(seen.constants[name].shape)
        if slot in row.weights:
            return not self.is_filler(node, slot) and not (_axes(shape) == 1 and is_stepped(seen.values(name)))
        if math.prod(shape) <= 1 or node.op not in MEETS or (slot > 0 and not row.joins):
            return False
        data = self.data(node)
        if (data and self.raw.issuperset(data)) or node.outputs[0] in self.sizes:
            return False
        if not self.followed[node.name] and not self.has_one_a_channel(node, shape):
            return False
        array = np.asarray(seen.values(name))
        return not is_stepped(array) and not (_axes(shape) > 1 and few(array, 2) <= 2)

    def is_filler(self, node: Node, slot: int) -> bool:
        """The ones and zeros where exporters write another normalisation (of groups, of a weight) by one that wants a
        scale and a bias.
        """
        if node.op not in ("BatchNormalization", "InstanceNormalization"):
            return False
        of_weight = node.op == "BatchNormalization" and not set(node.inputs[3:5]) <= self.seen.constants.keys()
        source = self.seen.by_name.get(self.seen.producer.get(node.input(0), ""))
        of_groups = node.op == "InstanceNormalization" and source is not None and source.op == "Reshape"
        return (of_weight or of_groups) and bool(
            (np.asarray(self.seen.values(node.inputs[slot])) == (1 if slot == 1 else 0)).all()
        )

    def has_one_a_channel(self, node: Node, shape: Sequence[int]) -> bool:
        """Whether a vector of this shape has an entry for every channel of the layer that the node's data comes
        from.
        """
        if _axes(shape) != 1:
            return False
        while True:
            data = self.data(node)
            name = data[0] if data else ""
            if name not in self.seen.producer or node.op not in APART:
                return False
            node = self.seen.by_name[self.seen.producer[name]]
            if self.is_layer(node):
                return self.channels(node) in (0, max(shape))

    def channels(self, node: Node) -> int:
        """The channels that a layer makes; 0 where they are not known: its weight is computed."""
        slot = next(slot for slot in of(node.op).dense if node.input(slot) in self.made_of_constants)
        weight = self.seen.constants.get(node.input(slot))
        if weight is None:
            return 0
        shape = tuple(weight.shape)
        if node.op == "ConvTranspose":
            return int(shape[1]) * node.int("group", 1)
        if node.op == "Gemm":
            return int(shape[0 if (slot == 1) == bool(node.int("transB" if slot == 1 else "transA", 0)) else 1])
        if node.op in ("MatMul", "MatMulInteger", "QLinearMatMul"):
            return int(shape[-1] if slot else shape[max(-2, -len(shape))])
        return int(shape[0]) if node.op != "Einsum" else 0


def _axes(shape: Sequence[int]) -> int:
    """How many axes have more than one entry."""
    return sum(size > 1 for size in shape)


def is_stepped(array: np.ndarray) -> bool:
    """Whether the numbers lie in equal steps along every axis, over STEPS entries or more on one: a formula gives
    them.
    """
    if array.dtype.kind not in "fiu" or max(array.shape, default=0) < STEPS or _leaves_a_line(array):
        return False
    values = array.astype(np.float64)
    moved = False
    for axis, size in enumerate(array.shape):
        steps = np.diff(values, axis=axis)
        if size > 1 and not np.isfinite(steps).all():
            return False
        largest = float(np.abs(steps).max(initial=0.0))
        moved |= size >= STEPS and largest > 0
        if size > 2 and float(np.abs(np.diff(steps, axis=axis)).max()) > 1e-3 * largest:
            return False
    return moved


def _leaves_a_line(array: np.ndarray) -> bool:
    """Whether the first entries of the longest axis already lie too far from equal steps, whatever the others are: no
    weight is copied.
    """
    if not array.size:
        return False
    axis = array.shape.index(max(array.shape))
    line = array[tuple(slice(STEPS) if k == axis else 0 for k in range(array.ndim))].tolist()
    spread = float(array.max()) - float(array.min())  # no step is larger
    return math.isfinite(spread) and any(
        abs((c - b) - (b - a)) > 1e-3 * spread for a, b, c in zip(line, line[1:], line[2:], strict=False)
    )


def few(array: np.ndarray, most: int) -> int:
    """How many different values there are; beyond `most` a number larger than it."""
    start = distinct(array.ravel()[:1024]).size
    return int(start) if start > most else int(distinct(array).size)
