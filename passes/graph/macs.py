"""Multiply-adds, one row per operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from passes.graph.operators import of, of_form
from passes.graph.tensors import Shape
from passes.graph.view import Node

Sizes = Mapping[str, Shape]


def macs_of(nodes: Iterable[Node], shapes: Sizes) -> dict[str, int]:
    """Node → multiply-adds, for the nodes that have any and whose sizes are known."""
    return {node.name: MACS[node.op](node, shapes) for node in nodes if node.op in MACS and is_known(node, shapes)}


def is_known(node: Node, shapes: Sizes) -> bool:
    """Whether the sizes of what node reads and makes are known."""
    return all(name in shapes for name in (*node.inputs, node.outputs[0]) if name)


def bias_adds(node: Node, shapes: Sizes) -> int:
    """The additions of a convolution's bias, one per output element; 0 for all other nodes.

    With them a count is that of FNA's released code (JaminFong/FNA, fna_det/tools/multadds_count.py), which leaves out
    the bias of a fully connected layer.
    """
    row = of(node.op)
    slot = None if row.form == "product" else row.bias
    return 0 if slot is None or not node.input(slot) or not is_known(node, shapes) else _size(shapes, node.outputs[0])


def _size(shapes: Sizes, name: str) -> int:
    return math.prod(shapes[name])


def _convolution(node: Node, shapes: Sizes) -> int:
    """Every output element sums C_in/g · kernel products: out · weight[1:]."""
    weight = node.inputs[of(node.op).dense[-1]]
    return _size(shapes, node.outputs[0]) * math.prod(shapes[weight][1:])


def _transposed_convolution(node: Node, shapes: Sizes) -> int:
    """Every input element is spread over C_out/g · kernel outputs: in · weight[1:]."""
    return _size(shapes, node.inputs[0]) * math.prod(shapes[node.inputs[1]][1:])


def _gemm(node: Node, shapes: Sizes) -> int:
    """[M,K]·[K,N]: M·K·N."""
    k = shapes[node.inputs[0]][0 if node.int("transA", 0) else 1]
    return _size(shapes, node.outputs[0]) * k


def _matmul(node: Node, shapes: Sizes) -> int:
    """[…,M,K]·[…,K,N]: out · K."""
    return _size(shapes, node.outputs[0]) * shapes[node.inputs[0]][-1]


def _attention(node: Node, shapes: Sizes) -> int:
    """softmax(Q·Kᵀ)·V over S positions: S · (Q + out)."""
    # with those of the past
    positions = shapes[node.inputs[1]][-2] + (shapes[node.inputs[4]][-2] if node.input(4) else 0)
    return positions * (_size(shapes, node.inputs[0]) + _size(shapes, node.outputs[0]))


def _einsum(node: Node, shapes: Sizes) -> int:
    """Two operands at a time, from the left: the product of all their axes where an axis is summed over, else
    nothing.
    """
    terms, result = _subscripts(node, shapes)
    sizes = {
        label: size
        for term, name in zip(terms, node.inputs, strict=True)
        for label, size in zip(term, shapes[name], strict=True)
    }
    total, left = 0, terms[0]
    for k, right in enumerate(terms[1:], 2):
        wanted = set(result).union(*terms[k:])
        both = dict.fromkeys((*left, *right))
        left = tuple(label for label in both if label in wanted)
        if len(left) < len(both):
            total += math.prod(sizes[label] for label in both)
    return total


def _subscripts(node: Node, shapes: Sizes) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """The labels of every operand's axes and of the result's; those that '...' stands for are counted from the
    right.
    """
    left, arrow, right = str(node.attrs["equation"]).replace(" ", "").partition("->")
    terms = []
    for text, name in zip(left.split(","), node.inputs, strict=True):
        before, dots, after = text.partition("...")
        free = len(shapes[name]) - len(before) - len(after) if dots else 0
        terms.append((*before, *(f".{k}" for k in reversed(range(free))), *after))
    named = [label for term in terms for label in term]
    dotted = sorted((label for label in set(named) if label.startswith(".")), reverse=True)
    if not arrow:
        return terms, (*dotted, *(label for label in sorted(set(named)) if named.count(label) == 1))
    before, dots, after = right.partition("...")
    return terms, (*before, *(dotted if dots else ()), *after)


MACS: Mapping[str, Callable[[Node, Sizes], int]] = {
    **dict.fromkeys(of_form("convolution"), _convolution),
    **dict.fromkeys(of_form("transposed convolution"), _transposed_convolution),
    "DeformConv": _convolution,
    "ConvInteger": _convolution,
    "QLinearConv": _convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Einsum": _einsum,
    "Attention": _attention,
}
"""op → multiply-adds; what is not listed counts nothing."""

UNCOUNTED = of_form("recurrent")
"""Operators of ONNX that multiply matrices and have no row above; those of other domains are unknown as well."""
