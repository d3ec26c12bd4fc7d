"""What an existing model is for, said in its metadata: its head, its weights and its graph stay as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fnatool.data.pixels import Pixels
from fnatool.files import documents
from fnatool.files import model as files
from fnatool.files.interface import TASK_KEY, Inputs, shape_json
from fnatool.files.restating import require_place, restate
from fnatool.model import pixels
from fnatool.model.analysed import analyse_model, metadata
from fnatool.model.answers import TaskOutput, answers_of, labels_in, require_channels_first, require_scores
from fnatool.model.headed import input_of
from fnatool.model.names import class_names, joints_of
from fnatool.model.pixels import GUESS, GUESS_KEY, KNOWN, PixelOptions
from fnatool.model.source import Source, open_model
from fnatool.tasks import description, joints
from fnatool.tasks.description import Description
from fnatool.tasks.table import TASKS, parse_description, require_task
from passes.errors import UserError
from passes.heads import image_of
from passes.heads.grids import grids_of


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What the model is for, in the user's words: `names` a file of class names, `joints` a number, 'coco' or a JSON
    file.

    None: as many as its output has, by numbers, or as an earlier record says. `record` is a JSON file with what else
    the task's record has to say, as the levels of a detector. mean, scale and channels as in HeadOptions. `inputs`
    gives shapes for free dimensions. `in_place` lets the file itself be replaced, `force` another one.
    """

    task: str
    names: str | None = None
    joints: str | int | None = None
    record: Path | None = None
    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    channels: str | None = None
    inputs: Inputs = None
    in_place: bool = False
    force: bool = False


@dataclass(frozen=True)
class DescribedModel:
    """A model and what it is for now; `answers` are its outputs by the task's names; `in_memory`: it is not as its file
    is.
    """

    model: files.Model
    description: Description
    answers: tuple[TaskOutput, ...]
    pixels: Pixels
    notes: Mapping[str, str]
    in_memory: bool

    def to_json(self) -> dict[str, object]:
        """The same, for programs."""
        return {
            "seed": f"sha256:{self.model.sha256}",
            "description": json.loads(description.to_json(self.description)),
            "outputs": [
                {"name": one.name, "tensor": one.tensor, "shape": shape_json(one.shape)} for one in self.answers
            ],
            "pixels": self.pixels.to_json(),
        }

    def write(self, path: Path | str, *, force: bool = False) -> None:
        """The model as a file that says it, atomically; the bytes of the graph and of the weights are those of the
        model's own file.
        """
        if self.in_memory:
            files.write(self.model, path, force=force)
        else:
            restate(self.model, Path(path), self.notes, force=force)


def task(model: Source, out: Path | str | None = None, *, options: TaskOptions) -> DescribedModel:
    """The model (a path, the bundled seed's name, or a model in memory) saying what it is for; written to `out`, or in
    place, if asked for.

    Raises UserError where its outputs are not those of the task, or for a file that must not be written; RefusedModel
    for a model that cannot be read.
    """
    require_task(options.task)
    if options.in_place and out is not None:
        raise UserError("the result goes to a file of its own or in place, not both")
    read, sizes = open_model(model, options.inputs)
    in_memory = isinstance(model, files.Model)
    if options.in_place and in_memory:
        raise UserError("a model in memory has no place of its own; give the path of a file")
    place = read.path if options.in_place else None if out is None else Path(out)
    force = options.force or options.in_place
    if place is not None:
        require_place(read, place, force=force)
    made = _described(read, options, sizes, in_memory=in_memory)
    if place is not None:
        made.write(place, force=force)
    return made


def _described(
    model: files.Model, options: TaskOptions, sizes: Mapping[str, tuple[int, ...]] | None, *, in_memory: bool
) -> DescribedModel:
    analysis = analyse_model(model, sizes)
    image = image_of(analysis)
    asked = PixelOptions(options.mean, options.scale, options.channels)
    how = pixels.pixels_of(model, analysis.view, pixels.seen_as(analysis.view, image.name, image.channels), asked)
    document = {
        **_known(model, options),
        "version": 1,
        "task": options.task,
        "input": input_of(image, how).model_dump(mode="json"),
    }
    document.pop("outputs", None)

    def describe(names: tuple[str, ...]) -> Description:
        return _parsed({**document, **_named(options, names)})

    answers = answers_of(model, describe, sizes)
    document["outputs"] = [(answer.name, answer.tensor) for answer in answers if answer.name != answer.tensor]
    about = _parsed({**document, **_labels(options, document, lambda: labels_in(answers, describe))})
    require_scores(answers, about, model)
    require_channels_first(answers, grids_of(analysis))
    notes = {TASK_KEY: description.to_json(about)}
    if how.guessed or GUESS_KEY in metadata(model.envelope):
        notes[GUESS_KEY] = GUESS if how.guessed else KNOWN
    return DescribedModel(files.with_metadata(model, notes), about, answers, how, notes, in_memory)


def _known(model: files.Model, options: TaskOptions) -> dict[str, object]:
    """What an earlier record says of the same task, and over it what the user's file says. Raises UserError for a file
    that is none.
    """
    try:
        found = json.loads(metadata(model.envelope).get(TASK_KEY, "{}"))
    except (ValueError, RecursionError):
        found = {}
    known = found if isinstance(found, dict) and found.get("task") == options.task else {}
    if options.record is None:
        return known
    try:
        stated = documents.read(options.record)
    except OSError as error:
        raise UserError(f"'{options.record}' cannot be read: {error.strerror}") from error
    if not isinstance(stated, dict):
        raise UserError(
            f"'{options.record}' must be a JSON object, with what the record of a {options.task} model is to say"
        )
    return {**known, **stated}


def _named(options: TaskOptions, names: tuple[str, ...]) -> dict[str, object]:
    """What a record says of labels of these names."""
    if TASKS[options.task].labels == "classes":
        return {"classes": names}
    return {"classes": ("object",), "joints": names, "sigmas": joints.sigmas(names), "flip_pairs": joints.pairs(names)}


def _labels(options: TaskOptions, document: Mapping[str, object], count: Callable[[], int]) -> dict[str, object]:
    """Of classes, and joints where the task has them: those asked for, else those known, else as many as the outputs
    have (`count`).
    """
    asked: dict[str, object] = {} if options.names is None else {"classes": class_names(options.names)}
    if TASKS[options.task].labels == "classes":
        if options.joints is not None:
            raise UserError(f"--joints is for poses, not for {options.task}")
        known = document.get("classes")
        return asked or (
            {} if isinstance(known, list) and len(known) == count() else {"classes": class_names(str(count()))}
        )
    if options.joints is None and "joints" in document:
        return asked
    found = joints_of(str(count() if options.joints is None else options.joints))
    return {
        "classes": ("object",),
        "joints": found.names,
        "sigmas": found.sigmas,
        "flip_pairs": found.flip_pairs,
        **asked,
    }


def _parsed(document: Mapping[str, object]) -> Description:
    return parse_description(json.dumps(document), WRONG)


WRONG = "the record of the task cannot be made (--record FILE says what the options do not)"
