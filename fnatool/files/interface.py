"""What a model's file declares of itself: its inputs and outputs, and keys of its metadata."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx.checker
import onnx.helper
import onnx.shape_inference


def free_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs a caller must give: those without a default among the initializers."""
    defaults = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in defaults]


def _declared(value: onnx.ValueInfoProto) -> tuple[int | str | None, ...] | None:
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(axis.dim_value if axis.HasField("dim_value") else axis.dim_param or None for axis in value.type.tensor_type.shape.dim)


def signature(value: onnx.ValueInfoProto, *, names: bool = False) -> str:
    """Type and shape in a line; a dynamic axis is its name where asked for, else '?'."""
    kind = value.type.WhichOneof("value") or "untyped"
    if kind != "tensor_type":
        return kind.removesuffix("_type")
    shape = _declared(value)
    dtype = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return f"{dtype} {'of any shape' if shape is None else _text(shape, names=names)}"


def _text(shape: Sequence[int | str | None] | None, *, names: bool = True) -> str:
    if shape is None:
        return "any shape"
    return "x".join(str(size) if isinstance(size, int) or (names and size) else "?" for size in shape) or "scalar"


SOURCE_KEY = "fnatool.source"  # in the metadata of a model: what an export recorded
