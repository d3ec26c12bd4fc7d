"""How each row comes to an architecture within a budget: a Spec of the seed's, or a network in a file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import fnatool
from benchmarks.study.bisection import OverBudget, largest
from benchmarks.study.pruning import NotPruned, pruned
from benchmarks.study.tasks import DISTANCE, StudyTask, prepared
from benchmarks.study.tuning import tune
from fnatool import seeds
from fnatool.files import model as files
from fnatool.model.analysed import analyse_model
from fnatool.model.remapped import RemapOptions, remap_model
from fnatool.search.config import UNLABELLED, parse_search
from fnatool.search.emitting import with_head
from fnatool.search.preparing import PreparedSearch
from fnatool.search.sampling import Member
from fnatool.search.solver import Budget, likeliest
from passes.network.knobs import IMAGE, kind_of
from passes.space.costs import whole_costs
from passes.space.space import SKIP, own_choices
from passes.target.spec import Spec, Value

CHANCE = 0.01  # of what a block that stays as it is counts
NEAR = 0.9  # a random member costs at least so much of the budget
DRAWS = 1000  # of members, until one does
GRAIN = 256  # steps of a factor
MODEL = "model.onnx"


@dataclass(frozen=True)
class ShapeJob:
    """What a shape is asked for: a task, a budget in percent of the seed's multiply-adds, the number of chance, and a
    folder to work in.

    steps: of all training; shared: a folder for what shapes of this task may have in common.
    """

    task: StudyTask
    budget: int
    seed: int
    steps: int
    folder: Path
    shared: Path

    @property
    def text(self) -> str:
        """The budget in words."""
        return f"madds={self.budget}%"

    @property
    def made(self) -> PreparedSearch:
        """The seed with its head, the data, the space."""
        return prepared(self.task, self.seed)

    @property
    def limit(self) -> int:
        """The budget in multiply-adds."""
        (budget,) = self.made.budgets([self.text])
        return int(budget.limit)


@dataclass(frozen=True)
class Shape:
    """An architecture: the knobs that make it of the seed, or (None) the network in `MODEL` in the job's folder,
    perhaps with its head.

    select: which channels narrowing keeps. known: what the row says of it without training it. spent: steps that have
    been trained.
    """

    knobs: Mapping[str, Value] | None
    select: str = "first"
    headed: bool = False
    known: Mapping[str, float] = field(default_factory=dict)
    spent: int = 0

    @staticmethod
    def of_json(found: Mapping[str, Any]) -> Shape:
        """As it was written down."""
        knobs = found["knobs"]
        named = (
            None
            if knobs is None
            else {key: tuple(value) if isinstance(value, list) else value for key, value in knobs.items()}
        )
        return Shape(**{**found, "knobs": named})


Shaping = Callable[[ShapeJob], Shape]  # raises OverBudget and NotPruned where there is none


# --- by a search --------------------------------------------------------------------------------


SHAPE: Mapping[str, Any] = {"finetune": {"enabled": False}, "refit": {"enabled": "no"}}
"""What the config of a search says that is to find an architecture alone."""


def searching(*more: Mapping[str, Any]) -> Shaping:
    """What a search finds whose config says this too."""

    def shape(job: ShapeJob) -> Shape:
        config = job.task.config(job.seed, job.steps, *more, SHAPE, {"cost": {"budget": [job.text]}})
        run = job.folder / "search"
        found = fnatool.search(job.task.seed, config, run)
        assert found is not None
        shutil.rmtree(run)
        return Shape(found.emitted.spec.knobs, config.select, known=_numbers(found.score))

    return shape


def _numbers(score: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in score.items() if "/" not in name}


distance = searching(DISTANCE)
gradient = searching({"search": {"method": "gradient", "relaxation": "entangled"}})
gradient_paths = searching({"search": {"method": "gradient", "relaxation": "paths"}})


def tuned_first(job: ShapeJob) -> Shape:
    """The seed has learnt the task in the first half of the steps, and is shaped by distance to what it computes then,
    without labels.
    """
    first = job.steps // 2
    config = job.task.config(job.seed, first)
    home, run = job.shared / f"tuned-{first}-seed{job.seed}", job.folder / "search"
    start, tuned = home / "start.onnx", home / "tuned.onnx"
    if not tuned.exists():
        home.mkdir(parents=True, exist_ok=True)
        if not start.exists():
            files.write(with_head(job.made.ground, Spec({}))[0], start)
        tune(job.task, config, start, tuned)
    own = {
        "task": UNLABELLED,
        "model": str(tuned),
        "data": {"path": str(job.task.photos), "workers": 0},
        "cost": {"budget": [job.text]},
        "run": {"seed": job.seed, "threads": 1},
        "finetune": {"enabled": False},
        "distance": config.distance.model_dump(mode="json"),
        "space": {"choices": DISTANCE["space"]["choices"] if config.space.choices == "auto" else config.space.choices},
    }
    found = fnatool.search(tuned, parse_search(own), run)
    assert found is not None
    shutil.copy(found.emitted.path, job.folder / MODEL)
    shutil.rmtree(run)
    return Shape(None, headed=True, known=_numbers(found.score), spent=first)


# --- by chance ----------------------------------------------------------------------------------


def random(job: ShapeJob) -> Shape:
    """A member within the budget that costs nearly as much: the best by scores that are chance alone."""
    made, budget = _within(job)
    rng = np.random.default_rng(job.seed)
    for _ in range(DRAWS):
        noise = [rng.gumbel(size=count).tolist() for count in _counts(made)]
        member = likeliest(made.choices, noise, [budget])
        if budget.table.of(member) >= NEAR * budget.limit:
            return _member(made, member)
    raise OverBudget(f"of {DRAWS} members by chance none costs {NEAR:.0%} of the budget")


def near(job: ShapeJob) -> Shape:
    """A member within the budget that changes as few of the seed's blocks as it can: which ones, says chance."""
    made, budget = _within(job)
    choices = made.choices
    rng = np.random.default_rng(job.seed)
    scores = [CHANCE * rng.gumbel(size=count) for count in _counts(made)]
    for row, own, block in zip(scores, own_choices(made.analysis, choices), choices.blocks, strict=True):
        if own is not None:
            row[len(block.candidates) if own == SKIP else own] += 1
    return _member(made, likeliest(choices, [row.tolist() for row in scores], [budget]))


def _within(job: ShapeJob) -> tuple[PreparedSearch, Budget]:
    made = job.made
    (budget,) = made.budgets([job.text])
    return made, replace(budget, table=made.tables[budget.kind])


def _counts(made: PreparedSearch) -> list[int]:
    """Per block how much may be chosen."""
    return [len(block.candidates) + block.skippable for block in made.choices.blocks]


def _member(made: PreparedSearch, member: Member) -> Shape:
    return Shape(made.choices.spec(member).knobs, made.config.select)


# --- by hand ------------------------------------------------------------------------------------


def own(job: ShapeJob) -> Shape:
    """The seed's own."""
    return Shape({}, job.made.config.select)


def uniform(job: ShapeJob) -> Shape:
    """All hidden widths times one factor, by the largest weights; where that does not reach the budget, all widths."""
    of = replace(job.made.ground, select="l1")
    knobs = job.made.analysis.knobs
    kinds: Sequence[frozenset[str]] = (frozenset({"hidden"}), frozenset({"hidden", "width"}))

    def spec(kind: frozenset[str], k: int) -> dict[str, Value]:
        free = [name for name, knob in knobs.items() if kind_of(name) in kind and knob.growth != "frozen"]
        return dict.fromkeys(free, f"x{k / GRAIN}")

    @cache
    def cost(kind: frozenset[str], k: int) -> int:
        return whole_costs(with_head(of, Spec(spec(kind, k)), verify=False)[1])["madds"]

    for kind in kinds:
        if kind is kinds[-1] or cost(kind, GRAIN // 16) <= job.limit:
            break
    k = largest(lambda k: cost(kind, k), job.limit, GRAIN // 16, GRAIN)
    return Shape(spec(kind, k), "l1", known={"factor": k / GRAIN})


def smaller_input(job: ShapeJob) -> Shape:
    """The seed's own at a smaller image, of half the sides at least: the same share of each."""
    of = job.made.ground
    height, width = job.made.analysis.image.size

    def spec(side: int) -> dict[str, Value]:
        return {IMAGE: (side, max(round(side * width / height), 1))}

    @cache
    def cost(side: int) -> int:
        return whole_costs(with_head(of, Spec(spec(side)), verify=False)[1])["madds"]

    side = largest(cost, job.limit, max(height // 2, 1), height)
    return Shape(spec(side), job.made.config.select, known={"side": side})


def torch_pruning(job: ShapeJob) -> Shape:
    """What Torch-Pruning leaves of the seed, at the ratio that keeps the budget."""
    of = job.made.ground
    seed = files.read(seeds.find(job.task.seed))
    bare = remap_model(seed, Spec(of.before), RemapOptions(verify=False, inputs=of.inputs), analysis=of.analysis).model

    @cache
    def less(k: int) -> tuple[files.Model, int]:
        left = pruned(bare, k / GRAIN)
        return left, whole_costs(of.finish(left, False, None)[1])["madds"]

    k = largest(lambda kept: less(GRAIN - kept)[1], job.limit, GRAIN // 16, GRAIN)
    left = less(GRAIN - k)[0]
    if analyse_model(left).view.outputs != analyse_model(bare).view.outputs:
        raise NotPruned("its outputs are others")
    files.write(left, job.folder / MODEL, force=True)
    return Shape(None, known={"ratio": 1 - k / GRAIN})
