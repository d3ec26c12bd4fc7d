"""How good a model is on a split: the same for a torch module while it trains and for the written file in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from fnatool.tasks.decode import decode
from fnatool.tasks.finite import Array
from fnatool.tasks.table import TASKS
from fnatool.training.order import EvaluationOrder
from fnatool.training.processes import World
from fnatool.training.samples import Evaluation, evaluation_batches

Predict = Callable[[torch.Tensor], Mapping[str, Array]]  # images uint8 RGB [N, 3, H, W] → the graph's outputs by name


def evaluate(
    predict: Predict,
    samples: Evaluation,
    *,
    batch: int,
    workers: int,
    world: World | None = None,
    pin: bool = False,
    done: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """The figures of the task over all samples, each process of world doing its part; the same in every process.

    done gets the number of images of each batch; pin: they lie where a device can fetch them while the host goes on.
    """
    rank, size = (world.rank, world.size) if world is not None else (0, 1)
    task = TASKS[samples.description.task]
    found: list[tuple[int, Any]] = []
    order = EvaluationOrder(len(samples), batch, rank, size)
    for shown in evaluation_batches(samples, order, workers=workers, pin=pin):
        predictions = decode(predict(shown.images), samples.description, shown.placements, size=samples.size)
        for index, prediction, truth in zip(shown.indices, predictions, shown.truths, strict=True):
            found.append((index, task.compare(prediction, truth, samples.description)))
        if done is not None:
            done(len(shown.indices))
    everything = [row for part in (world.gather(found) if world is not None else [found]) for row in part]  # type: ignore[attr-defined]
    return task.score([evidence for _, evidence in sorted(everything, key=lambda row: row[0])], samples.description)
