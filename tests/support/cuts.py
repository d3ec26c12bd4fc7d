"""A network to cut pieces out of."""

from __future__ import annotations

import onnx_graphsurgeon as gs
from spaces import net

from passes import Analysis, analyse
from passes.space.space import Choices, Space, choices

SPACE = {
    "stage0.depth": (1, 2, 3, 4),
    "stage0.*.kernel": (3, 5),
    "stage0.*.hidden": (4, "x1"),
    "stage0.*.groups": (1, 2),
}


def space_net() -> tuple[gs.Graph, Analysis, Choices]:
    made = net()
    analysis = analyse(made)
    return made, analysis, choices(analysis, Space(SPACE))
