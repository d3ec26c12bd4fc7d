"""How good a model file is on a data set, as it runs in ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fnatool import terminal
from fnatool.data import checking
from fnatool.data.split import said
from fnatool.files import model as files
from fnatool.model import pixels
from fnatool.model.analysed import metadata
from fnatool.runtime import isolate
from fnatool.runtime import session as runtime
from fnatool.tasks import reading
from fnatool.tasks.description import Description, is_placeholder
from fnatool.tasks.pixels import to_array
from fnatool.tasks.table import description_of
from fnatool.training.figures import Predict, evaluate
from fnatool.training.model_and_data import sizes
from fnatool.training.samples import Evaluation, require_fit
from fnatool.training.watching import sentence
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


def evaluate_on(
    model: Path, data: Path, *, split: str = "val", batch: int = 32, workers: int = 2, provider: str = "cpu", skip_bad: bool = False
) -> dict[str, float]:  # fmt: skip
    """The figures of the model at a path on a split of the data at another, of which a line is said. Raises UserError and RefusedModel."""
    read = files.read(model)
    described = description_of(metadata(read.envelope))
    size = sizes(read, described, None)[1]
    classes = None if is_placeholder(described.classes) else described.classes
    found = reading.read(data, task=described.task, split=split, classes=classes)
    with terminal.progress("looking at the data", len(found.items)) as advance:
        (found,) = checking.checked([found], skip_bad=skip_bad, progress=lambda done, total: advance(1))
    described = described.adopting(found.classes, found.joints)
    require_fit(found, described)
    for line in said([found]):
        terminal.console().print(line, markup=False)
    if (how := pixels.recorded(read, described.input)).guessed:
        pixels.say(how)
    samples = Evaluation(found, described, size)
    with terminal.progress("evaluating", len(samples)) as advance:
        return evaluate_file(model, samples, batch=batch, workers=workers, provider=provider, done=advance)


def show(figures: dict[str, float], *, as_json: bool) -> None:
    """The figures in a line, those of single classes below; or as JSON."""
    if as_json:
        terminal.document(json.dumps(figures, indent=1))
        return
    console = terminal.console()
    console.print(sentence(figures))
    for name, value in figures.items():
        if "/" in name:
            console.print(f"  {name} {value:.4f}")
