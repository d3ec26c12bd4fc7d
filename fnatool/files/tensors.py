"""Weights between TensorProto and numpy. A file's claims about sizes and places are checked before memory is taken."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import numpy.typing as npt
import onnx
import onnx.helper
import onnx.numpy_helper
from onnx import TensorProto

from fnatool.files.wire import INLINE, Bytes, WireInitializer, copy_field
from passes.errors import RefusedModel

Array = npt.NDArray[np.generic]

# Elements smaller than a byte are packed; onnx.numpy_helper unpacks them.
PACKED_BITS = {TensorProto.DataType.Value(name): bits for name, bits in (("INT4", 4), ("UINT4", 4), ("FLOAT4E2M1", 4))}
KNOWN = frozenset(TensorProto.DataType.keys())
PACKED_BITS |= {TensorProto.DataType.Value(name): 2 for name in ("INT2", "UINT2") if name in KNOWN}
KINDS = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}
MOST = 2**56  # elements: numpy counts the bytes of an array in 63 bits, also where another axis is 0
PACKED_DTYPES = {onnx.helper.tensor_dtype_to_np_dtype(kind) for kind in PACKED_BITS}


def to_array(tensor: TensorProto, data: Bytes | None, folder: Path) -> Array:
    """The values of tensor in its shape; data is its raw data where the file reader kept it apart, folder is where
    external data lies.

    Raises RefusedModel where the tensor is not what it says.
    """
    if tensor.HasField("segment"):
        raise RefusedModel(f"tensor '{tensor.name}' is stored in segments, which no runtime reads; save it whole")
    size = byte_size(tensor)
    if tensor.data_location == TensorProto.EXTERNAL:
        data = _external(tensor, size, folder)
    elif data is None and tensor.HasField("raw_data"):
        data = np.frombuffer(tensor.raw_data, np.uint8)
    if data is None:
        return _typed(tensor)
    if tensor.data_type == TensorProto.STRING:
        raise RefusedModel(
            f"tensor '{tensor.name}' has strings in its raw data, which ONNX does not allow; export the model again"
        )
    if data.size != size:
        raise RefusedModel(_mismatch(tensor, f"{size} bytes", f"{data.size}"))
    if tensor.data_type in PACKED_BITS:
        packed = onnx.helper.make_tensor(tensor.name, tensor.data_type, tensor.dims, data.tobytes(), raw=True)
        return onnx.numpy_helper.to_array(packed)
    return data.view(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).reshape(tuple(tensor.dims))


def byte_size(tensor: TensorProto) -> int:
    """How long the raw data of tensor is by its type and dims. Raises RefusedModel for impossible ones."""
    if tensor.data_type not in KINDS:
        raise RefusedModel(
            f"tensor '{tensor.name}' has the unknown element type {tensor.data_type}; is it from a newer ONNX?"
        )
    if any(dim < 0 for dim in tensor.dims) or math.prod(max(dim, 1) for dim in tensor.dims) > MOST:
        raise RefusedModel(f"tensor '{tensor.name}' has the impossible shape {_shape(tensor)}")
    count = int(math.prod(tensor.dims))
    if bits := PACKED_BITS.get(tensor.data_type):
        return int(count * bits + 7) // 8
    return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _typed(tensor: TensorProto) -> Array:
    """The values from float_data, int32_data …, whose number is checked against the dims."""
    count = math.prod(tensor.dims)
    if bits := PACKED_BITS.get(tensor.data_type):
        count = (count * bits + 7) // 8
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        count *= 2
    given = len(getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type)))
    if given != count:
        raise RefusedModel(_mismatch(tensor, f"{count} values", f"{given}"))
    try:
        return np.array(onnx.numpy_helper.to_array(tensor))
    except UnicodeDecodeError as error:
        raise RefusedModel(
            f"tensor '{tensor.name}' holds {error.object[:20]!r}, which is not UTF-8 text and not supported"
        ) from error


def external_file(tensor: TensorProto, folder: Path) -> Path:
    """The file with the data of tensor: a regular file within folder. Raises RefusedModel."""
    location = _entries(tensor).get("location", "")
    where = f"the external data of tensor '{tensor.name}', '{location[:80]}',"
    if (
        not location
        or PurePosixPath(location).is_absolute()
        or PureWindowsPath(location).drive
        or ".." in PurePosixPath(location).parts
    ):
        raise RefusedModel(f"{where} must be a path within the model's folder; save the model with its data beside it")
    root = Path(os.path.realpath(folder))
    try:
        file = Path(os.path.realpath(root / location))
        if not file.is_relative_to(root):
            raise RefusedModel(f"{where} leads out of the model's folder through a link; put the file itself there")
        mode = file.stat().st_mode
    except (OSError, ValueError) as error:  # not there, or no file could have that name
        raise RefusedModel(f"{where} is missing; copy it beside the model, into '{folder}'") from error
    if not stat.S_ISREG(mode):
        raise RefusedModel(f"{where} is not a regular file")
    return file


def _external(tensor: TensorProto, size: int, folder: Path) -> Bytes:
    path = external_file(tensor, folder)
    offset = _number(tensor, "offset", 0)
    length = _number(tensor, "length", size)
    if length != size:
        raise RefusedModel(_mismatch(tensor, f"{size} bytes", f"{length}"))
    with path.open("rb") as file:
        available = os.fstat(file.fileno()).st_size - offset
        if available < size:
            raise RefusedModel(
                f"tensor '{tensor.name}' needs {size} bytes at offset {offset} of '{path.name}', which has "
                f"{max(available, 0)} there; "
                "is the file complete?"
            )
        file.seek(offset)
        return np.fromfile(file, np.uint8, size)


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _number(tensor: TensorProto, key: str, default: int) -> int:
    text = _entries(tensor).get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise RefusedModel(f"tensor '{tensor.name}' has the impossible {key} '{text[:40]}' for its external data")
    return int(text)


def _mismatch(tensor: TensorProto, needed: str, given: str) -> str:
    return f"tensor '{tensor.name}' of shape {_shape(tensor)} needs {needed}, the file has {given}; is it complete?"


def _shape(tensor: TensorProto) -> str:
    return "x".join(str(dim) for dim in tensor.dims) or "scalar"


def to_weight(name: str, values: Array, stub: TensorProto | None) -> WireInitializer:
    """The initializer `name` with values, ready to be written, with the documentation of stub."""
    header = TensorProto(name=name, dims=values.shape)
    if stub is not None:
        for field, value in stub.ListFields():
            copy_field(field.name, value, header)
        header.name = name
    if values.dtype.kind in "OSU":
        header.MergeFrom(onnx.numpy_helper.from_array(values.astype(object).reshape(-1)))
        del header.dims[:]
        header.dims.extend(values.shape)
        return WireInitializer(header, lambda: None, 0)
    header.data_type = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
    if values.dtype in PACKED_DTYPES:
        packed = np.frombuffer(onnx.numpy_helper.from_array(values).raw_data, np.uint8)
        return WireInitializer(header, lambda: packed, packed.size)
    return WireInitializer(header, lambda: _bytes(values), values.nbytes)


def _bytes(values: Array) -> Bytes | None:
    if not values.nbytes:
        return None
    little = values.astype(values.dtype.newbyteorder("<"), copy=False) if values.dtype.byteorder == ">" else values
    return np.ascontiguousarray(little).reshape(-1).view(np.uint8)


def outside(weight: WireInitializer, location: str, offset: int) -> TensorProto:
    """The header of weight, saying that its data lies at offset of the file location."""
    header = TensorProto()
    header.CopyFrom(weight.header)
    header.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", weight.size)):
        header.external_data.add(key=key, value=str(value))
    return header


def is_large(weight: WireInitializer) -> bool:
    """Large enough to go to an external data file; smaller ones stay inside, where shape inference reads them."""
    return weight.size >= INLINE
