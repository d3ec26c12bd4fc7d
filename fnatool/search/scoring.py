"""What the super network says of a member that inherits its weights: figures on validation data, and a loss.

The loss is taken on other data, by which architectures are chosen, so that the figures have not been chosen. Statistics
are the member's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import torch

from fnatool.data.split import spread
from fnatool.nn.layers import Norms
from fnatool.search.preparing import PreparedSearch, halves
from fnatool.search.sampling import Member
from fnatool.supernet.network import SuperNetwork
from fnatool.tasks.finite import require_finite
from fnatool.tasks.parts import alone
from fnatool.tasks.table import TASKS, loss_of
from fnatool.tasks.task import PLAIN
from fnatool.training.figures import evaluate
from fnatool.training.learner import is_frozen
from fnatool.training.loading import workers_for
from fnatool.training.model_and_data import inputs_of, sizes
from fnatool.training.order import TrainOrder
from fnatool.training.samples import Batch, Evaluation, Training
from fnatool.training.stepping import dealer


def parts_of(made: PreparedSearch) -> tuple[Training, Training]:
    """What weights learn from, and what α does: two parts of the training data, both augmented."""
    config = made.config
    size, full = sizes(made.model, made.labelled.description, config.data.size)
    changes = TASKS[config.task].augment if config.data.augment else PLAIN
    weights, alphas = (
        Training(part, made.labelled.description, size, changes, config.run.seed, full)
        for part in halves(made.labelled.train, config.search.alpha_data, config.run.seed)
    )
    return weights, alphas


def scoring_of(made: PreparedSearch, processes: int) -> Scoring:
    """How members of this run, which so many processes share, are scored."""
    config = made.config
    device = torch.device("cuda" if config.run.device != "cpu" and torch.cuda.is_available() else "cpu")
    _, full = sizes(made.model, made.labelled.description, config.data.size)
    weights, alphas = parts_of(made)
    return Scoring(
        calibration=weights,
        choosing=replace(alphas, augment=PLAIN),
        validation=Evaluation(made.labelled.val, made.labelled.description, full),
        images=(config.score.calibration, config.score.images),
        batch=config.run.batch,
        workers=workers_for(config.data.workers, device, batch=config.run.batch, sample=3 * full[0] * full[1]),
        seed=config.run.seed,
        frozen=is_frozen(config.search.freeze_batchnorm, TASKS[config.task].small_batch, config.run.batch // processes),
    )


STREAM, CHOOSING = 2, 3  # of chance
RUNNING: Norms = "running"


@dataclass(frozen=True)
class Scoring:
    """How members are scored: the data for statistics, to choose by and for figures, how many images of each, and how
    they are loaded.

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
    with _calibration(network, how) as batches:
        statistics = _statistics(network, member, how, batches)
    about = how.validation.description

    def predict(images: torch.Tensor) -> dict[str, torch.Tensor]:
        inputs = inputs_of(network.reading, images, about.input)
        return network.forward_member(inputs, member, norms=RUNNING, statistics=statistics)

    few = replace(how.validation, split=spread(how.validation.split, how.images[1]))
    return evaluate(predict, few, batch=how.batch, workers=how.workers, device=_device(network))


@contextmanager
def chooser(network: SuperNetwork, how: Scoring) -> Iterator[Callable[[Member], float]]:
    """Within it the task's loss of any member on the data to choose by, a mean over batches; nothing of the network
    changes.

    The processes that load the data are started once. The loss raises NotFinite where the member computes what is no
    number.
    """
    choosing = _batches(network, how, how.choosing, count=min(how.images[1], len(how.choosing)), stream=CHOOSING)
    with _calibration(network, how) as calibration, choosing as batches:
        yield lambda member: _loss(network, member, how, (calibration, batches))


Batches = Callable[[], Iterator[Batch]]


@torch.no_grad()
def _loss(network: SuperNetwork, member: Member, how: Scoring, data: tuple[Batches, Batches]) -> float:
    """data: for the statistics, and to choose by."""
    network.eval()
    calibration, batches = data
    statistics = _statistics(network, member, how, calibration)
    about = how.choosing.description
    losses = []
    for batch in batches():
        outputs = network.forward_member(
            inputs_of(network.reading, batch["images"], about.input), member, norms=RUNNING, statistics=statistics
        )
        require_finite(outputs, tuple(outputs))
        losses.append(alone(loss_of(outputs, batch, about)).item())
    return sum(losses) / len(losses)


def _statistics(
    network: SuperNetwork, member: Member, how: Scoring, batches: Batches
) -> dict[str, torch.Tensor] | None:
    """The member's own; None where those of training are kept."""
    if how.frozen:
        return None
    like = how.calibration.description.input
    return network.recalibrate(member, (inputs_of(network.reading, batch["images"], like) for batch in batches()))


def _calibration(network: SuperNetwork, how: Scoring) -> AbstractContextManager[Batches]:
    return _batches(network, how, how.calibration, count=how.images[0], stream=STREAM)


def _batches(
    network: SuperNetwork, how: Scoring, samples: Training, *, count: int, stream: int
) -> AbstractContextManager[Batches]:
    """As many batches as make up so many images, drawn by a stream of chance; the same ones as often as wanted."""
    batch = min(how.batch, len(samples))
    order = TrainOrder(len(samples), batch, max(count // batch, 1), how.seed + stream)
    return dealer(samples, order, _device(network), workers=how.workers)


def _device(network: SuperNetwork) -> torch.device:
    return next(iter(network.parameters())).device
