"""What the rows of the operators claim, by numbers: what a row says holds, and what it does not name does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from passes.channels.rules.table import RULES
from passes.graph.macs import MACS
from passes.graph.operators import (
    ALL,
    CONSTANTS,
    HOMOGENEOUS,
    IDEMPOTENT,
    OPERATORS,
    SLOPE,
    UNKNOWN,
    ZERO,
    Operator,
    Trait,
    of,
)
from passes.maps.table import SPACE

Array = np.ndarray
Function = Callable[[Array], Array]
SHAPE = (2, 4, 4, 4)
BY_RUNTIME = ("GlobalLpPool",)  # for which ONNX has no reference
VERSIONS = {"Swish": 24, "Upsample": 9}
ATTRIBUTES: Mapping[str, Mapping[str, object]] = {
    "AveragePool": {"kernel_shape": [2, 2]},
    "Cast": {"to": TensorProto.DOUBLE},
    "DepthToSpace": {"blocksize": 2},
    "LRN": {"size": 3, "alpha": 1.0},
    "LpPool": {"kernel_shape": [2, 2]},
    "MaxPool": {"kernel_shape": [2, 2]},
    "MaxUnpool": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "SpaceToDepth": {"blocksize": 2},
    "Split": {"num_outputs": 2},
    "Transpose": {"perm": [0, 2, 3, 1]},
    **{op: {"keepdims": 1} for op in OPERATORS if op.startswith("Reduce")},
}
EMPTY = np.zeros(0, np.float32)
OTHERS: Mapping[str, tuple[Array, ...]] = {
    "CastLike": (np.zeros(1, np.float32),),
    "Clip": (np.float32(-0.5), np.float32(0.5)),
    "Expand": (np.array([3, *SHAPE]),),
    "Gather": (np.array([1, 0]),),
    "MaxUnpool": (np.arange(np.prod((2, 4, 8, 8))).reshape(2, 4, 8, 8)[..., 1::2, ::2],),
    "PRelu": (np.full((4, 1, 1), 0.25, np.float32),),
    "Reshape": (np.array([4, -1]),),
    "Resize": (EMPTY, np.array([1, 1, 2, 2], np.float32)),
    "Slice": (np.array([1]), np.array([3]), np.array([1])),
    "Squeeze": (np.zeros(0, np.int64),),
    "Tile": (np.array([1, 1, 2, 2]),),
    "Unsqueeze": (np.array([0]),),
    "Upsample": (np.array([1, 1, 2, 2], np.float32),),
    **{op: (np.array([2, 3]),) for op in OPERATORS if op.startswith("Reduce")},
}
CLAIMED = [op for op, row in OPERATORS.items() if row.has]
SAID = [op for op, row in OPERATORS.items() if row.depends != ALL]


@cache
def function(op: str) -> Function:
    """What the operator computes from its first input, as ONNX's reference does."""
    others = OTHERS.get(op, ())
    names = [f"other{k}" for k in range(len(others))]
    outputs = ["y", "more"][: 2 if op == "Split" else 1]
    domain, _, kind = op.rpartition("::")
    by_runtime = bool(domain) or op in BY_RUNTIME
    node = helper.make_node(kind, ["x", *names], outputs, domain=domain, **ATTRIBUTES.get(op, {}))
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
            if by_runtime
            else helper.make_empty_tensor_value_info("y")
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in zip(names, others, strict=True)],
    )
    opsets = [helper.make_opsetid("", VERSIONS.get(op, 21)), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    run = ort.InferenceSession(model.SerializeToString()) if by_runtime else ReferenceEvaluator(model)

    def compute(x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(run.run(None, {"x": x.astype(np.float32)})[0], np.float64)

    return compute


def near(a: Array, b: Array, tolerance: float = 1e-4) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, tolerance, tolerance))


def zero(f: Function) -> bool:
    return not np.any(f(np.zeros(SHAPE)))


def slope(f: Function) -> bool:
    """A gradient reaches the first number and the last from both sides."""
    step = np.full(SHAPE, 2.0**-12)
    after, before = f(step) / 2**-12, f(-step) / -(2**-12)
    both = np.minimum(abs(after), abs(before))
    return bool(
        (np.sign(after) == np.sign(before)).all()
        and (both > 1e-3).all()
        and (np.maximum(abs(after), abs(before)) < 1e3).all()
    )


def homogeneous(f: Function) -> bool:
    return all(near(f(s * x), s * f(x)) for s in (0.0, 0.25, 4.0) for x in samples())


def idempotent(f: Function) -> bool:
    return all(near(f(f(x)), f(x)) for x in samples())


def constants(f: Function) -> bool:
    results = [(value, f(np.full(SHAPE, value))) for value in (-2.3, 0.3, 3.0)]
    return all(near(result, np.full(result.shape, value)) for value, result in results)


def samples() -> list[Array]:
    return [scale * np.random.default_rng(seed).standard_normal(SHAPE) for seed, scale in ((0, 1.0), (1, 3.0))]


HOLDS: Mapping[Trait, Callable[[Function], bool]] = {
    ZERO: zero,
    SLOPE: slope,
    HOMOGENEOUS: homogeneous,
    IDEMPOTENT: idempotent,
    CONSTANTS: constants,
}


def held(op: str) -> Trait:
    return Trait(
        sum(trait.value for trait, holds in HOLDS.items() if trait not in of(op).depends and holds(function(op)))
    )


@pytest.mark.parametrize("op", SAID)
def test_what_a_row_says_holds_and_nothing_more(op: str) -> None:
    assert held(op) == of(op).has


@pytest.mark.parametrize("op", CLAIMED)
def test_what_holds_does_not_depend(op: str) -> None:
    assert not of(op).has & of(op).depends


@pytest.mark.parametrize(
    ("op", "wrong"), [("Elu", HOMOGENEOUS), ("Relu", SLOPE), ("Abs", SLOPE), ("Sqrt", SLOPE), ("Tanh", IDEMPOTENT)]
)
def test_a_wrong_claim_would_be_noticed(op: str, wrong: Trait) -> None:
    assert not HOLDS[wrong](function(op))


def test_every_operator_with_a_rule_has_a_row() -> None:
    assert {*RULES, *SPACE, *MACS} - OPERATORS.keys() == set()


def test_of_an_operator_without_a_row_nothing_is_known() -> None:
    assert of("Nonsense") is UNKNOWN
    assert Operator(form="other", has=Trait(0), depends=ALL) == UNKNOWN
    assert not any((UNKNOWN.weights, UNKNOWN.keeps_channels, UNKNOWN.keeps_values, UNKNOWN.elementwise))


@pytest.mark.parametrize("op", [op for op, row in OPERATORS.items() if row.weights])
def test_the_weights_of_a_row_are_inputs_of_the_operator(op: str) -> None:
    schema = onnx.defs.get_schema(op)
    assert max(of(op).weights) < schema.max_input


def test_operators_that_keep_their_channels_have_rules_that_say_so() -> None:
    """A row's form and the table of channel rules say the same of which operators work channel by channel."""
    assert {op for op, row in OPERATORS.items() if row.keeps_channels} <= RULES.keys()
