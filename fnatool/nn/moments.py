"""Sums over all positions of what a layer reads, and of what its tensor lacks to be another: all that least squares
needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fnatool.nn.columns import Linear, channels_first

LARGEST = 1 << 24  # numbers that are multiplied at a time


@dataclass(frozen=True)
class PositionSums:
    """Over `count` positions: Σ x xᵀ [groups, reads + 1, reads + 1], Σ e xᵀ [groups, rows, reads + 1] and Σ e², x
    having a 1 at its end.
    """

    count: int
    gram: np.ndarray
    cross: np.ndarray
    square: float


@dataclass(frozen=True)
class Match:
    """A tensor and what it is to be: of the channels on `axis` those at `rows` what the other has at `matches`."""

    axis: int
    rows: np.ndarray
    matches: np.ndarray

    def missing(self, own: Tensor, other: Tensor) -> Tensor:
        """other − own on the channels they share, 0 on the rest of own."""
        rows, matches = (torch.from_numpy(found).to(own.device) for found in (self.rows, self.matches))
        wanted = other.index_select(self.axis, matches) - own.index_select(self.axis, rows)
        return torch.zeros_like(own).index_copy_(self.axis, rows, wanted)


class Summing:
    """The sums so far, in double precision."""

    def __init__(self) -> None:
        self.count = 0
        self.gram: Tensor | float = 0.0
        self.cross: Tensor | float = 0.0
        self.square = 0.0

    @torch.no_grad()
    def add(self, linear: Linear, x: Tensor, missing: Tensor, axis: int) -> None:
        """What the layer reads and what its tensor lacks join."""
        width = max(1, LARGEST // max(x[0].numel() * linear.taps, 1))
        for read, lacks in zip(torch.split(x, width), torch.split(missing, width), strict=True):
            columns = linear.columns(read)
            wide = torch.cat([columns, columns.new_ones(columns.shape[0], 1, columns.shape[2])], 1).double()
            first = channels_first(lacks, axis)
            error = first.reshape(linear.groups, -1, first.shape[1]).double()
            self.gram = self.gram + wide @ wide.mT
            self.cross = self.cross + error @ wide.mT
            self.square += float(error.square().sum())
            self.count += columns.shape[2]

    def moments(self) -> PositionSums:
        """Of all that joined."""
        assert isinstance(self.gram, Tensor)
        assert isinstance(self.cross, Tensor)
        return PositionSums(self.count, self.gram.cpu().numpy(), self.cross.cpu().numpy(), self.square)


def moments(
    rows: Iterator[tuple[Tensor, Tensor, Tensor]], linear: Linear, match: Match, kept: Sequence[bool]
) -> tuple[PositionSums, PositionSums]:
    """Of the batches that are used and of those kept back. rows: per batch what the layer reads, its tensor, and what
    that is to be.

    Raises ValueError where the tensors differ in more than their channels.
    """
    sums = Summing(), Summing()
    for (x, own, other), back in zip(rows, kept, strict=True):
        sums[back].add(linear, x, match.missing(own, other), match.axis)
    return sums[0].moments(), sums[1].moments()
