"""DeepLabv3: atrous spatial pyramid pooling, its 3×3 convolutions depthwise-separable, and a 1×1 classifier.

Chen et al. 2017, arXiv 1706.05587; separable as in DeepLabv3+ (arXiv 1802.02611). Branches over one map: 1×1; three 3×3
of rates 6, 12, 18 at output stride 16 (in proportion at others); the mean of the image. Every convolution but the
classifier has a BatchNormalization and a ReLU and no bias, the depthwise ones too. There is no Dropout, and no
upsampling: `mask_logits` [N, classes, h, w] has the map's extents.
"""

from __future__ import annotations

from passes.heads.style import HeadStyle, HeadWork
from passes.heads.taps import last_exit
from passes.heads.writer import FeatureMap, Writer

WIDTH = 256
RATES = (6, 12, 18)  # at output stride 16
PREDICTOR_STD = 0.01


def deeplabv3(x: FeatureMap, writer: Writer, *, stride: float, classes: int, width: int = WIDTH) -> None:
    """`mask_logits` [N, classes, h, w] of the map x, which lies at this output stride."""
    branches = [_normalised(writer.conv(x, "aspp0.conv", width), "aspp0", writer)]
    for k, rate in enumerate(RATES, 1):
        depth = _normalised(
            writer.depthwise(x, f"aspp{k}.depthwise", dilation=max(round(rate * 16 / stride), 1)),
            f"aspp{k}.depthwise",
            writer,
        )
        branches.append(_normalised(writer.conv(depth, f"aspp{k}.conv", width), f"aspp{k}", writer))
    pooled = FeatureMap(writer.node("GlobalAveragePool", "image.pool", [x.tensor]), x.channels, (1, 1))
    image = _normalised(writer.conv(pooled, "image.conv", width), "image", writer)
    branches.append(writer.resized(image, x, "image.spread"))
    joined = FeatureMap(
        writer.node("Concat", "join", [branch.tensor for branch in branches], axis=1), len(branches) * width, x.space
    )
    y = _normalised(writer.conv(joined, "project.conv", width), "project", writer)
    weights = writer.weights("classifier", (classes, width, 1, 1), std=PREDICTOR_STD, bias=0.0)
    writer.convolve(y, weights, "classifier", output="mask_logits")


def _normalised(x: FeatureMap, name: str, writer: Writer) -> FeatureMap:
    return writer.relu(writer.bn(x, f"{name}.bn"), f"{name}.relu")


def build(work: HeadWork) -> None:
    """The head on its tap."""
    (x,) = work.maps()
    deeplabv3(x, work.writer, stride=float(min(work.taps[0].stride)), classes=work.head.count, **work.options("width"))


STYLE = HeadStyle("deeplabv3", {"mask_logits": ("", "mask_height", "mask_width")}, last_exit, build, options=("width",))
