"""What rules of several kinds use: maps that meet, maps that have to be maps, axes that are listed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from passes.graph.view import Node
from passes.maps.contents import (
    Axes,
    Content,
    Factor,
    Pooled,
    Side,
    after,
    before,
    changed,
    sides,
    size_after,
    size_before,
)
from passes.maps.positions import MapSpace, NotGlobal, Stuck, Unfollowed


def broadcast(node: Node, space: MapSpace, names: Sequence[str]) -> Axes:
    """What the axes of these tensors count where they meet, aligned from the right."""
    found = [(name, space.axes(name)) for name in names]
    rank = max(len(axes) for _, axes in found)
    result: list[Content] = [()] * rank
    for name, axes in found:
        for axis, content in enumerate(axes, rank - len(axes)):
            result[axis] = met(node, result[axis], content, name)
    return tuple(result)


def met(node: Node, a: Content, b: Content, name: str) -> Content:
    """What the axis counts where both meet; `name` is the tensor of b."""
    if a == b or not b:
        return a
    if not a:
        return b
    for one, other in ((a, b), (b, a)):
        if isinstance(one[0], Pooled):
            if any(side.old == 1 for side in sides(other)):
                raise NotGlobal(one[0].node)
            return other
    if size_before(a) != size_before(b):
        small, large = (a, b) if size_before(a) == 1 else (b, a)
        if size_before(small) != 1:
            raise Unfollowed(
                f"'{node.name}' ({node.op}) joins {size_before(a)} positions with {size_before(b)} of '{name}'"
            )
        if size_after(small) != 1:
            raise Stuck(
                f"'{node.name}' ({node.op}) spreads one position over many, and of the one there would be "
                f"{size_after(small)}"
            )
        return large
    if not changed(a) and not changed(b):
        return a if any(side.stride is not None for side in sides(a)) else b
    if not sides(a) or not sides(b):
        written = f"'{name}'" if not sides(b) else "a tensor"
        raise Stuck(
            f"'{node.name}' ({node.op}) joins the map with {written}, which has {size_before(a)} positions "
            "whatever the image"
        )
    if list(map(_samples, a)) != list(map(_samples, b)) and not _equal_sizes(a, b):
        raise Stuck(f"'{node.name}' ({node.op}) joins maps {_of(a)} and {_of(b)}")
    return a if all(side.stride is not None for side in sides(a)) else b


def _equal_sizes(a: Content, b: Content) -> bool:
    """Whether both have as many samples after the change, and none between those they had."""
    return size_after(a) == size_after(b) and all(side.rate == 1 for side in (*sides(a), *sides(b)))


def _samples(factor: Factor) -> tuple[int, int, int]:
    return before(factor), after(factor), factor.rate if isinstance(factor, Side) else 1


def _of(content: Content) -> str:
    rate = math.prod(side.rate for side in sides(content))
    return f"of {size_after(content)} samples" + (f" ({rate} for each there was)" if rate != 1 else "")


def require_map(content: Content) -> None:
    """The axis is no single position that a pooling left. Raises NotGlobal, with the pooling, where it is."""
    for factor in content:
        if isinstance(factor, Pooled):
            raise NotGlobal(factor.node)


def only_seeds_samples(node: Node, side: Side) -> None:
    """The side has no samples between those it had. Raises Stuck otherwise."""
    if side.rate != 1:
        raise Stuck(f"'{node.name}' ({node.op}) resamples a map, which has no dilation")


def axes_of(node: Node, space: MapSpace, slot: int) -> tuple[int, ...]:
    """The axes from input `slot` or the attribute, () where neither is given. Raises Unfollowed where they are
    computed.
    """
    if node.input(slot):
        found = space.ints(node, slot)
        if found is None:
            raise Unfollowed(f"the axes of '{node.name}' ({node.op}) are computed")
        return tuple(found)
    return node.ints("axes", ())
