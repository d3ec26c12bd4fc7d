"""What the super network says of a member: its figures on validation data with inherited weights and statistics of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from fnatool.data.order import TrainOrder
from fnatool.data.samples import Evaluation, Training
from fnatool.nn.layers import Norms
from fnatool.search.sampling import Member
from fnatool.search.supernet import SuperNetwork
from fnatool.tasks.pixels import to_input
from fnatool.training.evaluation import evaluate
from fnatool.training.stepping import dealt

STREAM = 2


@dataclass(frozen=True)
class Scoring:
    """How members are scored: the data for statistics and for figures, how many images of each, and how they are loaded.

    frozen: BatchNorm keeps the statistics that the super network was trained with, and none are taken.
    """

    calibration: Training
    validation: Evaluation
    images: tuple[int, int]  # for the statistics, for the figures
    batch: int
    workers: int
    seed: int
    frozen: bool


@torch.no_grad()
def score(network: SuperNetwork, member: Member, how: Scoring) -> dict[str, float]:
    """The figures of the task, of the member with the super network's weights; nothing of the network changes."""
    network.eval()
    statistics = None if how.frozen else network.recalibrate(member, _inputs(network, how))
    norms: Norms = "running"
    about = how.validation.description

    def predict(images: torch.Tensor) -> dict[str, torch.Tensor]:
        return network.forward_member(to_input(images.to(_device(network)), about.input), member, norms=norms, statistics=statistics)

    split = how.validation.split
    few = replace(how.validation, split=replace(split, items=split.items[: how.images[1]]))
    return evaluate(predict, few, batch=how.batch, workers=how.workers)


def _inputs(network: SuperNetwork, how: Scoring) -> Iterator[torch.Tensor]:
    """As many batches of training images as make up the number asked for."""
    samples = how.calibration
    batch = min(how.batch, len(samples))
    order = TrainOrder(len(samples), batch, max(how.images[0] // batch, 1), how.seed + STREAM)
    for found in dealt(samples, order, _device(network), workers=how.workers):
        yield to_input(found["images"], samples.description.input)


def _device(network: SuperNetwork) -> torch.device:
    return next(iter(network.parameters())).device
