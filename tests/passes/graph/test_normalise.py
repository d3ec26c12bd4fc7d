"""The normal form: what it guarantees, and that the function stays the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from nets import bundled, graph, named
from onnx import TensorProto, helper, numpy_helper

from fnatool.runtime.verify import run_inner
from passes.errors import RefusedModel
from passes.graph.normalise import normalise
from passes.graph.view import View, view


def normal(made: gs.Graph) -> View:
    return view(normalise(made).graph)


def ops(made: gs.Graph) -> list[str]:
    return [node.op for node in normal(made).nodes]


def rows(seen: View) -> list[tuple[object, ...]]:
    return [(node.name, node.op, node.inputs, node.outputs, dict(node.attrs)) for node in seen.nodes]


def assert_the_same(made: gs.Graph, other: gs.Graph) -> None:
    """Node by node and tensor by tensor."""
    seen, again = view(made), view(other)
    assert rows(again) == rows(seen)
    assert again.constants.keys() == seen.constants.keys()
    for name in seen.constants:
        np.testing.assert_array_equal(again.values(name), seen.values(name), name, strict=True)


STANDARDISED = graph(
    """g (float[1,3,6,6] x) => (float[1,4,6,6] y) <int64[4] shape = {4,3,3,3}, int64[3] flat = {1,4,-1}> {
        v = Reshape (w, flat)
        s = BatchNormalization <epsilon = 0.001, training_mode = 0> (v, gain, zero, mean, var)
        u = Reshape (s, shape)
        y = Conv <pads = [1,1,1,1]> (x, u)
    }""",
    {"w": (4, 3, 3, 3), "gain": (4,), "zero": (4,), "mean": (4,), "var": (4,)},
)
"""A standardised convolution, as some exporters write it."""

IDENTITY = graph(
    """g (float[1,3,6,6] x) => (float[1,4,6,6] y) {
        i = Identity (w)
        j = Identity (i)
        a = Conv (x, j, b)
        k = Identity (b)
        c = Conv (a, v, k)
        y = Relu (c)
    }""",
    {"w": (4, 3, 1, 1), "v": (4, 4, 1, 1), "b": (4,)},
)

CONSTANTS = graph(
    """g (float[1,3,6,6] x) => (float[1,4] y) {
        low = Constant <value_float = -0.5> ()
        high = Constant <value = float {0.5}> ()
        axes = Constant <value_ints = [2,3]> ()
        a = Clip (x, low, high)
        b = ReduceMean <keepdims = 0> (a, axes)
        y = Gemm (b, w)
    }""",
    {"w": (3, 4)},
    18,
)

COMPUTED = graph(
    """g (float[1,3,6,6] x) => (float[1,4,6,6] y) <int64[4] shape = {4,3,1,1}, float[1] half = {0.5}> {
        ones = ConstantOfShape <value = float[1] {2.0}> (shape)
        w = Mul (ones, half)
        t = Transpose <perm = [1,0,2,3]> (v)
        wide = Cast <to = 11> (half)
        like = CastLike (wide, x)
        a = Conv (x, w)
        b = Conv (a, t)
        c = Mul (b, like)
        y = Conv (c, w)
    }""",
    {"v": (4, 3, 1, 1)},
)

SHAPES = graph(
    """g (float[N,3,6,6] x) => (float[N,M] y) <int64[1] two = {2}, int64[1] four = {4}, int64[1] rest = {-1}, int64 zero = {0}> {
        a = Conv (x, w)
        s = Shape (a)
        space = Slice (s, two, four)
        count = ReduceProd <keepdims = 1> (space)
        batch = Gather (s, zero)
        head = Unsqueeze (batch, zeros)
        flat = Concat <axis = 0> (head, rest)
        b = Reshape (a, flat)
        numbers = Concat <axis = 0> (head, four, count)
        c = Reshape (b, numbers)
        d = ReduceSum <keepdims = 0> (c, two)
        y = Relu (d)
    }""",
    {"w": (4, 3, 1, 1), "zeros": np.array([0])},
)

SPLIT = graph(
    """g (float[1,3,6,6] x) => (float[1,4,6,6] y) {
        a = Conv (x, w)
        p, q = Split <axis = 1> (a)
        y = Add (p, q)
    }""",
    {"w": (8, 3, 1, 1)},
)

SHARED = graph(
    """g (float[1,3,6,6] x) => (float[1,4,6,6] y) {
        a = Conv (x, w, b)
        p = Conv (a, head, b)
        q = Conv (p, head, b)
        r = Mul (q, scale)
        y = Add (r, scale)
    }""",
    {"w": (4, 3, 1, 1), "head": (4, 4, 1, 1), "b": (4,), "scale": np.full((1, 4, 1, 1), 1.5, np.float32)},
)


BROADCAST = graph(
    """g (float[1,3,8,8] x) => (float[1,4,8,8] y) <int64[4] wide = {1,16,8,8}, int64[4] times = {1,1,8,8}> {
        a = Conv (x, w)
        e = Expand (slope, wide)
        p = PRelu (a, e)
        t = Tile (scale, times)
        q = Mul (t, p)
        s = Shape (q)
        z = ConstantOfShape <value = float[1] {0.5}> (s)
        r = Add (z, q)
        y = Conv (r, v)
    }""",
    {"w": (16, 3, 1, 1), "v": (4, 16, 1, 1), "slope": (1, 16, 1, 1), "scale": (1, 16, 1, 1)},
)
"""Operands that are written out before operators that broadcast."""

WRITTEN_OUT = graph(
    """g (float[1,3,8,8] x) => (float[1,36,8,8] y) <int64[4] wide = {1,16,8,8}> {
        a = Conv (x, w)
        s = Mul (scale, scale)
        e = Expand (s, wide)
        b = Expand (scale, wide)
        c = Concat <axis = 1> (a, e, b)
        y = Relu (c)
    }""",
    {"w": (4, 3, 1, 1), "scale": (1, 16, 1, 1)},
)
"""What is broadcast for an operator that does not: two maps of 1,024 elements made of 16."""

JOINED = graph(
    """g (float[N,3,8,8] x) => (float[N,8,8,8] y) <int64[4] shape = {1,2,8,8}> {
        a = Conv (x, w)
        z = ConstantOfShape (shape)
        b = Concat <axis = 1> (zeros, a, z)
        y = Relu (b)
    }""",
    {"w": (5, 3, 1, 1), "zeros": np.zeros((1, 1, 8, 8), np.float32)},
)


def padded(mode: str, size: int, kernel: int, stride: int, dilation: int = 1) -> gs.Graph:
    return graph(
        f"""g (float[1,3,{size},{size + 1}] x) => (float[1,4,A,B] y) {{
            y = Conv <auto_pad = "{mode}", strides = [{stride},{stride}], dilations = [{dilation},{dilation}]> (x, w)
        }}""",
        {"w": (4, 3, kernel, kernel)},
    )


PADS = [
    ("SAME_UPPER", 7, 3, 2, 1),
    ("SAME_UPPER", 8, 3, 2, 1),
    ("SAME_LOWER", 8, 3, 2, 1),
    ("SAME_LOWER", 7, 4, 1, 1),
    ("SAME_UPPER", 9, 2, 3, 1),
    ("SAME_UPPER", 9, 3, 1, 2),
    ("VALID", 8, 3, 2, 1),
]
GRAPHS = {
    "standardised": STANDARDISED,
    "identity": IDENTITY,
    "constants": CONSTANTS,
    "computed": COMPUTED,
    "shapes": SHAPES,
    "split": SPLIT,
    "shared": SHARED,
    "broadcast": BROADCAST,
    "written out": WRITTEN_OUT,
    "joined": JOINED,
} | {" ".join(map(str, how)): padded(*how) for how in PADS if how[-1] == 1}


def outputs(made: gs.Graph) -> np.ndarray:
    x = made.inputs[0]
    shape = [size if isinstance(size, int) else 1 for size in x.shape]
    feeds = {x.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    return run_inner(made, feeds, [made.outputs[0].name], "it")[made.outputs[0].name]


@pytest.mark.parametrize("name", GRAPHS)
def test_the_function_is_unchanged(name: str) -> None:
    before, after = outputs(GRAPHS[name]), outputs(normalise(GRAPHS[name]).graph)
    assert np.ptp(before) > 0
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6 * np.ptp(before))


@pytest.mark.parametrize("name", GRAPHS)
def test_normalising_twice_is_normalising_once(name: str) -> None:
    once = normalise(GRAPHS[name]).graph
    twice = normalise(once)
    assert twice.notes == ()
    assert_the_same(once, twice.graph)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_graph_given_is_not_changed(name: str) -> None:
    made = GRAPHS[name]
    before = rows(view(made))
    arrays = {name: view(made).values(name).copy() for name in view(made).constants}
    normalise(made)
    assert rows(view(made)) == before
    for constant, array in arrays.items():
        np.testing.assert_array_equal(view(made).values(constant), array)


def test_what_is_in_normal_form_already_says_so() -> None:
    assert normalise(bundled()).notes == ()


def test_what_is_in_normal_form_already_is_not_copied_object_by_object(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bundled()
    monkeypatch.setattr(gs, "Node", None)
    found = normalise(made)
    assert [node.name for node in found.seen.nodes] == [node.name for node in view(made).nodes]
    monkeypatch.undo()
    assert found.graph.nodes[0] is not made.nodes[0]
    assert found.graph is found.graph


def test_constant_nodes_become_initializers_of_the_same_name() -> None:
    seen = normal(CONSTANTS)
    assert [node.op for node in seen.nodes] == ["Clip", "ReduceMean", "Gemm"]
    assert seen.values("low").tolist() == -0.5
    assert seen.values("axes").tolist() == [2, 3]
    assert seen.values("axes").dtype == np.int64


def test_the_notes_say_how_many_places_changed() -> None:
    assert normalise(CONSTANTS).notes == ("constants made initializers: 3",)


def test_a_constant_node_without_numbers_is_refused_by_name() -> None:
    made = graph(
        """g (float[1,3] x) => (float[1,3] y) {
            [odd] s = Constant <value_string = "text"> ()
            y = Relu (x)
        }"""
    )
    with pytest.raises(RefusedModel, match="'odd'"):
        normalise(made)


def test_weights_behind_identities_are_read_directly() -> None:
    seen = normal(IDENTITY)
    assert [node.op for node in seen.nodes] == ["Conv", "Conv", "Relu"]
    assert seen.by_name["a"].inputs == ("x", "w", "b")


def test_an_identity_that_makes_a_graph_output_stays() -> None:
    made = graph(
        "g (float[1,3,4,4] x) => (float[4,3,1,1] y, float[1,4,4,4] z) { y = Identity (w) z = Conv (x, w) }",
        {"w": (4, 3, 1, 1)},
    )
    assert ops(made) == ["Identity", "Conv"]


def test_an_identity_of_an_activation_stays() -> None:
    made = graph("g (float[1,3,4,4] x) => (float[1,4,4,4] z) { y = Identity (x) z = Conv (y, w) }", {"w": (4, 3, 1, 1)})
    assert ops(made) == ["Identity", "Conv"]


def test_weight_standardisation_is_folded_to_its_values() -> None:
    seen = normal(STANDARDISED)
    assert [node.op for node in seen.nodes] == ["Conv"]
    w, gain, zero, mean, var = (view(STANDARDISED).values(name) for name in ("w", "gain", "zero", "mean", "var"))
    expected = ((w.reshape(4, -1).T - mean) / np.sqrt(var + 0.001) * gain + zero).T.reshape(w.shape)
    np.testing.assert_allclose(seen.values(seen.nodes[0].inputs[1]), expected, rtol=1e-4, atol=1e-6)


def test_weights_computed_from_a_shape_are_folded() -> None:
    seen = normal(COMPUTED)
    np.testing.assert_array_equal(seen.values(seen.by_name["a"].inputs[1]), np.ones((4, 3, 1, 1), np.float32))


def test_a_transposed_weight_is_folded() -> None:
    seen = normal(COMPUTED)
    assert seen.values(seen.by_name["b"].inputs[1]).shape == (3, 4, 1, 1)


def test_a_cast_like_an_activation_needs_its_type_only() -> None:
    seen = normal(COMPUTED)
    assert [node.op for node in seen.nodes] == ["Conv", "Conv", "Mul", "Conv"]
    assert seen.values(seen.by_name["c"].inputs[1]).dtype == np.float32


def test_static_shape_arithmetic_becomes_numbers() -> None:
    seen = normal(SHAPES)
    assert not {"Slice", "ReduceProd"} & {node.op for node in seen.nodes}
    numbers = seen.by_name["numbers"]
    assert seen.values(numbers.inputs[2]).tolist() == [36]


def test_a_cast_to_the_type_there_is_already_is_none() -> None:
    made = graph(
        """g (float[1,3,8,8] x) => (float[1,4,8,8] y) {
            a = Conv (x, w) l = CastLike (a, x) c = Cast <to = 1> (l) r = Relu (c) h = CastLike (r, half) f = Cast <to = 1> (h) y = Relu (f)
        }""",
        {"w": (4, 3, 1, 1), "half": np.zeros(1, np.float16)},
    )
    assert ops(made) == ["Conv", "Relu", "Cast", "Cast", "Relu"]
    np.testing.assert_array_equal(outputs(normalise(made).graph), outputs(made))


def elements(seen: View) -> int:
    return sum(seen.values(name).size for name in seen.constants)


def test_an_operator_that_broadcasts_reads_what_was_to_be_broadcast() -> None:
    seen = normal(BROADCAST)
    assert [node.op for node in seen.nodes] == ["Conv", "PRelu", "Mul", "Add", "Conv"]
    assert seen.values(seen.by_name["p"].inputs[1]).shape == (1, 16, 1, 1)
    assert seen.values(seen.by_name["r"].inputs[0]).shape == (1, 1, 1, 1)


def test_both_operands_are_not_made_narrow() -> None:
    text = """g (float[1,2,1,1] x) => (float[1,2,8,8] y) <int64[4] wide = {1,2,8,8}> {
        a = Expand (x, wide) b = Expand (s, wide) y = Add (a, b)
    }"""
    made = graph(text, {"s": (1, 2, 1, 1)})
    assert ops(made).count("Expand") == 1
    np.testing.assert_array_equal(outputs(normalise(made).graph), outputs(made))


def test_an_operand_that_gives_a_result_its_size_stays_broadcast() -> None:
    made = graph(
        "g (float[1,2,1,1] x) => (float[1,2,8,8] y) { e = Expand (x, wide) y = Relu (e) }",
        {"wide": np.array([1, 2, 8, 8])},
    )
    assert ops(made) == ["Expand", "Relu"]


def test_what_would_be_larger_than_its_sources_is_not_written_out() -> None:
    seen = normal(WRITTEN_OUT)
    assert [node.op for node in seen.nodes] == ["Conv", "Expand", "Expand", "Concat", "Relu"]
    assert elements(seen) < elements(view(WRITTEN_OUT)) + 32
    assert seen.values("s").shape == (1, 16, 1, 1)  # but for what it is made of


def test_a_weight_is_written_out_whatever_it_is_made_of() -> None:
    text = (
        "g (float[1,16,8,8] x) => (float[1,32,8,8] y) { w = ConstantOfShape <value = float[1] {0.5}> (s) y = "
        "Conv (x, w) }"
    )
    seen = normal(graph(text, {"s": np.array([32, 16, 1, 1])}))
    assert seen.values("w").shape == (32, 16, 1, 1)


def test_zeros_that_are_joined_to_a_tensor_are_padded() -> None:
    seen = normal(JOINED)
    assert [node.op for node in seen.nodes] == ["Conv", "Pad", "Relu"]
    assert seen.values(seen.by_name["b"].inputs[1]).tolist() == [0, 1, 0, 0, 0, 2, 0, 0]


def test_other_numbers_that_are_joined_stay() -> None:
    made = graph(
        "g (float[1,2,8,8] x) => (float[1,3,8,8] y) { y = Concat <axis = 1> (x, c) }",
        {"c": np.full((1, 1, 8, 8), -0.0, np.float32)},
    )
    assert ops(made) == ["Concat"]


def test_sizes_that_are_folded_leave_constants_to_compute_with() -> None:
    made = graph(
        """g (float[1,3,8,8] x) => (float[1,4,8,8] y) {
            a = Conv (x, w) s = Shape (a) n = ReduceProd <keepdims = 0> (s) f = Cast <to = 1> (n) v = Div (u, f) y = Conv (a, v)
        }""",
        {"w": (4, 3, 1, 1), "u": (4, 4, 1, 1)},
    )
    assert ops(made) == ["Conv", "Conv"]


def test_nothing_that_depends_on_a_free_batch_is_folded() -> None:
    seen = normal(SHAPES)
    assert {"Shape", "Gather", "Unsqueeze", "Concat"} <= {node.op for node in seen.nodes}


def test_a_static_batch_is_folded_too() -> None:
    made = SHAPES.copy()
    made.inputs[0].shape = [2, 3, 6, 6]
    assert "Shape" not in ops(made)
    assert outputs(normalise(made).graph).shape == (2, 4)


def test_small_tensors_belong_to_one_layer_each() -> None:
    """p and q share their weight: they are one layer, with one bias, which is not that of a."""
    seen = normal(SHARED)
    a, p, q = (seen.by_name[name].inputs[2] for name in "apq")
    assert a == "b"
    assert p == q != a
    np.testing.assert_array_equal(seen.values(p), seen.values("b"))


def test_uniform_tensors_of_several_axes_are_unshared_too() -> None:
    seen = normal(SHARED)
    assert seen.by_name["r"].inputs[1] != seen.by_name["y"].inputs[1]


def test_weights_with_content_stay_shared() -> None:
    seen = normal(SHARED)
    assert seen.by_name["p"].inputs[1] == seen.by_name["q"].inputs[1] == "head"


def test_scalars_stay_shared() -> None:
    seen = normal(bundled())
    assert len(seen.readers["six"]) > 1


def test_a_size_read_by_two_reshapes_becomes_two() -> None:
    made = graph(
        """g (float[1,3,4,4] x) => (float[1,4,16] y, float[1,4,16] z) <int64[3] s = {1,4,16}> {
            a = Conv (x, w)
            b = Conv (x, v)
            y = Reshape (a, s)
            z = Reshape (b, s)
        }""",
        {"w": (4, 3, 1, 1), "v": (4, 3, 1, 1)},
    )
    seen = normal(made)
    assert seen.by_name["y"].inputs[1] != seen.by_name["z"].inputs[1]


@pytest.mark.parametrize("how", PADS)
def test_auto_pad_becomes_the_pads_it_stands_for(how: tuple[str, int, int, int, int]) -> None:
    mode, size, kernel, stride, dilation = how
    node = normal(padded(*how)).by_name["y"]
    expected = []
    for extent in (size, size + 1):
        count = -(-extent // stride)
        total = 0 if mode == "VALID" else max((count - 1) * stride + (kernel - 1) * dilation + 1 - extent, 0)
        small, large = total // 2, total - total // 2
        expected.append((small, large) if mode == "SAME_UPPER" else (large, small))
    assert "auto_pad" not in node.attrs
    assert node.attrs["pads"] == [expected[0][0], expected[1][0], expected[0][1], expected[1][1]]


def test_the_odd_pad_goes_behind_for_upper_and_before_for_lower() -> None:
    upper, lower = (normal(padded(mode, 8, 3, 2)).by_name["y"].attrs["pads"] for mode in ("SAME_UPPER", "SAME_LOWER"))
    assert upper == [0, 1, 1, 1]
    assert lower == [1, 1, 0, 1]


def test_auto_pad_stays_where_the_image_size_is_free() -> None:
    made = padded("SAME_UPPER", 8, 3, 2)
    made.inputs[0].shape = [1, 3, "H", "W"]
    assert normal(made).by_name["y"].attrs["auto_pad"] == "SAME_UPPER"


def test_a_pooling_with_auto_pad_gets_pads_too() -> None:
    line = 'y = MaxPool <auto_pad = "SAME_LOWER", kernel_shape = [2,2], strides = [2,2]> (x)'
    made = graph(f"g (float[1,3,5,5] x) => (float[1,3,3,3] y) {{ {line} }}")
    assert normal(made).by_name["y"].attrs["pads"] == [1, 1, 0, 0]


def test_an_equal_split_says_its_sizes() -> None:
    node = normal(SPLIT).by_name["p"]
    assert normal(SPLIT).values(node.inputs[1]).tolist() == [4, 4]


def test_an_equal_split_of_an_early_opset_says_its_sizes_in_the_attribute() -> None:
    made = graph("g (float[1,9,4,4] x) => (float[1,3,4,4] p) { p, q, r = Split <axis = 1> (x) }", opset=11)
    assert normal(made).by_name["p"].attrs["split"] == [3, 3, 3]


def test_an_uneven_split_by_count_says_its_sizes() -> None:
    made = graph(
        "g (float[1,7,4,4] x) => (float[1,3,4,4] p) { p, q, r = Split <axis = 1, num_outputs = 3> (x) }", opset=18
    )
    seen = normal(made)
    assert seen.values(seen.by_name["p"].inputs[1]).tolist() == [3, 3, 1]
    assert "num_outputs" not in seen.by_name["p"].attrs


def test_quantised_weights_are_not_folded() -> None:
    made = graph(
        """g (float[1,3,4,4] x) => (float[1,4,4,4] y) {
            f = DequantizeLinear (w, scale, point)
            y = Conv (x, f)
        }""",
        {"w": np.ones((4, 3, 1, 1), np.int8), "scale": np.array(0.1, np.float32), "point": np.array(0, np.int8)},
    )
    assert ops(made) == ["DequantizeLinear", "Conv"]


def test_random_numbers_are_not_folded() -> None:
    made = graph("g (float[1,3] x) => (float[1,3] y) { r = RandomNormalLike (c) y = Add (x, r) }", {"c": (1, 3)})
    assert ops(made) == ["RandomNormalLike", "Add"]


def test_a_graph_inside_a_node_is_refused_by_name() -> None:
    end = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "branch", [], [end])
    node = helper.make_node("If", ["yes"], ["y"], name="choice", then_branch=branch, else_branch=branch)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("x", "y")]
    body = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(np.array(True), "yes")])
    made = named(helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)]))
    with pytest.raises(RefusedModel, match=r"'choice' \(If\) has a graph inside"):
        normalise(made)


def test_a_cycle_is_refused_by_name() -> None:
    a, b = gs.Variable("a", np.float32), gs.Variable("b", np.float32)
    made = gs.Graph(
        [gs.Node("Relu", "first", inputs=[b], outputs=[a]), gs.Node("Relu", "second", inputs=[a], outputs=[b])], [], [b]
    )
    with pytest.raises(RefusedModel, match=r"cycle through node '(first|second)'"):
        normalise(made)


def test_a_constant_expression_that_cannot_be_computed_is_refused_by_name() -> None:
    made = graph(
        """g (float[1,3] x) => (float[1,3] y) <int64[2] s = {7, 7}> {
            [broken] r = Reshape (c, s)
            y = MatMul (x, r)
        }""",
        {"c": (3, 3)},
    )
    with pytest.raises(RefusedModel, match="'broken'"):
        normalise(made)


def test_a_folded_tensor_of_enormous_size_is_refused_before_memory_is_taken() -> None:
    made = graph(
        """g (float[1,3] x) => (float[A,B] y) <int64[2] s = {3, 900000000}> {
            [huge] r = ConstantOfShape (s)
            y = MatMul (x, r)
        }"""
    )
    with pytest.raises(RefusedModel, match="'huge'"):
        normalise(made)


def test_folded_tensors_have_one_budget_together() -> None:
    chain = " ".join(f"a{k} = Neg (a{k - 1})" for k in range(1, 20))
    made = graph(
        f"g (float[1,3] x) => (float[A,B] y) <int64[2] s = {{3, 9000000}}> {{ a0 = ConstantOfShape (s) {chain} "
        "y = MatMul (x, a19) }"
    )
    with pytest.raises(RefusedModel, match="enormous"):
        normalise(made)


def test_a_matrix_product_of_constants_that_would_take_minutes_is_refused() -> None:
    made = graph(
        """g (float[1,9000] x) => (float[A,B] y) <int64[2] s = {9000, 9000}> {
            a = ConstantOfShape (s) b = MatMul (a, a) y = MatMul (x, b)
        }"""
    )
    with pytest.raises(RefusedModel, match="'b'"):
        normalise(made)


def test_an_operator_of_unknown_effort_is_left_as_it_is() -> None:
    made = graph(
        """g (float[1,1,4,4] x) => (float[1,1,A,B] y) <float[4] scales = {1.0, 1.0, 500.0, 500.0}> {
            big = Resize (c, none, scales) y = Mul (x, big)
        }""",
        {"c": (1, 1, 8, 8), "none": np.zeros(0, np.float32)},
    )
    assert [node.op for node in normalise(made).graph.nodes] == ["Resize", "Mul"]


def test_a_mean_of_nothing_is_refused_by_name() -> None:
    made = graph(
        "g (float[1,3] x) => (float[A,B] y) { m = ReduceMean (c) y = Mul (x, m) }", {"c": np.zeros((0, 3), np.float32)}
    )
    with pytest.raises(RefusedModel, match="Mean of empty slice"):
        normalise(made)


def test_an_empty_list_says_nothing() -> None:
    made = graph("g (float[1,3,8,8] x) => (float[1,4,8,8] y) { y = Conv (x, w) }", {"w": (4, 3, 1, 1)})
    made.nodes[0].attrs["strides"] = []
    assert normalise(made).graph.nodes[0].attrs == {}


def test_metadata_of_the_producer_stays() -> None:
    made = SPLIT.copy()
    made.producer_name, made.producer_version = "maker", "7"
    kept = normalise(made).graph
    assert (kept.producer_name, kept.producer_version) == ("maker", "7")


def test_the_normal_form_is_a_valid_model() -> None:
    for made in GRAPHS.values():
        onnx.checker.check_model(gs.export_onnx(normalise(made).graph))
