"""Pictures as a network takes them: each scaled until it covers the input, cropped in the middle, and its pixels made
input values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fnatool.data import folders
from fnatool.data.inputs import Sample, SampleInput
from fnatool.data.pixels import Pixels, Values, values_of


@dataclass(frozen=True)
class Preparation:
    """How an image becomes an input: its pixels, and channels first or last."""

    pixels: Pixels
    channels_last: bool


def prepared(path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic], how: Preparation) -> Values:
    """The picture in a file as an input of that shape, which has three axes. Raises Unreadable."""
    from PIL import Image, ImageOps  # not above: who has only arrays needs no Pillow

    from fnatool.data import images

    height, width = shape[:2] if how.channels_last else shape[1:]
    mode = "L" if how.pixels.channels == "GREY" else "RGB"
    picture = ImageOps.fit(images.rgb(path).convert(mode), (width, height), Image.Resampling.BILINEAR)
    values = values_of(np.asarray(picture.convert("RGB")), how.pixels, dtype)
    return values if how.channels_last else np.ascontiguousarray(values.transpose(2, 0, 1))


@dataclass(frozen=True)
class Pictures:
    """Samples that are picture files, for a network with one input."""

    input: SampleInput
    how: Preparation

    plural = "pictures"
    kinds = folders.kinds()

    @property
    def inputs(self) -> tuple[SampleInput, ...]:
        """The one input."""
        return (self.input,)

    def takes(self, name: str) -> bool:
        """The file name ends like that of a picture."""
        return folders.is_image(name)

    def count(self, path: Path) -> int:
        """One a file; whether it is whole is not looked at."""
        return 1

    def opened(self, path: Path) -> Callable[[int], Sample]:
        """What gives the one sample of the file. Raises Unreadable."""
        values = prepared(path, self.input.shape, self.input.dtype, self.how)
        return lambda row: {self.input.name: values}
