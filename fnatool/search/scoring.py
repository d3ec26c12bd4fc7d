"""What the super network says of a member with inherited weights and statistics of its own: its figures on validation data, and its loss

on data that architectures are chosen by, so that the figures have not been chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from fnatool.data.order import TrainOrder
from fnatool.data.samples import Batch, Evaluation, Training
from fnatool.data.split import spread
from fnatool.nn.layers import Norms
from fnatool.search.sampling import Member
from fnatool.search.supernet import SuperNetwork
from fnatool.tasks.finite import require_finite
from fnatool.tasks.parts import alone
from fnatool.tasks.table import TASKS
from fnatool.training.evaluation import evaluate
from fnatool.training.learner import inputs_of
from fnatool.training.stepping import dealt

STREAM, CHOOSING = 2, 3  # of chance
RUNNING: Norms = "running"


@dataclass(frozen=True)
class Scoring:
    """How members are scored: the data for statistics, to choose by and for figures, how many images of each, and how they are loaded.

    frozen: BatchNorm keeps the statistics that the super network was trained with, and none are taken.
    """

    calibration: Training
    choosing: Training
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
    statistics = _statistics(network, member, how)
    about = how.validation.description

    def predict(images: torch.Tensor) -> dict[str, torch.Tensor]:
        inputs = inputs_of(network.reading, images.to(_device(network)), about.input)
        return network.forward_member(inputs, member, norms=RUNNING, statistics=statistics)

    few = replace(how.validation, split=spread(how.validation.split, how.images[1]))
    return evaluate(predict, few, batch=how.batch, workers=how.workers)


@torch.no_grad()
def loss(network: SuperNetwork, member: Member, how: Scoring) -> float:
    """The task's loss of the member on the data to choose by, a mean over batches; nothing of the network changes.

    Raises NotFinite where the member computes what is no number.
    """
    network.eval()
    statistics = _statistics(network, member, how)
    about = how.choosing.description
    losses = []
    for batch in _batches(network, how, how.choosing, (min(how.images[1], len(how.choosing)), CHOOSING)):
        outputs = network.forward_member(
            inputs_of(network.reading, batch["images"], about.input), member, norms=RUNNING, statistics=statistics
        )
        require_finite(outputs, tuple(outputs))
        losses.append(alone(TASKS[about.task].loss(outputs, batch, about)).item())
    return sum(losses) / len(losses)


def _statistics(network: SuperNetwork, member: Member, how: Scoring) -> dict[str, torch.Tensor] | None:
    """The member's own; None where those of training are kept."""
    if how.frozen:
        return None
    batches = _batches(network, how, how.calibration, (how.images[0], STREAM))
    like = how.calibration.description.input
    return network.recalibrate(member, (inputs_of(network.reading, batch["images"], like) for batch in batches))


def _batches(network: SuperNetwork, how: Scoring, samples: Training, wanted: tuple[int, int]) -> Iterator[Batch]:
    """As many batches as make up the number of images wanted, drawn by a stream of chance. wanted: both."""
    images, stream = wanted
    batch = min(how.batch, len(samples))
    order = TrainOrder(len(samples), batch, max(images // batch, 1), how.seed + stream)
    yield from dealt(samples, order, _device(network), workers=how.workers)


def _device(network: SuperNetwork) -> torch.device:
    return next(iter(network.parameters())).device
