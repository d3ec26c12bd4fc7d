"""A model file copied byte for byte, where nothing of it changes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from fnatool.files.atomic import replacing, require_writable
from fnatool.files.model import Model
from passes.errors import UserError


def copy(model: Model, path: Path, *, force: bool, beside: Mapping[Path, str] | None = None) -> None:
    """The file at path has the bytes of the model's, those in `beside` their texts: all of them or, after any failure,
    none.

    Raises UserError as files.write does, and where the weights lie beside the model.
    """
    texts = dict(beside or {})
    for place in (path, *texts):
        require_writable(place, force=force, forbid=(model.path, *model.data))
    if model.data:
        raise UserError(
            f"nothing changes, and '{model.path}' keeps its weights in other files; copy it together with them"
        )
    with replacing(path, *texts, force=force) as (target, *others), model.path.open("rb") as source:
        for other, text in zip(others, texts.values(), strict=True):
            other.write(text.encode())
        shutil.copyfileobj(source, target)
