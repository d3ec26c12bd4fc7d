"""What the user calls classes and joints: a number, or a file of names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from fnatool.data.people import PERSON
from fnatool.files import documents
from fnatool.tasks import joints
from fnatool.tasks.joints import Joints
from passes.errors import UserError

MOST = 1 << 16


def class_names(text: str) -> tuple[str, ...]:
    """`19` is class0 … class18; anything else the path of a file with a name on every line. Raises UserError for
    neither.
    """
    number = _number(text, "classes")
    if number is not None:
        return tuple(f"class{k}" for k in range(number))
    names = tuple(_read(text, "classes", "a number or a file with a name on every line").splitlines())
    while names and not names[-1].strip():
        names = names[:-1]
    return _named(tuple(name.strip() for name in names), f"line of '{text}'")


def joints_of(text: str) -> Joints:
    """`coco`, a number of joints (joint0 …), or a JSON file with `joints` and, if it says them, `sigmas` and
    `flip_pairs`.

    What it leaves unsaid follows from the names: see fnatool.tasks.joints. Raises UserError.
    """
    number = _number(text, "joints")
    names = PERSON if text == "coco" else tuple(f"joint{k}" for k in range(number)) if number is not None else None
    if names is not None:
        return Joints(names, joints.sigmas(names), joints.pairs(names))
    source = _read(text, "joints", "'coco', a number, or a JSON file")
    try:
        document = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{text}' is not JSON: {error}") from error
    return _joints(document, text)


def _joints(document: object, where: str) -> Joints:
    if (
        not isinstance(document, Mapping)
        or not set(document) <= {"joints", "sigmas", "flip_pairs"}
        or "joints" not in document
    ):
        raise UserError(f"'{where}' must be a JSON object with 'joints' and, if known, 'sigmas' and 'flip_pairs'")
    listed = document["joints"]
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise UserError(f"'joints' in '{where}' must be a list of names")
    names = _named(tuple(listed), f"joint in '{where}'")
    sigmas = document.get("sigmas", list(joints.sigmas(names)))
    if not isinstance(sigmas, list) or len(sigmas) != len(names) or not all(_positive(sigma) for sigma in sigmas):
        raise UserError(f"'sigmas' in '{where}' must be a list of {len(names)} positive numbers, one per joint")
    pairs = document.get("flip_pairs", [list(pair) for pair in joints.pairs(names)])
    if not isinstance(pairs, list) or not all(_is_pair(pair, len(names)) for pair in pairs):
        raise UserError(
            f"'flip_pairs' in '{where}' must be a list of pairs of joints, each a number from 0 to {len(names) - 1}"
        )
    return Joints(names, tuple(float(sigma) for sigma in sigmas), tuple((pair[0], pair[1]) for pair in pairs))


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_pair(pair: object, count: int) -> bool:
    numbers = isinstance(pair, list) and all(
        isinstance(j, int) and not isinstance(j, bool) and 0 <= j < count for j in pair
    )
    return numbers and len(pair) == 2 and pair[0] != pair[1]  # type: ignore[arg-type,index]


def _number(text: str, what: str) -> int | None:
    if not text.lstrip("-").isascii() or not text.lstrip("-").isdigit():
        return None
    if len(text) > 9 or not 1 <= int(text) <= MOST:
        raise UserError(f"{what}: {text} is out of range, which goes from 1 to {MOST}")
    return int(text)


def _read(text: str, what: str, forms: str) -> str:
    try:
        return documents.text(Path(text), forms)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise UserError(f"{what}: '{text}' is neither a number nor a file; give {forms}") from error
    except OSError as error:
        raise UserError(f"'{text}' cannot be read: {error.strerror}") from error


def _named(names: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The names, each its own. Raises UserError naming the first that is not."""
    if not 1 <= len(names) <= MOST:
        raise UserError(f"there are {len(names)} names; give 1 to {MOST}: one for every {what}")
    seen: dict[str, int] = {}
    for k, name in enumerate(names, 1):
        if not name:
            raise UserError(f"{what} {k} is empty; give it a name")
        if name in seen:
            raise UserError(f"{what} {k} repeats '{name}', which stands at {seen[name]} already")
        seen[name] = k
    return names
