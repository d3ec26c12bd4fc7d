"""What follows from the names of joints: which change places in a mirror, and COCO's tolerances."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
    return tuple(next((sigma for part, sigma in PERSON.items() if part in re.split(r"[^a-z]+", name.lower())), OTHER) for name in names)
