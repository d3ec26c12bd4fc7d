"""What a network costs: multiply-adds and parameters.

A multiply-add (MAdd, MAC) is one multiplication and one addition of a convolution or matrix product; biases,
normalisation and activations count nothing, nor does what is computed from weights alone: that is done once. Parameters
are what is learnt (learnt.py): weights, biases, scales, position embeddings; running statistics of a BatchNormalization
are not, nor are anchors, grids and masks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from passes.graph.learnt import learnt
from passes.graph.macs import macs_of
from passes.graph.tensors import Shapes
from passes.graph.view import View


@dataclass(frozen=True)
class Cost:
    """Multiply-adds for one input of the probe sizes (None where a free image size makes them unknown) and
    parameters.
    """

    macs: int | None
    params: int
    node_macs: Mapping[str, int]
    tensor_params: Mapping[str, int]


def cost(view: View, shapes: Shapes, parameters: Collection[str] | None = None) -> Cost:
    """The cost of the graph, by node and by parameter tensor; a tensor that several nodes read counts once.

    parameters: the constants that are learnt, where they are known already.
    """
    node_macs = macs_of(view.nodes, shapes.shapes)
    tensor_params = {
        name: math.prod(view.constants[name].shape) for name in (learnt(view) if parameters is None else parameters)
    }
    macs = None if shapes.free_space else sum(node_macs.values())
    return Cost(macs, sum(tensor_params.values()), node_macs, tensor_params)


def node_params(view: View, found: Cost) -> dict[str, int]:
    """Node → parameters; one that several nodes read belongs to the first of them."""
    params: dict[str, int] = {}
    for name, size in found.tensor_params.items():
        first = view.readers[name][0][0]
        params[first] = params.get(first, 0) + size
    return params
