"""The search by distance: what it measures with, what it chooses, and what it says of it. No weights are trained and no labels read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from fnatool import terminal
from fnatool.nn.batch import require_batch
from fnatool.nn.reading import Reading
from fnatool.search import folder as folders
from fnatool.search.config import UNLABELLED
from fnatool.search.distance import Meter, known, reference
from fnatool.search.nearest import choose, nearest_member, scores_of, silent, table
from fnatool.search.preparing import PreparedSearch
from fnatool.search.purposes import images_of
from fnatool.search.reporting import MethodResult
from fnatool.search.results import Emitted
from fnatool.search.sampling import Member, uniform
from fnatool.search.solver import Budget, Scores, likeliest, pareto, score_of
from fnatool.supernet.members import members_of, up_to
from fnatool.training.processes import World
from fnatool.training.room import require_room
from passes.errors import UserError
from passes.space.costs import extremes

PREDICTED = 8  # costs that the report predicts a distance for


def require_choices(made: PreparedSearch) -> list[Budget]:
    """The budgets, which some member keeps. Raises UserError where there is none, or nothing is left to choose."""
    budgets = made.budgets(made.config.cost.budget)
    if not budgets:
        others = "" if made.config.task == UNLABELLED else ', or search with search.method = "gradient"'
        raise UserError(
            f"without a budget nothing is nearer to the seed than the seed itself; give one, such as --budget madds=60%{others}"
        )
    if made.choices.size < 2:
        reasons = "; ".join(f"{knob}: {why}" for knob, why in made.fixed.items())
        raise UserError(f"this space leaves nothing to search by distance, which never grows ({reasons or 'one member'})")
    likeliest(made.choices, uniform(made.choices), budgets)  # raises where no member keeps them
    return budgets


def meter_of(made: PreparedSearch, run: tuple[Path, str], world: World) -> Meter:
    """What measures distances of the members of this search. run: its folder and its key, under which they are kept."""
    graph, config = made.model.graph, made.config
    members = members_of(
        graph,
        made.analysis,
        made.choices,
        tuple(made.compared),
        strategy=config.search.strategy,
        select=config.distance.select,
        rng_seed=config.run.seed,
        device=world.device,
    )
    shapes = {tensor.name: made.analysis.shapes.shapes[tensor.name] for tensor in graph.inputs}
    seed = Reading(up_to(graph, tuple(made.compared)), shapes)
    for reading in (seed, members.reading):
        require_batch(reading, {weight.name: reading.initial(weight) for weight in reading.weights}, static=reading.static_batch)
    batch = min(config.distance.batch, images_of(made.purpose, config))
    require_room(seed, batch, world.device, key="distance.batch", learns=False)
    batches = made.purpose.batches(made.model, config, seed, world.device)
    folder, key = run
    of = reference(seed, batches, world.device, tuple(made.compared.values()))
    return Meter(members, batches, of, known(folder / folders.DISTANCES, key, made.choices), world)


def measure_changes(made: PreparedSearch, meter: Meter) -> list[list[float]]:
    """The scores of all changes of the seed by −Δ, those not known measured, with a bar."""
    changes = sum(len(block.candidates) + block.skippable for block in made.choices.blocks)
    with _progress("single changes", changes, meter.world) as done:
        return scores_of(table(meter, nearest_member(made.analysis, made.choices), done))


def choosing(made: PreparedSearch, meter: Meter, scores: Scores) -> Callable[[Sequence[Budget]], Member]:
    """What finds the nearest member within budgets, in all processes the same one, with a bar."""

    def best(budgets: Sequence[Budget]) -> Member:
        with _progress("architectures", made.config.distance.members, meter.world) as done:
            return choose(meter, scores, budgets, made.config.distance, done=done)

    return best


def alone(meter: Meter) -> Meter:
    """The same for one process that works by itself."""
    return replace(meter, world=World(0, 1, meter.world.device))


def finding(made: PreparedSearch, meter: Meter, scores: Scores, found: Emitted) -> MethodResult:
    """What the search says of the architecture found, and what it would predict at other costs."""
    choices, kind = made.choices, made.kind
    (distance,) = alone(meter).of([found.member])
    table, own = made.tables[kind], made.own_cost(kind)
    axis = Budget(kind, extremes(table, choices)[1], table)
    rows = [
        {"cost": one.cost, "share": None if not own else one.cost / own, "distance": -one.score}
        for one in pareto(choices, scores, axis, PREDICTED)
    ]
    figures = {"distance": distance, "sum": -score_of(scores, found.member)}
    return MethodResult(
        found,
        figures,
        choices,
        made.fixed,
        architecture={"distance": distance, "predicted": figures["sum"]},
        beside={
            "kind": kind,
            "images": images_of(made.purpose, made.config),
            "measured": len(meter.known.distances),
            "predicted": rows,
            "knee": knee(rows),
            "changes": {
                block.name: {
                    "candidates": [dict(row) for row in block.candidates],
                    "skippable": block.skippable,
                    "distances": [-score for score in row],
                }
                for block, row in zip(choices.blocks, scores, strict=True)
            },
        },
    )


def knee(rows: Sequence[Mapping[str, float | None]]) -> Mapping[str, float | None] | None:
    """Of a front from the cheapest to the seed the row below which distance grows faster than above it; None where there is no such bend.

    It is the one farthest below the line from one end to the other, cost and distance each from 0 to 1 (Satopää et al. 2011). Beyond a
    distance of 1 nothing is like the seed any more, however far it is.
    """
    points = np.array([[row["cost"], min(row["distance"] or 0.0, 1.0)] for row in rows], float)
    if len(points) < 3 or not (np.ptp(points, axis=0) > 0).all():
        return None
    x, y = ((points - points.min(0)) / np.ptp(points, axis=0)).T
    below = 1 - x - y
    best = int(below.argmax())
    return rows[best] if below[best] > BEND else None


BEND = 0.05  # of the range: a front that bends less is a line


def _progress(what: str, total: int, world: World) -> AbstractContextManager[Callable[[int], None]]:
    """A bar, of the first process alone."""
    return terminal.progress(what, total) if world.first else nullcontext(silent)
