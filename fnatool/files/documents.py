"""JSON that people write. A file is read as far as any of theirs could reach: no device and no pipe without an end
holds us up.
"""

from __future__ import annotations

import json
import os
import select
import stat
import time
from pathlib import Path
from typing import BinaryIO

from passes.errors import UserError

LARGEST = 1 << 24  # bytes
PATIENCE = 10.0  # seconds for what writes into a pipe


def read(path: Path, *, pipes: bool = True) -> object:
    """The document in the file at path, in which no key stands twice. Raises UserError, and OSError where it may not be
    read.

    Unless pipes, only a regular file is opened.
    """
    try:
        return json.loads(
            text(path, "a JSON file", pipes=pipes), object_pairs_hook=_without_repeats, parse_constant=_refused
        )
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{path}' is not JSON: {error}") from error


def read_json(path: Path, what: str, *, pipes: bool = True) -> object:
    """The same, where every failure is a sentence about the user's `what`. Raises UserError."""
    try:
        return read(path, pipes=pipes)
    except FileNotFoundError as error:
        raise UserError(f"there is no {what} '{path}'") from error
    except OSError as error:
        raise UserError(f"'{path}' cannot be read as a {what}: {error.strerror}") from error


def text(path: Path, what: str, *, pipes: bool = True) -> str:
    """What is written in the file at path, in UTF-8. what: such as 'a JSON file'. Raises UserError, and OSError where
    it may not be read.

    Unless pipes, only a regular file is opened.
    """
    try:
        return _bytes(path, what, pipes=pipes).decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"'{path}' cannot be read: {error.reason} at byte {error.start}; it must be UTF-8 text"
        ) from error


def _bytes(path: Path, what: str, *, pipes: bool) -> bytes:
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind) and not (pipes and stat.S_ISFIFO(kind)):
        raise UserError(f"'{path}' is not a file that can be read; give the path of {what}")
    # opening a pipe that nobody writes to would wait
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        data = _from_pipe(file, path) if stat.S_ISFIFO(kind) else file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise UserError(f"'{path}' is larger than {LARGEST >> 20} MiB; that is no file somebody wrote")
    return data


def _from_pipe(file: BinaryIO, path: Path) -> bytes:
    """All that comes through a pipe, as from `<(jq …)`."""
    data, deadline = b"", time.monotonic() + PATIENCE
    while len(data) <= LARGEST:
        if not select.select([file], [], [], max(deadline - time.monotonic(), 0))[0]:
            raise UserError(f"'{path}' is a pipe that has not ended within {PATIENCE:g} seconds")
        chunk = os.read(file.fileno(), 1 << 16)
        if not chunk:
            break
        data += chunk
    return data


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key '{key[:80]}' stands twice")
        found[key] = value
    return found


def _refused(name: str) -> object:
    raise ValueError(f"{name} is no number")
