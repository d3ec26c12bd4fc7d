"""A target's graph says the sizes that its plan says, and comes to them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_graphsurgeon as gs

from passes.errors import RefusedModel
from passes.graph.shapes import infer
from passes.graph.tensors import Shape
from passes.graph.view import view

Declared = tuple[int | str | None, ...]
Sizes = Mapping[int, int | str | None]  # of some axes


def declare(graph: gs.Graph, declared: Mapping[str, Sizes], planned: Mapping[str, Shape]) -> None:
    """Inputs and outputs say the sizes they have; what an output leaves open stays open."""
    for tensor in graph.inputs:
        sizes = declared.get(tensor.name, {})
        if sizes:
            shape = [None] * len(planned[tensor.name]) if tensor.shape is None else tensor.shape
            tensor.shape = [sizes.get(axis, size) for axis, size in enumerate(shape)]
    for tensor in graph.outputs:
        sizes = declared.get(tensor.name, {})
        if sizes and tensor.shape is not None:
            tensor.shape = [
                sizes.get(axis, size) if isinstance(size, int) else size for axis, size in enumerate(tensor.shape)
            ]


def require_shapes(graph: gs.Graph, planned: Mapping[str, Shape]) -> None:
    """Every tensor has the shape that is planned. Raises RefusedModel where one that the graph computes does not follow
    its channels.
    """
    sizes = {tensor.name: planned[tensor.name] for tensor in graph.inputs if tensor.name in planned}
    found = infer(view(graph), sizes or None).shapes
    for name, shape in planned.items():
        actual = found.get(name)
        if actual is not None and actual != shape:
            shapes = f"shape {list(actual)} instead of {list(shape)}"
            raise RefusedModel(
                f"tensor '{name}' would have {shapes}: a size the graph computes does not follow its channels"
            )


def said_anew(shape: Declared | None, sizes: Sizes) -> Declared | None:
    """A declared shape where some axes say other sizes."""
    return None if shape is None else tuple(sizes.get(axis, size) for axis, size in enumerate(shape))
