"""Rules of the operators that resample space, or trade it for channels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from passes.channels.axes import Flow, Label
from passes.channels.rules.shared import Labels, Rule, freeze, in_groups, shape_of
from passes.graph.view import Node


def resize(node: Node, flow: Flow) -> Labels:
    """Space is resampled; an output size written for the channel axis follows it."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    if shape_of(flow, node.outputs[0])[x.axis] != x.ids.size:
        flow.freeze(x.ids, f"'{node.name}' ({node.op}) resamples its channels")
        return None
    if node.input(3):
        axes = list(node.ints("axes", range(len(shape_of(flow, node.inputs[0])))))
        if x.axis in axes:
            flow.size(node.input(3), axes.index(x.axis), x.ids)
    return x


def depth_to_space(node: Node, flow: Flow) -> Labels:
    """The b·b channels that make one output channel become one identity."""
    x = flow.label(node.inputs[0])
    if x is None or x.axis != 1:
        freeze(flow, x, f"'{node.name}' (DepthToSpace) mixes it with space")
        return None
    block = node.int("blocksize", 1)
    columns_last = node.attrs.get("mode", "DCR") == "CRD"
    array = in_groups(node, x.ids, block * block)
    array = array.reshape(-1, block * block) if columns_last else array
    kept = array[:, :1] if columns_last else array[:1]
    flow.unite(kept, array, f"'{node.name}' (DepthToSpace) merges it with fixed channels")
    return Label(1, kept.ravel())


def space_to_depth(node: Node, flow: Flow) -> Labels:
    """Each channel comes back once per position of the block."""
    x = flow.label(node.inputs[0])
    if x is None or x.axis != 1:
        freeze(flow, x, f"'{node.name}' (SpaceToDepth) mixes it with space")
        return None
    return Label(1, np.tile(x.ids, node.int("blocksize", 1) ** 2))


def max_unpool(node: Node, flow: Flow) -> Labels:
    """Each channel goes back to where a pooling found its values; a size written for the channels follows them."""
    x, positions = flow.label(node.inputs[0]), flow.label(node.inputs[1])
    if x is None or positions is None or x.axis != 1 or positions.axis != 1:
        for label in (x, positions):
            freeze(flow, label, f"'{node.name}' (MaxUnpool) needs a position for each of its values")
        return None
    flow.unite(x.ids, positions.ids, f"'{node.name}' (MaxUnpool) takes positions of fixed channels")
    if node.input(2):
        flow.size(node.input(2), 1, x.ids)
    return x


RESAMPLING: Mapping[str, Rule] = {
    "Resize": resize,
    "Upsample": resize,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "MaxUnpool": max_unpool,
}
