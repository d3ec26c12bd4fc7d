"""The search by distance: what it measures with, what it chooses, and what it says of it. No weights are trained and no
labels read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fnatool import terminal
from fnatool.nn.batch import require_batch
from fnatool.nn.reading import Reading
from fnatool.search import folder as folders
from fnatool.search.config import UNLABELLED
from fnatool.search.distance import Known, Meter, changes, known, reference
from fnatool.search.nearest import Predicted, choose, nearest_member, nearest_of, predictions, scores_of, silent, table
from fnatool.search.preparing import PreparedSearch
from fnatool.search.purposes import images_of
from fnatool.search.reporting import MethodResult
from fnatool.search.results import Emitted
from fnatool.search.sampling import Member, uniform
from fnatool.search.showing import rows as words_of
from fnatool.search.solver import Budget, Scores, likeliest
from fnatool.search.trunks import Pick, Trunk, require_cheap
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
            "without a budget nothing is nearer to the seed than the seed itself; give one, such as --budget "
            f"madds=60%{others}"
        )
    if len(made.trunks) < 2 and made.choices.size < 2:
        reasons = "; ".join(f"{knob}: {why}" for knob, why in made.fixed.items())
        raise UserError(
            f"this space leaves nothing to search by distance, which never grows ({reasons or 'one member'})"
        )
    require_cheap(made.trunks, budgets)
    if len(budgets) > 1 and not any(_keeps_all(trunk, budgets) for trunk in made.trunks):
        raise UserError("no member of this space keeps all these budgets at once; allow one of them more")
    return budgets


def _keeps_all(trunk: Trunk, budgets: Sequence[Budget]) -> bool:
    with suppress(UserError):
        likeliest(trunk.choices, uniform(trunk.choices), trunk.within(budgets))
        return True
    return False


@dataclass(frozen=True)
class Meters:
    """What is known of distances, and what measures more: `at` a trunk's number. A meter is made when it is first asked
    for.
    """

    known: Known
    world: World
    at: Callable[[int], Meter]


def meters_of(made: PreparedSearch, run: tuple[Path, str], world: World) -> Meters:
    """What measures distances of the members of this search. run: its folder and its key, under which they are kept."""
    graph, config = made.model.graph, made.config
    shapes = {tensor.name: made.analysis.shapes.shapes[tensor.name] for tensor in graph.inputs}
    seed = Reading(up_to(graph, tuple(made.compared)), shapes)
    _require_batch(seed)
    batch = min(config.distance.batch, images_of(made.purpose, config))
    require_room(seed, batch, world.device, key="distance.batch", learns=False)
    batches = made.purpose.batches(made.model, config, seed, world.device)
    of = reference(seed, batches, world.device, tuple(made.compared.values()))
    folder, key = run
    found = known(folder / folders.DISTANCES, key, made.whole)
    trunks = {trunk.number: trunk for trunk in made.trunks}

    @functools.cache
    def at(number: int) -> Meter:
        members = members_of(
            graph,
            made.analysis,
            trunks[number].choices,
            tuple(made.compared),
            strategy=config.search.strategy,
            select=config.distance.select,
            rng_seed=config.run.seed,
            device=world.device,
        )
        _require_batch(members.reading)
        return Meter(members, batches, of.narrowed(members.kept), found, world, number)

    return Meters(found, world, at)


def _require_batch(reading: Reading) -> None:
    require_batch(
        reading, {weight.name: reading.initial(weight) for weight in reading.weights}, static=reading.static_batch
    )


def measure_all(made: PreparedSearch, meters: Meters) -> None:
    """All changes of the seed, and each trunk with nothing else changed, are known; those that were not are measured,
    with bars.
    """
    base = nearest_member(made.analysis, made.choices)
    _changes(made, meters, made.trunks[0])
    with _progress("widths outside blocks", len(made.trunks), meters.world) as done:
        for trunk in made.trunks:
            if (trunk.number, *base) not in meters.known.distances:
                meters.at(trunk.number).of([base])
            done(1)


def _changes(made: PreparedSearch, meters: Meters, trunk: Trunk) -> Scores:
    """The scores of all changes with a trunk, measured where they are not known."""
    count = sum(len(block.candidates) + block.skippable for block in trunk.choices.blocks)
    with _progress(f"single changes{_of(made, trunk)}", count, meters.world) as done:
        return scores_of(table(meters.at(trunk.number), nearest_member(made.analysis, made.choices), done))


def _of(made: PreparedSearch, trunk: Trunk) -> str:
    return "" if len(made.trunks) < 2 else f", trunk ×{trunk.share:.3g}"


def starts_of(made: PreparedSearch, known: Known) -> dict[int, float] | None:
    """The distance of each trunk with nothing else changed; None where not all are known."""
    base = nearest_member(made.analysis, made.choices)
    found = {trunk.number: known.distances.get((trunk.number, *base)) for trunk in made.trunks}
    whole = {number: value for number, value in found.items() if value is not None}
    return whole if len(whole) == len(found) else None


def predicted_of(made: PreparedSearch, known: Known) -> Predicted | None:
    """What the changes that are known say of all members; None where those with the first trunk are not known."""
    base, starts = nearest_member(made.analysis, made.choices), starts_of(made, known)
    rows = changes(made.choices, base)
    scores = {}
    for trunk in made.trunks:
        deltas = [[known.distances.get((trunk.number, *member)) for member in row] for row in rows]
        whole = [[value for value in row if value is not None] for row in deltas]
        if whole == deltas:
            scores[trunk.number] = scores_of(whole)
    return predictions(starts, base, scores) if starts is not None and 0 in scores else None


def choosing(made: PreparedSearch, meters: Meters) -> Callable[[Sequence[Budget]], Pick]:
    """What finds the nearest member within budgets, once all is measured, in all processes the same one, with a bar."""
    how = made.config.distance

    def within(trunk: Trunk, budgets: Sequence[Budget]) -> tuple[Member, float]:
        scores = _changes(made, meters, trunk)
        with _progress(f"architectures{_of(made, trunk)}", how.members, meters.world) as done:
            member = choose(meters.at(trunk.number), scores, trunk.within(budgets), how, done=done)
        return member, meters.known.distances[trunk.number, *member]

    def best(budgets: Sequence[Budget]) -> Pick:
        starts = starts_of(made, meters.known)
        assert starts is not None
        return nearest_of(made.trunks, list(starts.values()), budgets, lambda trunk: within(trunk, budgets))

    return best


def alone(meters: Meters) -> Meters:
    """The same for one process that works by itself."""
    one = World(0, 1, meters.world.device)
    return Meters(meters.known, one, lambda number: replace(meters.at(number), world=one))


def finding(made: PreparedSearch, meters: Meters, found: tuple[Pick, Emitted]) -> MethodResult:
    """What the search says of the architecture found, and what it would predict at other costs."""
    pick, emitted = found
    what = predicted_of(made, meters.known)
    assert what is not None
    choices, kind = pick.trunk.choices, made.kind
    (distance,) = alone(meters).at(pick.trunk.number).of([pick.member])
    own, base = made.own_cost(kind), nearest_member(made.analysis, made.choices)
    front = what.front(made.trunks, kind, None, PREDICTED)
    rows = [
        {
            "cost": cost,
            "share": None if not own else cost / own,
            "trunk": _rounded(one.trunk.share),
            "distance": what.distance(one),
        }
        for one, cost in front
    ]
    chosen = [{"blocks": words_of(one.trunk.choices, one.member)} for one, _ in front]
    figures = {"distance": distance, "sum": what.distance(pick)}
    return MethodResult(
        emitted,
        figures,
        choices,
        made.fixed,
        architecture={
            "distance": distance,
            "predicted": figures["sum"],
            "trunk": {
                "number": pick.trunk.number,
                "share": _rounded(pick.trunk.share),
                "widths": dict(choices.trunks[0]),
            },
        },
        beside={
            "kind": kind,
            "images": images_of(made.purpose, made.config),
            "measured": len(meters.known.distances),
            "predicted": [{**row, **of} for row, of in zip(rows, chosen, strict=True)],
            "knee": knee(rows),
            "trunks": [_of_trunk(made, trunk, meters.known, base) for trunk in made.trunks],
            "changes": {
                block.name: {
                    "candidates": [dict(row) for row in block.candidates],
                    "skippable": block.skippable,
                    "distances": [-score for score in row],
                }
                for block, row in zip(choices.blocks, what.scores[pick.trunk.number], strict=True)
            },
        },
    )


def knee(rows: Sequence[Mapping[str, float | None]]) -> Mapping[str, float | None] | None:
    """Of a front from the cheapest to the seed the row below which distance grows faster than above it; None where
    there is no such bend.

    It is the one farthest below the line from one end to the other, cost and distance each from 0 to 1 (Satopää et al.
    2011). Beyond a distance of 1 nothing is like the seed any more, however far it is.
    """
    points = np.array([[row["cost"], min(row["distance"] or 0.0, 1.0)] for row in rows], float)
    if len(points) < 3 or not (np.ptp(points, axis=0) > 0).all():
        return None
    x, y = ((points - points.min(0)) / np.ptp(points, axis=0)).T
    below = 1 - x - y
    best = int(below.argmax())
    return rows[best] if below[best] > BEND else None


BEND = 0.05  # of the range: a front that bends less is a line


def _of_trunk(made: PreparedSearch, trunk: Trunk, known: Known, base: Member) -> dict[str, Any]:
    """What its members cost, how far its nearest is, whatever that costs, and the nearest within the budgets that was
    measured, if any.
    """
    budgets = trunk.within(made.budgets(made.config.cost.budget))
    own = {tuple(member): value for (number, *member), value in known.distances.items() if number == trunk.number}
    low, high = extremes(trunk.tables[made.kind], trunk.choices)
    within = [
        value for member, value in own.items() if all(budget.table.of(member) <= budget.limit for budget in budgets)
    ]
    return {
        "share": _rounded(trunk.share),
        "smallest": low,
        "largest": high,
        "distance": known.distances[trunk.number, *base],
        "within": min(within, default=None),
    }


def _rounded(share: float) -> float:
    return round(share, 3)


def _progress(what: str, total: int, world: World) -> AbstractContextManager[Callable[[int], None]]:
    """A bar, of the first process alone."""
    return terminal.progress(what, total) if world.first else nullcontext(silent)
