"""Rules of the operators that normalise, Softmax among them, or have a scale for each channel, as quantisation does."""

from __future__ import annotations

from collections.abc import Mapping

from passes.graph.operators import of_form
from passes.graph.view import Node
from passes.maps.contents import Axes
from passes.maps.positions import MapSpace, Rule
from passes.maps.shared import broadcast


def per_channel(node: Node, space: MapSpace) -> Axes:
    """Statistics of the training data, or over channels alone."""
    return space.axes(node.inputs[0])


def over_space(node: Node, space: MapSpace) -> Axes:
    """Statistics of the map itself (axes 2 and on)."""
    x = space.axes(node.inputs[0])
    space.average(node, x[1:])
    return x


def layer_normalization(node: Node, space: MapSpace) -> Axes:
    """Over the axes from `axis` on, with a scale and an offset for each of their positions."""
    x = space.axes(node.inputs[0])
    space.average(node, x[node.int("axis", -1) % len(x) :])
    return broadcast(node, space, [node.inputs[0], *(name for name in node.inputs[1:3] if name)])


def along_axis(node: Node, space: MapSpace) -> Axes:
    """Softmax and its like; before opset 13 over all axes from `axis` on."""
    x = space.axes(node.inputs[0])
    flat = space.view.opset < 13 and node.op != "LpNormalization"
    axis = node.int("axis", 1 if flat else -1) % len(x)
    space.average(node, x[axis:] if flat else [x[axis]])
    return x


def mean_variance(node: Node, space: MapSpace) -> Axes:
    """MeanVarianceNormalization over `axes`."""
    x = space.axes(node.inputs[0])
    axes = node.ints("axes", (0, 2, 3))
    space.average(node, [content for axis, content in enumerate(x) if axis in axes or axis - len(x) in axes])
    return x


NORMALISATION: Mapping[str, Rule] = {
    **dict.fromkeys(of_form("quantisation"), per_channel),
    "BatchNormalization": per_channel,
    "LRN": per_channel,
    "InstanceNormalization": over_space,
    "GroupNormalization": over_space,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": layer_normalization,
    "LpNormalization": along_axis,
    "MeanVarianceNormalization": mean_variance,
    **dict.fromkeys(of_form("softmax"), along_axis),
}
