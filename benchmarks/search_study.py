"""`python -m benchmarks.search_study`: searches beside chance, hand, and other tools, at equal cost and with equal
fine-tuning.

A cell is a row (a way to an architecture) on a task at a budget with a seed. After the architecture is there all rows
go the same way: the same head, the same last phase, figures in ONNX Runtime on what is kept back; everything on one
thread. Each cell leaves a file when it is done, and is never done again: the study can be stopped at any time and goes
on, and any part of it can be asked for. The tables are of all cells that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch

from benchmarks.study import table
from benchmarks.study.cells import BUDGETS, STEPS, Asked, Cell, done, minutes, perform, plan
from benchmarks.study.rows import ROWS
from benchmarks.study.tasks import StudyTask, alike, labelled
from fnatool.files.atomic import write_text
from passes.errors import RefusedModel, UserError

RESULTS = Path(__file__).parent / "results"
LABELLED = ("classification", "segmentation")


def tasks_of(options: argparse.Namespace) -> list[StudyTask]:
    """The tasks asked for, their data in place."""
    found = [labelled(task, options.folder) for task in options.task if task in LABELLED]
    if options.like and options.images is None:
        raise UserError("a network to be like itself (--like) needs photographs: --images DIR")
    named = [alike(model, options.images, options.kept) for model in options.like]
    return found + [task for task in named if "like" in options.task or task.name in options.task]


def show_plan(cells: Sequence[Cell], tasks: Sequence[StudyTask], folder: Path) -> None:
    """The cells, and the minutes of each that is not done."""
    left = 0.0
    for cell, each in zip(cells, minutes(cells, {task.name: task for task in tasks}, folder), strict=True):
        left += each or 0.0
        print(f"{cell.name}: {'done' if each is None else f'{each:.1f} min'}")
    print(f"{len(cells)} cells, {left:.0f} minutes left, as estimated for one core with nothing else to do")


def perform_all(cells: Sequence[Cell], tasks: Sequence[StudyTask], folder: Path) -> int:
    """Every cell in its turn; what fails is said and left for the next time. How many failed."""
    failed, named = 0, {task.name: task for task in tasks}
    for cell in cells:
        if done(cell, folder).exists():
            continue
        began = time.monotonic()
        try:
            found = perform(cell, named[cell.task], folder)
        except (UserError, RefusedModel) as error:
            failed += 1
            print(f"{cell.name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            continue
        came = found.get("impossible") or f"{found['metric']} {found['figure']:.4f} at {found['share']:.1%}"
        print(f"{cell.name}: {came} ({(time.monotonic() - began) / 60:.1f} min)", flush=True)
    return failed


def write(folder: Path, output: Path, page: Path | None) -> None:
    """The tables of all cells that are there, printed, as JSON, and in a page between its marks."""
    cells = table.finished(folder)
    if not cells:
        print("no cell is done yet")
        return
    found, ranked = table.tables(cells), table.ranks(cells)
    versions = {name: metadata.version(name) for name in ("torch", "onnxruntime-gpu", "numpy", "torch-pruning")}
    machine = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }
    write_text(output, json.dumps({**machine, "spearman": ranked, "cells": cells}, indent=1) + "\n", force=True)
    if page is not None:
        write_text(page, table.placed(page.read_text(encoding="utf-8"), found), force=True)
    print(found)
    for place, row in ranked.items():
        print(
            f"{place}: rank correlation with the figure of "
            f"{', '.join(f'{name} {value:.2f}' for name, value in row.items())}"
        )
    for one in table.over_budget(cells):
        print(f"over its budget: {one['task']} {one['row']} {one['budget']} %: {one['share']:.2%}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.search_study", description=(__doc__ or "").partition("\n\n")[0]
    )
    made.add_argument("--plan", action="store_true", help="print the cells and how long they may take, and do nothing")
    made.add_argument(
        "--table", action="store_true", help="write the tables of the cells that are there, and do nothing else"
    )
    made.add_argument(
        "--task", nargs="+", default=[*LABELLED, "like"], metavar="TASK", help=f"{', '.join(LABELLED)}, like, like-NAME"
    )
    made.add_argument(
        "--budget", nargs="+", type=int, default=list(BUDGETS), metavar="PERCENT", help="of the seed's multiply-adds"
    )
    made.add_argument("--row", nargs="+", choices=list(ROWS), default=None, metavar="ROW", help=", ".join(ROWS))
    made.add_argument(
        "--seeds", nargs="+", type=int, default=None, metavar="N", help="which ones; default: as many as the row has"
    )
    made.add_argument("--steps", type=int, default=STEPS, metavar="N", help="of training, the same for all rows")
    made.add_argument(
        "--like", nargs="+", default=[], metavar="ONNX", help="networks that are to be like themselves at less cost"
    )
    made.add_argument("--images", type=Path, metavar="DIR", help="photographs for these")
    made.add_argument("--kept", type=Path, metavar="DIR", help="others for their figures; default: a part of the same")
    made.add_argument(
        "--folder", type=Path, default=Path("build/search_study"), metavar="DIR", help="where cells are kept"
    )
    made.add_argument(
        "--output", type=Path, default=RESULTS / "search_study.json", metavar="FILE", help="where the figures go"
    )
    made.add_argument(
        "--page", type=Path, metavar="FILE", help="a page whose tables between two marks are written anew"
    )
    return made


def main() -> int:
    """What the command line asks for; 1 where a cell failed."""
    options = parser().parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    if not options.table:
        tasks = tasks_of(options)
        cells = plan(tasks, Asked(options.budget, options.row, options.seeds, options.steps))
        if options.plan:
            show_plan(cells, tasks, options.folder)
            return 0
        failed = perform_all(cells, tasks, options.folder)
    write(options.folder, options.output, options.page)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
