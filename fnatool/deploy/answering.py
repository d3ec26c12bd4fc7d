"""What answers for a picture: a model with a description, shown what evaluation shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchvision.transforms.v2 import functional as F

from fnatool import seeds
from fnatool.files import model as files
from fnatool.model import pixels
from fnatool.model.analysed import metadata
from fnatool.tasks.decode import decode
from fnatool.tasks.description import Description
from fnatool.tasks.samples import plain
from fnatool.tasks.table import TASKS, description_of
from fnatool.training.in_runtime import predicting, require_runs
from fnatool.training.model_and_data import sizes

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Answering:
    """What a model is for, and the answer of its task (see `Task.decode`) for a picture."""

    model: Path
    sha256: str
    description: Description
    answer: Callable[[Image.Image], Any]


def of_model(path: Path | str, provider: str) -> Answering:
    """The model in a file. Raises UserError where it has no task or the provider is not there, RefusedModel where it does not run."""
    read = files.read(seeds.find(path))
    described = description_of(metadata(read.envelope))
    size = sizes(read, described, None)[1]
    if (how := pixels.recorded(read, described.input)).guessed:
        pixels.say(how)
    require_runs(read.path, described, size)
    predict, task = predicting(read.path, described, provider), TASKS[described.task]

    def answer(image: Image.Image) -> Any:
        shown, placement = task.show(F.to_image(image), described, size)
        return decode(predict(plain(shown)[None]), described, [placement], size=size)[0]

    return Answering(read.path, read.sha256, described, answer)
