"""A torch model as a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fnatool.files.atomic import require_writable
from fnatool.files.interface import Inputs
from passes.errors import UserError

if TYPE_CHECKING:
    import torch

    from fnatool.export.sources import Source
    from fnatool.export.torch import Exported

OPSET = 18


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How to export.

    `example` is an input of the module, or a tuple of them, batch first; `inputs` their shapes instead, of a module
    with several by the names input_0, input_1 … (default: as the model says, else 1×3×224×224). `weights` (a tag, or
    DEFAULT, which the library downloads), `checkpoint` (a file with a state_dict; no code in it is run) and `classes`
    (outputs of the classifier) are for models by name. `metadata` says more of where the model comes from; `force` lets
    the result replace another file.
    """

    example: torch.Tensor | tuple[torch.Tensor, ...] | None = None
    inputs: Inputs = None
    weights: str | None = None
    checkpoint: Path | None = None
    classes: int | None = None
    opset: int = OPSET
    metadata: Mapping[str, object] | None = None
    force: bool = False


def export(
    source: torch.nn.Module | str, out: Path | str | None = None, *, options: ExportOptions | None = None
) -> Exported:
    """The module in eval mode as ONNX, with BatchNorm kept and a free batch axis, which computes what the module does.

    source: a module, or torchvision:NAME, timm:NAME, path/to/file.py:FUNCTION (a function without arguments that
    returns a module; the file is run). Nodes are named after modules, initializers as in the state_dict; written to
    `out` if given. Raises UserError for a source or an input that does not fit, RefusedModel where torch cannot export
    it or the result is further than 1e-4 of the spread from the module.
    """
    options = options or ExportOptions()
    if out is not None:  # before torch is imported, which takes longer
        require_writable(
            Path(out), force=options.force, forbid=() if options.checkpoint is None else (options.checkpoint,)
        )
    from fnatool.export import torch as exporting

    found = _found(source, options)
    made = exporting.export_module(found.module, _example(found, options), options.opset)
    about = (
        {**found.metadata(), **(options.metadata or {})}
        if isinstance(source, str)
        else options.metadata or found.metadata()
    )
    made = replace(made, notes=(*found.notes, *made.notes), source={**about, **made.source})
    if out is not None:
        made.write(out, force=options.force)
    return made


def _found(source: torch.nn.Module | str, options: ExportOptions) -> Source:
    from fnatool.export import sources

    if isinstance(source, str):
        return sources.load(source, weights=options.weights, checkpoint=options.checkpoint, classes=options.classes)
    if (options.weights, options.checkpoint, options.classes) != (None, None, None):
        raise UserError("weights, checkpoint and classes are for models by name; a module is exported as it is")
    return sources.of_module(source)


def _example(found: Source, options: ExportOptions) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """The inputs to export with. Raises UserError for shapes whose names are not those of the inputs."""
    from fnatool.export.torch import input_names, zeros

    if options.example is not None:
        return options.example
    given = options.inputs or (1, *found.size)
    if not isinstance(given, Mapping):
        return zeros(found.module, given)
    names = input_names(len(given))
    if set(names) != set(given):
        said = ", ".join(given)
        raise UserError(
            f"--input names {said}; {len(given)} input(s) of a torch module are called {', '.join(names)}, in "
            "their order"
        )
    return tuple(zeros(found.module, given[name]) for name in names)
