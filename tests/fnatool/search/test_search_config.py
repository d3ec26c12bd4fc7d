"""What a search's config comes to: its defaults, its schedule of steps on α, its halves of the data."""

from __future__ import annotations

from pathlib import Path

import pytest
import supers
import torch

from fnatool.cli.main import run
from fnatool.data.split import Labelled, Split
from fnatool.search.config import parse_search, read_search, template
from fnatool.search.loop import AlphaSchedule
from fnatool.search.preparing import halves
from fnatool.search.searcher import Searcher
from fnatool.supernet.network import build
from fnatool.tasks import NAMES
from fnatool.training.processes import World

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("task", NAMES)
def test_the_config_that_is_written_says_what_is_the_default(task: str) -> None:
    Path("some.toml").write_text(template(task))
    read = read_search(Path("some.toml"))
    assert read.model_copy(update={"data": parse_search({"task": task}).data}) == parse_search({"task": task})
    assert run(["config", "more.toml", "--task", task, "--search"]) == 0
    assert Path("more.toml").read_text() == template(task)


def test_paths_are_searched_as_published_unless_said_otherwise() -> None:
    made = parse_search({"task": "detection", "search": {"relaxation": "paths"}, "weights": {"momentum": 0.5}})
    assert (made.alpha.own, made.alpha.lr, made.search.finalists) == (0.0, 3e-4, 1)
    assert (made.weights.name, made.weights.lr, made.weights.momentum) == ("sgd", 0.02, 0.5)
    assert parse_search({"task": "detection"}).weights.name == "adamw"


def test_when_to_step_on_alpha_is_known_at_every_step() -> None:
    plan = AlphaSchedule(20, 7, 3)
    steps = [step for step in range(20) if plan.has_alpha(step)]
    assert steps == [7, 10, 13, 16, 19]
    assert [plan.alphas_before(step) for step in range(21)] == [sum(s < step for s in steps) for step in range(21)]


@pytest.mark.parametrize(("given", "steps", "rate"), [({}, 5000, 0.001), ({}, 100, 0.05), ({"lr": 3e-4}, 100, 3e-4)])
def test_alpha_can_move_as_far_in_few_steps_as_in_many_unless_its_rate_is_given(
    given: dict[str, float], steps: int, rate: float
) -> None:
    graph, analysis, found = supers.seed("residual")
    made = parse_search({"task": "classification", "alpha": given})
    searcher = Searcher(build(graph, analysis, found), made, World(0, 1, torch.device("cpu")), alpha_steps=steps)
    assert [group["lr"] for group in searcher.alphas.optimiser.param_groups] == [pytest.approx(rate)]


def test_weights_and_alpha_learn_from_disjoint_halves() -> None:
    split = Split(
        task="classification",
        name="train",
        root=Path(),
        layout="",
        classes=("a",),
        items=tuple(Labelled(str(k), 0) for k in range(11)),
    )
    first, second = ({item.image for item in part.items} for part in halves(split, 0.5, 3))
    assert not first & second
    assert (len(first), len(second)) == (5, 6)
    assert halves(split, 0.5, 4) != halves(split, 0.5, 3)
