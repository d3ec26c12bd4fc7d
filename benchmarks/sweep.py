"""`python -m benchmarks.sweep`: every network of the zoo through every trial, beside what Torch-Pruning leaves of it;
one row each.

Models that are not built yet are built first. The figures go to benchmarks/results/sweep.json; the exit code is 1 if a
trial failed.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from benchmarks import zoo
from benchmarks.trials import Trial, trial
from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.runtime import isolate
from passes.errors import RefusedModel

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("onnx", "onnxruntime-gpu", "onnx-graphsurgeon", "numpy", "scipy", "torch", "torchvision", "timm")
MARGIN = 0.02  # more than Torch-Pruning leaves may be left
LIGHT_LEFT = 0.40  # of a light graph's parameters may be left
SECONDS = 1800  # a model


def main() -> None:
    """Run the sweep and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--name", default="*", metavar="PATTERN", help="only exports like this, as timm.resnet*")
    parser.add_argument("--representative", action="store_true", help="only the quick ones")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "sweep.json", metavar="FILE", help="where the figures go"
    )
    options = parser.parse_args()
    exports = [
        e
        for e in (zoo.REPRESENTATIVE if options.representative else zoo.SWEEP)
        if fnmatch.fnmatch(zoo.place(e).stem, options.name)
    ]
    baseline = json.loads((RESULTS / "torch_pruning.json").read_text())["models"]
    rows: dict[str, dict[str, object]] = {}
    print(
        f"{'model':58} {'nodes':>5} {'left':>6} {'TP':>6} {'x1.25':>6} {'growth':>8} {'narrow':>8} {'cover':>6} "
        f"{'s':>5}  stages"
    )
    for export in exports:
        row = _row(export, baseline.get(export.name, {}).get("left"))
        rows[zoo.place(export).stem] = row
        print(_line(zoo.place(export).stem, row), flush=True)
        _write(options.output, rows)
    failed = [name for name, row in rows.items() if row["problems"]]
    times = [float(str(row["analyse_s"])) for row in rows.values() if "analyse_s" in row]
    if times:
        print(
            f"{len(rows)} models, {len(failed)} failed; analysis {statistics.median(times):.2f} s in the "
            f"median, {max(times):.2f} s at most"
        )
    raise SystemExit(1 if failed else 0)


def _row(export: zoo.Export, torch_pruning: float | None) -> dict[str, object]:
    """The figures of one model, in a process of its own."""
    try:
        found = isolate.run(_measure, export, seconds=SECONDS, memory=20 * isolate.GIB)
    except (isolate.Died, RefusedModel) as error:
        if isinstance(error, RefusedModel) and export.opset > zoo.RUNTIME_NEWEST:
            # nothing here can run the seed itself
            return {"problems": [], "refused": str(error), "torch_pruning": torch_pruning}
        return {"problems": [str(error)], "torch_pruning": torch_pruning}
    limit = LIGHT_LEFT if torch_pruning is None and export.name.startswith("light:") else None
    limit = torch_pruning + MARGIN if torch_pruning is not None else limit
    problems = list(found.problems)
    if limit is not None and found.left > limit:
        problems.append(f"{found.left:.3f} of the parameters are left, {limit:.3f} allowed")
    return {**asdict(found), "torch_pruning": torch_pruning, "problems": problems}


def _measure(export: zoo.Export) -> Trial:
    return trial(files.read(zoo.cached(export)).graph)


def _line(name: str, row: dict[str, object]) -> str:
    given = row["torch_pruning"]
    reference = "" if given is None else f"{given:.3f}"
    problems: Sequence[str] = row["problems"]  # type: ignore[assignment]
    if "nodes" not in row:
        return f"{name:58} " + (f"FAILED {problems[0]}" if problems else f"refused: {row['refused']}")
    figures = (
        f"{row['nodes']:5} {row['left']:6.3f} {reference:>6} {row['widened']:6.3f} "
        f"{row['worst_growth']:8.1e} {row['worst_narrowing']:8.1e} "
        f"{row['covered']:6.3f} {row['analyse_s']:5.2f}  {','.join(map(str, row['stages']))}"  # type: ignore[call-overload]
    )
    return f"{name:58} {figures}" + "".join(f"\n    {problem}" for problem in problems)


def _write(path: Path, rows: dict[str, dict[str, object]]) -> None:
    versions = {name: metadata.version(name) for name in PACKAGES}
    document = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": versions,
        "models": rows,
    }
    write_text(path, json.dumps(document, indent=1) + "\n", force=True)


if __name__ == "__main__":
    main()
