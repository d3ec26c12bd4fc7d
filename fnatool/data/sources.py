"""Finding the parts of a data set in a folder: the one place that knows what people call them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from fnatool.data.folders import subfolders
from passes.errors import UserError

# From the names of the parts that a layout finds ("train", "val", "test", or "all" for data that is not split) to what
# reads each; its argument is the classes it must keep to, None for the data's own.
SPLITS = {"train": "train|training|trn", "val": "val|valid|validation", "test": "test|testing|tst"}
WORDS = {
    name: re.compile(rf"({words})[-_. ]?(sets?|data|split)?[-_. ]?((19|20)\d\d)?", re.I)
    for name, words in SPLITS.items()
}


def split_of(name: str) -> str | None:
    """The split that a folder or a list of this name is: 'Train', 'training_set', 'val2017', 'Validation' …; None where
    it is none.
    """
    return next((split for split, words in WORDS.items() if words.fullmatch(name)), None)


def split_in(name: str) -> str | None:
    """The one split that a word of a file's name says, as in 'instances_train2017'; None where none or several do."""
    found = {split_of(word) for word in re.split(r"[^a-z0-9]+", name.lower())} | {split_of(name)}
    return found.pop() if len(found := found - {None}) == 1 else None


def folders_by_split(folder: Path, holds: Callable[[Path], bool] = Path.is_dir) -> dict[str, Path]:
    """The folders in folder that are named like splits and hold what is looked for. Raises UserError where two are the
    same split.
    """
    found: dict[str, Path] = {}
    for name in subfolders(folder):
        split = split_of(name)
        if split is None or not holds(folder / name):
            continue
        if split in found:
            raise UserError(
                f"'{folder}' has two folders for {split}: {found[split].name} and {name}; rename the one that "
                "is not meant"
            )
        found[split] = folder / name
    return {split: found[split] for split in SPLITS if split in found}


def named(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of the names that a folder in folder has, in any case."""
    there = {name.lower(): name for name in reversed(subfolders(folder))}
    return next((folder / there[name] for name in names if name in there), None)


def unwrapped(root: Path, holds: Callable[[Path], bool]) -> Path:
    """The folder with the data: archives of Pascal VOC have VOCdevkit/VOC2012 around it."""
    inside = subfolders(root)
    while len(inside) == 1 and inside[0].lower().startswith("voc") and not holds(root):
        root = root / inside[0]
        inside = subfolders(root)
    return root


def class_names(root: Path) -> tuple[str, ...] | None:
    """The names in classes.txt or class_names.txt of root, a line each; None where there is no such file."""
    for name in ("classes.txt", "class_names.txt"):
        if (root / name).is_file():
            return tuple(line.strip() for line in lines_of(root / name) if line.strip())
    return None


def lines_of(file: Path) -> list[str]:
    """The lines of a text file. Raises UserError where it is not UTF-8."""
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"'{file}' is not UTF-8 text (byte {error.start}); save it as such") from error
