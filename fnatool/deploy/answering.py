"""What answers for a picture: a model with a description, shown what evaluation shows it, or a deployed folder, given
the picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torchvision.transforms.v2 import functional as F

from fnatool import seeds
from fnatool.data.placement import Size
from fnatool.deploy.document import MARK, MODEL, Document, read_document
from fnatool.files import model as files
from fnatool.model import pixels
from fnatool.model.analysed import metadata
from fnatool.runtime import isolate
from fnatool.runtime.session import Runner
from fnatool.tasks.bare import plain
from fnatool.tasks.decode import decode
from fnatool.tasks.description import Description
from fnatool.tasks.table import TASKS, description_of, parse_description
from fnatool.training.in_runtime import SECONDS, predicting, require_runs
from fnatool.training.model_and_data import sizes
from passes.deploy.assemble import BOX, IMAGE
from passes.errors import RefusedModel, UserError

if TYPE_CHECKING:
    from PIL import Image

    from fnatool.data.split import Item

TRIED = 64  # pixels of a side of the image that a deployed graph is tried on


@dataclass(frozen=True)
class Answering:
    """What a model is for, and the answer of its task (see `Task.decode`) for a picture, which may be one of a data
    set's items.

    raw: the outputs themselves.
    """

    model: Path
    sha256: str
    description: Description
    answer: Callable[[Image.Image, Item | None], Any]
    raw: Callable[[Image.Image], Mapping[str, np.ndarray]]


def answering(source: Path | str, provider: str) -> Answering:
    """What a model file or a deployed folder answers.

    Raises UserError where it has no task or the provider is not there, RefusedModel where it does not run.
    """
    return of_folder(Path(source), provider) if Path(source).is_dir() else of_model(source, provider)


def of_model(path: Path | str, provider: str, size: Size | None = None, *, optimised: str = "all") -> Answering:
    """The same of a model file; `size` where nothing else says it; optimised: how much ONNX Runtime rewrites the
    graph.
    """
    read = files.read(seeds.find(path))
    described = description_of(metadata(read.envelope))
    size = sizes(read, described, size)[1]
    if (how := pixels.recorded(read, described.input)).guessed:
        pixels.say(how)
    require_runs(read.path, described, size)
    predict, task = predicting(read.path, described, provider, optimised=optimised), TASKS[described.task]

    def answer(image: Image.Image, item: Item | None = None) -> Any:
        shown, placement = task.show(F.to_image(image), described, size, item)
        return decode(predict(plain(shown)[None]), described, [placement], size=size)[0]

    def raw(image: Image.Image) -> Mapping[str, np.ndarray]:
        shown, _ = task.show(F.to_image(image), described, size)
        return predict(plain(shown)[None])  # type: ignore[return-value]

    return Answering(read.path, read.sha256, described, answer, raw)


def of_folder(folder: Path, provider: str, *, optimised: str = "all") -> Answering:
    """The same of a deployed folder."""
    document = read_document(folder)
    path = folder / MODEL
    if document.task is None or document.description is None or document.size is None:
        raise UserError(
            f"'{folder}' was made of a model without a task: what its outputs mean is not known; run '{path}' itself"
        )
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != document.sha256:
            raise UserError(f"'{path}' is not the file that '{folder / MARK}' was written for; deploy the model again")
    if not document.preprocessing and document.postprocessing == "none":
        return of_model(path, provider, document.size, optimised=optimised)
    if not document.preprocessing:
        raise UserError(
            f"'{folder}' answers in pixels of its input and not of a picture, as it has no pre-processing; "
            "predict with the model itself"
        )
    described = parse_description(json.dumps(document.description))
    require_deployed_runs(path, document)
    runner = Runner(path, provider, optimised=optimised)

    def raw(image: Image.Image) -> Mapping[str, np.ndarray]:
        return runner(_feeds(document, np.asarray(image.convert("RGB")), _whole(image)))

    return Answering(path, document.sha256, described, _answers(runner, document, described), raw)


def require_deployed_runs(path: Path, document: Document) -> None:
    """The graph runs on a picture, in a process of its own. Raises RefusedModel where it does not."""
    height, width = document.image_size or (TRIED, TRIED)
    try:
        isolate.run(_try, path, document, (height, width), seconds=SECONDS, memory=16 * isolate.GIB)
    except isolate.Died as error:
        raise RefusedModel(f"'{path}' in ONNX Runtime: {error}") from error


def _try(path: Path, document: Document, size: Size) -> None:
    box = np.array([0, 0, size[1], size[0]], np.float32)
    Runner(path)(_feeds(document, np.zeros((*size, 3), np.uint8), box))


def _feeds(document: Document, picture: np.ndarray, box: np.ndarray) -> dict[str, np.ndarray]:
    """What the graph takes of a picture [h, w, 3], as often as it wants several; box: what it is to look at, where it
    asks for that.
    """
    size = picture.shape[:2]
    if document.image_size not in (None, size):
        asked = document.image_size or size
        raise UserError(
            f"this graph takes images of {asked[0]}×{asked[1]} alone, and a picture has {size[0]}×{size[1]}"
        )
    own = picture if document.layout == "NHWC" else picture.transpose(2, 0, 1)
    feeds = {
        IMAGE: np.ascontiguousarray(np.repeat(own[None], document.batch.usual if document.batch.fixed else 1, axis=0))
    }
    return {**feeds, BOX: box} if any(value.name == BOX for value in document.inputs) else feeds


def _whole(image: Image.Image) -> np.ndarray:
    return np.array([0, 0, image.width, image.height], np.float32)


def _answers(runner: Runner, document: Document, described: Description) -> Callable[[Image.Image, Item | None], Any]:
    task = TASKS[described.task]

    def answer(image: Image.Image, item: Item | None = None) -> Any:
        box = np.asarray(getattr(item, "box", _whole(image)), np.float32)
        outputs = runner(_feeds(document, np.asarray(image.convert("RGB")), box))
        if document.postprocessing != "none":
            return task.answered(outputs, described, (image.height, image.width))
        size = document.size or (0, 0)
        _, placement = task.show(F.to_image(image), described, size, item)
        return decode({name: outputs[name][:1] for name in task.outputs}, described, [placement], size=size)[0]

    return answer
