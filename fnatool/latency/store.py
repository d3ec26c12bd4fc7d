"""Timings kept in a file after each of them, so that what was interrupted goes on: by where it was measured, then by
signature.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from fnatool.files.atomic import write_text
from fnatool.files.documents import read_json
from passes.errors import UserError

VERSION = 1


class Store:
    """The timings in one file of one place: signature → nanoseconds, one number a round. Those of other places stay as
    they are.
    """

    def __init__(self, path: Path, place: str) -> None:
        """Raises UserError where the file exists and is not such a store."""
        self.path = path
        self._places = _read(path) if path.exists() else {}
        self._rows = self._places.setdefault(place, {})

    def rounds(self, signature: str) -> tuple[int, ...]:
        """What is known of a network."""
        return tuple(self._rows.get(signature, ()))

    def add(self, signature: str, nanoseconds: int) -> None:
        """One more timing, on disk when this returns. Raises OSError, and the file is as it was before."""
        self._rows.setdefault(signature, []).append(nanoseconds)
        write_text(self.path, json.dumps({"version": VERSION, "timings": self._places}) + "\n", force=True)


def _read(path: Path) -> dict[str, dict[str, list[int]]]:
    try:
        document = read_json(path, "store of timings")
    except UserError as error:
        raise _damaged(path, f" ({error})") from error
    if (
        not isinstance(document, Mapping)
        or document.get("version") != VERSION
        or not isinstance(document.get("timings"), Mapping)
    ):
        raise _damaged(path)
    places: dict[str, dict[str, list[int]]] = {}
    for place, rows in document["timings"].items():
        if not isinstance(rows, Mapping) or not all(
            isinstance(row, list) and all(map(_is_time, row)) for row in rows.values()
        ):
            raise _damaged(path)
        places[place] = {str(signature): list(row) for signature, row in rows.items()}
    return places


def _is_time(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 62


def _damaged(path: Path, why: str = "") -> UserError:
    return UserError(
        f"'{path}' does not hold the timings of an earlier run, version {VERSION}{why}; delete it, and all is "
        "measured anew"
    )
