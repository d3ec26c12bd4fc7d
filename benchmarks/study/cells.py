"""The cells of the study: a row on a task at a budget with a seed. Each leaves a small file when it is done, and is
never done again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.study.bisection import OverBudget
from benchmarks.study.features import features_apart
from benchmarks.study.pruning import NotPruned
from benchmarks.study.rows import ROWS, Row, started
from benchmarks.study.shapes import Shape, ShapeJob
from benchmarks.study.tasks import BATCH, StudyTask, prepared
from benchmarks.study.tuning import like, tune
from fnatool import seeds
from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.imitation.in_runtime import compare
from fnatool.search.purposes import AlikePurpose
from passes.space.costs import whole_costs

BUDGETS = (80, 65, 50)  # percent of the seed's multiply-adds
STEPS = 200
ASIDE = 0.3  # minutes of a cell beside shape and steps
REFIT = 1.5  # minutes that it takes to solve layers anew
SECONDS = 4.3e-10  # of a training step per sample and multiply-add, on a core
Found = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """A row on a task, at a budget in percent, with a seed of chance and so many steps of training."""

    task: str
    budget: int
    row: str
    seed: int
    steps: int

    @property
    def name(self) -> str:
        """A path below a folder."""
        return f"{self.task}/{self.steps}/{self.budget}/{self.row}-seed{self.seed}"


@dataclass(frozen=True)
class Asked:
    """Which cells: these budgets, rows and seeds (None: all, and as many as each row has)."""

    budgets: Sequence[int] = BUDGETS
    rows: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    steps: int = STEPS


def plan(tasks: Sequence[StudyTask], asked: Asked) -> list[Cell]:
    """All cells, those with the first seed first, so that a part of them is a table too."""
    found = []
    for task in tasks:
        for row in (ROWS[name] for name in asked.rows or ROWS):
            for budget in (100,) if row.whole else asked.budgets:
                if row.is_for(task, budget):
                    found += [
                        Cell(task.name, budget, row.name, seed, asked.steps) for seed in asked.seeds or range(row.seeds)
                    ]
    order = list(ROWS)
    return sorted(found, key=lambda cell: (cell.seed, -cell.budget, order.index(cell.row)))


# --- how long -----------------------------------------------------------------------------------


def minutes(cells: Sequence[Cell], tasks: Mapping[str, StudyTask], folder: Path) -> Iterator[float | None]:
    """Of each cell, as estimated for a core; None where it is done. A shape that is there, or that a cell before it
    makes, takes none.
    """
    made: set[Path] = set()
    for cell in cells:
        if done(cell, folder).exists():
            yield None
            continue
        row, place = ROWS[cell.row], shape_folder(cell, folder)
        shape = 0.0 if place in made or (place / SHAPE).exists() else row.minutes
        made.add(place)
        samples = cell.steps * BATCH * cell.budget / 100
        yield shape + ASIDE + REFIT * row.refit + samples * tasks[cell.task].madds * SECONDS / 60


def done(cell: Cell, folder: Path) -> Path:
    """The file that a cell leaves."""
    return folder / "cells" / f"{cell.name}.json"


def shape_folder(cell: Cell, folder: Path) -> Path:
    """Where the cell's shape lies, which other rows may share; and other seeds, where it has no chance in it."""
    row = ROWS[cell.row]
    last = f"-seed{cell.seed}" if row.by_chance else ""
    return (
        folder
        / "shapes"
        / cell.task
        / f"{row.shaped}-{cell.budget}{last}{f'-{cell.steps}' if row.shaped == 'tuned-first' else ''}"
    )


SHAPE = "shape.json"


# --- doing them ---------------------------------------------------------------------------------


def perform(cell: Cell, task: StudyTask, folder: Path) -> Found:
    """What the cell comes to, from its file where that is there; begun before, it goes on. Raises UserError and
    RefusedModel.
    """
    path = done(cell, folder)
    if not path.exists():
        try:
            found = _figures(cell, task, folder)
        except (OverBudget, NotPruned) as error:
            found = {"impossible": str(error)}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(
            path, json.dumps({**asdict(cell), "metric": task.metric, "better": task.better, **found}, indent=1) + "\n"
        )
        shutil.rmtree(_home(cell, folder), ignore_errors=True)
    return read(path)


def read(path: Path) -> Found:
    """What a cell has come to."""
    found: Found = json.loads(path.read_text(encoding="utf-8"))
    return found


def _home(cell: Cell, folder: Path) -> Path:
    return folder / "runs" / cell.name


def _figures(cell: Cell, task: StudyTask, folder: Path) -> dict[str, Any]:
    """Shape, start, last phase."""
    row, home = ROWS[cell.row], _home(cell, folder)
    home.mkdir(parents=True, exist_ok=True)
    shape, seconds = shaped(cell, task, folder)
    start, about = home / "start.onnx", home / "start.json"
    if not about.exists():
        write_text(about, json.dumps(_begun(cell, row, shape, task, folder)))
    begun = json.loads(about.read_text(encoding="utf-8"))
    spent = {"shape": seconds, "start": begun.pop("started")}
    began = time.monotonic()
    config = task.config(cell.seed, cell.steps - shape.spent, *([] if row.more is None else [row.more]))
    figures = tune(task, config, start, home / "tuned.onnx")
    return {
        "figure": figures[task.metric],
        "figures": {name: value for name, value in figures.items() if "/" not in name},
        **begun,
        "spec": None if shape.knobs is None else dict(shape.knobs),
        "known": dict(shape.known),
        "seconds": {**spent, "tuning": time.monotonic() - began},
    }


def shaped(cell: Cell, task: StudyTask, folder: Path) -> tuple[Shape, float]:
    """The cell's architecture, and the seconds that it took to come to it."""
    row, place = ROWS[cell.row], shape_folder(cell, folder)
    path = place / SHAPE
    if not path.exists():
        place.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        shape = row.shape(ShapeJob(task, cell.budget, cell.seed, cell.steps, place, place.parent))
        write_text(
            path, json.dumps({"seconds": time.monotonic() - began, "shape": asdict(shape)}, indent=1) + "\n", force=True
        )
    found = read(path)
    return Shape.of_json(found["shape"]), float(found["seconds"])


def _begun(cell: Cell, row: Row, shape: Shape, task: StudyTask, folder: Path) -> dict[str, Any]:
    """The network before the last phase, in its file, and what is true of it."""
    made, start = prepared(task, cell.seed), _home(cell, folder) / "start.onnx"
    began = time.monotonic()
    model, analysis = started(row, shape, task, cell.seed, shape_folder(cell, folder))
    files.write(model, start, force=True)
    seconds = time.monotonic() - began
    costs = whole_costs(analysis)
    purpose, before = made.purpose, {}
    if task.kept is not None:
        before = {name: value for name, value in like(task, start).items() if "/" not in name}
    elif isinstance(purpose, AlikePurpose):
        same = purpose.kept
        before = compare((start, seeds.find(task.seed)), (same, same), batch=BATCH)[0].figures()
    return {
        "costs": costs,
        "started": seconds,
        "share": costs["madds"] / (made.own_cost("madds") or 1),
        "before": {**before, **features_apart(made, model, analysis)},
    }
