"""What a network costs: multiply-adds and parameters.

A multiply-add (MAdd, MAC) is one multiplication and one addition of a convolution or matrix product; biases, normalisation and activations
count nothing. Parameters are what training changes: weights, biases, scales; running statistics of a BatchNormalization are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from passes.identities import Identities
from passes.shapes import Shape, Shapes
from passes.view import Node, View

Sizes = Mapping[str, Shape]


@dataclass(frozen=True)
class Cost:
    """Multiply-adds for one input of the probe sizes (None where a free image size makes them unknown) and parameters."""

    macs: int | None
    params: int
    node_macs: Mapping[str, int]
    tensor_params: Mapping[str, int]


def cost(view: View, shapes: Shapes, identities: Identities) -> Cost:
    """The cost of the graph, by node and by parameter tensor."""
    node_macs = macs_of(view.nodes, shapes.shapes)
    tensor_params: dict[str, int] = {}
    carriers = {site.tensor for site in identities.sites.values()}
    for node in view.nodes:
        slots = PARAMETERS.get(node.op)
        for slot, name in enumerate(node.inputs):
            if name not in view.constants or not _is_float(view, name):
                continue
            if (slots is not None and slot in slots) or (slots is None and name in carriers):
                tensor_params[name] = int(np.prod(shapes.shapes[name], dtype=np.int64))
    macs = None if shapes.free_space else sum(node_macs.values())
    return Cost(macs, sum(tensor_params.values()), node_macs, tensor_params)


def macs_of(nodes: Iterable[Node], shapes: Sizes) -> dict[str, int]:
    """Node → multiply-adds, for the nodes that have any and whose sizes are known."""
    return {node.name: MACS[node.op](node, shapes) for node in nodes if node.op in MACS and _known(node, shapes)}


def _known(node: Node, shapes: Sizes) -> bool:
    return all(name in shapes for name in (*node.inputs[:2], node.outputs[0]))


def _is_float(view: View, name: str) -> bool:
    dtype = view.constants[name].dtype
    return isinstance(dtype, int) or np.dtype(dtype).kind == "f"


def _size(shapes: Sizes, name: str) -> int:
    return int(np.prod(shapes[name], dtype=np.int64))


def _convolution(node: Node, shapes: Sizes) -> int:
    """Every output element sums C_in/g · kernel products: out · weight[1:]."""
    return _size(shapes, node.outputs[0]) * int(np.prod(shapes[node.inputs[1]][1:], dtype=np.int64))


def _transposed_convolution(node: Node, shapes: Sizes) -> int:
    """Every input element is spread over C_out/g · kernel outputs: in · weight[1:]."""
    return _size(shapes, node.inputs[0]) * int(np.prod(shapes[node.inputs[1]][1:], dtype=np.int64))


def _gemm(node: Node, shapes: Sizes) -> int:
    """[M,K]·[K,N]: M·K·N."""
    k = shapes[node.inputs[0]][0 if node.int("transA", 0) else 1]
    return _size(shapes, node.outputs[0]) * k


def _matmul(node: Node, shapes: Sizes) -> int:
    """[…,M,K]·[…,K,N]: out · K."""
    return _size(shapes, node.outputs[0]) * shapes[node.inputs[0]][-1]


MACS: Mapping[str, Callable[[Node, Sizes], int]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
"""op → multiply-adds; what is not listed counts nothing."""

PARAMETERS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "RMSNormalization": (1,),
    "PRelu": (1,),
    "Clip": (),
    "Resize": (),
    "Pad": (),
}
"""op → input slots that hold parameters; elsewhere a constant with one entry per channel is one."""
