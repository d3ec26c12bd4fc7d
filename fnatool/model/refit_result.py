"""What came of solving the layers of a remap anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class RefitDistance:
    """How far a tensor is from the seed's on the pictures kept back, relative to how far the seed's is from its mean
    there.

    `before`: of the remap as it was, `after`: as it is now; NaN or infinite where values are.
    """

    tensor: str
    before: float
    after: float


@dataclass(frozen=True)
class RefitLayer:
    """A layer, the target's block it is in ('' outside), the strength it was solved with (None: it stays), and what
    came of it.
    """

    node: str
    block: str
    strength: float | None
    distance: RefitDistance


@dataclass(frozen=True)
class Refit:
    """What was solved anew: the layers in order, the outputs, how many pictures were used and kept back; `skipped`:
    layers with reasons.
    """

    layers: tuple[RefitLayer, ...]
    outputs: tuple[RefitDistance, ...]
    used: int
    kept: int
    skipped: Mapping[str, str]
