"""Networks whose maps shrink by strides, what becomes of them by a Spec, and how far a finer map is from the one it
was.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from nets import Net, bundled, weight

from passes import Analysis, Plan, UserError, analyse, apply, parse, plan
from passes.graph.view import Node, view

Step = Callable[[Net, str, str], str]


def remapped(made: gs.Graph, knobs: Mapping[str, object], **how: object) -> tuple[Analysis, Plan, gs.Graph]:
    analysis = analyse(made)
    found = plan(analysis, parse({"version": 1, "knobs": knobs}), **how)  # type: ignore[arg-type]
    return analysis, found, apply(made, found)


def refused(made: gs.Graph, knobs: Mapping[str, object], **how: object) -> str:
    with pytest.raises(UserError) as caught:
        remapped(made, knobs, **how)
    return str(caught.value)


def by_name(made: gs.Graph) -> Mapping[str, Node]:
    return view(made).by_name


def strides(made: gs.Graph) -> tuple[tuple[int, ...], str, str | None]:
    """The output strides that are possible, the growth, and why."""
    found = analyse(made).strides
    return found.values, found.growth, found.why


def drift(seed: np.ndarray, finer: np.ndarray, *steps: int) -> float:
    """How far every step-th position of the finer map is from the seed's map, relative to the spread."""
    sampled = finer[(..., *(slice(None, None, step) for step in steps))]
    assert sampled.shape == seed.shape
    return float(np.abs(sampled - seed).max() / np.ptp(seed))


@functools.cache
def seed() -> tuple[gs.Graph, Analysis]:
    made = bundled()
    return made, analyse(made)


def conv(kernel: int, pads: Sequence[int], dilation: int = 1) -> Step:
    def step(net: Net, x: str, out: str) -> str:
        net.conv(x, out, 6, kernel, stride=2)
        net.nodes.pop()
        how = {"kernel_shape": [kernel] * 2, "strides": [2, 2], "pads": list(pads), "dilations": [dilation] * 2}
        net.op("Conv", out, x, f"{out}.w", **how)
        net.channels[out] = 6
        return out

    return step


def pool(kind: str, kernel: int, pads: Sequence[int] = (0, 0, 0, 0), **how: int) -> Step:
    return lambda net, x, out: net.op(kind, out, x, kernel_shape=[kernel] * 2, strides=[2, 2], pads=list(pads), **how)


def padded(mode: str) -> Step:
    def step(net: Net, x: str, out: str) -> str:
        net.constant(f"{out}.pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)
        net.op("Pad", f"{out}.p", x, f"{out}.pads", mode=mode)
        return conv(3, (0, 0, 0, 0))(net, f"{out}.p", out)

    return step


STEPS: Mapping[str, Step] = {
    "3×3": conv(3, (1, 1, 1, 1)),
    "3×3, Keras": conv(3, (0, 0, 1, 1)),
    "3×3, SAME_LOWER": conv(3, (1, 1, 0, 0)),
    "3×3, valid": conv(3, (0, 0, 0, 0)),
    "3×3, dilated": conv(3, (2, 2, 2, 2), 2),
    "1×1": conv(1, (0, 0, 0, 0)),
    "2×2": conv(2, (0, 0, 0, 0)),
    "4×4": conv(4, (1, 1, 1, 1)),
    "5×5": conv(5, (2, 2, 2, 2)),
    "7×7": conv(7, (3, 3, 3, 3)),
    "maximum 3×3": pool("MaxPool", 3, (1, 1, 1, 1)),
    "maximum 2×2": pool("MaxPool", 2),
    "maximum 1×1": pool("MaxPool", 1),
    "maximum 3×3, rounded up": pool("MaxPool", 3, ceil_mode=1),
    "maximum 2×2, rounded up": pool("MaxPool", 2, ceil_mode=1),
    "maximum 3×3 with pads, rounded up": pool("MaxPool", 3, (1, 1, 1, 1), ceil_mode=1),
    "average 2×2": pool("AveragePool", 2),
    "average 3×3": pool("AveragePool", 3, (1, 1, 1, 1)),
    "average 3×3 with pads": pool("AveragePool", 3, (1, 1, 1, 1), count_include_pad=1),
    "average 3×3, rounded up": pool("AveragePool", 3, ceil_mode=1),
    "zeros around": padded("constant"),
    "reflected around": padded("reflect"),
}


def encoder(step: Step, size: int, opset: int = 19) -> gs.Graph:
    """x → c0 (stride 2) → three times a step of stride 2 (s1, s2, s3) and a 3×3 convolution (c1, c2, c3), which also
    goes out.
    """
    net = Net(size=size, opset=opset)
    y = net.relu(net.conv("x", "c0", 6, 3, stride=2))
    for k in (1, 2, 3):
        y = net.relu(net.conv(step(net, y, f"s{k}"), f"c{k}", 6, 3, bias=True))
    return net.graph(y)


def encoder_with_classifier(size: int = 64) -> gs.Graph:
    net = Net(size=size)
    y = net.relu(net.conv("x", "c0", 6, 3, stride=2))
    for k in (1, 2, 3):
        y = net.relu(net.conv(conv(3, (1, 1, 1, 1))(net, y, f"s{k}"), f"c{k}", 6, 3, bias=True))
    net.classifier(y)
    return net.graph()


def residual(shortcut: str, opset: int = 17, size: int = 64) -> gs.Graph:
    """Residual stages of stride 2 whose shortcuts pool by averages or by strides, or whose convolutions blur first."""
    net = Net(size=size, opset=opset)
    y = net.relu(net.conv("x", "stem", 8, 3, stride=2))
    for k in (1, 2, 3):
        if shortcut == "average":
            short = net.conv(pool("AveragePool", 2)(net, y, f"v{k}"), f"d{k}", 8)
        else:
            short = net.conv(y, f"d{k}", 8, stride=2)
        if shortcut == "blur":
            net.constant(f"k{k}.pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)
            inner = net.op("Pad", f"r{k}", net.relu(net.conv(y, f"a{k}", 8, 3)), f"k{k}.pads", mode="reflect")
            net.constant(f"b{k}.w", weight((8, 1, 3, 3), net.rng))
            inner = net.op("Conv", f"b{k}", inner, f"b{k}.w", kernel_shape=[3, 3], strides=[2, 2], group=8)
        else:
            inner = net.conv(y, f"a{k}", 8, 3, stride=2)
        y = net.relu(net.op("Add", f"m{k}", net.conv_bn(net.relu(inner), f"e{k}", 8, 3), short))
    net.classifier(y)
    return net.graph()


def squeezing() -> gs.Graph:
    """Three strides, and a squeeze-excite behind the second and behind the last."""
    net = Net(size=64)
    y = net.relu(net.conv("x", "c0", 8, 3, stride=2))
    for k in (1, 2):
        y = net.relu(net.conv(y, f"c{k}", 8, 3, stride=2))
        net.op("GlobalAveragePool", f"g{k}", y)
        gate = net.op("Sigmoid", f"o{k}", net.conv(f"g{k}", f"w{k}", 8))
        y = net.conv(net.op("Mul", f"m{k}", y, gate), f"d{k}", 8, 3)
    net.classifier(y)
    return net.graph()


def free(made: gs.Graph, *names: str) -> gs.Graph:
    """The same graph, whose input says names in place of height and width."""
    made.inputs[0].shape = [*made.inputs[0].shape[:2], *names]
    return made
