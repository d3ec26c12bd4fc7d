"""Small networks and spaces."""

from __future__ import annotations

import onnx_graphsurgeon as gs
from nets import Net

from passes import Analysis, analyse
from passes.space.space import Choices, Space, choices


def net(blocks: int = 3) -> gs.Graph:
    """A stem and residual blocks of hidden width 8 at width 6."""
    made = Net()
    y = made.conv_bn_relu("x", "stem", 6, 3)
    for k in range(blocks):
        y = made.op("Add", f"s{k}", y, made.conv_bn(made.conv_bn_relu(y, f"e{k}", 8, 3), f"l{k}", 6))
    made.classifier(y)
    return made.graph()


def small() -> tuple[Analysis, Choices]:
    analysis = analyse(net())
    space = {
        "stage0.depth": (1, 2, 3, 4),
        "stage0.*.kernel": (3, 5),
        "stage0.*.hidden": (4, "x1"),
        "stage0.*.groups": (1, 2),
    }
    return analysis, choices(analysis, Space(space))
