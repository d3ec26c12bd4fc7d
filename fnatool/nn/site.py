"""What a row of the table `TORCH` sees of its node when a graph is loaded, and what it gives back: one step, ready to
run.

Everything that can be decided at load is decided there: attributes, versions, constants, paddings. A step is a function
of run-time values only, in the order of its `reads`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import onnx
import torch

from passes.errors import RefusedModel
from passes.graph.tensors import Shape
from passes.graph.view import Node

Array = np.ndarray


class Given(Enum):
    """Values every run has beside the graph's own."""

    # a tensor of the run: what is made from nothing takes its device, and its type where that is `Facts.main_type`
    LIKE = "like"
    BATCH = "batch"  # how many samples the run has
    NORMS = "norms"  # see Norms
    TRAINING = "training"  # whether dropout is active


@dataclass(frozen=True)
class Numbers:
    """A small tensor read as a flat list of Python numbers: sizes, axes, scales."""

    name: str


@dataclass(frozen=True)
class Number:
    """A tensor of one element read as a Python number."""

    name: str


Read = str | Numbers | Number | Given


@dataclass(frozen=True)
class Step:
    """One operator, ready to run: the value of each read goes in, the output (or a tuple, one per output) comes out."""

    run: Callable[..., Any]
    reads: tuple[Read, ...]


@dataclass(frozen=True)
class LoadFacts:
    """What is known of a graph when it is loaded."""

    shapes: Mapping[str, Shape]  # at the sizes it was probed with
    types: Mapping[str, int]  # ONNX's element types
    known: dict[str, Array]  # tensors whose values do not depend on a run
    numbers: set[str]  # tensors that are lists of Python numbers in a run
    inputs: tuple[str, ...]  # what a run is given
    batched: tuple[str, ...]  # those whose axis 0 is the batch
    batch: int  # how many samples the probe has
    # ONNX's element type of the weights, which follows the module where that is cast; UNDEFINED without any
    main_type: int
    weights: tuple[str, ...]  # parameters and statistics
    data: Container[str]  # tensors that follow from the inputs of the graph
    samples: Container[str]  # those that follow from the values of a batch, and not from how large it is alone


@dataclass(frozen=True)
class NodeSite:
    """A node, what is known of it, and which of its inputs may be overwritten."""

    node: Node
    opset: int
    facts: LoadFacts
    own: frozenset[int] = frozenset()
    read_outputs: frozenset[int] = frozenset({0})

    def has(self, slot: int) -> bool:
        """Whether there is an input at slot."""
        return bool(self.node.input(slot))

    def known(self, slot: int) -> Array | None:
        """The values of an input that do not depend on a run, or None."""
        return self.facts.known.get(self.node.input(slot))

    def shape(self, slot: int) -> Shape | None:
        """The probed shape of an input, None where it is unknown or absent."""
        return self.facts.shapes.get(self.node.input(slot))

    def rank(self, slot: int) -> int:
        """The number of axes of an input. Raises RefusedModel where it is unknown."""
        shape = self.shape(slot)
        if shape is None:
            raise self.refuse(f"the rank of its input '{self.node.input(slot)}' is unknown")
        return len(shape)

    def axis(self, default: int, slot: int = 0) -> int:
        """The attribute `axis`, counted from the front."""
        return self.node.int("axis", default) % max(self.rank(slot), 1)

    def is_whole(self, slot: int) -> bool:
        """Whether an input holds integers."""
        return torch_type(self.facts.types.get(self.node.input(slot), onnx.TensorProto.FLOAT)) in WHOLE

    def real(self, name: str, default: float) -> float:
        """The number attribute, or the default."""
        return float(self.node.attrs.get(name, default))

    def reals(self, name: str, default: Sequence[float]) -> tuple[float, ...]:
        """The list of numbers attribute, or the default."""
        return tuple(float(v) for v in self.node.attrs.get(name, default))

    def text(self, name: str, default: str) -> str:
        """The text attribute, or the default."""
        value = self.node.attrs.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def number(self, slot: int, default: float) -> float:
        """The one value of an input known at load, the default where it is absent. Raises RefusedModel where it is
        computed.
        """
        if not self.has(slot):
            return default
        return float(self.require(slot).reshape(-1)[0])

    def require(self, slot: int) -> Array:
        """The values of an input. Raises RefusedModel where they depend on the run."""
        values = self.known(slot)
        if values is None:
            raise self.refuse(
                f"its input '{self.node.input(slot)}' is {self._from(slot)}; only a constant can be read there"
            )
        return values

    def integers(self, slot: int, attribute: str) -> tuple[int, ...] | None:
        """Integers from the input at slot or the attribute, None where neither is given. Raises RefusedModel where they
        are computed.
        """
        if self.has(slot):
            return tuple(int(v) for v in self.require(slot).reshape(-1))
        return self.node.ints(attribute, ()) if attribute in self.node.attrs else None

    def numbers(self, slot: int) -> Numbers:
        """The input at slot as a list of numbers, at load or in the run. Raises RefusedModel where it is computed from
        data.
        """
        name = self.node.input(slot)
        if name not in self.facts.known and name not in self.facts.numbers:
            how = (
                "is an input of the graph"
                if name in self.facts.inputs
                else "follows from the values of the graph's inputs"
            )
            raise self.refuse(f"its input '{name}' {how}; only constants and sizes can be read there")
        return Numbers(name)

    def _from(self, slot: int) -> str:
        return "an input of the graph" if self.node.input(slot) in self.facts.inputs else "computed"

    def operands(self) -> tuple[Read, ...]:
        """The inputs for an element-wise operator: single constants as Python numbers, where another operand has the
        rank of the result.
        """
        names = [name for name in self.node.inputs if name]
        single = [self._is_single(name) for name in names]
        ranks = {name: len(self.facts.shapes.get(name, ())) for name in names}
        full = [name for name, one in zip(names, single, strict=True) if not one]
        if not full or max(ranks.values()) > max(ranks[name] for name in full):
            return tuple(names)
        return tuple(Number(name) if one else name for name, one in zip(names, single, strict=True))

    def _is_single(self, name: str) -> bool:
        if name in self.facts.known:
            return self.facts.known[name].size == 1
        return name in self.facts.numbers and self.facts.shapes.get(name, (2,)) in ((), (1,))

    def refuse(self, why: str) -> RefusedModel:
        """The error that says why this node cannot be read."""
        return RefusedModel(f"node '{self.node.name}' ({self.node.op}) cannot be read by torch: {why}")


Row = Callable[[NodeSite], Step]

TYPES: Mapping[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}
WHOLE = frozenset({torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8})


def torch_type(element_type: int) -> torch.dtype | None:
    """torch's name for ONNX's element type, None where torch computes with no such type."""
    return TYPES.get(element_type)


def on(site: NodeSite, run: Callable[..., Any], *slots: int) -> Step:
    """A step that reads these inputs as tensors; absent ones are left out."""
    return Step(run, tuple(site.node.inputs[slot] for slot in slots if site.has(slot)))


def first(run: Callable[[torch.Tensor], Any]) -> Row:
    """The row of an operator that is a function of its first input, without attributes."""
    return lambda site: on(site, run, 0)
