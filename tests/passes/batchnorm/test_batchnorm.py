"""BatchNormalization folded and put back: one graph per pattern, matching and not, and every exactness test with a
planted error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from nets import Net, bundled, graph, weight

from fnatool.runtime.distance import distance
from fnatool.runtime.verify import compare, run_inner
from passes import analyse, apply, own_spec, plan
from passes.batchnorm.fold import EPSILON, Folded, fold
from passes.batchnorm.unfold import Moments, places, unfold
from passes.errors import RefusedModel, UserError
from passes.graph.view import View, view
from passes.network.stages import stage_table
from passes.target.spec import Spec

EXACT = 2e-6  # of the spread: float32 rounding
STATISTICS = ("g", "h", "m", "v")  # γ, β, mean, variance

Weights = dict[str, "tuple[int, ...] | np.ndarray"]


def statistics(channels: int, prefix: str = "") -> Weights:
    """A BatchNormalization's, far from the identity."""
    rng = np.random.default_rng(channels)
    signs = np.where(np.arange(channels) % 3, 1, -1)
    values = (
        rng.uniform(0.5, 1.5, channels) * signs,
        rng.normal(size=channels),
        rng.normal(size=channels),
        rng.uniform(0.5, 2, channels),
    )
    return {f"{prefix}{name}": array.astype(np.float32) for name, array in zip(STATISTICS, values, strict=True)}


def noise(made: gs.Graph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    kinds = {t.name: np.dtype(t.dtype) for t in made.inputs}
    shapes = {t.name: [2 if isinstance(size, str) else size for size in t.shape] for t in made.inputs}
    return {name: rng.standard_normal(shape).astype(kinds[name]) for name, shape in shapes.items()}


def drift(made: gs.Graph, other: gs.Graph) -> float:
    """The worst over the outputs and all inner tensors of both that something with a weight makes."""
    return compare(made, other, noise(made)).worst


def norms(made: gs.Graph) -> list[str]:
    return [node.name for node in made.nodes if node.op == "BatchNormalization"]


def why(found: Folded) -> str:
    """The reason for the only node that is left."""
    (left,) = found.left
    return left.why


IMAGE = "(float[N,4,6,6] x) => (float[N,?,?,?] y)"
BN = "BatchNormalization (c, g, h, m, v)"

FOLDS: dict[str, tuple[str, Weights]] = {
    "conv": (f"n {IMAGE} {{ c = Conv (x, w) y = {BN} }}", {"w": (6, 4, 3, 3), **statistics(6)}),
    "conv with a bias": (
        f"n {IMAGE} {{ c = Conv (x, w, b) y = {BN} }}",
        {"w": (6, 4, 3, 3), "b": (6,), **statistics(6)},
    ),
    "conv that pads": (
        f"n {IMAGE} {{ c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w) y = {BN} }}",
        {"w": (6, 4, 3, 3), **statistics(6)},
    ),
    "epsilon": (
        f"n {IMAGE} {{ c = Conv (x, w) y = BatchNormalization <epsilon = 0.5> (c, g, h, m, v) }}",
        {"w": (6, 4, 3, 3), **statistics(6)},
    ),
    "grouped conv": (
        f"n {IMAGE} {{ c = Conv <group = 2> (x, w, b) y = {BN} }}",
        {"w": (6, 2, 3, 3), "b": (6,), **statistics(6)},
    ),
    "depthwise conv": (f"n {IMAGE} {{ c = Conv <group = 4> (x, w) y = {BN} }}", {"w": (8, 1, 3, 3), **statistics(8)}),
    "conv in one dimension": (
        f"n (float[N,4,6] x) => (float[N,?,?] y) {{ c = Conv (x, w) y = {BN} }}",
        {"w": (6, 4, 3), **statistics(6)},
    ),
    "conv in three dimensions": (
        f"n (float[N,4,4,4,4] x) => (float[N,?,?,?,?] y) {{ c = Conv (x, w) y = {BN} }}",
        {"w": (6, 4, 3, 3, 3), **statistics(6)},
    ),
    "transposed conv": (
        f"n {IMAGE} {{ c = ConvTranspose <strides = [2, 2]> (x, w, b) y = {BN} }}",
        {"w": (4, 6, 4, 4), "b": (6,), **statistics(6)},
    ),
    "grouped transposed conv": (
        f"n {IMAGE} {{ c = ConvTranspose <group = 2> (x, w) y = {BN} }}",
        {"w": (4, 3, 2, 2), **statistics(6)},
    ),
    "gemm": (
        f"n (float[N,4] x) => (float[N,6] y) {{ c = Gemm <alpha = 0.5, beta = 2.0> (x, w, b) y = {BN} }}",
        {"w": (4, 6), "b": (6,), **statistics(6)},
    ),
    "gemm with a transposed weight": (
        f"n (float[N,4] x) => (float[N,6] y) {{ c = Gemm <transB = 1> (x, w) y = {BN} }}",
        {"w": (6, 4), **statistics(6)},
    ),
    "gemm whose bias is one number": (
        f"n (float[N,4] x) => (float[N,6] y) {{ c = Gemm <transB = 1> (x, w, b) y = {BN} }}",
        {"w": (6, 4), "b": np.array([0.7], np.float32), **statistics(6)},
    ),
    "one after another": (
        f"n {IMAGE} {{ c = Conv (x, w) d = {BN} y = BatchNormalization (d, g2, h2, m2, v2) }}",
        {"w": (6, 4, 3, 3), **statistics(6), **{f"{k}2": v for k, v in statistics(6).items()}},
    ),
    "a shared weight with equal scales": (
        f"""n {IMAGE} {{ c = Conv (x, w) p = {BN} x2 = Relu (x) d = Conv (x2, w, b)
            q = BatchNormalization (d, g, h, m2, v) y = Add (p, q) }}""",
        {"w": (6, 4, 3, 3), "b": (6,), "m2": (6,), **statistics(6)},
    ),
    "weights in Constant nodes": (
        f"n {IMAGE} <float[6] g = {{1,2,3,4,5,6}}> {{ k = Constant <value = float[6] {{1,2,3,4,5,6}}> () c = Conv (x, w) y = BatchNormalization (c, g, k, m, v) }}",
        {"w": (6, 4, 3, 3), "m": (6,), "v": (6,)},
    ),
    "before a pointwise conv": (
        f"n {IMAGE} {{ x2 = Relu (x) c = {BN.replace('c,', 'x2,')} y = Conv (c, w, b) }}",
        {"w": (6, 4, 1, 1), "b": (6,), **statistics(4)},
    ),
    "before a conv without pads": (
        f"n {IMAGE} {{ c = {BN.replace('c,', 'x,')} y = Conv (c, w) }}",
        {"w": (6, 4, 3, 3), **statistics(4)},
    ),
    "before a grouped conv": (
        f"n {IMAGE} {{ c = {BN.replace('c,', 'x,')} y = Conv <group = 2> (c, w, b) }}",
        {"w": (6, 2, 3, 3), "b": (6,), **statistics(4)},
    ),
    "before a conv that pads, without a shift": (
        f"n {IMAGE} {{ c = {BN.replace('c,', 'x,')} y = Conv <pads = [1, 1, 1, 1]> (c, w) }}",
        {"w": (6, 4, 3, 3), **statistics(4), "h": np.zeros(4, np.float32), "m": np.zeros(4, np.float32)},
    ),
    "before a gemm": (
        f"n (float[N,4] x) => (float[N,6] y) {{ c = {BN.replace('c,', 'x,')} y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (c, w, b) }}",
        {"w": (6, 4), "b": (6,), **statistics(4)},
    ),
}


@pytest.mark.parametrize("name", FOLDS)
def test_a_batchnorm_goes_into_the_weights_beside_it(name: str) -> None:
    made = graph(*FOLDS[name])
    found = fold(made)
    assert norms(found.graph) == []
    assert found.left == ()
    assert [norm for norm, _ in found.folded] == norms(made)
    assert drift(made, found.graph) <= EXACT


ERRORS: dict[str, Callable[[Weights], Weights]] = {
    "a forgotten shift": lambda w: {**w, **{k: np.zeros_like(v) for k, v in w.items() if k in ("h", "m")}},
    "a forgotten scale": lambda w: {**w, **{k: np.ones_like(v) for k, v in w.items() if k == "g"}},
    "channels exchanged": lambda w: {
        **w,
        **{k: v[::-1].copy() for k, v in w.items() if k in ("v", "k") and isinstance(v, np.ndarray)},
    },
    "a forgotten bias": lambda w: {**w, **{k: np.zeros(6, np.float32) for k in w if k == "b"}},
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", [name for name, (_, weights) in FOLDS.items() if {"g", "h", "b"} <= set(weights)])
def test_a_planted_error_shows(name: str, error: str) -> None:
    text, weights = FOLDS[name]
    if name.startswith("gemm whose") and error == "a forgotten bias":
        weights = {**weights, "b": np.full(6, 0.7, np.float32)}
    filled = {k: v if isinstance(v, np.ndarray) else weight(v, np.random.default_rng(3)) for k, v in weights.items()}
    wrong = fold(graph(text, ERRORS[error](filled))).graph
    assert drift(graph(text, filled), wrong) > 1e-3


def test_a_wrong_epsilon_shows() -> None:
    text, weights = FOLDS["epsilon"]
    wrong = fold(graph(text.replace("0.5", "0.6"), weights)).graph
    assert compare(graph(text, weights), wrong, noise(wrong)).first is not None


def test_values_are_rounded_once_from_float64() -> None:
    text, weights = FOLDS["conv with a bias"]
    made = graph(text, weights)
    old, new = (view(g) for g in (made, fold(made).graph))
    w, b, g, h, m, v = (old.values(name).astype(np.float64) for name in ("w", "b", "g", "h", "m", "v"))
    factor = g / np.sqrt(v + float(np.float32(1e-5)))
    assert np.array_equal(new.values("w"), (w * factor[:, None, None, None]).astype(np.float32))
    assert np.array_equal(new.values("b"), (factor * b + (h - factor * m)).astype(np.float32))


def test_the_graph_given_is_not_changed() -> None:
    made = graph(*FOLDS["conv with a bias"])
    before = {name: view(made).values(name).copy() for name in view(made).constants}
    fold(made)
    assert norms(made) == ["y"]
    assert all(np.array_equal(view(made).values(name), array) for name, array in before.items())


def conv_bn(weight_name: str, *, also: str = "") -> View:
    """A convolution c and its BatchNormalization, folded; `also` is a constant that something else reads."""
    net = Net()
    net.weights[weight_name] = weight((6, 3, 1, 1), net.rng)
    net.op("Conv", "c", "x", weight_name)
    net.channels["c"] = 6
    y = net.bn("c")
    if also:
        y = net.op("Mul", "k", y, net.constant(also, np.ones((1, 6, 1, 1))))
    net.classifier(y)
    return view(fold(net.graph()).graph)


def test_a_new_bias_is_named_beside_its_weight_or_after_the_node() -> None:
    assert conv_bn("stem.weight").by_name["c"].inputs == ("x", "stem.weight", "stem.bias")
    assert conv_bn("onnx::Conv_7").by_name["c"].inputs == ("x", "onnx::Conv_7", "c.bias")


def test_a_new_bias_takes_no_name_that_is_there() -> None:
    assert conv_bn("stem.weight", also="stem.bias").by_name["c"].inputs[2] == "stem.bias_2"


# --- what stays ---------------------------------------------------------------------------------

CONV: Weights = {"w": (6, 4, 3, 3), **statistics(6)}
STAYS: dict[str, tuple[str, Weights, str]] = {
    "behind an activation": (
        f"n {IMAGE} {{ d = Conv (x, w) c = Relu (d) y = {BN} }}",
        CONV,
        "it stands behind 'c' (Relu), which has no weight",
    ),
    "behind an addition": (
        f"n {IMAGE} {{ d = Conv (x, w) c = Add (d, d) y = {BN} }}",
        CONV,
        "it stands behind 'c' (Add), which has no weight",
    ),
    "behind the input": (
        f"n {IMAGE} {{ y = {BN.replace('c,', 'x,')} }}",
        statistics(4),
        "it stands behind the input 'x'",
    ),
    "the convolution is an output": (
        f"n (float[N,4,6,6] x) => (float[N,?,?,?] y, float[N,?,?,?] c) {{ c = Conv (x, w) y = {BN} }}",
        CONV,
        "'c' before it is also an output",
    ),
    "the convolution is read elsewhere": (
        f"n {IMAGE} {{ c = Conv (x, w) z = {BN} y = Add (z, c) }}",
        CONV,
        "'c' before it is also read elsewhere",
    ),
    "training mode": (
        f"n {IMAGE} {{ c = Conv (x, w) y, rm, rv = BatchNormalization <training_mode = 1> (c, g, h, m, v) }}",
        CONV,
        "training mode",
    ),
    "computed statistics": (
        f"n (float[N,4,6,6] x, float[6] g) => (float[N,?,?,?] y) {{ c = Conv (x, w) y = {BN} }}",
        {k: v for k, v in CONV.items() if k != "g"},
        "'g' is computed",
    ),
    "a computed weight": (
        f"n (float[N,4,6,6] x, float[6,4,3,3] w) => (float[N,?,?,?] y) {{ c = Conv (x, w) y = {BN} }}",
        statistics(6),
        "'w' of 'c' is computed",
    ),
    "a computed bias": (
        f"n (float[N,4,6,6] x, float[6] b) => (float[N,?,?,?] y) {{ c = Conv (x, w, b) y = {BN} }}",
        CONV,
        "'b' of 'c' is computed",
    ),
    "a negative variance": (
        f"n {IMAGE} {{ c = Conv (x, w) y = {BN} }}",
        {**CONV, "v": np.array([1, 1, -1, 1, 1, 1], np.float32)},
        "1 of its variances are not above −ε",
    ),
    "a value that is not finite": (
        f"n {IMAGE} {{ c = Conv (x, w) y = {BN} }}",
        {**CONV, "g": np.array([1, 1, np.inf, 1, 1, 1], np.float32)},
        "not finite",
    ),
    "a value too large": (
        f"n {IMAGE} {{ c = Conv (x, w) y = {BN} }}",
        {**CONV, "w": np.full((6, 4, 3, 3), 3e38, np.float32), "v": np.full(6, 1e-9, np.float32)},
        "would not fit into float32",
    ),
    "a bias by row": (
        f"n (float[2,4] x) => (float[2,6] y) {{ c = Gemm (x, w, b) y = {BN} }}",
        {"w": (4, 6), "b": (2, 6), **statistics(6)},
        "to each row",
    ),
    "a weight that is also read as data": (
        f"n {IMAGE} {{ c = Conv (x, w) z = {BN} s = ReduceMean <keepdims = 0> (x) k = Mul (s, w) l = ReduceMean <keepdims = 0> (k) y = Add (z, l) }}",
        {**CONV},
        "'w' is also read by 'k'",
    ),
    "before a conv that pads": (
        f"n {IMAGE} {{ c = {BN.replace('c,', 'x,')} y = Conv <pads = [1, 1, 1, 1]> (c, w) }}",
        {"w": (6, 4, 3, 3), **statistics(4)},
        "nor can it go into 'y', which reads it: it pads with zeros, which the shift would have to reach",
    ),
    "before a transposed conv": (
        f"n {IMAGE} {{ c = {BN.replace('c,', 'x,')} y = ConvTranspose (c, w) }}",
        {"w": (4, 6, 3, 3), **statistics(4)},
        "fewer of its taps",
    ),
    "before two convs": (
        f"n {IMAGE} {{ c = {BN.replace('c,', 'x,')} d = Conv (c, w) e = Conv (c, w2) y = Add (d, e) }}",
        {"w": (6, 4, 1, 1), "w2": (6, 4, 1, 1), **statistics(4)},
        "it stands behind the input 'x'",
    ),
    "before a gemm that transposes it": (
        f"n (float[5,4] x) => (float[4,6] y) {{ c = {BN.replace('c,', 'x,')} y = Gemm <transA = 1> (c, w) }}",
        {"w": (5, 6), **statistics(4)},
        "it transposes",
    ),
    "on a weight": (
        f"n (float[N,4,6,6] x, float[4,4,3,3] k) => (float[N,?,?,?] y) {{ c = {BN.replace('c,', 'k,')} y = Conv (x, c) }}",
        statistics(4),
        "it is its weight",
    ),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_cannot_be_folded_exactly_stays_and_says_why(name: str) -> None:
    text, weights, reason = STAYS[name]
    made = graph(text, weights)
    found = fold(made)
    assert norms(found.graph) == norms(made)
    assert found.folded == ()
    assert reason in why(found)
    changed = [
        k
        for k, array in ((k, view(made).values(k)) for k in view(made).constants)
        if not np.array_equal(array, view(found.graph).values(k), equal_nan=True)
    ]
    assert changed == []


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ("q = BatchNormalization (d, g2, h, m, v)", "behind which the scale is another"),
        ("q = Relu (d)", "behind which no BatchNormalization stands alone"),
    ],
)
def test_a_shared_weight_with_different_readers_is_not_folded(second: str, reason: str) -> None:
    text = f"n {IMAGE} {{ c = Conv (x, w) p = {BN} x2 = Relu (x) d = Conv (x2, w) {second} y = Add (p, q) }}"
    found = fold(graph(text, {**CONV, "g2": (6,)} if "g2" in second else CONV))
    assert found.folded == ()
    assert all("the weight 'w' is shared with" in left.why and reason in left.why for left in found.left)


def test_a_batchnorm_of_a_time_when_training_was_the_default_stays() -> None:
    text = f"n {IMAGE} {{ c = Conv (x, w) y = {BN} }}"
    assert "training mode" in why(fold(graph(text, CONV, opset=6)))


def test_what_has_no_batchnorm_is_not_changed() -> None:
    made = graph(f"n {IMAGE} {{ y = Conv (x, w) }}", {"w": (6, 4, 3, 3)})
    found = fold(made)
    assert (found.folded, found.left) == ((), ())


# --- where one belongs --------------------------------------------------------------------------


def network(tail: str = "", **weights: tuple[int, ...]) -> gs.Graph:
    """A stem convolution, what tail makes of it, and a classifier."""
    text = f"n (float[N,3,8,8] x) => (float[N,5] y) {{ a = Conv <pads = [1, 1, 1, 1]> (x, w, b) {tail or 'z = Relu (a)'} p = GlobalAveragePool (z) f = Flatten (p) y = Gemm <transB = 1> (f, k) }}"
    return graph(text, {"w": (6, 3, 3, 3), "b": (6,), "k": (5, 6), **weights})


def test_a_convolution_with_more_behind_it_is_a_place() -> None:
    found = places(network())
    assert found.tensors == {"a": "a"}
    assert found.left == ()


@pytest.mark.parametrize(
    ("tail", "weights"),
    [
        ("r = Relu (a) z = Conv <group = 6> (r, w2)", {"w2": (6, 1, 3, 3)}),
        ("r = Relu (a) z = Conv <group = 2> (r, w2)", {"w2": (6, 3, 3, 3)}),
        ("r = Relu (a) z = ConvTranspose (r, w2)", {"w2": (6, 6, 2, 2)}),
        ("r = Relu (a) d = Conv <strides = [8, 8]> (r, w2) z = Relu (d)", {"w2": (6, 6, 8, 8)}),
    ],
    ids=["depthwise", "grouped", "transposed", "down to one position by its stride"],
)
def test_every_kind_of_convolution_is_a_place(tail: str, weights: Mapping[str, tuple[int, ...]]) -> None:
    found = places(network(tail, **weights))
    assert len(found.tensors) == 2
    assert found.left == ()


NO_PLACES: dict[str, tuple[str, Weights, str]] = {
    "a BatchNormalization follows": (
        "z = BatchNormalization (a, g, h, m, v)",
        statistics(6),
        "a normalisation follows",
    ),
    "one follows behind an addition": (
        "s = Add (a, a) z = BatchNormalization (s, g, h, m, v)",
        statistics(6),
        "a normalisation follows",
    ),
    "an InstanceNormalization follows": (
        "z = InstanceNormalization (a, g, h)",
        statistics(6),
        "a normalisation follows",
    ),
    "a LayerNormalization follows behind a transposition": (
        "t = Transpose <perm = [0, 2, 3, 1]> (a) l = LayerNormalization <axis = -1> (t, g) z = Transpose <perm = [0, 3, 1, 2]> (l)",
        {"g": (6,)},
        "a normalisation follows",
    ),
    "a squeeze": (
        "q = GlobalAveragePool (a) s = Conv (q, w2) t = Sigmoid (s) z = Mul (a, t)",
        {"w2": (6, 6, 1, 1)},
        "pooled values, one a channel",
    ),
    "an excitation behind a squeeze": (
        "q = ReduceMean <axes = [2, 3]> (a) s = Conv (q, w2) r = Relu (s) u = Conv (r, w3) t = Sigmoid (u) z = Mul (a, t)",
        {"w2": (2, 6, 1, 1), "w3": (6, 2, 1, 1)},
        "pooled values, one a channel",
    ),
    "a squeeze behind a flattening": (
        "q = GlobalAveragePool (a) f0 = Flatten (q) u = Unsqueeze <axes = [2, 3]> (f0) s = Conv (u, w2) t = Sigmoid (s) z = Mul (a, t)",
        {"w2": (6, 6, 1, 1)},
        "pooled values, one a channel",
    ),
    "one channel": ("s = Conv (a, w2) t = Sigmoid (s) z = Mul (a, t)", {"w2": (1, 6, 1, 1)}, "single output channel"),
    "a shared weight": (
        "r = Relu (a) s = Conv (r, w2) t = Conv (s, w2) z = Relu (t)",
        {"w2": (6, 6, 1, 1)},
        "'w2' is shared",
    ),
}


@pytest.mark.parametrize("name", NO_PLACES)
def test_where_none_belongs_it_is_said_why(name: str) -> None:
    tail, weights, reason = NO_PLACES[name]
    text = f"n (float[N,3,8,8] x) => (float[N,5] y) {{ a = Conv <pads = [1, 1, 1, 1]> (x, w, b) {tail} p = GlobalAveragePool (z) f = Flatten (p) y = Gemm <transB = 1> (f, k) }}"
    found = places(
        graph(text, {"w": (6, 3, 3, 3), "b": (6,), "k": (5, 6), **weights}, opset=12 if "axes" in tail else 17)
    )
    assert all(reason in left.why for left in found.left)
    assert found.left != ()


@pytest.mark.parametrize(
    "text",
    [
        "n (float[N,4,6,6] x) => (float[N,?,?,?] y) { a = Conv (x, w) r = Relu (a) y = Conv (r, w2) }",
        "n (float[N,4,6,6] x) => (float[N,?,?,?] y) { a = Conv (x, w) r = Relu (a) c = Conv (r, w2) q = Relu (c) y = GlobalAveragePool (q) }",
        "n (float[N,4,6,6] x) => (float[N,?,?,?] y, float[N,?,?,?] c) { a = Conv (x, w) r = Relu (a) c = Conv (r, w2) y = Sigmoid (c) }",
    ],
    ids=["an output", "a pooled classifier", "a head with two outputs"],
)
def test_the_last_convolution_is_left_alone(text: str) -> None:
    found = places(graph(text, {"w": (6, 4, 3, 3), "w2": (5, 6, 1, 1)}))
    assert set(found.tensors) == {"a"}
    assert ["no convolution or matrix product comes after it" in left.why for left in found.left] == [True]


def test_patterns_choose_among_the_convolutions() -> None:
    made = network("r = Relu (a) s = Conv (r, w2) t = Relu (s) z = Conv (t, w3)", w2=(6, 6, 1, 1), w3=(6, 6, 1, 1))
    assert set(places(made).tensors) == {"a", "s", "z"}
    assert set(places(made, only=["a", "[sz]"]).tensors) == {"a", "s", "z"}
    assert set(places(made, only=["s*"]).tensors) == {"s"}


def test_a_pattern_that_matches_nothing_is_a_mistake() -> None:
    with pytest.raises(UserError, match=r"--only 'stem' matches none of the 1 convolutions"):
        places(network(), only=["stem"])


# --- unfolding ----------------------------------------------------------------------------------


def moments(made: gs.Graph, tensors: Mapping[str, str]) -> dict[str, Moments]:
    """The statistics of the tensors on noise."""
    values = run_inner(made, noise(made), list(tensors.values()), "the graph")
    rows = {
        name: np.moveaxis(values[t], 1, 0).reshape(values[t].shape[1], -1).astype(np.float64)
        for name, t in tensors.items()
    }
    return {name: Moments(row.mean(axis=1), row.var(axis=1)) for name, row in rows.items()}


def unfolded(made: gs.Graph) -> gs.Graph:
    return unfold(made, moments(made, places(made).tensors)).graph


TAILS: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "a convolution with a bias": ("z = Relu (a)", {}),
    "without a bias": ("r = Relu (a) z = Conv (r, w2)", {"w2": (6, 6, 3, 3)}),
    "depthwise": ("r = Relu (a) z = Conv <group = 6> (r, w2, b2)", {"w2": (6, 1, 3, 3), "b2": (6,)}),
    "grouped": ("r = Relu (a) z = Conv <group = 2> (r, w2, b2)", {"w2": (6, 3, 3, 3), "b2": (6,)}),
    "transposed and grouped": (
        "r = Relu (a) z = ConvTranspose <group = 2> (r, w2, b2)",
        {"w2": (6, 3, 2, 2), "b2": (6,)},
    ),
}


@pytest.mark.parametrize("name", TAILS)
def test_a_batchnorm_behind_a_convolution_changes_nothing_and_folds_away_again(name: str) -> None:
    tail, weights = TAILS[name]
    made = network(tail, **weights)
    result = unfolded(made)
    assert len(norms(result)) == len(places(made).tensors)
    assert drift(made, result) <= EXACT
    back = fold(result)
    assert back.left == ()
    assert wiring(back.graph) == wiring(made)
    assert worst_weight(made, back.graph) <= 1e-6


def wiring(made: gs.Graph) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(node.name, node.op, node.outputs) for node in view(made).nodes]


def worst_weight(one: gs.Graph, other: gs.Graph) -> float:
    """How far the weights of both are apart, relative to their spread."""
    a, b = view(one), view(other)
    return max(distance(a.values(name), b.values(name)) for name in a.constants if name in b.constants)


@pytest.mark.parametrize("part", range(4))
def test_an_error_in_any_of_its_parts_shows(part: int) -> None:
    made = network()
    result = unfolded(made)
    (norm,) = (node for node in result.nodes if node.op == "BatchNormalization")
    norm.inputs[part + 1].values = norm.inputs[part + 1].values * np.float32(1.01)
    assert compare(made, result, noise(made)).first is not None


def test_a_forgotten_bias_shows() -> None:
    made = network()
    result = unfolded(network())
    found = compare(graph_without_bias(made), result, noise(made))
    assert found.first is not None
    assert found.first.tensor == "a"


def graph_without_bias(made: gs.Graph) -> gs.Graph:
    copied = made.copy()
    conv = next(node for node in copied.nodes if node.name == "a")
    conv.inputs.pop()
    return copied


def test_the_statistics_are_those_of_what_the_convolution_now_makes() -> None:
    made = network()
    found = moments(made, {"a": "a"})
    result = view(unfold(made, found).graph)
    assert np.allclose(result.values("a.bn.mean"), found["a"].mean - view(made).values("b"), atol=1e-6)
    assert np.allclose(result.values("a.bn.var"), found["a"].variance, rtol=1e-6)
    assert np.allclose(result.values("a.bn.beta"), found["a"].mean, atol=1e-6)
    assert np.allclose(result.values("a.bn.gamma"), np.sqrt(found["a"].variance + EPSILON), rtol=1e-6)


def test_a_channel_that_never_varies_passes_on() -> None:
    made = network("r = Relu (a) z = Conv (r, w2)", w2=(6, 6, 1, 1))
    found = {
        name: Moments(m.mean, np.zeros_like(m.variance)) for name, m in moments(made, {"a": "a", "z": "z"}).items()
    }
    result = unfold(made, found).graph
    assert np.allclose(view(result).values("a.bn.gamma"), np.sqrt(EPSILON))
    assert drift(made, result) <= EXACT


def test_names_are_the_convolutions_and_every_tensor_keeps_its_own() -> None:
    result = view(unfolded(network()))
    norm = result.by_name["a.bn"]
    assert norm.inputs == ("a.bn/in", "a.bn.gamma", "a.bn.beta", "a.bn.mean", "a.bn.var")
    assert norm.outputs == ("a",)
    assert result.by_name["a"].outputs == ("a.bn/in",)
    assert result.by_name["a"].inputs == ("x", "w")


def test_a_name_that_is_taken_is_not_taken_again() -> None:
    net = Net()
    net.op("Mul", "k", net.conv("x", "a", 6, 3), net.constant("a.bn.gamma", np.full((1, 6, 1, 1), 2)))
    net.classifier(net.relu("k"))
    made = net.graph()
    result = unfolded(made)
    assert norms(result) == ["a.bn_2"]
    assert drift(made, result) <= EXACT


@pytest.mark.parametrize(("opset", "kind"), [(17, np.float32), (14, np.float16)])
def test_beside_half_precision_weights_a_batchnorm_is_as_precise_as_the_opset_allows(opset: int, kind: type) -> None:
    text = "n (float16[N,3,8,8] x) => (float16[N,5,8,8] y) { a = Conv (x, w, b) r = Relu (a) y = Conv (r, w2) }"
    shapes = {"w": (6, 3, 1, 1), "b": (6,), "w2": (5, 6, 1, 1)}
    made = graph(text, {k: weight(v, np.random.default_rng(2)).astype(np.float16) for k, v in shapes.items()}, opset)
    result = unfolded(made)
    assert view(result).values("a.bn.gamma").dtype == kind
    assert drift(made, result) <= (1e-3 if kind is np.float32 else 1e-2)
    assert view(fold(result).graph).values("w").dtype == np.float16


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (Moments(np.zeros(6), np.full(6, np.nan)), "no finite mean and variance"),
        (Moments(np.full(6, np.inf), np.ones(6)), "no finite mean and variance"),
        (Moments(np.zeros(6), np.full(6, -1.0)), "no finite mean and variance"),
        (Moments(np.zeros(5), np.ones(5)), "for \\(5,\\) channels, it has 6"),
        (Moments(np.full(6, 1e39), np.ones(6)), "do not fit into its type"),
    ],
)
def test_statistics_that_cannot_be_are_refused(found: Moments, message: str) -> None:
    with pytest.raises(RefusedModel, match=message):
        unfold(network(), {"a": found})


@pytest.mark.parametrize("name", ["r", "nowhere"])
def test_statistics_for_something_else_are_a_mistake(name: str) -> None:
    with pytest.raises(UserError, match="no convolution of this graph"):
        unfold(network("r = Relu (a) z = Relu (r)"), {name: Moments(np.zeros(6), np.ones(6))})


# --- the bundled seed ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seed() -> gs.Graph:
    return bundled()


@pytest.fixture(scope="module")
def folded_seed(seed: gs.Graph) -> gs.Graph:
    found = fold(seed)
    assert (len(found.folded), found.left) == (52, ())
    return found.graph


@pytest.fixture(scope="module")
def unfolded_seed(folded_seed: gs.Graph) -> gs.Graph:
    return unfolded(folded_seed)


def test_the_folded_seed_is_the_seed_without_batchnorm(seed: gs.Graph, folded_seed: gs.Graph) -> None:
    kept = [(node.op, node.name) for node in view(seed).nodes if node.op != "BatchNormalization"]
    assert [(node.op, node.name) for node in view(folded_seed).nodes] == kept
    assert view(folded_seed).by_name["stem"].inputs == ("input", "stem.weight", "stem.bias")
    assert drift(seed, folded_seed) <= 1e-5


def test_the_unfolded_seed_is_the_seed_again(seed: gs.Graph, folded_seed: gs.Graph, unfolded_seed: gs.Graph) -> None:
    def parts(made: View) -> list[tuple[str, str, tuple[str, ...]]]:
        return [(node.op, node.name, node.inputs[1:]) for node in made.nodes]

    assert parts(view(unfolded_seed)) == parts(view(seed))
    assert drift(folded_seed, unfolded_seed) <= 1e-5


@pytest.mark.parametrize("table", [True, False])
def test_stages_and_knobs_stay_with_and_without_batchnorm(
    table: bool, request: pytest.FixtureRequest, seed: gs.Graph
) -> None:
    known = analyse(seed)
    for name in ("folded_seed", "unfolded_seed"):
        other = analyse(request.getfixturevalue(name), table=stage_table(known.stages) if table else None)
        assert [len(stage.blocks) for stage in other.stages] == [1, 2, 3, 4, 3, 3, 1]
        assert own_spec(other) == own_spec(known)
        assert {k: (v.min, v.max, v.growth) for k, v in other.knobs.items()} == {
            k: (v.min, v.max, v.growth) for k, v in known.knobs.items()
        }


def test_unfold_then_remap_then_fold(folded_seed: gs.Graph, unfolded_seed: gs.Graph) -> None:
    known = analyse(unfolded_seed)
    spec = Spec({"stage3.depth": "+1", "stage4.width": "x1.25", "stage5.*.kernel": 5, "stage2.*.hidden": "x1.25"})
    grown = apply(unfolded_seed, plan(known, spec, strategy="preserve"))
    found = fold(grown)
    assert found.left == ()
    assert norms(found.graph) == []
    feeds = noise(folded_seed)
    logits = [run_inner(g, feeds, ["logits"], "a graph")["logits"] for g in (folded_seed, grown, found.graph)]
    assert distance(logits[0], logits[1]) <= 2e-5
    assert distance(logits[1], logits[2]) <= 2e-5


def test_a_residual_network_of_projections_keeps_its_stages() -> None:
    net = Net()
    y = net.relu(net.conv("x", "stem", 8, 3, bias=True))
    for k, width in enumerate((8, 8, 16, 16)):
        inner = net.relu(net.conv(y, f"c{k}a", width, 3, bias=True))
        short = y if net.channels[y] == width else net.conv(y, f"c{k}s", width, bias=True)
        net.op("Add", f"s{k}", net.conv(inner, f"c{k}b", width, 3, bias=True), short)
        y = net.relu(f"s{k}")
    net.classifier(y)
    made = net.graph()
    before = analyse(made)
    after = analyse(unfolded(made), table=stage_table(before.stages))
    assert [len(stage.blocks) for stage in before.stages] == [len(stage.blocks) for stage in after.stages] == [2, 2]
    assert own_spec(before) == own_spec(after)
