"""What every node of a network costs, and every part: the stem, the stages, the head.

A node belongs to the stage whose block holds it; otherwise to the first stage that needs what it computes, so a layer
between two stages belongs to the later one. What only the first stage waits for is the stem, what no stage needs is the
head. The parts share out all nodes, so they sum to the whole; a network without stages is all head.

Activations are the tensors that nodes make, each in its own memory, in bytes: weights and inputs are not among them.
The peak is what is alive at once, the inputs included, while the nodes run one after another: an input from the
beginning, any other tensor from the node that makes it, until its last reader is done; an output until the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx.helper
import onnx_graphsurgeon as gs
from onnx import TensorProto

from passes.channels.identities import flow_identities
from passes.graph.macs import MACS, UNCOUNTED, bias_adds, is_known
from passes.graph.normalise import normalise
from passes.graph.shapes import infer, require_elements
from passes.graph.tensors import Shape, Shapes
from passes.graph.view import Node, View
from passes.network.blocks import find_stages
from passes.network.cost import Cost, cost, node_params
from passes.network.knobs import stage_name
from passes.network.stages import Stage
from passes.network.stages import Table as Stored

STEM, HEAD = "stem", "head"
CONVENTIONS: Mapping[str, str] = {
    "conv": "multiply-adds of convolutions and matrix products; biases, normalisation and activations count nothing",
    "paper": "the same and one addition per output element of a convolution with a bias, as in FNA",
}
BITS = {
    kind: 4 if "4" in name else 2
    for name, kind in TensorProto.DataType.items()
    if name in ("INT4", "UINT4", "FLOAT4E2M1", "INT2", "UINT2")
}


@dataclass(frozen=True)
class Row:
    """One node: its part, the shape of its first output (None: unknown), and what it costs.

    activations are the bytes it makes, alive those that exist while it runs.
    """

    name: str
    op: str
    part: str
    shape: Shape | None
    params: int
    macs: int
    activations: int
    alive: int


@dataclass(frozen=True)
class ProfilePart:
    """The costs of some nodes: parameters, multiply-adds, the bytes they make, and the most bytes alive while one of
    them runs.
    """

    name: str
    params: int
    macs: int
    activations: int
    peak: int


@dataclass(frozen=True)
class Profile:
    """The whole, its parts, its nodes in the order they run, and what is not counted.

    inputs are the sizes it holds for; sized is False where an image size is free and nobody gave one: then only
    parameters are known.
    """

    whole: ProfilePart
    stem: ProfilePart
    stages: tuple[ProfilePart, ...]
    head: ProfilePart
    rows: tuple[Row, ...]
    inputs: Mapping[str, Shape]
    sized: bool
    notes: tuple[str, ...]

    @property
    def parts(self) -> tuple[ProfilePart, ...]:
        """Stem, stages and head: every node is in one of them."""
        return (self.stem, *self.stages, self.head)


def profile(
    graph: gs.Graph, *, sizes: Mapping[str, Shape] | None = None, table: Stored | None = None, convention: str = "conv"
) -> Profile:
    """The profile of a network; the graph is not changed, a copy is brought into normal form first.

    sizes: shapes for inputs with free dimensions; table: the stages stored in the model's metadata, if any; convention:
    see CONVENTIONS. Raises RefusedModel for a graph that cannot be read, UserError for sizes that do not fit it.
    """
    normal = normalise(graph, sizes)
    seen = normal.seen
    require_elements(seen)
    shapes = infer(seen, sizes)
    identities = flow_identities(seen, shapes)
    stages = find_stages(seen, shapes, identities, table)
    found = cost(seen, shapes)
    parts = parts_of(seen, stages)
    rows = _rows(seen, shapes, found, parts=parts, convention=convention)
    by_part = {name: _sum(name, [row for row in rows if row.part == name]) for name in (STEM, *_names(stages), HEAD)}
    return Profile(
        whole=_sum("", rows),
        stem=by_part[STEM],
        stages=tuple(by_part[name] for name in _names(stages)),
        head=by_part[HEAD],
        rows=tuple(rows),
        inputs={
            name: shapes.shapes[name] for name in seen.inputs if name in shapes.shapes and name not in seen.constants
        },
        sized=not shapes.free_space,
        notes=tuple(_notes(seen, shapes, stages)),
    )


def parts_of(seen: View, stages: Sequence[Stage]) -> dict[str, str]:
    """Node → stem, stageI or head."""
    home = {name: i for i, stage in enumerate(stages) for block in stage.blocks for name in block.nodes}
    nobody = len(stages)
    needed: dict[str, int] = {}  # node → the first stage that it is in or that needs it
    for node in reversed(seen.nodes):
        readers = {reader for output in node.outputs if output for reader, _ in seen.readers.get(output, ())}
        needed[node.name] = min((needed[reader] for reader in readers), default=nobody)
        needed[node.name] = min(home.get(node.name, nobody), needed[node.name])
    parts = {}
    for node in seen.nodes:
        i = home.get(node.name)
        if i is not None:
            parts[node.name] = stage_name(i)
        else:
            i = needed[node.name]
            parts[node.name] = STEM if i == 0 < nobody else HEAD if i == nobody else stage_name(i)
    return parts


def _names(stages: Sequence[Stage]) -> list[str]:
    return [stage_name(i) for i in range(len(stages))]


def _rows(seen: View, shapes: Shapes, found: Cost, *, parts: Mapping[str, str], convention: str) -> list[Row]:
    params = node_params(seen, found)
    alive = _alive(seen, shapes)
    rows = []
    for node, live in zip(seen.nodes, alive, strict=True):
        macs = found.node_macs.get(node.name, 0) + (bias_adds(node, shapes.shapes) if convention == "paper" else 0)
        made = sum(_bytes(shapes, name) for name in node.outputs if name)
        shape = shapes.shapes.get(node.outputs[0])
        rows.append(
            Row(
                name=node.name,
                op=node.op,
                part=parts[node.name],
                shape=shape,
                params=params.get(node.name, 0),
                macs=macs,
                activations=made,
                alive=live,
            )
        )
    return rows


def _sum(name: str, rows: Sequence[Row]) -> ProfilePart:
    return ProfilePart(
        name,
        sum(row.params for row in rows),
        sum(row.macs for row in rows),
        sum(row.activations for row in rows),
        max((row.alive for row in rows), default=0),
    )


# --- activations ---


def _bytes(shapes: Shapes, name: str) -> int:
    """The bytes of a tensor; 0 where its shape or its type is unknown, or it is text."""
    kind, shape = shapes.types.get(name, 0), shapes.shapes.get(name)
    if shape is None or kind in (TensorProto.UNDEFINED, TensorProto.STRING):
        return 0
    bits = BITS.get(kind) or 8 * int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
    return (math.prod(shape) * bits + 7) // 8


def _alive(seen: View, shapes: Shapes) -> list[int]:
    """Per node the bytes of the tensors that exist while it runs."""
    end = len(seen.nodes)
    index = {node.name: i for i, node in enumerate(seen.nodes)}
    born = {name: 0 for name in seen.inputs if name not in seen.constants}
    born |= {name: i for i, node in enumerate(seen.nodes) for name in node.outputs if name}
    changes = [0] * (end + 1)
    for name, start in born.items():
        last = max((index[reader] for reader, _ in seen.readers.get(name, ())), default=start)
        size = _bytes(shapes, name)
        changes[start] += size
        changes[end if name in seen.outputs else last + 1] -= size
    alive, now = [], 0
    for change in changes[:end]:
        now += change
        alive.append(now)
    return alive


# --- what is not counted ---


def _notes(seen: View, shapes: Shapes, stages: Sequence[Stage]) -> list[str]:
    notes = []
    if not stages:
        notes.append("no stages: no addition closes a block that could be repeated; everything is head")
    foreign = [node for node in seen.nodes if node.op not in MACS and ("::" in node.op or node.op in UNCOUNTED)]
    unsized = [node for node in seen.nodes if node.op in MACS and not is_known(node, shapes.shapes)]
    used = {*seen.readers, *seen.outputs}
    unknown = [node for node in seen.nodes if any(name in used and name not in shapes.shapes for name in node.outputs)]
    for nodes, why in (
        (foreign, "multiply-adds unknown, counted as none"),
        (unsized, "sizes unknown, multiply-adds counted as none"),
        (unknown, "sizes of outputs unknown, activations counted as none"),
    ):
        if nodes:
            notes.append(f"{_some(nodes)}: {why}")
    return notes


def _some(nodes: Sequence[Node], most: int = 3) -> str:
    shown = ", ".join(f"{node.op} '{node.name}'" for node in nodes[:most])
    return shown + (f" and {len(nodes) - most} more" if len(nodes) > most else "")
