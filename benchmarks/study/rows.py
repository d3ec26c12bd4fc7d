"""The rows: how each comes to an architecture, what is done to its weights then, and for which tasks it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fnatool
from benchmarks.study import shapes
from benchmarks.study.shapes import MODEL, Shape, Shaping
from benchmarks.study.tasks import StudyTask, prepared
from fnatool import seeds
from fnatool.files import model as files
from fnatool.model.analysed import analyse_model
from fnatool.model.remapped import RemapOptions
from fnatool.search.emitting import with_head
from passes.network.analysis import Analysis
from passes.target.spec import Spec

IMITATE = {"finetune": {"imitate": {"features": 1.0}}}


@dataclass(frozen=True)
class Row:
    """One way to a network within a budget. Rows of the same `shaped` share their architectures.

    minutes: that a shape takes on a core, beside training. seeds: how many, unless said. by_chance: another seed is
    another architecture. refit: layers are solved anew before the last phase. more: what the config of that says.
    labels: whether it needs them, or (False) wants none; None: neither. whole: at the seed's own cost alone.
    """

    name: str
    said: str
    shape: Shaping
    shaped: str
    minutes: float = 0.1
    seeds: int = 3
    by_chance: bool = False
    refit: bool = False
    more: Mapping[str, Any] | None = None
    labels: bool | None = None
    whole: bool = False

    def is_for(self, task: StudyTask, budget: int) -> bool:
        """Whether the row has a cell there."""
        return self.labels in (None, task.has_labels) and (budget == 100 or not self.whole)


DISTANCE = Row("distance", "search by distance", shapes.distance, "distance", 2.0, by_chance=True)

ROWS: Mapping[str, Row] = {
    row.name: row
    for row in (
        Row("seed", "the seed's own, at its own cost", shapes.own, "seed", labels=True, whole=True),
        DISTANCE,
        replace(DISTANCE, name="distance+refit", said="search by distance, refitted", refit=True),
        replace(
            DISTANCE,
            name="distance+imitate",
            said="search by distance, imitating the seed's features",
            more=IMITATE,
            labels=True,
        ),
        replace(
            DISTANCE,
            name="distance+both",
            said="search by distance, refitted and imitating",
            refit=True,
            more=IMITATE,
            labels=True,
        ),
        Row("gradient", "search by gradient, entangled", shapes.gradient, "gradient", 4.0, by_chance=True, labels=True),
        Row(
            "gradient-paths",
            "search by gradient, paths",
            shapes.gradient_paths,
            "gradient-paths",
            7.0,
            by_chance=True,
            labels=True,
        ),
        Row("uniform-l1", "every hidden width × one factor, by l1", shapes.uniform, "uniform-l1", 0.4),
        Row("torch-pruning", "Torch-Pruning 1.6.1, global, isomorphic", shapes.torch_pruning, "torch-pruning", 0.6),
        Row("smaller-input", "a smaller image", shapes.smaller_input, "smaller-input", 0.3, labels=True),
        Row(
            "tuned-first",
            "half the steps as the seed, then shaped by distance",
            shapes.tuned_first,
            "tuned-first",
            2.0,
            by_chance=True,
            labels=True,
        ),
        Row("near", "as few blocks changed as possible, which ones by chance", shapes.near, "near", by_chance=True),
        Row("random", "at random, within 90 to 100 % of the budget", shapes.random, "random", seeds=6, by_chance=True),
    )
}


def started(row: Row, shape: Shape, task: StudyTask, seed: int, folder: Path) -> tuple[files.Model, Analysis]:
    """The network that the last phase begins with, with its head. folder: of the shape."""
    of = prepared(task, seed).ground
    if shape.knobs is None:
        model = files.read(folder / MODEL)
        return (model, analyse_model(model)) if shape.headed else of.finish(model, True, None)
    spec = Spec({**of.before, **shape.knobs})
    if not row.refit:
        return with_head(replace(of, select=shape.select), spec)
    options = RemapOptions(
        strategy=of.strategy, select=shape.select, seed=of.rng_seed, inputs=of.inputs, verify=False, refit=task.photos
    )
    made = fnatool.remap(seeds.find(task.seed), spec, options=options)
    return of.finish(made.model, True, None)
