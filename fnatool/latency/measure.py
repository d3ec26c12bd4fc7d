"""A table of latencies of a seed's space: analyse, cut, time, fit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_graphsurgeon as gs

from fnatool import terminal
from fnatool.files import model as files
from fnatool.files.atomic import replacing_folder, require_writable, write_text
from fnatool.files.interface import Inputs
from fnatool.latency import rounds as timings
from fnatool.latency import time_pieces
from fnatool.latency.fitting import Member, applied, fit, spread
from fnatool.latency.pieces import Pieces, columns, cut_up, whole
from fnatool.latency.recorded import recorded_place
from fnatool.latency.store import Store
from fnatool.latency.table import About, LatencyTable, Timed, about, write
from fnatool.latency.timing import RecordedDevice, TimingDevice, call, filled, left_out, nanoseconds, require_provider
from fnatool.model import spaces
from fnatool.model.analysed import analyse_model
from fnatool.model.source import Source, open_model
from passes.errors import UserError
from passes.graph.cutting import Bare
from passes.graph.tensors import Shape
from passes.network.analysis import Analysis
from passes.space.costs import Table, cost_tables, extremes
from passes.space.space import Choices, choices, overlaid, parse_space

MEMBERS = 12  # timed whole, to fit on


@dataclass(frozen=True, kw_only=True)
class LatencyOptions:
    """Where and how often to time; `inputs` gives shapes for free dimensions, `seed` draws the members and the order of
    the rounds.

    `knobs` have these values, whatever the space says of them.

    `force` lets the table replace another file (never the timings beside it, which are kept).
    """

    place: TimingDevice | RecordedDevice
    rounds: int = 8
    seed: int = 0
    inputs: Inputs = None
    knobs: Mapping[str, Sequence[int | str]] = field(default_factory=dict)
    timed: Callable[[Bare, TimingDevice], int] = nanoseconds
    force: bool = False


@dataclass(frozen=True)
class Subject:
    """A seed and what may be chosen of it."""

    graph: gs.Graph
    analysis: Analysis
    found: Choices
    about: About


def subject(
    model: files.Model,
    space: str,
    inputs: Mapping[str, Shape] | None = None,
    *,
    knobs: Mapping[str, Sequence[int | str]] | None = None,
) -> Subject:
    """The seed with the space of that name or in that file, in which these knobs have these values.

    Raises UserError for a space that is none or does not fit.
    """
    analysis = analyse_model(model, inputs)
    known = spaces.read_space(space, analysis)
    if knobs:
        known = overlaid(
            known, parse_space({"version": 1, "knobs": {key: list(values) for key, values in knobs.items()}}).knobs
        )
    found = choices(analysis, known).at(0)
    if found.size < 2:
        raise UserError(
            f"space '{space}' leaves the network's blocks, if it has any, without a choice: there is nothing to measure"
        )
    return Subject(model.graph, analysis, found, about(model.sha256, analysis, found))


def latency_table(
    seed: Source, space: str, out: Path | str, *, options: LatencyOptions
) -> tuple[LatencyTable, Subject]:
    """The table of a seed's space, written to `out`; every timing is kept beside it, and a further run makes those that
    are missing.

    seed: a path, the bundled seed's name, or a model in memory; space: the name of a preset, or the path of a JSON
    file. Raises UserError for a wrong space, path or provider, RefusedModel for a network of which parts do not run
    alone.
    """
    model, sizes = open_model(seed, options.inputs)
    out = Path(out)
    require_writable(out, force=options.force, forbid=(model.path, *model.data))
    store = Store(store_path(out), options.place.key)
    assert isinstance(options.place, TimingDevice)
    require_provider(options.place)
    of = subject(model, space, sizes, knobs=options.knobs)
    made = measure_table(of, store, options)
    write(made, out, force=options.force)
    return made, of


def store_path(output: Path) -> Path:
    """Where the timings for a table are kept."""
    return output.with_name(f"{output.stem}.timings.json")


def pack_latency(seed: Source, space: str, folder: Path | str, *, options: LatencyOptions) -> int:
    """All that is to be timed for the table is in a new folder, with a script that times it elsewhere; how many pieces
    there are.

    The script needs Python, numpy and onnxruntime. Raises UserError where the folder exists, unless `force`, and as
    latency_table does.
    """
    model, sizes = open_model(seed, options.inputs)
    folder = Path(folder)
    if folder.exists() and not (options.force and (folder / time_pieces.PIECES).is_file()):
        raise UserError(
            f"'{folder}' exists; choose another folder, or overwrite one that was packed before with --force"
        )
    if not folder.resolve().parent.is_dir():
        raise UserError(f"'{folder.parent}', the folder for '{folder.name}', does not exist; create it first")
    job = cut_subject(subject(model, space, sizes, knobs=options.knobs), options)
    with replacing_folder(folder) as made:
        for signature, network in job.networks.items():
            (made / f"{signature}.onnx").write_bytes(filled(network))
        write_text(
            made / time_pieces.PIECES, json.dumps({"version": time_pieces.VERSION, "pieces": list(job.networks)}) + "\n"
        )
        write_text(made / SCRIPT, Path(time_pieces.__file__).read_text(encoding="utf-8"))
    return len(job.networks)


def unpack_latency(
    seed: Source, space: str, folder: Path | str, out: Path | str, *, options: LatencyOptions
) -> tuple[LatencyTable, Subject]:
    """The table from timings that the script of a packed folder took, written to `out`; of several places that of
    options' provider.

    Raises UserError where something is not timed yet, or the folder is of another seed or space.
    """
    model, sizes = open_model(seed, options.inputs)
    folder, out = Path(folder), Path(out)
    require_writable(out, force=options.force, forbid=(model.path, *model.data))
    place, load = recorded_place(folder / time_pieces.TIMINGS, options.place)
    of = subject(model, space, sizes, knobs=options.knobs)
    job = cut_subject(of, options)
    store = Store(folder / time_pieces.TIMINGS, place.key)
    rounds = min(len(store.rounds(signature)) for signature in job.networks)
    if rounds == 0:
        missing = sum(not store.rounds(signature) for signature in job.networks)
        raise UserError(
            f"{missing} of {len(job.networks)} pieces are not timed in '{folder}' on {place.key}; run "
            f"'{SCRIPT}' there again"
        )
    times = {signature: timings.estimate(store.rounds(signature)) for signature in job.networks}
    made = _fitted(of, job, times, replace(options, place=place, rounds=rounds), load)
    write(made, out, force=options.force)
    return made, of


SCRIPT = "time_pieces.py"


def measure_table(of: Subject, store: Store, options: LatencyOptions) -> LatencyTable:
    """The table of a subject; timings are taken from the store and added to it."""
    load = os.getloadavg()[0]
    job = cut_subject(of, options)
    if isinstance(options.place, TimingDevice) and (left := left_out(job.wholes[0], options.place)) is not None:
        terminal.console().print(left, markup=False)
    times = time_all(job.networks, store, options)
    return _fitted(of, job, times, options, (load, os.getloadavg()[0]))


@dataclass(frozen=True)
class TimingJob:
    """What is to be timed: the pieces, the members that are timed whole and their networks, and all networks by
    signature.
    """

    pieces: Pieces
    members: tuple[Member, ...]
    wholes: tuple[Bare, ...]

    @property
    def networks(self) -> dict[str, Bare]:
        """With an empty one, first."""
        empty = call()
        return {
            empty.signature: empty,
            **self.pieces.networks,
            **{network.signature: network for network in self.wholes},
        }


def cut_subject(of: Subject, options: LatencyOptions) -> TimingJob:
    """The subject in pieces."""
    members = members_of_fit(of, options)
    with terminal.progress("cutting", columns(of.found) + len(members)) as done:
        pieces = cut_up(of.graph, of.analysis, of.found, done)
        return TimingJob(pieces, members, tuple(_wholes(of, members, done)))


def _fitted(
    of: Subject, job: TimingJob, times: Mapping[str, float], options: LatencyOptions, load: tuple[float, float]
) -> LatencyTable:
    """The table by these nanoseconds. Raises UserError where they make no sense."""
    parts = sums(job.pieces, times)
    timed = tuple(
        Timed(member, float(parts.of(member)), times[network.signature])
        for member, network in zip(job.members, job.wholes, strict=True)
    )
    fitted = fit([one.parts for one in timed], [one.measured for one in timed])
    table = applied(fitted, parts)
    if extremes(table, of.found)[0] <= 0:
        raise UserError(
            "by these timings the smallest member takes no time: the machine was too busy to measure on; give "
            "more --rounds"
        )
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
        load=load,
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


def time_all(wanted: Mapping[str, Bare], store: Store, options: LatencyOptions) -> dict[str, float]:
    """Nanoseconds by signature."""
    place = options.place
    assert isinstance(place, TimingDevice)  # what was timed elsewhere has all its timings
    with terminal.progress("timing", timings.missing(list(wanted), store, options.rounds)) as done:
        timings.measure(
            wanted,
            store,
            options.rounds,
            timed=lambda network: options.timed(network, place),
            done=done,
            seed=options.seed,
        )
    return {signature: timings.estimate(store.rounds(signature)) for signature in wanted}


def sums(pieces: Pieces, times: Mapping[str, float]) -> Table:
    """What every part takes beyond the call itself, which the base has once."""
    nothing = times[call().signature]

    def alone(signature: str) -> float:
        return max(times[signature] - nothing, 0.0)

    base = nothing + sum(map(alone, pieces.rest))
    return Table(round(base), tuple(tuple(round(alone(signature)) for signature in row) for row in pieces.blocks))
