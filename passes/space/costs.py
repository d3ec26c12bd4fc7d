"""What the members of a space cost: tables that add up, block by block."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from passes.errors import UserError
from passes.network.analysis import Analysis
from passes.network.cost import Cost
from passes.space.space import SKIP, Choices
from passes.target.plan import Plan, planned_cost
from passes.target.planner import plan

KINDS = ("madds", "params")


# --- costs ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """What every candidate of every block costs, and what all members share; a member costs the sum."""

    base: int
    blocks: tuple[tuple[int, ...], ...]

    def of(self, member: Sequence[int]) -> int:
        """The cost of a member."""
        return self.base + sum(row[k] for row, k in zip(self.blocks, member, strict=True) if k != SKIP)


def cost_tables(analysis: Analysis, found: Choices) -> dict[str, Table]:
    """Tables of `madds` and `params`, from the plans of as many members as a block has candidates at most.

    Raises UserError where a free image size leaves the multiply-adds open.
    """
    if analysis.cost.macs is None:
        raise UserError("its multiply-adds depend on the image size, which is free; give one with --input NAME=1x3x224x224")
    most = max(len(block.candidates) for block in found.blocks)
    rows: dict[str, list[list[int]]] = {kind: [[] for _ in found.blocks] for kind in KINDS}
    places = {(block.stage, block.block): k for k, block in enumerate(found.blocks)}
    for column in range(most):
        member = [min(column, len(block.candidates) - 1) for block in found.blocks]
        made = plan(analysis, found.spec(member))
        for kind, sums in _by_place(made, planned_cost(made, analysis)).items():
            for place, k in places.items():
                if column < len(found.blocks[k].candidates):
                    rows[kind][k].append(sums.get(place, 0))
    base = _outside(analysis, found, found.largest())
    for k, block in enumerate(found.blocks):
        if analysis.stages[block.stage].blocks[block.source].tapped and len(block.candidates) > 1:
            _charge(analysis, found, k, (rows, base))
    return {kind: Table(base[kind], tuple(map(tuple, rows[kind]))) for kind in rows}


def _outside(analysis: Analysis, found: Choices, member: Sequence[int]) -> dict[str, int]:
    """What all that is in no block costs in a member."""
    made = plan(analysis, found.spec(member))
    return {kind: sums.get(None, 0) for kind, sums in _by_place(made, planned_cost(made, analysis)).items()}


def _charge(analysis: Analysis, found: Choices, block: int, costs: tuple[dict[str, list[list[int]]], dict[str, int]]) -> None:
    """A head that reads inside a block costs by what the block chooses: beyond its least that is charged to the candidates.

    costs: rows and base, which change.
    """
    rows, base = costs
    largest = found.largest()
    members = [tuple(k if b == block else other for b, other in enumerate(largest)) for k in range(len(found.blocks[block].candidates))]
    outside = [_outside(analysis, found, member) for member in members]
    for kind in KINDS:
        least = min(cost[kind] for cost in outside)
        base[kind] += least - outside[largest[block]][kind]
        rows[kind][block] = [row + cost[kind] - least for row, cost in zip(rows[kind][block], outside, strict=True)]


def _by_place(made: Plan, cost: Cost) -> dict[str, dict[tuple[int, int] | None, int]]:
    """madds and params of each block of the target; None: outside blocks. A shared tensor belongs to its first reader."""
    macs: dict[tuple[int, int] | None, int] = {}
    params: dict[tuple[int, int] | None, int] = {}
    counted: set[str] = set()
    for placed in made.nodes:
        place = None if placed.place is None else (placed.place.stage, placed.place.block)
        macs[place] = macs.get(place, 0) + cost.node_macs.get(placed.node.name, 0)
        for name in placed.node.inputs:
            if name in cost.tensor_params and name not in counted:
                counted.add(name)
                params[place] = params.get(place, 0) + cost.tensor_params[name]
    return {"madds": macs, "params": params}


def extremes(table: Table, found: Choices) -> tuple[int, int]:
    """The costs of the cheapest and the dearest member."""
    low = high = table.base
    for i, group in itertools.groupby(range(len(found.blocks)), key=lambda k: found.blocks[k].stage):
        ks = list(group)
        high += sum(max(table.blocks[k]) for k in ks)
        cheapest = {k: min(table.blocks[k]) for k in ks}
        must = [k for k in ks if not found.blocks[k].skippable]
        may = sorted(cheapest[k] for k in ks if found.blocks[k].skippable)
        low += sum(cheapest[k] for k in must) + sum(may[: max(found.least[i] - len(must), 0)])
    return low, high
