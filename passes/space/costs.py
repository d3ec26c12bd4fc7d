"""What the members of a space cost: the kinds of cost, and tables that add up, block by block."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from passes.errors import UserError
from passes.network.analysis import Analysis
from passes.network.cost import Cost
from passes.space.space import SKIP, Choices
from passes.target.plan import Plan, planned_cost
from passes.target.planner import plan

Place = tuple[int, int] | None  # stage and block; None: outside blocks


@dataclass(frozen=True)
class CostKind:
    """A kind of cost. A table of it holds whole numbers; everything that is said or read of them is here.

    units: what may stand behind a number in a budget, and how much of a table's unit that is. shown: such a number is
    told in this unit ('' for a mere count, which is told in thousands, millions …). whole(analysis): of a network, None
    where a free image size leaves it open. placed(plan, cost): the same dealt to the blocks of a member; the sizes of
    its tensors are in the plan. Both functions are None for a kind that is measured: its table comes from a file.
    """

    name: str
    text: str
    example: str  # of a budget
    units: Mapping[str, float]
    shown: str = ""
    whole: Callable[[Analysis], int | None] | None = None
    placed: Callable[[Plan, Cost], Mapping[Place, int]] | None = None


# --- the kinds ---


def _macs_placed(made: Plan, cost: Cost) -> Mapping[Place, int]:
    found: dict[Place, int] = {}
    for placed in made.nodes:
        place = None if placed.place is None else (placed.place.stage, placed.place.block)
        found[place] = found.get(place, 0) + cost.node_macs.get(placed.node.name, 0)
    return found


def _params_placed(made: Plan, cost: Cost) -> Mapping[Place, int]:
    """A shared tensor belongs to its first reader."""
    found: dict[Place, int] = {}
    counted: set[str] = set()
    for placed in made.nodes:
        place = None if placed.place is None else (placed.place.stage, placed.place.block)
        for name in placed.node.inputs:
            if name in cost.tensor_params and name not in counted:
                counted.add(name)
                found[place] = found.get(place, 0) + cost.tensor_params[name]
    return found


COUNTS: Mapping[str, float] = {"G": 1e9, "B": 1e9, "M": 1e6, "k": 1e3, "K": 1e3, "": 1.0}

KINDS: tuple[CostKind, ...] = (
    CostKind(
        "madds",
        "multiply-adds of one image, with the head",
        "200M",
        COUNTS,
        whole=lambda analysis: analysis.cost.macs,
        placed=_macs_placed,
    ),
    CostKind(
        "params",
        "weights, biases and scales, a shared one once",
        "1.5M",
        COUNTS,
        whole=lambda analysis: analysis.cost.params,
        placed=_params_placed,
    ),
    CostKind(
        "latency",
        "time of one image in ONNX Runtime, by a table that `fnatool latency-table` has measured on the device",
        "3ms",
        {"ms": 1e6, "us": 1e3, "µs": 1e3, "s": 1e9},  # a table holds nanoseconds
        shown="ms",
    ),
)
"""The first one is what a search pays for unless it is told otherwise."""

BY_NAME: Mapping[str, CostKind] = {kind.name: kind for kind in KINDS}


def whole_costs(analysis: Analysis) -> dict[str, int]:
    """What a network costs by each kind that is counted; without those that a free image size leaves open."""
    found = {kind.name: kind.whole(analysis) for kind in KINDS if kind.whole is not None}
    return {name: value for name, value in found.items() if value is not None}


# --- tables -------------------------------------------------------------------------------------


Rows = dict[str, list[list[int]]]  # kind → block → candidate


@dataclass(frozen=True)
class Table:
    """What every candidate of every block costs, and what all members share; a member costs the sum."""

    base: int
    blocks: tuple[tuple[int, ...], ...]

    def of(self, member: Sequence[int]) -> int:
        """The cost of a member."""
        return self.base + sum(row[k] for row, k in zip(self.blocks, member, strict=True) if k != SKIP)


def cost_tables(analysis: Analysis, found: Choices) -> dict[str, Table]:
    """Tables of the kinds that are counted, from the plans of as many members as a block has candidates at most.

    Raises UserError where a free image size leaves the multiply-adds open.
    """
    if analysis.cost.macs is None:
        raise UserError(
            "its multiply-adds depend on the image size, which is free; give one with --input NAME=1x3x224x224"
        )
    most = max((len(block.candidates) for block in found.blocks), default=0)
    rows: Rows = {kind.name: [[] for _ in found.blocks] for kind in KINDS if kind.placed is not None}
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
            _charge(analysis, found, k, rows=rows, base=base)
    return {kind: Table(base[kind], tuple(map(tuple, rows[kind]))) for kind in rows}


def _outside(analysis: Analysis, found: Choices, member: Sequence[int]) -> dict[str, int]:
    """What all that is in no block costs in a member."""
    made = plan(analysis, found.spec(member))
    return {kind: sums.get(None, 0) for kind, sums in _by_place(made, planned_cost(made, analysis)).items()}


def _charge(analysis: Analysis, found: Choices, block: int, *, rows: Rows, base: dict[str, int]) -> None:
    """A head that reads inside a block costs by what the block chooses: beyond its least, `rows` charge that to the
    candidates.

    Rows and base change.
    """
    largest = found.largest()
    members = [
        tuple(k if b == block else other for b, other in enumerate(largest))
        for k in range(len(found.blocks[block].candidates))
    ]
    outside = [_outside(analysis, found, member) for member in members]
    for kind in rows:
        least = min(cost[kind] for cost in outside)
        base[kind] += least - outside[largest[block]][kind]
        rows[kind][block] = [row + cost[kind] - least for row, cost in zip(rows[kind][block], outside, strict=True)]


def _by_place(made: Plan, cost: Cost) -> dict[str, Mapping[Place, int]]:
    """What each block of the target costs, by kind; None: what is outside blocks."""
    return {kind.name: kind.placed(made, cost) for kind in KINDS if kind.placed is not None}


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
