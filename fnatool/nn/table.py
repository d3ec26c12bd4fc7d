"""How torch runs an operator: one row per operator."""

from __future__ import annotations

from collections.abc import Mapping

from fnatool.nn.elementwise import ELEMENTWISE
from fnatool.nn.layers import LAYERS
from fnatool.nn.moving import MOVING
from fnatool.nn.resampling import RESAMPLING
from fnatool.nn.scoring import SCORING
from fnatool.nn.site import Row
from fnatool.nn.windows import POOLING

TORCH: Mapping[str, Row] = {**ELEMENTWISE, **LAYERS, **POOLING, **MOVING, **RESAMPLING, **SCORING}
