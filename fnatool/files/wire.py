"""The protobuf wire format, walked by hand where an ONNX file keeps its weights: they go from file to array and back
without a copy.

A message is a sequence of fields `varint(number << 3 | type) payload`; a payload of type 2 is `varint(length) bytes`.
The weights are `ModelProto.graph (7) . GraphProto.initializer (5) . TensorProto.raw_data (9)`; everything else is small
and is left to protobuf.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import onnx

Bytes = npt.NDArray[np.uint8]

Message = onnx.ModelProto | onnx.GraphProto | onnx.NodeProto | onnx.TensorProto

INLINE = 1024  # smaller raw data stays in the message, where shape inference finds the shapes and sizes it needs
PIECE = 1 << 20  # of what is copied
LIMIT = 2**31 - 1  # protobuf parses no message beyond 2 GiB

GRAPH, INITIALIZER, RAW_DATA, METADATA = 7, 5, 9, 14
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


class Malformed(Exception):
    """The bytes are not a protobuf message: what is wrong, and at which byte."""


@dataclass(frozen=True)
class Slim:
    """A model file in two parts: the message without its large weights, and those weights, one entry per initializer in
    file order.
    """

    message: bytes
    weights: tuple[Bytes | None, ...]  # None: the initializer's data is still in the message, or external
    digest: hashlib._Hash  # SHA-256 of the file


class Cursor:
    """A file read from front to back, knowing where it is: asking the file for its position costs a system call."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.position = 0
        self.digest = hashlib.sha256()  # of all that was read

    def read(self, length: int) -> bytes:
        """The next length bytes. Raises Malformed where they end before."""
        data = self.file.read(length)
        self.position += len(data)
        self.digest.update(data)
        if len(data) < length:
            raise Malformed(f"truncated at byte {self.position}")
        return data

    def varint(self) -> int:
        """The next number: 7 bits a byte, the lowest first."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.read(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (2**64 - 1)
        raise Malformed(f"no protobuf number ends at byte {self.position}")

    def array(self, length: int) -> Bytes:
        """The next length bytes as an array, read in place."""
        array = np.empty(length, np.uint8)
        filled = 0
        while filled < length:  # one read may return less than asked
            count = self.file.readinto(array.data[filled:])  # type: ignore[attr-defined]
            if not count:
                raise Malformed(f"truncated at byte {self.position + filled}")
            filled += count
        self.position += length
        self.digest.update(array.data)
        return array


def slim(file: BinaryIO) -> Slim:
    """The whole of file, each byte read once; no more memory is taken than the file is long. Raises Malformed."""
    cursor = Cursor(file)
    weights: list[Bytes | None] = []

    def raw_data(length: int) -> bytes | None:
        weights[-1] = None if length < INLINE else cursor.array(length)
        return cursor.read(length) if length < INLINE else None

    def initializer(length: int) -> bytes:
        weights.append(None)
        if length < INLINE:
            return cursor.read(length)  # and so is its raw data
        return _message(cursor, length, {RAW_DATA: raw_data})

    def graph(length: int) -> bytes:
        return _message(cursor, length, {INITIALIZER: initializer})

    return Slim(_message(cursor, os.fstat(file.fileno()).st_size, {GRAPH: graph}), tuple(weights), cursor.digest)


def _message(cursor: Cursor, length: int, nested: dict[int, Callable[[int], bytes | None]]) -> bytes:
    """The next `length` bytes, with the payload of every field in nested replaced by what its function returns (None:
    left out).
    """
    end = cursor.position + length
    out = bytearray()
    while (start := cursor.position) < end:
        tag = cursor.varint()
        number, kind = tag >> 3, tag & 7
        if number == 0 or kind not in (VARINT, FIXED64, LENGTH, FIXED32):
            raise Malformed(f"no protobuf field starts at byte {start}")
        if kind != LENGTH:
            out += _encode(tag) + _scalar(cursor, kind)
            continue
        size = cursor.varint()
        if size > end - cursor.position:
            raise Malformed(
                f"truncated: field {number} at byte {start} needs {size} bytes, {max(end - cursor.position, 0)} "
                "are left"
            )
        if number not in nested and len(out) + size > LIMIT:
            raise Malformed(f"field {number} at byte {start} is larger than protobuf can read (2 GiB)")
        payload = nested[number](size) if number in nested else cursor.read(size)
        if payload is not None:
            out += _encode(tag) + _encode(len(payload)) + payload
    if cursor.position > end:
        raise Malformed(f"the message that should end at byte {end} does not")
    return bytes(out)


def _scalar(cursor: Cursor, kind: int) -> bytes:
    return _encode(cursor.varint()) if kind == VARINT else cursor.read(8 if kind == FIXED64 else 4)


def _encode(value: int) -> bytes:
    if value < 0x80:
        return ONE_BYTE[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


ONE_BYTE = tuple(bytes([value]) for value in range(0x80))


def restate(source: BinaryIO, target: BinaryIO, metadata: Mapping[str, str]) -> None:
    """The model in source is in target, with these metadata instead of those of the same keys; all else, the graph too,
    byte for byte.

    Raises Malformed.
    """
    cursor = Cursor(source)
    end = os.fstat(source.fileno()).st_size
    while cursor.position < end:
        tag = cursor.varint()
        number, kind = tag >> 3, tag & 7
        if kind != LENGTH:
            target.write(_encode(tag) + _scalar(cursor, kind))
            continue
        size = cursor.varint()
        if number == METADATA:
            payload = cursor.read(size)
            if onnx.StringStringEntryProto.FromString(payload).key not in metadata:
                target.write(_key(METADATA, size) + payload)
            continue
        target.write(_encode(tag) + _encode(size))
        for start in range(0, size, PIECE):
            target.write(cursor.read(min(PIECE, size - start)))
    for key, value in metadata.items():
        entry = onnx.StringStringEntryProto(key=key, value=value).SerializeToString()
        target.write(_key(METADATA, len(entry)) + entry)


@dataclass(frozen=True)
class WireInitializer:
    """An initializer to be written: the message without raw data, and the raw data."""

    header: onnx.TensorProto
    # called when its turn comes, so that one contiguous copy is alive at a time; None: header has all
    data: Callable[[], Bytes | None]
    size: int  # bytes of raw data


def write(file: BinaryIO, model: onnx.ModelProto, weights: Sequence[WireInitializer]) -> None:
    """The bytes of model, which has no initializers itself, with the weights as its graph's, in protobuf's canonical
    order.
    """
    before, after = _halves(model.graph, INITIALIZER)
    headers = [_halves(weight.header, RAW_DATA) for weight in weights]
    sizes = [_tensor_size(front, back, weight.size) for (front, back), weight in zip(headers, weights, strict=True)]
    total = len(before) + len(after) + sum(len(_key(INITIALIZER, size)) + size for size in sizes)
    head, tail = _halves(model, GRAPH)
    file.write(head)
    file.write(_key(GRAPH, total))
    file.write(before)
    for (front, back), weight, size in zip(headers, weights, sizes, strict=True):
        file.write(_key(INITIALIZER, size))
        file.write(front)
        data = weight.data()
        if data is not None:
            file.write(_key(RAW_DATA, weight.size))
            file.write(data.data)
        file.write(back)
    file.write(after)
    file.write(tail)


def _key(number: int, length: int) -> bytes:
    return _encode(number << 3 | LENGTH) + _encode(length)


def _tensor_size(front: bytes, back: bytes, data: int) -> int:
    return len(front) + len(back) + (len(_key(RAW_DATA, data)) + data if data else 0)


def _halves(message: onnx.ModelProto | onnx.GraphProto | onnx.TensorProto, number: int) -> tuple[bytes, bytes]:
    """The serialised fields of message below `number` and above it; the field itself is left out."""
    fields = message.ListFields()
    if all(field.number < number for field, _ in fields):
        return message.SerializeToString(), b""
    before, after = type(message)(), type(message)()
    for field, value in fields:
        if field.number != number:
            copy_field(field.name, value, before if field.number < number else after)
    return before.SerializeToString(), after.SerializeToString()


def copy_fields(source: Message, target: Message, *, leave: Iterable[str] = ()) -> None:
    """What source says, target says too, but for the fields left out."""
    for field, value in source.ListFields():
        if field.name not in leave:
            copy_field(field.name, value, target)


def copy_field(name: str, value: object, target: object) -> None:
    """Field `name` of the protobuf message target becomes a copy of value: a scalar, a message or a sequence of
    either.
    """
    if hasattr(value, "CopyFrom"):
        getattr(target, name).CopyFrom(value)
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        getattr(target, name).extend(value)
    else:
        setattr(target, name, value)
