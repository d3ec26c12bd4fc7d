"""A few cases of the ONNX project's backend suite, as the benchmark judges them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from benchmarks.conformance import reason, tried

PASSED = (
    "test_Conv2d_groups test_ConvTranspose2d test_PReLU_2d test_AvgPool3d_stride test_Embedding "
    "test_operator_permute2 test_operator_pad"
)


@pytest.fixture(scope="module")
def suite() -> dict[str, TestCase]:
    return {
        case.name: case
        for kind in ("pytorch-converted", "pytorch-operator", "simple")
        for case in load_model_tests(kind=kind)
    }


def case(op: str, inputs: list[np.ndarray], output: np.ndarray, **attributes: object) -> TestCase:
    """A case of one operator that wants this output."""
    names = [f"in_{k}" for k in range(len(inputs))]
    values = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for k, v in zip(names, inputs, strict=True)
    ]
    made = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(output.dtype), output.shape)
    graph = helper.make_graph([helper.make_node(op, names, ["y"], **attributes)], "g", values, [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return TestCase(op, op, None, None, model, [(inputs, [output])], "node", 1e-3, 1e-7)


def test_cases_of_layers_pass(suite: dict[str, TestCase]) -> None:
    chosen = [suite[name] for name in PASSED.split()]
    assert [(outcome.case, outcome.verdict) for outcome in tried(chosen)] == [(one.name, "passed") for one in chosen]


def test_another_value_is_wrong_and_an_operator_without_a_row_is_refused_by_name() -> None:
    x = np.ones((2, 3), np.float32)
    wrong, unknown = tried(
        [case("Neg", [x], x), case("Det", [np.eye(3, dtype=np.float32)[None]], np.ones(1, np.float32))]
    )
    assert (wrong.verdict, unknown.verdict) == ("wrong", "refused")
    assert reason(unknown.why) == "node '…' (Det) cannot be read by torch: fnatool has no such operator there"


def test_axes_given_as_an_input_are_held_as_networks_hold_them() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (outcome,) = tried([case("Unsqueeze", [x, np.array([1])], x[:, None])])
    assert outcome.verdict == "passed", outcome.why


INTEGERS = [
    ("Div", [np.array([[7, -7]]), np.array([[2, 2]])], np.array([[3, -3]])),
    ("Mod", [np.array([[7, -7]]), np.array([[2, 2]])], np.array([[1, 1]])),
    ("MaxPool", [np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)], np.array([[[[10, 11], [14, 15]]]], np.uint8)),
]


@pytest.mark.parametrize("line", INTEGERS, ids=[line[0] for line in INTEGERS])
def test_whole_numbers_are_computed_or_refused_before_a_run(line: tuple[str, list[np.ndarray], np.ndarray]) -> None:
    op, inputs, output = line
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]} if op == "MaxPool" else {}
    (outcome,) = tried([case(op, inputs, output, **attributes)])
    assert outcome.verdict == "passed", outcome.why
    for kind in (np.uint16, np.uint32, np.uint64):
        (outcome,) = tried([case("Add", [np.ones((2, 2), kind), np.ones((2, 2), kind)], np.ones((2, 2), kind))])
        assert outcome.verdict == "refused"
        assert (
            "torch computes with no element type "
            f"{onnx.TensorProto.DataType.Name(helper.np_dtype_to_tensor_dtype(np.dtype(kind)))}" in outcome.why
        )
