"""Folders that a command writes as a whole: new, or with force in the place of one that it wrote before, and of nothing
else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from passes.errors import UserError

FILES = "files"  # in the mark of a folder: the names of what belongs to it


def require_replaceable(folder: Path, mark: str, *, force: bool) -> None:
    """A folder marked by a file of that name may be put there. Raises UserError where anything else is, or would be
    lost.
    """
    if not folder.absolute().parent.is_dir():
        raise UserError(f"'{folder.absolute().parent}', where '{folder.name}' should go, is no folder; create it first")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"'{folder}' is not a folder; choose another name")
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    others = sorted(there - {mark, *_recorded(folder / mark)})
    if others:
        raise UserError(f"'{folder}' holds '{others[0]}', which this command has not written; choose another folder")
    if there and not force:
        raise UserError(f"'{folder}' exists; choose another folder or pass --force to replace it")


def _recorded(mark: Path) -> list[str]:
    """The files that a mark names; none where it is not what we write."""
    try:
        found: Any = json.loads(mark.read_text())
    except (OSError, ValueError, RecursionError):
        return []
    names = found.get(FILES) if isinstance(found, dict) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
