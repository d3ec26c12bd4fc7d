"""What a picture's pixels are as values of an input: (pixel − mean) / scale per channel, pixels from 0 to 255."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

COLOURS = ("RGB", "BGR")
SAY = (
    "--mean and --scale of 'fnatool head' and 'fnatool unfold' say others (in the config of a search 'head.mean' "
    "and 'head.scale')"
)
# of red, green and blue, in 65,536ths (ITU-R BT.601, as Pillow's): whole numbers stay whole
GREY = (19595, 38470, 7471)

Values = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Pixels:
    """How pixels become input values, the order of the channels, where that is known from, and whether it is a
    guess.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    channels: str
    source: str
    guessed: bool = False

    def to_json(self) -> dict[str, object]:
        """The same, for programs."""
        return {**vars(self), "mean": list(self.mean), "scale": list(self.scale)}

    def sentence(self) -> str:
        """What the network reads."""
        mean, scale = (", ".join(f"{value:g}" for value in dict.fromkeys(values)) for values in (self.mean, self.scale))
        order = ", blue, green, red" if self.channels == "BGR" else ""
        return f"reads (pixel − ({mean})) / ({scale}){order}, {self.source}"


# --- the values ---------------------------------------------------------------------------------


def values_of(picture: npt.NDArray[np.uint8], how: Pixels, dtype: np.dtype[np.generic]) -> Values:
    """What a picture [height, width, 3], red, green, blue, becomes: [height, width, channels], bit for bit what
    training feeds.
    """
    channels = picture[..., ::-1] if how.channels == "BGR" else grey(picture) if how.channels == "GREY" else picture
    mean, scale = np.asarray(how.mean, np.float32), np.asarray(how.scale, np.float32)
    return ((channels.astype(np.float32) - mean) / scale).astype(dtype)


def grey(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """[height, width, 3] → [height, width, 1], from 0 to 255."""
    shares = np.asarray(GREY, np.int32)
    total: npt.NDArray[np.int32] = (picture.astype(np.int32) * shares).sum(axis=-1, keepdims=True, dtype=np.int32)
    return (total + (1 << 15)) >> 16
