"""`python -m benchmarks.real_networks FILE_OR_FOLDER…`: any ONNX files through everything that fnatool does with a
network; one row each.

Of every network: its normal form twice, what is found in it, all widths halved and widened, everything exact grown and
narrowed back, blocks added, another image size, the output stride halved, what torch reads beside ONNX Runtime on all
inner tensors, heads. What is written passes `fnatool check` where the seed does, and has the cost that the remap said.
A step runs in a process of its own, with a limit on time and memory. It ends ok, refused (with its reason), wrong, in a
traceback or killed, or there is nothing for it to do. The reasons are for people: whether they are true is to be read.
Exit code 1 where something is wrong, a traceback or killed.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs
import torch

from benchmarks import fuzz, reading, trials
from benchmarks.attempt import GIB, Attempt, attempt
from fnatool.cli.app import SUCCESS
from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.model.analysed import analyse_model, profile_model
from fnatool.model.remapped import RemapOptions, Remapped, remap_model
from fnatool.runtime import isolate
from fnatool.runtime.verify import noise, outputs
from passes import Spec, own_spec
from passes.errors import RefusedModel, UserError
from passes.graph.normalise import normalise

SECONDS, MEMORY = 300, 12 * GIB  # for a step
OK, REFUSED, WRONG, TRACEBACK, KILLED, NOTHING = "ok", "refused", "wrong", "traceback", "killed", "nothing to do"
BAD = (WRONG, TRACEBACK, KILLED)
UNTRUE = re.compile(r"Please report it|computes infinities or NaN")  # a refusal that says that we are wrong
SIDES = (Fraction(3, 2), Fraction(2), Fraction(1, 2))  # of the seed's image, the first that can be
TASKS = ("classification", "segmentation")
SHOWN = 3  # of the reasons that hold the parameters of a network

Figures = dict[str, object]


class Wrong(Exception):
    """What was made is not what was asked for: a sentence for each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))


class Nothing(Exception):
    """The network has nothing that this step is about: why."""


@dataclass(frozen=True)
class Outcome:
    """How a step ended, and what it measured; `reason` says why where it is not ok."""

    end: str
    reason: str = ""
    seconds: float = 0.0
    figures: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A file, and a folder for what is made of it: STEP.onnx, and STEP.json with the spec it must realise."""

    path: Path
    folder: Path

    def model(self) -> files.Model:
        return files.read(self.path)

    def out(self, step: str) -> Path:
        return self.folder / f"{step}.onnx"


# --- the steps ----------------------------------------------------------------------------------


def normal(case: Case) -> Figures:
    """The normal form is the normal form of itself."""
    once = normalise(case.model().graph)
    twice = normalise(once.graph)
    if different := trials.different(once.graph, twice.graph):
        raise Wrong(
            f"normalising again changes {len(different)} initializer(s), as '{different[0]}' ({', '.join(twice.notes)})"
        )
    if _proto(once.graph) != _proto(twice.graph):
        raise Wrong(f"normalising again changes the nodes ({', '.join(twice.notes) or 'no note says how'})")
    return {"notes": list(once.notes)}


def _proto(graph: gs.Graph) -> bytes:
    return bytes(gs.export_onnx(graph, do_type_check=False).SerializeToString(deterministic=True))


def look(case: Case) -> Figures:
    """What the analysis finds: its time, stages and knobs, and every reason it gives, with the parameters that a frozen
    width holds.
    """
    model = case.model()
    start = time.thread_time()
    found = analyse_model(model)
    seconds = time.thread_time() - start
    sizes = found.cost.tensor_params
    held: dict[str, int] = {}
    for name, atom in found.atoms.items():
        if found.knobs[name].growth == "frozen":
            tensors = {site.tensor for site in atom.sites}
            why = general(found.knobs[name].why or "")
            held[why] = held.get(why, 0) + sum(sizes.get(tensor, 0) for tensor in tensors)
    whys: dict[str, list[str]] = {}
    for name, knob in found.knobs.items():
        if knob.why is not None:
            whys.setdefault(f"{knob.kind} {knob.growth}: {general(knob.why)}", []).append(f"{name}: {knob.why}")
    return {
        "analyse_s": round(seconds, 3),
        "nodes": len(found.view.nodes),
        "params": found.cost.params,
        "macs": found.cost.macs,
        "stages": [len(stage.blocks) for stage in found.stages],
        "knobs": len(found.knobs),
        "frozen": sum(knob.growth == "frozen" for knob in found.knobs.values()),
        "image": {
            "input": found.image.input,
            "size": found.image.size,
            "free": found.image.free,
            "why": found.image.why,
        },
        "strides": {"values": list(found.strides.values), "why": found.strides.why},
        "held": dict(sorted(held.items(), key=lambda item: -item[1])),
        "whys": {why: {"count": len(names), "as": names[0]} for why, names in whys.items()},
        "notes": list(found.notes),
    }


def halved(case: Case) -> Figures:
    """Every width that can change at half."""
    return _factor(case, "halved", "x0.5")


def widened(case: Case) -> Figures:
    """Every width that can change at one and a half."""
    return _factor(case, "widened", "x1.5")


def _factor(case: Case, step: str, factor: str) -> Figures:
    model = case.model()
    spec = trials.factors(analyse_model(model), factor)
    if not spec.knobs:
        raise Nothing("every width is frozen")
    return _written(case, step, remap_model(model, spec, RemapOptions()))


def grown(case: Case) -> Figures:
    """Every knob that grows exactly, grown: no inner value moves; and narrowed back, bit for bit."""
    model = case.model()
    analysis = analyse_model(model)
    spec = trials.exact_growth(analysis)
    if not spec.knobs:
        raise Nothing("no knob grows exactly")
    made = remap_model(model, spec, RemapOptions(strategy="preserve"))
    figures = _written(case, "grown", made)
    back = remap_model(files.read(case.out("grown")), Spec(own_spec(analysis).knobs), RemapOptions(verify=False))
    if changed := trials.different(normalise(model.graph).graph, normalise(back.model.graph).graph):
        raise Wrong(*(f"'{name}' is not the seed's after growing and narrowing back" for name in changed[:3]))
    return {**figures, "exact": len(spec.knobs)}


def deepened(case: Case) -> Figures:
    """Every stage that can be deeper by a block."""
    model = case.model()
    depths = [knob for knob in analyse_model(model).knobs.values() if knob.kind == "depth"]
    spec = Spec({knob.name: "+1" for knob in depths if knob.growth != "frozen"})
    if not spec.knobs:
        raise Nothing("no stage" if not depths else f"no stage can be deeper: {depths[0].why}")
    return {
        **_written(case, "deepened", remap_model(model, spec, RemapOptions())),
        "stages": len(spec.knobs),
        "of": len(depths),
    }


def resized(case: Case) -> Figures:
    """Another size of the image: one and a half of the seed's, else double, else half."""
    model = case.model()
    image = analyse_model(model).image
    if image.size is None or image.why is not None:
        raise RefusedModel(str(image.why))
    if image.free:
        raise Nothing("the size is free")
    refused: list[str] = []
    for factor in SIDES:
        size = tuple(max(1, round(side * factor)) for side in image.size)
        try:
            made = remap_model(model, Spec({"input.size": (size[0], size[1])}), RemapOptions())
        except (UserError, RefusedModel) as error:
            refused.append(f"{size[0]}×{size[1]}: {error}")
            continue
        return {**_written(case, "resized", made), "size": list(size), "refused": refused}
    raise RefusedModel("; ".join(refused))


def strided(case: Case) -> Figures:
    """The output stride at its next smaller value, exactly where that can be."""
    model = case.model()
    strides = analyse_model(model).strides
    if len(strides.values) == 1:
        raise Nothing(strides.why or "the output stride is 1")
    strategy = "preserve" if strides.growth == "exact" else "fna"
    smaller = max(value for value in strides.values if value < strides.value)
    return _written(
        case, "strided", remap_model(model, Spec({"output_stride": smaller}), RemapOptions(strategy=strategy))
    )


def _written(case: Case, step: str, made: Remapped) -> Figures:
    """The result is in its file; as read from there it runs, is finite where the seed is, costs what was said and
    realises the spec.
    """
    out = case.out(step)
    made.write(out)
    out.with_suffix(".json").write_text(json.dumps(made.plan.resolved.spec().to_json()))
    said, found = made.cost(), profile_model(files.read(out))
    whole = found.whole
    problems = [] if made.plan.identity else _unsound(case, out, made)
    if said.params != whole.params:
        problems.append(f"the remap says {said.params} parameters, the profile of its file {whole.params}")
    if found.sized and said.macs != whole.macs:
        problems.append(f"the remap says {said.macs} multiply-adds, the profile of its file {whole.macs}")
    if problems:
        raise Wrong(*problems)
    drift = None if made.verified is None else made.verified.worst
    left = said.params / made.analysis.cost.params
    grew = out.stat().st_size / case.path.stat().st_size
    return {
        "left": round(left, 4),
        "file": round(grew, 4),
        "drift": drift,
        "drifts": list(made.plan.drifts),
        "notes": list(made.plan.notes),
    }


def _unsound(case: Case, out: Path, made: Remapped) -> list[str]:
    written = analyse_model(files.read(out))
    values = outputs(out, noise(written, 0))
    seed = outputs(case.path, noise(made.analysis, 0))
    problems = [
        f"output '{name}' is not finite, the seed's is"
        for name, found in values.items()
        if not np.isfinite(found).all() and name in seed and np.isfinite(seed[name]).all()
    ]
    wanted, own = made.plan.resolved.spec().knobs, own_spec(written).knobs
    unlike = [name for name in (*wanted, *own) if wanted.get(name) != own.get(name)]
    return problems + [
        f"its own spec differs at '{name}': {own.get(name)}, not {wanted.get(name)}" for name in unlike[:3]
    ]


def read(case: Case) -> Figures:
    """What torch computes is what ONNX Runtime does, on every inner tensor."""
    found = reading.every_tensor(case.path)
    if not found.is_right:
        raise Wrong(
            f"'{found.tensor}' of {found.compared} is off by {found.drift:.1e}, rounding may "
            f"{found.rounding:.1e}; {found.note}"
        )
    return asdict(found)


STEPS: Mapping[str, Callable[[Case], Figures]] = {
    "normal": normal,
    "halved": halved,
    "widened": widened,
    "grown": grown,
    "deepened": deepened,
    "resized": resized,
    "strided": strided,
    "read": read,
}
"""After `look`, without which there is none of them."""


# --- one network --------------------------------------------------------------------------------


def measure(path: Path, *, seconds: float = SECONDS, only: str = "") -> dict[str, Outcome]:
    """All steps of one file, or the one asked for; its seed's own check comes first."""
    with tempfile.TemporaryDirectory() as name:
        case = Case(path.absolute(), Path(name))
        rows = {"check": _checked(case.path, seconds), "inspect": _command(["inspect", str(case.path)], seconds)}
        sound = rows["check"].end == OK
        rows["look"] = isolated(look, case, seconds)
        if rows["look"].end != OK:
            return rows
        for step, function in STEPS.items():
            if only in ("", step):
                rows[step] = isolated(function, case, seconds)
                if rows[step].end == OK and case.out(step).exists() and sound:
                    rows[step] = _then_checked(rows[step], case, step, seconds)
        for task in TASKS:
            if only in ("", task):
                rows[task] = _headed(case, task, seconds, sound=sound)
        return rows


def isolated(step: Callable[[Case], Figures], case: Case, seconds: float) -> Outcome:
    """How the step ends in a child process."""
    start = time.monotonic()
    try:
        found: Outcome = isolate.run(_ended, step, case, seconds=seconds, memory=MEMORY)
    except isolate.Died as error:
        found = Outcome(KILLED, str(error))
    return replace(found, seconds=round(time.monotonic() - start, 2))


def _ended(step: Callable[[Case], Figures], case: Case) -> Outcome:
    """In the child: the step, and what became of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            figures = step(case)
        except Nothing as nothing:
            return Outcome(NOTHING, str(nothing))
        except (RefusedModel, UserError) as refusal:
            return Outcome(WRONG if UNTRUE.search(str(refusal)) else REFUSED, str(refusal))
        except Wrong as wrong:
            return Outcome(WRONG, str(wrong))
        except MemoryError:
            raise  # the limit on memory: the parent says so
        except BaseException:  # noqa: BLE001 - whatever it is, it is the finding
            return Outcome(TRACEBACK, traceback.format_exc(limit=-6))
    return Outcome(OK, figures={**figures, "warnings": [str(warning.message) for warning in caught]})


def _command(command: Sequence[str], seconds: float) -> Outcome:
    return _judged(attempt(command, seconds=seconds, memory=MEMORY))


def _judged(run: Attempt) -> Outcome:
    """A command's end as an outcome."""
    reason = (run.err.strip() or run.out.strip())[:2000]
    if run.bad:
        return Outcome(KILLED if run.code is None else TRACEBACK, f"{run.bad}; {reason}", run.seconds)
    if run.code != SUCCESS:
        return Outcome(WRONG if UNTRUE.search(reason) else REFUSED, reason, run.seconds)
    return Outcome(OK, "", run.seconds, {"err": run.err.strip()[:2000]})


def _checked(path: Path, seconds: float, *demands: str) -> Outcome:
    return _command(["check", str(path), *demands], seconds)


def _then_checked(before: Outcome, case: Case, step: str, seconds: float) -> Outcome:
    """The step's outcome, or what `check` says of its file: it must be as sound as the seed, with its interface, and
    realise the spec.
    """
    out = case.out(step)
    found = _checked(out, seconds, "--against", str(case.path), "--spec", str(out.with_suffix(".json")))
    if found.end == OK:
        return before
    end = found.end if found.end in BAD else WRONG
    return Outcome(end, f"check: {found.reason}", before.seconds + found.seconds, before.figures)


def _headed(case: Case, task: str, seconds: float, *, sound: bool) -> Outcome:
    """A head of the task on the network, checked, with the share of the seed's parameters that is still there."""
    out = case.out(task)
    command = ["head", str(case.path), "--task", task, "--classes", "7", "-o", str(out)]
    found = _command(command, seconds)
    # grey, or of other channels: nothing is known of the pixels
    if found.end == REFUSED and "--mean and --scale" in found.reason:
        found = _command([*command, "--mean", "0", "--scale", "255"], seconds)
    if found.end != OK:
        return found
    checked = _checked(out, seconds)
    if checked.end != OK and sound:
        return Outcome(checked.end if checked.end in BAD else WRONG, f"check: {checked.reason}", found.seconds)
    kept = isolated(partial(_kept, task), case, seconds)
    return replace(kept, seconds=found.seconds, figures={**found.figures, **kept.figures})


def _kept(task: str, case: Case) -> Figures:
    seed = analyse_model(case.model()).cost.tensor_params
    after = analyse_model(files.read(case.out(task))).view.constants
    return {"kept": round(sum(size for name, size in seed.items() if name in after) / sum(seed.values()), 4)}


# --- all of them --------------------------------------------------------------------------------


def general(reason: str) -> str:
    """The reason without the names and numbers of this network, so that equal ones meet."""
    return re.sub(r"\d+(?:[.×,]\d+)*(?:e[-+]?\d+)?", "N", re.sub(r"'[^']*'", "'…'", reason))


Rows = Mapping[str, Mapping[str, Outcome]]


def bars(rows: Rows) -> Figures:
    """The counts that the bars are about."""
    ends = [outcome.end for row in rows.values() for outcome in row.values()]
    left = {
        name: float(str(row["halved"].figures["left"]))
        for name, row in rows.items()
        if "left" in _figures(row, "halved")
    }
    growth = _ends(rows, "grown")
    heads = {task: _kept_of(rows, task) for task in TASKS}
    return {
        "networks": len(rows),
        "analysed": sum(row["look"].end == OK for row in rows.values()),
        **{f"steps {end}": ends.count(end) for end in (OK, REFUSED, WRONG, TRACEBACK, KILLED, NOTHING)},
        "median left when halved": statistics.median(left.values()) if left else None,
        "over half left when halved": {
            name: [share, _holders(rows[name])] for name, share in left.items() if share > 0.5
        },
        "exact growth": f"{growth.count(OK)} of {len(growth) - growth.count(NOTHING)}",
        "not narrowed back": [name for name, row in rows.items() if "narrowing back" in _reason(row, "grown")],
        "read right": f"{_ends(rows, 'read').count(OK)} of {len(_ends(rows, 'read'))}",
        "median kept under a head": {task: statistics.median(kept.values()) for task, kept in heads.items() if kept},
        "less than half kept": {
            task: sorted(name for name, share in kept.items() if share < 0.5) for task, kept in heads.items()
        },
    }


def _figures(row: Mapping[str, Outcome], step: str) -> Mapping[str, object]:
    return row[step].figures if step in row else {}


def _reason(row: Mapping[str, Outcome], step: str) -> str:
    return row[step].reason if step in row else ""


def _ends(rows: Rows, step: str) -> list[str]:
    return [row[step].end for row in rows.values() if step in row]


def _kept_of(rows: Rows, task: str) -> dict[str, float]:
    return {
        name: float(str(_figures(row, task)["kept"])) for name, row in rows.items() if "kept" in _figures(row, task)
    }


def _holders(row: Mapping[str, Outcome]) -> list[str]:
    """What holds most of the parameters."""
    held = _figures(row, "look").get("held")
    return [f"{size} by {why}" for why, size in list(held.items())[:SHOWN]] if isinstance(held, dict) else []


def reasons(rows: Rows) -> dict[str, dict[str, list[str]]]:
    """end → reason without names → the networks and steps that gave it, the first with its own words."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, row in rows.items():
        for step, outcome in row.items():
            if outcome.reason:
                told = outcome.reason.strip().splitlines()
                line = told[-1] if outcome.end == TRACEBACK else told[0]
                seen = found.setdefault(outcome.end, {}).setdefault(f"{step}: {general(line)}", [])
                seen.append(f"{name}" if seen else f"{name}: {outcome.reason[:600]}")
    return found


def knob_reasons(rows: Rows) -> dict[str, list[str]]:
    """Every reason that a knob gives, with the networks where it does, the first in its own words."""
    found: dict[str, list[str]] = {}
    for name, row in rows.items():
        whys = _figures(row, "look").get("whys")
        for why, said in whys.items() if isinstance(whys, dict) else ():
            seen = found.setdefault(why, [])
            seen.append(f"{name} ({said['count']})" + ("" if seen else f": {said['as']}"))
    return dict(sorted(found.items()))


def _line(name: str, row: Mapping[str, Outcome]) -> str:
    """A network's figures in the table, and below what is not ok."""
    short = {OK: "ok", REFUSED: "ref", WRONG: "WRONG", TRACEBACK: "TRACE", KILLED: "KILLED", NOTHING: "–"}
    cells = [short[row[step].end] if step in row else "" for step in ("check", "look", "normal")]
    for step, figure in COLUMNS.items():
        value = _figures(row, step).get(figure)
        cells.append(f"{value:.3g}" if isinstance(value, float) else short[row[step].end] if step in row else "")
    lines = [f"{name[:40]:40} " + " ".join(f"{cell:>7}" for cell in cells)]
    for step, outcome in row.items():
        if outcome.end in BAD:
            told = outcome.reason.strip().splitlines() or [""]
            lines.append(f"    {step}: {outcome.end}: {(told[-1] if outcome.end == TRACEBACK else told[0])[:200]}")
    return "\n".join(lines)


COLUMNS = {
    "halved": "left",
    "widened": "left",
    "grown": "drift",
    "deepened": "left",
    "resized": "drift",
    "strided": "drift",
    "read": "drift",
    **dict.fromkeys(TASKS, "kept"),
}


def main() -> None:
    """Measure the files and print a row for each, then the counts."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_networks", description=__doc__.partition("\n\n")[0]
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE_OR_FOLDER", help="ONNX files, or folders of them")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where the figures go")
    parser.add_argument("--only", default="", metavar="STEP", help=f"only this step: {', '.join((*STEPS, *TASKS))}")
    parser.add_argument("--resume", action="store_true", help="leave out the networks that FILE has already")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that a step may take")
    options = parser.parse_args()
    warm_up()
    rows = _before(options.output) if options.resume and options.output and options.output.exists() else {}
    print(f"{'network':40} " + " ".join(f"{name[:7]:>7}" for name in ("check", "look", "normal", *COLUMNS)))
    for name, path in named(options.paths).items():
        if name in rows and options.resume:
            continue
        rows[name] = measure(path, seconds=options.seconds, only=options.only)
        print(_line(name, rows[name]), flush=True)
        if options.output:
            _write(options.output, rows)
    print()
    for what, count in bars(rows).items():
        print(f"{what}: {count}")
    raise SystemExit(1 if any(outcome.end in BAD for row in rows.values() for outcome in row.values()) else 0)


def warm_up() -> None:
    """Everything that the steps import is imported, once and before any fork: torch takes its time to get ready for
    shapes alone.
    """
    import fnatool.model.headed  # noqa: F401

    fuzz.warm_up()
    torch.nn.functional.conv2d(torch.empty(1, 1, 1, 1, device="meta"), torch.empty(1, 1, 1, 1, device="meta"))


def named(paths: Iterable[Path]) -> dict[str, Path]:
    """The ONNX files, each under the name of its file, with its folder where two have one name."""
    found: dict[str, Path] = {}
    for given in paths:
        for path in sorted(given.rglob("*.onnx")) if given.is_dir() else [given]:
            found[path.stem if path.stem not in found else f"{path.parent.name}/{path.stem}"] = path
    return found


def _before(path: Path) -> dict[str, dict[str, Outcome]]:
    document = json.loads(path.read_text())
    return {
        name: {step: Outcome(**outcome) for step, outcome in row.items()} for name, row in document["networks"].items()
    }


def _write(path: Path, rows: Rows) -> None:
    networks = {name: {step: asdict(outcome) for step, outcome in row.items()} for name, row in rows.items()}
    document = {"bars": bars(rows), "reasons": reasons(rows), "knobs": knob_reasons(rows), "networks": networks}
    write_text(path, json.dumps(document, indent=1, default=str, ensure_ascii=False) + "\n", force=True)


if __name__ == "__main__":
    main()
