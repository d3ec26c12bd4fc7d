"""What a data.yaml says of data in YOLO's format, read without trust: plain values only, no anchors, bounded in
size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fnatool.data.folders import special
from fnatool.data.people import PERSON, PERSON_MIRRORED
from fnatool.data.sources import split_of
from passes.errors import UserError

YAMLS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
LARGEST = 256 << 10  # bytes
DEEPEST = 32  # lists and maps in brackets within each other: the reader's time grows with the square of that
MOST_CLASSES = 10_000
MOST_JOINTS = 1000


@dataclass(frozen=True)
class YoloFacts:
    """The names of the classes, where the splits are (`path` is what they are seen from), and the joints of poses and
    their numbers.
    """

    file: Path
    names: tuple[str, ...]
    path: str | None = None
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shape: tuple[int, int] | None = None  # joints, and numbers of each: 2 or 3
    joints: tuple[str, ...] = ()

    @property
    def numbers(self) -> int:
        """Of all joints in a row."""
        return 0 if self.shape is None else self.shape[0] * self.shape[1]


def is_yolo(file: Path) -> bool:
    """The file says names and splits as Ultralytics does."""
    try:
        document = _document(file)
    except UserError:
        return False
    return "names" in document and any(split_of(str(key)) is not None for key in document)


def facts_of(file: Path) -> YoloFacts:
    """What the file says. Raises UserError."""
    document = _document(file)
    names = _names(file, document)
    splits = {
        split: _paths(file, key, said)
        for key, said in document.items()
        if (split := split_of(str(key))) is not None and said
    }
    if not splits:
        raise UserError(f"'{file}' says nowhere where the data is; give 'train' and 'val', folders of pictures")
    path = document.get("path")
    shape = _shape(file, document.get("kpt_shape"))
    joints = () if shape is None else _joints(file, document, shape[0])
    return YoloFacts(file, names, path if isinstance(path, str) and path else None, splits, shape, joints)


def _document(file: Path) -> Mapping[object, object]:
    import yaml

    kind = special(file)
    if kind is not None:
        raise UserError(f"'{file}' is {kind}, not a file")
    try:
        with file.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError as error:
        raise UserError(f"'{file}' cannot be read: {error.strerror}") from error
    if len(content) > LARGEST:
        raise UserError(f"'{file}' is larger than {LARGEST >> 10} KiB; a file that describes data is not")
    try:
        text = content.decode("utf-8-sig")
        if _depth(text) > DEEPEST:
            raise UserError(
                f"'{file}': brackets lie more than {DEEPEST} deep in each other; a file that describes data has a few"
            )
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise UserError(
                f"'{file}' has aliases, a few of which make a document as large as one likes; write out what "
                "they stand for"
            )
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError, AttributeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        why = getattr(error, "problem", None) or str(error)
        raise UserError(
            f"'{file}'{where}: this is not YAML that can be read ({' '.join(str(why).split())[:200]})"
        ) from error
    if not isinstance(document, dict):
        raise UserError(f"'{file}' does not describe data: it has no 'names', 'train' and 'val'")
    return document


def _depth(text: str) -> int:
    """How deep brackets lie in each other, those in words and remarks too."""
    depth = deepest = 0
    for mark in re.findall(r"[\[\]{}]", text):
        depth = depth + 1 if mark in "[{" else max(depth - 1, 0)
        deepest = max(deepest, depth)
    return deepest


def _names(file: Path, document: Mapping[object, object]) -> tuple[str, ...]:
    """The names by number, whether they are a list or by their numbers; class_0 … where there are none but a count."""
    said, count = document.get("names"), document.get("nc")
    is_count = isinstance(count, int) and not isinstance(count, bool) and 0 < count <= MOST_CLASSES
    if said is None and is_count and isinstance(count, int):
        return tuple(f"class_{number}" for number in range(count))
    if isinstance(said, dict):
        numbers = [
            int(key) if isinstance(key, int) or (isinstance(key, str) and key.isdecimal()) else None for key in said
        ]
        if sorted(number for number in numbers if number is not None) != list(range(len(said))):
            raise UserError(f"'{file}': 'names' does not give a name to each of 0 … {len(said) - 1}")
        by_number = dict(zip(numbers, said.values(), strict=True))
        said = [by_number[number] for number in range(len(said))]
    if not isinstance(said, list) or not said or len(said) > MOST_CLASSES:
        raise UserError(
            f"'{file}': 'names' is no list of names; give one for each class, in the order of their numbers"
        )
    names = tuple(str(name).strip() for name in said)
    if not all(isinstance(name, str | int | float) for name in said) or not all(names):
        raise UserError(f"'{file}': 'names' holds something that is no name")
    if len(set(names)) < len(names):
        raise UserError(f"'{file}': two of the 'names' are equal; give each class a name of its own")
    if count is not None and count != len(names):
        raise UserError(f"'{file}': 'nc' is {str(count)[:20]}, but there are {len(names)} 'names'")
    return names


def _paths(file: Path, key: object, said: object) -> tuple[str, ...]:
    """A path, or several."""
    paths = said if isinstance(said, list) else [said]
    if not all(isinstance(path, str) and path and "\0" not in path for path in paths):
        raise UserError(f"'{file}': '{key}' is no path, and no list of paths")
    return tuple(str(path) for path in paths)


def _shape(file: Path, said: object) -> tuple[int, int] | None:
    if said is None:
        return None
    if (
        isinstance(said, list)
        and len(said) == 2
        and all(isinstance(number, int) and not isinstance(number, bool) for number in said)
        and 0 < said[0] <= MOST_JOINTS
        and said[1] in (2, 3)
    ):
        return said[0], said[1]
    raise UserError(f"'{file}': 'kpt_shape' is not [joints, 2] or [joints, 3]")


def _joints(file: Path, document: Mapping[object, object], count: int) -> tuple[str, ...]:
    """The names of the joints. Raises UserError where the file mirrors some and names none: what a mirror swaps follows
    from names.
    """
    said = document.get("kpt_names")
    if isinstance(said, dict):
        different = {tuple(map(str, names)) if isinstance(names, list) else () for names in said.values()}
        if len(different) > 1:
            raise UserError(f"'{file}': 'kpt_names' differ from class to class; one network finds one kind of joints")
        said = next(iter(said.values()), None)
    if isinstance(said, list):
        names = tuple(str(name) for name in said)
        if len(set(names)) == len(names) == count and all(names):
            return names
    if said is not None:
        raise UserError(f"'{file}': 'kpt_names' is not {count} different names")
    mirrored = document.get("flip_idx")
    if isinstance(mirrored, list) and tuple(mirrored) == PERSON_MIRRORED:  # such files rarely name the joints
        return PERSON
    if mirrored is not None and mirrored != list(range(count)):
        raise UserError(
            f"'{file}': 'flip_idx' says that joints change places in a mirror, but nothing names them; add "
            "'kpt_names', a list of "
            f"{count} names, of which such pairs differ in left and right alone: [nose, left_eye, right_eye]"
        )
    return tuple(f"joint{number}" for number in range(count))
