"""A model file as it runs in ONNX Runtime: what it makes of images, and its figures on samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fnatool.runtime import isolate
from fnatool.runtime import session as runtime
from fnatool.tasks.description import Description
from fnatool.tasks.pixels import to_array
from fnatool.training.figures import Predict, evaluate
from fnatool.training.samples import Evaluation
from passes.errors import RefusedModel

SECONDS = 120.0  # to load a model and run it once, in a process of its own


def evaluate_file(
    path: Path, samples: Evaluation, *, batch: int = 32, workers: int = 2, provider: str = "cpu", done: Callable[[int], None] | None = None
) -> dict[str, float]:  # fmt: skip
    """The figures of the task on all samples. Raises RefusedModel where the model does not run, UserError without the provider."""
    height, width = samples.size
    try:
        isolate.run(_try, path, (1, 3, height, width), samples.description, seconds=SECONDS, memory=16 * isolate.GIB)
    except isolate.Died as error:
        raise RefusedModel(f"'{path}' in ONNX Runtime: {error}") from error
    return evaluate(predicting(path, samples.description, provider), samples, batch=batch, workers=workers, done=done)


def predicting(path: Path, described: Description, provider: str = "cpu") -> Predict:
    """What the model in a file makes of images, uint8 RGB [N, 3, H, W]; one whose batch is fixed sees as many at once as it takes."""
    session = runtime.Session(path, provider)

    def predict(images: torch.Tensor) -> dict[str, np.ndarray]:
        inputs = to_array(images.numpy(), described.input, session.dtype)
        step = session.batch or len(inputs)
        parts = [session.run(_filled(inputs[start : start + step], step)) for start in range(0, len(inputs), step)]
        return {name: np.concatenate([part[name] for part in parts])[: len(inputs)] for name in parts[0]}

    return predict


def _filled(inputs: np.ndarray, count: int) -> np.ndarray:
    """So many, the last one repeated."""
    return inputs if len(inputs) == count else np.concatenate([inputs, np.repeat(inputs[-1:], count - len(inputs), axis=0)])


def _try(path: Path, shape: tuple[int, ...], described: Description) -> None:
    images = torch.zeros(shape, dtype=torch.uint8)
    predicting(path, described)(images)
