"""Writes nodes and constants one after another; nothing is read from or written to a graph before `built`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs

from passes.errors import RefusedModel
from passes.graph.view import Node, unique

OLDEST_OPSET = 13  # since when axes of ReduceSum and Unsqueeze are inputs
AXES_ARE_INPUTS = 18  # of ReduceMax


class Steps:
    """Operators as far as they are written; every method adds to them and returns the name of what the new node
    computes.

    `taken` are names that others have. `real` is the type that places in an image are computed in: float64 is what
    evaluation takes, and float32 where a runtime has no other.
    """

    def __init__(self, opset: int, taken: Iterable[str], *, real: npt.DTypeLike = np.float64) -> None:
        if opset < OLDEST_OPSET:
            raise RefusedModel(
                f"this graph has opset {opset}; pre- and post-processing are written for {OLDEST_OPSET} and newer"
            )
        self.opset = opset
        self.real = np.dtype(real)
        self.nodes: list[Node] = []
        self.constants: dict[str, gs.Constant] = {}
        self._taken = set(taken)

    def own(self, name: str) -> str:
        """The name, or one like it that nothing has."""
        found = unique(name, self._taken.__contains__)
        self._taken.add(found)
        return found

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """An initializer."""
        name = self.own("deploy.const")
        self.constants[name] = gs.Constant(name, np.asarray(values, dtype))
        return name

    def ints(self, *values: int) -> str:
        """A list of whole numbers."""
        return self.constant(values, np.int64)

    def whole(self, value: int) -> str:
        """One whole number, without axes."""
        return self.constant(value, np.int64)

    def number(self, values: npt.ArrayLike) -> str:
        """Numbers of the type of places."""
        return self.constant(values, self.real)

    def node(self, op: str, *inputs: str, output: str = "", **attributes: object) -> str:
        """Any operator with one output; `output` is its name where that matters."""
        return self.several(op, 1, *inputs, outputs=(output,) if output else (), **attributes)[0]

    def several(
        self, op: str, count: int, *inputs: str, outputs: tuple[str, ...] = (), **attributes: object
    ) -> tuple[str, ...]:
        """Any operator with so many outputs."""
        name = self.own(f"deploy.{op}")
        made = outputs or tuple(self.own(f"{name}.out") for _ in range(count))
        self.nodes.append(Node(name, op, inputs, made, attributes))
        return made

    # --- in short ---

    def cast(self, x: str, dtype: npt.DTypeLike, output: str = "") -> str:
        """The same values in another type."""
        return self.node("Cast", x, to=int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))), output=output)

    def as_real(self, x: str) -> str:
        """In the type of places."""
        return self.cast(x, self.real)

    def as_whole(self, x: str) -> str:
        """As whole numbers, cut towards zero."""
        return self.cast(x, np.int64)

    def add(self, x: str, y: str) -> str:
        """x + y."""
        return self.node("Add", x, y)

    def sub(self, x: str, y: str) -> str:
        """x − y."""
        return self.node("Sub", x, y)

    def mul(self, x: str, y: str, output: str = "") -> str:
        """x · y."""
        return self.node("Mul", x, y, output=output)

    def div(self, x: str, y: str) -> str:
        """x / y; of whole numbers that are not negative the whole part."""
        return self.node("Div", x, y)

    def least(self, *values: str) -> str:
        """The least of them."""
        return self.node("Min", *values)

    def most(self, *values: str) -> str:
        """The largest of them."""
        return self.node("Max", *values)

    def range(self, end: str) -> str:
        """0, 1, …, end − 1, whole numbers."""
        return self.node("Range", self.whole(0), end, self.whole(1))

    def with_axes(self, x: str, *axes: int) -> str:
        """With axes of extent 1 more."""
        return self.node("Unsqueeze", x, self.ints(*axes))

    def sum(self, x: str, axis: int, *, keep: bool = False) -> str:
        """Along an axis."""
        return self.node("ReduceSum", x, self.ints(axis), keepdims=int(keep))

    def largest(self, x: str, axis: int) -> str:
        """The largest along an axis, which stays, with extent 1."""
        if self.opset >= AXES_ARE_INPUTS:
            return self.node("ReduceMax", x, self.ints(axis), keepdims=1)
        return self.node("ReduceMax", x, axes=[axis], keepdims=1)

    def extent(self, x: str, axis: int) -> str:
        """How long an axis is, without axes."""
        return self.node("Gather", self.node("Shape", x), self.whole(axis), axis=0)

    def joined(self, *values: str, axis: int = 0) -> str:
        """One behind the other."""
        return self.node("Concat", *values, axis=axis)

    def listed(self, *values: str) -> str:
        """Numbers without axes as a list."""
        return self.joined(*(self.with_axes(value, 0) for value in values))

    def transposed(self, x: str, *order: int) -> str:
        """With its axes in another order."""
        return self.node("Transpose", x, perm=list(order))
