"""JSON files of the user's, read with care: each failure is a sentence about the file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from passes.errors import UserError

MOST_BYTES = 1 << 26


def read_json(path: Path, what: str) -> object:
    """The document in a JSON file. Raises UserError where there is no such file, it is far too large, or it is not JSON."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8")
    except FileNotFoundError as error:
        raise UserError(f"there is no {what} '{path}'") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' cannot be read as a {what}: {error}") from error
    if len(data) > MOST_BYTES:
        raise UserError(f"'{path}' has more than {MOST_BYTES >> 20} MiB: it is no {what}")
    try:
        document: object = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{path}' is not JSON: {error}") from error
    return document


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise ValueError(f"the key '{key}' stands {count} times")
    return dict(pairs)


def _refused(name: str) -> object:
    raise ValueError(f"{name} is no number")
