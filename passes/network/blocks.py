"""Blocks and stages, found from dominators and channel identity alone.

A block is what depth repeats: the region from an entry tensor to an exit tensor that owns a convolution or matrix
product and shows nothing but its exit to the rest. Residual blocks keep their axes, with a shortcut or without one;
projections (both arms weighted) and linear bottlenecks that do not may open a stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from passes.channels.atoms import Identities
from passes.graph.operators import ACTIVATIONS, MERGES, having
from passes.graph.tensors import Shapes
from passes.graph.view import Node, View
from passes.network.bottlenecks import bottlenecks
from passes.network.regions import Regions, between, next_node, region, regions_of, same_channels, seen_outside
from passes.network.stages import Block, Stage, Table

KINDS = ("residual", "projection", "bottleneck")
ELEMENTWISE = having(lambda row: row.elementwise)  # what an activation is made of where the exporter writes it out


def find_stages(view: View, shapes: Shapes, identities: Identities, table: Table | None = None) -> tuple[Stage, ...]:
    """The stages in the order of the graph; a stored table (see `stage_table`) that fits the graph is used as it is."""
    regions = regions_of(view, shapes, identities)
    if table is not None:
        stored = stored_stages(regions, table)
        if stored is not None:
            return stored
    blocks = merged_blocks(regions)
    inside = {name for block in blocks for name in block.nodes}
    blocks += bottlenecks(regions, inside)
    position = {node.name: i for i, node in enumerate(view.nodes)}
    blocks.sort(key=lambda block: position[block.nodes[0]])
    return _grouped(blocks, regions)


def unrepeatable(stage: Stage, shapes: Shapes, identities: Identities) -> str:
    """Why no block of the stage can be repeated."""
    block = stage.blocks[-1]
    sizes = [shapes.shapes.get(name) for name in (block.entry, block.exit)]
    labels = [identities.labels.get(name) for name in (block.entry, block.exit)]
    if sizes[0] is None or sizes[0] != sizes[1]:
        return "no block of the stage keeps its shape, so none can be repeated"
    read, made = (None if label is None else label.ids for label in labels)
    if read is not None and made is not None and read.shape == made.shape and ((read == made) & (made >= 0)).any():
        return (
            "some of the channels that its block reads are not those it makes but fixed ones, so no copy could "
            "follow it"
        )
    return (
        "nothing ties the channels that its block makes to those it reads, so a copy would not stay as wide as "
        "what it follows"
    )


def _grouped(blocks: Sequence[Block], regions: Regions) -> tuple[Stage, ...]:
    stages: list[list[Block]] = []
    last_of: dict[str, list[Block]] = {}
    for block in blocks:
        before = last_of.get(block.entry)
        if (
            before is not None
            and block.kind == "residual"
            and before[-1].exit == block.entry
            and same_channels(regions, before[-1].exit, block.exit)
        ):
            before.append(block)
            last_of[block.exit] = before
        else:
            stages.append([block])
            last_of[block.exit] = stages[-1]
    return tuple(Stage(tuple(stage)) for stage in stages)


def merged_blocks(regions: Regions) -> list[Block]:
    """One block per additive merge that closes a region with a dense weight and no block inside."""
    blocks: list[Block] = []
    closed: set[str] = set()
    parts: set[str] = set()  # additions without a weight-free arm: partial sums, perhaps
    for i, node in enumerate(regions.view.nodes):
        if node.op not in MERGES or any(name in regions.view.constants for name in node.inputs) or len(node.inputs) < 2:
            continue
        entry = _entry(regions, i)
        block = None if entry is None else _close(regions, node, entry)
        if block is None:
            continue
        inside = set(block.nodes)
        inner = [other for other in blocks if inside & set(other.nodes)] if closed & inside else []
        if any(
            other.entry != block.entry or not (other.merge in parts or other.exit in node.inputs) for other in inner
        ):
            continue  # a block holds no other, except the partial sums of its own arms
        if inner:
            blocks = [other for other in blocks if not any(other is one for one in inner)]
        if not _has_free_arm(regions, node, entry or ""):
            parts.add(node.name)
        blocks.append(block)
        closed.update(inside)
    return blocks


def _entry(regions: Regions, i: int) -> str | None:
    """The one tensor through which all data reaches node i from its immediate dominator."""
    d = regions.idom[i]
    if d < 0:
        inputs = [name for name in regions.view.inputs if name not in regions.view.constants]
        return inputs[0] if len(inputs) == 1 else None
    outputs = [name for name in regions.view.nodes[d].outputs if regions.view.readers.get(name)]
    if len(outputs) > 1:
        outputs = [name for name in outputs if _reaches(regions, i, d, name)]
    return outputs[0] if len(outputs) == 1 else None


def _reaches(regions: Regions, i: int, d: int, tensor: str) -> bool:
    """Whether walking back from node i to its dominator d arrives at this output of d."""
    seen: set[str] = set()
    stack = list(regions.view.nodes[i].inputs)
    while stack:
        name = stack.pop()
        if name == tensor:
            return True
        producer = regions.view.producer.get(name)
        if producer is not None and regions.index[producer] > d and producer not in seen:
            seen.add(producer)
            stack.extend(regions.view.by_name[producer].inputs)
    return False


def _close(regions: Regions, merge: Node, entry: str) -> Block | None:
    exit_ = _after(regions, merge)
    nodes = region(regions, entry, exit_)
    if nodes is None or not any(name in regions.dense for name in nodes):
        return None
    return Block("residual" if same_channels(regions, entry, exit_) else "projection", entry, exit_, nodes, merge.name)


def _has_free_arm(regions: Regions, merge: Node, entry: str) -> bool:
    return any(not any(name in regions.weighted for name in _arm(regions, entry, tensor)) for tensor in merge.inputs)


def _arm(regions: Regions, entry: str, tensor: str) -> set[str]:
    found: set[str] = set()
    stack = [tensor]
    while stack:
        name = stack.pop()
        producer = regions.view.producer.get(name)
        if name == entry or producer is None or producer in found:
            continue
        found.add(producer)
        stack.extend(regions.view.by_name[producer].inputs)
    return found


def _after(regions: Regions, merge: Node) -> str:
    """The merge's output, or that of the activation which alone reads it, be it one operator or written out (SiLU,
    GELU).
    """
    output = merge.outputs[0]
    readers = regions.view.readers.get(output, ())
    if len(readers) == 1 and output not in regions.view.outputs:
        reader = regions.view.by_name[readers[0][0]]
        if reader.op in ACTIVATIONS and readers[0][1] == 0:
            return reader.outputs[0]
    gate = next_node(regions, merge)
    if gate is not None and gate.op == "Mul" and len(readers) > 1:
        inside = region(regions, output, gate.outputs[0]) or ()
        if all(regions.view.by_name[name].op in ELEMENTWISE and name not in regions.weighted for name in inside):
            return gate.outputs[0]
    return output


def stored_stages(regions: Regions, table: Table) -> tuple[Stage, ...] | None:
    """The stages a table names, None where it does not fit this graph."""
    stages = []
    taken: set[str] = set()
    for rows in table:
        blocks: list[Block] = []
        for row in rows:
            nodes = between(regions, row["entry"], row["exit"]) if row["exit"] in regions.view.producer else None
            if not nodes or taken & set(nodes) or not _fits(regions, row, nodes, blocks):
                return None
            taken.update(nodes)
            tapped = seen_outside(regions, nodes, row["exit"])
            if set(tapped) & set(regions.view.outputs):
                return None
            kind = (
                "residual"
                if row["kind"] in KINDS and same_channels(regions, row["entry"], row["exit"])
                else row["kind"]
            )
            blocks.append(
                Block(kind=kind, entry=row["entry"], exit=row["exit"], nodes=nodes, merge=row["merge"], tapped=tapped)
            )
        stages.append(Stage(tuple(blocks)))
    return tuple(stages)


def _fits(regions: Regions, row: Mapping[str, str], nodes: Sequence[str], before: Sequence[Block]) -> bool:
    """Whether a row can be the next block of its stage: behind the last one, keeping its channels, closed by the merge
    it names.
    """
    merged = row["merge"] in nodes if row["kind"] == "projection" or row["merge"] else True
    follows = not before or (row["kind"] == "residual" and before[-1].exit == row["entry"])
    keeps = row["kind"] != "residual" or same_channels(regions, row["entry"], row["exit"])
    return merged and follows and keeps and row["kind"] in KINDS and not (row["kind"] == "bottleneck" and row["merge"])
