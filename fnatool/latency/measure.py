"""The order of `fnatool latency-table`: analyse, cut, time, fit; and how the result is shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_graphsurgeon as gs

from fnatool import terminal
from fnatool.files import model as files
from fnatool.files.atomic import require_writable
from fnatool.latency import rounds as timings
from fnatool.latency.fitting import Member, applied, fit, spread
from fnatool.latency.pieces import Pieces, columns, cut_up, whole
from fnatool.latency.store import Store
from fnatool.latency.table import About, LatencyTable, Timed, about, write
from fnatool.latency.timing import TimingDevice, call, nanoseconds, require_provider
from fnatool.model import spaces
from fnatool.model.analysed import analyse_model
from passes.errors import UserError
from passes.graph.cutting import Bare
from passes.graph.tensors import Shape
from passes.network.analysis import Analysis
from passes.space.costs import Table, cost_tables, extremes
from passes.space.space import SKIP, Choices, choices
from passes.target.resolve import resolve
from passes.target.spec import Spec

MEMBERS = 12  # timed whole, to fit on


@dataclass(frozen=True)
class LatencyOptions:
    """Where and how often to time; `inputs` gives shapes for free dimensions, `seed` draws the members and the order of the rounds."""

    place: TimingDevice
    rounds: int = 8
    seed: int = 0
    inputs: Mapping[str, Shape] | None = None
    timed: Callable[[Bare, TimingDevice], int] = nanoseconds


@dataclass(frozen=True)
class Subject:
    """A seed and what may be chosen of it."""

    graph: gs.Graph
    analysis: Analysis
    found: Choices
    about: About


def subject(model: files.Model, space: str, inputs: Mapping[str, Shape] | None = None) -> Subject:
    """The seed with the space of that name or in that file. Raises UserError for a space that is none or does not fit."""
    analysis = analyse_model(model, inputs)
    found = choices(analysis, spaces.read_space(space, analysis))
    return Subject(model.graph, analysis, found, about(model, analysis, found))


def make_table(seed: Path, space: str, output: Path, options: LatencyOptions, *, force: bool = False) -> tuple[LatencyTable, Subject]:
    """The table of a seed's space, written to output; every timing is kept beside it, and a further run makes those that are missing.

    Raises UserError for a wrong space, path or provider, RefusedModel for a network of which parts do not run alone.
    """
    model = files.read(seed, options.inputs)
    require_writable(output, force=force, forbid=(model.path, *model.data))
    store = Store(store_path(output), options.place.key)
    require_provider(options.place)
    of = subject(model, space, options.inputs)
    made = measured(of, store, options)
    write(made, output, force=force)
    return made, of


def store_path(output: Path) -> Path:
    """Where the timings for a table are kept."""
    return output.with_name(f"{output.stem}.timings.json")


def measured(of: Subject, store: Store, options: LatencyOptions) -> LatencyTable:
    """The table of a subject; timings are taken from the store and added to it."""
    load = os.getloadavg()[0]
    members = members_of_fit(of, options)
    with terminal.progress("cutting", columns(of.found) + len(members)) as done:
        pieces = cut_up(of.graph, of.analysis, of.found, done)
        wholes = _wholes(of, members, done)
    times = time_all({**pieces.networks, **{network.signature: network for network in wholes}}, store, options)
    parts = sums(pieces, times)
    timed = tuple(Timed(member, float(parts.of(member)), times[network.signature]) for member, network in zip(members, wholes, strict=True))
    fitted = fit([one.parts for one in timed], [one.measured for one in timed])
    table = applied(fitted, parts)
    if extremes(table, of.found)[0] <= 0:
        raise UserError("by these timings the smallest member takes no time: the machine was too busy to measure on; give more --rounds")
    return LatencyTable(
        about=of.about,
        provider=options.place.provider,
        place=options.place.key,
        clock=options.place.clock,
        rounds=options.rounds,
        table=table,
        parts=parts,
        fit=fitted,
        members=timed,
        load=(load, os.getloadavg()[0]),
    )


def members_of_fit(of: Subject, options: LatencyOptions) -> tuple[Member, ...]:
    """The members that are timed whole: from few to many multiply-adds."""
    return spread(of.found, cost_tables(of.analysis, of.found)["madds"], MEMBERS, options.seed)


def _wholes(of: Subject, members: Sequence[Member], done: Callable[[int], None]) -> list[Bare]:
    networks = []
    for member in members:
        networks.append(whole(of.graph, of.analysis, of.found, member))
        done(1)
    return networks


def time_all(networks: Mapping[str, Bare], store: Store, options: LatencyOptions) -> dict[str, float]:
    """Nanoseconds by signature, of these networks and of an empty one."""
    empty = call()
    wanted = {empty.signature: empty, **networks}
    with terminal.progress("timing", timings.missing(list(wanted), store, options.rounds)) as done:
        timings.measure(
            wanted, store, options.rounds, timed=lambda network: options.timed(network, options.place), done=done, seed=options.seed
        )
    return {signature: timings.estimate(store.rounds(signature)) for signature in wanted}


def sums(pieces: Pieces, times: Mapping[str, float]) -> Table:
    """What every part takes beyond the call itself, which the base has once."""
    nothing = times[call().signature]

    def alone(signature: str) -> float:
        return max(times[signature] - nothing, 0.0)

    base = nothing + sum(map(alone, pieces.rest))
    return Table(round(base), tuple(tuple(round(alone(signature)) for signature in row) for row in pieces.blocks))


# --- shown ------------------------------------------------------------------------------------------------------------------------------


def own_member(analysis: Analysis, found: Choices) -> Member | None:
    """The member that is the seed; None where the space does not hold it."""
    own = resolve(analysis, Spec({}))
    member = []
    for block in found.blocks:
        if block.block >= len(own.sources[block.stage]):
            member.append(SKIP)
            continue
        values = {tail: own.values.get(f"{block.name}.{tail}") for tail in block.candidates[0]}
        if values not in block.candidates:
            return None
        member.append(block.candidates.index(values))
    if any(k == SKIP and not block.skippable for block, k in zip(found.blocks, member, strict=True)):
        return None
    spec = resolve(analysis, found.spec(member))
    return tuple(member) if (spec.values, spec.sources) == (own.values, own.sources) else None


def show(made: LatencyTable, of: Subject, output: Path) -> None:
    """The smallest, the seed and the largest member, how the table was fitted, and where it is."""

    console = terminal.console()
    low, high = extremes(made.table, of.found)
    own = own_member(of.analysis, of.found)
    rows = terminal.table("member", terminal.right("latency"))
    rows.add_row("smallest", milliseconds(low))
    if own is not None:
        rows.add_row("the seed", milliseconds(made.table.of(own)))
    rows.add_row("largest", milliseconds(high))
    console.print(rows)
    blocks, candidates = len(of.found.blocks), sum(len(block.candidates) for block in of.found.blocks)
    console.print()
    console.print(f"{candidates} candidates in {blocks} blocks and what no block holds, on {made.place}")
    console.print(f"t = {milliseconds(made.fit.a)} + {made.fit.b:.3f} · Σ of the parts, fitted on {len(made.members)} whole members")
    left_out = f"{made.fit.error_left_out:.1%} where a member is predicted without itself"
    console.print(f"mean error {made.fit.error:.1%}, {left_out}; load of the machine {made.load[0]:.1f} to {made.load[1]:.1f}")
    if made.fit.error_left_out > POOR:
        console.print("that is much: the machine may be too busy; more --rounds, with --force, adds to what is measured", style="yellow")
    console.print(f"→ {output}, every timing in {store_path(output).name}")


POOR = 0.1


def milliseconds(nanoseconds_: float) -> str:
    """A time as text: 3.141 ms."""
    return f"{nanoseconds_ / 1e6:.3f} ms"
