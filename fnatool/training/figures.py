"""How good a model is on a split: the same for a torch module while it trains and for the written file in ONNX
Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from fnatool.tasks.decode import decode
from fnatool.tasks.finite import Array
from fnatool.tasks.table import TASKS
from fnatool.training.ahead import ahead, is_fetching
from fnatool.training.order import EvaluationOrder
from fnatool.training.processes import World
from fnatool.training.samples import Evaluation, EvaluationBatch, evaluation_loader

# images uint8 RGB [N, 3, H, W] on the device → the graph's outputs by name
Predict = Callable[[torch.Tensor], Mapping[str, Array]]


CPU = torch.device("cpu")


def evaluate(
    predict: Predict,
    samples: Evaluation,
    *,
    batch: int,
    workers: int,
    world: World | None = None,
    device: torch.device = CPU,
    done: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """The figures of the task over all samples, each process of world doing its part; the same in every process.

    device: where `predict` is given its images; done gets the number of images of each batch.
    """
    with evaluator(samples, batch=batch, workers=workers, world=world, device=device, done=done) as figures:
        return figures(predict)


@contextmanager
def evaluator(
    samples: Evaluation,
    *,
    batch: int,
    workers: int,
    world: World | None = None,
    device: torch.device = CPU,
    done: Callable[[int], None] | None = None,
) -> Iterator[Callable[[Predict], dict[str, float]]]:
    """Within it `evaluate`, as often as wanted: the processes that load the samples are started once."""
    rank, size = (world.rank, world.size) if world is not None else (0, 1)
    order = EvaluationOrder(len(samples), batch, rank, size)
    with evaluation_loader(samples, order, workers=workers, pin=is_fetching(device)) as batches:

        def figures(predict: Predict) -> dict[str, float]:
            shown = ahead(
                batches(), partial(_placed, device=device), tensors=lambda batch: (batch.images,), device=device
            )
            return _figures(predict, samples, shown, world=world, done=done)

        yield figures


def _placed(shown: EvaluationBatch, device: torch.device) -> EvaluationBatch:
    return replace(shown, images=shown.images.to(device, non_blocking=is_fetching(device)))


def _figures(
    predict: Predict,
    samples: Evaluation,
    batches: Iterable[EvaluationBatch],
    *,
    world: World | None,
    done: Callable[[int], None] | None,
) -> dict[str, float]:
    """Of the batches of this process and of all others."""
    task = TASKS[samples.description.task]
    found: list[tuple[int, Any]] = []
    for shown in batches:
        predictions = decode(predict(shown.images), samples.description, shown.placements, size=samples.size)
        for index, prediction, truth in zip(shown.indices, predictions, shown.truths, strict=True):
            found.append((index, task.compare(prediction, truth, samples.description)))
        if done is not None:
            done(len(shown.indices))
    everything = [row for part in (world.gather(found) if world is not None else [found]) for row in part]  # type: ignore[attr-defined]
    return task.score([evidence for _, evidence in sorted(everything, key=lambda row: row[0])], samples.description)
