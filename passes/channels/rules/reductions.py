"""Rules of the operators that reduce over axes."""

from __future__ import annotations

from collections.abc import Mapping

from passes.channels.axes import Flow
from passes.channels.rules.shared import Labels, Rule, axes_of, shape_of
from passes.graph.operators import REDUCTIONS, of_form
from passes.graph.view import Node


def reduction(node: Node, flow: Flow) -> Labels:
    """Over `axes` (attribute or input; none: all)."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    rank = len(shape_of(flow, node.inputs[0]))
    axes = axes_of(node, flow, 1)
    if axes is None:
        flow.freeze(x.ids, f"'{node.name}' ({node.op}) reduces over axes that are computed")
        return None
    reduced = {axis % rank for axis in axes} or set(() if node.int("noop_with_empty_axes", 0) else range(rank))
    if x.axis in reduced:
        flow.drift(x.ids, f"'{node.name}' ({node.op}) reduces over its channels")
        return None
    if node.int("keepdims", 1):
        return x
    return x.moved(x.axis - sum(axis < x.axis for axis in reduced))


def selection(node: Node, flow: Flow) -> Labels:
    """ArgMax and ArgMin: over channels the result is a channel's number, which must keep its meaning."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    axis = node.int("axis", 0) % len(shape_of(flow, node.inputs[0]))
    if x.axis == axis:
        flow.freeze(x.ids, f"'{node.name}' ({node.op}) returns positions among its channels")
        return None
    return x if node.int("keepdims", 1) else x.moved(x.axis - (axis < x.axis))


REDUCING: Mapping[str, Rule] = {
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(of_form("selection"), selection),
}
