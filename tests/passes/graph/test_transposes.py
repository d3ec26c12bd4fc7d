"""Transposes around layers: inverse ones meet and are gone, the function stays, and the network's stages are seen
again.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from nets import Net, graph

from fnatool.runtime.verify import run_inner
from passes.graph.normalise import normalise
from passes.graph.view import view
from passes.network.analyse import analyse
from passes.target.apply import apply
from passes.target.planner import plan
from passes.target.spec import Spec

FIRST, LAST = [0, 3, 1, 2], [0, 2, 3, 1]  # channels first, channels last


def ops(made: gs.Graph) -> list[str]:
    return [node.op for node in view(normalise(made).graph).nodes]


def assert_computes_the_same(made: gs.Graph) -> None:
    normal = normalise(made).graph
    x = made.inputs[0]
    shape = [size if isinstance(size, int) else 2 for size in x.shape]
    feeds = {x.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    names = [tensor.name for tensor in made.outputs]
    before, after = run_inner(made, feeds, names, "it"), run_inner(normal, feeds, names, "it")
    for name in names:
        assert before[name].shape == after[name].shape
        np.testing.assert_allclose(after[name], before[name], rtol=1e-5, atol=1e-5 * np.ptp(before[name]))


def between(line: str, **constants: np.ndarray | tuple[int, ...]) -> gs.Graph:
    """A convolution, channels last, the line (which makes q of p), and a convolution after q is channels first
    again.
    """
    text = f"""g (float[N,3,8,8] x) => (float[A,B,C,D] y) {{
        a = Conv (x, w) p = Transpose <perm = [0,2,3,1]> (a) {line} r = Transpose <perm = [0,3,1,2]> (q) y = Conv (r, v)
    }}"""
    return graph(text, {"w": (4, 3, 1, 1), "v": (5, 4, 1, 1), **constants}, 18)


MOVED = [
    ("q = Relu (p)", {}, ["Relu"]),
    ("q = Add (p, c)", {"c": (4,)}, ["Add"]),
    ("q = Mul (c, p)", {"c": (1, 8, 8, 4)}, ["Mul"]),
    ("q = Sub (p, c)", {"c": np.array(0.5, np.float32)}, ["Sub"]),
    ("q = PRelu (p, c)", {"c": (1, 1, 4)}, ["PRelu"]),
    ("n = Sigmoid (p) q = Mul (n, p)", {}, ["Sigmoid", "Mul"]),
    ("q = Pad (p, c)", {"c": np.array([0, 1, 2, 0, 0, 0, 1, 0])}, ["Pad"]),
    ('q = Pad <mode = "reflect"> (p, c)', {"c": np.array([0, 1, 2, 0, 0, 0, 1, 0])}, ["Pad"]),
    ("m = ReduceMean (p, sp) q = Mul (p, m)", {"sp": np.array([1, 2])}, ["ReduceMean", "Mul"]),
    ("m = ReduceMax (p, ch) q = Mul (p, m)", {"ch": np.array([-1])}, ["ReduceMax", "Mul"]),
    ("q = Softmax <axis = 2> (p)", {}, ["Softmax"]),
    ("l, m = Split <axis = 3, num_outputs = 2> (p) q = Concat <axis = -1> (m, l)", {}, ["Split", "Concat"]),
    (
        "l = Slice (p, s, e, z) q = Relu (l)",
        {"s": np.array([0, 1]), "e": np.array([4, 4]), "z": np.array([1, 2])},
        ["Slice", "Relu"],
    ),
    ("l = Slice (p, s, e) q = Relu (l)", {"s": np.array([0, 1]), "e": np.array([9, 4])}, ["Slice", "Relu"]),
    ('q = Resize <mode = "nearest"> (p, , c)', {"c": np.array([1, 2, 3, 1], np.float32)}, ["Resize"]),
    ("q = Concat <axis = 1> (p, c)", {"c": (1, 2, 8, 4)}, ["Concat"]),
    ("q = Clip (p, lo, hi)", {"lo": np.array(0, np.float32), "hi": np.array(0.5, np.float32)}, ["Clip"]),
]


@pytest.mark.parametrize(("line", "constants", "expected"), MOVED, ids=[row[0] for row in MOVED])
def test_what_stands_between_inverse_transposes_is_computed_channels_first(
    line: str, constants: dict[str, np.ndarray | tuple[int, ...]], expected: list[str]
) -> None:
    made = between(line, **constants)
    if "Concat <axis = 1>" in line:
        made.inputs[0].shape = [1, 3, 8, 8]
    assert ops(made) == ["Conv", *expected, "Conv"]
    assert normalise(normalise(made).graph).notes == ()
    if made.inputs[0].shape[0] == 1:
        made.inputs[0].shape = [1, 3, 8, 8]
    assert_computes_the_same(made)


KEPT = [
    "q = MatMul (p, c)",
    "q = LayerNormalization (p, s)",
    "n = Transpose <perm = [0,2,1,3]> (p) q = Add (p, n)",
]


@pytest.mark.parametrize("line", KEPT)
def test_what_means_its_last_axis_stays(line: str) -> None:
    made = between(line, c=(4, 4), s=(4,))
    assert ops(made) == [node.op for node in view(made).nodes]
    assert_computes_the_same(made)


def test_transposes_that_nothing_cancels_stay_where_they_are() -> None:
    text = """g (float[1,8,8,3] x) => (float[A,B,C,D] y) {
        t = Transpose <perm = [0,3,1,2]> (x) a = Conv (t, w) b = Relu (a) s = Transpose <perm = [0,2,3,1]> (b) y = Sigmoid (s)
    }"""
    made = graph(text, {"w": (4, 3, 1, 1)})
    assert normalise(made).notes == ()


def test_the_sizes_of_a_transposed_tensor_are_read_before_it() -> None:
    line = "s = Shape (p) b = Gather (s, z) k = Concat <axis = 0> (b, rest) f = Reshape (p, k) q = Add (f, p)"
    made = between(line, z=np.array([0]), rest=np.array([8, 8, 4]))
    assert_computes_the_same(made)
    free = between("s = Shape (p) h = Gather (s, z) f = Cast <to = 1> (h) q = Mul (p, f)", z=np.array(0))
    assert "Transpose" not in ops(free)
    assert_computes_the_same(free)


def test_an_output_keeps_its_axes() -> None:
    made = graph(
        """g (float[1,8,8,3] x) => (float[1,8,8,4] p, float[A,B,C,D] y) {
            t = Transpose <perm = [0,3,1,2]> (x) a = Conv (t, w) p = Transpose <perm = [0,2,3,1]> (a)
            q = Relu (p) r = Transpose <perm = [0,3,1,2]> (q) y = Conv (r, v)
        }""",
        {"w": (4, 3, 1, 1), "v": (5, 4, 1, 1)},
    )
    assert ops(made).count("Transpose") == 2
    assert_computes_the_same(made)


def test_a_shared_constant_is_turned_for_those_that_need_it() -> None:
    made = between("n = Mul (p, c) q = Add (n, c)", c=np.arange(8, dtype=np.float32).reshape(8, 1))
    assert ops(made) == ["Conv", "Mul", "Add", "Conv"]
    assert_computes_the_same(made)


def test_a_grey_image_turned_by_reshape_is_transposed() -> None:
    made = graph(
        "g (float[N,8,8,1] x) => (float[N,4,6,6] y) { t = Reshape (x, s) y = Conv (t, w) }",
        {"s": np.array([-1, 1, 8, 8]), "w": (4, 1, 3, 3)},
    )
    assert ops(made) == ["Transpose", "Conv"]
    assert_computes_the_same(made)
    image = analyse(made).image
    assert (image.axes, image.size, image.why) == ((1, 2), (8, 8), None)


def test_a_reshape_that_orders_elements_anew_stays() -> None:
    made = graph("g (float[1,4,1,6] x) => (float[1,6,4,1] y) { y = Reshape (x, s) }", {"s": np.array([1, 6, 4, 1])})
    assert ops(made) == ["Reshape"]


class Last(Net):
    """Writes a network that keeps channels last and transposes around each convolution, as Keras does with torch behind
    it.
    """

    def around(self, x: str, out: str, width: int, kernel: int, *, stride: int, group: int) -> str:
        """A convolution between Transposes; with a stride behind a Pad."""
        if stride == 2:
            self.constant(f"{out}.pads", [0, 0, 0, 0, 0, 1, 1, 0], np.int64)
            x = self.op("Pad", f"{out}.p", x, f"{out}.pads")
        first = self.op("Transpose", f"{out}.t", x, perm=FIRST)
        made = self.conv(first, f"{out}.c", width, kernel, stride=stride, group=group)
        if stride == 2:
            next(a for a in self.nodes[-1].attribute if a.name == "pads").ints[:] = [0, 0, 0, 0]
        self.op("Transpose", f"{out}.l", made, perm=LAST)
        for op, part in (("Sub", "mean"), ("Mul", "gamma"), ("Add", "beta")):
            self.constant(f"{out}.{part}.v", self.rng.uniform(0.5, 1.5, (1, 1, 1, width)))
            made = self.op(op, f"{out}.{part}", f"{out}.l" if part == "mean" else made, f"{out}.{part}.v")
        self.channels[made] = width
        return made

    def relu6(self, x: str) -> str:
        self.constant("low", 0.0)
        self.constant("high", 6.0)
        return self.op("Clip", f"{x}.r", x, "low", "high")


# as MobileNetV2's
MOBILENET = ((1, 8, 1, 1), (6, 12, 2, 2), (6, 16, 3, 2), (6, 20, 4, 2), (6, 24, 3, 1), (6, 28, 3, 2), (6, 32, 1, 1))
"""expansion, channels, blocks, stride"""


def mobilenet() -> gs.Graph:
    net = Last(size=64)
    x = net.relu6(net.around("x", "stem", 8, 3, stride=2, group=1))
    for i, (expansion, width, blocks, stride) in enumerate(MOBILENET):
        for j in range(blocks):
            name, entry, hidden = f"s{i}b{j}", x, net.channels[x] * expansion
            if expansion > 1:
                x = net.relu6(net.around(x, f"{name}.up", hidden, 1, stride=1, group=1))
            x = net.relu6(net.around(x, f"{name}.mid", hidden, 3, stride=stride if j == 0 else 1, group=0))
            x = net.around(x, f"{name}.down", width, 1, stride=1, group=1)
            if j:
                x = net.op("Add", f"{name}.add", x, entry)
                net.channels[x] = width
    net.op("ReduceMean", "pool", net.relu6(net.around(x, "last", 40, 1, stride=1, group=1)), axes=[1, 2], keepdims=0)
    net.constant("fc", net.rng.standard_normal((40, 5)))
    net.op("MatMul", "y", "pool", "fc")
    proto = net.model()
    for dim, size in zip(proto.graph.input[0].type.tensor_type.shape.dim, (1, 64, 64, 3), strict=True):
        dim.dim_value = size
    for node in proto.graph.node:
        node.name = node.output[0]
    return gs.import_onnx(proto)


def test_a_network_with_transposes_around_every_layer_has_its_stages_and_exact_depth() -> None:
    made = mobilenet()
    found = analyse(made)
    assert sum(node.op == "Transpose" for node in found.view.nodes) == 1
    assert [len(stage.blocks) for stage in found.stages] == [1, 2, 3, 4, 3, 3, 1]
    assert {found.knobs[f"stage{i}.depth"].growth for i in range(1, 6)} == {"exact"}
    assert (found.image.axes, found.image.size) == ((1, 2), (64, 64))
    assert found.strides.value == 32
    assert_computes_the_same(made)
    grown = apply(made, plan(found, Spec({"stage3.depth": "+1", "stage2.width": "x1.5"}), strategy="preserve"))
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype(np.float32)}
    before, after = (run_inner(one, feeds, ["y"], "it")["y"] for one in (made, grown))
    np.testing.assert_allclose(after, before, atol=1e-5 * np.ptp(before))
