"""A network once more in double precision, where rounding is no excuse for a difference.

ONNX Runtime has no convolution of float64, so onnx's own reference implementation runs here: slow, and not able to run
everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_graphsurgeon as gs
from onnx import AttributeProto, TensorProto

from fnatool.runtime.native import first_line

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}
# of what is not implemented
FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class NotRepeated(Exception):
    """The reference implementation cannot run this, or not in double precision: why."""


def repeated(graph: gs.Graph, feeds: Mapping[str, np.ndarray], tensors: Sequence[str]) -> dict[str, np.ndarray]:
    """The values of the tensors in float64, where all weights and inputs are taken exactly. Raises NotRepeated."""
    from onnx.reference import ReferenceEvaluator  # not above: it takes a while, and is seldom needed

    model = doubled(gs.export_onnx(graph, do_type_check=False), tensors)
    used = {name for node in model.graph.node for name in node.input}
    inputs = {
        name: values.astype(np.float64) if values.dtype.kind == "f" else values
        for name, values in feeds.items()
        if name in used
    }
    try:
        with np.errstate(all="ignore"):
            found = ReferenceEvaluator(model).run(list(tensors), inputs)
    except FAILURES as error:
        raise NotRepeated(f"onnx's reference implementation fails ({first_line(error)})") from error
    values = dict(zip(tensors, found, strict=True))
    for name, value in values.items():
        if not isinstance(value, np.ndarray) or value.dtype != np.float64:
            raise NotRepeated(f"'{name}' is not computed in double precision")
    return values


def doubled(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """The part of the model that computes the tensors, with float64 wherever it has float32 or float16."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    nodes = _behind(graph.node, tensors)
    del graph.node[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    for tensor in graph.initializer:
        _double(tensor)
    for value in graph.input:
        if value.type.tensor_type.elem_type in FLOATS:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _double(attribute.t)
            elif attribute.name in ("to", "dtype") and attribute.i in FLOATS:
                attribute.i = TensorProto.DOUBLE
            elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                values = np.array(
                    attribute.f if attribute.name == "value_float" else list(attribute.floats), np.float64
                )
                attribute.CopyFrom(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(values)))
    return made


def _behind(nodes: Iterable[onnx.NodeProto], tensors: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes that the tensors depend on, in order."""
    wanted = set(tensors)
    kept = []
    for node in reversed(list(nodes)):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]


def _double(tensor: TensorProto) -> None:
    if tensor.data_type in FLOATS:
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float64), tensor.name)
        )
