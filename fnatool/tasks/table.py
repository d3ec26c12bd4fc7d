"""The four tasks as one table: what a training loop and an evaluation need to know of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fnatool.tasks import classification, detection, pose, segmentation
from fnatool.tasks.decode import Prediction
from fnatool.tasks.description import Description
from fnatool.tasks.parts import Parts


@dataclass(frozen=True)
class Task:
    """loss(outputs, batch, description): what training lowers. compare(prediction, truth, description): what an image says about the

    model, small enough to be sent around; score(all of that, description): the figures, of which `metric` tells the best model (more is
    better).
    """

    loss: Callable[..., Parts]
    compare: Callable[..., Any]
    score: Callable[..., dict[str, float]]
    metric: str


TASKS: Mapping[str, Task] = {
    "classification": Task(classification.loss, classification.compare, classification.score, "top1"),
    "segmentation": Task(segmentation.loss, segmentation.compare, segmentation.score, "mIoU"),
    "detection": Task(detection.loss, detection.compare, detection.score, "mAP"),
    "pose": Task(pose.loss, pose.compare, pose.score, "OKS_AP"),
}


def evaluate(predictions: Sequence[Prediction], truths: Sequence[object], description: Description) -> dict[str, float]:
    """The figures for predictions of images of which truths are known (see `data.samples.Evaluation`), in the same order."""
    task = TASKS[description.task]
    return task.score([task.compare(p, t, description) for p, t in zip(predictions, truths, strict=True)], description)
