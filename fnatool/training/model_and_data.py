"""What a model is given: the sizes of its images in training and in evaluation, and their values."""

from __future__ import annotations

from torch import Tensor

from fnatool.data.placement import Size
from fnatool.files import model as files
from fnatool.model import pixels
from fnatool.nn.reading import Reading
from fnatool.nn.site import torch_type
from fnatool.tasks.description import Description, Input
from fnatool.tasks.pixels import to_input
from passes.errors import UserError
from passes.graph.tensors import Shape
from passes.graph.view import view


def sizes(model: files.Model, described: Description, asked: Size | None) -> tuple[Size, Size]:
    """Of training samples, which may be asked for, and of evaluation. Raises UserError where the graph wants another or
    nobody says.
    """
    fixed = _fixed(model, described)
    if asked is not None and any(side not in (None, wanted) for side, wanted in zip(fixed, asked, strict=True)):
        raise UserError(
            f"images of {asked[0]}×{asked[1]} are asked for ('data.size'), but the model's input is fixed at "
            f"{list(fixed)}; "
            "change that first, with 'fnatool remap' and the knob input.size"
        )
    if described.input.size is None and asked is None and None in fixed:
        raise UserError("the model takes images of any size; say which one with 'data.size'")
    usual = described.input.size or asked or (0, 0)
    full = (fixed[0] or usual[0], fixed[1] or usual[1])
    return asked or full, full


def open_sizes(model: files.Model, described: Description, size: Size) -> dict[str, Shape]:
    """The shape of the model's input at this size, where the graph leaves that open."""
    if None not in _fixed(model, described):
        return {}
    channels = len(described.input.mean)
    shape = (1, channels, *size) if described.input.layout == "NCHW" else (1, *size, channels)
    return {tensor.name: shape for tensor in model.graph.inputs}


def _fixed(model: files.Model, described: Description) -> tuple[int | None, int | None]:
    """Height and width of the model's one input, where the graph fixes them.

    Raises UserError for a model that looks at no image, or whose input cannot carry what its description makes of
    pixels.
    """
    seen = view(model.graph)
    names = [name for name in seen.inputs if name not in seen.constants]
    shape = seen.inputs[names[0]][0] if len(names) == 1 else None
    if shape is None or len(shape) != 4:
        raise UserError(f"a task is for models with one input of images; this one has {', '.join(names) or 'none'}")
    taken = pixels.seen_as(seen, names[0], len(described.input.mean))
    pixels.require_carried(taken, described.input.mean, described.input.scale)
    rows, columns = (shape[axis] for axis in ((2, 3) if described.input.layout == "NCHW" else (1, 2)))
    return (rows if isinstance(rows, int) else None), (columns if isinstance(columns, int) else None)


def inputs_of(reading: Reading, images: Tensor, like: Input) -> Tensor:
    """What a network is given for images uint8 RGB [N, 3, H, W], in the type of its input."""
    return to_input(images, like).to(torch_type(reading.facts.types[reading.inputs[0]]))
