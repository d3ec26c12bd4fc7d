"""SimpleBaseline pose: transposed convolutions and a 1×1 convolution to one heatmap per joint (Xiao, Wu, Wei 2018,
arXiv 1804.06208).

Three 4×4 transposed convolutions of stride 2 without bias, each with BatchNormalization and ReLU: at output stride 32
the heatmaps [N, joints, h, w] have a quarter of the image's extents.
"""

from __future__ import annotations

import math

from passes.heads.style import HeadStyle, HeadWork
from passes.heads.taps import last_exit
from passes.heads.writer import FeatureMap, Writer

WIDTH = 256
LAYERS = 3
KERNEL, STRIDE = 4, 2
PREDICTOR_STD = 0.001


def simplebaseline(x: FeatureMap, writer: Writer, *, joints: int, width: int = WIDTH) -> None:
    """`heatmaps` [N, joints, 8h, 8w] of the map x."""
    for k in range(LAYERS):
        x = _doubled(x, f"deconv{k}", writer, width)
    weights = writer.weights("predictor", (joints, width, 1, 1), std=PREDICTOR_STD, bias=0.0)
    writer.convolve(x, weights, "predictor", output="heatmaps")


def _doubled(x: FeatureMap, name: str, writer: Writer, width: int) -> FeatureMap:
    """Every output position sums C_in · (kernel / stride)² products: that is the fan-in of its He initialisation."""
    fan_in = x.channels * (KERNEL // STRIDE) ** 2
    weight = writer.weights(name, (x.channels, width, KERNEL, KERNEL), std=math.sqrt(2 / fan_in)).weight
    pad = (KERNEL - STRIDE) // 2
    made = writer.node(
        "ConvTranspose", name, [x.tensor, weight], kernel_shape=[KERNEL] * 2, strides=[STRIDE] * 2, pads=[pad] * 4
    )
    y = FeatureMap(made, width, (STRIDE * x.space[0], STRIDE * x.space[1]))
    return writer.relu(writer.bn(y, f"{name}.bn"), f"{name}.relu")


def build(work: HeadWork) -> None:
    """The head on its tap."""
    (x,) = work.maps()
    simplebaseline(x, work.writer, joints=work.head.count, **work.options("width"))


STYLE = HeadStyle(
    "simplebaseline",
    {"heatmaps": ("", "heat_height", "heat_width")},
    last_exit,
    build,
    counts="joints",
    options=("width",),
)
