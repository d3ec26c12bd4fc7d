"""Half precision: a model file whose weights and values are float16, by ONNX Runtime's own converter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from fnatool.runtime import isolate
from fnatool.runtime.native import first_line
from passes.errors import RefusedModel

SECONDS = 600.0
RAISED: tuple[type[Exception], ...] = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError)


def write_half(source: Path, target: Path, kept: Sequence[str] = ()) -> None:
    """The file at target is the model at source in float16, its inputs and outputs and the nodes of the names in `kept`
    as they are.

    Raises RefusedModel where the converter cannot do it.
    """
    try:
        said = isolate.run(_convert, source, target, tuple(kept), seconds=SECONDS, memory=16 * isolate.GIB)
    except isolate.Died as error:
        raise RefusedModel(f"the converter to float16 died on this model: {error}; deploy it in fp32") from error
    if said:
        raise RefusedModel(f"the converter to float16 cannot do this model: {said}; deploy it in fp32")


def _convert(source: Path, target: Path, kept: tuple[str, ...]) -> str:
    """In the child; returned is what went wrong."""
    model = onnx.load(source)
    constants = {tensor.name for tensor in model.graph.initializer}
    # old files list weights too, which would stay wide
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)
    _give_own_sizes(model.graph)
    try:
        made = convert_float_to_float16(model, keep_io_types=True, node_block_list=list(kept))
    except RAISED as error:
        return first_line(error)
    _write_casts_once(made.graph)
    onnx.save(made, target)
    return ""


def _give_own_sizes(graph: onnx.GraphProto) -> None:
    """What a Resize takes beside its data is its own: one constant in two places, of which one is wide, would go
    through a Cast, and its

    values are asked for before anything runs.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for number, node in enumerate(graph.node):
        for slot in range(1, len(node.input) if node.op_type == "Resize" else 0):
            if node.input[slot] in constants:
                own = graph.initializer.add()
                own.CopyFrom(constants[node.input[slot]])
                own.name = node.input[slot] = f"{own.name}.{number}.{slot}"


def _write_casts_once(graph: onnx.GraphProto) -> None:
    """The converter writes a Cast for every reader of a tensor that wants it wide, all of the same name: the first one
    does for all.
    """
    seen: set[str] = set()
    nodes = []
    for node in graph.node:
        if node.op_type == "Cast" and node.output[0] in seen:
            continue
        seen.update(node.output)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
