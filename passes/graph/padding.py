"""Padding is written as pads: what `auto_pad` stands for, and zeros that are joined to a tensor."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from passes.graph.operators import SLIDING
from passes.graph.tensors import Shapes
from passes.graph.view import CORE_DOMAINS, View, unique
from passes.graph.work import Work

PADDED = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16})


def joined_zeros_made_pads(work: Work) -> int:
    """A Concat of one tensor with zeros is a Pad with them."""
    seen = work.seen
    if not work.has("Concat"):
        return 0
    joins = [
        node
        for node in work.graph.nodes
        if node.op == "Concat" and node.domain in CORE_DOMAINS and len(node.inputs) > 1
    ]
    if not joins or seen.opset < 2:
        return 0
    shapes = work.shapes
    taken = set(seen.constants) | set(seen.producer) | set(seen.inputs)
    count = 0
    for node in joins:
        kept = [k for k, tensor in enumerate(node.inputs) if not _is_zeros(seen, tensor.name)]
        known = [shapes.shapes.get(tensor.name, ()) for tensor in node.inputs]
        kind = shapes.types.get(node.outputs[0].name, 0)
        if len(kept) != 1 or kind not in PADDED or any(len(shape) < 3 for shape in known):
            continue
        axis, rank = node.attrs.get("axis", 1) % len(known[0]), len(known[0])
        pads = np.zeros(2 * rank, np.int64)
        pads[axis] = sum(shape[axis] for shape in known[: kept[0]])
        pads[rank + axis] = sum(shape[axis] for shape in known[kept[0] + 1 :])
        name = unique(f"{node.name}_pads", taken.__contains__)
        taken.add(name)
        node.op = "Pad"
        node.inputs = [node.inputs[kept[0]]] + ([] if seen.opset < 11 else [gs.Constant(name, pads)])
        node.attrs = {"mode": "constant", **({"pads": pads.tolist()} if seen.opset < 11 else {})}
        count += 1
    if count:
        work.drop_unread()
    return count


def _is_zeros(seen: View, name: str) -> bool:
    """Whether the tensor is a constant of several zeros (no negative ones), or made of the number 0 by a shape."""
    if name in seen.producer:
        node = seen.by_name[seen.producer[name]]
        if node.op == "ConstantOfShape":
            value = node.attrs.get("value")
            return node.inputs[0] in seen.constants and (
                value is None or not np.asarray(value.values).tobytes().strip(b"\0")
            )
        return node.op in ("Expand", "Tile") and node.inputs[1] in seen.constants and _is_zeros(seen, node.inputs[0])
    constant = seen.constants.get(name)
    if constant is None or isinstance(constant.dtype, int) or np.dtype(constant.dtype).kind != "f":
        return False
    values = seen.values(name)
    return not values.any() and not np.signbit(values).any()


def auto_pads_made_explicit(work: Work) -> int:
    """SAME_UPPER, SAME_LOWER and VALID become the pads they stand for, where the sizes are static."""
    if all(node.attrs.get("auto_pad", "NOTSET") == "NOTSET" for node in work.seen.nodes):
        return 0
    named = [
        node
        for node in work.graph.nodes
        if node.attrs.get("auto_pad", "NOTSET") != "NOTSET" and node.domain in CORE_DOMAINS
    ]
    if not named:
        return 0
    shapes = work.shapes
    count = 0
    for node in named:
        if node.op not in SLIDING:
            continue
        pads = _explicit_pads(node, shapes)
        if pads is not None:
            del node.attrs["auto_pad"]
            node.attrs["pads"] = pads
            count += 1
    return count


def _explicit_pads(node: gs.Node, shapes: Shapes) -> list[int] | None:
    """ONNX's definition: SAME gives ceil(size / stride) positions; the odd one goes behind (UPPER) or before
    (LOWER).
    """
    shape = shapes.shapes.get(node.inputs[0].name)
    if shape is None:
        return None
    spatial = len(shape) - 2
    mode = node.attrs["auto_pad"]
    if mode == "VALID":
        return [0] * (2 * spatial)
    if shapes.free_space:
        return None
    kernel = list(node.attrs.get("kernel_shape") or shapes.shapes[node.inputs[1].name][2:])
    strides = list(node.attrs.get("strides", [1] * spatial))
    dilations = list(node.attrs.get("dilations", [1] * spatial))
    before, after = [], []
    for size, k, stride, dilation in zip(shape[2:], kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        small = total // 2
        before.append(small if mode == "SAME_UPPER" else total - small)
        after.append(total - small if mode == "SAME_UPPER" else small)
    return before + after
