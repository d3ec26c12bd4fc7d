"""RetinaNet: a feature pyramid and two towers of convolutions, the same weights on every level (Lin et al. 2017, arXiv
1708.02002).

Feature pyramid (arXiv 1612.03144): a 1×1 lateral per tap, top-down addition of the next coarser one by the nearest
value, a 3×3 per level; then 3×3 convolutions of stride 2: P6 on the last tap itself, P7 on ReLU(P6). Towers: four 3×3
with ReLU, then a 3×3 predictor. All have biases, none a BatchNormalization. Anchors per location: sizes 4 · 2^(i/3) ·
stride, i = 0, 1, 2, each in the ratios height / width ½, 1, 2. Classes are sigmoids whose initial probability is π =
0.01.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from passes.heads.detection import (
    BOXES,
    MOST_TAPS,
    BoxCoding,
    HeadGeometry,
    HeadLevel,
    joined,
    level_name,
    per_anchor,
    require_levels,
    require_room,
    stride_of,
)
from passes.heads.style import HeadStyle, HeadWork
from passes.heads.taps import pyramid as usual_taps
from passes.heads.writer import FeatureMap, Weights, Writer, linear_std, relu_std

WIDTH = 256
LEVELS = 5
CONVOLUTIONS = 4
BASE = 4  # strides: the smallest anchor of a level
OCTAVES = tuple(2 ** (i / 3) for i in range(3))
RATIOS = (0.5, 1.0, 2.0)  # height / width
ANCHORS = len(OCTAVES) * len(RATIOS)
PRIOR = 0.01
PREDICTOR_STD = 0.01
CODER = (1.0, 1.0, 1.0, 1.0)


def retinanet(
    taps: Sequence[FeatureMap],
    writer: Writer,
    scene: HeadGeometry,
    *,
    classes: int,
    width: int = WIDTH,
    levels: int = LEVELS,
) -> BoxCoding:
    """`cls_logits` [N, A, classes] and `boxes` [N, A, 4] of maps of rising stride. Raises UserError where the image has
    no room.
    """
    require_levels(levels, len(taps))
    strides = [*scene.strides, *(_halved(scene.strides[-1], k) for k in range(1, levels - len(taps) + 1))]
    names = [level_name(stride) for stride in strides]
    pyramid = _top_down(taps, names, writer, width)
    for k in range(len(taps), levels):
        x = taps[-1] if k == len(taps) else writer.relu(pyramid[-1], f"fpn.{names[k]}.relu")
        require_room(x, k, levels, scene.image)
        pyramid.append(_plain(x, f"fpn.{names[k]}", writer, width, stride=2))
    strides = [stride_of(x, stride, scene) for x, stride in zip(pyramid, strides, strict=True)]
    scores = _tower(pyramid, names, "cls", writer, outputs=ANCHORS * classes, bias=-math.log((1 - PRIOR) / PRIOR))
    boxes = _tower(pyramid, names, "box", writer, outputs=ANCHORS * 4, bias=0.0)
    joined(
        [per_anchor(x, classes, f"cls.{name}", writer) for x, name in zip(scores, names, strict=True)],
        "cls_logits",
        writer,
    )
    joined([per_anchor(x, 4, f"box.{name}", writer) for x, name in zip(boxes, names, strict=True)], "boxes", writer)
    found = [HeadLevel(x.space, stride, anchors(stride)) for x, stride in zip(pyramid, strides, strict=True)]
    return BoxCoding("retinanet", tuple(found), CODER, "sigmoid")


def anchors(stride: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """(width, height) in pixels: all sizes of the first ratio, then of the next; an anchor's area is that of the square
    of its size.
    """
    down, across = stride
    return tuple(
        (BASE * octave * across / math.sqrt(ratio), BASE * octave * down * math.sqrt(ratio))
        for ratio in RATIOS
        for octave in OCTAVES
    )


def _halved(stride: tuple[int, int], times: int) -> tuple[int, int]:
    return stride[0] << times, stride[1] << times


def _top_down(taps: Sequence[FeatureMap], names: Sequence[str], writer: Writer, width: int) -> list[FeatureMap]:
    """The levels of the taps: laterals, each with the one above added, then a 3×3."""
    merged: list[FeatureMap] = []
    for x, name in reversed(list(zip(taps, names[: len(taps)], strict=True))):
        lateral = _plain(x, f"fpn.{name}.lateral", writer, width, kernel=1)
        if merged:
            above = writer.resized(merged[0], lateral, f"fpn.{name}.above")
            lateral = FeatureMap(
                writer.node("Add", f"fpn.{name}.sum", [lateral.tensor, above.tensor]), width, lateral.space
            )
        merged.insert(0, lateral)
    return [_plain(x, f"fpn.{name}", writer, width) for x, name in zip(merged, names, strict=False)]


def _plain(x: FeatureMap, name: str, writer: Writer, width: int, *, kernel: int = 3, stride: int = 1) -> FeatureMap:
    """A convolution with a bias that nothing follows."""
    shape = (width, x.channels, kernel, kernel)
    return writer.convolve(x, writer.weights(name, shape, std=linear_std(shape), bias=0.0), name, stride=stride)


def _tower(
    pyramid: Sequence[FeatureMap], names: Sequence[str], tower: str, writer: Writer, *, outputs: int, bias: float
) -> list[FeatureMap]:
    """Every level through the same convolutions; the last one has so many outputs a location, and this bias at
    first.
    """
    width = pyramid[0].channels
    shape = (width, width, 3, 3)
    shared = [writer.weights(f"{tower}.conv{k}", shape, std=relu_std(shape), bias=0.0) for k in range(CONVOLUTIONS)]
    last = writer.weights(f"{tower}.predictor", (outputs, width, 3, 3), std=PREDICTOR_STD, bias=bias)
    return [_through(x, shared, last, f"{tower}.{name}", writer=writer) for x, name in zip(pyramid, names, strict=True)]


def _through(x: FeatureMap, shared: Sequence[Weights], last: Weights, name: str, *, writer: Writer) -> FeatureMap:
    for k, weights in enumerate(shared):
        x = writer.relu(writer.convolve(x, weights, f"{name}.conv{k}"), f"{name}.relu{k}")
    return writer.convolve(x, last, f"{name}.predictor")


def build(work: HeadWork) -> BoxCoding:
    """The head on its taps."""
    return retinanet(
        work.maps(), work.writer, work.geometry(), classes=work.head.count, **work.options("width", "levels")
    )


STYLE = HeadStyle("retinanet", BOXES, usual_taps, build, options=("width", "levels"), most_taps=MOST_TAPS)
