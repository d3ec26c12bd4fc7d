"""Files made to hurt: few bytes that stand for gigabytes, much of everything, specs without end, paths that are no
files.

A case is a function from an empty folder, into which it puts its files, to the commands to try. Nothing here is drawn
by chance.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from benchmarks import bases

Command = list[str]
Case = Callable[[Path], list[Command]]
CASES: dict[str, Case] = {}
MANY = 20_000  # of nodes, weights, keys: enough for whatever is quadratic to show


def case(name: str) -> Callable[[Case], Case]:
    """The function is the case of this name."""

    def add(made: Case) -> Case:
        CASES[name] = made
        return made

    return add


# --- what all are made of -----------------------------------------------------------------------

Weights = Mapping[str, np.ndarray]
Shape = Sequence[int | str | None]

CONV = np.ones((8, 3, 1, 1), np.float32)
NARROW = {"version": 1, "knobs": {"**.width*": "x0.5"}}


def network(
    nodes: Sequence[NodeProto], weights: Weights, shape: Shape = (1, 3, 8, 8), opset: int = 17, out: str = "y"
) -> onnx.ModelProto:
    """x → a convolution c with 8 channels → the nodes → y."""
    first = helper.make_node("Conv", ["x", "w"], ["c"], name="c")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(array, name) for name, array in {"w": CONV, **weights}.items()]
    graph = helper.make_graph([first, *nodes], "hostile", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def through_all(folder: Path, model: onnx.ModelProto | bytes, spec: object = NARROW) -> list[Command]:
    """The three commands on the model."""
    (folder / "model.onnx").write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    (folder / "spec.json").write_text(spec if isinstance(spec, str) else json.dumps(spec))
    return commands(folder)


def commands(folder: Path, model: str = "model.onnx", spec: str = "spec.json", out: str = "out.onnx") -> list[Command]:
    """The three commands on files of the folder; a path that starts with / is taken as it is."""
    where = [str(folder / path) for path in (model, spec, out)]
    return [["inspect", where[0]], ["remap", where[0], "--spec", where[1], "-o", where[2]], ["check", where[0]]]


def node(op: str, inputs: Sequence[str], output: str, **attributes: object) -> NodeProto:
    """A node named like its output."""
    return helper.make_node(op, list(inputs), [output], name=output, **attributes)


def sizes(*numbers: int) -> np.ndarray:
    """What a shape is written in."""
    return np.array(numbers, np.int64)


# --- few bytes for gigabytes --------------------------------------------------------------------

ONE = {"one": np.ones((1, 1, 1, 1), np.float32)}
CONSTANTS: Mapping[str, tuple[list[NodeProto], Weights]] = {
    "ConstantOfShape": ([node("ConstantOfShape", ["s"], "b")], {"s": sizes(4, 8, 30_000, 30_000)}),
    "Expand": ([node("Expand", ["one", "s"], "b")], {**ONE, "s": sizes(4, 8, 30_000, 30_000)}),
    "Tile": ([node("Tile", ["one", "s"], "b")], {**ONE, "s": sizes(4, 8, 30_000, 30_000)}),
    "Pad": ([node("Pad", ["one", "s"], "b")], {**ONE, "s": sizes(0, 0, 30_000, 30_000, 3, 7, 30_000, 30_000)}),
    "Resize": ([node("Resize", ["one", "", "", "s"], "b")], {**ONE, "s": sizes(4, 8, 30_000, 30_000)}),
    "Range": ([node("Range", ["a", "z", "d"], "b")], {"a": np.array(0.0), "z": np.array(1e11), "d": np.array(1.0)}),
    "MatMul": (
        [node("ConstantOfShape", ["s"], "a"), node("MatMul", ["a", "a"], "b")],
        {"s": sizes(15_000, 15_000)},
    ),
    "OneHot": (
        [node("OneHot", ["i", "n", "v"], "b")],
        {"i": sizes(0, 1), "n": np.array(2**40), "v": np.array([0.0, 1.0], np.float32)},
    ),
    "broadcasting": (
        [node("Where", ["p", "q", "r"], "b")],
        {
            "p": np.ones((1300, 1, 1), bool),
            "q": np.ones((1, 1300, 1), np.float32),
            "r": np.ones((1, 1, 1300), np.float32),
        },
    ),
    "a chain of copies": (
        [
            node("ConstantOfShape", ["s"], "b0"),
            *(node("Neg", [f"b{k}"], f"b{k + 1}") for k in range(40)),
            node("Neg", ["b40"], "b"),
        ],
        {"s": sizes(100_000, 1000)},
    ),
}

for _name, (_nodes, _weights) in CONSTANTS.items():

    @case(f"a constant of gigabytes by {_name}")
    def _constant(folder: Path, nodes: list[NodeProto] = _nodes, weights: Weights = _weights) -> list[Command]:
        return through_all(folder, network([*nodes, node("Conv", ["c", "b"], "y")], weights))


ACTIVATIONS: Mapping[str, tuple[list[NodeProto], Weights]] = {
    "Resize": ([node("Resize", ["c", "", "", "s"], "b")], {"s": sizes(1, 8, 30_000, 30_000)}),
    "Resize by a factor": ([node("Resize", ["c", "", "f"], "b")], {"f": np.array([1, 1, 1e6, 1e6], np.float32)}),
    "Pad": ([node("Pad", ["c", "s"], "b")], {"s": sizes(0, 0, 30_000, 30_000, 0, 0, 30_000, 30_000)}),
    "Tile": ([node("Tile", ["c", "s"], "b")], {"s": sizes(1, 1, 10_000, 10_000)}),
    "Expand": ([node("Expand", ["c", "s"], "b")], {"s": sizes(10_000, 10_000, 1, 8, 8, 8)}),
    "a transposed convolution": (
        [node("ConvTranspose", ["c", "t"], "b", strides=[10_000, 10_000])],
        {"t": np.ones((8, 8, 1, 1), np.float32)},
    ),
    "pads of a convolution": (
        [node("Conv", ["c", "t"], "b", pads=[10**9] * 4)],
        {"t": np.ones((8, 8, 1, 1), np.float32)},
    ),
    "dilation": (
        [node("Conv", ["c", "t"], "b", dilations=[10**9] * 2, pads=[2 * 10**9 - 1] * 4)],
        {"t": np.ones((8, 8, 3, 3), np.float32)},
    ),
    "a matrix of positions by positions": (
        [
            node("Resize", ["c", "", "", "s"], "a"),
            node("Reshape", ["a", "p"], "q"),
            node("Transpose", ["q"], "r", perm=[0, 2, 1]),
            node("MatMul", ["r", "q"], "b"),
        ],
        {"s": sizes(1, 8, 500, 500), "p": sizes(1, 8, -1)},
    ),
}

for _name, (_nodes, _weights) in ACTIVATIONS.items():

    @case(f"an activation of gigabytes by {_name}")
    def _activation(folder: Path, nodes: list[NodeProto] = _nodes, weights: Weights = _weights) -> list[Command]:
        return through_all(folder, network([*nodes, node("Relu", ["b"], "y")], weights))


@case("an input of terabytes")
def _(folder: Path) -> list[Command]:
    return through_all(folder, network([node("Relu", ["c"], "y")], {}, (1, 3, 10**6, 10**6)))


@case("a shape of a billion axes")
def _(folder: Path) -> list[Command]:
    model = network([node("Expand", ["c", "s"], "y")], {})
    model.graph.input.append(helper.make_tensor_value_info("s", TensorProto.INT64, [10**9]))
    return through_all(folder, model)


@case("a billion groups")
def _(folder: Path) -> list[Command]:
    return through_all(folder, network([node("Conv", ["c", "w"], "y", group=2**31 - 1)], {}))


@case("functions that double forty times")
def _(folder: Path) -> list[Command]:
    model = network([helper.make_node("f40", ["c"], ["y"], domain="own")], {})
    model.opset_import.append(helper.make_opsetid("own", 1))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    inner = [helper.make_node("Relu", ["a"], ["b"])]
    for k in range(41):
        model.functions.append(helper.make_function("own", f"f{k}", ["a"], ["b"], inner, imports))
        inner = [
            helper.make_node(f"f{k}", ["a"], ["m"], domain="own"),
            helper.make_node(f"f{k}", ["m"], ["b"], domain="own"),
        ]
    return through_all(folder, model)


# --- much of everything -------------------------------------------------------------------------


@case("a chain of nodes")
def _(folder: Path) -> list[Command]:
    nodes = [node("Relu", [f"t{k}" if k else "c"], f"t{k + 1}") for k in range(MANY)]
    return through_all(folder, network([*nodes, node("Relu", [f"t{MANY}"], "y")], {}))


@case("nodes side by side, joined by one")
def _(folder: Path) -> list[Command]:
    nodes = [node("Relu", ["c"], f"t{k}") for k in range(MANY // 2)]
    return through_all(folder, network([*nodes, node("Sum", [f"t{k}" for k in range(MANY // 2)], "y")], {}))


@case("ten thousand convolutions joined")
def _(folder: Path) -> list[Command]:
    nodes = [node("Conv", ["c", f"v{k}"], f"t{k}") for k in range(MANY // 10)]
    weights = {f"v{k}": np.ones((2, 8, 1, 1), np.float32) for k in range(MANY // 10)}
    last = {"u": np.ones((4, MANY // 5, 1, 1), np.float32)}
    joined = node("Concat", [f"t{k}" for k in range(MANY // 10)], "j", axis=1)
    return through_all(folder, network([*nodes, joined, node("Conv", ["j", "u"], "y")], {**weights, **last}))


@case("a node of fifty thousand inputs, all the same")
def _(folder: Path) -> list[Command]:
    return through_all(folder, network([node("Concat", ["c"] * (MANY // 2), "y", axis=1)], {}))


@case("a node that reads one constant fifty thousand times")
def _(folder: Path) -> list[Command]:
    v = np.arange(8, dtype=np.float32).reshape(8, 1, 1)
    return through_all(folder, network([node("Sum", ["c", *["v"] * (MANY // 2)], "y")], {"v": v}))


@case("a constant that all nodes read")
def _(folder: Path) -> list[Command]:
    nodes = [node("Add", [f"t{k}" if k else "c", "v"], f"t{k + 1}") for k in range(MANY // 5)]
    v = np.arange(8, dtype=np.float32).reshape(8, 1, 1)
    return through_all(folder, network([*nodes, node("Relu", [f"t{MANY // 5}"], "y")], {"v": v}))


@case("initializers")
def _(folder: Path) -> list[Command]:
    return through_all(
        folder, network([node("Relu", ["c"], "y")], {f"v{k}": np.ones(1, np.float32) for k in range(MANY)})
    )


@case("millions of empty initializers")
def _(folder: Path) -> list[Command]:
    graph = network([node("Relu", ["c"], "y")], {}).graph.SerializeToString() + b"\x2a\x00" * (100 * MANY)
    return through_all(folder, wrapped(graph))


@case("millions of empty nodes")
def _(folder: Path) -> list[Command]:
    graph = network([node("Relu", ["c"], "y")], {}).graph.SerializeToString() + b"\x0a\x00" * (100 * MANY)
    return through_all(folder, wrapped(graph))


@case("millions of empty attributes")
def _(folder: Path) -> list[Command]:
    broken = node("Relu", ["c"], "y").SerializeToString() + b"\x2a\x00" * (100 * MANY)
    graph = network([], {}).graph.SerializeToString() + b"\x0a" + varint(len(broken)) + broken
    return through_all(folder, wrapped(graph))


def wrapped(graph: bytes) -> bytes:
    """The graph's bytes as a model."""
    head = onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)]).SerializeToString()
    return head + b"\x3a" + varint(len(graph)) + graph


def varint(value: int) -> bytes:
    """As protobuf writes a length."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@case("inputs and outputs")
def _(folder: Path) -> list[Command]:
    model = network([node("Relu", ["c"], f"y{k}") for k in range(MANY // 10)], {}, out="y0")
    model.graph.output.extend(
        helper.make_tensor_value_info(f"y{k}", TensorProto.FLOAT, None) for k in range(1, MANY // 10)
    )
    model.graph.input.extend(helper.make_tensor_value_info(f"x{k}", TensorProto.FLOAT, [1]) for k in range(MANY // 10))
    return through_all(folder, model)


@case("descriptions of inner values")
def _(folder: Path) -> list[Command]:
    model = network([node("Relu", ["c"], "y")], {})
    model.graph.value_info.extend(
        helper.make_tensor_value_info(f"v{k}", TensorProto.FLOAT, [1, 2, 3]) for k in range(MANY)
    )
    return through_all(folder, model)


@case("additions that all reach back to the first tensor")
def _(folder: Path) -> list[Command]:
    nodes: list[NodeProto] = []
    for k in range(MANY // 20):
        nodes += [
            node("Conv", [f"t{k}" if k else "c", f"v{k % 10}"], f"a{k}"),
            node("Add", [f"a{k}", "c"], f"t{k + 1}"),
        ]
    weights = {f"v{k}": np.ones((8, 8, 1, 1), np.float32) for k in range(10)}
    return through_all(folder, network([*nodes, node("Relu", [f"t{MANY // 20}"], "y")], weights))


@case("additions of the end of a chain and its parts")
def _(folder: Path) -> list[Command]:
    chain = [node("Relu", [f"t{k}" if k else "c"], f"t{k + 1}") for k in range(MANY // 5)]
    sums = [node("Add", [f"t{MANY // 5}", f"t{k + 1}"], f"s{k}") for k in range(MANY // 5)]
    return through_all(folder, network([*chain, *sums, node("Sum", [f"s{k}" for k in range(MANY // 5)], "y")], {}))


@case("residual blocks")
def _(folder: Path) -> list[Command]:
    nodes: list[NodeProto] = []
    for k in range(MANY // 20):
        nodes += [
            node("Conv", [f"t{k}" if k else "c", f"v{k}"], f"a{k}"),
            node("Add", [f"a{k}", f"t{k}" if k else "c"], f"t{k + 1}"),
        ]
    weights = {f"v{k}": np.ones((8, 8, 1, 1), np.float32) for k in range(MANY // 20)}
    return through_all(folder, network([*nodes, node("Relu", [f"t{MANY // 20}"], "y")], weights))


@case("additions nested in one block")
def _(folder: Path) -> list[Command]:
    depth = MANY // 100
    down = [node("Conv", [f"t{k}" if k else "c", f"v{k}"], f"t{k + 1}") for k in range(depth)]
    up = [
        node("Add", [f"u{k}" if k else f"t{depth}", f"t{depth - k - 1}" if k < depth - 1 else "c"], f"u{k + 1}")
        for k in range(depth)
    ]
    weights = {f"v{k}": np.ones((8, 8, 1, 1), np.float32) for k in range(depth)}
    return through_all(folder, network([*down, *up, node("Relu", [f"u{depth}"], "y")], weights))


@case("a split into ten thousand")
def _(folder: Path) -> list[Command]:
    count = MANY // 10
    cut = helper.make_node("Split", ["a", "parts"], [f"p{k}" for k in range(count)], axis=1, name="cut")
    joined = node("Concat", [f"p{k}" for k in range(count)], "j", axis=1)
    weights = {
        "v": np.ones((count, 8, 1, 1), np.float32),
        "parts": np.ones(count, np.int64),
        "u": np.ones((4, count, 1, 1), np.float32),
    }
    return through_all(
        folder, network([node("Conv", ["c", "v"], "a"), cut, joined, node("Conv", ["j", "u"], "y")], weights)
    )


@case("an attribute of ten million numbers")
def _(folder: Path) -> list[Command]:
    return through_all(folder, network([node("Conv", ["c", "w"], "y", pads=[1] * (500 * MANY))], {}))


@case("names of megabytes")
def _(folder: Path) -> list[Command]:
    name = "n" * 5_000_000
    return through_all(folder, network([node("Relu", ["c"], name), node("Relu", [name], "y")], {name + "w": CONV}))


@case("nodes of one name")
def _(folder: Path) -> list[Command]:
    nodes = [helper.make_node("Relu", [f"t{k}" if k else "c"], [f"t{k + 1}"], name="same") for k in range(MANY // 5)]
    return through_all(folder, network([*nodes, node("Relu", [f"t{MANY // 5}"], "y")], {}))


@case("everything wrong at once")
def _(folder: Path) -> list[Command]:
    nodes = [node("Conv", [f"ghost{k}"], f"t{k}", strides=[0]) for k in range(MANY // 5)]
    return through_all(folder, network([*nodes, node("Relu", ["t0"], "y")], {}))


@case("documentation of a hundred megabytes")
def _(folder: Path) -> list[Command]:
    model = network([node("Relu", ["c"], "y")], {})
    model.doc_string = "d" * 10**8
    return through_all(folder, model)


@case("stored stages without end")
def _(folder: Path) -> list[Command]:
    model = network(
        [node("Conv", ["c", "v"], "a"), node("Add", ["a", "c"], "y")], {"v": np.ones((8, 8, 1, 1), np.float32)}
    )
    row = {"kind": "residual", "entry": "c", "exit": "y", "merge": "y"}
    model.metadata_props.add(key="fnatool.stages", value=json.dumps([[row] * MANY]))
    return through_all(folder, model)


@case("stored stages nested without end")
def _(folder: Path) -> list[Command]:
    model = network([node("Relu", ["c"], "y")], {})
    model.metadata_props.add(key="fnatool.stages", value="[" * 10**6)
    return through_all(folder, model)


@case("a cycle of many nodes")
def _(folder: Path) -> list[Command]:
    nodes = [node("Add", [f"t{(k - 1) % MANY}", "c"], f"t{k}") for k in range(MANY)]
    return through_all(folder, network([*nodes, node("Relu", ["t0"], "y")], {}))


# --- specs --------------------------------------------------------------------------------------

SPECS: Mapping[str, Callable[[], str]] = {
    "a key of ten megabytes": lambda: json.dumps({"version": 1, "knobs": {"k" * 10**7: 1}}),
    "a key of ten megabytes that resembles one": lambda: json.dumps(
        {"version": 1, "knobs": {"stage0." + "w" * 10**7: 1}}
    ),
    "a value of ten megabytes": lambda: json.dumps({"version": 1, "knobs": {"**.width*": "x" + "9" * 10**7}}),
    "a number of millions of digits": lambda: '{"version": 1, "knobs": {"stage0.depth": ' + "9" * 10**6 + "}}",
    "half a million keys": lambda: json.dumps({"version": 1, "knobs": {f"stage0.k{k}": 1 for k in range(25 * MANY)}}),
    "many patterns": lambda: json.dumps(
        {"version": 1, "knobs": {f"**.width{'*' * (k % 3)}?{k}*": "x0.5" for k in range(MANY)}}
    ),
    "many unknown keys of a document": lambda: json.dumps({"version": 1, **{f"k{k}": 1 for k in range(MANY)}}),
    "a key twice among many": lambda: (
        '{"version": 1, "knobs": {' + ",".join(f'"k{k}": 1' for k in [*range(MANY), 0]) + "}}"
    ),
    "a pattern that backtracks": lambda: json.dumps({"version": 1, "knobs": {"**" + "s*t*a*g*e" * 12 + "!": "x0.5"}}),
    "a pattern of stars": lambda: json.dumps({"version": 1, "knobs": {"*a" * 200 + "!": "x0.5"}}),
    "brackets without end": lambda: "[" * 10**7,
    "objects without end": lambda: '{"knobs":' * 10**6,
    "spaces without end": lambda: " " * 10**8,
    "a depth of all numbers": lambda: '{"version": 1, "knobs": {"stage0.depth": 1e400}}',
    "no number": lambda: '{"version": 1, "knobs": {"stage0.depth": NaN, "stage0.width": -Infinity}}',
    "the deepest and widest": lambda: json.dumps(
        {"version": 1, "knobs": {"**.depth": 256, "**.width": 65536, "**.hidden*": 65536}}
    ),
    "the widest": lambda: json.dumps({"version": 1, "knobs": {"**.width*": 65536, "**.hidden*": 65536}}),
    "the deepest": lambda: json.dumps({"version": 1, "knobs": {"**.depth": 256}}),
    "the largest kernels": lambda: json.dumps({"version": 1, "knobs": {"**.kernel*": 31}}),
}

for _name, _text in SPECS.items():

    @case(f"a spec of {_name}")
    def _spec(folder: Path, text: Callable[[], str] = _text) -> list[Command]:
        found = through_all(folder, bases.base("residual"), text())
        return [found[1], [*found[2], "--spec", str(folder / "spec.json")]]


# --- paths --------------------------------------------------------------------------------------


ODD = ("pipe", "loop", ".", "/dev/zero", "/dev/null", "/dev/tty", "/proc/self/mem", "no/such/file", "x" * 5000)
OUTPUTS = (
    "pipe", "loop", "same", "twin", "dangling", ".", "/dev/full", "/dev/null", "/proc/x.onnx", "/sys/x.onnx",
    "no/such/file", "model.onnx", "spec.json", "x" * 300,
)  # fmt: skip


def _odd(folder: Path) -> None:
    """A sound model and its spec, a pipe that nobody writes to, and a link to itself."""
    through_all(folder, bases.base("residual"))
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")


@case("a pipe, a device or a loop for a model")
def _(folder: Path) -> list[Command]:
    _odd(folder)
    (folder / "locked").write_bytes(b"")
    (folder / "locked").chmod(0)
    return [command for path in (*ODD, "locked", "/proc/self/maps") for command in commands(folder, model=path)]


@case("a pipe, a device or a loop for a spec")
def _(folder: Path) -> list[Command]:
    _odd(folder)
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "utf16").write_bytes('{"version": 1}'.encode("utf-16"))
    found: list[Command] = []
    for path in (*ODD, "binary", "utf16", "model.onnx"):
        found += [commands(folder, spec=path)[1], ["check", str(folder / "model.onnx"), "--spec", str(folder / path)]]
    return found


@case("a pipe, a device or a loop for an output")
def _(folder: Path) -> list[Command]:
    _odd(folder)
    (folder / "same").symlink_to("model.onnx")
    os.link(folder / "model.onnx", folder / "twin")
    (folder / "dangling").symlink_to("/no/such/folder/file")
    lines = [[*commands(folder, out=path)[1], *force] for path in OUTPUTS for force in ([], ["--force"])]
    return [*lines, *([*commands(folder)[1], "--report", str(folder / path)] for path in OUTPUTS)]


@case("weights in odd places")
def _(folder: Path) -> list[Command]:
    _odd(folder)
    (folder / "zero").symlink_to("/dev/zero")
    with (folder / "sparse").open("wb") as file:
        file.truncate(2**42)
    small, huge = (8, 3, 1, 1), (8, 3, 2**18, 2**17)
    found = []
    for k, (place, shape) in enumerate(
        (("pipe", small), ("loop", small), ("zero", small), ("sparse", huge), ("4.onnx", small))
    ):
        model = network([node("Relu", ["c"], "y")], {})
        weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        weight.external_data.add(key="location", value=place)
        model.graph.initializer[0].CopyFrom(weight)
        (folder / f"{k}.onnx").write_bytes(model.SerializeToString())
        found += commands(folder, model=f"{k}.onnx")
    return found


@case("a model of terabytes that is not there")
def _(folder: Path) -> list[Command]:
    _odd(folder)
    for name, start in (
        ("zeros.onnx", b""),
        ("weights.onnx", b"\x3a" + varint(2**41) + b"\x2a" + varint(2**40) + b"\x4a" + varint(2**39)),
    ):
        with (folder / name).open("wb") as file:
            file.write(start)
            file.truncate(2**42)
    return [*commands(folder, model="zeros.onnx"), *commands(folder, model="weights.onnx")]
