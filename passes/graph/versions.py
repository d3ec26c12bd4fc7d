"""Where versions of the standard, or the standard and its runtimes, differ in what a node means."""

from __future__ import annotations

from collections.abc import Sequence

from passes.errors import RefusedModel
from passes.graph.operators import ALIGNED
from passes.graph.tensors import Shape
from passes.graph.view import Node


def require_broadcast(node: Node, shapes: Sequence[Shape | None]) -> None:
    """The operands broadcast as from version 7 on: from their last axes. Raises RefusedModel for a node of an older one
    that differs.
    """
    if len(shapes) < 2 or shapes[0] is None or shapes[1] is None or all(size == 1 for size in shapes[1]):
        return
    rank, other = len(shapes[0]), len(shapes[1])
    start = 1 if node.op == "PRelu" and other == 1 else node.int("axis", rank - other)
    if (node.op == "PRelu" or node.op in ALIGNED) and start % max(rank, 1) + other != rank:
        raise RefusedModel(
            f"node '{node.name}' ({node.op}) lays its second operand along axis {start}, as ONNX did before "
            "version 7; export the network "
            "again in a newer opset (ONNX's own converter leaves such a node wrong)"
        )


def pooled(node: Node, source: Shape, inferred: Shape) -> Shape:
    """The shape of a pooling: where sizes are rounded up, a window that would begin behind the input and its front pad
    is none.

    That is the rule of version 22 of the standard, and of torch and ONNX Runtime for all versions.
    """
    if not node.int("ceil_mode", 0) or node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", b"NOTSET"):
        return inferred
    axes = len(source) - 2
    pads, strides = node.ints("pads", [0] * (2 * axes)), node.ints("strides", [1] * axes)
    sizes = [
        count - ((count - 1) * stride >= size + front)
        for count, stride, size, front in zip(inferred[2:], strides, source[2:], pads[:axes], strict=True)
    ]
    return (*inferred[:2], *sizes)
