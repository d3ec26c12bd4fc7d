"""Layers as matrices: W times the columns is what the layer makes; and the sums over them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
import torch
from nets import weight
from onnx import TensorProto, helper, numpy_helper

from fnatool.nn.columns import LINEAR, Linear, channels_first
from fnatool.nn.moments import Match, moments
from fnatool.nn.reading import Reading
from fnatool.nn.site import NodeSite

CASES = {
    "pointwise": ("Conv", (6, 4, 1, 1), (2, 4, 5, 7), {}),
    "3x3": ("Conv", (6, 4, 3, 3), (2, 4, 5, 7), {"pads": [1, 1, 1, 1]}),
    "stride and dilation": (
        "Conv",
        (6, 4, 3, 3),
        (2, 4, 9, 11),
        {"strides": [2, 1], "dilations": [1, 2], "pads": [0, 1, 2, 1]},
    ),
    "same": ("Conv", (6, 4, 3, 3), (2, 4, 6, 7), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "depthwise": ("Conv", (4, 1, 3, 3), (2, 4, 5, 7), {"group": 4, "pads": [1, 1, 1, 1]}),
    "grouped": ("Conv", (6, 2, 3, 3), (2, 4, 5, 7), {"group": 2}),
    "of one axis": ("Conv", (6, 4, 3), (2, 4, 9), {"strides": [2]}),
    "of three axes": ("Conv", (3, 2, 2, 3, 1), (2, 2, 4, 5, 3), {}),
    "transposed": ("ConvTranspose", (4, 6, 2, 2), (2, 4, 5, 7), {"strides": [2, 2]}),
    "transposed of groups": (
        "ConvTranspose",
        (4, 3, 3, 3),
        (2, 4, 5, 7),
        {"group": 2, "strides": [2, 1], "pads": [1, 0, 1, 1], "output_padding": [1, 0], "dilations": [1, 2]},
    ),
    "gemm": ("Gemm", (4, 6), (3, 4), {"alpha": 0.5}),
    "gemm down": ("Gemm", (6, 4), (3, 4), {"transB": 1}),
    "product": ("MatMul", (4, 6), (2, 5, 3, 4), {}),
}


def layer(case: str) -> tuple[Reading, Linear, np.ndarray, torch.Tensor, int]:
    """A network that is one layer, the layer as a matrix, its weight, an input, and the axis of its channels."""
    op, shape, x_shape, attributes = CASES[case]
    values = weight(shape, np.random.default_rng(0))
    node = helper.make_node(op, ["x", "w"], ["y"], name="y", **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *x_shape[1:]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    body = helper.make_graph([node], "net", [x], [y], [numpy_helper.from_array(values, "w")])
    reading = Reading(gs.import_onnx(helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)])))
    found = LINEAR[op](NodeSite(reading.view.by_name["y"], 17, reading.facts))
    given = torch.from_numpy(np.random.default_rng(1).standard_normal(x_shape).astype(np.float32))
    return reading, found, values, given, -1 if op == "MatMul" else 1


@pytest.mark.parametrize("case", CASES)
def test_a_layer_is_its_matrix_times_its_columns(case: str) -> None:
    reading, linear, values, x, axis = layer(case)
    (y,) = reading({"w": torch.from_numpy(values)}, [x])
    made = linear.factor * torch.from_numpy(linear.rows(values).copy()) @ linear.columns(x)
    np.testing.assert_allclose(made.reshape(-1, made.shape[2]), channels_first(y, axis), atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_rows_go_back_into_the_weight(case: str) -> None:
    _, linear, values, _, _ = layer(case)
    np.testing.assert_array_equal(linear.weight(linear.rows(values)), values)


@pytest.mark.parametrize("case", CASES)
def test_the_sums_do_not_depend_on_how_many_run_at_once(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, linear, values, x, axis = layer(case)
    (y,) = reading({"w": torch.from_numpy(values)}, [x])
    match = Match(axis, np.arange(y.shape[axis]), np.arange(y.shape[axis]))
    whole, kept = moments(iter([(x, y, 0 * y), (x[:1], y[:1], y[:1])]), linear, match, [False, True])
    monkeypatch.setattr("fnatool.nn.moments.LARGEST", 1)
    parts, _ = moments(iter([(x, y, 0 * y), (x[:1], y[:1], y[:1])]), linear, match, [False, True])
    assert kept.square == 0
    assert whole.count == parts.count == linear.columns(x).shape[2]
    np.testing.assert_allclose(whole.gram, parts.gram, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(whole.cross, parts.cross, rtol=1e-9, atol=1e-9)
    assert whole.square == pytest.approx(float(y.double().square().sum()))


def test_what_is_missing_counts_on_shared_channels_alone() -> None:
    own, other = torch.zeros(1, 3, 2), torch.arange(8.0).reshape(1, 4, 2)
    missing = Match(1, np.array([0, 2]), np.array([1, 3])).missing(own, other)
    assert missing.tolist() == [[[2, 3], [0, 0], [6, 7]]]


def test_every_linear_layer_is_an_onnx_operator() -> None:
    assert all(onnx.defs.has(op) for op in LINEAR)
