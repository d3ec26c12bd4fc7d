"""What of a network's constants is learnt: the rule, a case each, and that everything that asks for it gives the same
answer.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from nets import graph

from fnatool.nn.weights import prepare
from passes.graph.learnt import learnt, learnt_uses
from passes.graph.view import view
from passes.network.analyse import analyse
from passes.network.profile import profile

RNG = np.random.default_rng(0)
SIZES = {"w": (8, 3, 1, 1), "v": (4, 8, 1, 1)}
"""The weights of two convolutions, which every network here has."""


def table(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def net(line: str, after: str = "y = Conv (q, v)", **constants: np.ndarray | tuple[int, ...]) -> gs.Graph:
    """A convolution, the line (which makes q of a), and what comes after."""
    return graph(
        f"g (float[1,3,8,8] x) => (float[A,B,C,D] y) {{ a = Conv (x, w) {line} {after} }}", {**SIZES, **constants}
    )


def found(made: gs.Graph) -> set[str]:
    return set(learnt(view(made))) - {"w", "v"}


GRID = np.stack(np.meshgrid(np.arange(8), np.arange(8))).astype(np.float32)[None]
MASK = np.where(np.tril(np.ones((8, 8), bool)), 0, -100).astype(np.float32)

FOLLOWED = [
    ("q = Add (a, c)", table(1, 8, 8, 8), True),  # a position embedding
    ("q = Mul (a, c)", table(8, 1, 1), True),  # a LayerScale
    ("k = Concat <axis = 3> (a, c) q = Relu (k)", table(1, 8, 8, 1), True),  # class tokens
    ("r = Mul (c, c) q = Add (a, r)", table(1, 8, 8, 8), True),  # computed into one
    ("q = Add (a, c)", MASK, False),
    ("q = Add (a, c)", np.zeros((8, 8), np.float32), False),
    ("q = Add (a, c)", np.zeros((8, 1, 1), np.float32), True),  # a bias that has not moved yet
    ("q = Add (a, c)", GRID[:, :1], False),
    ("q = Add (a, c)", np.linspace(0, 1, 8, dtype=np.float32), False),
    ("q = Mul (a, c)", np.array(3, np.float32), False),
]


@pytest.mark.parametrize(("line", "constant", "expected"), FOLLOWED)
def test_what_a_layer_follows_is_learnt_unless_a_formula_or_a_mask(
    line: str, constant: np.ndarray, expected: bool
) -> None:
    assert found(net(line, c=constant)) == ({"c"} if expected else set())


def test_what_only_scales_answers_is_not_learnt() -> None:
    made = net(
        "b = Conv (a, v) t = Transpose <perm = [0,2,3,1]> (b) q = Reshape (t, s)",
        "m = Mul (q, sizes) n = Add (m, centres) p = Mul (n, variances) y = Mul (p, strides)",
        s=np.array([1, 64, 2, 2]), sizes=table(1, 64, 2, 2), centres=table(1, 64, 2, 2), variances=table(2),
        strides=table(1, 64, 1, 1),
    )  # fmt: skip
    assert found(made) == set()


def test_a_matrix_of_a_few_numbers_is_no_layer_that_learns_from_what_is_before_it() -> None:
    corners = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5]], np.float32)
    line = "b = Conv (a, v) q = Transpose <perm = [0,2,3,1]> (b)"
    assert found(net(line, "m = Mul (q, sizes) y = MatMul (m, corners)", sizes=table(1, 8, 8, 4), corners=corners)) == {
        "corners"
    }


def test_the_bias_of_the_last_layer_is_learnt_though_no_layer_follows() -> None:
    assert found(
        net("b = Conv (a, v)", "q = Mul (b, scale) y = Add (q, bias)", scale=table(1, 4, 1, 1), bias=table(4, 1, 1))
    ) == {
        "scale",
        "bias",
    }
    assert found(net("b = Conv (a, v)", "y = Add (b, c)", c=table(1, 1, 1, 8))) == set()


def test_what_prepares_the_input_is_not_learnt() -> None:
    made = graph(
        "g (float[1,3,8,8] x) => (float[A,B,C,D] y) { d = Sub (x, mean) e = Div (d, scale) y = Conv (e, w) }",
        {"w": (8, 3, 1, 1), "mean": (1, 3, 1, 1), "scale": (1, 3, 1, 1)},
    )
    assert found(made) == set()


def test_what_is_computed_with_sizes_is_not_learnt_and_a_table_cut_to_a_size_is() -> None:
    made = net(
        "s = Shape (a) h = Slice (s, two, four) f = Cast <to = 1> (h) k = Div (wanted, f)"
        " m = Concat <axis = 0> (ones, k) q = Resize (a, , m)",
        wanted=np.array([16, 24], np.float32), ones=np.ones(2, np.float32), two=np.array([2]), four=np.array([4]),
    )  # fmt: skip
    assert found(made) == set()
    cut = "s = Shape (a) h = Slice (s, two, four) p = Slice (c, zero, h, two) q = Add (a, p)"
    assert found(net(cut, c=table(1, 8, 9, 9), two=np.array([2, 3]), four=np.array([4, 5]), zero=np.array([0, 0]))) == {
        "c"
    }


def test_the_bins_of_a_distribution_are_no_weight_of_the_convolution_that_reads_them() -> None:
    bins = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1)
    made = net("q = Softmax <axis = 1> (a)", "y = Conv (q, bins)", bins=bins)
    assert found(made) == set()
    knobs = analyse(made).knobs
    assert knobs["node:a.width"].growth == "frozen"
    assert "'bins'" in str(knobs["node:a.width"].why)


def test_the_same_constant_may_be_learnt_by_one_reader_and_not_by_another() -> None:
    made = net(
        "q = Mul (a, c)",
        "b = Conv (q, v) t = Reshape (b, s) m = Mul (t, c) y = Reshape (m, s)",
        c=table(8, 1, 1),
        s=np.array([1, 8, 4, 8]),
    )
    assert learnt_uses(view(made)) >= {("q", 1)}
    assert ("m", 1) not in learnt_uses(view(made))


@pytest.mark.parametrize(("line", "constant", "expected"), FOLLOWED[:7])
def test_training_profile_and_analysis_say_the_same(line: str, constant: np.ndarray, expected: bool) -> None:
    made = net(line, c=constant)
    trained = {weight.name for weight in prepare(made).weights if weight.role == "trained"}
    assert trained - {"w", "v"} == ({"c"} if expected else set())
    params = (
        24 + 32 + (constant.size if expected and "r =" not in line else 0) + (constant.size if "r =" in line else 0)
    )
    assert profile(made).whole.params == analyse(made).cost.params == params
