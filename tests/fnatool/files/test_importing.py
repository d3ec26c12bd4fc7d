"""A graph that is read is known as records until someone asks for objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from tiny import NET, WEIGHTS, model, save

import fnatool
from fnatool import seeds
from fnatool.files import model as files
from passes.graph.view import View, records, view, whole_records

ATTRIBUTES = """
g (float[N,4,8,8] x) => (float[N,4,8,8] y, float[2] two) {
    k = Constant <value = float[2] {1.0, 2.5}> ()
    e = Resize <coordinate_transformation_mode = "asymmetric", mode = "nearest", nearest_mode = "floor"> (x, , scales)
    a = LeakyRelu <alpha = 0.3> (e)
    p = MaxPool <kernel_shape = [1, 1], strides = [1, 1]> (a)
    y = Identity (p)
}
"""


def said(seen: View) -> object:
    """All that a View says, to be compared."""
    nodes = [
        (node.name, node.op, node.inputs, node.outputs, {key: plain(value) for key, value in node.attrs.items()})
        for node in seen.nodes
    ]
    constants = {
        name: (constant.values.tobytes(), constant.dtype, tuple(constant.shape))
        for name, constant in seen.constants.items()
    }
    return nodes, list(constants.items()), seen.inputs, seen.outputs, seen.opset, seen.domains, seen.readers


def plain(value: object) -> object:
    return (
        (value.values.tobytes(), value.dtype, type(value)) if isinstance(value, gs.Constant) else (value, type(value))
    )


def odd() -> onnx.ModelProto:
    """Nodes in another order than they run, of a domain of their own, without names, a constant that is an output
    too.
    """
    proto = model(ATTRIBUTES, {"scales": np.ones(4, np.float32), "two": np.ones(2, np.float32)})
    proto.opset_import.append(onnx.helper.make_opsetid("own", 1))
    proto.graph.node.append(
        onnx.helper.make_node("Bend", ["y"], ["bent"], domain="own", by=[1.5], so=["a", "b"], none=3)
    )
    proto.graph.node[-1].domain = "own"
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes[::-1])
    return proto


@pytest.mark.parametrize("proto", [model(NET, WEIGHTS), odd()], ids=["net", "odd"])
def test_records_say_what_the_objects_say(proto: onnx.ModelProto, tmp_path: Path) -> None:
    path = save(proto, tmp_path / "m.onnx")
    early, late = files.read(path).graph, files.read(path).graph
    assert len(late.nodes) == len(proto.graph.node)  # now it has objects
    assert said(view(early)) == said(view(late))
    assert early.records is not None
    assert late.records is None


def test_the_bundled_seed_is_the_same_in_records_and_in_objects() -> None:
    path = seeds.bundled("mobilenetv2_bn")
    early, late = files.read(path).graph, files.read(path).graph
    assert late.nodes
    assert said(view(early)) == said(view(late))


def test_what_the_objects_become_is_what_the_graph_says(tmp_path: Path) -> None:
    graph = files.read(save(model(NET, WEIGHTS), tmp_path / "m.onnx")).graph
    relu = next(node for node in graph.nodes if node.op == "Relu")
    relu.op = "Sigmoid"
    assert "Sigmoid" in [node.op for node in records(graph)[0]]
    assert graph.outputs[0].inputs[0].op == "Gemm"
    assert graph.inputs[0].outputs[0].op == "Conv"


def test_a_graph_is_written_the_same_from_records_and_from_objects(tmp_path: Path) -> None:
    path = save(model(NET, WEIGHTS), tmp_path / "m.onnx")
    spec = {"version": 1, "knobs": {"node:**.width": "x0.5"}}
    early, late = (fnatool.remap(path, spec) for _ in range(2))
    assert whole_records(early.model.graph) is not None
    assert late.model.graph.nodes
    early.write(tmp_path / "early.onnx")
    late.write(tmp_path / "late.onnx")
    assert (tmp_path / "early.onnx").read_bytes() == (tmp_path / "late.onnx").read_bytes()


def test_a_remap_of_a_graph_in_normal_form_makes_no_objects_of_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    real = gs.Node.__init__

    def noted(self: gs.Node, op: str, *rest: object, **named: object) -> None:
        made.append(op)
        real(self, op, *rest, **named)

    monkeypatch.setattr(gs.Node, "__init__", noted)
    path = save(model(NET, WEIGHTS), tmp_path / "m.onnx")
    done = fnatool.remap(
        path, {"version": 1, "knobs": {"node:**.width": "x0.5"}}, options=fnatool.RemapOptions(verify=False)
    )
    done.write(tmp_path / "half.onnx")
    assert made == []
    assert done.model.graph.nodes
    assert len(made) == len(done.plan.nodes)
