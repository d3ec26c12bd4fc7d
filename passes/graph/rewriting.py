"""Operators written as what they do: a Split says its sizes, a Cast to the same type is none, a Reshape that turns is a
Transpose.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from passes.graph.view import CORE_DOMAINS, unique
from passes.graph.work import Work


def equal_splits_made_explicit(work: Work) -> int:
    """A Split without sizes gets them: its parts may not stay equal."""
    if not work.has("Split"):
        return 0
    named = [node for node in work.graph.nodes if node.op == "Split" and node.domain in CORE_DOMAINS]
    named = [node for node in named if len(node.inputs) < 2 and "split" not in node.attrs]
    if not named:
        return 0
    seen = work.seen
    shapes = work.shapes
    taken = set(seen.constants) | set(seen.producer) | set(seen.inputs)
    count = 0
    for node in named:
        known = [shapes.shapes.get(tensor.name) for tensor in node.outputs]
        source = shapes.shapes.get(node.inputs[0].name, ())
        axis = node.attrs.get("axis", 0) % max(len(source), 1)
        if not source or any(shape is None for shape in known) or (shapes.free_space and axis != 1):
            continue
        count += 1
        sizes = [shape[axis] for shape in known if shape is not None]
        if seen.opset < 13:
            node.attrs["split"] = sizes
            continue
        name = unique(f"{node.name}_sizes", taken.__contains__)
        taken.add(name)
        node.inputs.append(gs.Constant(name, np.array(sizes, np.int64)))
        node.attrs.pop("num_outputs", None)
    return count


def casts_to_their_own_type_bypassed(work: Work) -> int:
    """What is cast to the type that it has is read directly; another CastLike says its type."""
    seen = work.seen
    if not work.has("Cast", "CastLike"):
        return 0
    types = work.shapes.types
    nodes = {node.name: node for node in work.graph.nodes}
    outputs = set(seen.outputs)
    count = 0
    for record in seen.nodes:
        if record.op not in ("Cast", "CastLike"):
            continue
        node, source, made = nodes[record.name], record.inputs[0], record.outputs[0]
        if source in types and types[source] == types.get(made) and made not in outputs:
            for reader, slot in seen.readers.get(made, ()):
                nodes[reader].inputs[slot] = node.inputs[0]
                count += 1
        elif record.op == "CastLike" and made in types and seen.opset < 19:  # from then on it says how to saturate, too
            node.op, node.attrs, node.inputs = "Cast", {"to": types[made]}, [node.inputs[0]]
            count += 1
    if count:
        work.drop_unread()
    return count


TURNS = (((0, 3, 1, 2), 3), ((0, 2, 3, 1), 1))  # channels first, channels last; and which axis moves


def turned_images_transposed(work: Work) -> int:
    """A Reshape that moves an axis of one entry past the others of a map (grey images from channels last) is the
    Transpose it means.
    """
    if not work.has("Reshape"):
        return 0
    seen = work.seen
    named = [node for node in work.graph.nodes if node.op == "Reshape" and node.domain in CORE_DOMAINS]
    count = 0
    for node in named:
        before, after = (work.shapes.shapes.get(tensor.name, ()) for tensor in (node.inputs[0], node.outputs[0]))
        found = [
            perm
            for perm, moved in TURNS
            if len(before) == 4 and before[moved] == 1 and tuple(before[axis] for axis in perm) == after
        ]
        if not found or before[1:].count(1) != 1 or node.inputs[0].name in seen.constants or work.shapes.free_space:
            continue
        perm = found[0]
        node.op, node.attrs, node.inputs = "Transpose", {"perm": list(perm)}, [node.inputs[0]]
        count += 1
    if count:
        work.drop_unread()
    return count
