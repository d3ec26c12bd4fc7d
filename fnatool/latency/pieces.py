"""What is to be timed: each candidate of each block by itself, and what no block holds; equal ones are one network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from passes.errors import UserError
from passes.graph.cutting import Bare, bare, components, cut
from passes.graph.shapes import infer
from passes.graph.tensors import Shape
from passes.graph.view import view
from passes.network.analysis import Analysis
from passes.space.space import Choices
from passes.target.apply import apply
from passes.target.plan import Plan
from passes.target.planner import plan

Position = tuple[int, int] | None


@dataclass(frozen=True)
class Pieces:
    """Networks by signature; the signature of each candidate of each block; those of the parts outside the blocks."""

    networks: Mapping[str, Bare]
    blocks: tuple[tuple[str, ...], ...]
    rest: tuple[str, ...]


def columns(found: Choices) -> int:
    """How many members `cut_up` builds."""
    return max(len(block.candidates) for block in found.blocks)


def cut_up(
    graph: gs.Graph, analysis: Analysis, found: Choices, done: Callable[[int], None] = lambda count: None
) -> Pieces:
    """All pieces of the Choices on the analysed graph, from as many members as a block has candidates at most; `done`
    is called for each.

    Raises RefusedModel where a part cannot run alone, UserError where a head reads a width that is chosen.
    """
    _require_apart(analysis, found)
    networks: dict[str, Bare] = {}
    rows: list[list[str]] = [[] for _ in found.blocks]
    rest: list[str] = []

    def known(network: Bare) -> str:
        signature = network.signature
        networks.setdefault(signature, network)
        return signature

    for column in range(columns(found)):
        made, target = member_graph(
            graph, analysis, found, [min(column, len(block.candidates) - 1) for block in found.blocks]
        )
        seen = view(target)
        shapes = infer(seen, input_sizes(made, target) or None)
        places = _places(made)
        for k, block in enumerate(found.blocks):
            if column < len(block.candidates):
                rows[k].append(known(bare(cut(target, seen, shapes, places[block.stage, block.block]))))
        if column == 0:
            parts = [cut(target, seen, shapes, part) for part in components(seen, places.get(None, frozenset()))]
            rest = [known(bare(part)) for part in parts if part.outputs]  # what nobody reads is not run
        done(1)
    return Pieces(networks, tuple(map(tuple, rows)), tuple(rest))


def _require_apart(analysis: Analysis, found: Choices) -> None:
    """What no block holds is timed once: a block's choices do not change it. Raises UserError where a head reads a
    width that is chosen.
    """
    for block in found.blocks:
        tapped = analysis.stages[block.stage].blocks[block.source].tapped
        widths = [
            tail
            for tail in block.candidates[0]
            if tail.startswith("hidden") and len({row[tail] for row in block.candidates}) > 1
        ]
        if tapped and widths:
            raise UserError(
                f"'{block.name}.{widths[0]}' is read by the head too, whose latency would depend on it; give it "
                "one value in the space"
            )


def member_graph(graph: gs.Graph, analysis: Analysis, found: Choices, member: Sequence[int]) -> tuple[Plan, gs.Graph]:
    """The plan and the graph of a member."""
    made = plan(analysis, found.spec(member))
    return made, apply(graph, made)


def whole(graph: gs.Graph, analysis: Analysis, found: Choices, member: Sequence[int]) -> Bare:
    """A member as one network."""
    made, target = member_graph(graph, analysis, found, member)
    return bare(target, input_sizes(made, target))


def input_sizes(made: Plan, target: gs.Graph) -> dict[str, Shape]:
    """The sizes of the target's inputs that it is timed at."""
    return {tensor.name: made.sizes[tensor.name] for tensor in target.inputs if tensor.name in made.sizes}


def _places(made: Plan) -> dict[Position, frozenset[str]]:
    found: dict[Position, set[str]] = {}
    for placed in made.nodes:
        place = None if placed.place is None else (placed.place.stage, placed.place.block)
        found.setdefault(place, set()).add(placed.node.name)
    return {place: frozenset(names) for place, names in found.items()}
