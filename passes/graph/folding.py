"""What is computed from constants or from static sizes alone becomes a constant."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from passes.errors import RefusedModel
from passes.graph.macs import macs_of
from passes.graph.operators import SIZES, having, of
from passes.graph.shapes import SMALL, constant_value, node_proto
from passes.graph.tensors import Shapes
from passes.graph.view import CORE_DOMAINS, Node, View, live
from passes.graph.work import Work


def constants_made_initializers(work: Work) -> int:
    """Constant nodes become initializers of their output's name."""
    if not work.has("Constant"):
        return 0
    values = {}
    for node in work.graph.nodes:
        if node.op == "Constant" and node.domain in CORE_DOMAINS:
            values[node.outputs[0].name] = constant_value(node)
    if values:
        work.replace_by_constants(values)
    return len(values)


def identities_of_weights_bypassed(work: Work) -> int:
    """A node that reads an initializer through Identity reads it directly."""
    if not work.has("Identity"):
        return 0
    source: dict[str, gs.Tensor] = {}
    outputs = {tensor.name for tensor in work.graph.outputs}
    nodes = {node.name: node for node in work.graph.nodes}
    for record in work.seen.nodes:
        node = nodes[record.name]
        if record.op == "Identity" and record.outputs[0] not in outputs:
            tensor = source.get(record.inputs[0], node.inputs[0])
            if isinstance(tensor, gs.Constant):
                source[record.outputs[0]] = tensor
    if source:
        for node in work.graph.nodes:
            for slot, tensor in enumerate(node.inputs):
                if tensor.name in source:
                    node.inputs[slot] = source[tensor.name]
        work.drop_unread()
    return len(source)


FOLD_BYTES = 1 << 30  # that all folded tensors of a graph may take together
FOLD_MACS = 1 << 33  # that a folded matrix product may take


FOLDED = having(lambda row: row.folds)
"""Operators that weights are made with, and whose evaluation takes no more time and memory than its result suggests."""


def constant_expressions_folded(work: Work) -> int:
    """What is computed from initializers alone (weight standardisation, a transposed or cast weight) becomes an
    initializer.
    """
    seen = work.seen
    found = _constant_expressions(seen)
    if not found:
        return 0
    shapes = work.shapes
    results = _worth_folding(found, seen, shapes)
    folded = live(found, results)
    _require_modest(folded, shapes)
    values: dict[str, np.ndarray] = {}
    for node in folded:
        known = shapes.values.get(node.outputs[0])
        if known is not None:
            values[node.outputs[0]] = known.array
        elif node.op == "CastLike":
            dtype = onnx.helper.tensor_dtype_to_np_dtype(shapes.types[node.inputs[1]])
            values[node.outputs[0]] = (
                values[node.inputs[0]] if node.inputs[0] in values else seen.values(node.inputs[0])
            ).astype(dtype)
        else:
            values.update(_evaluate(node, seen, values))
    if results:
        work.replace_by_constants({name: values[name] for name in results if name in values})
        work.drop_unread()
    return len(folded)


def _worth_folding(nodes: Sequence[Node], seen: View, shapes: Shapes) -> list[str]:
    """The results of these constant expressions that are to be initializers; of one larger than its sources, what it
    reads.
    """
    expressions = {name: node for node in nodes for name in node.outputs if name}
    names = {node.name for node in nodes}
    wanted = {name for node in seen.nodes if node.name not in names for name in node.inputs}
    results: list[str] = []
    for node in reversed(nodes):
        read = [name for name in node.outputs if name in wanted]
        if read and all(_is_worth_keeping(name, expressions, seen, shapes) for name in read):
            results += read
        elif read:
            wanted.update(node.inputs)
    return results


NUMBERS = 64  # elements that are a node's numbers (scales, pads, a position) rather than a tensor, whatever makes them


def _is_worth_keeping(name: str, expressions: Mapping[str, Node], seen: View, shapes: Shapes) -> bool:
    """Whether a computed constant is a layer's weight, or a few numbers, or no larger than the constants that it is
    made of.
    """
    shape = shapes.shapes.get(name)
    if shape is None or any(slot in of(seen.by_name[reader].op).weights for reader, slot in seen.readers.get(name, ())):
        return True  # an unknown size is refused by name when it comes to memory
    size = math.prod(shape)
    small = SMALL if _is_whole(shapes.types[name]) else NUMBERS
    if size <= small:
        return True
    waiting, met = [name], {name}
    while waiting and len(met) < MOST_SOURCES:
        node = expressions[waiting.pop()]
        for source in node.inputs:
            if source in met or not source:
                continue
            met.add(source)
            if source in expressions:
                waiting.append(source)
            elif source in seen.constants:
                size -= math.prod(shapes.shapes[source])
                if size <= 0:
                    return True
    return False


MOST_SOURCES = 4096  # tensors that are looked through for what a constant is made of


def _is_whole(kind: int) -> bool:
    """Whether it is an integer's or a truth value's type, as sizes and positions have."""
    return kind != onnx.TensorProto.STRING and np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).kind in "iub"


def _require_modest(nodes: Sequence[Node], shapes: Shapes) -> None:
    """Refuse before memory is taken."""
    total = 0
    for node in nodes:
        known = [name for name in node.outputs if name in shapes.shapes]
        total += sum(math.prod(shapes.shapes[name]) * _item_bytes(shapes.types[name]) for name in known)
        if not known or total > FOLD_BYTES or sum(macs_of([node], shapes.shapes).values()) > FOLD_MACS:
            raise RefusedModel(f"node '{node.name}' ({node.op}) computes a constant of unknown or enormous size")


def _item_bytes(kind: int) -> int:
    """Of an element in memory; a string's by estimate."""
    if kind in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return 128
    return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)


def _constant_expressions(seen: View) -> list[Node]:
    constant = set(seen.constants)
    found = []
    for node in seen.nodes:
        bound = [name for name in (node.inputs[:1] if node.op == "CastLike" else node.inputs) if name]
        if node.op not in FOLDED or not all(name in constant for name in bound) or not bound:
            continue
        if any(name in seen.outputs for name in node.outputs):
            continue
        constant.update(name for name in node.outputs if name)
        found.append(node)
    return found


def _evaluate(node: Node, seen: View, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    feeds = {name: values[name] if name in values else seen.values(name) for name in node.inputs if name}
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in seen.domains.items()]
    read = [name if name in seen.readers else "" for name in node.outputs]
    while read and not read[-1]:
        read.pop()  # what a training mode would return, and nobody reads
    node = replace(node, outputs=tuple(read))
    proto = node_proto(node)
    inputs = [
        onnx.helper.make_tensor_value_info(k, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for k, v in feeds.items()
    ]
    outputs = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in node.outputs if name]
    model = onnx.helper.make_model(onnx.helper.make_graph([proto], "fold", inputs, outputs), opset_imports=imports)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # the mean of nothing, say
            results = ReferenceEvaluator(model).run(None, feeds)
    except (
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        AssertionError,
        RuntimeWarning,
    ) as error:
        raise RefusedModel(
            f"node '{node.name}' ({node.op}) cannot be evaluated on its constant inputs: {error}"
        ) from error
    return {info.name: np.asarray(array) for info, array in zip(outputs, results, strict=True)}


def static_sizes_folded(work: Work) -> int:
    """Numbers that are computed from static sizes only become initializers."""
    seen = work.seen
    if not any(node.op in SIZES for node in seen.nodes):
        return 0
    shapes = work.shapes
    values = {
        name: value.array
        for name, value in shapes.values.items()
        if name not in seen.constants and not value.free.any() and name not in seen.outputs and _is_number(value.array)
    }
    if values:
        work.replace_by_constants(values)
        work.drop_unread()
    return len(values)


def _is_number(array: np.ndarray) -> bool:
    return array.size <= (SMALL if array.dtype.kind in "iub" else NUMBERS)
