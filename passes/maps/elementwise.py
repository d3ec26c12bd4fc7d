"""Rules of the operators that work position by position."""

from __future__ import annotations

from collections.abc import Mapping

from passes.graph.operators import NARY, UNARY
from passes.graph.view import Node
from passes.maps.contents import Axes
from passes.maps.positions import MapSpace, Rule
from passes.maps.shared import broadcast


def same(node: Node, space: MapSpace) -> list[Axes]:
    """Every position by itself."""
    return [space.axes(node.inputs[0])] * len(node.outputs)


def elementwise(node: Node, space: MapSpace) -> Axes:
    """Broadcast from the right; maps that meet have the same samples."""
    return broadcast(node, space, [name for name in node.inputs if name])


ELEMENTWISE: Mapping[str, Rule] = {**dict.fromkeys(UNARY, same), **dict.fromkeys(NARY, elementwise)}
