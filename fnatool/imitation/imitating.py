"""What a network has to do with its teacher while it learns: where, by how much, and until when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fnatool.imitation.losses import features_apart
from fnatool.imitation.places import PlacePair
from fnatool.imitation.teacher import Pair, Teacher
from fnatool.nn.layers import Norms

Outputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Imitation:
    """L + features · λ(t) · (features at the places) + outputs · (outputs), with λ falling from 1 to 0 at the share
    `until` of the steps.

    apart: how far outputs are from the teacher's. norms: whose statistics the teacher's BatchNormalization normalises
    by.
    """

    pair: Pair
    places: tuple[PlacePair, ...]
    features: float
    outputs: float
    until: float
    apart: Callable[[Outputs, Outputs], Tensor]
    norms: Norms

    def weight(self, progress: float) -> float:
        """Of the features, at this share of the steps."""
        return self.features * max(0.0, 1 - progress / self.until) if self.places and self.until else 0.0

    def taps(self, progress: float) -> tuple[str, ...]:
        """The network's tensors that are compared there."""
        return tuple(place.own for place in self.places) if self.weight(progress) else ()

    def is_over(self, progress: float) -> bool:
        """The teacher is not asked any more."""
        return not self.outputs and not self.weight(progress)

    def parts(
        self, own: tuple[Outputs, Sequence[Tensor]], teacher: tuple[Outputs, Sequence[Tensor]], progress: float
    ) -> dict[str, Tensor]:
        """The terms of the loss by name; own and teacher: outputs, and the values at the places where these are
        compared.
        """
        found = {}
        if self.weight(progress):
            found["features"] = self.weight(progress) * features_apart(own[1], teacher[1])
        if self.outputs:
            found["outputs"] = self.outputs * self.apart(own[0], teacher[0])
        return found


def teacher_of(how: Imitation, device: torch.device) -> Teacher:
    """The teacher on a device."""
    return Teacher(how.pair, [place.teacher for place in how.places], device, how.norms)
