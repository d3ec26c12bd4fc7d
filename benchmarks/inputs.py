"""`python -m benchmarks.inputs [FILE_OR_FOLDER…]`: networks with another number of samples and of channels; one row
each.

Without files, the zoo's networks, one of each exporter. Of each: its batch becomes free, of that 1 and 4, and of 4 what
it was; its image becomes grey, and has one channel more with `preserve`. Whatever remap itself compares, the files
written are run here in ONNX Runtime, with 1, 2 and 3 samples where any number goes: each sample's outputs are to be
those of the seed for it alone, those of grey pictures the seed's for grey pictures in colour, and those with one more
channel the seed's without it. A step ends done, with how far outputs are off (in multiples of what rounding may do),
refused, with the reason, which is for people to judge, or wrong. Exit code 1 where one is wrong.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import platform
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np

from benchmarks import zoo
from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.model.analysed import analyse_model
from fnatool.model.remap import remap
from fnatool.model.remapped import RemapOptions
from fnatool.runtime import isolate
from fnatool.runtime.distance import HALF_TOLERANCE, ROUNDING_FACTOR, TOLERANCE, distance, nudged
from fnatool.runtime.verify import noise, outputs
from passes import Analysis
from passes.batch.rebatched import batched_inputs
from passes.errors import RefusedModel, UserError

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("onnx", "onnxruntime-gpu", "onnx-graphsurgeon", "numpy", "torch", "torchvision", "timm")
SECONDS = 1200  # a network
SAMPLES = 3
COUNTS = (1, 2, 3)  # samples at once
DONE, REFUSED, WRONG, NOTHING = "done", "refused", "wrong", "nothing to do"
STEPS = ("free", "one", "four", "back", "grey", "more")

Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """How a step ended; `drift`: the furthest an output is off, in multiples of what rounding may do."""

    end: str
    drift: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Network:
    """A file, what it is, and what it makes of each of SAMPLES pictures alone, with how far rounding moves that."""

    path: Path
    analysis: Analysis
    batched: tuple[str, ...]
    alone: tuple[Values, ...]
    limits: Mapping[str, float]

    def feeds(self, sample: int) -> dict[str, np.ndarray]:
        """A sample, as often as the network takes samples at once."""
        drawn = noise(self.analysis, sample)
        return {
            name: np.repeat(value[:1], len(value), 0) if name in self.batched else value
            for name, value in drawn.items()
        }


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inputs", description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE_OR_FOLDER", help="ONNX files in place of the zoo's networks"
    )
    parser.add_argument("--name", default="*", metavar="PATTERN", help="only exports like this, as timm.resnet*")
    parser.add_argument(
        "--once", action="store_true", help="one export of each network, by the older exporter where it can"
    )
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "inputs.json", metavar="FILE", help="where the figures go"
    )
    parser.add_argument("--go-on", action="store_true", help="leave out what the output has already")
    options = parser.parse_args()
    rows = _read(options.output) if options.go_on and options.output.is_file() else {}
    print(f"{'network':52} " + " ".join(f"{step:>9}" for step in STEPS))
    for name, path in _named(options.files) if options.files else _zoo(options.name, once=options.once):
        if options.go_on and name in rows:
            continue
        rows[name] = tried(path)
        print(_line(name, rows[name]), flush=True)
        _write(options.output, rows)
    for step, ends in counted(rows).items():
        print(f"{step:6} {', '.join(f'{count} {end}' for end, count in ends.items()) or '-'}")
    raise SystemExit(any(row.end == WRONG for steps in rows.values() for row in steps.values()))


def _named(places: Sequence[Path]) -> Iterator[tuple[str, Callable[[], Path]]]:
    paths = [path for place in places for path in (sorted(place.rglob("*.onnx")) if place.is_dir() else [place])]
    return ((path.stem, partial(Path, path)) for path in paths)


def _zoo(pattern: str, *, once: bool) -> Iterator[tuple[str, Callable[[], Path]]]:
    """The first export of each network by each exporter, or by one: the small ones first."""
    chosen: dict[tuple[str, str], zoo.Export] = {}
    for export in sorted(zoo.SWEEP, key=lambda export: export.exporter != "legacy"):
        chosen.setdefault((export.name, "" if once else export.exporter), export)
    ordered = sorted(chosen.values(), key=lambda export: export.size or zoo.NETWORKS[export.name])
    return ((zoo.place(e).stem, partial(zoo.cached, e)) for e in ordered if fnmatch.fnmatch(zoo.place(e).stem, pattern))


def tried(path: Callable[[], Path]) -> dict[str, Row]:
    """The steps of one network, in a process of its own."""
    try:
        return isolate.run(_tried, path, seconds=SECONDS, memory=16 * isolate.GIB)
    except isolate.Died as error:
        return {"read": Row(WRONG, reason=str(error))}
    except (RefusedModel, UserError) as error:
        return {"read": Row(REFUSED, reason=str(error))}


def _tried(path: Callable[[], Path]) -> dict[str, Row]:
    with tempfile.TemporaryDirectory() as folder:
        return steps(_network(path()), Path(folder))


def _network(path: Path) -> Network:
    """Raises RefusedModel where ONNX Runtime does not run it."""
    analysis = analyse_model(files.read(path))
    network = Network(path, analysis, batched_inputs(analysis.view), (), {})
    alone = [outputs(path, network.feeds(sample)) for sample in range(SAMPLES)]
    moved = outputs(path, nudged(network.feeds(0)))
    half = any(value.dtype == np.float16 for value in alone[0].values())
    least = HALF_TOLERANCE if half else TOLERANCE
    limits = {name: max(least, ROUNDING_FACTOR * distance(value, moved[name])) for name, value in alone[0].items()}
    return Network(path, analysis, network.batched, tuple(alone), limits)


def steps(network: Network, folder: Path) -> dict[str, Row]:
    """How each step ended."""
    own = network.analysis.batching.value
    free, one, four, back = (folder / f"{step}.onnx" for step in ("free", "one", "four", "back"))
    rows = {
        "free": _step(
            network.path, free, {"batch": "free"}, lambda: max(_batched(network, free, free, n) for n in COUNTS)
        )
    }
    if rows["free"].end == DONE:
        rows["one"] = _step(free, one, {"batch": 1}, lambda: _batched(network, one, free, 1))
        rows["four"] = _step(free, four, {"batch": 4}, lambda: _batched(network, four, free, 4))
        if rows["four"].end == DONE:
            rows["back"] = _step(
                four, back, {"batch": own or "free"}, lambda: _batched(network, back, free, own or COUNTS[-1])
            )
    colours = network.analysis.colours
    if colours.value is None:
        return {**rows, **dict.fromkeys(("grey", "more"), Row(REFUSED, reason=str(colours.why)))}
    image, axis, channels = colours.image, colours.axis, colours.value
    grey, more = folder / "grey.onnx", folder / "more.onnx"
    rows["grey"] = (
        Row(NOTHING)
        if channels == 1
        else _step(network.path, grey, {"input.channels": 1}, lambda: _grey(network, grey))
    )
    rows["more"] = _step(
        network.path,
        more,
        {"input.channels": channels + 1},
        lambda: _more(network, more, image=image, axis=axis),
        strategy="preserve",
    )
    return rows


def _step(
    source: Path, path: Path, knobs: Mapping[str, int | str], off: Callable[[], float], *, strategy: str = "fna"
) -> Row:
    """A remap, and how far what it wrote is off, in multiples of what it may be."""
    try:
        remap(source, None, path, options=RemapOptions(knobs=knobs, strategy=strategy))
        drift = off()
    except (RefusedModel, UserError) as error:
        return Row(WRONG if path.exists() else REFUSED, reason=str(error).replace(str(path.parent), "…"))
    return Row(DONE if drift <= 1 else WRONG, float(f"{drift:.1e}"))


def _off(network: Network, before: Values, after: Values) -> float:
    return max(distance(value, after[name]) / network.limits[name] for name, value in before.items())


def _batched(network: Network, path: Path, free: Path, count: int) -> float:
    """How far what it makes of so many samples is off from what the seed makes of each; free: the one that takes any
    number.
    """
    made = _stacked(network, path, count)
    two, one = _stacked(network, free, 2), _stacked(network, free, 1)
    worst = 0.0
    for sample in range(count):
        before = network.alone[sample % SAMPLES]
        for name, value in made.items():
            axis = next(
                (k for k, (a, b) in enumerate(zip(two[name].shape, one[name].shape, strict=True)) if a != b), None
            )
            own = np.arange(0 if axis is None else one[name].shape[axis])
            theirs = value if axis is None else value.take(own + sample * len(own), axis)
            alone = before[name] if axis is None else before[name].take(own, axis)
            worst = max(worst, distance(alone, theirs) / network.limits[name])
    return worst


def _stacked(network: Network, path: Path, count: int) -> Values:
    """What it makes of the first samples, one after the other."""
    drawn = [network.feeds(sample % SAMPLES) for sample in range(count)]
    joined = {name: np.concatenate([row[name][:1] for row in drawn]) for name in network.batched}
    return outputs(path, {**drawn[0], **joined})


def _grey(network: Network, path: Path) -> float:
    """Of a grey picture, and of the same in colour."""
    colours = network.analysis.colours
    feeds, image, axis = network.feeds(0), colours.image, colours.axis
    plane = feeds[image].take([0], axis)
    before = outputs(network.path, {**feeds, image: np.repeat(plane, colours.value or 0, axis)})
    return _off(network, before, outputs(path, {**feeds, image: plane}))


def _more(network: Network, path: Path, *, image: str, axis: int) -> float:
    """Of a picture, and of the same with noise in one more channel."""
    feeds = network.feeds(0)
    given = np.concatenate([feeds[image], noise(network.analysis, SAMPLES)[image].take([0], axis)], axis)
    return _off(network, network.alone[0], outputs(path, {**feeds, image: given}))


def counted(rows: Mapping[str, Mapping[str, Row]]) -> dict[str, Counter[str]]:
    """How often each step ended in which way; `read` where a network was not even that."""
    found: dict[str, Counter[str]] = {step: Counter() for step in ("read", *STEPS)}
    for steps in rows.values():
        for step, row in steps.items():
            found[step][row.end] += 1
    return found


def _line(name: str, rows: Mapping[str, Row]) -> str:
    cells = (
        f"{row.drift:9.0e}" if row.end == DONE and row.drift is not None else f"{row.end:>9}" for row in _cells(rows)
    )
    reasons = dict.fromkeys(
        f"    {row.end}: {row.reason or row.drift}" for row in rows.values() if row.end in (REFUSED, WRONG)
    )
    return "\n".join((f"{name[:52]:52} {' '.join(cells)}", *reasons))


def _cells(rows: Mapping[str, Row]) -> Iterator[Row]:
    return (rows.get(step, Row("")) for step in STEPS)


def _read(path: Path) -> dict[str, dict[str, Row]]:
    held = json.loads(path.read_text())["networks"]
    return {name: {step: Row(**row) for step, row in steps.items()} for name, steps in held.items()}


def _write(path: Path, rows: Mapping[str, Mapping[str, Row]]) -> None:
    versions = {name: metadata.version(name) for name in PACKAGES}
    networks = {name: {step: asdict(row) for step, row in steps.items()} for name, steps in rows.items()}
    document = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": versions,
        "networks": networks,
    }
    write_text(path, json.dumps(document, indent=1) + "\n", force=True)


if __name__ == "__main__":
    main()
