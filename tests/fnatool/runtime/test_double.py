"""Where float32 rounds a value by more than the tolerance, double precision decides: an exact remap passes, a planted
error does not.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from nets import Net, named
from onnx import TensorProto

from fnatool.runtime import double, verify
from fnatool.runtime.double import NotRepeated, repeated
from fnatool.runtime.verify import Verification
from passes.network.analyse import analyse
from passes.target.apply import apply
from passes.target.planner import plan
from passes.target.spec import Spec

LIFT, LOW = 4096.0, 9.0


def saturated() -> gs.Graph:
    """One output, the tail of a sigmoid, that has lost digits on the way: its own size is its only scale. No nudge
    moves bytes.
    """
    net = Net()
    net.channels["pixels"] = 3
    net.op("Cast", "pixels", "x", to=TensorProto.FLOAT)
    y = net.relu(net.conv("pixels", "one", 6, 3))
    net.conv(y, "two", 6, 3)
    net.op("GlobalAveragePool", "pool", "two")
    net.op("Flatten", "flat", "pool")
    net.constant("w", np.linspace(-0.01, 0.01, 6)[None])
    net.op("Gemm", "z", "flat", "w", transB=1)
    net.op("Add", "lifted", "z", net.constant("lift", LIFT))
    net.op("Sub", "lower", "lifted", net.constant("fall", LIFT + LOW))
    net.op("Sigmoid", "y", "lower")
    made = net.model()
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    return named(made)


def verified(changes: Mapping[str, float]) -> Verification:
    """A wider network, exact but for the constants of the target that are said."""
    seed = saturated()
    analysis = analyse(seed)
    found = plan(analysis, Spec({"node:one.width": 12}), strategy="preserve")
    target = apply(seed, found)
    for node in target.nodes:
        for slot, tensor in enumerate(node.inputs):
            if tensor.name in changes:
                node.inputs[slot] = gs.Constant(tensor.name, np.full(tensor.shape, changes[tensor.name], np.float32))
    return verify.verify(seed, target, analysis, found)


SAME = {"lift": 0.0, "fall": LOW}  # the same sum without lost digits


def test_rounding_beyond_the_tolerance_is_told_from_a_fault_in_double_precision() -> None:
    result = verified(SAME)
    (output,) = (drift for drift in result.drifts if drift.tensor == "y")
    assert output.limit is not None
    assert output.relative < 1e-12
    assert result.first is None
    assert result.worst < result.tolerance


def test_without_double_precision_the_same_is_in_doubt_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object) -> None:
        raise NotRepeated("no kernel")

    monkeypatch.setattr(verify, "repeated", cannot)
    result = verified(SAME)
    assert result.first is not None
    assert result.first.tensor == "y"
    assert result.doubt == "no kernel"


@pytest.mark.parametrize("error", [1e-3, 1e-2, 1.0])
def test_a_planted_error_behind_lost_digits_is_found(error: float) -> None:
    result = verified({**SAME, "fall": LOW + error})
    assert result.first is not None
    assert result.first.tensor == "y"
    assert result.first.relative > error / 10


def test_a_planted_error_in_a_weight_is_found_and_named() -> None:
    result = verified({**SAME, "w": 0.01})
    assert result.first is not None
    assert result.first.node == "z"


def test_double_precision_agrees_with_the_runtime() -> None:
    graph = saturated()
    feeds = verify.noise(analyse(graph), 0)
    names = ["one", "two", "z"]
    fast, exact = verify.run_inner(graph, feeds, names, "it"), repeated(graph, feeds, names)
    for name in names:
        assert exact[name].dtype == np.float64
        np.testing.assert_allclose(fast[name], exact[name], rtol=1e-4, atol=1e-3)


def test_what_is_not_computed_in_double_precision_decides_nothing() -> None:
    graph = saturated()
    graph.nodes[0].attrs["to"] = TensorProto.UINT8
    with pytest.raises(NotRepeated, match="'pixels' is not computed in double precision"):
        repeated(graph, verify.noise(analyse(saturated()), 0), ["pixels"])
    graph.nodes[0].op = "NoSuchOperator"
    with pytest.raises(NotRepeated):
        repeated(graph, verify.noise(analyse(saturated()), 0), ["y"])


def test_nodes_behind_what_is_asked_are_not_computed() -> None:
    graph = saturated()
    assert [node.op_type for node in double.doubled(gs.export_onnx(graph), ["one"]).graph.node] == ["Cast", "Conv"]
