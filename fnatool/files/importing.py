"""A message's graph as the graph type has it: at once, or known as records until someone asks for objects."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx_graphsurgeon as gs
from onnx import AttributeProto
from onnx_graphsurgeon.importers.onnx_importer import OnnxImporter, get_onnx_tensor_dtype

from fnatool.files import tensors, wire
from fnatool.files.tensors import Array
from passes.errors import RefusedModel
from passes.graph.order import Order
from passes.graph.view import CORE_DOMAINS, Node, Recorded

READABLE = {getattr(AttributeProto, kind) for kind in ("FLOAT", "INT", "STRING", "TENSOR", "FLOATS", "INTS", "STRINGS")}
KNOWN_KINDS = ("tensor_type", "sequence_type")  # of values, to the graph type
NOWHERE = Path(os.devnull)  # an attribute has no external data any more: load has brought it in

Constants = Mapping[str, gs.Constant]


def import_graph(proto: onnx.ModelProto, arrays: Mapping[str, Array]) -> gs.Graph:
    """The graph of proto with arrays as its constants; it keeps nothing of proto alive. Other than READABLE attributes
    are lost.
    """
    graph = _imported(_lean(proto, arrays), _constants(arrays), proto.opset_import)
    for key in SAID:
        setattr(graph, key, getattr(proto, key))
    return graph


SAID = ("producer_name", "producer_version", "ir_version")
KEPT = ("name", "doc_string", "opset", "import_domains", *SAID)


def recorded_graph(proto: onnx.ModelProto, arrays: Mapping[str, Array], found: Order) -> gs.Graph:
    """The same in the order found, known as records until someone asks for objects. All attributes of proto are
    READABLE.
    """
    lean, constants, imports = _lean(proto, arrays), _constants(arrays), list(proto.opset_import)
    nodes = [_record(lean.node[index]) for index in found.nodes]
    shell = _imported(_shell(lean), constants, imports)
    ends = {tensor.name: tensor for tensor in (*shell.inputs, *shell.outputs)}
    said = {key: getattr(proto if key in SAID else shell, key) for key in KEPT}
    made = partial(_objects, lean, constants, imports, ends, found.nodes)
    types = {value.name: _element_type(value) for value in lean.value_info}
    return Recorded((nodes, constants), types, made, whole=False, inputs=shell.inputs, outputs=shell.outputs, **said)


def _constants(arrays: Mapping[str, Array]) -> dict[str, gs.Constant]:
    return {name: gs.Constant(name, array) for name, array in arrays.items()}


def _lean(proto: onnx.ModelProto, arrays: Mapping[str, Array]) -> onnx.GraphProto:
    """The graph of proto without what arrays holds."""
    lean = onnx.GraphProto()
    wire.copy_fields(proto.graph, lean, leave=("initializer", "input"))
    lean.input.extend(value for value in proto.graph.input if value.name not in arrays)
    for value in (*lean.input, *lean.output, *lean.value_info):
        if value.type.WhichOneof("value") not in KNOWN_KINDS:
            value.ClearField("type")  # of an optional, say; the envelope keeps it
    return lean


def _shell(lean: onnx.GraphProto) -> onnx.GraphProto:
    """The graph without nodes, and what is said of its inputs and outputs alone."""
    shell, names = onnx.GraphProto(), {value.name for value in (*lean.input, *lean.output)}
    wire.copy_fields(lean, shell, leave=("node", "value_info"))
    shell.value_info.extend(value for value in lean.value_info if value.name in names)
    return shell


def _record(node: onnx.NodeProto) -> Node:
    op = node.op_type if node.domain in CORE_DOMAINS else f"{node.domain}::{node.op_type}"
    return Node(
        node.name, op, tuple(node.input), tuple(node.output), {each.name: _attribute(each) for each in node.attribute}
    )


def _attribute(attribute: AttributeProto) -> object:
    """The value as the graph type has it."""
    kind = attribute.type
    if kind == AttributeProto.INTS:
        return list(attribute.ints)
    if kind == AttributeProto.INT:
        return attribute.i
    if kind == AttributeProto.FLOAT:
        return attribute.f
    if kind == AttributeProto.FLOATS:
        return list(attribute.floats)
    if kind == AttributeProto.TENSOR:
        return gs.Constant(attribute.t.name, np.array(tensors.to_array(attribute.t, None, NOWHERE)))
    try:
        return attribute.s.decode() if kind == AttributeProto.STRING else [each.decode() for each in attribute.strings]
    except UnicodeDecodeError as error:
        raise RefusedModel(NOT_TEXT.format(error.object[:20])) from error


NOT_TEXT = "an attribute holds {!r}, which is not UTF-8 text and not supported"


def _element_type(value: onnx.ValueInfoProto) -> Any:
    """As the graph type has it; None where nothing is said."""
    if not value.type.ByteSize():
        return None
    return (
        _of_elements(value.type.tensor_type.elem_type)
        if value.type.HasField("tensor_type")
        else get_onnx_tensor_dtype(value)
    )


@functools.cache
def _of_elements(kind: int) -> Any:
    return get_onnx_tensor_dtype(onnx.helper.make_tensor_value_info("", kind, None))


def _imported(lean: onnx.GraphProto, constants: Constants, imports: Iterable[onnx.OperatorSetIdProto]) -> gs.Graph:
    """The graph of the message, of objects."""
    # its warnings go to stdout, and are about what the envelope keeps
    gs.logger.G_LOGGER.severity = gs.logger.G_LOGGER.ERROR
    domains = [onnx.helper.make_opsetid(entry.domain, entry.version) for entry in imports]
    opset = OnnxImporter.get_opset(onnx.ModelProto(opset_import=domains))
    try:
        graph = OnnxImporter.import_graph(lean, tensor_map=constants, opset=opset, import_domains=domains)
    except UnicodeDecodeError as error:
        raise RefusedModel(NOT_TEXT.format(error.object[:20])) from error
    shown = {tensor.name for tensor in graph.outputs} & set(constants)
    graph.outputs = [constants.get(tensor.name, tensor) for tensor in graph.outputs]
    if shown:  # the import took a constant that is an output too for a variable
        _read_instead(graph.nodes, {name: constants[name] for name in shown})
    for node in graph.nodes:
        for value in node.attrs.values():
            if isinstance(value, gs.Constant):
                value.values = np.array(tensors.to_array(value._values.tensor, None, NOWHERE))
    return graph


def _objects(
    lean: onnx.GraphProto,
    constants: Constants,
    imports: Sequence[onnx.OperatorSetIdProto],
    ends: Mapping[str, gs.Tensor],
    order: Sequence[int],
) -> list[gs.Node]:
    """The nodes of the message in this order, with these tensors as the ends of their graph."""
    nodes = _imported(lean, constants, imports).nodes
    _read_instead(nodes, ends)
    return [nodes[index] for index in order]


def _read_instead(nodes: Iterable[gs.Node], tensors_by_name: Mapping[str, gs.Tensor]) -> None:
    """The nodes read and make these tensors instead of those of the same names."""
    for node in nodes:
        for names in (node.inputs, node.outputs):
            for slot, tensor in enumerate(names):
                if tensor.name in tensors_by_name:
                    names[slot] = tensors_by_name[tensor.name]
