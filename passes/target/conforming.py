"""A target's graph says the sizes that its plan says, and comes to them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_graphsurgeon as gs

from passes.errors import RefusedModel
from passes.graph.shapes import infer
from passes.graph.view import view
from passes.target.plan import Plan


def declare(graph: gs.Graph, plan: Plan) -> None:
    """Inputs and outputs say the sizes they have; what an output leaves open stays open."""
    for tensor in graph.inputs:
        sizes = plan.declared.get(tensor.name, {})
        if sizes:
            shape = [None] * len(plan.sizes[tensor.name]) if tensor.shape is None else tensor.shape
            tensor.shape = [sizes.get(axis, size) for axis, size in enumerate(shape)]
    for tensor in graph.outputs:
        sizes = plan.declared.get(tensor.name, {})
        if sizes and tensor.shape is not None:
            tensor.shape = [sizes.get(axis, size) if isinstance(size, int) else size for axis, size in enumerate(tensor.shape)]


def require_shapes(graph: gs.Graph, plan: Plan) -> None:
    """Every tensor has the shape that is planned. Raises RefusedModel where one that the graph computes does not follow its channels."""
    sizes = {t.name: plan.sizes[t.name] for t in graph.inputs if t.name in plan.sizes}
    found = infer(view(graph), sizes or None).shapes
    for name, shape in plan.sizes.items():
        actual = found.get(name)
        if actual is not None and actual != shape:
            shapes = f"shape {list(actual)} instead of {list(shape)}"
            raise RefusedModel(f"tensor '{name}' would have {shapes}: a size the graph computes does not follow its channels")


Declared = tuple[int | str | None, ...]


def said_anew(shape: Declared | None, sizes: Mapping[int, int | str | None]) -> Declared | None:
    """A declared shape where some axes say other sizes."""
    return None if shape is None else tuple(sizes.get(axis, size) for axis, size in enumerate(shape))
