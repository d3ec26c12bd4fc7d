"""The walk in the order of the graph that follows every map."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from passes.graph.operators import NARY, SIZES, SLIDING
from passes.graph.tensors import Shapes
from passes.graph.view import Node, View
from passes.maps.contents import Axes, Map, Side, changed, has_space, plain, sides
from passes.maps.positions import MapSpace, NotGlobal, Stuck, Unfollowed
from passes.maps.table import SPACE, SPREADING


def follow(
    view: View,
    shapes: Shapes,
    maps: Mapping[str, Map],
    *,
    limit: int | None = None,
    settled: Mapping[str, np.ndarray] | None = None,
) -> MapSpace:
    """All maps that come from the inputs given as maps. Raises Stuck where the change that they or the limit ask for is
    not possible.
    """
    local: frozenset[str] = frozenset()
    while True:
        space = MapSpace(view, shapes, limit, dict(maps), settled=settled or {}, local=local)
        try:
            for node in view.nodes:
                visit(space, node)
            return space
        except NotGlobal as found:
            local |= {str(found)}


def convolved_axes(view: View, shapes: Shapes, name: str) -> tuple[int, ...] | None:
    """The axes of an input over which the first convolution that it reaches slides, in that order; None where it
    reaches none.
    """
    sides = tuple((Side((name, axis), Fraction(1), size, size),) for axis, size in enumerate(shapes.shapes[name]))
    space = MapSpace(view, shapes, maps={name: Map(sides)}, local=frozenset(view.by_name))
    for node in view.nodes:
        known = space.maps.get(node.input(0)) if node.op == "Conv" else None
        if known is not None and any(has_space(content) for content in known.axes[2:]):
            slides = [
                content[0].axis[1] for content in known.axes[2:] if len(content) == 1 and isinstance(content[0], Side)
            ]
            return tuple(slides) if len(slides) == len(known.axes) - 2 else None
        visit(space, node)
    return None


def visit(space: MapSpace, node: Node) -> None:
    """The outputs of a node are followed, or lost with the reason. Raises Stuck where something that changed cannot be
    followed.
    """
    known = [space.maps[name] for name in node.inputs if name in space.maps]
    reason = next((space.lost[name] for name in node.inputs if name in space.lost), None) if space.lost else None
    if reason is not None:
        _lose(space, node, reason)
        return
    if not known or node.op in SIZES:
        return
    space.averaged = next((known_map.averaged for known_map in known if known_map.averaged), "")
    spatial = any(has_space(content) for known_map in known for content in known_map.axes)
    try:
        found = _found(space, node, spatial=spatial)
    except Stuck as why:
        if isinstance(why, Unfollowed) or space.limit is None:
            _lose(space, node, str(why))
            return
        hints = space.cropped[-1:] if node.op in NARY or node.op == "Concat" else []
        raise Stuck("; ".join((str(why), *hints))) from why
    for name, axes in zip(node.outputs, found, strict=False):
        if name:
            space.maps[name] = Map(axes, space.averaged)
            if space.averaged and any(map(sides, axes)):
                space.averages.append(space.averaged)


def _found(space: MapSpace, node: Node, *, spatial: bool) -> list[Axes]:
    rule = SPACE.get(node.op)
    if rule is None and spatial:
        raise Unfollowed(f"operator {node.op} ('{node.name}') has no rule for space")
    names = [name for name in (*node.inputs, node.outputs[0]) if name]
    if not all(map(space.shapes.shapes.__contains__, names)):
        raise Unfollowed(f"the sizes around '{node.name}' ({node.op}) are unknown")
    if any(0 in space.shapes.shapes[name] and _is_nothing(space, name) for name in names):
        raise Unfollowed(f"there is nothing in the tensors around '{node.name}' ({node.op})")
    if rule is None or not (spatial or node.op in SPREADING):
        return [plain(space.shapes.shapes.get(name, ())) for name in node.outputs]
    found = rule(node, space)
    return found if isinstance(found, list) else [found]


def _is_nothing(space: MapSpace, name: str) -> bool:
    """Whether a tensor of no elements is no option left out, as a list of no numbers is."""
    return len(space.shapes.shapes[name]) > 1 or name in space.maps or name not in space.view.constants


def _lose(space: MapSpace, node: Node, reason: str) -> None:
    reached = [space.maps[name] for name in node.inputs if name in space.maps]
    if any(changed(content) for known in reached for content in known.axes) or any(known.averaged for known in reached):
        raise Stuck(reason)
    if space.limit is not None and node.op in SLIDING and max(node.ints("strides", (1,))) > 1:
        raise Stuck(reason)
    space.lost.update((name, reason) for name in node.outputs if name)
