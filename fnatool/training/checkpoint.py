"""Checkpoints that survive a kill at any moment: written beside, synced, renamed; read as weights only, no code.

No state of a random generator is in them: every draw is a function of (seed, step), so a resumed run ends where an unbroken one does.
"""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fnatool.atomic import replacing
from passes.errors import UserError

VERSION = 1
State = Mapping[str, Any]  # tensors, numbers, strings, and mappings and lists of them


def write(state: State, path: Path, *, key: str) -> None:
    """The state as the file at path, under the key of its run; a reader sees the old one or the new one, never a part. Raises OSError."""
    whole = io.BytesIO()  # torch would make a RuntimeError of a full disk
    torch.save({"version": VERSION, "key": key, "state": state}, whole)
    with replacing(path) as (file,):
        file.write(whole.getbuffer())


def read(path: Path, *, key: str, device: torch.device) -> dict[str, Any]:
    """The state at path. Raises UserError where it is no checkpoint, is of another version, or of another run (model, data or config)."""
    damaged = UserError(f"'{path}' is not a checkpoint of fnatool, or is damaged; --restart begins anew")
    if not zipfile.is_zipfile(path):  # else torch reads it as a bare pickle
        raise damaged
    try:
        with warnings.catch_warnings(action="ignore"):  # of what is in a file that is none of ours: the error below says it
            document = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, AssertionError) as error:
        raise damaged from error
    version = document.get("version") if isinstance(document, dict) else None
    if version != VERSION:
        raise UserError(f"'{path}' is a checkpoint of version {version!r}, this fnatool reads version {VERSION}; --restart begins anew")
    if document.get("key") != key:
        raise UserError(f"'{path}' is of a run with another model, config or data; --restart begins anew, or name another folder")
    state: dict[str, Any] = document["state"]
    return state
