"""Sizes of tensors, values of small ones, where each number is written, and what depends on a free dimension."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from nets import bundled, graph

from passes.errors import RefusedModel, UserError
from passes.graph.shapes import infer
from passes.graph.tensors import Shapes, Value
from passes.graph.view import view
from passes.network.analyse import analyse
from passes.network.profile import profile


def shapes(made: gs.Graph, **sizes: tuple[int, ...]) -> Shapes:
    return infer(view(made), sizes or None)


def known(line: str, x: str = "float[N,3,6,8] x", opset: int = 17, **constants: np.ndarray) -> Value:
    """The value v after s = Shape(x) and the lines given."""
    return shapes(graph(f"g ({x}) => (float[N] y) {{ s = Shape (x) {line} y = Relu (x) }}", constants, opset)).values[
        "v"
    ]


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


# --- sizes of inputs ----------------------------------------------------------------------------

CONV = "g (float[{}] x) => (float[A,B,C,D] y) {{ y = Conv <group = 2> (x, w) }}"


@pytest.mark.parametrize(
    ("declared", "probe", "free"),
    [
        ("2,6,9,9", (2, 6, 9, 9), ()),
        ("N,6,9,9", (1, 6, 9, 9), (0,)),
        ("N,C,H,W", (1, 6, 224, 224), (0, 1, 2, 3)),  # channels from the first convolution: 3 columns × 2 groups
        ("N,6,H,9", (1, 6, 224, 9), (0, 2)),
    ],
)
def test_free_dimensions_take_probe_sizes(declared: str, probe: tuple[int, ...], free: tuple[int, ...]) -> None:
    found = shapes(graph(CONV.format(declared), {"w": (4, 3, 1, 1)}))
    assert found.shapes["x"] == probe
    assert found.free_axes["x"] == free
    assert found.free_space == any(axis > 0 for axis in free)


def test_a_size_given_by_the_user_is_no_guess() -> None:
    found = shapes(graph(CONV.format("N,6,H,W"), {"w": (4, 3, 1, 1)}), x=(1, 6, 32, 48))
    assert found.shapes["y"] == (1, 4, 32, 48)
    assert not found.free_space


def test_a_batch_given_by_the_user_still_counts_as_free() -> None:
    made = graph("g (float[N,3,6,8] x) => (float[N] y) { v = Shape (x) y = Relu (x) }")
    assert shapes(made, x=(4, 3, 6, 8)).values["v"].free.tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"z": (1, 6, 9, 9)}, "--input names 'z', but the inputs are: x"),
        ({"x": (1, 6, 9)}, "--input gives 'x' 3 dimensions, the model has 4"),
        ({"x": (1, 5, 9, 9)}, "--input gives 'x' size 5 on axis 1, but the model fixes it to 6"),
    ],
)
def test_sizes_that_contradict_the_model_are_the_user_s_mistake(
    sizes: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        infer(view(graph(CONV.format("N,6,H,W"), {"w": (4, 3, 1, 1)})), sizes)


def test_an_input_without_a_shape_asks_for_one() -> None:
    made = graph(CONV.format("N,6,H,W"), {"w": (4, 3, 1, 1)})
    made.inputs[0].shape = None
    with pytest.raises(RefusedModel, match="input 'x' has no shape; give one with --input x=1x3x224x224"):
        shapes(made)
    assert shapes(made, x=(1, 6, 8, 8)).shapes["y"] == (1, 4, 8, 8)


def test_an_inconsistent_node_is_refused_by_name() -> None:
    made = graph("g (float[1,5,4,4] x) => (float[A,B] y) { [wrong] y = MatMul (x, w) }", {"w": (3, 2)})
    with pytest.raises(RefusedModel, match=r"node 'wrong' \(MatMul\) does not fit its inputs"):
        shapes(made)


def test_every_tensor_of_the_bundled_seed_has_a_shape() -> None:
    seen = view(bundled())
    found = infer(seen)
    assert {name for name in seen.producer if name not in found.shapes} == set()
    assert found.shapes["stem/out"][1] == 32


# --- values -------------------------------------------------------------------------------------

VALUES = [
    ("v = Identity (s)", {}, [1, 3, 6, 8]),
    ("v = Gather (s, i)", {"i": ints(1, 3)}, [3, 8]),
    ("v = Gather (s, i)", {"i": np.array(-1)}, 8),
    ("v = Slice (s, a, b)", {"a": ints(1), "b": ints(3)}, [3, 6]),
    ("v = Slice (s, a, b, z, m)", {"a": ints(-1), "b": ints(-9), "z": ints(0), "m": ints(-1)}, [8, 6, 3, 1]),
    ("v = Slice (s, a, b)", {"a": ints(2), "b": ints(2**62)}, [6, 8]),
    ("t = Gather (s, i) v = Concat <axis = 0> (t, r)", {"i": ints(1), "r": ints(-1)}, [3, -1]),
    ("t = Gather (s, i) v = Unsqueeze (t, z)", {"i": np.array(2), "z": ints(0)}, [6]),
    ("t = Gather (s, i) v = Squeeze (t)", {"i": ints(2)}, 6),
    ("v = Reshape (s, r)", {"r": ints(2, -1)}, [[1, 3], [6, 8]]),
    ("v = Cast <to = 1> (s)", {}, [1.0, 3.0, 6.0, 8.0]),
    ("v = Mul (s, k)", {"k": ints(2)}, [2, 6, 12, 16]),
    ("v = Div (s, k)", {"k": ints(-4)}, [0, 0, -1, -2]),  # towards zero
    ("v = Mod (s, k)", {"k": ints(4)}, [1, 3, 2, 0]),
    ("v = Sub (k, s)", {"k": ints(4)}, [3, 1, -2, -4]),
    ("v = Neg (s)", {}, [-1, -3, -6, -8]),
    ("t = Slice (s, a, b) v = ReduceProd (t)", {"a": ints(1), "b": ints(4)}, [144]),
    ("v = Size (x)", {}, 144),
    ("v = Shape <start = 1, end = -1> (x)", {}, [3, 6]),
    ("v = Range (z, e, d)", {"z": np.array(0), "e": np.array(5), "d": np.array(2)}, [0, 2, 4]),
    ("v = ConstantOfShape <value = int64[1] {7}> (k)", {"k": ints(3)}, [7, 7, 7]),
    ("t = ConstantOfShape <value = int64[1] {1}> (k) v = Expand (t, k)", {"k": ints(3)}, [1, 1, 1]),
    ("t = Equal (s, k) v = Where (t, s, k)", {"k": ints(3)}, [3, 3, 3, 3]),
    ("v = Max (s, k)", {"k": ints(5)}, [5, 5, 6, 8]),
    ("t = Slice (s, a, b) v = ReduceProd (t, none)", {"a": ints(1), "b": ints(4), "none": ints()}, [144]),
    ("v = ReduceSum <keepdims = 0> (k, none)", {"k": ints(1, 2, 4), "none": ints()}, 7),
    ("v = ReduceProd <noop_with_empty_axes = 1> (k)", {"k": ints(2, 3)}, [2, 3]),
    ("v = ReduceSum <noop_with_empty_axes = 1> (k, none)", {"k": ints(2, 3), "none": ints()}, [2, 3]),
    ("v = ReduceMax <keepdims = 0> (k, z)", {"k": ints(2, 3), "z": ints(0)}, 3),
    ("v = ReduceMin (k)", {"k": ints(2, 3)}, [2]),
    ("t = Gather (s, i) v = Squeeze (t, none)", {"i": ints(2), "none": ints()}, 6),
    (
        "v = Div (k, d)",
        {"k": ints(-7, 2**53 + 1, -(2**62) - 1), "d": ints(3)},
        [-2, 3002399751580331, -1537228672809129301],
    ),
    ("v = Div (k, d)", {"k": np.array([255, 200], np.uint8), "d": np.array([7], np.uint8)}, [36, 28]),
    ("v = Div (k, d)", {"k": np.array([2**64 - 1], np.uint64), "d": np.array([3], np.uint64)}, [6148914691236517205]),
    ("v = Mod (k, d)", {"k": ints(-7, 7), "d": ints(-3)}, [-1, -2]),
    ("v = Pow (k, e)", {"k": ints(1, 2), "e": ints(-1)}, [1, 0]),
    ("v = Slice (s, a, b, z, m)", {"a": ints(-9), "b": ints(-9), "z": ints(0), "m": ints(-1)}, [1]),
    ("t = Reshape (s, r) v = Transpose (t)", {"r": ints(2, 2)}, [[1, 6], [3, 8]]),
]


@pytest.mark.parametrize(("line", "constants", "expected"), VALUES, ids=[row[0] for row in VALUES])
def test_shape_arithmetic_is_known(line: str, constants: dict[str, np.ndarray], expected: object) -> None:
    assert known(line, opset=18, **constants).array.tolist() == expected


@pytest.mark.parametrize(("line", "constants", "expected"), VALUES, ids=[row[0] for row in VALUES])
def test_it_is_what_onnx_runtime_computes(line: str, constants: dict[str, np.ndarray], expected: object) -> None:
    from fnatool.runtime.verify import run_inner

    made = graph(f"g (float[N,3,6,8] x) => (float[N] y) {{ s = Shape (x) {line} y = Relu (x) }}", constants, 18)
    assert run_inner(made, {"x": np.zeros((1, 3, 6, 8), np.float32)}, ["v"], "it")["v"].tolist() == expected


@pytest.mark.parametrize("op", ["Div", "Mod"])
def test_an_integer_divided_by_zero_is_refused_by_name(op: str) -> None:
    with pytest.raises(RefusedModel, match=r"'v' .* an integer divided by 0"):
        known(f"v = {op} (s, k)", k=ints(0))


def test_a_type_by_name_is_one_as_in_the_first_versions_of_the_standard() -> None:
    assert known('v = Cast <to = "INT32"> (s)', opset=5).array.dtype == np.int32


def test_operands_laid_along_an_axis_are_refused_and_not_taken_for_broadcast_ones() -> None:
    line = "v = Mul <broadcast = 1, axis = 0> (a, b)"
    made = graph(
        f"g (float[2] x) => (float[2] y) {{ {line} y = Relu (x) }}", {"a": np.ones((2, 2), np.float32), "b": (2,)}, 6
    )
    with pytest.raises(RefusedModel, match=r"node 'v' .* lays its second operand along axis 0"):
        shapes(made)


def test_an_input_of_no_elements_is_refused_and_not_taken_for_free() -> None:
    made = graph(CONV.format("N,6,0,9"), {"w": (4, 3, 1, 1)})
    assert shapes(made).shapes["x"] == (1, 6, 0, 9)
    for read in (analyse, profile):
        with pytest.raises(RefusedModel, match="input 'x' has a size of 0 on axis 2"):
            read(made)


def test_early_opsets_keep_axes_and_bounds_in_attributes() -> None:
    line = (
        "t = Slice <axes = [0], starts = [1], ends = [3]> (s) u = Unsqueeze <axes = [0]> (t) w = Squeeze <axes "
        "= [0]> (u)"
    )
    assert known(f"{line} v = ReduceProd <axes = [0]> (w)", opset=9).array.tolist() == [18]


def test_what_follows_a_free_dimension_is_marked_and_nothing_else() -> None:
    assert known("v = Identity (s)").free.tolist() == [True, False, False, False]
    assert known("v = Slice (s, a, b)", a=ints(1), b=ints(4)).free.tolist() == [False, False, False]
    assert known("t = Gather (s, i) v = Mul (t, k)", i=ints(0), k=ints(2)).free.tolist() == [True]
    assert known("v = Size (x)").free.tolist() is True


def test_freedom_follows_the_axis_through_a_transposition() -> None:
    line = "t = Transpose <perm = [1,2,0,3]> (x) v = Shape (t)"
    assert known(line).free.tolist() == [False, False, True, False]


def test_freedom_follows_the_batch_through_a_reshape() -> None:
    assert known("t = Reshape (x, r) v = Shape (t)", r=ints(0, 3, 48)).free.tolist() == [True, False, False]
    assert known("t = Reshape (x, r) v = Shape (t)", r=ints(-1, 3, 48)).free.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("line", "free"),
    [
        # N, −1, 8
        ("b = Gather (s, zero) r = Concat <axis = 0> (b, m, e) t = Reshape (x, r) v = Shape (t)", [True, False, False]),
        # 8·N, −1
        (
            "b = Gather (s, zero) n = Mul (b, e) r = Concat <axis = 0> (n, m) t = Reshape (x, r) v = Shape (t)",
            [True, True],
        ),
        ("r = Concat <axis = 0> (e, m) t = Reshape (x, r) v = Shape (t)", [False, True]),  # 8, −1
    ],
)
def test_what_is_left_beside_the_batch_is_free_unless_the_batch_is_a_size_of_its_own(
    line: str, free: list[bool]
) -> None:
    assert known(line, zero=ints(0), m=ints(-1), e=ints(8)).free.tolist() == free


def test_a_size_that_is_left_is_free_where_the_image_is() -> None:
    line = "b = Gather (s, zero) r = Concat <axis = 0> (b, m, e) t = Reshape (x, r) v = Shape (t)"
    assert known(line, "float[N,3,H,8] x", zero=ints(0), m=ints(-1), e=ints(8)).free.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("line", "free"),
    [
        ("t = Unsqueeze (x, a) v = Shape (t)", [False, True, False, False, False]),
        ("u = Unsqueeze (x, a) t = Squeeze (u, a) v = Shape (t)", [True, False, False, False]),
    ],
)
def test_freedom_stays_with_its_axis_where_others_are_put_in_or_taken_out(line: str, free: list[bool]) -> None:
    assert known(line, a=ints(0)).free.tolist() == free


def test_freedom_of_a_merged_batch_is_never_lost() -> None:
    assert known("t = Reshape (x, r) v = Shape (t)", r=ints(-1, 48)).free[0]
    assert known("t = Flatten <axis = 2> (x) v = Shape (t)").free[0]


def test_a_free_image_is_marked_in_space() -> None:
    assert known("v = Identity (s)", "float[1,3,H,8] x").free.tolist() == [False, False, True, False]


FOLLOWERS = {
    "made of a size": ("t = ConstantOfShape (s)", [1, 0, 1, 1]),
    "made of a size, and cast": ("m = ConstantOfShape (s) t = Cast <to = 7> (m)", [1, 0, 1, 1]),
    "broadcast to a size": ("e = Identity (c) t = Expand (e, s)", [1, 0, 1, 1]),
    "repeated": ("t = Tile (c, s)", [1, 0, 1, 1]),
    "counted": ("n = Gather (s, w) t = Range (nil, n, one)", [1]),
    "a range, broadcast": (
        "n = Gather (s, w) r = Range (nil, n, one) f = Cast <to = 1> (r) t = Add (c, f)",
        [0, 0, 0, 1],
    ),
    "cut by a size": ("n = Gather (s, h2) t = Slice (table, o, n, h2)", [0, 0, 1, 0]),
    "cut by a size without axes": ("n = Slice (s, o1, o2) t = Slice (table, o, n)", [1, 1, 1, 1]),
    "padded by a size": ("p = Concat <axis = 0> (s, s) t = Pad (c, p)", [1, 0, 1, 1]),
    "resized to a size": ("t = Resize (c, , , s)", [1, 0, 1, 1]),
    "unpooled to a size": (
        "p, i = MaxPool <kernel_shape = [1,1]> (x) t = MaxUnpool <kernel_shape = [1,1]> (p, i, s)",
        [1, 0, 1, 1],
    ),
    "the mean over channels": ("t = ReduceMean <axes = [1], keepdims = 0> (x)", [1, 1, 1]),
    "the mean over the batch": ("t = ReduceMean <axes = [0], keepdims = 0> (x)", [0, 1, 1]),
    "the sum over axes in a constant": ("t = ReduceSum <keepdims = 0> (x, a1)", [1, 1, 1]),
    "the largest channel": ("t = ArgMax <axis = 1, keepdims = 0> (x)", [1, 1, 1]),
    "gathered by its positions": (
        "n = Gather (s, h) r = Range (nil, n, one) t = Gather <axis = 1> (table, r)",
        [0, 1, 0, 0],
    ),
    "an axis picked away": ("t = Gather <axis = 1> (x, w0)", [1, 1, 1]),
    "a product transposed": ("f = Reshape (x, flat) t = Gemm <transA = 1> (f, f)", [1, 1]),
    "a sum of products": ('t = Einsum <equation = "nchw,nchw->whcn"> (x, x)', [1, 1, 1, 1]),
}


@pytest.mark.parametrize(("line", "free"), FOLLOWERS.values(), ids=FOLLOWERS)
def test_every_axis_that_a_free_size_moves_is_marked(line: str, free: list[int]) -> None:
    constants = {
        "c": np.zeros((1, 1, 1, 1), np.float32), "table": np.zeros((9, 9, 400, 400), np.float32), "nil": np.array(0),
        "one": np.array(1), "w": np.array(3), "h": np.array(2), "w0": np.array(0), "h2": ints(2), "o": ints(0),
        "o1": ints(0), "o2": ints(1), "a1": ints(1), "flat": ints(-1, 24),
    }  # fmt: skip
    given = {name: value for name, value in constants.items() if f"{name}," in line or f"{name})" in line}
    made = graph(
        f"g (float[N,3,H,W] x) => (float[N] y) {{ s = Shape (x) {line} v = Shape (t) y = Relu (x) }}", given, 17
    )
    small, large = (shapes(made, x=(n, 3, 2 * n, 4 * n)).values["v"] for n in (1, 2))
    assert small.free.tolist() == [bool(mark) for mark in free]
    assert all(mark for mark, one, two in zip(small.free, small.array, large.array, strict=True) if one != two)


def test_the_source_of_a_number_is_where_it_is_written() -> None:
    value = known("t = Gather (s, i) v = Concat <axis = 0> (t, a, b)", i=ints(0), a=ints(7, 8), b=ints(9))
    assert value.source == (None, ("a", 0), ("a", 1), ("b", 0))


def test_the_source_moves_with_the_number() -> None:
    value = known(
        "t = Slice (k, a, b) u = Gather (t, i) v = Unsqueeze (u, z)",
        k=ints(5, 6, 7, 8),
        a=ints(1),
        b=ints(4),
        i=ints(2, 0),
        z=ints(0),
    )
    assert value.array.tolist() == [[8, 6]]
    assert value.source == (("k", 3), ("k", 1))


def test_a_computed_number_is_written_nowhere() -> None:
    assert known("v = Add (k, k)", k=ints(5, 6)).source == (None, None)


def test_arithmetic_that_fails_is_refused_by_name() -> None:
    with pytest.raises(RefusedModel, match=r"node 'v' \(Reshape\)"):
        known("v = Reshape (s, r)", r=ints(3, 3))


def test_large_constants_are_weights_and_have_no_value() -> None:
    found = shapes(graph("g (float[1,3,8,8] x) => (float[1,900,8,8] y) { y = Conv (x, w) }", {"w": (900, 3, 3, 3)}))
    assert "w" not in found.values
    assert found.shapes["w"] == (900, 3, 3, 3)


def test_half_precision_flows_through_arithmetic() -> None:
    found = shapes(graph("g (float[1,4] x) => (float[1,4] y) { v = Cast <to = 10> (c) y = Relu (x) }", {"c": (3,)}))
    assert found.values["v"].array.dtype == np.float16
    assert found.types["v"] == 10


# --- what one graph says is not said of another -------------------------------------------------


def test_an_answer_is_for_the_values_that_were_read() -> None:
    assert [shapes(reshaped(*size)).shapes["v"] for size in ((6, 8), (8, 6), (48, 1), (6, 8))] == [
        (6, 8),
        (8, 6),
        (48, 1),
        (6, 8),
    ]


def reshaped(*size: int) -> gs.Graph:
    return graph("g (float[48] x) => (float[A,B] v) { v = Reshape (x, k) }", {"k": ints(*size)})


def test_an_answer_is_for_the_attributes_as_they_are_written() -> None:
    line = "g (float[4,6] x) => (float[A,B] y) {{ y = Concat <axis = {axis}> (x, x) }}"
    assert [shapes(graph(line.format(axis=axis))).shapes["y"] for axis in (0, 1, 0)] == [(8, 6), (4, 12), (8, 6)]


# --- what is too large, or nonsense -------------------------------------------------------------


def test_small_numbers_that_broadcast_to_gigabytes_are_not_evaluated() -> None:
    made = graph(
        "g (float[1] x) => (float[A,B,C] y) { w = Where (a, b, c) y = Add (x, w) }",
        {
            "a": np.ones((1300, 1, 1), bool),
            "b": np.zeros((1, 1300, 1), np.float32),
            "c": np.zeros((1, 1, 1300), np.float32),
        },
    )
    found = shapes(made)
    assert "w" not in found.values
    assert found.shapes["w"] == (1300, 1300, 1300)


def test_arithmetic_that_overflows_says_nothing() -> None:
    assert known("v = Add (s, big)", big=ints(*[2**63 - 1] * 4)).array.dtype == np.int64


def test_a_cast_to_no_type_is_refused_by_name() -> None:
    with pytest.raises(RefusedModel, match="'c'"):
        known("[c] v = Cast <to = 0> (s)")


@pytest.mark.parametrize("line", ["Expand (x, s)", "Reshape (x, s)", "ConstantOfShape (s)"])
def test_a_shape_of_a_million_axes_is_refused_before_memory_is_taken(line: str) -> None:
    with pytest.raises(RefusedModel, match=r"'big' .* makes a tensor of 1000000000 axes"):
        shapes(graph(f"g (float[1] x, int64[1000000000] s) => (float[A] y) {{ [big] y = {line} }}"))
