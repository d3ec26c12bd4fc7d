"""From images, uint8 RGB [N, 3, H, W], to what a model's input takes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from fnatool.data.pixels import GREY
from fnatool.tasks.constants import constant
from fnatool.tasks.description import Input


def to_input(images: torch.Tensor, like: Input) -> torch.Tensor:
    """(pixel − mean) / scale as float32, on the device of images, in the layout and the channels of the model.

    Grey is a whole number from 0 to 255.
    """
    mean, scale = (constant(values, images.device).reshape(-1, 1, 1) for values in (like.mean, like.scale))
    ordered = images.flip(1) if like.channels == "BGR" else images
    pixels = _grey(images) if like.channels == "GREY" else ordered
    values = torch.sub(pixels, mean).div_(scale)  # in float32 at once, in place: the same bits in a third of the time
    return values.permute(0, 2, 3, 1) if like.layout == "NHWC" else values


def _grey(images: torch.Tensor) -> torch.Tensor:
    shares = constant(GREY, images.device, torch.int32).reshape(3, 1, 1)
    return ((images.int() * shares).sum(1, keepdim=True, dtype=torch.int32) + (1 << 15)) >> 16


def to_array(images: npt.NDArray[np.uint8], like: Input, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[np.generic]:
    """The same in the type of the model's input, bit for bit, for ONNX Runtime."""
    return np.ascontiguousarray(to_input(torch.from_numpy(images), like).numpy()).astype(dtype, copy=False)


def fill(like: Input) -> tuple[int, int, int]:
    """The colour (RGB) that becomes zero, or nearly: what images are padded with."""
    mean = like.mean * 3 if len(like.mean) == 1 else like.mean
    red, green, blue = (min(max(round(value), 0), 255) for value in (mean[::-1] if like.channels == "BGR" else mean))
    return red, green, blue
