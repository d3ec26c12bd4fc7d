"""What the user calls classes and joints: a number, or a file of names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from passes.errors import UserError
from passes.heads import Pose

MOST = 1 << 16

COCO = Pose(
    joints=("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
            "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
    sigmas=(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
)  # fmt: skip
"""The joints of a person in COCO, and the sigmas of its evaluation."""

SIGMA = 0.05  # of a joint nobody gave one for; COCO's lie between 0.025 and 0.107


def class_names(text: str) -> tuple[str, ...]:
    """`19` is class0 … class18; anything else the path of a file with a name on every line. Raises UserError for neither."""
    number = _number(text, "classes")
    if number is not None:
        return tuple(f"class{k}" for k in range(number))
    names = tuple(_read(text, "classes", "a number or a file with a name on every line").splitlines())
    while names and not names[-1].strip():
        names = names[:-1]
    return _named(tuple(name.strip() for name in names), f"line of '{text}'")


def pose_of(text: str) -> Pose:
    """`coco`, a number of joints (joint0 …), or a JSON file with `joints` and, if known, `sigmas` and `flip_pairs`. Raises UserError."""
    if text == "coco":
        return COCO
    number = _number(text, "joints")
    if number is not None:
        return Pose(tuple(f"joint{k}" for k in range(number)), (SIGMA,) * number, ())
    source = _read(text, "joints", "'coco', a number, or a JSON file")
    try:
        document = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{text}' is not JSON: {error}") from error
    return _pose(document, text)


def _pose(document: object, where: str) -> Pose:
    if not isinstance(document, Mapping) or not set(document) <= {"joints", "sigmas", "flip_pairs"} or "joints" not in document:
        raise UserError(f"'{where}' must be a JSON object with 'joints' and, if known, 'sigmas' and 'flip_pairs'")
    joints = document["joints"]
    if not isinstance(joints, list) or not all(isinstance(name, str) for name in joints):
        raise UserError(f"'joints' in '{where}' must be a list of names")
    names = _named(tuple(joints), f"joint in '{where}'")
    sigmas = document.get("sigmas", [SIGMA] * len(names))
    if not isinstance(sigmas, list) or len(sigmas) != len(names) or not all(_positive(sigma) for sigma in sigmas):
        raise UserError(f"'sigmas' in '{where}' must be a list of {len(names)} positive numbers, one per joint")
    pairs = document.get("flip_pairs", [])
    if not isinstance(pairs, list) or not all(_is_pair(pair, len(names)) for pair in pairs):
        raise UserError(f"'flip_pairs' in '{where}' must be a list of pairs of joints, each a number from 0 to {len(names) - 1}")
    return Pose(names, tuple(float(sigma) for sigma in sigmas), tuple((pair[0], pair[1]) for pair in pairs))


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_pair(pair: object, count: int) -> bool:
    numbers = isinstance(pair, list) and all(isinstance(j, int) and not isinstance(j, bool) and 0 <= j < count for j in pair)
    return numbers and len(pair) == 2 and pair[0] != pair[1]  # type: ignore[arg-type,index]


def _number(text: str, what: str) -> int | None:
    if not text.lstrip("-").isascii() or not text.lstrip("-").isdigit():
        return None
    if len(text) > 9 or not 1 <= int(text) <= MOST:
        raise UserError(f"{what}: {text} is out of range, which goes from 1 to {MOST}")
    return int(text)


def _read(text: str, what: str, forms: str) -> str:
    try:
        return Path(text).read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise UserError(f"{what}: '{text}' is neither a number nor a file; give {forms}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{text}' cannot be read: {error}") from error


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
