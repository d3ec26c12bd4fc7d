"""A model file with other metadata, and not a byte of its graph or weights touched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fnatool import seeds
from fnatool.files import wire
from fnatool.files.atomic import replacing, require_writable
from fnatool.files.model import Model
from passes.errors import UserError


def require_place(model: Model, path: Path, *, force: bool) -> None:
    """The result may be written there: over the model itself too, with force, unless it is a bundled seed. Raises
    UserError.
    """
    own = path.exists() and path.samefile(model.path)
    if own and seeds.FOLDER.resolve() in path.resolve().parents:
        raise UserError(f"'{path}' is a bundled seed, which stays as it is; give another output")
    require_writable(path, force=force, forbid=() if own else (model.path, *model.data))
    if model.data and path.resolve().parent != model.path.resolve().parent:
        raise UserError(f"'{model.path}' keeps its weights in files beside it; give an output in the same folder")


def restate(model: Model, path: Path, metadata: Mapping[str, str], *, force: bool) -> None:
    """The file at path has the bytes of the model's, but for metadata of these keys; complete, or as it was before.

    Raises UserError as `require_place` does.
    """
    require_place(model, path, force=force)
    with model.path.open("rb") as source, replacing(path.resolve(), force=force) as (target,):
        wire.restate(source, target, metadata)
