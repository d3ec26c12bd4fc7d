"""The graph for another number of samples at once, each computed as it was.

The samples are followed from the inputs to the outputs; where a number in the file says how many there are (a Reshape,
a Resize, an Expand), it becomes another one, or where their number is to be free

    Reshape(x, [1, c, …])  becomes  Reshape(x, [0, c, …]): what x has there, or [-1, c, …],
    Resize(x, [1, c, …])   takes    Concat(Shape(input)[:1], [c, …]),

and what is the same for all samples is broadcast to them where an operator does not do that by itself. What adds,
compares or measures over the samples is refused, by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from passes.batch.contents import (
    SAMPLES,
    Axes,
    Mixed,
    any_samples,
    counts_samples,
    scaled,
    shape_at,
    size_at,
    without_samples,
)
from passes.batch.moving import MOVING
from passes.batch.rules import COMPUTING
from passes.batch.space import BatchSpace, Rule
from passes.errors import RefusedModel
from passes.graph.operators import SIZES
from passes.graph.shapes import ARITHMETIC, infer
from passes.graph.tensors import Shape, Shapes
from passes.graph.view import Node, View, build, linked, view

RULES_OF_SAMPLES: Mapping[str, Rule] = {**COMPUTING, **MOVING}
FREE_NAME = "N"  # how a free number of samples is called
TRIED = 3  # samples that a graph whose batch is to be free is tried with: no number that stands in it by chance


@dataclass(frozen=True)
class Rebatched:
    """A graph for other samples: its nodes in order, the constants that it has beside those it had, what its inputs and
    outputs count.

    `changes`: how many nodes are others; `shapes` with so many samples as it takes, with one where it takes any;
    `samples`: what the axes of every tensor count in which samples are, `before` how many there were.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, gs.Constant]
    changes: int
    shapes: Mapping[str, Shape]
    samples: Mapping[str, Axes]
    before: int


def batched_inputs(seen: View) -> tuple[str, ...]:
    """The inputs whose first axis counts samples: those that say there as much as the first one of three axes or more,
    or else of two.
    """
    known = {
        name: shape for name, (shape, _) in seen.inputs.items() if name not in seen.constants and shape is not None
    }
    likely = [shape for least in (3, 2) for shape in known.values() if len(shape) >= least]
    if not likely:
        return ()
    first = likely[0][0]
    return tuple(name for name, shape in known.items() if len(shape) > 1 and _alike(shape[0], first))


def _alike(a: int | str | None, b: int | str | None) -> bool:
    return a == b or (not isinstance(a, int) and not isinstance(b, int) and not (a and b))


def own_batch(seen: View) -> int | None:
    """How many samples the file says its inputs have; None where it leaves that open, or no input has an axis of
    samples.
    """
    inputs = batched_inputs(seen)
    shape = seen.inputs[inputs[0]][0] if inputs else None
    first = None if shape is None else shape[0]
    return first if isinstance(first, int) else None


def rebatched(seen: View, shapes: Shapes, batch: int | None) -> Rebatched:
    """The graph that takes so many samples, None: any number. Raises Mixed where there is none, naming the node."""
    inputs = batched_inputs(seen)
    if not inputs:
        raise Mixed("no input has an axis of samples")
    old = shapes.shapes[inputs[0]][0]
    space = BatchSpace(
        seen, shapes, old, TRIED * (old if old > 1 else 1) if batch is None else batch, inputs[0], batch is None
    )
    for name in inputs:
        space.axes[name] = ((SAMPLES,), *without_samples(shapes.shapes[name][1:]))
    for node in seen.nodes:
        _visit(space, node)
    for name in seen.outputs:
        _require_whole(space, name)
    declared = {
        name: (batch, *(shape or ())[1:]) if name in inputs else shape for name, (shape, _) in seen.inputs.items()
    }
    view = _linked(space, declared)
    _require_predicted(space, view)
    probed = space.new if batch is not None else 1
    found = infer(view, _sizes(space, probed)).shapes
    return Rebatched(tuple(space.nodes), space.constants, space.changes, found, dict(space.axes), old)


def _linked(space: BatchSpace, declared: Mapping[str, tuple[int | str | None, ...] | None]) -> View:
    seen = space.view
    made = linked(space.nodes, {**seen.constants, **space.constants}, seen)
    inputs = {name: (declared[name], kind) for name, (_, kind) in seen.inputs.items()}
    return View(**{**vars(made), "inputs": inputs})


def _sizes(space: BatchSpace, samples: int) -> dict[str, Shape]:
    """The shapes of the inputs with so many samples."""
    known = {
        name: space.shapes.shapes[name]
        for name in space.view.inputs
        if name in space.shapes.shapes and name not in space.view.constants
    }
    return {name: shape_at(space.axes[name], samples) if name in space.axes else shape for name, shape in known.items()}


def _visit(space: BatchSpace, node: Node) -> None:
    """The node follows, as it is to be, with what its outputs count."""
    reads = [name for name in node.inputs if name in space.axes]
    if node.op in SIZES:
        _count(space, node)
        space.write(node)
        return
    moved = any(name in space.after for name in node.inputs)
    if moved:
        _evaluate(space, node)
    if not reads and not (moved and node.outputs[0] not in space.shapes.values):
        space.write(node)
        _note_length(space, node)
        return
    rule = RULES_OF_SAMPLES.get(node.op)
    if rule is None:
        raise Mixed(f"what operator {node.op} ('{node.name}') does with samples is not known")
    made, outputs = rule(node, space)
    space.write(made)
    for name, axes in zip(node.outputs, outputs, strict=False):
        if name and any_samples(axes):
            space.axes[name] = axes


def _count(space: BatchSpace, node: Node) -> None:
    """A node that measures a tensor says how large it is then."""
    axes, known = space.axes.get(node.inputs[0]), space.shapes.values.get(node.outputs[0])
    if axes is None or known is None:
        return
    shape = np.array(shape_at(axes, space.new), np.int64)
    found = np.array(shape.prod()) if node.op == "Size" else shape[slice(node.int("start", 0), node.attrs.get("end"))]
    if not np.array_equal(found, known.array):
        space.after[node.outputs[0]] = found


def _evaluate(space: BatchSpace, node: Node) -> None:
    """Numbers made of numbers that are others then."""
    values = space.shapes.values
    if node.outputs[0] not in values or node.op not in ARITHMETIC:
        return
    inputs = [
        None if not name else space.after[name] if name in space.after else values[name].array for name in node.inputs
    ]
    try:
        found = np.asarray(ARITHMETIC[node.op](node, inputs, space.view.opset))
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise Mixed(f"'{node.name}' ({node.op}) cannot compute sizes for {space.new} samples: {error}") from error
    if not np.array_equal(found, values[node.outputs[0]].array):
        space.after[node.outputs[0]] = found


def _note_length(space: BatchSpace, node: Node) -> None:
    """Numbers of which there are more with more samples, as counted up to how many there are, are samples
    themselves.
    """
    for name in node.outputs:
        found = space.after.get(name)
        if found is not None and found.shape != space.shape(name):
            pairs = zip(space.shape(name), found.shape, strict=True)
            space.axes[name] = tuple(scaled(was, is_, (space.old, space.new)) for was, is_ in pairs)


def _require_whole(space: BatchSpace, name: str) -> None:
    """An output has every sample for itself. Raises Mixed."""
    found = [content for content in space.of(name) if counts_samples(content)] if name in space.axes else []
    if len(found) > 1 or any(content.count(SAMPLES) > 1 for content in found):
        raise Mixed(f"output '{name}' holds something for every pair of samples")
    if not found and name in _of_values(space):
        raise Mixed(f"output '{name}' is one for all samples")


def _of_values(space: BatchSpace) -> set[str]:
    """The tensors that follow from the values of inputs with samples."""
    found = set(batched_inputs(space.view))
    for node in space.view.nodes:
        if node.op not in SIZES and not found.isdisjoint(node.inputs):
            found.update(node.outputs)
    return found


def _require_predicted(space: BatchSpace, view: View) -> None:
    """The graph that was made has the sizes that it is to have. Raises Mixed, naming the first tensor that has not."""
    try:
        shapes = infer(view, _sizes(space, space.new)).shapes
    except RefusedModel as error:
        raise Mixed(str(error)) from error
    for node in space.view.nodes:
        for name in node.outputs:
            axes, actual = space.axes.get(name), shapes.get(name)
            known = space.shapes.shapes.get(name)
            if known is None or actual is None or name in space.after:
                continue
            wanted = known if axes is None else shape_at(axes, space.new)
            if actual != wanted:
                raise Mixed(
                    f"'{name}' would have the shape {list(actual)} with {space.new} samples, not {list(wanted)}"
                )


# --- of a graph ---------------------------------------------------------------------------------


def declared_sizes(
    made: Rebatched, names: Sequence[str], batch: int | None, symbol: str
) -> dict[str, dict[int, int | str | None]]:
    """What inputs and outputs say of the axes with samples: name → axis → size, or how a free one is called, None where
    by nothing.
    """
    found: dict[str, dict[int, int | str | None]] = {}
    for name in names:
        for axis, content in enumerate(made.samples.get(name, ())):
            if counts_samples(content):
                free = symbol if content == (SAMPLES,) else None
                found.setdefault(name, {})[axis] = free if batch is None else size_at(content, batch)
    return found


def symbol_for(graph: gs.Graph, inputs: Sequence[str]) -> str:
    """How the free number of samples is called: as it is already, or N, or what no other size is called."""
    said = [(tensor.name, tuple(tensor.shape or ())) for tensor in (*graph.inputs, *graph.outputs)]
    own = next(
        (shape[0] for name, shape in said if name in inputs and shape and isinstance(shape[0], str) and shape[0]), None
    )
    if own is not None:
        return str(own)
    taken = {size for _, shape in said for size in shape if isinstance(size, str)}
    return next(
        name
        for name in (FREE_NAME, "batch", "samples", *(f"samples_{k}" for k in range(2, 2 + len(taken))))
        if name not in taken
    )


def with_samples(graph: gs.Graph, shapes: Shapes, batch: int | None) -> gs.Graph:
    """A copy of the graph that takes so many samples, and says so. Raises Mixed where there is none."""
    seen = view(graph)
    made = rebatched(seen, shapes, batch)
    result = build(made.nodes, {**seen.constants, **made.constants}, graph)
    ends = [tensor.name for tensor in (*result.inputs, *result.outputs)]
    sizes = declared_sizes(made, ends, batch, symbol_for(graph, batched_inputs(seen)))
    for tensor in (*result.inputs, *result.outputs):
        if tensor.shape is not None and tensor.name in sizes:
            tensor.shape = [sizes[tensor.name].get(axis, size) for axis, size in enumerate(tensor.shape)]
    return result
