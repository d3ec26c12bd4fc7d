"""A result that is worth writing: its file passes `fnatool check`."""

from __future__ import annotations

from collections.abc import Mapping

from fnatool.files import model as files
from fnatool.files.atomic import temporary
from fnatool.model.faults import find_faults
from passes.check.finding import errors
from passes.errors import RefusedModel
from passes.graph.tensors import Shape


def require_sound(target: files.Model, seed: files.Model, inputs: Mapping[str, Shape] | None) -> None:
    """The file that will be written passes `fnatool check`. Raises RefusedModel with the first finding otherwise.

    seed: what the target was made of, which may be broken itself; inputs: shapes for free dimensions.
    """
    with temporary() as folder:
        path = folder / "model.onnx"
        files.write(target, path)
        found = errors(find_faults(files.load(path), inputs or {}))
        if not found:
            return
        files.write(seed, folder / "seed.onnx")
        known = {
            name: shape
            for name, shape in (inputs or {}).items()
            if name in {tensor.name for tensor in seed.graph.inputs}
        }
        own = [
            (finding.code, finding.where) for finding in errors(find_faults(files.load(folder / "seed.onnx"), known))
        ]
    message = f"{found[0].where}: {found[0].message.replace(str(path), 'the result')}"
    if (found[0].code, found[0].where) in own:
        fix = f"; {found[0].fix}" if found[0].fix else ""
        raise RefusedModel(f"the model itself is broken, and so the result would be: {message}{fix}")
    raise RefusedModel(f"the result would be broken: {message}; nothing was written. Please report it")
