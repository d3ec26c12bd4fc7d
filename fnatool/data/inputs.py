"""What a network takes as inputs, and one sample of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.generic]
Sample = Mapping[str, Values]  # per input of the network, without the axis of the samples


class Unreadable(Exception):
    """Why a file is none that can be used: no picture, no mask, no arrays that fit."""


@dataclass(frozen=True)
class SampleInput:
    """An input of a network: its name, its element type, and the shape of one sample; `batched`: before that it has an
    axis of samples.

    What is not batched is the same for all samples that run together.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    batched: bool = True

    @property
    def said(self) -> str:
        """'float32 3×64×64'"""
        return described(self.dtype, self.shape)


def described(dtype: np.dtype[np.generic], shape: Sequence[int]) -> str:
    """Element type and sizes."""
    return f"{dtype} {'×'.join(map(str, shape)) or 'scalar'}"


def stacked(samples: Sequence[Sample], inputs: Sequence[SampleInput]) -> dict[str, Values]:
    """The samples as a network takes them at once: along a new first axis where that is the one of samples."""
    first = samples[0]
    return {
        given.name: np.stack([one[given.name] for one in samples]) if given.batched else first[given.name]
        for given in inputs
    }
