"""Which of the seed's channels a tensor of the target still has, where it has others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from passes.channels.resize import resized
from passes.target.plan import Plan


@dataclass(frozen=True)
class KeptChannels:
    """The channels on `axis` that target and seed share: their positions in the target's tensor, and in the seed's, in
    the same order.
    """

    axis: int
    own: np.ndarray
    seed: np.ndarray


def kept_channels(plan: Plan, tensor: str) -> KeptChannels | None:
    """What the target keeps of a tensor of the seed that lies in no copied block; None where it has these channels and
    no others.
    """
    label, change = plan.ground.identities.labels.get(tensor), plan.changes.base
    if label is None or not change.touches(label.ids):
        return None
    index = resized(label.ids, change).index
    return KeptChannels(label.axis, np.flatnonzero(index >= 0), index[index >= 0])
