"""Rules of the operators that slide windows over space: convolution and pooling, global pooling too."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from passes.channels.axes import Flow, Ids, Label
from passes.channels.rules.shared import Labels, Rule, freeze, in_groups, shape_of
from passes.graph.operators import of, of_form
from passes.graph.tensors import Shape
from passes.graph.view import Node


def convolution(node: Node, flow: Flow) -> Labels:
    """Weight [C_out, C_in/g, …]: creates axis 0, consumes axis 1; depthwise passes channels on; groups unite their j-th
    channels.
    """
    return _convolution(node, flow, out_axis=0, in_axis=1)


def transposed_convolution(node: Node, flow: Flow) -> Labels:
    """Weight [C_in, C_out/g, …]: consumes axis 0, creates axis 1."""
    return _convolution(node, flow, out_axis=1, in_axis=0)


def _convolution(node: Node, flow: Flow, out_axis: int, in_axis: int) -> Labels:
    x = flow.label(node.inputs[0])
    if x is not None and x.axis != 1:
        return _slides_over(node, flow, x)
    if not flow.constant(node.inputs[1]):
        freeze(flow, x, f"the weight of '{node.name}' is computed, not an initializer")
        return None
    groups = node.int("group", 1)
    channels = shape_of(flow, node.inputs[0])[1]
    weight = shape_of(flow, node.inputs[1])
    if groups > 1 and groups == channels:
        return _depthwise(node, flow, x, out_axis, weight=weight)
    if groups == 1:
        ids = flow.creates(node, 1, out_axis)
        if x is not None:
            flow.consumes(node, 1, in_axis, x.ids)
        return _with_bias(node, flow, ids)
    return _grouped(node, flow, x, out_axis=out_axis, in_axis=in_axis, groups=groups)


def _grouped(node: Node, flow: Flow, x: Label | None, *, out_axis: int, in_axis: int, groups: int) -> Labels:
    """Channel j of every group is one identity, on both sides: groups keep equal shapes."""
    if x is not None:
        rows = in_groups(node, x.ids, groups)
        flow.unite(rows[:1], rows, f"'{node.name}' reads it in groups that are partly fixed")
        flow.least.append((rows[0], 2))  # one channel a group would read as depthwise
        flow.consumes(node, 1, in_axis, x.ids if in_axis == 0 else rows[0])
    if out_axis == 0:
        return _with_bias(node, flow, flow.creates(node, 1, 0, groups=groups))
    return _with_bias(node, flow, np.tile(flow.creates(node, 1, 1, repeat=groups), groups))


def _depthwise(node: Node, flow: Flow, x: Label | None, out_axis: int, *, weight: Shape) -> Labels:
    """Each input channel makes `multiplier` outputs of its own identity."""
    if x is None:
        return None
    flow.sizes_of_groups(node, x.ids)
    if out_axis == 1:  # transposed: weight [C_in, multiplier, …]
        flow.carries(node, 1, 0, x.ids)
        return _with_bias(node, flow, np.repeat(x.ids, weight[1]))
    ids = np.repeat(x.ids, weight[0] // x.ids.size)
    flow.carries(node, 1, 0, ids)
    return _with_bias(node, flow, ids)


def _with_bias(node: Node, flow: Flow, ids: Ids) -> Label:
    slot = of(node.op).bias
    if slot is not None and node.input(slot):
        if flow.constant(node.input(slot)):
            flow.carries(node, slot, 0, ids)
        else:
            flow.freeze(ids, f"the bias of '{node.name}' is computed, not an initializer")
    return Label(1, ids)


def _slides_over(node: Node, flow: Flow, x: Label) -> Labels:
    """A window that slides along the channels themselves (efficient channel attention): any number will do, but
    neighbours matter.
    """
    if shape_of(flow, node.outputs[0])[x.axis] == x.ids.size and x.axis > 1:
        flow.drift(x.ids, f"'{node.name}' ({node.op}) slides over its channels")
        return x
    flow.freeze(x.ids, f"'{node.name}' ({node.op}) slides over its channels")
    return None


def pooling(node: Node, flow: Flow) -> Labels:
    """A window over space, channel by channel."""
    x = flow.label(node.inputs[0])
    if x is not None and x.axis != 1:
        return _slides_over(node, flow, x)
    return (x, x)


def global_pooling(node: Node, flow: Flow) -> Labels:
    """All of space, channel by channel."""
    x = flow.label(node.inputs[0])
    if x is not None and x.axis > 1:
        flow.drift(x.ids, f"'{node.name}' ({node.op}) reduces over its channels")
        return None
    return x


WINDOWS: Mapping[str, Rule] = {
    **dict.fromkeys(of_form("convolution"), convolution),
    **dict.fromkeys(of_form("transposed convolution"), transposed_convolution),
    **dict.fromkeys(of_form("pooling"), pooling),
    **dict.fromkeys(of_form("global pooling"), global_pooling),
}
