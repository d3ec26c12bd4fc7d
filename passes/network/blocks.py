"""Blocks and stages, found from dominators and channel identity alone.

A block is what depth repeats: the region from an entry tensor to an exit tensor that owns a convolution or matrix product and shows nothing
but its exit to the rest. Residual blocks keep their axes; projections (both arms weighted) and linear bottlenecks may open a stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from passes.channels.atoms import Identities
from passes.graph.learnt import dense_weights
from passes.graph.operators import ACTIVATIONS, having, of
from passes.graph.tensors import Shapes
from passes.graph.view import Node, View
from passes.network.stages import Block, Stage, Table

MERGES = having(lambda row: row.adds)
ELEMENTWISE = having(lambda row: row.elementwise)  # what an activation is made of where the exporter writes it out


def find_stages(view: View, shapes: Shapes, identities: Identities, table: Table | None = None) -> tuple[Stage, ...]:
    """The stages in the order of the graph; a stored table (see `stage_table`) that fits the graph is used as it is."""
    reader = _Reader(view, shapes, identities)
    if table is not None:
        stored = reader.stored(table)
        if stored is not None:
            return stored
    blocks = reader.merged_blocks()
    inside = {name for block in blocks for name in block.nodes}
    blocks += reader.bottlenecks(inside)
    position = {node.name: i for i, node in enumerate(view.nodes)}
    blocks.sort(key=lambda block: position[block.nodes[0]])
    return _grouped(blocks, reader)


def unrepeatable(stage: Stage, shapes: Shapes, identities: Identities) -> str:
    """Why no block of the stage can be repeated."""
    block = stage.blocks[-1]
    sizes = [shapes.shapes.get(name) for name in (block.entry, block.exit)]
    labels = [identities.labels.get(name) for name in (block.entry, block.exit)]
    if sizes[0] is None or sizes[0] != sizes[1]:
        return "no block of the stage keeps its shape, so none can be repeated"
    if any(label is None for label in labels) or not np.array_equal(labels[0].ids, labels[1].ids):  # type: ignore[union-attr]
        return "nothing ties the channels that its block makes to those it reads, so a copy would not stay as wide as what it follows"
    return "its block has no addition, and such a one only opens a stage"


def _grouped(blocks: Sequence[Block], reader: _Reader) -> tuple[Stage, ...]:
    stages: list[list[Block]] = []
    last_of: dict[str, list[Block]] = {}
    for block in blocks:
        before = last_of.get(block.entry)
        if (
            before is not None
            and block.kind == "residual"
            and before[-1].exit == block.entry
            and reader.same_channels(before[-1].exit, block.exit)
        ):
            before.append(block)
            last_of[block.exit] = before
        else:
            stages.append([block])
            last_of[block.exit] = stages[-1]
    return tuple(Stage(tuple(stage)) for stage in stages)


class _Reader:
    """Dominators, regions and walks over one graph."""

    def __init__(self, view: View, shapes: Shapes, identities: Identities) -> None:
        self.view = view
        self.shapes = shapes
        self.identities = identities
        self.index = {node.name: i for i, node in enumerate(view.nodes)}
        self.weighted = {site.node for site in identities.sites.values()}
        self.dense = {node.name for node in view.nodes if dense_weights(node, view)}
        self.idom = self._immediate_dominators()

    def _immediate_dominators(self) -> list[int]:
        """Per node the last node that every path from an input passes; −1 is the input itself (Cooper, Harvey, Kennedy 2001, for a DAG)."""
        idom: list[int] = []
        depth: list[int] = []
        for node in self.view.nodes:
            best = None
            for name in node.inputs:
                if not name or name in self.view.constants:
                    continue
                producer = self.view.producer.get(name)
                other = -1 if producer is None else self.index[producer]
                best = other if best is None else self._common(best, other, idom, depth)
            idom.append(-1 if best is None else best)
            depth.append(0 if idom[-1] < 0 else depth[idom[-1]] + 1)
        return idom

    @staticmethod
    def _common(a: int, b: int, idom: list[int], depth: list[int]) -> int:
        while a != b:
            if a < 0 or b < 0:
                return -1
            if depth[a] >= depth[b]:
                a = idom[a]
            else:
                b = idom[b]
        return a

    # --- regions ---

    def region(self, entry: str, exit_: str) -> tuple[str, ...] | None:
        """The nodes between two tensors in order; None where a path avoids the entry or something inside is seen outside."""
        names = self._between(entry, exit_)
        return None if names is None or self._seen_outside(names, exit_) else names

    def _between(self, entry: str, exit_: str) -> tuple[str, ...] | None:
        """The nodes between two tensors in order; None where a path avoids the entry."""
        found: set[int] = set()
        stack = [exit_]
        while stack:
            name = stack.pop()
            if name == entry or not name or name in self.view.constants:
                continue
            producer = self.view.producer.get(name)
            if producer is None:
                return None
            i = self.index[producer]
            if i not in found:
                found.add(i)
                stack.extend(self.view.nodes[i].inputs)
        return tuple(self.view.nodes[i].name for i in sorted(found))

    def _seen_outside(self, names: Sequence[str], exit_: str) -> tuple[str, ...]:
        """What these nodes make, beside the exit, that others read or the graph shows."""
        inside = set(names)
        outputs = [output for name in names for output in self.view.by_name[name].outputs if output and output != exit_]
        return tuple(
            output
            for output in outputs
            if output in self.view.outputs or any(reader not in inside for reader, _ in self.view.readers.get(output, ()))
        )

    def same_channels(self, a: str, b: str) -> bool:
        """Whether two tensors have one shape and carry the same channels on the same axis."""
        x, y = self.identities.labels.get(a), self.identities.labels.get(b)
        if self.shapes.shapes.get(a) != self.shapes.shapes.get(b) or (x is None) != (y is None):
            return False
        return x is None or y is None or (x.axis == y.axis and bool(np.array_equal(x.ids, y.ids)))

    # --- blocks closed by an addition ---

    def merged_blocks(self) -> list[Block]:
        """One block per additive merge that closes a region with a dense weight and no block inside."""
        blocks: list[Block] = []
        closed: set[str] = set()
        parts: set[str] = set()  # additions without a weight-free arm: partial sums, perhaps
        for i, node in enumerate(self.view.nodes):
            if node.op not in MERGES or any(name in self.view.constants for name in node.inputs) or len(node.inputs) < 2:
                continue
            entry = self._entry(i)
            block = None if entry is None else self._close(node, entry)
            if block is None:
                continue
            inside = set(block.nodes)
            inner = [other for other in blocks if inside & set(other.nodes)] if closed & inside else []
            if any(other.entry != block.entry or not (other.merge in parts or other.exit in node.inputs) for other in inner):
                continue  # a block holds no other, except the partial sums of its own arms
            if inner:
                blocks = [other for other in blocks if not any(other is one for one in inner)]
            if not self._has_free_arm(node, entry or ""):
                parts.add(node.name)
            blocks.append(block)
            closed.update(inside)
        return blocks

    def _entry(self, i: int) -> str | None:
        """The one tensor through which all data reaches node i from its immediate dominator."""
        d = self.idom[i]
        if d < 0:
            inputs = [name for name in self.view.inputs if name not in self.view.constants]
            return inputs[0] if len(inputs) == 1 else None
        outputs = [name for name in self.view.nodes[d].outputs if self.view.readers.get(name)]
        if len(outputs) > 1:
            outputs = [name for name in outputs if self._reaches(i, d, name)]
        return outputs[0] if len(outputs) == 1 else None

    def _reaches(self, i: int, d: int, tensor: str) -> bool:
        """Whether walking back from node i to its dominator d arrives at this output of d."""
        seen: set[str] = set()
        stack = list(self.view.nodes[i].inputs)
        while stack:
            name = stack.pop()
            if name == tensor:
                return True
            producer = self.view.producer.get(name)
            if producer is not None and self.index[producer] > d and producer not in seen:
                seen.add(producer)
                stack.extend(self.view.by_name[producer].inputs)
        return False

    def _close(self, merge: Node, entry: str) -> Block | None:
        exit_ = self._after(merge)
        nodes = self.region(entry, exit_)
        if nodes is None or not any(name in self.dense for name in nodes):
            return None
        return Block("residual" if self.same_channels(entry, exit_) else "projection", entry, exit_, nodes, merge.name)

    def _has_free_arm(self, merge: Node, entry: str) -> bool:
        return any(not any(name in self.weighted for name in self._arm(entry, tensor)) for tensor in merge.inputs)

    def _arm(self, entry: str, tensor: str) -> set[str]:
        found: set[str] = set()
        stack = [tensor]
        while stack:
            name = stack.pop()
            producer = self.view.producer.get(name)
            if name == entry or producer is None or producer in found:
                continue
            found.add(producer)
            stack.extend(self.view.by_name[producer].inputs)
        return found

    def _after(self, merge: Node) -> str:
        """The merge's output, or that of the activation which alone reads it, be it one operator or written out (SiLU, GELU)."""
        output = merge.outputs[0]
        readers = self.view.readers.get(output, ())
        if len(readers) == 1 and output not in self.view.outputs:
            reader = self.view.by_name[readers[0][0]]
            if reader.op in ACTIVATIONS and readers[0][1] == 0:
                return reader.outputs[0]
        gate = self._next(merge)
        if gate is not None and gate.op == "Mul" and len(readers) > 1:
            inside = self.region(output, gate.outputs[0]) or ()
            if all(self.view.by_name[name].op in ELEMENTWISE and name not in self.weighted for name in inside):
                return gate.outputs[0]
        return output

    # --- linear bottlenecks ---

    def bottlenecks(self, inside: set[str]) -> list[Block]:
        """Pointwise or depthwise convolution … affine without activation, with exactly one spatial convolution, depthwise."""
        chain = self._chain()
        taken = set(inside)
        blocks = []
        for node in self.view.nodes:
            if node.name in taken or self.index[node.name] not in chain or not (self._pointwise(node) or self._depthwise(node)):
                continue
            end = self._linear_end(node, taken)
            if end is None:
                continue
            nodes = self.region(node.inputs[0], end)
            if nodes is not None and sum(self._spatial(self.view.by_name[name]) for name in nodes) == 1:
                blocks.append(Block("bottleneck", node.inputs[0], end, nodes))
                taken.update(nodes)
        return blocks

    def _chain(self) -> set[int]:
        """Nodes that every path to some graph output passes."""
        found: set[int] = set()
        for name in self.view.outputs:
            producer = self.view.producer.get(name)
            i = -1 if producer is None else self.index[producer]
            while i >= 0 and i not in found:
                found.add(i)
                i = self.idom[i]
        return found

    def _linear_end(self, start: Node, taken: set[str]) -> str | None:
        """The output of the first affine after `start` that no activation follows, passing at most one spatial (depthwise) convolution."""
        node, spatial = start, int(self._spatial(start))
        while True:
            step = self._next(node)
            affine = node.op in ("Conv", "BatchNormalization") or self._scales_channels(node)
            if affine and (step is None or not self._keeps_going(node, step)):
                return node.outputs[0] if spatial == 1 else None
            if step is None or step.name in taken:
                return None
            node = step
            if self._spatial(node):
                spatial += 1
                if spatial > 1 or not self._depthwise(node):
                    return None

    def _keeps_going(self, affine: Node, step: Node) -> bool:
        """After an affine: a BatchNormalization of it, one written as scales and offsets, an activation, or a gate."""
        if self._scales_channels(step) and affine.op != "BatchNormalization":
            return True
        return (step.op == "BatchNormalization" and affine.op == "Conv") or step.op in ACTIVATIONS or step.op == "Mul"

    def _scales_channels(self, node: Node) -> bool:
        """Whether the node adds to each channel a constant of its own, or multiplies by one."""
        if not of(node.op).affine or node.input(0) in self.view.constants:
            return False
        constant = self.view.constants.get(node.input(1))
        return constant is not None and sum(size > 1 for size in constant.shape) == 1

    def _next(self, node: Node) -> Node | None:
        """The next node that all data from this one passes: its only reader, or the gate that its readers close."""
        output = node.outputs[0]
        readers = [self.view.by_name[name] for name in dict.fromkeys(name for name, _ in self.view.readers.get(output, ()))]
        if output in self.view.outputs or not readers:
            return None
        last = max(readers, key=lambda reader: self.index[reader.name])
        if self.idom[self.index[last.name]] != self.index[node.name]:
            return None
        if len(readers) == 1:
            return last
        return last if last.op == "Mul" and self.region(output, last.outputs[0]) is not None else None

    def _kernel(self, node: Node) -> tuple[int, ...]:
        shape = self.shapes.shapes.get(node.input(1)) if node.op == "Conv" else None
        return shape[2:] if shape is not None else ()

    def _spatial(self, node: Node) -> bool:
        return max(self._kernel(node), default=1) > 1

    def _pointwise(self, node: Node) -> bool:
        return node.op == "Conv" and node.int("group", 1) == 1 and max(self._kernel(node), default=0) == 1

    def _depthwise(self, node: Node) -> bool:
        shape = self.shapes.shapes.get(node.input(0)) if node.op == "Conv" else None
        return shape is not None and node.int("group", 1) == shape[1] > 1

    # --- a stored table ---

    def stored(self, table: Table) -> tuple[Stage, ...] | None:
        """The stages a table names, None where it does not fit this graph."""
        stages = []
        taken: set[str] = set()
        for rows in table:
            blocks: list[Block] = []
            for row in rows:
                nodes = self._between(row["entry"], row["exit"]) if row["exit"] in self.view.producer else None
                if not nodes or taken & set(nodes) or not self._fits(row, nodes, blocks):
                    return None
                taken.update(nodes)
                tapped = self._seen_outside(nodes, row["exit"])
                if set(tapped) & set(self.view.outputs):
                    return None
                kind = "residual" if row["kind"] == "projection" and self.same_channels(row["entry"], row["exit"]) else row["kind"]
                blocks.append(Block(kind, row["entry"], row["exit"], nodes, row["merge"], tapped))
            stages.append(Stage(tuple(blocks)))
        return tuple(stages)

    def _fits(self, row: Mapping[str, str], nodes: Sequence[str], before: Sequence[Block]) -> bool:
        """Whether a row can be the next block of its stage: behind the last one, keeping its channels, closed by the merge it names."""
        merged = row["merge"] in nodes if row["kind"] in ("residual", "projection") else not row["merge"]
        follows = not before or (row["kind"] == "residual" and before[-1].exit == row["entry"])
        keeps = row["kind"] != "residual" or self.same_channels(row["entry"], row["exit"])
        return merged and follows and keeps and row["kind"] in ("residual", "projection", "bottleneck")


def _summands(merge: Node, block: Block, view: View) -> list[str]:
    """What an addition adds up, partial sums within the block taken apart."""
    found = []
    for name in merge.inputs:
        maker = view.by_name.get(view.producer.get(name, ""))
        partial = maker is not None and maker.name in block.nodes and maker.op in MERGES and len(view.readers[name]) == 1
        if maker is not None and partial and not any(other in view.constants for other in maker.inputs):
            found += _summands(maker, block, view)
        else:
            found.append(name)
    return found


def _identity(arm: str, block: Block, view: View, identities: Identities) -> tuple[str, tuple[tuple[str, float], ...]] | None:
    """The arm, and what its tensors hold to make it the block's entry: a normalisation of it as it is before training, or a scale of 1.

    y = γ(x−μ)/√(σ²+ε)+β: γ=1, β=μ=0 and σ²=1−ε give y=x.
    """
    node = view.by_name.get(view.producer.get(arm, ""))
    if node is None or node.name not in block.nodes or block.entry not in node.inputs or len(view.readers[arm]) != 1:
        return None
    if node.op == "BatchNormalization" and all(name in view.constants for name in node.inputs[1:5]):
        values = (1.0, 0.0, 0.0, 1.0 - float(node.attrs.get("epsilon", 1e-5)))
        return arm, tuple(zip(node.inputs[1:5], values, strict=True))
    others = [name for name in node.inputs if name != block.entry]
    per_channel = [name for name in others if name in view.constants and any(key[0] == name for key in identities.sites)]
    if node.op == "Mul" and len(others) == 1 and per_channel:
        return arm, ((per_channel[0], 1.0),)
    return None
