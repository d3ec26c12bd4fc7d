"""Damaged model files: on the level of bytes, and on the level of what the bytes mean, where the interesting damage is.

A mutation changes a model in place with draws from the generator it is given, and nothing else: the same generator, the
same damage. Where a model has nothing to damage in that way it does nothing.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

T = TypeVar("T")
Mutation = Callable[[ModelProto, random.Random], None]

INTEGERS = (
    0,
    1,
    -1,
    2,
    -2,
    3,
    7,
    8,
    64,
    255,
    4097,
    2**16,
    10**6,
    2**31 - 1,
    2**31,
    -(2**31),
    2**32,
    2**40,
    2**63 - 1,
    -(2**63),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, float("inf"), float("-inf"), float("nan"))
NAMES = (
    "", " ", "x", "y", "\n", "\x00", "a\tb", "\x1b[31mred", "é", "名前", "\u202etxt.exe", "*", "**", "a.b.c",
    "node:a.width", "stage0.width", "../../etc/passwd", "%s%n", "{}", "[bold]b[/bold]", "[/]", "'", '"', "\\",
    ":smile:", "w" * 300, "long" * 20_000, "٣", "\ufeff", "-", "/",
)  # fmt: skip
OPERATORS = (
    "Relu", "Add", "Mul", "Div", "Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "Reshape",
    "Transpose", "Flatten", "Concat", "Split", "Slice", "Gather", "Expand", "Tile", "Pad", "Resize", "Upsample",
    "ConstantOfShape", "Range", "Shape", "Size", "Constant", "Cast", "CastLike", "Identity", "Squeeze", "Unsqueeze",
    "ReduceMean", "ReduceSum", "MaxPool", "AveragePool", "GlobalAveragePool", "Clip", "PRelu", "Softmax",
    "LayerNormalization", "GroupNormalization", "InstanceNormalization", "DepthToSpace", "SpaceToDepth", "TopK",
    "NonZero", "Where", "ScatterND", "GatherND", "OneHot", "Einsum", "LSTM", "If", "Loop", "Scan", "QuantizeLinear",
    "DequantizeLinear", "QLinearConv", "Dropout", "RandomNormal", "SequenceConstruct", "SplitToSequence", "Optional",
    "StringNormalizer", "NonMaxSuppression", "RoiAlign", "GridSample", "CenterCropPad", "Compress", "Unique", "EyeLike",
    "Trilu", "CumSum", "DFT", "Det", "Multinomial", "NoSuchOperator", "",
)  # fmt: skip


def damaged(data: bytes, other: bytes, rng: random.Random) -> tuple[bytes, tuple[str, ...]]:
    """The model file with one to four kinds of damage, and their names; other is what it may be spliced with."""
    if rng.random() < 0.2:
        return _broken_bytes(data, other, rng, rng.randint(1, 3))
    model = ModelProto.FromString(data)
    names = rng.choices(list(MUTATIONS), k=rng.choice((1, 1, 1, 2, 2, 4)))
    for name in names:
        # of what the damage before has left unreadable
        with contextlib.suppress(ValueError, TypeError, KeyError, IndexError, DecodeError):
            MUTATIONS[name](model, rng)
    data = model.SerializeToString()
    if rng.random() < 0.05:
        data, more = _broken_bytes(data, other, rng, 1)
        return data, (*names, *more)
    return data, tuple(names)


# --- bytes --------------------------------------------------------------------------------------


def _broken_bytes(data: bytes, other: bytes, rng: random.Random, times: int) -> tuple[bytes, tuple[str, ...]]:
    names = rng.choices(list(BYTES), k=times)
    for name in names:
        data = BYTES[name](data, other, rng)
    return data, tuple(names)


def _place(data: bytes, rng: random.Random) -> int:
    """Anywhere, but as often near an end, where most of the structure is."""
    return min(
        rng.choice(
            (rng.randrange(len(data) + 1), int(rng.expovariate(1 / 200)), len(data) - int(rng.expovariate(1 / 200)))
        ),
        len(data),
    )


def _flip(data: bytes, other: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 30)) if out else 0):
        out[max(0, min(_place(data, rng), len(out) - 1))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _insert(data: bytes, other: bytes, rng: random.Random) -> bytes:
    k = max(_place(data, rng), 0)
    return data[:k] + rng.randbytes(rng.choice((1, 2, 8, 100))) + data[k:]


def _delete(data: bytes, other: bytes, rng: random.Random) -> bytes:
    k = max(_place(data, rng), 0)
    return data[:k] + data[k + rng.choice((1, 2, 8, 100)) :]


def _truncate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return data[: max(_place(data, rng), 0)]


def _splice(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return data[: max(_place(data, rng), 0)] + other[max(_place(other, rng), 0) :]


def _joined(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return data + other  # protobuf merges the two messages


def _varint(data: bytes, other: bytes, rng: random.Random) -> bytes:
    k = max(_place(data, rng), 0)
    huge = rng.choice(
        (b"\xff" * 9 + b"\x01", b"\xff\xff\xff\xff\x0f", b"\xff" * 12, b"\x80" * 11, b"\xff\xff\xff\xff\x07")
    )
    return data[:k] + huge + data[k + rng.choice((0, 1)) :]


def _zeros(data: bytes, other: bytes, rng: random.Random) -> bytes:
    k = max(_place(data, rng), 0)
    n = rng.choice((4, 64, 1000))
    return data[:k] + bytes(min(n, len(data) - k)) + data[k + n :]


BYTES: Mapping[str, Callable[[bytes, bytes, random.Random], bytes]] = {
    "flip bits": _flip,
    "insert bytes": _insert,
    "delete bytes": _delete,
    "truncate": _truncate,
    "splice with another": _splice,
    "join with another": _joined,
    "huge varint": _varint,
    "zeros": _zeros,
}


# --- what to draw from --------------------------------------------------------------------------


def _pick(rng: random.Random, items: Sequence[T]) -> T | None:
    return rng.choice(items) if items else None


def _integer(rng: random.Random, near: int = 1) -> int:
    """An extreme, or a neighbour of the number that stood there."""
    value = rng.choice((rng.choice(INTEGERS), near + 1, near - 1, near * 2, near // 2, -near, rng.randrange(1, 20)))
    return max(-(2**63), min(value, 2**63 - 1))


def _tensor_names(graph: GraphProto) -> list[str]:
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    return list(
        dict.fromkeys([*names, *(t.name for t in graph.initializer), *(v.name for v in (*graph.input, *graph.output))])
    )


def _values(graph: GraphProto) -> list[ValueInfoProto]:
    return [*graph.input, *graph.output, *graph.value_info]


def _tensors(graph: GraphProto) -> list[TensorProto]:
    inside = [a.t for node in graph.node for a in node.attribute if a.type == AttributeProto.TENSOR]
    return [*graph.initializer, *inside]


def _attributes(graph: GraphProto) -> list[AttributeProto]:
    return [attribute for node in graph.node for attribute in node.attribute]


def _shape_like(rng: random.Random) -> list[int]:
    return rng.choice(
        (
            [],
            [0],
            [1],
            [-1],
            [1, 3, 8, 8],
            [0, 3, 8, 8],
            [1, 2, 3, 4, 5, 6],
            [2**31, 2**31],
            [10**5, 10**5, 10**5],
            [1] * 70,
            [2**62, 4],
            [3, 0, 2**40],
        )
    )


# --- tensors ------------------------------------------------------------------------------------


def tensor_dims(model: ModelProto, rng: random.Random) -> None:
    """One size, or all, of a weight are others."""
    tensor = _pick(rng, _tensors(model.graph))
    if tensor is None:
        return
    if tensor.dims and rng.random() < 0.7:
        axis = rng.randrange(len(tensor.dims))
        tensor.dims[axis] = _integer(rng, tensor.dims[axis])
    else:
        tensor.dims[:] = _shape_like(rng)


def tensor_reshaped(model: ModelProto, rng: random.Random) -> None:
    """A weight keeps its data and gets another shape of as many elements."""
    tensor = _pick(rng, _tensors(model.graph))
    if tensor is not None:
        count = math.prod(tensor.dims)
        choices = (
            [count],
            [1, count],
            [count, 1],
            [1, 1, count],
            list(tensor.dims)[::-1],
            [*tensor.dims, 1],
            [1, *tensor.dims],
            list(tensor.dims)[1:],
        )
        tensor.dims[:] = rng.choice(choices)


def tensor_resized(model: ModelProto, rng: random.Random) -> None:
    """A weight is sound in itself but has another shape."""
    tensor = _pick(rng, model.graph.initializer)
    if tensor is None or tensor.data_type != TensorProto.FLOAT or math.prod(tensor.dims) > 10**6:
        return
    shape = list(tensor.dims)
    if shape and rng.random() < 0.8:
        shape[rng.randrange(len(shape))] = rng.choice((0, 1, 2, 3, 5, 16, 31))
    else:
        shape = [size for size in _shape_like(rng) if 0 <= size < 100]
    tensor.CopyFrom(numpy_helper.from_array(np.ones(shape[:32], np.float32), tensor.name))


def tensor_type(model: ModelProto, rng: random.Random) -> None:
    """A weight says it is of another element type."""
    tensor = _pick(rng, _tensors(model.graph))
    if tensor is not None:
        tensor.data_type = rng.choice((*range(-1, 30), 99, 2**31 - 1))


def tensor_cast(model: ModelProto, rng: random.Random) -> None:
    """A weight is of another element type, data and all."""
    tensor = _pick(rng, model.graph.initializer)
    if (
        tensor is None
        or math.prod(tensor.dims) > 10**6
        or tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED)
    ):
        return
    values = numpy_helper.to_array(tensor)
    kind = rng.choice(("f2", "f8", "i1", "u1", "i2", "i4", "i8", "?", "c8", "bfloat16", "string"))
    if kind == "string":
        tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.STRING, values.shape, [b"a\xff"] * values.size))
    elif kind == "bfloat16":
        tensor.CopyFrom(
            numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)), tensor.name)
        )
    else:
        with np.errstate(all="ignore"):
            tensor.CopyFrom(numpy_helper.from_array(np.nan_to_num(values).astype(kind), tensor.name))


def tensor_data(model: ModelProto, rng: random.Random) -> None:
    """The data of a weight is longer, shorter, missing, or in the wrong field."""
    tensor = _pick(rng, _tensors(model.graph))
    if tensor is None:
        return
    how = rng.randrange(6)
    if how == 0:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif how == 1:
        tensor.raw_data = tensor.raw_data + rng.randbytes(rng.choice((1, 4, 100)))
    elif how == 2:
        tensor.ClearField("raw_data")
    elif how == 3:
        tensor.float_data.extend([1.0] * rng.choice((1, 10)))
    elif how == 4:
        tensor.int64_data.extend([_integer(rng)] * rng.choice((1, 10)))
    else:
        tensor.ClearField("raw_data")
        tensor.string_data.append(b"\xff\x00")


def tensor_values(model: ModelProto, rng: random.Random) -> None:
    """NaN, infinities or huge numbers among a weight's values; a size that says something else."""
    tensor = _pick(rng, [t for t in model.graph.initializer if t.HasField("raw_data") and t.raw_data])
    if tensor is None:
        return
    if tensor.data_type == TensorProto.FLOAT and len(tensor.raw_data) % 4 == 0:
        values = np.frombuffer(tensor.raw_data, np.float32).copy()
        values[rng.randrange(values.size)] = rng.choice(FLOATS)
        tensor.raw_data = values.tobytes()
    elif tensor.data_type == TensorProto.INT64 and len(tensor.raw_data) % 8 == 0:
        numbers = np.frombuffer(tensor.raw_data, np.int64).copy()
        k = rng.randrange(numbers.size)
        numbers[k] = _integer(rng, int(numbers[k]))
        tensor.raw_data = numbers.tobytes()
    else:
        tensor.raw_data = rng.randbytes(len(tensor.raw_data))


def sizes_written(model: ModelProto, rng: random.Random) -> None:
    """A number that says sizes, axes or pads (an integer initializer or attribute tensor) is another."""
    tensor = _pick(
        rng, [t for t in _tensors(model.graph) if t.data_type == TensorProto.INT64 and math.prod(t.dims) < 100]
    )
    if tensor is None:
        return
    values = numpy_helper.to_array(tensor).copy()
    if values.size and rng.random() < 0.8:
        k = rng.randrange(values.size)
        values.reshape(-1)[k] = _integer(rng, int(values.reshape(-1)[k]))
    else:
        values = np.array(_shape_like(rng), np.int64)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def external(model: ModelProto, rng: random.Random) -> None:
    """A weight lies in another file: missing, outside, a device, too short, at an odd place."""
    tensor = _pick(rng, _tensors(model.graph))
    if tensor is None:
        return
    tensor.data_location = TensorProto.EXTERNAL
    if rng.random() < 0.8:
        tensor.ClearField("raw_data")
    places = (
        "missing.bin",
        "../other.bin",
        "/etc/passwd",
        "/dev/zero",
        "",
        ".",
        "model.onnx",
        "a/../../b",
        "C:\\x",
        "\x00",
        "link",
        "fifo",
        "data.bin",
        "e" * 5000,
    )
    tensor.external_data.add(key="location", value=rng.choice(places))
    for key in ("offset", "length"):
        if rng.random() < 0.6:
            tensor.external_data.add(
                key=key,
                value=rng.choice(
                    ("0", "8", "4096", "-1", "99999999999999999999", "x", "1e3", "٣", "", str(2**62), str(2**63 - 1))
                ),
            )


def initializer_shared(model: ModelProto, rng: random.Random) -> None:
    """A node reads another node's weight."""
    node = _pick(rng, [n for n in model.graph.node if len(n.input) > 1])
    tensor = _pick(rng, model.graph.initializer)
    if node is not None and tensor is not None:
        node.input[rng.randrange(1, len(node.input))] = tensor.name


def initializer_dropped(model: ModelProto, rng: random.Random) -> None:
    """A weight is missing, or is an input instead."""
    if not model.graph.initializer:
        return
    k = rng.randrange(len(model.graph.initializer))
    tensor = model.graph.initializer[k]
    if rng.random() < 0.5:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.dims)))
    del model.graph.initializer[k]


def initializer_doubled(model: ModelProto, rng: random.Random) -> None:
    """Two initializers of one name, or an initializer named like a node's output or an input."""
    tensor = _pick(rng, model.graph.initializer)
    if tensor is not None:
        copy = TensorProto()
        copy.CopyFrom(tensor)
        copy.name = rng.choice((tensor.name, _pick(rng, _tensor_names(model.graph)) or ""))
        model.graph.initializer.append(copy)


def sparse(model: ModelProto, rng: random.Random) -> None:
    """A sparse initializer, or a sparse attribute."""
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    made = helper.make_sparse_tensor(
        values, helper.make_tensor("at", TensorProto.INT64, [1], [_integer(rng)]), _shape_like(rng)
    )
    node = _pick(rng, model.graph.node)
    if rng.random() < 0.5 or node is None:
        model.graph.sparse_initializer.append(made)
    else:
        node.attribute.append(helper.make_attribute("sparse_value", made))


# --- nodes --------------------------------------------------------------------------------------


def attribute_value(model: ModelProto, rng: random.Random) -> None:
    """An attribute has another value of its kind."""
    attribute = _pick(rng, _attributes(model.graph))
    if attribute is None:
        return
    if attribute.type == AttributeProto.INT:
        attribute.i = _integer(rng, attribute.i)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = rng.choice(FLOATS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = rng.choice((b"", b"\xff", b"SAME_LOWER", b"VALID", b"linear", b"NOTSET", b"x" * 1000))
    elif attribute.type == AttributeProto.INTS:
        if attribute.ints and rng.random() < 0.6:
            k = rng.randrange(len(attribute.ints))
            attribute.ints[k] = _integer(rng, attribute.ints[k])
        else:
            attribute.ints[:] = rng.choice(
                ([], [1], [0, 0], [-1, -1, -1, -1], [1] * 100, [2**40, 2**40], list(attribute.ints)[1:])
            )
    elif attribute.type == AttributeProto.FLOATS:
        attribute.floats[:] = rng.choice(([], [math.nan], [1.0] * 7))


def attribute_kind(model: ModelProto, rng: random.Random) -> None:
    """An attribute is of another kind, or of none."""
    node = _pick(rng, [n for n in model.graph.node if n.attribute])
    if node is None:
        return
    k = rng.randrange(len(node.attribute))
    name = node.attribute[k].name
    if rng.random() < 0.3:
        node.attribute[k].type = rng.randrange(16)
        return
    values: tuple[object, ...] = (
        1,
        1.5,
        "text",
        [1, 2],
        [1.5],
        ["a"],
        helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0]),
        b"\xff\xfe",
    )
    node.attribute[k].CopyFrom(helper.make_attribute(name, rng.choice(values)))


def attribute_dropped(model: ModelProto, rng: random.Random) -> None:
    """An attribute is missing."""
    node = _pick(rng, [n for n in model.graph.node if n.attribute])
    if node is not None:
        del node.attribute[rng.randrange(len(node.attribute))]


def attribute_added(model: ModelProto, rng: random.Random) -> None:
    """An attribute stands twice, or one that the operator may not know."""
    node = _pick(rng, model.graph.node)
    if node is None:
        return
    if node.attribute and rng.random() < 0.3:
        node.attribute.append(node.attribute[0])
        return
    name = rng.choice(
        (
            "axis",
            "axes",
            "group",
            "kernel_shape",
            "pads",
            "strides",
            "dilations",
            "auto_pad",
            "perm",
            "split",
            "to",
            "keepdims",
            "blocksize",
            "value",
            "odd",
            "",
        )
    )
    value: object = rng.choice((_integer(rng), [_integer(rng)], [2, 2], [1, 1, 1, 1], "SAME_UPPER", 0.5))
    node.attribute.append(helper.make_attribute(name, value))


def window(model: ModelProto, rng: random.Random) -> None:
    """A convolution or pool has an odd stride, pad, dilation, kernel or number of groups."""
    node = _pick(
        rng, [n for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")]
    )
    if node is None:
        return
    name = rng.choice(
        (
            "strides",
            "dilations",
            "pads",
            "kernel_shape",
            "group",
            "auto_pad",
            "output_padding",
            "output_shape",
            "ceil_mode",
        )
    )
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if name in ("group", "ceil_mode"):
        node.attribute.append(helper.make_attribute(name, _integer(rng)))
    elif name == "auto_pad":
        node.attribute.append(helper.make_attribute(name, rng.choice(("SAME_UPPER", "SAME_LOWER", "VALID", "odd"))))
    else:
        length = rng.choice((0, 1, 2, 2, 2, 3, 4, 4))
        node.attribute.append(
            helper.make_attribute(name, [_integer(rng) for _ in range(length)], attr_type=AttributeProto.INTS)
        )


def operator(model: ModelProto, rng: random.Random) -> None:
    """A node is of another type."""
    node = _pick(rng, model.graph.node)
    if node is not None:
        node.op_type = rng.choice(OPERATORS)


def domain(model: ModelProto, rng: random.Random) -> None:
    """A node is from another domain."""
    node = _pick(rng, model.graph.node)
    if node is not None:
        node.domain = rng.choice(("com.microsoft", "ai.onnx", "ai.onnx.ml", "local", "nowhere", "::", "\x00"))
        if rng.random() < 0.5:
            model.opset_import.append(helper.make_opsetid(node.domain, rng.choice((0, 1, 99))))


def node_inserted(model: ModelProto, rng: random.Random) -> None:
    """A new node between two others, of a type that knows sizes, channels or constants."""
    readers = [node for node in model.graph.node if node.input]
    reader = _pick(rng, readers)
    if reader is None:
        return
    slot = rng.randrange(len(reader.input))
    name, made = reader.input[slot], f"inserted_{rng.randrange(10**9)}"
    names = _tensor_names(model.graph)
    node = helper.make_node(rng.choice(OPERATORS), [name, *rng.choices(names, k=rng.choice((0, 0, 1, 1, 2)))], [made])
    for _ in range(rng.choice((0, 0, 1, 2))):
        key = rng.choice(
            ("axis", "axes", "keepdims", "to", "perm", "blocksize", "num_groups", "mode", "shape", "split", "k")
        )
        node.attribute.append(
            helper.make_attribute(key, rng.choice((0, 1, -1, [0], [1, 0], [0, 2, 3, 1], 6, 10, "linear")))
        )
    reader.input[slot] = made
    position = next(i for i, other in enumerate(model.graph.node) if made in other.input)
    model.graph.node.insert(position, node)


def node_dropped(model: ModelProto, rng: random.Random) -> None:
    """A node is missing; what it read may go straight to its readers."""
    if not model.graph.node:
        return
    node = model.graph.node[rng.randrange(len(model.graph.node))]
    if rng.random() < 0.7 and node.input and node.output:
        source, target = node.input[0], node.output[0]
        for other in model.graph.node:
            other.input[:] = [source if name == target else name for name in other.input]
    model.graph.node.remove(node)


def node_doubled(model: ModelProto, rng: random.Random) -> None:
    """A node stands twice, perhaps under another name and with other outputs."""
    node = _pick(rng, model.graph.node)
    if node is None:
        return
    copy = NodeProto()
    copy.CopyFrom(node)
    if rng.random() < 0.5:
        copy.output[:] = [f"{name}_again" for name in copy.output]
    model.graph.node.append(copy)


def nodes_reordered(model: ModelProto, rng: random.Random) -> None:
    """The nodes stand in another order."""
    nodes = list(model.graph.node)
    rng.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def edge(model: ModelProto, rng: random.Random) -> None:
    """A node reads another tensor: an earlier one, a later one (a cycle), its own output, one that is not there,
    none.
    """
    node = _pick(rng, [n for n in model.graph.node if n.input])
    if node is not None:
        names = [*_tensor_names(model.graph), *node.output, "nowhere", "", "x"]
        node.input[rng.randrange(len(node.input))] = rng.choice(names)


def inputs(model: ModelProto, rng: random.Random) -> None:
    """A node's inputs are swapped, dropped, doubled, or far too many."""
    node = _pick(rng, [n for n in model.graph.node if n.input])
    if node is None:
        return
    names = list(node.input)
    how = rng.randrange(5)
    if how == 0:
        rng.shuffle(names)
    elif how == 1:
        del names[rng.randrange(len(names))]
    elif how == 2:
        names.append(rng.choice(names))
    elif how == 3:
        names = [rng.choice(names)] * rng.choice((0, 3, 300))
    else:
        names += [""] * 3
    node.input[:] = names


def outputs(model: ModelProto, rng: random.Random) -> None:
    """A node's outputs are dropped, doubled, more, empty, or another node's."""
    node = _pick(rng, model.graph.node)
    if node is None:
        return
    names = list(node.output)
    node.output[:] = rng.choice(
        (
            [],
            [""],
            [*names, *names],
            [*names, "more", "most"],
            _tensor_names(model.graph)[:1],
            ["x"],
            names[::-1],
            ["", *names],
        )
    )


def tensor_renamed(model: ModelProto, rng: random.Random) -> None:
    """A tensor has an odd name, everywhere or in one place."""
    name, new = _pick(rng, _tensor_names(model.graph)) or "", rng.choice(NAMES)
    once = rng.random() < 0.2
    graph = model.graph
    for node in graph.node:
        node.input[:] = [new if other == name else other for other in node.input]
        if not once:
            node.output[:] = [new if other == name else other for other in node.output]
    for item in (*graph.initializer, *_values(graph)) if not once else ():
        if item.name == name:
            item.name = new


def node_renamed(model: ModelProto, rng: random.Random) -> None:
    """Nodes have odd names, or all the same."""
    new = rng.choice(NAMES)
    chosen = (
        list(model.graph.node)
        if rng.random() < 0.2
        else rng.choices(list(model.graph.node), k=2)
        if model.graph.node
        else []
    )
    for node in chosen:
        node.name = new


def subgraph(model: ModelProto, rng: random.Random) -> None:
    """A node holds a graph, as one attribute or as a list."""
    node = _pick(rng, model.graph.node)
    if node is None:
        return
    body = helper.make_graph(
        [helper.make_node("Identity", list(node.input[:1]) or ["q"], ["o"])],
        "b",
        [],
        [helper.make_empty_tensor_value_info("o")],
    )
    for _ in range(rng.choice((0, 0, 25))):
        body = helper.make_graph(
            [helper.make_node("If", ["c"], ["o"], then_branch=body)],
            "b",
            [],
            [helper.make_empty_tensor_value_info("o")],
        )
    node.attribute.append(
        helper.make_attribute(rng.choice(("then_branch", "body", "odd")), rng.choice((body, [body, body])))
    )


def function(model: ModelProto, rng: random.Random) -> None:
    """A local function: sound, calling itself, calling nothing, or with a reference where a value is due."""
    node = _pick(rng, model.graph.node)
    if node is None:
        return
    inner = helper.make_node(rng.choice(("Relu", "own", "Neg")), ["a"], ["b"], domain=rng.choice(("", "own")))
    if rng.random() < 0.3:
        attribute = inner.attribute.add(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="alpha")
        attribute.ref_attr_name = "alpha"
    model.functions.append(
        helper.make_function(
            "own", "own", ["a"], ["b"], [inner], [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        )
    )
    model.opset_import.append(helper.make_opsetid("own", 1))
    node.op_type, node.domain = "own", "own"


def chain(model: ModelProto, rng: random.Random) -> None:
    """Hundreds of nodes in a row behind some tensor."""
    node = _pick(rng, [n for n in model.graph.node if n.input and n.input[0]])
    if node is None:
        return
    name, kind = node.input[0], rng.choice(("Relu", "Identity", "Neg", "Add"))
    made = []
    for k in range(rng.choice((50, 800))):
        new = f"chain_{rng.randrange(10**6)}_{k}"
        made.append(helper.make_node(kind, [name, name] if kind == "Add" else [name], [new]))
        name = new
    node.input[0] = name
    nodes = list(model.graph.node)
    position = nodes.index(node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:position], *made, *nodes[position:]])


def bomb(model: ModelProto, rng: random.Random) -> None:
    """A few bytes that stand for gigabytes: a huge shape in front of a node."""
    node = _pick(rng, [n for n in model.graph.node if n.input])
    if node is None:
        return
    slot = rng.randrange(len(node.input))
    name, made, k = node.input[slot], f"bomb_{rng.randrange(10**9)}", rng.randrange(10**9)
    sizes = rng.choice(
        ([10**5, 10**5], [2**20, 2**20, 1], [1, 2**30], [2**40], [300, 300, 300, 300], [1, 1, 10**5, 10**5])
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), f"sizes_{k}"))
    one = numpy_helper.from_array(np.array([1.0], np.float32), f"one_{k}")
    model.graph.initializer.append(one)
    kinds = {
        "ConstantOfShape": [f"sizes_{k}"],
        "Expand": [rng.choice((name, one.name)), f"sizes_{k}"],
        "Tile": [rng.choice((name, one.name)), f"sizes_{k}"],
        "Resize": [name, "", "", f"sizes_{k}"],
        "Reshape": [name, f"sizes_{k}"],
        "Pad": [name, f"sizes_{k}"],
        "RandomNormal": [],
    }
    kind = rng.choice(list(kinds))
    new = helper.make_node(kind, kinds[kind], [made], **({"shape": sizes} if kind == "RandomNormal" else {}))
    node.input[slot] = made
    nodes = list(model.graph.node)
    position = nodes.index(node)
    model.graph.node.insert(position, new)


# --- the model ----------------------------------------------------------------------------------


def versions(model: ModelProto, rng: random.Random) -> None:
    """Another opset or IR version, none, or several."""
    how = rng.randrange(4)
    if how == 0 and model.opset_import:
        model.opset_import[0].version = rng.choice((*range(30), -1, 2**31, 2**63 - 1))
    elif how == 1:
        del model.opset_import[:]
    elif how == 2:
        model.opset_import.append(helper.make_opsetid(rng.choice(("", "ai.onnx", "x")), rng.choice((1, 9, 21, 99))))
    else:
        model.ir_version = rng.choice((0, 1, 3, 4, 10, 11, 12, 13, 99, 2**62, -1))


def ends(model: ModelProto, rng: random.Random) -> None:
    """The graph's inputs or outputs: dropped, doubled, more, swapped, a weight or an inner tensor among them."""
    listed = rng.choice((model.graph.input, model.graph.output))
    how = rng.randrange(5)
    if how == 0 and listed:
        del listed[rng.randrange(len(listed))]
    elif how == 1 and listed:
        listed.append(listed[0])
    elif how == 2:
        listed.append(
            helper.make_tensor_value_info(
                rng.choice(_tensor_names(model.graph) or [""]), TensorProto.FLOAT, rng.choice((None, [1], [2, "n"]))
            )
        )
    elif how == 3:
        del listed[:]
    elif listed:
        listed[0].name = rng.choice(_tensor_names(model.graph))


def declared(model: ModelProto, rng: random.Random) -> None:
    """A declared shape: a size, symbolic, missing, of another rank, huge."""
    value = _pick(rng, _values(model.graph))
    if value is None:
        return
    kind = value.type.tensor_type
    how = rng.randrange(6)
    if how == 0 and kind.shape.dim:
        axis = rng.choice(kind.shape.dim)
        axis.dim_value = _integer(rng, axis.dim_value)
    elif how == 1 and kind.shape.dim:
        axis = rng.choice(kind.shape.dim)
        axis.dim_param = rng.choice(NAMES)
    elif how == 2:
        kind.ClearField("shape")
    elif how == 3:
        rank = rng.choice((0, 1, 2, 3, 5, 6, 65))
        value.type.CopyFrom(
            helper.make_tensor_type_proto(kind.elem_type or 1, [rng.choice((1, 3, 8, "n")) for _ in range(rank)])
        )
    elif how == 4:
        value.type.CopyFrom(helper.make_tensor_type_proto(kind.elem_type or 1, _shape_like(rng)))
    elif kind.shape.dim:
        rng.choice(kind.shape.dim).Clear()


def element_type(model: ModelProto, rng: random.Random) -> None:
    """An input, an output or an inner tensor is declared of another type, or is no tensor."""
    value = _pick(rng, _values(model.graph))
    if value is None:
        return
    how = rng.randrange(8)
    if how == 0:
        value.ClearField("type")
    elif how == 1:
        value.type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1])))
    elif how == 2:
        value.type.CopyFrom(helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [1])))
    elif how == 3:
        value.type.map_type.key_type = 7
    elif how == 4:
        value.type.sparse_tensor_type.elem_type = 1
    else:
        value.type.tensor_type.elem_type = rng.choice((*range(27), 99, -1))


def metadata(model: ModelProto, rng: random.Random) -> None:
    """Stored stages and specs that are none, or another model's; documentation without end."""
    row = {"kind": "residual", "entry": "x", "exit": "y", "merge": "m"}
    names = _tensor_names(model.graph) or [""]
    drawn = [
        [
            {
                **row,
                "kind": rng.choice(("residual", "bottleneck")),
                "entry": rng.choice(names),
                "exit": rng.choice(names),
                "merge": "",
            }
        ]
    ]
    tables: tuple[object, ...] = (
        None,
        [],
        [[]],
        [[row]],
        drawn,
        {"a": 1},
        [[row, row]],
        [[1]],
        [[{}]],
        "x",
        [[{**row, "kind": []}]],
        10**400,
        math.nan,
    )
    key = rng.choice(("fnatool.stages", "fnatool.spec", "fnatool.task", "", "note"))
    text = rng.choice(
        (
            json.dumps(rng.choice(tables)),
            "{",
            "[" * 100_000,
            "",
            "\x00",
            '{"version": 1, "knobs": []}',
            '{"version": 2}',
            "1e999",
        )
    )
    model.metadata_props.add(key=key, value=text)
    if rng.random() < 0.2:
        model.doc_string = "doc" * 100_000


def quantised(model: ModelProto, rng: random.Random) -> None:
    """A quantiser in front of a node."""
    node = _pick(rng, [n for n in model.graph.node if n.input])
    if node is None:
        return
    slot, k = rng.randrange(len(node.input)), rng.randrange(10**9)
    model.graph.initializer.append(
        numpy_helper.from_array(np.array(rng.choice((0.1, 0.0, math.nan)), np.float32), f"scale_{k}")
    )
    model.graph.initializer.append(
        numpy_helper.from_array(np.array(0, rng.choice((np.uint8, np.int8, np.int16))), f"zero_{k}")
    )
    ends_ = [f"scale_{k}", f"zero_{k}"]
    pair = [
        helper.make_node("QuantizeLinear", [node.input[slot], *ends_], [f"q_{k}"]),
        helper.make_node("DequantizeLinear", [f"q_{k}", *ends_], [f"d_{k}"]),
    ]
    node.input[slot] = f"d_{k}"
    nodes = list(model.graph.node)
    position = nodes.index(node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:position], *pair, *nodes[position:]])


def emptied(model: ModelProto, rng: random.Random) -> None:
    """A whole part of the model is missing."""
    part = rng.choice(("node", "initializer", "input", "output", "value_info", "graph", "opset_import", "name"))
    (model if part in ("graph", "opset_import") else model.graph).ClearField(part)


def batch(model: ModelProto, rng: random.Random) -> None:
    """The first input's sizes are others, or free."""
    if model.graph.input:
        for axis in model.graph.input[0].type.tensor_type.shape.dim:
            if rng.random() < 0.5:
                axis.Clear()
                if rng.random() < 0.5:
                    axis.dim_value = rng.choice((1, 2, 3, 7, 8, 15, 33, 0, 10**5, -1))
                else:
                    axis.dim_param = rng.choice(("n", "h", ""))


MUTATIONS: Mapping[str, Mutation] = {
    made.__name__.replace("_", " "): made
    for made in (
        tensor_dims,
        tensor_reshaped,
        tensor_resized,
        tensor_type,
        tensor_cast,
        tensor_data,
        tensor_values,
        sizes_written,
        external,
        initializer_shared,
        initializer_dropped,
        initializer_doubled,
        sparse,
        attribute_value,
        attribute_kind,
        attribute_dropped,
        attribute_added,
        window,
        operator,
        domain,
        node_inserted,
        node_dropped,
        node_doubled,
        nodes_reordered,
        edge,
        inputs,
        outputs,
        tensor_renamed,
        node_renamed,
        subgraph,
        function,
        chain,
        bomb,
        versions,
        ends,
        declared,
        element_type,
        metadata,
        quantised,
        emptied,
        batch,
    )
}
