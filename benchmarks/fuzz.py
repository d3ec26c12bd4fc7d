"""`python -m benchmarks.fuzz`: damaged model files and wild specs through `inspect`, `remap` and `check`.

Each command either does what was asked, and then the result passes `check`, or refuses with a message and exit code 1
or 2: no traceback, no crash, no hang. Every case follows from (seed, kind, number) alone; `--replay KIND:NUMBER` runs
one again and keeps its files.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import platform
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import fnatool
from benchmarks import bases, hostile, mutations, wild_specs
from benchmarks.attempt import GIB, Attempt, attempt
from fnatool.cli.app import SUCCESS
from fnatool.files.atomic import write_text

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("onnx", "onnxruntime-gpu", "onnx-graphsurgeon", "numpy", "scipy", "protobuf", "click", "rich")
SECONDS = 60.0  # a command
HOSTILE_MEMORY = 3 * GIB  # of address space for a command and its children
FRESH = 25  # one case in so many runs in fresh Python processes
SLOWEST = 10  # cases that the results name
SHOWN = 6000  # characters of a stream that a case keeps


@dataclass(frozen=True)
class Case:
    """What became of one case: the damage or the spec, every command, and what must not have happened."""

    kind: str
    number: int
    about: str
    attempts: tuple[Attempt, ...]
    outcome: str = ""
    problems: tuple[str, ...] = ()


# --- files --------------------------------------------------------------------------------------


def file_case(seed: int, number: int, folder: Path) -> Case:
    """A damaged file through all three commands."""
    rng = random.Random(f"{seed}/files/{number}")
    run = _runner(number)
    name, other = _base(rng), _base(rng, large=0.0)
    data, damage = mutations.damaged(bases.base(name), bases.base(other), rng)
    model, spec, out = folder / "model.onnx", folder / "spec.json", folder / "out.onnx"
    model.write_bytes(data)
    _surroundings(folder)
    attempts = [run("inspect", model, *(["--json"] if rng.random() < 0.8 else []))]
    patterns: dict[str, object] = {rng.choice(("**.width*", "**.hidden*", "**")): rng.choice(("x0.5", "x1.25"))}
    wanted = wild_specs.sound(_knobs(attempts[0]), rng) if rng.random() < 0.6 else patterns
    spec.write_text(json.dumps({"version": 1, "knobs": wanted}))
    attempts.append(run("remap", model, "--spec", spec, "-o", out, "--strategy", rng.choice(("fna", "preserve"))))
    attempts.append(run("check", model))
    if out.exists() and attempts[-1].code == SUCCESS:  # of a seed that fails the check the result may fail it, too
        attempts.append(run("check", out, "--against", model, "--spec", spec))
    return _judged(Case("files", number, f"{name}: {', '.join(damage)}", tuple(attempts)))


def _runner(number: int) -> Callable[..., Attempt]:
    """How the commands of a case run: one case in FRESH in new Python processes, as users run them."""

    def run(*command: object) -> Attempt:
        return attempt([str(part) for part in command], seconds=SECONDS, fresh=number % FRESH == FRESH - 1)

    return run


def _base(rng: random.Random, large: float = 0.08) -> str:
    return rng.choice(bases.LARGE if rng.random() < large else list(bases.WRITTEN))


def _surroundings(folder: Path) -> None:
    """What external data may point to: a file beside the model, a link out of the folder, a pipe."""
    (folder / "data.bin").write_bytes(bytes(4096))
    (folder / "link").symlink_to("/etc/hostname")
    os.mkfifo(folder / "fifo")


def _knobs(looked: Attempt) -> list[wild_specs.Knob]:
    """What `inspect --json` lists and has a value (the size of an image may be free); nothing where it refused, or drew
    tables.
    """
    rows = json.loads(looked.out)["knobs"] if looked.code == SUCCESS and "--json" in looked.command else []
    return [row for row in rows if row["value"] is not None]


# --- specs --------------------------------------------------------------------------------------


def spec_case(seed: int, number: int, folder: Path) -> Case:
    """A wild spec for a sound network."""
    rng = random.Random(f"{seed}/specs/{number}")
    run = _runner(number)
    name = _base(rng)
    model, spec, out = folder / "model.onnx", folder / "spec.json", folder / "out.onnx"
    model.write_bytes(bases.base(name))
    looked = run("inspect", model, "--json")
    asked = wild_specs.wish(_knobs(looked), rng)
    spec.write_text(asked.text, encoding="utf-8", errors="surrogatepass")
    attempts = [looked, run("remap", model, "--spec", spec, "-o", out, *asked.options)]
    problems = []
    if attempts[-1].code == SUCCESS:
        attempts.append(run("check", out, "--against", model, "--spec", spec))
    elif asked.sound and looked.code == SUCCESS and "preserve" not in asked.options:
        problems.append(f"a sound spec is refused: {attempts[-1].err.strip()[:300]}")
    about = f"{name}: {' '.join(asked.options)} {asked.text[:300]}"
    return _judged(Case("specs", number, about, tuple(attempts), problems=tuple(problems)))


# --- what is made to hurt -----------------------------------------------------------------------


def hostile_case(seed: int, number: int, folder: Path) -> Case:
    """One of the hostile cases, whatever the seed."""
    name, make = list(hostile.CASES.items())[number]
    attempts = [attempt(command, seconds=SECONDS, memory=HOSTILE_MEMORY) for command in make(folder)]
    needed = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    short = [one for one in attempts if "not enough memory" in one.err and needed < HOSTILE_MEMORY]
    problems = [f"{one.command[0]}: {one.err.strip()[:200]}" for one in short]
    return _judged(Case("hostile", number, name, tuple(attempts), problems=tuple(problems)))


# --- all ----------------------------------------------------------------------------------------


def _judged(case: Case) -> Case:
    """The case with its outcome and all its problems, without the bulk of what was printed."""
    problems = [f"{one.command[0]}: {one.bad}" for one in case.attempts if one.bad]
    last = case.attempts[-1]
    if "--against" in last.command and last.code != SUCCESS:
        problems.append(f"the result of remap fails the check: {(last.out + last.err).strip()[:400]}")
    made = any(one.command[0] == "remap" and one.code == SUCCESS for one in case.attempts)
    attempts = tuple(replace(one, out=one.out[:SHOWN], err=one.err[-SHOWN:]) for one in case.attempts)
    return replace(
        case, attempts=attempts, outcome="remapped" if made else "refused", problems=(*case.problems, *problems)
    )


CASES: Mapping[str, Callable[[int, int, Path], Case]] = {
    "specs": spec_case,
    "hostile": hostile_case,
    "files": file_case,
}


def run_case(task: tuple[str, int], *, seed: int, root: Path) -> Case:
    """One case in a folder of its own, which goes again unless there is something to look at."""
    kind, number = task
    folder = root / f"{kind}-{number}"
    folder.mkdir(parents=True)
    case = CASES[kind](seed, number, folder)
    if not case.problems:
        shutil.rmtree(folder)
    return case


def run_all(tasks: Sequence[tuple[str, int]], *, seed: int, jobs: int, root: Path) -> list[Case]:
    """All cases, in as many processes as jobs; problems are printed as they come."""
    warm_up()
    found: list[Case] = []
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=500) as pool:
        for case in pool.imap_unordered(functools.partial(run_case, seed=seed, root=root), tasks):
            found.append(case)
            for problem in case.problems:
                print(f"{case.kind}:{case.number}  {case.about[:160]!r}\n    {problem}", flush=True)
            if len(found) % 200 == 0:
                print(f"{len(found)} of {len(tasks)}", flush=True)
    return sorted(found, key=lambda case: (case.kind, case.number))


def warm_up() -> None:
    """Import what the commands import, once and before any fork."""
    import onnx.reference  # noqa: F401
    import onnxruntime  # noqa: F401
    import rich.table  # noqa: F401

    import fnatool.cli.show.analysis
    import fnatool.cli.show.remapped
    import fnatool.model.inspect
    import fnatool.model.remap
    import fnatool.runtime.verify  # noqa: F401

    for name in bases.WRITTEN:
        bases.base(name)


# --- results ------------------------------------------------------------------------------------


def summary(cases: Sequence[Case], *, seed: int, seconds: float) -> dict[str, object]:
    """Counts, times and memory of a run, the slowest cases, every problem, and on what it ran."""
    attempts = [one for case in cases for one in case.attempts]
    return {
        "seed": seed,
        "cases": {kind: Counter(case.outcome for case in cases if case.kind == kind) for kind in CASES},
        "exit_codes": {name: Counter(str(one.code) for one in attempts if one.command[0] == name) for name in COMMANDS},
        "seconds": {name: _spread([one.seconds for one in attempts if one.command[0] == name]) for name in COMMANDS},
        "peak_mb": {name: _spread([one.peak / 1e6 for one in attempts if one.command[0] == name]) for name in COMMANDS},
        "slowest": _most(cases, lambda one: one.seconds),
        "largest": _most(cases, lambda one: round(one.peak / 1e6)),
        "problems": {f"{case.kind}:{case.number}": [case.about, *case.problems] for case in cases if case.problems},
        "wall_seconds": round(seconds),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {"fnatool": fnatool.__version__} | {name: metadata.version(name) for name in PACKAGES},
    }


COMMANDS = ("inspect", "remap", "check")


def _spread(values: Iterable[float]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {}
    at = {"median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 3) for name, share in at.items()}


def _most(cases: Sequence[Case], figure: Callable[[Attempt], float]) -> list[tuple[str, str, float, str]]:
    rows = [
        (f"{case.kind}:{case.number}", one.command[0], figure(one), case.about[:80])
        for case in cases
        for one in case.attempts
    ]
    return sorted(rows, key=lambda row: -row[2])[:SLOWEST]


def replay(name: str, seed: int) -> None:
    """One case again, its commands and what they said; its files stay."""
    warm_up()
    kind, _, number = name.rpartition(":")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    case = CASES[kind or "files"](seed, int(number), folder)
    print(f"{case.about}\n")
    for one in case.attempts:
        print(
            f"fnatool {' '.join(one.command)}\n  {one.death or f'exit code {one.code}'}, {one.seconds} s, {one.peak / 1e6:.0f} MB"
        )
        print("".join(f"  | {line}\n" for line in (one.out + one.err).splitlines()[:40]))
    print(*case.problems or ("no problem",), sep="\n")


def again(path: Path, jobs: int, root: Path) -> bool:
    """The cases with problems of an earlier run on the code as it is now; what became of them is written beside them.
    Whether all went well.
    """
    document = json.loads(path.read_text())
    names = [(kind, int(number)) for kind, _, number in (name.rpartition(":") for name in document["problems"])]
    cases = run_all(names, seed=document["seed"], jobs=jobs, root=root)
    document["problems_again"] = {f"{case.kind}:{case.number}": case.problems for case in cases}
    write_text(path, json.dumps(document, indent=1) + "\n", force=True)
    return not any(case.problems for case in cases)


def main() -> None:
    """Run the fuzzer; exit 1 where anything happened that must not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--files", type=int, default=2000, help="damaged model files")
    parser.add_argument("--specs", type=int, default=2000, help="wild specs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", choices=list(CASES))
    parser.add_argument("--start", type=int, default=0, help="the first number")
    parser.add_argument("--replay", metavar="KIND:NUMBER", help="run one case and show it")
    parser.add_argument("--again", action="store_true", help="run the cases with problems in --output again")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "fuzz.json", metavar="FILE", help="where the figures go"
    )
    options = parser.parse_args()
    if options.replay is not None:
        replay(options.replay, options.seed)
        return
    counts = {"files": options.files, "specs": options.specs, "hostile": len(hostile.CASES)}
    kinds = [options.only] if options.only else list(CASES)
    tasks = [(kind, options.start + k) for kind in kinds for k in range(counts[kind])]
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    if options.again:
        raise SystemExit(not again(options.output, options.jobs, root))
    start = time.monotonic()
    cases = run_all(tasks, seed=options.seed, jobs=options.jobs, root=root)
    found = summary(cases, seed=options.seed, seconds=time.monotonic() - start)
    write_text(options.output, json.dumps(found, indent=1) + "\n", force=True)
    bad = sum(bool(case.problems) for case in cases)
    for name in COMMANDS:
        print(name, found["seconds"][name], found["exit_codes"][name])  # type: ignore[index]
    print(
        f"{len(cases)} cases in {found['wall_seconds']} s: {found['cases']}; {bad} with problems"
        + (f", their files in {root}" if bad else "")
    )
    if bad:
        raise SystemExit(1)
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
