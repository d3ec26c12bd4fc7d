"""Networks for the tests of heads: small, with stages at strides 4 to 32, or without."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from nets import Net

from passes.heads import Attached, HeadSpec, attach
from passes.network.analyse import analyse
from passes.network.analysis import Analysis

STYLES = ("linear", "deeplabv3", "retinanet", "ssdlite", "simplebaseline")
OUTPUTS = {
    "linear": ("logits",),
    "deeplabv3": ("mask_logits",),
    "retinanet": ("cls_logits", "boxes"),
    "ssdlite": ("cls_logits", "boxes"),
    "simplebaseline": ("heatmaps",),
}


def mobile(size: int = 64, opset: int = 17, **how: int) -> Net:
    """Inverted bottlenecks: a stem, stages of 2, 1, 2, 1 blocks at strides 4, 8, 16, 32, a last convolution, a
    classifier of 5.
    """
    net = Net(size=size, opset=opset, **how)
    y = net.conv_bn_relu("x", "stem", 6, 3, stride=2)
    for stage, (width, depth) in enumerate(((6, 2), (8, 1), (10, 2), (12, 1))):
        for block in range(depth):
            name = f"s{stage}b{block}"
            inner = net.conv_bn_relu(y, f"{name}e", 4 * net.channels[y])
            inner = net.conv_bn_relu(inner, f"{name}d", net.channels[inner], 3, stride=1 if block else 2, group=0)
            out = net.conv_bn(inner, f"{name}p", width)
            y = net.op("Add", f"{name}a", y, out) if block else out
    net.classifier(net.conv_bn_relu(y, "last", 24))
    return net


def plain(size: int = 64, strides: tuple[int, ...] = (2, 2, 2, 2, 2)) -> Net:
    """No stages: convolutions, each followed by a max pooling that halves the map."""
    net = Net(size=size)
    y = "x"
    for k, _ in enumerate(strides):
        y = net.conv_bn_relu(y, f"c{k}", 4 + k, 3)
        y = net.op("MaxPool", f"p{k}", y, kernel_shape=[2, 2], strides=[2, 2])
    net.classifier(y)
    return net


def made(
    seed: gs.Graph, head: HeadSpec, *, rng_seed: int = 0, sizes: dict[str, tuple[int, ...]] | None = None
) -> Attached:
    """The head on the seed."""
    return attach(seed, analyse(seed, sizes=sizes), head, rng=np.random.default_rng(rng_seed))


def small(style: str, count: int = 3, *taps: str) -> HeadSpec:
    """A head of few channels and levels."""
    width = 8 if style in ("deeplabv3", "retinanet", "simplebaseline") else None
    return HeadSpec(style, count, taps, width, {"retinanet": 4, "ssdlite": 3}.get(style))


def again(found: Attached, sizes: dict[str, tuple[int, ...]] | None = None) -> Analysis:
    """The analysis of the network with its head."""
    return analyse(found.graph, sizes=sizes, table=found.table)
