"""The embedded data, labelled for a task: scenes of garments in the format that the task's record names."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fnatool.data.fashion import CLASSES, garments
from fnatool.data.fashion.scenes import compose
from fnatool.data.fashion.writing import SOURCE, Numbered
from fnatool.files.atomic import replacing_folder
from fnatool.tasks.table import TASKS
from passes.errors import UserError

MARK = "fashion-scenes.json"  # in every folder written here, with how it was asked for
VERSION = 1  # of the scenes: another one may give other pixels for the same seed
SPLITS = ("train", "val")


@dataclass(frozen=True)
class SceneOptions:
    """Which scenes: for what task, how large (pixels a side), how many, from what seed."""

    task: str
    size: int = 96
    train: int = 2000
    val: int = 500
    seed: int = 0


def write_scenes(
    folder: Path, wanted: SceneOptions, *, force: bool = False, done: Callable[[], None] | None = None
) -> None:
    """folder holds the scenes wanted, all of them or, after any failure, what it held before; the same wanted gives the
    same bytes.

    Training scenes show the data set's training garments, the others its test garments. `done` is called after every
    scene. Raises UserError where folder is in use: with force, an older folder of scenes is replaced, but never
    anything else.
    """
    require_replaceable(folder, force=force)
    if TASKS[wanted.task].scenes().in_turn and wanted.train < len(CLASSES):
        raise UserError(
            f"--train {wanted.train} is too few: {wanted.task} wants a scene of each of the {len(CLASSES)} classes"
        )
    with replacing_folder(folder) as made:
        for split in SPLITS:
            TASKS[wanted.task].scenes().write(made, split, _counted(scenes(wanted, split), done))
        mark = {"version": VERSION, **asdict(wanted), "classes": CLASSES, "source": SOURCE}
        (made / MARK).write_text(json.dumps(mark, indent=1) + "\n")


def require_replaceable(folder: Path, *, force: bool) -> None:
    """A folder of scenes may be put at that path. Raises UserError."""
    if not folder.absolute().parent.is_dir():
        raise UserError(f"'{folder.absolute().parent}', where '{folder.name}' should go, is no folder; create it first")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"'{folder}' is not a folder; choose another name")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / MARK).is_file():
        raise UserError(
            f"'{folder}' holds files that 'fnatool data fashion-scenes' has not written; choose another folder"
        )
    if not force:
        raise UserError(f"'{folder}' exists; choose another folder or pass --force to replace it")


def scenes(wanted: SceneOptions, split: str) -> Numbered:
    """The scenes of a split, numbered from 0; each is a function of the seed and its number alone."""
    pool = garments(split)
    kind = TASKS[wanted.task].scenes()
    style = kind.style
    for number in range(wanted.train if split == "train" else wanted.val):
        rng = np.random.default_rng([wanted.seed, kind.stream, SPLITS.index(split), number])
        count = int(rng.integers(style.garments[0], style.garments[1] + 1))
        labels = [number % len(CLASSES)] if kind.in_turn else rng.integers(0, len(CLASSES), count).tolist()
        yield number, compose(rng, pool, labels, style=style, size=wanted.size)


def _counted(numbered: Numbered, done: Callable[[], None] | None) -> Numbered:
    for item in numbered:
        yield item
        if done is not None:
            done()
