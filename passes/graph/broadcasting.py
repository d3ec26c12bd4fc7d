"""An operator that broadcasts by itself reads its operands as they were before they were broadcast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from passes.graph.operators import NARY, having
from passes.graph.shapes import infer
from passes.graph.tensors import Shapes
from passes.graph.view import Node, View, unique
from passes.graph.work import Work

BROADCASTS = having(lambda row: row.repeats)


def operands_left_to_broadcast(work: Work) -> int:
    """An operator that broadcasts by itself reads an operand as it was before Expand or Tile, or a constant of a shape
    as one number.
    """
    wide = _broadcasts(work.seen)
    if not wide or work.shapes.free_space:
        return 0  # an operand of the probe's size may be broadcast at another
    return _leave_to_broadcast(work, work.shapes, wide)


def written_operands_left_to_broadcast(work: Work) -> int:
    """The same as with sizes that are known, of what is broadcast to sizes that are written: at others it would stay as
    it is, and fail.
    """
    written = [node for node in _broadcasts(work.seen) if _is_written(node, work.seen)]
    return _leave_to_broadcast(work, infer(work.seen, work.sizes), written) if written else 0


def _is_written(node: Node, seen: View) -> bool:
    return all(name in seen.constants for name in (node.inputs if node.op == "ConstantOfShape" else node.inputs[1:]))


def _broadcasts(seen: View) -> list[Node]:
    """The nodes that do nothing but broadcast, where no output of the graph is theirs."""
    return [node for node in seen.nodes if node.op in BROADCASTS and node.outputs[0] not in seen.outputs]


def _leave_to_broadcast(work: Work, shapes: Shapes, wide: Sequence[Node]) -> int:
    """Who reads the result of these nodes reads what they broadcast, where that makes no difference; the number of
    these places.
    """
    seen = work.seen
    nodes = {node.name: node for node in work.graph.nodes}
    taken = set(seen.constants) | set(seen.producer) | set(seen.inputs)
    read = dict(shapes.shapes)  # (a reader's slot, as a name) → the shape it reads now
    count = 0
    for node in wide:
        narrow = _narrow(node, nodes[node.name], shapes)
        if narrow is None:
            continue
        shape, tensor = narrow
        if node.op == "ConstantOfShape":
            tensor.name = unique(f"{node.name}_value", taken.__contains__)
            taken.add(tensor.name)
        for reader, slot in seen.readers.get(node.outputs[0], ()):
            own = f"{reader}\0{slot}"
            if _broadcasts_to_the_same(seen.by_name[reader], slot, shape, read):
                nodes[reader].inputs[slot] = tensor
                read[own] = shape
                count += 1
    if count:
        work.drop_unread()
    return count


def _narrow(node: Node, made: gs.Node, shapes: Shapes) -> tuple[tuple[int, ...], gs.Tensor] | None:
    """What the node broadcasts, and its shape; None where its sizes are not known or it repeats more than one entry."""
    wide = shapes.shapes.get(node.outputs[0])
    if wide is None:
        return None
    if node.op == "ConstantOfShape":
        value = node.attrs.get("value")
        array = np.zeros(1, np.float32) if value is None else np.asarray(value.values)
        return (1,) * len(wide), gs.Constant(node.outputs[0], array.reshape((1,) * len(wide)))
    shape = shapes.shapes.get(node.inputs[0])
    if shape is None or any(size not in (1, full) for size, full in zip(shape[::-1], wide[::-1], strict=False)):
        return None
    return shape, made.inputs[0]


def _broadcasts_to_the_same(node: Node, slot: int, shape: tuple[int, ...], read: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the result keeps its shape if the operand has this one."""
    if node.op not in NARY or (node.op == "PRelu" and slot != 1):
        return False
    operands = [
        shape if k == slot else read.get(f"{node.name}\0{k}", read.get(name)) for k, name in enumerate(node.inputs)
    ]
    known = [operand for operand in operands if operand is not None]
    return len(known) == len(operands) and np.broadcast_shapes(*known) == read.get(node.outputs[0])
