"""What each choice makes of each part of the largest network: its programs and its slices of the shared weights.

Both come from the plan of a remap from the largest network to a member, the same as that of any remap: so candidates
are remaps by construction. A block has a variant per candidate; a stretch has one, and more only where a head reads
inside a block that may choose.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import torch
from torch import Tensor

from fnatool.nn.program import Program, compiled
from fnatool.nn.reading import Reading, facts_of
from fnatool.nn.table import TORCH
from fnatool.supernet.segments import Segment, cut
from fnatool.supernet.slices import Slice, slicing
from passes.graph.shapes import infer
from passes.graph.tensors import Shape
from passes.graph.view import Node, linked
from passes.network.analysis import Analysis
from passes.space.space import Choices
from passes.target.plan import Plan
from passes.target.planner import plan
from passes.target.spec import Spec
from passes.target.take import Take, taken

Key = tuple[int, ...]
FLOATING = frozenset({1, 10, 11, 16})  # ONNX's element types of single, half, double and brain precision


@dataclass(frozen=True)
class Variant:
    """One segment as a choice has it: its program, the weights it reads with their slices, its constants, and the
    shapes it makes.
    """

    program: Program
    weights: tuple[tuple[str, Slice | None], ...]
    constants: tuple[Tensor, ...]
    shapes: Mapping[str, Shape]
    # constants, put there once
    placed: dict[torch.device, tuple[Tensor, ...]] = field(default_factory=dict, repr=False, compare=False)

    def place(self, device: torch.device) -> None:
        """The constants lie on the device."""
        if device not in self.placed:
            self.placed[device] = tuple(constant.to(device) for constant in self.constants)


class Variants:
    """All segments of the largest network under all choices, each made when it is first asked for."""

    def __init__(self, analysis: Analysis, reading: Reading, choices: Choices, select: str = "first") -> None:
        """analysis and reading: of the largest network; choices: what its blocks may be; select: which channels
        stay.
        """
        self.analysis, self.reading, self.choices, self.select = analysis, reading, choices, select
        self.largest = choices.largest()
        blocks = [analysis.stages[block.stage].blocks[block.block] for block in choices.blocks]
        numbers = reading.facts.numbers
        data = {name for name, kind in reading.facts.types.items() if kind in FLOATING and name not in numbers}
        self.segments = cut(reading.view, blocks, data)
        self.sources = {weight.name: weight.source for weight in reading.sources}
        self.maker = {name: segment for segment in self.segments for name in segment.outputs}
        self._plans: dict[Key, Plan] = {}
        self._made: dict[tuple[int, Key], Variant] = {}

    def __deepcopy__(self, memo: object) -> Variants:
        return self  # what it holds follows from the graph alone

    def key(self, segment: Segment, member: Sequence[int]) -> Key:
        """What of a member decides the variant of a segment: a block's own candidate, or those of the blocks a stretch
        reads inside of.

        Of such blocks, candidates that differ in their kernels only are one.
        """
        if segment.block is not None:
            return (member[segment.block],)
        return tuple(self.alike(k, member[k]) for k in segment.varying)

    def alike(self, block: int, candidate: int) -> int:
        """The candidate of the same widths and groups with the largest kernels."""
        rows = self.choices.blocks[block].candidates
        others = [{tail: value for tail, value in row.items() if not tail.startswith("kernel")} for row in rows]
        same = [k for k, row in enumerate(others) if row == others[candidate]]
        return max(same, key=lambda k: tuple(rows[k].values()))

    def of(self, segment: Segment, member: Sequence[int]) -> Variant:
        """The segment as this member has it; all blocks are there, whichever the member skips."""
        key = self.key(segment, member)
        place = (segment.number, key)
        if place not in self._made:
            self._made[place] = self._make(segment, self.whole(segment, key))
        return self._made[place]

    def whole(self, segment: Segment, key: Key) -> Key:
        """A member with all blocks that has this variant of the segment; one for all blocks that have a candidate of
        that number.
        """
        if segment.block is not None:
            return tuple(min(key[0], len(block.candidates) - 1) for block in self.choices.blocks)
        chosen = dict(zip(segment.varying, key, strict=True))
        return tuple(chosen.get(k, candidate) for k, candidate in enumerate(self.largest))

    def plan(self, member: Key) -> Plan:
        """The plan from the largest network to a member with all blocks."""
        if member not in self._plans:
            knobs = {
                f"{block.name}.{tail}": value
                for block, k in zip(self.choices.blocks, member, strict=True)
                for tail, value in block.candidates[k].items()
            }
            self._plans[member] = plan(self.analysis, Spec(dict(knobs)), select=self.select)
        return self._plans[member]

    def takes(self, segment: Segment, member: Key) -> dict[str, Take]:
        """What a member with all blocks takes of the weights that the segment reads; those it takes whole are left
        out.
        """
        found = {take.target: take for take in self.plan(member).takes if not take.unchanged}
        read = {name for node in segment.nodes for name in self.reading.view.by_name[node].inputs}
        return {name: found[source] for name in read if (source := self.sources.get(name, name)) in found}

    def _make(self, segment: Segment, member: Key) -> Variant:
        made = self.plan(member)
        takes = self.takes(segment, member)
        nodes = self._nodes(segment, made)
        read = {name for node in nodes for name in node.inputs if name in self.reading.view.constants}
        constants = {name: self._constant(name, made.numbers, takes) for name in sorted(read)}
        sizes = {name: self._shape(name, member) for name in segment.inputs}
        seen = linked(
            nodes,
            constants,
            dataclasses.replace(self.reading.view, inputs=self._inputs(sizes), outputs=segment.outputs),
        )
        shapes = infer(seen, sizes)
        weights = tuple(weight for weight in self.reading.weights if weight.name in read)
        facts = dataclasses.replace(facts_of(seen, shapes, weights), main_type=self.reading.facts.main_type)
        found: dict[str, Tensor] = {}
        program = compiled(seen, facts, segment.outputs, found, rows=TORCH)
        slices = tuple(
            (weight.name, slicing(takes[weight.name]) if weight.name in takes else None) for weight in weights
        )
        return Variant(program, slices, tuple(found.values()), shapes.shapes)

    def _nodes(self, segment: Segment, made: Plan) -> list[Node]:
        """The segment's nodes with the sizes and pads that the plan writes into them."""
        attrs: dict[str, Mapping[str, Any]] = {placed.node.name: placed.node.attrs for placed in made.nodes}
        nodes = [self.reading.view.by_name[name] for name in segment.nodes]
        edited = {
            placed.source
            for placed in made.nodes
            if placed.node.attrs != self.analysis.view.by_name[placed.source].attrs
        }
        return [dataclasses.replace(node, attrs=attrs[node.name]) if node.name in edited else node for node in nodes]

    def _constant(self, name: str, numbers: Mapping[str, np.ndarray], takes: Mapping[str, Take]) -> gs.Constant:
        """A constant as the variant has it; of weights only the shape counts."""
        if self.sources.get(name, name) in numbers:
            return gs.Constant(name, numbers[self.sources.get(name, name)])
        values = self.reading.view.values(name)
        if name in takes:
            values = taken(takes[name], values, "fna", 0)
        return gs.Constant(name, values)

    def _shape(self, name: str, member: Key) -> Shape:
        maker = self.maker.get(name)
        return self.reading.shapes.shapes[name] if maker is None else self.of(maker, member).shapes[name]

    def _inputs(self, sizes: Mapping[str, Shape]) -> dict[str, tuple[tuple[int | str | None, ...] | None, int]]:
        """What a segment reads, its batch free."""
        batch = self.reading.facts.batch
        free = {
            name: bool(len(shape) > 1 and shape[0] == batch and self.reading.facts.batched)
            for name, shape in sizes.items()
        }
        types = self.reading.facts.types
        return {name: ((None, *shape[1:]) if free[name] else shape, types[name]) for name, shape in sizes.items()}


def tensors(variant: Variant, weights: Mapping[str, Tensor], device: torch.device) -> list[Tensor]:
    """The values a program needs, of weights that have the variant's widths."""
    variant.place(device)
    return [*(weights[name] for name, _ in variant.weights), *variant.placed[device]]
