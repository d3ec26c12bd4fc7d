"""Models side by side in ONNX Runtime: latency, throughput and memory, in rounds in which each has its turn.

One session lives at a time, in a process of its own, on fixed threads that do not spin, and what disturbs a machine for
a while hits all models of a round. It only makes runs slower, so two models compare by their fastest rounds. (Forty
rounds of one network against itself on a busy machine: of draws of twenty, 99 % come within 3 % of 1 by ratios within a
round, all by the fastest.)
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from fnatool import seeds, terminal
from fnatool.files import model as files
from fnatool.files.atomic import temporary, write_text
from fnatool.files.interface import Inputs, named_shapes, shape_text
from fnatool.latency.time_pieces import session_options
from fnatool.latency.timing import TimingDevice, bound, call, filled
from fnatool.model.source import Source
from fnatool.runtime import isolate, native
from fnatool.runtime.session import FAILURES, PROVIDERS, InferenceSession, open_session
from passes.errors import RefusedModel, UserError
from passes.graph.tensors import Shape

T = TypeVar("T")

ROUNDS = 20
FAST = 1  # percentile of the runs in a round: the fastest, but for a stray one
RESAMPLED = 200
WARM_RUNS = 2
LOADING = 600.0  # seconds of processor time that a session may take to be made: an engine of TensorRT is built first
ADDRESSES = {"cpu": 16 * isolate.GIB}  # a GPU's driver reserves far more addresses than it has memory
ANYWHERE = 1 << 46


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """On which provider and how many threads of ONNX Runtime, on how many samples at once (None: as many as a model
    fixes, else one).

    seconds: how long each model is timed in all; seed: for the inputs and the order in rounds; inputs: shapes for free
    sizes.
    """

    provider: str = "cpu"
    threads: int = 1
    batch: int | None = None
    seconds: float = 10.0
    seed: int = 0
    inputs: Inputs = None


@dataclass(frozen=True)
class Timing:
    """A model in the benchmark: nanoseconds of a run (median, quartiles), samples a second, bytes at most, and how it
    compares.

    memory: what the process took beyond an empty one, of the machine's memory; None where the system does not tell.
    ratio: time of a run over that of the first model, both in their fastest rounds. spread: half of what lies between
    the quartiles of the rounds' medians, as a share; ratio_spread: the standard deviation of the ratio where rounds are
    drawn anew with replacement.
    """

    model: str
    batch: int
    runs: int
    median: float
    quartiles: tuple[float, float]
    spread: float
    throughput: float
    memory: int | None
    ratio: float
    ratio_spread: float


@dataclass(frozen=True)
class Benchmark:
    """Every model's timing, where and by which clock it was timed, in how many rounds, and the load of the machine
    before and after.
    """

    timings: tuple[Timing, ...]
    place: str
    clock: str
    rounds: int
    load: tuple[float, float]

    def to_json(self) -> dict[str, object]:
        """Everything, for programs; times in milliseconds."""
        rows = [
            {
                "model": row.model,
                "batch": row.batch,
                "runs": row.runs,
                "latency": row.median / 1e6,
                "quartiles": [value / 1e6 for value in row.quartiles],
                "spread": row.spread,
                "throughput": row.throughput,
                "memory": row.memory,
                "ratio": row.ratio,
                "ratio_spread": row.ratio_spread,
            }
            for row in self.timings
        ]
        return {
            "place": self.place,
            "clock": self.clock,
            "rounds": self.rounds,
            "load": list(self.load),
            "models": rows,
        }

    def write(self, path: Path | str, *, force: bool = False) -> None:
        """The same as a JSON file."""
        write_text(Path(path), json.dumps(self.to_json(), indent=1) + "\n", force=force)


def bench(*models: Source, options: BenchOptions | None = None) -> Benchmark:
    """How fast the models (paths, the bundled seed's name, or models in memory) run, side by side; the first is what
    others compare with.

    Raises UserError for a wrong path or size and a provider that is not there, RefusedModel for a model that does not
    run.
    """
    options = options or BenchOptions()
    if not models:
        raise UserError("name at least one model to time")
    if options.provider not in PROVIDERS:
        raise UserError(f"'{options.provider}' is no provider; there are {', '.join(PROVIDERS)}")
    place = TimingDevice(options.provider, options.threads)
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        paths = [_path(model, stack) for model in models]
        _child(_provided, place)
        entries = [_child(_look, path, place, options) for path in paths]
        _require_known(options.inputs, entries)
        rounds = _rounds(entries, place, options)
    return Benchmark(tuple(_timings(entries, rounds)), place.key, place.clock, ROUNDS, (load, os.getloadavg()[0]))


def _path(model: Source, stack: ExitStack) -> Path:
    """Where the model's file is; one in memory is written to a folder that goes with the stack."""
    if not isinstance(model, files.Model):
        path = seeds.find(model)
        files.load(path)  # what is no model is told in our words
        return path
    path = stack.enter_context(temporary()) / "model.onnx"
    files.write(model, path)
    return path


@dataclass(frozen=True)
class _Entry:
    """A model that is timed: its file, its inputs with the sizes that it is given, and its samples at once."""

    path: Path
    sizes: Mapping[str, Shape]
    batch: int


@dataclass(frozen=True)
class _Round:
    """What one turn of a model gave: nanoseconds of its runs, and bytes."""

    times: tuple[int, ...]
    memory: int | None


def _rounds(entries: Sequence[_Entry], place: TimingDevice, options: BenchOptions) -> list[list[_Round]]:
    """For every model its turns, one a round; in each round the order is another one."""
    found: list[list[_Round]] = [[] for _ in entries]
    with terminal.progress("timing", ROUNDS * len(entries)) as done:
        for number in range(ROUNDS):
            for k in np.random.default_rng([options.seed, number]).permutation(len(entries)).tolist():
                found[k].append(_child(_turn, entries[k], place, options.seconds / ROUNDS))
                done(1)
    return found


def _timings(entries: Sequence[_Entry], rounds: Sequence[Sequence[_Round]]) -> list[Timing]:
    medians = [np.array([np.median(turn.times) for turn in turns]) for turns in rounds]
    fast = [np.array([np.percentile(turn.times, FAST) for turn in turns]) for turns in rounds]
    made = []
    for k, (entry, turns, own) in enumerate(zip(entries, rounds, medians, strict=True)):
        times = np.concatenate([turn.times for turn in turns])
        median = float(np.median(own))
        known = [turn.memory for turn in turns if turn.memory is not None]
        made.append(
            Timing(
                model=str(entry.path),
                batch=entry.batch,
                runs=int(times.size),
                median=median,
                quartiles=(float(np.percentile(times, 25)), float(np.percentile(times, 75))),
                spread=_half_range(own) / median,
                throughput=entry.batch * 1e9 / median,
                memory=max(known) if known else None,
                ratio=float(fast[k].min() / fast[0].min()),
                ratio_spread=_uncertainty(fast[0], fast[k]) if k else 0.0,
            )
        )
    return made


def _uncertainty(first: np.ndarray, own: np.ndarray) -> float:
    """The standard deviation of the ratio of the least values over rounds drawn with replacement."""
    drawn = np.random.default_rng(0).integers(0, len(own), (RESAMPLED, len(own)))
    return float((own[drawn].min(axis=1) / first[drawn].min(axis=1)).std())


def _half_range(values: np.ndarray) -> float:
    """Half of what lies between the quartiles."""
    low, high = np.percentile(values, [25, 75])
    return float(high - low) / 2


# --- in a child process -------------------------------------------------------------------------


def _child(function: Callable[..., T], *arguments: object) -> T:
    """What the function returns in a process of its own. Raises RefusedModel where that dies."""
    place = next(argument for argument in arguments if isinstance(argument, TimingDevice))
    try:
        return isolate.run(function, *arguments, seconds=LOADING, memory=ADDRESSES.get(place.provider, ANYWHERE))
    except isolate.Died as error:
        named = [argument.path if isinstance(argument, _Entry) else argument for argument in arguments]
        path = next((argument for argument in named if isinstance(argument, Path)), "a small network")
        raise RefusedModel(f"ONNX Runtime died on '{path}': {error}") from error


def _provided(place: TimingDevice) -> None:
    """The provider is there. Raises UserError otherwise."""
    open_session(filled(call()), place.provider, session_options(place.threads), "a small network")


def _look(path: Path, place: TimingDevice, options: BenchOptions) -> _Entry:
    """The model's inputs, and the sizes that they get. Raises UserError for sizes that nobody says, or that do not
    fit.
    """
    inputs = _open(path, place).get_inputs()
    given = named_shapes(options.inputs, [value.name for value in inputs])
    sizes = {
        value.name: _sizes(value.name, value.shape, given.get(value.name), batch=options.batch, path=path)
        for value in inputs
    }
    return _Entry(path, sizes, next((shape[0] for shape in sizes.values() if len(shape) > 1), 1))


def _sizes(name: str, shape: Sequence[object], given: Shape | None, *, batch: int | None, path: Path) -> Shape:
    """What an input gets: its own sizes, those given where they are free, and so many samples in front."""
    if given is not None and len(given) != len(shape):
        raise UserError(f"'{path}': --input gives '{name}' {len(given)} sizes, it has {len(shape)}")
    found = list[int]()
    for axis, said in enumerate(shape):
        own = said if isinstance(said, int) and said > 0 else None
        asked = given[axis] if given is not None else batch if axis == 0 and len(shape) > 1 else None
        if axis == 0 and len(shape) > 1 and batch is not None and asked != batch:
            raise UserError(
                f"'{path}': --input and --batch say different numbers of samples for '{name}', {asked} and {batch}"
            )
        if own is not None and asked not in (None, own):
            raise UserError(f"'{path}': '{name}' has a fixed size of {own} on axis {axis}, so it cannot be {asked}")
        if own is None and asked is None and axis > 0:
            raise UserError(f"'{path}': '{name}' is {_said(shape)}; say its free sizes with --input {name}=…")
        found.append(own or asked or 1)
    return tuple(found)


def _said(shape: Sequence[object]) -> str:
    return shape_text([size if isinstance(size, int | str) else None for size in shape])


def _require_known(inputs: Inputs, entries: Sequence[_Entry]) -> None:
    """Every shape that is given is for an input of some model. Raises UserError."""
    known = list(dict.fromkeys(name for entry in entries for name in entry.sizes))
    for name in inputs if isinstance(inputs, Mapping) else ():
        if name not in known:
            raise UserError(f"--input names '{name}', but the inputs are: {', '.join(known)}")


def _turn(entry: _Entry, place: TimingDevice, seconds: float) -> _Round:
    """The model's runs for so long, at least one, after those that warm it up."""
    before = _status("VmRSS")
    session = _open(entry.path, place)
    run, now = bound(session, place.memory, entry.sizes, f"'{entry.path}'"), place.now
    times: list[int] = []
    try:
        for _ in range(WARM_RUNS):
            run()
        end = time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            start = now()
            run()
            times.append(now() - start)
    except FAILURES as error:
        raise RefusedModel(f"ONNX Runtime cannot run '{entry.path}': {native.first_line(error)}") from error
    after = _status("VmHWM")
    return _Round(tuple(times), None if before is None or after is None else max(after - before, 0))


def _open(path: Path, place: TimingDevice) -> InferenceSession:
    with native.openable(path) as text:
        return open_session(text, place.provider, session_options(place.threads), f"'{path}'")


def _status(key: str) -> int | None:
    """Bytes that the system says this process has; None where it does not."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    found = [line.split()[1] for line in status.read_text().splitlines() if line.startswith(f"{key}:")]
    return int(found[0]) * 1024 if found else None
