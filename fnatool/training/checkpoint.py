"""Checkpoints that survive a kill at any moment: written beside, synced, renamed; read as weights only, no code.

A file is untrusted: all it holds is looked at before it is used, names, shapes, types, and that numbers are finite. No
state of a random generator is in it: every draw is a function of (seed, step), so a resumed run ends where an unbroken
one does.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import time
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from fnatool.files.atomic import replacing
from passes.errors import UserError

VERSION = 1
SECONDS = 60.0  # between checkpoints, where no number of steps is asked for
PICKLE = 1 << 26  # bytes of what stands beside the tensors
UNREADABLE = (
    *(
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        AssertionError,
    ),
    *(ArithmeticError, MemoryError, ImportError, struct.error, zipfile.BadZipFile),
)
"""What torch, zipfile and pickle raise of a file that is none of ours."""

State = Mapping[str, Any]  # tensors, numbers, strings, and mappings and lists of them


def is_due(every: int | None, step: int, written: float) -> bool:
    """A checkpoint is to be written after so many steps each, or SECONDS after the last one was (a time of
    time.monotonic).

    Where a run goes on from does not change what it comes to, so a clock may say when.
    """
    return time.monotonic() - written >= SECONDS if every is None else step % every == 0


def write(state: State, path: Path, *, key: str, processes: int = 1) -> None:
    """The state as the file at path, under the key of its run and the number of processes that share it. Raises
    OSError.

    A reader sees the old one or the new one, never a part.
    """
    whole = io.BytesIO()  # torch would make a RuntimeError of a full disk
    torch.save({"version": VERSION, "key": key, "processes": processes, "state": state}, whole)
    with replacing(path) as (file,):
        file.write(whole.getbuffer())


def read(path: Path, *, key: str, processes: int = 1) -> dict[str, Any]:
    """The state at path. Raises UserError where it is no checkpoint, of another version, of another number of processes
    or another run.

    All tensors lie on the CPU: what loads them places them, and a count of steps that lay on a device would be waited
    for at every step.
    """
    try:
        with path.open("rb") as file:
            document = _document(file)
    except FileNotFoundError:
        raise UserError(f"there is no '{path}' any more; --restart begins anew") from None
    except UNREADABLE as error:
        raise UserError(f"'{path}' is not a checkpoint of fnatool, or is damaged; --restart begins anew") from error
    if not isinstance(document, dict):
        raise damaged(path, "it holds no state")
    version = document.get("version")
    if not isinstance(version, int) or version != VERSION:
        shown = f"of version {version}" if isinstance(version, int) else "without a version"
        raise UserError(
            f"'{path}' is a checkpoint {shown}, this fnatool reads version {VERSION}; --restart begins anew"
        )
    known = document.get("key")
    if known != key and document.get("processes", processes) != processes:
        raise UserError(
            f"'{path}' is of a run by {document['processes']} process(es), and this is one by {processes}: each "
            "has its part of every "
            "batch, so that it goes on with the same number; --restart begins anew, or name another folder"
        )
    if not isinstance(known, str) or known != key:
        raise UserError(
            f"'{path}' is of a run with another model, config or data; --restart begins anew, or name another folder"
        )
    state = document.get("state")
    if not isinstance(state, dict):
        raise damaged(path, "it holds no state")
    return state


def _document(file: BinaryIO) -> object:
    """What torch reads. Raises one of UNREADABLE."""
    with zipfile.ZipFile(file) as archive:  # of anything else torch takes it for a bare pickle
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or (
                entry.filename.endswith(".pkl") and entry.file_size > PICKLE
            ):
                raise ValueError("few bytes may stand for many")
    file.seek(0)
    with warnings.catch_warnings(action="ignore"):  # of what is in a file that is none of ours
        return torch.load(file, map_location="cpu", weights_only=True)


def damaged(path: Path, what: str) -> UserError:
    """What is said of a file that is of this run and yet not what it wrote."""
    return UserError(f"'{path}' is damaged; --restart begins anew ({what})")


MEMORY: Sequence[tuple[type[Optimizer], Sequence[str]]] = (
    (SGD, ("momentum_buffer",)),
    (Adam, ("step", "exp_avg", "exp_avg_sq")),
)
"""What an optimiser remembers of each parameter."""


@dataclass(frozen=True)
class Held:
    """What is in the state of a checkpoint, checked. path: of its file; total: the steps that its run has. All raise
    UserError.
    """

    path: Path
    total: int

    def part(self, state: Mapping[str, Any], name: str) -> Any:
        """What has that name."""
        if name not in state:
            raise damaged(self.path, f"'{name}' is missing")
        return state[name]

    def step(self, state: Mapping[str, Any]) -> int:
        """The steps done."""
        step = self.part(state, "step")
        if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step <= self.total:
            raise damaged(self.path, f"'step' is none from 0 to {self.total}")
        return step

    def figure(self, state: Mapping[str, Any], name: str) -> float | None:
        """A figure, or none yet."""
        value = self.part(state, name)
        if value is None:
            return None
        if not _is_number(value):
            raise damaged(self.path, f"'{name}' is no number")
        return float(value)

    def tensors(self, found: object, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors with the names, shapes and types of others, all finite."""
        if not isinstance(found, Mapping) or set(found) != set(like):
            raise damaged(self.path, "its tensors are not those of the network")
        return {name: self._tensor(found[name], value, f"'{name}'") for name, value in like.items()}

    def memory(self, found: object, optimiser: Optimizer) -> dict[str, Any]:
        """What an optimiser can load: its own settings, and what it remembered of its parameters."""
        own = optimiser.state_dict()
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        names = next(names for kind, names in MEMORY if isinstance(optimiser, kind))
        rows = found.get("state") if isinstance(found, Mapping) else None
        if not isinstance(rows, Mapping):
            raise damaged(self.path, "it has no memory of an optimiser")
        state: dict[int, dict[str, Tensor | None]] = {}
        for index, row in rows.items():
            if (
                not isinstance(index, int)
                or not 0 <= index < len(parameters)
                or not isinstance(row, Mapping)
                or set(row) - set(names)
            ):
                raise damaged(self.path, "its memory of an optimiser is of another one")
            if row and set(row) != set(names):
                raise damaged(self.path, "its memory of an optimiser is not whole")
            state[index] = {name: self._remembered(name, value, parameters[index]) for name, value in row.items()}
        return {"state": state, "param_groups": own["param_groups"]}

    def _remembered(self, name: str, value: object, parameter: Tensor) -> Tensor | None:
        if value is None and name == "momentum_buffer":
            return None
        like = torch.zeros((), dtype=torch.float32) if name == "step" else parameter
        found = self._tensor(value, like, f"'{name}' of an optimiser")
        if name in ("step", "exp_avg_sq") and bool((found < 0).any()):
            raise damaged(self.path, f"'{name}' of an optimiser is negative")
        return found

    def scaling(self, found: object, like: Mapping[str, Any]) -> dict[str, Any]:
        """The state of a gradient scaler."""
        whole = isinstance(found, Mapping) and set(found) == set(like)
        if (
            not isinstance(found, Mapping)
            or not whole
            or not all(_is_number(value) and value >= 0 for value in found.values())
        ):
            raise damaged(self.path, "its scale of gradients is not one")
        return dict(found)

    def _tensor(self, value: object, like: Tensor, what: str) -> Tensor:
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise damaged(self.path, f"{what} is no tensor")
        if value.shape != like.shape or value.dtype != like.dtype:
            raise damaged(self.path, f"{what} has another shape or type")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise damaged(self.path, f"{what} is not finite")
        return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
