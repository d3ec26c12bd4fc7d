"""A graph that declares a free batch, but holds sizes for one sample, made to take any number of them.

Exporters write the batch they saw into Reshape, Resize and Expand, and join constants of one sample to the data. What
becomes of them is as for any other batch (see `passes.batch.rebatched`); a graph in which that cannot be stays as it
is.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from passes.batch.contents import Mixed
from passes.batch.rebatched import with_samples
from passes.errors import RefusedModel
from passes.graph.shapes import infer
from passes.graph.tensors import Shapes
from passes.graph.view import View, view


def freed(graph: gs.Graph) -> gs.Graph:
    """The graph for any number of samples, where it declares that; the same object where nothing had to be changed, or
    none would help.
    """
    seen = view(graph)
    free = [name for name, (shape, _) in seen.inputs.items() if name not in seen.constants and _is_free(shape)]
    if not free:
        return graph
    try:
        once = infer(seen)
        if _takes_two(seen, once, free):
            return graph
        made = with_samples(graph, once, None)
    except (RefusedModel, Mixed):
        return graph
    return made if _takes_two(view(made), once, free) else graph


def _is_free(shape: Sequence[int | str | None] | None) -> bool:
    return shape is not None and len(shape) > 2 and not isinstance(shape[0], int)


def _takes_two(seen: View, once: Shapes, free: Sequence[str]) -> bool:
    """Whether two samples go through by ONNX's rules, and every output with one sample in front then has two."""
    try:
        twice = infer(seen, {name: (2, *once.shapes[name][1:]) for name in free})
    except RefusedModel:
        return False
    shapes = [(once.shapes.get(name), twice.shapes.get(name)) for name in seen.outputs]
    return all(two is None or one is None or one[:1] != (1,) or two[0] == 2 for one, two in shapes)
