"""FCN: one 3×3 convolution with BatchNormalization and ReLU, and a 1×1 classifier (Long, Shelhamer, Darrell 2015, arXiv 1411.4038)."""

from __future__ import annotations

from passes.heads.style import HeadStyle, HeadWork
from passes.heads.taps import last_exit
from passes.heads.writer import FeatureMap, Writer

WIDTH = 256
PREDICTOR_STD = 0.01


def fcn(x: FeatureMap, writer: Writer, *, classes: int, width: int = WIDTH) -> None:
    """`mask_logits` [N, classes, h, w] of the map x."""
    y = writer.relu(writer.bn(writer.conv(x, "inner", width, 3), "inner.bn"), "inner.relu")
    weights = writer.weights("classifier", (classes, width, 1, 1), std=PREDICTOR_STD, bias=0.0)
    writer.convolve(y, weights, "classifier", output="mask_logits")


def build(work: HeadWork) -> None:
    """The head on its tap."""
    (x,) = work.maps()
    fcn(x, work.writer, classes=work.head.count, **work.options("width"))


STYLE = HeadStyle("fcn", {"mask_logits": ("", "mask_height", "mask_width")}, last_exit, build, options=("width",))
