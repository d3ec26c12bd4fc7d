"""Numbers in text files of labels."""

from __future__ import annotations

import re

from fnatool.data.objects import LARGEST

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", re.I | re.A)
LONGEST = 64  # characters


def number(word: str) -> float | None:
    """The number that a word is, None where it is none that a position can be: no nan, no infinity, nothing beyond
    LARGEST.
    """
    word = word.strip()
    if len(word) > LONGEST or NUMBER.fullmatch(word) is None:
        return None
    value = float(word)
    return value if abs(value) < LARGEST else None
