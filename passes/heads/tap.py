"""A map that a head taps, and how maps lie in the image."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

Stride = tuple[Fraction, Fraction]


@dataclass(frozen=True)
class Grid:
    """How a map lies in the image: pixels per position, down and across, and the axis of its channels."""

    stride: Stride
    axis: int


@dataclass(frozen=True)
class Tap:
    """A map of the seed: its name, its tensor, its extent at the analysed size, and image pixels per position.

    `axis` is that of the channels: 1, or 3 in [N, h, w, channels].
    """

    name: str
    tensor: str
    channels: int
    space: tuple[int, int]
    stride: Stride
    dtype: str
    axis: int = 1
