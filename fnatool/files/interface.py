"""What a model's file declares of itself: its inputs and outputs, and keys of its metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from passes.errors import UserError
from passes.graph.tensors import Shape

Inputs = Mapping[str, Shape] | Shape | None
"""Shapes for inputs whose size a file leaves open: name → shape, or a shape alone where the model has one input."""


def free_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs a caller must give: those without a default among the initializers."""
    defaults = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in defaults]


def named_shapes(given: Inputs, names: Sequence[str]) -> dict[str, Shape]:
    """The shapes by the names of inputs. Raises UserError for a shape alone where there is not exactly one input."""
    if given is None or isinstance(given, Mapping):
        return dict(given or {})
    if len(names) != 1:
        which = (
            f"its inputs are {', '.join(names)}: say which, as in {names[0]}={shape_text(given)}"
            if names
            else "it has no input"
        )
        raise UserError(f"--input {shape_text(given)} is a shape for a model with one input; {which}")
    return {names[0]: tuple(given)}


def declared_shape(value: onnx.ValueInfoProto) -> tuple[int | str | None, ...] | None:
    """The sizes that a file declares, of free axes (also of less than 0) the name or None; None where it declares no
    shape.
    """
    if not value.type.tensor_type.HasField("shape"):
        return None
    axes = value.type.tensor_type.shape.dim
    return tuple(
        axis.dim_value if axis.HasField("dim_value") and axis.dim_value >= 0 else axis.dim_param or None
        for axis in axes
    )


def signature(value: onnx.ValueInfoProto, *, names: bool = False) -> str:
    """Type and shape in a line; a dynamic axis is its name where asked for, else '?'."""
    kind = value.type.WhichOneof("value") or "untyped"
    if kind != "tensor_type":
        return kind.removesuffix("_type")
    shape = declared_shape(value)
    dtype = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return f"{dtype} {'of any shape' if shape is None else shape_text(shape, names=names)}"


def shape_text(shape: Sequence[int | str | None] | None, *, names: bool = True) -> str:
    """The sizes as in 1x3x224x224; what is free is its name where asked for, else ?."""
    if shape is None:
        return "any shape"
    return "x".join(str(size) if isinstance(size, int) or (names and size) else "?" for size in shape) or "scalar"


def shape_json(shape: Sequence[int | str | None] | None) -> list[int | str | None] | None:
    """The sizes for programs: of what is free the name or null; null where nothing is declared."""
    return None if shape is None else list(shape)


SOURCE_KEY = "fnatool.source"  # in the metadata of a model: what an export recorded
TASK_KEY = "fnatool.task"  # there too: what the model is for, see `fnatool.tasks.description`
