"""A model's answers for pictures, drawn on them and as JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fnatool import terminal
from fnatool.data import folders, images
from fnatool.deploy.answering import Answering
from fnatool.deploy.answering import answering as answering_of
from fnatool.deploy.output import FILES, require_replaceable
from fnatool.files.atomic import replacing, replacing_folder, require_writable
from fnatool.tasks import drawing
from fnatool.tasks.table import TASKS
from passes.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

MARK = "predictions.json"
SHEET = "contact-sheet"
PNG = ".png"


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """The provider of ONNX Runtime (cpu, cuda, tensorrt), whether pictures that cannot be read are left out, and
    whether an older result is replaced."""

    provider: str = "cpu"
    skip_bad: bool = False
    force: bool = False


@dataclass(frozen=True)
class Answer:
    """What was found in a picture: its file, the task's answer, the same for programs, and the file that shows it."""

    image: Path
    prediction: Any
    said: dict[str, object]
    drawn: Path | None


@dataclass(frozen=True)
class Predictions:
    """The answers of a model for pictures, in their order; what shows several at once; and (file, why) of what was left
    out.
    """

    model: Path
    sha256: str
    task: str
    answers: tuple[Answer, ...]
    sheets: tuple[Path, ...] = ()
    left_out: tuple[tuple[Path, str], ...] = ()

    def to_json(self) -> dict[str, object]:
        """For programs."""
        rows = [{"image": str(row.image), "drawn": row.drawn and row.drawn.name, **row.said} for row in self.answers]
        names = [path.name for path in (*(row.drawn for row in self.answers if row.drawn is not None), *self.sheets)]
        left = [{"image": str(path), "why": why} for path, why in self.left_out]
        return {
            "model": str(self.model),
            "sha256": self.sha256,
            "task": self.task,
            "images": rows,
            "left_out": left,
            FILES: names,
        }


def predict(
    model: Path | str,
    pictures: Sequence[Path | str],
    out: Path | str | None = None,
    *,
    options: PredictOptions | None = None,
) -> Predictions:
    """The answers of a model with a task, or of a deployed folder, for pictures, each the path of a file or of a folder
    of such.

    With `out` they are drawn: one picture into a file of that name where it ends in .png, else each into a PNG in a
    folder of that name, with contact sheets where there are several, and all answers as JSON. Raises UserError for what
    cannot be read or written, RefusedModel for a model that does not run; nothing is written then.
    """
    options = options or PredictOptions()
    found = _pictures(pictures)
    place = None if out is None else Path(out)
    single = place is not None and place.suffix.lower() == PNG
    if place is not None and single:
        if len(found) > 1:
            raise UserError(
                f"'{place}' is a file, but there are {len(found)} pictures; give a folder for what is drawn of them"
            )
        require_writable(place, force=options.force, forbid=found)
    elif place is not None:
        require_replaceable(place, MARK, force=options.force)
    answering = answering_of(model, options.provider)
    if place is None:
        return _collected(answering, _answered(answering, found, options))
    if single:
        return _one(answering, found, place, options)
    with replacing_folder(place) as made:
        return _several(answering, found, (made, place), options)


def _pictures(given: Sequence[Path | str]) -> list[Path]:
    """The files, those of a folder sorted. Raises UserError where there is no such file, or no picture in a folder."""
    found: list[Path] = []
    for path in map(Path, given):
        if not path.is_dir():
            if not path.exists():
                raise UserError(f"'{path}' does not exist; give pictures, or folders of them")
            found.append(path)
            continue
        inside = [file for file in folders.below([path])[0] if folders.is_image(file.name)]
        if not inside:
            raise UserError(
                f"there is no picture in '{path}' (looked for {folders.kinds()}, also in the folders in it)"
            )
        found += inside
    if not found:
        raise UserError("give a picture, or a folder of them")
    return found


Found = tuple[Path, "Image.Image | str", Any]  # a file, its picture (or why there is none), the answer


def _answered(answering: Answering, pictures: Sequence[Path], options: PredictOptions) -> Iterator[Found]:
    """Each picture with its answer. Raises UserError for one that cannot be read, unless such are left out."""
    with terminal.progress("predicting", len(pictures)) as advance:
        for path in pictures:
            try:
                image = images.rgb(path)
            except images.Unreadable as error:
                if not options.skip_bad:
                    raise UserError(f"'{path}': {error}; --skip-bad leaves such pictures out") from error
                yield path, str(error), None
            else:
                yield path, image, answering.answer(image, None)
            advance(1)


def _collected(answering: Answering, rows: Iterator[Found]) -> Predictions:
    answers, left = [], []
    for path, image, prediction in rows:
        if isinstance(image, str):
            left.append((path, image))
        else:
            answers.append(_answer(answering, path, prediction, None))
    return _predictions(answering, answers, (), left)


def _answer(answering: Answering, path: Path, prediction: Any, drawn: Path | None) -> Answer:
    return Answer(path, prediction, TASKS[answering.description.task].say(prediction, answering.description), drawn)


def _predictions(
    answering: Answering, answers: Sequence[Answer], sheets: Sequence[Path], left: Sequence[tuple[Path, str]]
) -> Predictions:  # fmt: skip
    if not answers:
        raise UserError(f"none of the {len(left)} picture(s) can be read: '{left[0][0]}': {left[0][1]}")
    return Predictions(
        answering.model, answering.sha256, answering.description.task, tuple(answers), tuple(sheets), tuple(left)
    )


def _drawn(answering: Answering, image: Image.Image, prediction: Any) -> Image.Image:
    return TASKS[answering.description.task].draw(image, prediction, answering.description)


def _one(answering: Answering, pictures: Sequence[Path], place: Path, options: PredictOptions) -> Predictions:
    answers, left = [], []
    for path, image, prediction in _answered(answering, pictures, options):
        if isinstance(image, str):
            left.append((path, image))
            continue
        made = io.BytesIO()
        _drawn(answering, image, prediction).save(made, "PNG")
        with replacing(place, force=options.force) as (file,):
            file.write(made.getvalue())
        answers.append(_answer(answering, path, prediction, place))
    return _predictions(answering, answers, (), left)


def _several(
    answering: Answering, pictures: Sequence[Path], places: tuple[Path, Path], options: PredictOptions
) -> Predictions:
    """All in a new folder. places: that, and what it will be called."""
    made, place = places
    answers: list[Answer] = []
    left: list[tuple[Path, str]] = []
    taken = {SHEET}

    def shown() -> Iterator[tuple[str, Image.Image]]:
        for path, image, prediction in _answered(answering, pictures, options):
            if isinstance(image, str):
                left.append((path, image))
                continue
            name = _free(path.stem, taken)
            drawn = _drawn(answering, image, prediction)
            drawn.save(made / f"{name}{PNG}")
            answers.append(_answer(answering, path, prediction, place / f"{name}{PNG}"))
            yield path.name, drawn

    sheets = []
    for number, sheet in enumerate(drawing.contact_sheets(shown(), len(pictures))):
        if len(pictures) > 1:
            name = f"{SHEET}{f'-{number + 1}' if len(pictures) > drawing.SHEET_TILES else ''}{PNG}"
            sheet.save(made / name)
            sheets.append(place / name)
    found = _predictions(answering, answers, sheets, left)
    (made / MARK).write_text(json.dumps(found.to_json(), indent=1) + "\n")
    return found


def _free(stem: str, taken: set[str]) -> str:
    """A name that no file has yet, whatever its case; contact sheets keep theirs."""
    name, number = stem, 1
    while name.lower() in taken or name.lower().startswith(SHEET):
        number += 1
        name = f"{stem.removeprefix(SHEET) or 'picture'}-{number}"
    taken.add(name.lower())
    return name
