"""What TensorRT does not read: found by looking, and where its parser is here, it says the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny import model, save

from fnatool.runtime import engine
from passes.check.engine import RTX, TENSORRT, check_for_engine

HERE = importlib.util.find_spec("tensorrt_rtx") is not None


def found(proto: onnx.ModelProto, target: str = RTX) -> list[tuple[str, str]]:
    return [(finding.severity, finding.code) for finding in check_for_engine(gs.import_onnx(proto), target)]


def quantised(dtype: type, zero: int) -> onnx.ModelProto:
    stored = numpy_helper.from_array(np.ones((4, 3, 1, 1), dtype), "w")
    constants = [
        stored,
        numpy_helper.from_array(np.array(zero, dtype), "z"),
        numpy_helper.from_array(np.float32(0.1), "s"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["f"], "dq"),
        helper.make_node("Conv", ["x", "f"], ["y"], "conv"),
    ]
    ends = [helper.make_tensor_value_info("x", 1, [1, 3, 4, 4]), helper.make_tensor_value_info("y", 1, [1, 4, 4, 4])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def cast(to: int) -> onnx.ModelProto:
    return model(f"g (float[1,3] x) => (float[1,3] y) {{ a = Cast <to={to}> (x) y = Cast <to=1> (a) }}")


NOT_PARSED = {
    "engine-operator unique": lambda: model("g (float[4] x) => (float[n] y) { y = Unique (x) }"),
    "engine-operator nonzero": lambda: model("g (float[1,3] x) => (int64[2,n] y) { y = NonZero (x) }"),
    "engine-type int16": lambda: cast(TensorProto.INT16),
    "engine-type uint8": lambda: cast(TensorProto.UINT8),
    "engine-type uint32": lambda: model("g (uint32[1,3] x) => (uint32[1,3] y) { y = Identity (x) }"),
    "engine-quantised zero": lambda: quantised(np.int8, 3),
    "engine-quantised int32": lambda: quantised(np.int32, 0),
    "engine-quantised uint8": lambda: quantised(np.uint8, 0),
}
PARSED = {
    "uint8 at the ends": lambda: model("g (uint8[1,3] x) => (uint8[1,3] y) { y = Identity (x) }"),
    "double": lambda: cast(TensorProto.DOUBLE),
    "int64": lambda: model("g (float[1,3] x) => (int64[1] y) { y = ArgMax <axis=1, keepdims=0> (x) }"),
    "int8 around zero": lambda: quantised(np.int8, 0),
}


@pytest.mark.parametrize("case", NOT_PARSED)
def test_what_the_parser_rejects_is_an_error(case: str, tmp_path: Path) -> None:
    proto = NOT_PARSED[case]()
    assert ("error", case.split()[0]) in found(proto)
    if HERE:
        assert engine.parse(save(proto, tmp_path / "m.onnx"))


@pytest.mark.parametrize("case", PARSED)
def test_what_the_parser_reads_is_none(case: str, tmp_path: Path) -> None:
    proto = PARSED[case]()
    assert found(proto) == []
    if HERE:
        assert engine.parse(save(proto, tmp_path / "m.onnx")) == ""


def test_an_operator_that_one_of_them_lacks_is_an_error_there_alone() -> None:
    proto = model("g (float[1,6,4] x, float[1,1,6] s) => (int64[n,3] y) { y = NonMaxSuppression (x, s) }")
    assert found(proto) == [("error", "engine-operator")]
    assert found(proto, TENSORRT) == []


def test_a_free_input_needs_shapes() -> None:
    assert found(model("g (float[N,3] x) => (float[N,3] y) { y = Relu (x) }")) == [("note", "engine-profile")]


def test_an_opset_that_the_target_does_not_know_is_an_error() -> None:
    proto = model("g (float[3] x) => (float[3] y) { y = Relu (x) }", header='<ir_version: 8, opset_import: ["" : 26]>')
    assert found(proto, TENSORRT) == [("error", "engine-opset")]
    assert found(proto, RTX) == []


def test_operators_of_other_domains_are_an_error() -> None:
    header = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>'
    assert found(model("g (float[3] x) => (float[3] y) { y = com.microsoft.QuickGelu (x) }", header=header)) == [
        ("error", "engine-operator")
    ]
