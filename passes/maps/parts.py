"""What becomes of the parts that a Reshape cuts a map into.

[H] as [H/2, 2] may be any number of parts of two, or two parts of any size: the numbers in a file do not say which.
Where the 2 is joined to the channels later, as in a space to depth that is written out, it is the parts' size, since
channels do not follow the image.
"""

from __future__ import annotations

from collections.abc import Sequence

from passes.graph.tensors import Shape
from passes.graph.view import Node
from passes.maps.contents import Content, Side, before
from passes.maps.positions import MapSpace

SIDE, PART, PLAIN = "side", "part", "plain"
Numbered = tuple[int, str]  # how many positions, and of what: a side of the image, a part of one, or neither
MOVING = ("Reshape", "Transpose")


def are_of_channels(node: Node, space: MapSpace) -> bool:
    """The parts that the Reshape cuts end in an axis without a side, of a tensor that has as many axes as the map."""
    axes: list[list[Numbered]] | None = [_numbered(content) for content in space.axes(node.inputs[0])]
    rank = len(space.shape(node.inputs[0]))
    while True:
        axes = _moved(axes or [], node, space)
        if axes is None:
            return False
        name = node.outputs[0]
        readers = {reader for reader, _ in space.view.readers.get(name, ())}
        following = space.view.by_name[readers.pop()] if len(readers) == 1 and name not in space.view.outputs else None
        if following is None or following.op not in MOVING or following.inputs[0] != name:
            break
        node = following
    kinds = [{kind for _, kind in axis} for axis in axes]
    apart = not any({PART, SIDE} <= found for found in kinds)
    return apart and len(axes) == rank and any({PART, PLAIN} <= found for found in kinds)


def _numbered(content: Content) -> list[Numbered]:
    return [(before(factor), SIDE if isinstance(factor, Side) else PLAIN) for factor in content]


def _moved(axes: list[list[Numbered]], node: Node, space: MapSpace) -> list[list[Numbered]] | None:
    """The axes behind a Reshape or Transpose; None where it regroups them in another way."""
    if node.op == "Transpose":
        return [axes[axis] for axis in node.ints("perm", range(len(axes))[::-1])]
    return _regrouped([factor for axis in axes for factor in axis], space.shape(node.outputs[0]))


def _regrouped(factors: Sequence[Numbered], target: Shape) -> list[list[Numbered]] | None:
    """The factors dealt out to axes of these sizes, row-major; a side is cut into a count of parts, and a part."""
    queue = [factor for factor in factors if factor[0] != 1][::-1]
    result: list[list[Numbered]] = []
    for size in target:
        taken: list[Numbered] = []
        left = size
        while left > 1:
            if not queue:
                return None
            number, kind = queue.pop()
            if left % number == 0:
                taken.append((number, kind))
                left //= number
            elif number % left == 0:
                taken.append((left, kind))
                queue.append((number // left, PART if kind == SIDE else kind))
                left = 1
            else:
                return None
        result.append(taken)
    return None if queue else result
