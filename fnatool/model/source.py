"""The model that a command is given: a path, the name of the bundled seed, or a model in memory."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from fnatool import seeds
from fnatool.files import model as files
from fnatool.files.interface import Inputs, named_shapes
from passes.graph.tensors import Shape

Source = Path | str | files.Model


def open_model(
    source: Source, inputs: Inputs = None, *, tolerated: Collection[str] = ()
) -> tuple[files.Model, dict[str, Shape] | None]:
    """The model, read if it is not in memory, and the shapes for its inputs by name, None where none are given.

    tolerated: codes of errors of a file that the caller will mend.

    Raises UserError where there is no such file, RefusedModel for one that cannot be read.
    """
    model = source if isinstance(source, files.Model) else files.read(seeds.find(source), inputs, tolerated=tolerated)
    return model, named_shapes(inputs, [tensor.name for tensor in model.graph.inputs]) or None


def read(path: Path | str, *, inputs: Inputs = None) -> files.Model:
    """The model in a file, or the bundled seed of that name, to be given to several functions that then need not read
    it again.

    inputs: shapes for inputs whose size the file leaves open, where they decide which branch of an If is taken. Raises
    UserError where there is no such file, RefusedModel for one that is broken or has what the passes do not handle.
    """
    return files.read(seeds.find(path), inputs)
