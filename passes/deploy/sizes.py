"""The sizes that a deployed graph is made for: its batch, a number or any, and whatever else its inputs leave open."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_graphsurgeon as gs

from passes.batch.freeing import freed
from passes.deploy.postprocessing import Axis
from passes.errors import RefusedModel, UserError
from passes.graph.shapes import infer
from passes.graph.tensors import Shape, printed
from passes.graph.view import View, build, live, view

BATCH = "batch"  # the name of a free one


def without_dead(graph: gs.Graph) -> gs.Graph:
    """The nodes and constants that the outputs need, and no others."""
    seen = view(graph)
    nodes = live(seen.nodes, seen.outputs)
    used = {*seen.outputs, *(name for node in nodes for name in node.inputs)}
    return build(nodes, {name: value for name, value in seen.constants.items() if name in used}, graph)


def sized(graph: gs.Graph, batch: Axis, sizes: Mapping[str, Shape]) -> gs.Graph:
    """The graph for so many samples (a name: any number), its inputs of these sizes beside that, and its outputs
    declared as they are then.

    sizes: of the inputs, with a batch of some number in front. Raises RefusedModel where the graph cannot have that
    batch, UserError where it has no axis for one.
    """
    seen = view(graph)
    names = [name for name in seen.inputs if name not in seen.constants]
    if all(sizes[name][:1] == (batch,) for name in names):
        return _declared(graph, {name: sizes[name] for name in names}, batch)
    flat = [name for name in names if len(sizes[name]) < 2]
    if flat:
        raise UserError(
            f"the input '{flat[0]}' is {printed(sizes[flat[0]]) or 'one number'}: it has no batch that could be "
            "set; leave it out"
        )
    own = {sizes[name][0] for name in names}
    if own != {1} and any(isinstance(seen.inputs[name][0][0], int) for name in names if seen.inputs[name][0]):  # type: ignore[index]
        raise RefusedModel(
            f"the inputs have a fixed batch of {' and '.join(map(str, sorted(own)))}; export the model with a "
            "free batch axis"
        )
    opened = freed(_declared(graph, {name: (BATCH, *sizes[name][1:]) for name in names}, None))
    _require_any_batch(view(opened), {name: sizes[name][1:] for name in names})
    return _declared(opened, {name: (batch, *sizes[name][1:]) for name in names}, batch)


def _require_any_batch(seen: View, rest: Mapping[str, Shape]) -> None:
    """Two and three samples go through by ONNX's rules, and come out in front. Raises RefusedModel."""
    found = [infer(seen, {name: (count, *shape) for name, shape in rest.items()}).shapes for count in (2, 3)]
    for name in seen.outputs:
        shapes = [shapes.get(name) for shapes in found]
        if any(shape is None or shape[:1] != (count,) for shape, count in zip(shapes, (2, 3), strict=True)):
            raise RefusedModel(
                f"with more than one sample the output '{name}' would not have them in front: sizes for one are "
                "written into the graph; "
                "export the model with a free batch axis"
            )


def _declared(graph: gs.Graph, shapes: Mapping[str, tuple[Axis, ...]], batch: Axis | None) -> gs.Graph:
    """A copy whose inputs are said to have these shapes, and, unless batch is None, its outputs what follows from
    them.
    """
    seen = view(graph)
    made = build(seen.nodes, seen.constants, graph)
    for tensor in made.inputs:
        if tensor.name in shapes:
            tensor.shape = list(shapes[tensor.name])
    if batch is None:
        return made
    counts = (batch, batch) if isinstance(batch, int) else (2, 3)
    found = [infer(view(made), {name: _at(shape, count) for name, shape in shapes.items()}).shapes for count in counts]
    for tensor in made.outputs:
        one, other = (shapes.get(tensor.name) for shapes in found)
        if one is not None and other is not None and tensor.name not in seen.constants:
            tensor.shape = [a if a == b else batch for a, b in zip(one, other, strict=True)]
    return made


def _at(shape: tuple[Axis, ...], count: int) -> Shape:
    """The shape with so many samples, where that is its first axis."""
    return tuple(count if not isinstance(axis, int) else axis for axis in shape)
