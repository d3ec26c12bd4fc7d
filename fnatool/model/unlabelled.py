"""Data without labels for a network: a folder of pictures, or of arrays for its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from fnatool.data import arrays, folders, unlabelled
from fnatool.data.arrays import Arrays
from fnatool.data.inputs import SampleInput
from fnatool.data.pictures import Pictures, Preparation
from fnatool.data.unlabelled import Unlabelled
from fnatool.files import model as files
from fnatool.model import pixels
from fnatool.model.pixels import PixelOptions
from passes.errors import UserError
from passes.graph.tensors import Shape
from passes.network.analysis import Analysis

COLOURS = (1, 3)  # channels of a picture


@dataclass(frozen=True, kw_only=True)
class UnlabelledOptions:
    """Where the samples are, and how a pixel becomes an input value (None: as the model is known to want it, see
    `fnatool.model.pixels`).

    images is a folder of pictures, arrays one of .npy or .npz files; one of the two.
    """

    images: Path | str | None = None
    arrays: Path | str | None = None
    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    channels: str | None = None


def find_unlabelled(
    model: files.Model, analysis: Analysis, options: UnlabelledOptions, *, sizes: Mapping[str, Shape] | None = None
) -> Unlabelled:
    """The samples that the options name, for the model at the sizes of its analysis, or others; none of them has been
    read.

    Raises UserError where the folder has none, and for pictures that the network cannot take.
    """
    inputs = inputs_of(analysis, sizes or analysis.shapes.shapes)
    if (options.images is None) == (options.arrays is None):
        raise UserError("give either pictures or arrays: a folder of pictures, or one of .npy or .npz files")
    if options.arrays is not None:
        return unlabelled.find(Path(options.arrays), Arrays(inputs))
    assert options.images is not None
    asked = PixelOptions(options.mean, options.scale, options.channels)
    return unlabelled.find(Path(options.images), pictures_of(model, analysis, inputs, asked))


def folder_options(folder: Path | str, asked: PixelOptions | None = None) -> UnlabelledOptions:
    """The options for a folder that holds pictures or arrays, by the names of its files. Raises UserError where it has
    both or neither.
    """
    root, asked = Path(folder), asked or PixelOptions()
    if not root.is_dir():
        raise UserError(
            f"'{root}' {'is not a folder' if root.exists() else 'does not exist'}; give a folder of pictures, "
            "or of arrays"
        )
    names = [path.name for path in folders.below([root])[0]]
    has_pictures, has_arrays = any(map(folders.is_image, names)), any(map(arrays.is_arrays, names))
    if has_pictures == has_arrays:
        what = "both pictures and arrays" if has_arrays else "neither pictures nor arrays (.npy, .npz)"
        raise UserError(f"'{root}' holds {what}; give a folder with one kind")
    if has_arrays:
        return UnlabelledOptions(arrays=root)
    return UnlabelledOptions(images=root, mean=asked.mean, scale=asked.scale, channels=asked.channels)


def inputs_of(analysis: Analysis, sizes: Mapping[str, Shape]) -> tuple[SampleInput, ...]:
    """What the network takes, at these sizes."""
    seen = analysis.view
    names = [name for name in seen.inputs if name not in seen.constants]
    stated = {name: seen.inputs[name][0] or () for name in names}
    batch = next((shape[0] for shape in stated.values() if shape), None)
    found = []
    for name in names:
        shape, dtype = sizes[name], np.dtype(onnx.helper.tensor_dtype_to_np_dtype(seen.inputs[name][1]))
        batched = len(shape) > 1 and (not isinstance(stated[name][0], int) or stated[name][0] == batch)
        found.append(SampleInput(name, dtype, tuple(shape[1:] if batched else shape), batched))
    return tuple(found)


def pictures_of(model: files.Model, analysis: Analysis, inputs: Sequence[SampleInput], asked: PixelOptions) -> Pictures:
    """How pictures become the network's one input. Raises UserError where they cannot, or nothing is known of its
    pixels.
    """
    if len(inputs) != 1:
        names = ", ".join(f"'{given.name}'" for given in inputs) or "none"
        raise UserError(
            f"pictures fill one input, but the network has {names}; give all of them as arrays, an .npz file a sample"
        )
    (given,) = inputs
    last = channels_last(analysis, given.shape)
    channels = given.shape[-1 if last else 0] if len(given.shape) == 3 else 0
    if channels not in COLOURS or not given.batched:
        raise UserError(
            f"the input '{given.name}' takes {given.said}, which is no grey or RGB picture; give arrays, .npy files"
        )
    how = pixels.pixels_of(model, analysis.view, pixels.seen_as(analysis.view, given.name, channels), asked)
    return Pictures(given, Preparation(how, last))


def channels_last(analysis: Analysis, shape: Sequence[int]) -> bool:
    """Whether the channels of the one input, whose samples have this shape, come after height and width."""
    if analysis.image.axes in ((2, 3), (1, 2)):
        return analysis.image.axes == (1, 2)
    return len(shape) == 3 and shape[0] > 4 >= shape[2]  # no image has more than four colours
