"""Rules of the operators that reduce over axes."""

from __future__ import annotations

from collections.abc import Mapping

from passes.graph.operators import CONSTANTS, REDUCTIONS, of, of_form
from passes.graph.view import Node
from passes.maps.contents import Axes, finer
from passes.maps.positions import MapSpace, Rule, Stuck
from passes.maps.shared import axes_of, require_map


def reduction(node: Node, space: MapSpace) -> Axes:
    """Over `axes` (attribute or input; none: all)."""
    x = space.axes(node.inputs[0])
    axes = axes_of(node, space, 1)
    reduced = {axis % len(x) for axis in axes} or set(() if node.int("noop_with_empty_axes", 0) else range(len(x)))
    return _reduced(node, space, reduced, keep=bool(node.int("keepdims", 1)))


def selection(node: Node, space: MapSpace) -> Axes:
    """ArgMax and ArgMin."""
    return _reduced(
        node, space, {node.int("axis", 0) % len(space.axes(node.inputs[0]))}, keep=bool(node.int("keepdims", 1))
    )


def _reduced(node: Node, space: MapSpace, reduced: set[int], *, keep: bool) -> Axes:
    x = space.axes(node.inputs[0])
    if CONSTANTS not in of(node.op).has and any(finer(x[axis]) for axis in reduced):
        raise Stuck(f"'{node.name}' ({node.op}) sums over a map or counts in it, which would have more samples")
    for axis in reduced:
        require_map(x[axis])
    space.average(node, [x[axis] for axis in reduced])
    return tuple(() if axis in reduced else content for axis, content in enumerate(x) if keep or axis not in reduced)


REDUCING: Mapping[str, Rule] = {
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(of_form("selection"), selection),
}
