"""Depth: which blocks the target has, as copies and omissions of the seed's, wired into one chain per stage."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from passes.errors import UserError
from passes.graph.view import Node, unique
from passes.network.analysis import Analysis
from passes.network.stages import Block, stage_table


@dataclass(frozen=True)
class BlockPlace:
    """A block of the target: where it stands, the seed block it comes from, and whether that one is used already (a
    copy).
    """

    stage: int
    block: int
    source: int
    copy: bool


@dataclass(frozen=True)
class PlacedNode:
    """A node of the target: its seed node, its block if any, and the new names of the constants it reads (copies have
    their own).
    """

    node: Node
    source: str
    place: BlockPlace | None


@dataclass(frozen=True)
class NodeLayout:
    """The target's nodes; the target's stage table; why depth changes the function."""

    nodes: tuple[PlacedNode, ...]
    table: list[list[dict[str, str]]]
    drifts: tuple[str, ...]


def lay_out(analysis: Analysis, sources: Mapping[int, Sequence[int]]) -> NodeLayout:
    """The nodes of the target network before any tensor is resized: of each stage these seed blocks, in this order.

    (FNA++: layer i takes the parameters of seed layer min(i, l).)
    """
    work = _Layout(analysis)
    for i, blocks in sources.items():
        work.place_stage(i, blocks)
    return work.finish()


@dataclass
class _Instance:
    place: BlockPlace
    block: Block
    names: Mapping[str, str]  # node → node, for copies
    tensors: Mapping[str, str]  # tensor → tensor, for copies
    entry: str  # the target tensor it reads; the seed's until exits are known
    exit: str


class _Layout:
    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self.view = analysis.view
        self.node_names = set(self.view.by_name)
        self.tensor_names = set(self.view.producer) | set(self.view.constants) | set(self.view.inputs)
        self.stages: list[list[_Instance]] = []
        self.exits: dict[str, str] = {}
        self.drifts: list[str] = []

    def place_stage(self, i: int, sources: Sequence[int]) -> None:
        """The stage's blocks in a chain: the first use of a seed block is that block, later ones are copies."""
        blocks = self.analysis.stages[i].blocks
        used: set[int] = set()
        instances: list[_Instance] = []
        for j, source in enumerate(sources):
            place = BlockPlace(i, j, source, source in used)
            used.add(source)
            entry = instances[-1].exit if instances else blocks[0].entry
            instances.append(self._instance(place, blocks[source], entry))
        for s, block in enumerate(blocks):
            if block.tapped and s not in used:
                raise UserError(
                    f"stage{i} would lose the seed's block {s}, whose '{block.tapped[0]}' a head reads; "
                    f"keep it by 'stage{i}.depth' and 'stage{i}.blockJ.from', or attach the head afterwards"
                )
        self.stages.append(instances)
        latest = {instance.place.source: instance for instance in instances}
        chosen = instances[0]
        # who read a seed block reads its last instance, or that of the block before it
        for s, block in enumerate(blocks):
            chosen = instances[-1] if s == len(blocks) - 1 else latest.get(s, chosen)
            if chosen.exit != block.exit:
                self.exits[block.exit] = chosen.exit
        firsts = [instance.place.source for instance in instances if not instance.place.copy]
        missing = len(blocks) - len(firsts)
        if missing:
            self.drifts.append(f"stage{i} drops {missing} of {len(blocks)} blocks")
        elif firsts != sorted(firsts):
            self.drifts.append(f"stage{i} takes its blocks in another order")

    def _instance(self, place: BlockPlace, block: Block, entry: str) -> _Instance:
        if not place.copy:
            return _Instance(place=place, block=block, names={}, tensors={}, entry=entry, exit=block.exit)
        names = {name: _copy_name(name, self.node_names) for name in block.nodes}
        tensors: dict[str, str] = {}
        for name in block.nodes:
            node = self.view.by_name[name]
            for output in node.outputs:
                if output:
                    tensors[output] = _copy_name(output, self.tensor_names)
            for tensor in node.inputs:
                if tensor in self.view.constants and tensor not in tensors and not self._shared_scalar(tensor):
                    tensors[tensor] = _copy_name(tensor, self.tensor_names)
        return _Instance(place=place, block=block, names=names, tensors=tensors, entry=entry, exit=tensors[block.exit])

    def _shared_scalar(self, tensor: str) -> bool:
        """A number such as a clip's bound, which copies may go on sharing; an integer may count channels, which are
        each block's own.
        """
        size = math.prod(self.analysis.shapes.shapes[tensor])
        dtype = self.view.constants[tensor].dtype
        integer = not isinstance(dtype, int) and np.dtype(dtype).kind in "iu"
        return size <= 1 and not integer and tensor not in self.analysis.cost.tensor_params

    def finish(self) -> NodeLayout:
        """All nodes of the target, and the stage table under the target's names."""
        placed: list[PlacedNode] = []
        copies = self._copies()

        def emit(one: PlacedNode) -> None:
            placed.append(one)
            for copy in copies.get(one.node.name, ()):
                emit(copy)

        instances = [instance for stage in self.stages for instance in stage]
        originals = {
            name: instance for instance in instances if not instance.place.copy for name in instance.block.nodes
        }
        in_blocks = {name for stage in self.analysis.stages for block in stage.blocks for name in block.nodes}
        for node in self.view.nodes:
            if node.name in originals:
                emit(self._of_instance(node, originals[node.name]))
            elif node.name not in in_blocks:
                emit(PlacedNode(replace(node, inputs=self._read(node.inputs)), node.name, None))
        table = self._table()
        swaps = self._output_names()
        if swaps:
            placed = [replace(p, node=_renamed(p.node, swaps)) for p in placed]
            table = [[{key: swaps.get(value, value) for key, value in row.items()} for row in rows] for rows in table]
        return NodeLayout(tuple(placed), table, tuple(self.drifts))

    def _copies(self) -> dict[str, list[PlacedNode]]:
        """Target node → the copied nodes that follow it: a copy stands behind the block before it, in the order of the
        seed's block.
        """
        found: dict[str, list[PlacedNode]] = {}
        for stage in self.stages:
            for before, instance in pairwise(stage):
                if instance.place.copy:
                    last = before.names.get(before.block.nodes[-1], before.block.nodes[-1])
                    found[last] = [
                        self._of_instance(self.view.by_name[name], instance) for name in instance.block.nodes
                    ]
        return found

    def _read(self, inputs: Sequence[str]) -> tuple[str, ...]:
        return tuple(self.exits.get(name, name) for name in inputs)

    def _of_instance(self, node: Node, instance: _Instance) -> PlacedNode:
        entry = self.exits.get(instance.entry, instance.entry) if instance.place.block == 0 else instance.entry
        inputs = tuple(
            entry if name == instance.block.entry else instance.tensors.get(name, name) for name in node.inputs
        )
        outputs = tuple(instance.tensors.get(name, name) for name in node.outputs)
        new = Node(instance.names.get(node.name, node.name), node.op, inputs, outputs, node.attrs)
        return PlacedNode(new, node.name, instance.place)

    def _table(self) -> list[list[dict[str, str]]]:
        seed = stage_table(self.analysis.stages)
        table = []
        for i, stage in enumerate(self.stages):
            rows = []
            for instance in stage:
                row = dict(seed[i][instance.place.source])
                entry = self.exits.get(instance.entry, instance.entry) if instance.place.block == 0 else instance.entry
                row |= {"entry": entry, "exit": instance.exit, "merge": instance.names.get(row["merge"], row["merge"])}
                rows.append(row)
            table.append(rows)
        return table

    def _output_names(self) -> dict[str, str]:
        """Renamings under which a graph output that moved to a new last block keeps its name."""
        swaps: dict[str, str] = {}
        for name in self.view.outputs:
            if name in self.exits:
                swaps[self.exits[name]] = name
                swaps[name] = unique(f"{name}_inner", self.tensor_names.__contains__)
        return swaps


def _copy_name(name: str, taken: set[str]) -> str:
    """name_copy, name_copy_2, …: the first that is free, from now on taken; a copy of a copy is named after the
    first.
    """
    new = unique(re.sub(r"_copy(_\d+)?$", "", name) + "_copy", taken.__contains__)
    taken.add(new)
    return new


def _renamed(node: Node, names: Mapping[str, str]) -> Node:
    return replace(
        node, inputs=tuple(names.get(n, n) for n in node.inputs), outputs=tuple(names.get(n, n) for n in node.outputs)
    )
