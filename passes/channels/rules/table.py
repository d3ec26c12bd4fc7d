"""How each operator's axes relate: one row per operator."""

from __future__ import annotations

from collections.abc import Mapping

from passes.channels.rules.elementwise import ELEMENTWISE
from passes.channels.rules.moving import MOVING
from passes.channels.rules.normalisation import NORMALISATION
from passes.channels.rules.products import PRODUCTS
from passes.channels.rules.reductions import REDUCING
from passes.channels.rules.resampling import RESAMPLING
from passes.channels.rules.shared import Rule
from passes.channels.rules.windows import WINDOWS

RULES: Mapping[str, Rule] = {**ELEMENTWISE, **WINDOWS, **PRODUCTS, **NORMALISATION, **REDUCING, **MOVING, **RESAMPLING}
