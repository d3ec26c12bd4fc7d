"""Pictures of the validation data with the model's answers and the truth drawn on them, the worst answers first."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fnatool.data import checking
from fnatool.data.options import USUAL, DataOptions
from fnatool.data.split import Split, spread
from fnatool.files import model as files
from fnatool.model.analysed import metadata
from fnatool.tasks import reading
from fnatool.tasks.decode import decode
from fnatool.tasks.description import Description, is_placeholder
from fnatool.tasks.samples import picture
from fnatool.tasks.table import TASKS, description_of
from fnatool.training.in_runtime import predicting
from fnatool.training.model_and_data import sizes
from fnatool.training.order import EvaluationOrder
from fnatool.training.samples import Evaluation, evaluation_batches, require_fit
from passes.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

SHOWN, LOOKED_AT = 12, 96  # pictures, and images of the validation data that they are the worst of
LARGEST = 480  # pixels of the longer side of a picture on the page
BATCH = 16


@dataclass(frozen=True)
class Answered:
    """An image, what the model says, and what is true, as data: URIs of JPEGs; figure: the task's metric for this image
    alone.
    """

    name: str
    metric: str
    figure: float
    answer: str
    truth: str


@dataclass(frozen=True)
class Gallery:
    """The worst answers, of so many images that were looked at."""

    shown: tuple[Answered, ...]
    looked_at: int
    images: int


def gallery(model: Path, data: Path, *, digest: str | None = None, options: DataOptions = USUAL) -> Gallery:
    """The worst answers of a model on the validation data in a folder.

    digest: what the data was when the model was made; options: how labels are read. Raises UserError where the data is
    not there, does not fit or is another, RefusedModel where the model does not run.
    """
    read = files.read(model)
    described = description_of(metadata(read.envelope))
    size = sizes(read, described, None)[1]
    classes = None if is_placeholder(described.classes) else described.classes
    split = reading.read(data, task=described.task, split="val", classes=classes, options=options)
    (split,) = checking.checked([split], skip_bad=True)
    if digest is not None and split.digest != digest:
        raise UserError(f"the data in '{data}' is not what it was in this run: other names, sizes or labels")
    described = described.adopting(split.classes, split.joints)
    require_fit(split, described)
    part = spread(split, LOOKED_AT)
    samples = Evaluation(part, described, size)
    task = TASKS[described.task]
    predict = predicting(model, described)
    rows: list[tuple[float, int, Any, Any]] = []
    for shown in evaluation_batches(samples, EvaluationOrder(len(samples), BATCH, 0, 1), workers=0):
        found = decode(predict(shown.images), described, shown.placements, size=size)
        for index, prediction, truth in zip(shown.indices, found, shown.truths, strict=True):
            figure = task.score([task.compare(prediction, truth, described)], described)[task.metric]
            rows.append((figure, index, prediction, truth))
    worst = sorted(rows, key=lambda row: row[:2])[:SHOWN]
    return Gallery(tuple(_answered(part, described, row) for row in worst), len(part.items), len(split.items))


def _answered(split: Split, described: Description, row: tuple[float, int, Any, Any]) -> Answered:
    figure, index, prediction, truth = row
    task, item = TASKS[described.task], split.items[index]
    answer, right = (
        _framed(picture(split, item), said, described) for said in (prediction, task.right(truth, described))
    )
    return Answered(str(item.image), task.metric, figure, answer, right)


def _framed(image: Image.Image, answer: Any, described: Description) -> str:
    return _uri(TASKS[described.task].draw(image, answer, described))


def _uri(image: Image.Image) -> str:
    image.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
