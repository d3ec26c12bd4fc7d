"""Sets of levels for detectors in tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fnatool.tasks.anchors import Level, Size


def retinanet_levels(
    strides: Sequence[int] = (8, 16, 32, 64, 128), *, scale: float = 4, octaves: int = 3
) -> tuple[Level, ...]:
    """RetinaNet's nine anchors a position: ratios ½, 1, 2, and for each the sizes scale · stride · 2^(k / octaves) (Lin
    et al. 2017).
    """
    ratios = [ratio for ratio in (0.5, 1.0, 2.0) for _ in range(octaves)]
    steps = [2 ** (k / octaves) for k in range(octaves)] * 3
    return tuple(
        Level(stride=(stride, stride), sizes=tuple(scale * stride * step for step in steps), ratios=tuple(ratios))
        for stride in strides
    )


def ssd_levels(strides: Sequence[int], size: Size, *, least: float = 0.2, most: float = 0.95) -> tuple[Level, ...]:
    """SSD's six anchors a position: s and √(s s′) square, s with ratios ½, 2, ⅓, 3; s from least to most of the input's
    shorter side.

    s grows linearly over the levels, s′ is that of the next one (Liu et al. 2016; least and most as in SSDLite, Sandler
    et al. 2018).
    """
    shares = [*np.linspace(least, most, len(strides)).tolist(), 1.0]
    side = min(size)
    return tuple(
        Level(
            stride=(stride, stride),
            sizes=(s * side, math.sqrt(s * after) * side, *[s * side] * 4),
            ratios=(1.0, 1.0, 0.5, 2.0, 1 / 3, 3.0),
        )
        for stride, s, after in zip(strides, shares[:-1], shares[1:], strict=True)
    )
