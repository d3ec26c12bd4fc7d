"""From images, uint8 RGB [N, 3, H, W], to what a model's input takes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from fnatool.tasks.description import Input


def to_input(images: torch.Tensor, like: Input) -> torch.Tensor:
    """(pixel − mean) · scale as float32, on the device of images, in the layout and the order of channels of the model."""
    mean, scale = (torch.tensor(values, dtype=torch.float32, device=images.device).reshape(3, 1, 1) for values in (like.mean, like.scale))
    ordered = images.flip(1) if like.channels == "BGR" else images
    values = (ordered.float() - mean) * scale
    return values.permute(0, 2, 3, 1) if like.layout == "NHWC" else values


def to_array(images: npt.NDArray[np.uint8], like: Input) -> npt.NDArray[np.float32]:
    """The same, bit for bit, for ONNX Runtime."""
    return np.ascontiguousarray(to_input(torch.from_numpy(images), like).numpy())


def fill(like: Input) -> tuple[int, int, int]:
    """The colour (RGB) that becomes zero, or nearly: what images are padded with."""
    red, green, blue = (min(max(round(value), 0), 255) for value in (like.mean if like.channels == "RGB" else like.mean[::-1]))
    return red, green, blue
