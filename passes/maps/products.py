"""Rules of the matrix products."""

from __future__ import annotations

from collections.abc import Mapping

from passes.graph.view import Node
from passes.maps.contents import Axes, Content, changed, finer, sides
from passes.maps.positions import MapSpace, Rule, Stuck, Unfollowed
from passes.maps.shared import met


def gemm(node: Node, space: MapSpace) -> Axes:
    """Y = A·B + C: what is summed has a weight for each position."""
    a, b = (space.axes(name) for name in node.inputs[:2])
    rows, inner = a[::-1] if node.int("transA", 0) else a
    other, columns = b[::-1] if node.int("transB", 0) else b
    _summed(node, inner, other)
    return rows, columns


def matmul(node: Node, space: MapSpace) -> Axes:
    """The last axis of A meets the last but one of B; axes before them broadcast."""
    a, b = (space.axes(name) for name in node.inputs[:2])
    if len(a) < 2 or len(b) < 2:
        raise Unfollowed(f"'{node.name}' (MatMul) multiplies a vector")
    _summed(node, a[-1], b[-2])
    rank = max(len(a), len(b))
    result: list[Content] = [()] * (rank - 2)
    for axes, name in ((a, node.inputs[0]), (b, node.inputs[1])):
        for axis, content in enumerate(axes[:-2], rank - len(axes)):
            result[axis] = met(node, result[axis], content, name)
    return (*result, a[-2], b[-1])


def _summed(node: Node, a: Content, b: Content) -> None:
    if not changed(a) and not changed(b):
        return
    if not sides(a) or not sides(b):
        raise Stuck(f"'{node.name}' ({node.op}) has a weight for each position of the map")
    if finer(a) or finer(b):
        raise Stuck(f"'{node.name}' ({node.op}) sums over a map, which would have more samples")
    met(node, a, b, node.inputs[1])


PRODUCTS: Mapping[str, Rule] = {"Gemm": gemm, "MatMul": matmul}
