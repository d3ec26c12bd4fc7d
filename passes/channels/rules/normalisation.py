"""Rules of the operators that normalise, over channels or channel by channel; Softmax is one of them."""

from __future__ import annotations

from collections.abc import Mapping

from passes.channels.axes import Flow, Ids, Label
from passes.channels.rules.shared import Labels, Rule, freeze, in_groups, shape_of
from passes.graph.operators import of_form
from passes.graph.view import Node


def batch_normalization(node: Node, flow: Flow) -> Labels:
    """Per channel: scale, bias, mean, variance."""
    x = flow.label(node.inputs[0])
    if x is None or x.axis != 1:
        return x
    if not all(flow.constant(name) for name in node.inputs[1:5]):
        flow.freeze(x.ids, f"'{node.name}' (BatchNormalization) has computed statistics")
        return x
    for slot, fill in ((1, 1.0), (2, 0.0), (3, 0.0), (4, 1.0)):
        flow.carries(node, slot, 0, x.ids, fill=fill)
    return (x, *(Label(0, x.ids) for _ in node.outputs[1:]))


def instance_normalization(node: Node, flow: Flow) -> Labels:
    """Per channel over space; a channel axis inside the space is mixed."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    if x.axis != 1:
        flow.drift(x.ids, f"'{node.name}' (InstanceNormalization) normalises over its channels")
        return x
    _carry_affine(node, flow, x.ids, 0)
    return x


def group_normalization(node: Node, flow: Flow) -> Labels:
    """Groups keep equal shapes: channel j of every group is one identity."""
    x = flow.label(node.inputs[0])
    if x is None or x.axis != 1:
        freeze(flow, x, f"'{node.name}' (GroupNormalization) mixes it")
        return x
    rows = in_groups(node, x.ids, node.int("num_groups", 1))
    flow.unite(rows[:1], rows, f"'{node.name}' (GroupNormalization) reads it in groups that are partly fixed")
    flow.drift(x.ids, f"'{node.name}' (GroupNormalization) normalises over its channels")
    if shape_of(flow, node.inputs[1]) == (x.ids.size,):
        _carry_affine(node, flow, x.ids, 0)
    return x


def layer_normalization(node: Node, flow: Flow) -> Labels:
    """Over the axes from `axis` on; scale and bias have those axes."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    rank = len(shape_of(flow, node.inputs[0]))
    axis = node.int("axis", -1) % rank
    if x.axis >= axis:
        flow.drift(x.ids, f"'{node.name}' ({node.op}) normalises over its channels")
    _carry_affine(node, flow, x.ids, x.axis - rank)
    statistics = x if x.axis < axis else None
    return (x, *(statistics for _ in node.outputs[1:]))


def _carry_affine(node: Node, flow: Flow, ids: Ids, axis: int) -> None:
    """Scale (slot 1) and bias (slot 2) where they have an entry per channel on `axis` (negative: from the end)."""
    for slot, fill in ((1, 1.0), (2, 0.0)):
        name = node.input(slot)
        if not name:
            continue
        shape = shape_of(flow, name)
        position = axis if axis >= 0 else axis + len(shape)
        if position < 0 or position >= len(shape) or shape[position] != ids.size:
            continue
        if flow.constant(name):
            flow.carries(node, slot, position, ids, fill=fill)
        else:
            flow.freeze(ids, f"'{node.name}' ({node.op}) has a computed scale")


def local_response(node: Node, flow: Flow) -> Labels:
    """Each channel is divided by its neighbours."""
    x = flow.label(node.inputs[0])
    if x is not None and x.axis == 1:
        flow.drift(x.ids, f"'{node.name}' ({node.op}) looks at neighbouring channels")
    return x


def along_axis(node: Node, flow: Flow) -> Labels:
    """Softmax and its like: harmless along other axes, not neutral over channels."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    rank = len(shape_of(flow, node.inputs[0]))
    flat = flow.view.opset < 13 and node.op != "LpNormalization"
    axis = node.int("axis", 1 if flat else -1) % rank
    if x.axis == axis or (flat and x.axis > axis):
        flow.drift(x.ids, f"'{node.name}' ({node.op}) normalises over its channels")
    return x


def over_axes(node: Node, flow: Flow) -> Labels:
    """MeanVarianceNormalization over `axes`."""
    x = flow.label(node.inputs[0])
    if x is not None and x.axis in node.ints("axes", (0, 2, 3)):
        flow.drift(x.ids, f"'{node.name}' ({node.op}) normalises over its channels")
    return x


NORMALISATION: Mapping[str, Rule] = {
    "BatchNormalization": batch_normalization,
    "InstanceNormalization": instance_normalization,
    "GroupNormalization": group_normalization,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": layer_normalization,
    "LRN": local_response,
    "LpNormalization": along_axis,
    "MeanVarianceNormalization": over_axes,
    **dict.fromkeys(of_form("softmax"), along_axis),
}
