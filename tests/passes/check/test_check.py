"""Every static rule finds its planted error, by name, and is silent on a correct graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from check_rules import RULES, one
from tiny import NET, WEIGHTS, model, net

from fnatool.files.model import import_graph
from passes.check.finding import Finding
from passes.check.graph import check
from passes.check.message import check_proto
from passes.graph.order import topological


def findings(proto: onnx.ModelProto, shapes: dict[str, tuple[int, ...]] | None = None) -> list[Finding]:
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    return list(check(import_graph(proto, arrays), shapes))


def codes(proto: onnx.ModelProto, shapes: dict[str, tuple[int, ...]] | None = None) -> list[str]:
    return sorted({f"{finding.code} {finding.where}" for finding in findings(proto, shapes)})


def test_a_correct_network_has_no_findings() -> None:
    assert findings(net()) == []
    assert check_proto(net()) == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Conv (x)", "it has 1 inputs instead of at least 2"),
        ("Relu (x, x)", "it has 2 inputs instead of 1"),
        ('Conv ("", x)', "an input is missing that may not be left out"),
        ("Transpose <perm = 2> (x)", "its attribute 'perm' is of kind int instead of ints"),
        ('Conv <group = "two"> (x, x)', "its attribute 'group' is of kind string instead of int"),
        ("Cast (x)", "it lacks the attribute 'to'"),
        ("Relu <odd = 1> (x)", ""),
        ("Clip (x)", ""),
        ("NoSuchOperator (x, x, x)", ""),
    ],
)
def test_a_node_is_held_against_the_definition_of_its_operator(line: str, message: str) -> None:
    assert [finding.message for finding in check_proto(one(line, {}))] == ([message] if message else [])


def test_a_node_without_outputs_or_with_an_attribute_twice_is_found() -> None:
    proto = one("Concat <axis = 1> (x)", {})
    proto.graph.node[0].attribute.append(proto.graph.node[0].attribute[0])
    proto.graph.node.append(onnx.NodeProto(op_type="Relu", input=["x"]))
    found = [finding.message for finding in check_proto(proto)]
    assert found == ["an attribute stands twice", "it has 0 outputs instead of 1", "it has no output"]


def test_a_split_says_as_many_outputs_as_it_has() -> None:
    assert check_proto(one("Split <num_outputs = 1> (x)", {}, opset=18)) == ()
    (found,) = check_proto(one("Split <num_outputs = 2> (x)", {}, opset=18))
    assert found.message == "it has 1 outputs instead of the 2 of its attribute 'num_outputs'"


@pytest.mark.parametrize("version", [0, -1, 2**31, 2**63 - 1])
def test_an_impossible_version_of_the_operators_is_found(version: int) -> None:
    proto = net()
    proto.opset_import[0].version = version
    assert [finding.code for finding in check_proto(proto)] == ["opset"]


@pytest.mark.parametrize(("line", "weights", "code"), RULES)
def test_a_rule_finds_its_error_and_nothing_else(
    line: str, weights: dict[str, tuple[int, ...] | np.ndarray], code: str
) -> None:
    found = findings(one(line, weights), {"x": (1, 4, 8, 8)})
    assert {finding.code for finding in found} == ({code} if code else set())


def test_group_normalization_has_one_scale_per_channel_since_opset_21() -> None:
    line, weights = "GroupNormalization <num_groups = 2> (x, s, b)", {"s": (2,), "b": (2,)}
    assert codes(one(line, weights, opset=18), {"x": (1, 4, 8, 8)}) == []
    assert codes(one(line, weights, opset=21), {"x": (1, 4, 8, 8)}) == ["vector-length GroupNormalization ''"]


def test_gemm_takes_its_features_and_a_bias_of_its_outputs() -> None:
    assert codes(net(m=(4, 9)), {"f": (-1, 8)}) == ["input-channels Gemm ''"]
    assert codes(net(mb=(3,))) == ["bias-length Gemm ''"]
    assert codes(net(mb=(1,))) == []


def test_a_wrong_width_is_reported_where_it_is_and_not_downstream() -> None:
    text = (
        "g (float[1,3,8,8] x) => (float[N] y) { a = Conv (x, u) b = Relu (a) c = Conv (b, v) d = Conv (c, w) y "
        "= Relu (d) }"
    )
    proto = model(text, {"u": (8, 3, 1, 1), "v": (8, 7, 1, 1), "w": (8, 8, 1, 1)})
    found = findings(proto)
    assert [(finding.code, finding.message) for finding in found] == [
        ("input-channels", "its weight is for 7 input channels, 'b' has 8")
    ]


def test_several_errors_are_reported_together() -> None:
    found = codes(net(b=(7,), mean=(7,), mb=(5,)), {"f": (-1, 8)})
    assert found == ["bias-length Conv ''", "bias-length Gemm ''", "vector-length BatchNormalization ''"]


def test_a_node_that_reaches_no_output_is_a_warning() -> None:
    proto = model("g (float[1,3] x) => (float[1,3] y) { y = Relu (x) z = Neg (x) }")
    found = findings(proto)
    assert [(finding.severity, finding.code, finding.where) for finding in found] == [
        ("warning", "unused-node", "Neg ''")
    ]


def test_dangling_cyclic_and_duplicate_names_are_found_in_the_graph() -> None:
    dangling = model("g (float[3] x) => (float[3] y) { y = Add (x, ghost) }")
    cyclic = model("g (float[3] x) => (float[3] y) { a = Add (x, b) b = Relu (a) y = Relu (b) }")
    doubled = model("g (float[3] x) => (float[3] y) { y = Relu (x) y = Neg (x) }")
    assert codes(dangling) == ["dangling Add ''"]
    assert [finding.code for finding in findings(cyclic)] == ["cycle"]
    assert [finding.code for finding in findings(doubled)] == ["duplicate-tensor"]


def of_proto(proto: onnx.ModelProto) -> list[str]:
    return [f"{finding.severity} {finding.code} {finding.where}" for finding in check_proto(proto)]


def test_names_and_order_are_checked_in_the_file() -> None:
    assert of_proto(model("g (float[3] x) => (float[3] y) { y = Add (x, ghost) }")) == ["error dangling Add (node 0)"]
    assert of_proto(model("g (float[3] x) => (float[3] z) { y = Relu (x) }")) == ["error dangling output 'z'"]
    assert of_proto(model("g (float[3] x) => (float[3] y) { y = Relu (x) y = Neg (x) }")) == [
        "error duplicate-tensor tensor 'y'"
    ]
    assert of_proto(model("g (float[3] x) => (float[3] y) { y = Relu (a) a = Neg (x) }")) == [
        "error unsorted Relu (node 0)"
    ]
    assert of_proto(model("g (float[3] x) => (float[3] y) { a = Add (x, b) b = Relu (a) y = Relu (b) }"))[0].startswith(
        "error cycle Add"
    )
    assert of_proto(model(NET, WEIGHTS | {"extra": (2,)})) == ["warning unused-initializer initializer 'extra'"]
    assert of_proto(model("g (float[3] x, float[3] z) => (float[3] y) { y = Relu (x) }")) == [
        "warning unused-input input 'z'"
    ]
    assert of_proto(onnx.ModelProto()) == ["error empty graph"]


def test_shared_node_names_repeated_initializers_and_a_missing_opset_are_found() -> None:
    proto = net()
    for node in proto.graph.node[:2]:
        node.name = "same"
    proto.graph.initializer.append(proto.graph.initializer[0])
    del proto.opset_import[:]
    assert of_proto(proto) == [
        "error no-opset model",
        "error duplicate-initializer initializer 'w'",
        "warning duplicate-node node 'same'",
    ]


def test_a_subgraph_uses_tensors_of_the_outer_graph() -> None:
    text = """g (bool c, float[3] x) => (float[3] y) {
        y = If (c) <
            then_branch = t () => (float[3] a) { a = Add (x, w) },
            else_branch = e () => (float[3] b) { b = Identity (x) }
        >
    }"""
    assert of_proto(model(text, {"w": (3,)})) == ["note control-flow If (node 0)"]


def test_topological_order_keeps_the_given_one_where_it_can() -> None:
    assert topological([["x"], ["a"], ["x"]], [["a"], ["b"], ["c"]]).nodes == (0, 1, 2)
    assert topological([["b"], ["x"], ["x"]], [["a"], ["b"], ["c"]]).nodes == (1, 0, 2)
    assert topological([["a"], ["a"]], [["a"], ["b"]]).stuck == (0, 1)


def test_a_long_chain_is_checked_in_seconds() -> None:
    steps = "\n".join(f"t{i + 1} = Relu (t{i})" for i in range(10_000))
    proto = model(f"g (float[3] t0) => (float[3] t10000) {{ {steps} }}")
    import time

    start = time.process_time()
    assert check_proto(proto) == ()
    assert findings(proto) == []
    assert time.process_time() - start < 8  # a cost that grows with the square takes minutes
