"""The steps of a graph in order, and their run.

A run keeps its tensors in numbered slots. Constants lie there from the start, a tensor leaves its slot after its last
use, and one that nobody else needs is overwritten where torch can.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from fnatool.nn.fusing import fused
from fnatool.nn.layers import Norms
from fnatool.nn.site import WHOLE, Given, LoadFacts, NodeSite, Numbers, Read, Row, Step, torch_type
from fnatool.nn.sizes import arithmetic
from passes.errors import RefusedModel
from passes.graph.view import Node, View, live

Slots = list[Any]


@dataclass(frozen=True)
class Instruction:
    """A step with the slots it reads and writes, and those whose tensors nobody needs afterwards."""

    run: Callable[..., Any]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    spent: tuple[int, ...]
    node: str


@dataclass(frozen=True)
class Program:
    """The instructions for some tensors of a graph, and where a run's values go."""

    template: Slots
    inputs: tuple[int, ...]
    values: tuple[int, ...]  # weights, then constants, in the order of Reading
    given: Mapping[Given, int]
    like: int  # the slot of the tensor that Given.LIKE is
    batched: int | None  # the slot of an input whose axis 0 is the batch
    instructions: tuple[Instruction, ...]
    results: tuple[int, ...]


FAILURES = (RuntimeError, ValueError, TypeError, IndexError)


def run(
    program: Program, values: Sequence[Tensor], inputs: Sequence[Tensor], *, norms: Norms, training: bool
) -> tuple[Any, ...]:
    """The results of a program."""
    slots = program.template.copy()
    for slot, value in zip(program.values, values, strict=False):
        slots[slot] = value
    for slot, value in zip(program.inputs, inputs, strict=True):
        slots[slot] = value
    given = program.given
    slots[given[Given.LIKE]] = slots[program.like]
    slots[given[Given.BATCH]] = 1 if program.batched is None else slots[program.batched].shape[0]
    slots[given[Given.NORMS]] = norms
    slots[given[Given.TRAINING]] = training
    for step in program.instructions:
        try:
            made = step.run(*[slots[slot] for slot in step.reads])
        except FAILURES as error:
            error.add_note(f"in node '{step.node}' of the ONNX graph")
            raise
        if isinstance(made, tuple):
            for slot, value in zip(step.writes, made, strict=False):
                slots[slot] = value
        else:
            slots[step.writes[0]] = made
        for slot in step.spent:
            slots[slot] = None
    return tuple(slots[slot] for slot in program.results)


# --- from a graph to a program ------------------------------------------------------------------

FRESH = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "BatchNormalization",
        "GroupNormalization",
        "LayerNormalization",
        "Gemm",
        "MatMul",
        "Concat",
        "Add",
        "Sub",
        "Mul",
    }
)
"""Operators whose result is memory of its own that their gradient does not read: it may be overwritten."""


def compiled(
    seen: View, facts: LoadFacts, wanted: Sequence[str], constants: dict[str, Tensor], *, rows: Mapping[str, Row]
) -> Program:
    """The program for the wanted tensors. What its steps read of known tensors is added to constants.

    Raises RefusedModel for an operator without a row, and for what a row cannot do.
    """
    nodes = fused(live(seen.nodes, wanted), frozenset(wanted), facts)
    bound = _bind(nodes, seen, facts, frozenset(wanted), rows=rows)
    layout = _Layout(seen, facts, constants)
    for node, step in bound:
        layout.add(node, step)
    return layout.program(wanted)


def _bind(
    nodes: Sequence[Node], seen: View, facts: LoadFacts, wanted: frozenset[str], *, rows: Mapping[str, Row]
) -> list[tuple[Node, Step]]:
    """Each node with its step; what follows from constants alone is computed and becomes known."""
    missing = [node for node in nodes if node.op not in rows]
    if missing:
        others = sorted({node.op for node in missing[1:]} - {missing[0].op})
        more = f"; nor for {', '.join(others)}" if others else ""
        raise RefusedModel(
            f"node '{missing[0].name}' ({missing[0].op}) cannot be read by torch: fnatool has no such operator "
            f"there{more}"
        )
    producer = {output: node for node in nodes for output in node.outputs if output}
    readers: dict[str, int] = dict.fromkeys(wanted, 1)
    for node in nodes:
        for name in node.inputs:
            readers[name] = readers.get(name, 0) + 1
    bound = []
    for node in nodes:
        read = frozenset(k for k, name in enumerate(node.outputs) if name in readers)
        if all(node.outputs[k] in facts.known for k in read):
            continue
        fresh = {name for name in node.inputs if readers[name] == 1 and name in producer and producer[name].op in FRESH}
        own = frozenset(slot for slot, name in enumerate(node.inputs) if name in fresh and name not in facts.known)
        domain = node.op.rpartition("::")[0]
        site = NodeSite(node, seen.domains.get(domain, seen.opset), facts, own, read)
        step = arithmetic(site)
        if step is not None:
            facts.numbers.add(node.outputs[0])
        else:
            require_types(site)
            step = rows[node.op](site)
        if step.reads and all(_is_known(r, facts) for r in step.reads):
            _guarded(site, partial(_evaluate, node, step, facts))
            continue
        if node.outputs[0] not in facts.numbers:
            _try(site, step)
        bound.append((node, step))
    return bound


def require_types(site: NodeSite) -> None:
    """torch computes with the element types that the node reads and makes. Raises RefusedModel where it does not."""
    types = site.facts.types
    made = [types.get(name) for name in site.node.outputs if name]
    read = [] if site.node.op in ("Cast", "CastLike") else [types.get(name) for name in site.node.inputs if name]
    for kind in (*read, *made):
        if kind is not None and torch_type(kind) is None:
            raise site.refuse(f"torch computes with no element type {onnx.TensorProto.DataType.Name(kind)}")
    source = types.get(site.node.input(0))
    if (
        site.node.op in ("Cast", "CastLike")
        and source is not None
        and torch_type(source) is None
        and source not in CASTABLE
    ):
        raise site.refuse(f"torch casts from no element type {onnx.TensorProto.DataType.Name(source)}")


CASTABLE = frozenset({onnx.TensorProto.UINT16, onnx.TensorProto.UINT32, onnx.TensorProto.UINT64})
"""Types that torch has, but computes with nowhere: they are read through a Cast."""

MOST_TRIED = 1 << 22  # elements


def _try(site: NodeSite, step: Step) -> None:
    """A node between whole numbers has run once, on ones of the probe's sizes. Raises RefusedModel where torch has no
    such operator.
    """
    kinds = {torch_type(site.facts.types.get(name, 0)) for name in site.node.inputs if name}
    if kinds.isdisjoint({*WHOLE, torch.bool}):
        return
    values: list[Any] = []
    for read in step.reads:
        name = read if isinstance(read, str) else "" if isinstance(read, Given) else read.name
        known, shape = site.facts.known.get(name), site.facts.shapes.get(name)
        dtype = torch_type(site.facts.types.get(name, 0))
        if isinstance(read, str) and known is not None:
            values.append(to_tensor(known))
        elif isinstance(read, str) and shape is not None and dtype is not None and math.prod(shape) <= MOST_TRIED:
            values.append(torch.ones(shape, dtype=dtype))
        elif known is not None and not isinstance(read, (str, Given)):
            numbers = known.reshape(-1).tolist()
            values.append(numbers if isinstance(read, Numbers) else numbers[0])
        elif read is Given.LIKE or read is Given.BATCH:
            values.append(torch.empty(0) if read is Given.LIKE else site.facts.batch)
        else:
            return
    _guarded(site, lambda: step.run(*values), lacking=True)


def _guarded(site: NodeSite, run: Callable[[], Any], *, lacking: bool = False) -> None:
    """What torch cannot do at load is a RefusedModel; with lacking only what it never can: values of ones may be out of
    its range.
    """
    try:
        with torch.no_grad():
            run()
    except FAILURES as error:
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if lacking and not isinstance(error, (NotImplementedError, TypeError)):
            return
        raise site.refuse(f"torch does not compute it for its inputs ({text})") from error


def _is_known(read: Read, facts: LoadFacts) -> bool:
    return (
        read is Given.LIKE if isinstance(read, Given) else (read if isinstance(read, str) else read.name) in facts.known
    )


def _evaluate(node: Node, step: Step, facts: LoadFacts) -> None:
    """The outputs of a step that reads constants only are known."""
    values: list[Any] = []
    for read in step.reads:
        if isinstance(read, Given):
            values.append(torch.empty(0, dtype=torch_type(facts.main_type)))  # None: torch's default
        elif isinstance(read, str):
            values.append(to_tensor(facts.known[read]))
        else:
            numbers = facts.known[read.name].reshape(-1).tolist()
            values.append(numbers if isinstance(read, Numbers) else numbers[0])
    made = step.run(*values)
    for name, value in zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=False):
        if name:
            facts.known[name] = to_array(value) if isinstance(value, Tensor) else np.asarray(value)


class _Layout:
    """The code of a program, and a slot for everything it touches."""

    def __init__(self, seen: View, facts: LoadFacts, constants: dict[str, Tensor]) -> None:
        self.facts, self.constants = facts, constants
        self.template: Slots = []
        self.places: dict[Read, int] = {}
        self.code: list[Instruction] = []
        self.names = tuple(name for name in seen.inputs if name not in seen.constants)
        self.inputs = tuple(self.place(name) for name in self.names)
        self.weights = tuple(self.place(name) for name in facts.weights)
        self.given = {given: self.place(given) for given in Given}

    def place(self, read: Read, value: Any = None) -> int:
        """The slot of a value; a new one, with the value in the template, where it has none."""
        if read not in self.places:
            self.places[read] = len(self.template)
            self.template.append(value)
        return self.places[read]

    def add(self, node: Node, step: Step) -> None:
        """The step is the next instruction, after what makes its reads."""
        reads = tuple(self.read(read) for read in step.reads)
        writes = tuple(self.place(Numbers(name) if name in self.facts.numbers else name) for name in node.outputs)
        self.code.append(Instruction(step.run, reads, writes, (), node.name))

    def read(self, read: Read) -> int:
        """The slot where a step finds what it reads, in the form it wants it."""
        if read in self.places or isinstance(read, Given):
            return self.place(read)
        name = read if isinstance(read, str) else read.name
        known = self.facts.known.get(name)
        if known is not None and isinstance(read, str):
            self.constants.setdefault(name, to_tensor(known))
            return self.place(name)
        if known is not None:
            numbers = known.reshape(-1).tolist()
            return self.place(read, numbers if isinstance(read, Numbers) else numbers[0])
        run = self.as_tensor(name) if isinstance(read, str) else _only
        reads = (self.place(Numbers(name)), *((self.place(Given.LIKE),) if isinstance(read, str) else ()))
        self.code.append(Instruction(run, reads, (self.place(read),), (), name))
        return self.place(read)

    def as_tensor(self, name: str) -> Callable[[Sequence[Any], Tensor], Tensor]:
        """What makes a tensor of a list of numbers."""
        kind, shape = self.facts.types[name], self.facts.shapes[name]
        dtype, follows = torch_type(kind), kind == self.facts.main_type

        def run(numbers: Sequence[Any], like: Tensor) -> Tensor:
            return torch.tensor(numbers, dtype=like.dtype if follows else dtype, device=like.device).reshape(shape)

        return run

    def program(self, wanted: Sequence[str]) -> Program:
        """The finished program: every slot of a run is emptied after its last use."""
        results = tuple(self.read(name) for name in wanted)
        constants = tuple(self.place(name) for name in self.constants)
        last: dict[int, int] = {}
        for k, step in enumerate(self.code):
            last |= dict.fromkeys((*step.reads, *step.writes), k)
        passing = {slot for step in self.code for slot in step.writes} | set(self.inputs)
        spent: dict[int, list[int]] = {}
        for slot in sorted(passing - set(results)):
            spent.setdefault(last.get(slot, 0), []).append(slot)
        code = tuple(replace(step, spent=tuple(spent.get(k, ()))) for k, step in enumerate(self.code))
        kinds = self.facts.types
        likely = (
            *(name for name in (*self.facts.weights, *self.names) if kinds[name] == self.facts.main_type),
            *self.names,
        )
        like = self.places[likely[0]] if likely else self.place("like", torch.empty(0))
        batched = self.places[self.facts.batched[0]] if self.facts.batched else None
        return Program(
            template=self.template,
            inputs=self.inputs,
            values=(*self.weights, *constants),
            given=self.given,
            like=like,
            batched=batched,
            instructions=code,
            results=results,
        )


def _only(numbers: Sequence[Any]) -> Any:
    return numbers[0]


def to_tensor(array: np.ndarray) -> Tensor:
    """The array as a tensor, which shares its memory where it can."""
    if not array.flags.writeable or not array.flags.c_contiguous:
        array = array.copy()
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_array(tensor: Tensor) -> np.ndarray:
    """The tensor as an array of the same type."""
    values = tensor.detach().cpu().contiguous()
    if values.dtype == torch.bfloat16:
        return values.view(torch.int16).numpy().view(onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16))
    return values.numpy()
