"""What darknet's obj.data says of data in YOLO's format, as CVAT's export "YOLO 1.1" has it too: `train =
data/train.txt`.

A line is `key = value`; `names` is a file of class names, one a line, `train` and `valid` are lists of pictures. Paths
are seen from where the program was started, mostly the folder above `data/`; so a path also counts without its first
folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from fnatool.data.folders import special
from fnatool.data.sources import lines_of, split_of
from fnatool.data.yolo_yaml import LARGEST, MOST_CLASSES, YoloFacts
from passes.errors import UserError

SUFFIX = ".data"


def facts_of(file: Path) -> YoloFacts:
    """What the file says. Raises UserError."""
    rows = _rows(file)
    splits = {split: (said,) for key, said in rows.items() if (split := split_of(key)) is not None}
    if not splits:
        raise UserError(f"'{file}' says nowhere where the data is; give 'train = train.txt', a list of pictures")
    names = _names(file, rows)
    if rows.get("classes", str(len(names))) != str(len(names)):
        raise UserError(f"'{file}': 'classes' is {rows['classes'][:20]}, but there are {len(names)} names")
    return YoloFacts(file, names, None, splits)


def is_darknet(file: Path) -> bool:
    """The file says names and splits as darknet does."""
    try:
        rows = _rows(file)
    except UserError:
        return False
    return "names" in rows and any(split_of(key) is not None for key in rows)


def without_first_folder(said: str) -> str:
    """data/obj_train_data/a.jpg → obj_train_data/a.jpg"""
    return said if said.startswith("/") else said.partition("/")[2] or said


def _rows(file: Path) -> dict[str, str]:
    found = {}
    for line in _lines(file):
        key, equals, said = (word.strip() for word in line.partition("#")[0].partition("="))
        if equals and key and said and "\0" not in said:
            found[key.lower()] = said
    return found


def _lines(file: Path) -> list[str]:
    kind = special(file)
    if kind is not None:
        raise UserError(f"'{file}' is {kind}, not a file")
    if file.stat().st_size > LARGEST:
        raise UserError(f"'{file}' is larger than {LARGEST >> 10} KiB; a file that describes data is not")
    return lines_of(file)


def _names(file: Path, rows: dict[str, str]) -> tuple[str, ...]:
    """The names in the file that `names` says. Raises UserError."""
    said = rows.get("names")
    if said is None:
        raise UserError(f"'{file}' has no 'names'; give the path of a file with the names of the classes, one a line")
    plain = said.replace("\\", "/")
    places = [file.parent / form for form in (plain, without_first_folder(plain), plain.rpartition("/")[2])]
    inside = [path for path in places if not os.path.relpath(path, file.parent).startswith("..")]
    there = next((path for path in inside if path.is_file()), None)
    if there is None:
        raise UserError(f"'{file}': there is no file of names '{said[:80]}' in its folder")
    names = tuple(line.strip() for line in _lines(there) if line.strip())
    if not names or len(names) > MOST_CLASSES:
        raise UserError(f"'{there}' does not name the classes, one a line")
    if len(set(names)) < len(names):
        raise UserError(f"two of the names in '{there}' are equal; give each class a name of its own")
    return names
