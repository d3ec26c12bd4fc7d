"""How often a step makes the host wait for the device: counted on one that is pretended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import supers
import torch
from objectives import job
from pretended import PLACE, There, pretended
from seeds_of_heads import mobile
from tiny import save
from torch import Tensor

import fnatool
from fnatool.files import model as files
from fnatool.model.analysed import metadata
from fnatool.model.headed import HeadOptions
from fnatool.search import loop as searching
from fnatool.search.config import parse_search
from fnatool.search.searcher import Searcher
from fnatool.tasks import classification
from fnatool.tasks.classification import Classification
from fnatool.tasks.parts import Part
from fnatool.tasks.table import TASKS, description_of
from fnatool.training import loop
from fnatool.training.config import parse_config
from fnatool.training.learner import Average, Learner
from fnatool.training.model_and_data import inputs_of
from fnatool.training.processes import World

SIZE = 64
ELSEWHERE = World(0, 1, PLACE)
CEILING, SEARCH_CEILING = 4, 8
HEADS = {
    "classification": HeadOptions(task="classification", classes="10"),
    "segmentation": HeadOptions(task="segmentation", classes="11", width=8),
    "detection": HeadOptions(task="detection", classes="10", width=8, levels=3),
    "ssd": HeadOptions(task="detection", classes="10", style="ssdlite", levels=3),
    "pose": HeadOptions(task="pose", joints="5", width=8),
}


def labels(task: str, count: int) -> dict[str, Tensor]:
    """What a batch says of so many images; the more, the more boxes each has, of every kind."""
    if task == "classification":
        return {"labels": torch.arange(count)}
    if task == "segmentation":
        return {"masks": torch.randint(0, 11, (count, SIZE, SIZE), dtype=torch.uint8)}
    if task == "pose":
        return {"points": SIZE * torch.rand(count, 5, 2), "weights": torch.ones(count, 5)}
    corner = SIZE / 2 * torch.rand(count, count, 2)
    which = torch.randint(0, 10, (count, count))
    which[:, 1:] = -2  # neither right nor wrong
    which[0] = -1  # none
    return {"boxes": torch.cat([corner, corner + 24], 2), "labels": which}


def waits(name: str, count: int, folder: Path) -> list[str]:
    """What the host waited for in one training step of so many images."""
    model = files.read(fnatool_head(name, folder))
    described = description_of(metadata(model.envelope))

    def inputs(reading: Any, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return (inputs_of(reading, batch["images"], described.input),)

    objective = SimpleNamespace(
        inputs=inputs, loss=lambda outputs, batch: TASKS[described.task].loss(outputs, batch, described)
    )
    config = parse_config({"task": described.task, "run": {"batch": count}, "averages": {"ema": 0.9}})
    todo = SimpleNamespace(config=config, objective=objective, imitation=None, folder=folder)
    with pretended() as device:
        learner = Learner(model, config, ELSEWHERE)
        batch = {
            "images": torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8),
            **labels(described.task, count),
        }
        batch = {key: value.to(PLACE, non_blocking=True) for key, value in batch.items()}
        loop._step(learner, todo, batch, (0.01, 0.0))  # type: ignore[arg-type] - what a first step puts on the device stays there
        device.waits.clear()
        loop._step(learner, todo, batch, (0.01, 0.0))  # type: ignore[arg-type]
        assert learner.average is not None
        learner.average.update(learner.network, 1)
        return list(device.waits)


def fnatool_head(name: str, folder: Path) -> Path:
    seed = save(mobile(SIZE).model(batch="N"), folder / "seed.onnx")
    fnatool.head(seed, folder / f"{name}.onnx", options=replace(HEADS[name], force=True))
    return folder / f"{name}.onnx"


@pytest.mark.parametrize("name", HEADS)
def test_a_training_step_waits_four_times_at_most_whatever_the_batch(name: str, tmp_path: Path) -> None:
    few, more = (waits(name, count, tmp_path) for count in (2, 8))
    assert 1 <= len(few) <= CEILING
    assert more == few


@pytest.mark.parametrize("relaxation", ["entangled", "paths"])
def test_a_search_step_on_weights_and_on_alpha_waits_eight_times_at_most(
    relaxation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(outputs: dict[str, Tensor], *_: object) -> dict[str, Part]:
        value = outputs["y"].square()
        return {"square": Part(value.sum(), torch.full((), value.numel(), device=value.device))}

    monkeypatch.setitem(TASKS, "classification", replace(classification.TASK, loss=loss))  # type: ignore[arg-type]
    config = parse_search(
        {"task": "classification", "search": {"method": "gradient", "relaxation": relaxation}, "run": {"batch": 4}}
    )
    with pretended() as device:
        network = supers.network("gated", relaxation)
        network.architecture.lean([0] * len(network.choices.blocks), 1.0)
        searcher = Searcher(network, config, ELSEWHERE, alpha_steps=4)
        table = SimpleNamespace(base=1.0, blocks=[[1.0] * len(block.candidates) for block in network.choices.blocks])
        described = Classification(classes=("a", "b", "c", "d"))
        todo = SimpleNamespace(config=config, network=network, description=described, table=table, budget=None)
        plan = searching.AlphaSchedule(4, 0, 1)
        side = supers.images("gated").shape[-1]
        batch = {"images": torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8).to(PLACE, non_blocking=True)}
        found: list[list[str]] = []
        for _ in range(3):
            device.waits.clear()
            searching._weight_step(searcher, todo, batch, plan)  # type: ignore[arg-type]
            searching._alpha_step(searcher, todo, batch, plan)  # type: ignore[arg-type]
            found.append(list(device.waits))
        # a detector's loss waits twice in either step
    assert 2 <= len(found[-1]) <= SEARCH_CEILING - 4, found


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: bool((x > 0).any()), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: torch.nonzero(x), 1),
        (lambda x: x[x > 0.5], 1),
        (lambda x: x.add(torch.tensor(2.0, device=x.device)), 1),
        (lambda x: x.add(torch.ones(3).to(x.device)), 1),
        (lambda x: x.add(torch.ones(3).to(x.device, non_blocking=True)), 0),
        (lambda x: torch.where(x > 0.5, x, 0.0).sum(), 0),
        (lambda x: x.requires_grad_().square().sum().backward(), 0),
    ],
)
def test_every_wait_is_counted_and_nothing_else(asked: Callable[[Tensor], object], count: int) -> None:
    with pretended() as device:
        x = torch.rand(3).to(PLACE, non_blocking=True)
        assert isinstance(x, There)
        asked(x)
        assert len(device.waits) == count, device.waits


def test_an_average_is_moved_by_one_operator(tmp_path: Path) -> None:
    network = fnatool.nn.load(job(tmp_path / "run").model)
    average = Average(network, 0.5)
    calls: list[int] = []
    plain = torch._foreach_lerp_
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "_foreach_lerp_", lambda own, *more: calls.append(len(own)) or plain(own, *more))
        average.update(network, 1)
    assert calls == [len(network.state_dict())]
