"""What follows from the names of joints: which change places in a mirror, and COCO's tolerances."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# COCO's keypoints and their sigmas, from its evaluation (a person's joints are labelled as exactly as this)
PERSON = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
}
OTHER = 0.05  # the sigma of any other joint
SIDES = {"left": "right", "l": "r"}
# What connects a person's joints on a picture, side by side, and across it
LIMBS = (
    ("eye", "nose"),
    ("ear", "eye"),
    ("shoulder", "elbow"),
    ("elbow", "wrist"),
    ("shoulder", "hip"),
    ("hip", "knee"),
    ("knee", "ankle"),
)
ACROSS = ("shoulder", "hip")


@dataclass(frozen=True)
class Joints:
    """The joints of a pose: names, COCO's tolerance (sigma) of each, and pairs that a mirror swaps."""

    names: tuple[str, ...]
    sigmas: tuple[float, ...]
    flip_pairs: tuple[tuple[int, int], ...]


def pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The numbers of joints whose names differ in left and right (or l and r) alone, left ones first."""
    words = [tuple(re.findall(r"[a-z]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())) for name in names]
    found = []
    for index, name in enumerate(words):
        mirrored = tuple(SIDES.get(word, word) for word in name)
        if mirrored != name and mirrored in words:
            found.append((index, words.index(mirrored)))
    return tuple(found)


def sigmas(names: Sequence[str]) -> tuple[float, ...]:
    """COCO's sigma where a joint is one of a person's, OTHER elsewhere."""
    return tuple(
        next((sigma for part, sigma in PERSON.items() if part in re.split(r"[^a-z]+", name.lower())), OTHER)
        for name in names
    )


def limbs_of(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The numbers of joints that a person's limbs connect, as far as names are those of such; empty where they are
    not.
    """
    parts = [tuple(re.split(r"[^a-z]+", name.lower())) for name in names]
    found = []
    for one, other in LIMBS:
        ends = ([k for k, words in enumerate(parts) if end in words] for end in (one, other))
        found += [(a, b) for a, b in _product(*ends) if _same_side(parts[a], parts[b])]
    for part in ACROSS:
        here = [k for k, words in enumerate(parts) if part in words]
        found += [(here[0], here[1])] if len(here) == 2 else []
    return tuple(found)


def _product(first: list[int], second: list[int]) -> list[tuple[int, int]]:
    return [(a, b) for a in first for b in second]


def _same_side(one: Sequence[str], other: Sequence[str]) -> bool:
    """Neither is on the other side of the body; a joint in the middle is on both."""
    sides = ({word for word in words if word in ("left", "right", "l", "r")} for words in (one, other))
    mine, theirs = sides
    return not (mine and theirs) or mine == theirs
