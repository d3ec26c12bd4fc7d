"""A network from some of its tensors to others: what lies between them, with the names that it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from passes.errors import RefusedModel, UserError
from passes.graph.shapes import infer
from passes.graph.tensors import Shape, Shapes
from passes.graph.view import Node, View, build, unique, view
from passes.nearest import nearest

Declared = tuple[int | str | None, ...]  # of a free axis the name, or None


def section(
    graph: gs.Graph,
    outputs: Sequence[str] = (),
    inputs: Sequence[str] = (),
    *,
    sizes: Mapping[str, Shape] | None = None,
) -> gs.Graph:
    """The network that makes the outputs of the inputs; nothing said of one of them: those of the graph, of inputs the
    ones that are read.

    A number that is known without the data and computed outside is a constant inside. New inputs and outputs have their
    types and sizes; an axis that follows a free one of the graph's own inputs is free. Arrays are shared, the graph
    given is not changed. Raises UserError for tensors that are not there or do not depend on each other, RefusedModel
    where the type of an end or the size of an input is not known.
    """
    seen = view(graph)
    shapes = infer(seen, sizes)
    wanted = tuple(dict.fromkeys(outputs)) or seen.outputs
    _require_tensors(outputs, inputs, seen)
    if both := set(wanted) & set(inputs):
        raise UserError(f"'{min(both)}' cannot be both where the network begins and where it ends")
    between = _between(seen, shapes, wanted, tuple(dict.fromkeys(inputs)))
    numbers = {name: _number(name, shapes) for name in between.numbers}
    result = build(between.nodes, {**seen.constants, **numbers}, graph)
    tensors = {tensor.name: tensor for node in result.nodes for tensor in (*node.inputs, *node.outputs) if tensor.name}
    tensors = {tensor.name: tensor for tensor in (*result.inputs, *result.outputs)} | tensors
    _keep_sizes(graph, tensors)
    ends = [name for name in (*between.inputs, *wanted) if name not in seen.inputs and name not in seen.outputs]
    _declare([tensors[name] for name in ends if name not in seen.constants], seen, shapes)
    result.inputs, result.outputs = [tensors[name] for name in between.inputs], [tensors[name] for name in wanted]
    for name in between.inputs:
        if tensors[name].shape is None:
            raise RefusedModel(f"the size of tensor '{name}' is not known, so no network can begin there")
    return result


def _require_tensors(outputs: Sequence[str], inputs: Sequence[str], seen: View) -> None:
    known = [*seen.inputs, *seen.producer]
    for name in (*outputs, *inputs):
        if name in seen.constants:
            raise UserError(f"'{name}' holds weights; a network begins and ends at what it computes")
        if name not in seen.producer and name not in seen.inputs:
            near = nearest(name, known)
            raise UserError(f"'{name}' is no tensor of this model" + (f"; did you mean '{near}'?" if near else ""))
    for name in outputs:
        if name in seen.inputs and name not in seen.outputs:
            raise UserError(f"'{name}' is an input of the model: a network that ends there computes nothing")


@dataclass(frozen=True)
class _Between:
    """The nodes between two cuts, the inputs that they read, and the tensors outside whose numbers are known."""

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    numbers: tuple[str, ...]


def _between(seen: View, shapes: Shapes, outputs: Sequence[str], inputs: Sequence[str]) -> _Between:
    """Raises UserError where an output needs what is not among the inputs, or an input is read by nothing."""
    ends = set(inputs) or {name for name in seen.inputs if name not in seen.constants}
    needed = {name for name in outputs if name not in ends}
    read, numbers, nodes = set(outputs) & ends, list[str](), list[Node]()
    taken = {*seen.producer, *seen.inputs, *seen.constants}
    for node in reversed(seen.nodes):
        if needed.isdisjoint(node.outputs):
            continue
        outside = {name: unique(name, taken.__contains__) for name in node.outputs if name in ends}
        nodes.append(replace(node, outputs=tuple(outside.get(name, name) for name in node.outputs)))
        for name in filter(None, node.inputs):
            if name in ends:
                read.add(name)
            elif name not in seen.constants and name not in needed:
                if inputs and _is_known(name, shapes):
                    numbers.append(name)
                else:
                    needed.add(name)
    for name in inputs:
        if name not in read:
            raise UserError(
                f"no output that is kept comes from '{name}': leave it out of the inputs, or name outputs behind it"
            )
    for name in seen.inputs:
        if name in needed:
            _refuse_input(name, inputs, seen)
    if not read:
        raise UserError(f"'{outputs[0]}' comes from no input of the model: there is nothing to run")
    order = inputs or [name for name in seen.inputs if name in read]
    return _Between(tuple(reversed(nodes)), tuple(order), tuple(numbers))


def _is_known(name: str, shapes: Shapes) -> bool:
    """Whether its numbers are the same whatever the data and the free sizes are."""
    return name in shapes.values and not shapes.values[name].free.any()


def _refuse_input(name: str, inputs: Sequence[str], seen: View) -> None:
    """Raises UserError: an input of the whole reaches an output beside the new inputs."""
    known, ahead = {name}, []
    for node in seen.nodes:
        if not known.isdisjoint(node.inputs) and known.isdisjoint(inputs):
            known.update(found for found in node.outputs if found not in inputs)
            ahead.append(node.name)
    beside = (
        f"also needs the input '{name}', by a way beside {', '.join(map(repr, inputs))} that begins at node "
        f"'{ahead[0]}'"
    )
    raise UserError(f"what is kept {beside}: name that input too, or a tensor on that way")


def _number(name: str, shapes: Shapes) -> gs.Constant:
    kind = onnx.helper.tensor_dtype_to_np_dtype(shapes.types[name])
    return gs.Constant(name, np.asarray(shapes.values[name].array).astype(kind))


def _keep_sizes(graph: gs.Graph, tensors: Mapping[str, gs.Tensor]) -> None:
    """What the graph says of the sizes inside it, these tensors say too."""
    for node in graph.nodes:
        for tensor in node.outputs:
            if tensor.name in tensors and tensor.shape is not None and isinstance(tensors[tensor.name], gs.Variable):
                tensors[tensor.name].shape = tensor.shape


def _declare(tensors: Sequence[gs.Tensor], seen: View, shapes: Shapes) -> None:
    """The tensors have their types and sizes. Raises RefusedModel where a type is not known."""
    for tensor in tensors:
        if tensor.name not in shapes.types:
            raise RefusedModel(f"the type of '{tensor.name}' is not known, so it can be no input or output")
    found = declared(seen, shapes, [tensor.name for tensor in tensors]) if tensors else {}
    for tensor in tensors:
        tensor.dtype = onnx.helper.tensor_dtype_to_np_dtype(shapes.types[tensor.name])
        if found[tensor.name] is not None:
            tensor.shape = found[tensor.name]


def declared(seen: View, shapes: Shapes, tensors: Iterable[str]) -> dict[str, Declared | None]:
    """The sizes of tensors as a file says them: a number, or of an axis that follows a free one of an input that one's
    name or None.

    None for a tensor whose size is not known. Which axes follow is seen by doubling every free size in turn; where the
    network does not run then, no axis of its tensors is taken for fixed.
    """
    names = tuple(tensors)
    rows: dict[str, list[int | str | None] | None] = {
        name: list(shapes.shapes[name]) if name in shapes.shapes else None for name in names
    }
    for symbol, places in _free(seen).items():
        base = {name: shapes.shapes[name] for name in seen.inputs if name not in seen.constants}
        doubled = {
            name: tuple(2 * size if (name, axis) in places else size for axis, size in enumerate(base[name]))
            for name in base
        }
        name, axis = places[0]
        size = base[name][axis]
        try:
            other = infer(seen, doubled).shapes
        except RefusedModel:
            other = {}
        for tensor, row in rows.items():
            if row is not None:
                _follow(row, shapes.shapes[tensor], other.get(tensor), (symbol, size))
    return {name: None if row is None else tuple(row) for name, row in rows.items()}


def _free(seen: View) -> dict[str | tuple[str, int], list[tuple[str, int]]]:
    """The free axes of the inputs by their names, those without one each alone."""
    found: dict[str | tuple[str, int], list[tuple[str, int]]] = {}
    for name, (shape, _) in seen.inputs.items():
        if name in seen.constants:
            continue
        for axis, size in enumerate(shape or ()):
            if not (isinstance(size, int) and size >= 0):
                found.setdefault(size if isinstance(size, str) else (name, axis), []).append((name, axis))
    return found


def _follow(
    row: list[int | str | None], before: Shape, after: Shape | None, free: tuple[str | tuple[str, int], int]
) -> None:
    """The axes of row that another size of a free axis changes are free, by its name where they are as long."""
    symbol, size = free
    for axis, extent in enumerate(before):
        grown = None if after is None or len(after) != len(before) else after[axis]
        if grown == extent:
            continue
        same = (extent, grown) == (size, 2 * size) and isinstance(row[axis], int)
        row[axis] = symbol if same and isinstance(symbol, str) else None
