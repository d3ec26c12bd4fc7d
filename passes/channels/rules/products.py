"""Rules of the matrix products."""

from __future__ import annotations

from collections.abc import Mapping

from passes.channels.axes import Flow, Label
from passes.channels.rules.shared import Labels, Rule, freeze, shape_of
from passes.graph.view import Node


def gemm(node: Node, flow: Flow) -> Labels:
    """Y = A·B + C with A [M,K], B [K,N], either transposed."""
    x = flow.label(node.inputs[0])
    if node.int("transA", 0) or not flow.constant(node.inputs[1]) or (x is not None and x.axis != 1):
        freeze(flow, x, f"'{node.name}' (Gemm) multiplies it in an order without a rule")
        freeze(flow, flow.label(node.inputs[1]), f"'{node.name}' (Gemm) uses it as a weight")
        return None
    transposed = node.int("transB", 0)
    ids = flow.creates(node, 1, 0 if transposed else 1)
    if x is not None:
        flow.consumes(node, 1, 1 if transposed else 0, x.ids)
    bias = node.input(2)
    if bias and shape_of(flow, bias)[-1:] == (ids.size,):
        if flow.constant(bias):
            flow.carries(node, 2, len(shape_of(flow, bias)) - 1, ids)
        else:
            flow.freeze(ids, f"the bias of '{node.name}' is computed, not an initializer")
    return Label(1, ids)


def matmul(node: Node, flow: Flow) -> Labels:
    """The last axis of A meets the last but one of B; a weight of more than two axes holds a matrix for each entry of
    the first ones.
    """
    a_name, b_name = node.inputs[:2]
    a, b = flow.label(a_name), flow.label(b_name)
    a_shape, b_shape = shape_of(flow, a_name), shape_of(flow, b_name)
    out_rank = len(shape_of(flow, node.outputs[0]))
    if flow.constant(b_name) and len(b_shape) >= 2:
        return _by_weight(node, flow, 1, a, out_rank=out_rank)
    if flow.constant(a_name) and len(a_shape) >= 2 and len(b_shape) >= 2:
        return _by_weight(node, flow, 0, b, out_rank=out_rank)
    return _product(node, flow, (a, b), out_rank)


def _by_weight(node: Node, flow: Flow, slot: int, x: Label | None, *, out_rank: int) -> Labels:
    """The weight at `slot` makes its columns of A, or its rows of B; channels on another axis pass, unless each has a
    matrix of its own.
    """
    rank = len(shape_of(flow, node.inputs[1 - slot]))
    weight = shape_of(flow, node.inputs[slot])
    read, made = (len(weight) - 2, len(weight) - 1) if slot else (len(weight) - 1, len(weight) - 2)
    if x is not None and x.axis != (rank - 1 if slot else rank - 2):
        from_end = x.axis - rank
        if from_end < -2 and -from_end <= len(weight) and weight[from_end] != 1:
            flow.freeze(x.ids, f"'{node.name}' (MatMul) has a matrix for each of them")
            return None
        return x.moved(from_end + out_rank)
    ids = flow.creates(node, slot, made)
    if x is not None:
        flow.consumes(node, slot, read, x.ids)
    return Label(out_rank - (1 if slot else 2), ids)


def _product(node: Node, flow: Flow, labels: tuple[Label | None, Label | None], out_rank: int) -> Labels:
    """Two activations: the summed axes are the same channels; into the result one side carries its own, that with more
    of them.
    """
    result: list[Label] = []
    summed: list[Label | None] = []
    for side, (label, name) in enumerate(zip(labels, node.inputs, strict=False)):
        rank = len(shape_of(flow, name))
        inner = rank - 1 if side == 0 or rank == 1 else rank - 2
        summed.append(label if label is not None and label.axis == inner else None)
        if label is not None and label.axis != inner:
            result.append(label.moved(label.axis + out_rank - rank))
    first, second = summed
    if first is not None and second is not None:
        flow.unite(first.ids, second.ids, f"'{node.name}' multiplies it with fixed channels")
        flow.drift(first.ids, f"'{node.name}' (MatMul) sums products over its channels")
    else:
        for label in summed:
            freeze(flow, label, f"'{node.name}' (MatMul) sums it against an axis that is fixed")
    if len(result) == 2 and result[0].axis == result[1].axis:
        flow.unite(result[0].ids, result[1].ids, f"'{node.name}' multiplies it with fixed channels")
    elif len(result) == 2:
        few, many = sorted(result, key=lambda label: label.ids.size)
        for label in (few,) if few.ids.size < many.ids.size else result:
            flow.freeze(label.ids, f"'{node.name}' (MatMul) makes a matrix of channels by channels")
        return many if few.ids.size < many.ids.size else None
    return result[0] if result else None


PRODUCTS: Mapping[str, Rule] = {"Gemm": gemm, "MatMul": matmul}
