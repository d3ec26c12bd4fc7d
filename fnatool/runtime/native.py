"""Paths as native code can open them, and what it says of an error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def openable(path: Path | str) -> Iterator[str]:
    """A path of the same file that is text, as libraries in C++ want it: one that is not UTF-8 goes through open
    descriptors.

    The folder stays that of the file where its name is text, so that what lies beside it is found.
    """
    path = Path(path)
    if _is_text(str(path)):
        yield str(path)
        return
    of_folder = _is_text(path.name)
    handle = os.open(path.parent if of_folder else path, os.O_RDONLY)
    try:
        place = f"/dev/fd/{handle}"
        yield f"{place}/{path.name}" if of_folder else place
    finally:
        os.close(handle)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def first_line(error: Exception) -> str:
    """What went wrong, without what follows."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
