"""`python -m benchmarks.label_free DIR --images DIR`: any ONNX files to a budget without labels; one row each.

A network is searched by distance, its target learns a few steps of what the seed computes, and the file is compared
with the seed on samples kept back, before these steps and after. Beside it stand what it costs, as `fnatool profile`
counts, and the budget. A network whose input is no picture has its samples as .npy files in a folder of its name in
`--inputs`. A row is ok, refused (with the message), wrong, or what the process died of. Exit code 1 where something is
wrong or died.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.attempt import GIB, attempt
from benchmarks.real_networks import NOTHING, OK, REFUSED, WRONG, named, warm_up
from fnatool.cli.app import SUCCESS
from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.files.runfolder import REPORT
from fnatool.imitation.in_runtime import compare
from fnatool.model.analysed import analyse_model
from fnatool.search import folder as folders
from fnatool.search.config import parse_search
from fnatool.search.emitting import ground_alike
from fnatool.search.preparing import unlabelled
from fnatool.training.processes import World
from passes.space.budgets import parse_budget
from passes.space.costs import whole_costs

MEMORY = 16 * GIB
Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """Samples, the budget, what the config says beyond the defaults, and how long a search may take."""

    images: Path
    inputs: Path | None
    budget: str
    config: Mapping[str, Any]
    seconds: float

    def samples(self, name: str) -> Path:
        """A folder of the network's own, or else the pictures."""
        own = None if self.inputs is None else self.inputs / name
        return own if own is not None and own.is_dir() else self.images


def measure(name: str, path: Path, options: Options) -> Row:
    """The row of a network."""
    with tempfile.TemporaryDirectory(prefix="label_free.") as place:
        folder = Path(place) / "run"
        config = Path(place) / "search.toml"
        config.write_text(_toml(options.config))
        samples = options.samples(name)
        command = [
            "search",
            str(path),
            "--images",
            str(samples),
            "--budget",
            options.budget,
            "--config",
            str(config),
            "-o",
            str(folder),
        ]
        done = attempt(command, seconds=options.seconds, memory=MEMORY)
        row: Row = {"end": OK, "seconds": round(done.seconds, 1)}
        if done.bad:
            return {
                **row,
                "end": WRONG if done.code is not None else done.death,
                "reason": _nameless(done.bad, path, place),
            }
        if done.code != SUCCESS:
            return {**row, "end": REFUSED, "reason": _nameless(done.err.strip().removeprefix("fnatool: "), path, place)}
        return {**row, **figures(path, folder, options.budget)}


def figures(path: Path, folder: Path, budget: str) -> Row:
    """What a finished search came to."""
    report = json.loads((folder / REPORT).read_text())
    asked = parse_budget(budget)
    costs = [whole_costs(analyse_model(files.read(one)))[asked.kind] for one in (path, folder / folders.TARGET)]
    limit = asked.limit(costs[0])
    config = parse_search(json.loads((folder / folders.RUN).read_text())["config"])
    seed = files.read(path)
    _, kept = unlabelled(ground_alike(seed, config), config, World(0, 1, torch.device("cpu")))
    before, left_out = compare((folder / folders.REMAPPED, path), (kept, kept))
    after, _ = compare((folder / folders.TARGET, path), (kept, kept))
    return {
        "end": OK if costs[1] <= limit else WRONG,
        "kind": asked.kind,
        "seed": costs[0],
        "budget": limit,
        "target": costs[1],
        "trunk": report["architecture"]["trunk"]["share"],
        "measured": report["measured"],
        "features": report["architecture"]["distance"],
        "before": before.distance,
        "after": after.distance,
        "kept": len(kept),
        "left_out": sorted(left_out),
    }


def _nameless(text: str, path: Path, place: str) -> str:
    """A message without the paths of this machine."""
    return (
        text.replace(str(path.parent.resolve()) + "/", "")
        .replace(str(path.parent) + "/", "")
        .replace(place + "/", "")
        .splitlines()[-1]
    )


def _toml(config: Mapping[str, Any]) -> str:
    lines = ['task = "none"']
    for name, section in config.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
    return "\n".join(lines) + "\n"


def line(name: str, row: Row) -> str:
    """A row as it is printed."""
    if "after" not in row:
        return f"{name:24} {row['end']}: {row.get('reason', '')} ({row['seconds']:.0f} s)"
    costs = f"{row['seed']:>14,} → {row['target']:>14,} of {row['budget']:>14,}"
    return (
        f"{name:24} {row['end']:8} {costs}  ×{row['trunk']:<5}  {row['before']:.3f} → {row['after']:.3f}  "
        f"{row['seconds']:.0f} s"
    )


def main() -> None:
    """Search every network, and print a row for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.label_free", description=__doc__.partition("\n\n")[0])
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE_OR_FOLDER", help="ONNX files, or folders of them")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="pictures")
    parser.add_argument(
        "--inputs", type=Path, metavar="DIR", help="a folder NAME for each network whose inputs are no pictures"
    )
    parser.add_argument("--budget", default="madds=0.7x")
    parser.add_argument(
        "--config",
        type=json.loads,
        default={"finetune.run": {"steps": 20}},
        metavar="JSON",
        help="section → key → value",
    )
    parser.add_argument("--seconds", type=float, default=3600, help="that a network may take")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where the figures go")
    parser.add_argument("--resume", action="store_true", help="leave out the networks that FILE has already")
    asked = parser.parse_args()
    options = Options(asked.images, asked.inputs, asked.budget, asked.config, asked.seconds)
    warm_up()
    known = asked.resume and asked.output is not None and asked.output.exists()
    rows: dict[str, Row] = json.loads(asked.output.read_text())["networks"] if known else {}
    for name, path in named(asked.paths).items():
        if name not in rows:
            rows[name] = measure(name, path, options)
            print(line(name, rows[name]), flush=True)
        if asked.output is not None:
            document = {"budget": options.budget, "config": options.config, "networks": dict(sorted(rows.items()))}
            write_text(asked.output, json.dumps(document, indent=1, ensure_ascii=False) + "\n", force=True)
    ends = [row["end"] for row in rows.values()]
    print({end: ends.count(end) for end in dict.fromkeys(ends)})
    raise SystemExit(1 if any(end not in (OK, REFUSED, NOTHING) for end in ends) else 0)


if __name__ == "__main__":
    main()
