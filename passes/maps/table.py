"""What becomes of maps at each operator: one row per operator."""

from __future__ import annotations

from collections.abc import Mapping

from passes.graph.operators import of_form
from passes.maps.elementwise import ELEMENTWISE
from passes.maps.moving import MOVING
from passes.maps.normalisation import NORMALISATION
from passes.maps.positions import Rule
from passes.maps.products import PRODUCTS
from passes.maps.reductions import REDUCING
from passes.maps.resampling import RESAMPLING
from passes.maps.windows import WINDOWS

SPREADING = of_form("resampling") | {"Expand"}  # they may make a map of one position
SPACE: Mapping[str, Rule] = {**ELEMENTWISE, **WINDOWS, **PRODUCTS, **NORMALISATION, **REDUCING, **MOVING, **RESAMPLING}
