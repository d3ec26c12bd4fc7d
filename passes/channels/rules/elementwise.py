"""Rules of the operators that work element by element."""

from __future__ import annotations

from collections.abc import Mapping

from passes.channels.axes import Flow
from passes.channels.rules.shared import Labels, Rule, shape_of
from passes.graph.operators import NARY, UNARY
from passes.graph.view import Node

FILLS = {("Mul", 0): 1.0, ("Mul", 1): 1.0, ("Div", 1): 1.0, ("Pow", 1): 1.0, ("PRelu", 1): 0.25}


def same_axes(node: Node, flow: Flow) -> Labels:
    """Every element by itself: channels stay where they are, in every output (a mask too)."""
    return (flow.label(node.inputs[0]),) * len(node.outputs)


def elementwise(node: Node, flow: Flow) -> Labels:
    """Broadcast from the right; channels on both sides are the same channels, a constant of that length has one entry
    per channel.
    """
    rank = len(shape_of(flow, node.outputs[0]))
    placed = {}
    for slot, name in enumerate(node.inputs):
        label = flow.label(name) if name else None
        if label is not None:
            placed[slot] = label.moved(rank - len(shape_of(flow, name)) + label.axis)
    if not placed:
        return None
    result = next(iter(placed.values()))
    if any(label.axis != result.axis for label in placed.values()):
        for label in placed.values():
            flow.freeze(label.ids, f"'{node.name}' ({node.op}) combines channels on different axes")
        return None
    for label in placed.values():
        if label is not result:
            flow.unite(result.ids, label.ids, f"'{node.name}' ({node.op}) merges it with channels that are fixed")
    for slot, name in enumerate(node.inputs):
        if not name or slot in placed:
            continue
        shape = shape_of(flow, name)
        axis = result.axis - (rank - len(shape))
        if axis < 0 or shape[axis] == 1:
            continue
        if flow.constant(name):
            flow.carries(node, slot, axis, result.ids, fill=FILLS.get((node.op, slot), 0.0))
        else:
            flow.freeze(result.ids, f"'{node.name}' ({node.op}) merges it with '{name}', whose channels are fixed")
    return result


ELEMENTWISE: Mapping[str, Rule] = {**dict.fromkeys(UNARY, same_axes), **dict.fromkeys(NARY, elementwise)}
