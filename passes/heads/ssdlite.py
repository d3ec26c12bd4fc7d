"""SSDLite: a depthwise-separable predictor on each of six maps (Liu et al. 2016, arXiv 1512.02325; Sandler et al. 2018,
arXiv 1801.04381).

Behind the taps come extra levels: 1×1 to half the width, 3×3 depthwise of stride 2, 1×1, each with BatchNormalization
and ReLU6. A predictor is a 3×3 depthwise with BatchNormalization and ReLU6, then a 1×1 with BatchNormalization and no
bias, as in FNA's released detector (its 4.3M parameters). Classes are a softmax; class 0 is the background.

Anchors are for one image size. Sizes s are parts of the image's shorter side: 0.1 on the first level, then from 0.2 in
equal steps, which reach 0.92 on the last of six (SSD, section 2.2, with the scales 0.2 to 0.95 of FNA's configuration).
A location has squares of s and of the geometric mean of s and the next level's, and boxes of area s² in the ratios 2
and ½; all levels but the first and the last two add the ratios 3 and ⅓.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from passes.errors import UserError
from passes.heads.detection import (
    BOXES,
    MOST_TAPS,
    BoxCoding,
    HeadGeometry,
    HeadLevel,
    joined,
    per_anchor,
    require_levels,
    require_room,
    stride_of,
)
from passes.heads.style import HeadStyle, HeadWork
from passes.heads.taps import before_last_stride
from passes.heads.writer import FeatureMap, Writer, linear_std

LEVELS = 6
EXTRA = ((256, 512), (128, 256), (128, 256), (64, 128))  # (inner, outer) widths of the extra levels
EPSILON = 1e-3
FIRST, LOWEST, HIGHEST = 10, 20, 95  # percent of the shorter side
CODER = (10.0, 10.0, 5.0, 5.0)


def ssdlite(
    taps: Sequence[FeatureMap], writer: Writer, scene: HeadGeometry, *, classes: int, levels: int = LEVELS
) -> BoxCoding:
    """`cls_logits` [N, A, 1 + classes] and `boxes` [N, A, 4] of maps of rising stride. Raises UserError where the image
    has no room.
    """
    require_levels(levels, len(taps))
    maps = list(taps)
    for k in range(levels - len(taps)):
        require_room(maps[-1], len(maps), levels, scene.image)
        maps.append(_extra(maps[-1], EXTRA[min(k, len(EXTRA) - 1)], f"extra{k}", writer))
    found, scores, boxes = [], [], []
    for k, (x, own) in enumerate(zip(maps, anchors(levels, min(scene.image)), strict=True)):
        found.append(HeadLevel(x.space, stride_of(x, None, scene), own))
        entries = 1 + classes
        scores.append(per_anchor(_predictor(x, len(own) * entries, f"cls{k}", writer), entries, f"cls{k}", writer))
        boxes.append(per_anchor(_predictor(x, len(own) * 4, f"box{k}", writer), 4, f"box{k}", writer))
    joined(scores, "cls_logits", writer)
    joined(boxes, "boxes", writer)
    return BoxCoding("ssdlite", tuple(found), CODER, "softmax")


def anchors(levels: int, side: int) -> list[tuple[tuple[float, float], ...]]:
    """Per level the (width, height) in pixels of its anchors: the square, the larger square, then each ratio flat and
    upright.
    """
    step = (HIGHEST - LOWEST) // max(levels - 2, 1)
    percent = [FIRST, *(LOWEST + k * step for k in range(levels))]
    found = []
    for k in range(levels):
        small, large = percent[k] * side / 100, percent[k + 1] * side / 100
        boxes = [(small, small), (math.sqrt(small * large),) * 2]
        for ratio in (2,) if k in (0, levels - 2, levels - 1) else (2, 3):
            long, short = small * math.sqrt(ratio), small / math.sqrt(ratio)
            boxes += [(long, short), (short, long)]
        found.append(tuple(boxes))
    return found


def _extra(x: FeatureMap, widths: tuple[int, int], name: str, writer: Writer) -> FeatureMap:
    inner, outer = widths
    y = _normalised(writer.conv(x, f"{name}.reduce", inner), f"{name}.reduce", writer)
    y = _normalised(writer.depthwise(y, f"{name}.depthwise", stride=2), f"{name}.depthwise", writer)
    return _normalised(writer.conv(y, f"{name}.expand", outer), f"{name}.expand", writer)


def _predictor(x: FeatureMap, outputs: int, name: str, writer: Writer) -> FeatureMap:
    y = _normalised(writer.depthwise(x, f"{name}.depthwise"), f"{name}.depthwise", writer)
    shape = (outputs, x.channels, 1, 1)
    y = writer.convolve(y, writer.weights(f"{name}.predictor", shape, std=linear_std(shape)), f"{name}.predictor")
    return writer.bn(y, f"{name}.predictor.bn", epsilon=EPSILON)


def _normalised(x: FeatureMap, name: str, writer: Writer) -> FeatureMap:
    return writer.relu6(writer.bn(x, f"{name}.bn", epsilon=EPSILON), f"{name}.relu6")


def build(work: HeadWork) -> BoxCoding:
    """The head on its taps. Raises UserError where the image has no one size."""
    if work.image.free and work.chart.analysis.shapes.free_space:
        raise UserError(
            "SSDLite's anchors are made for one image size, and this model's is free; say it with --input "
            f"{work.image.name}=1x3x320x320"
        )
    return ssdlite(work.maps(), work.writer, work.geometry(), classes=work.head.count, **work.options("levels"))


STYLE = HeadStyle("ssdlite", BOXES, before_last_stride, build, options=("levels",), most_taps=MOST_TAPS)
