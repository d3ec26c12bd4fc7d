"""Ifs that are decided before anything runs, and sequences that are joined as soon as they are made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from tiny import model, save

from fnatool.files import model as files
from passes.errors import RefusedModel
from passes.graph.view import view

SQUEEZED = """
g (float[N,3,4,1] x) => (float[N,A] y) {
    s = Shape (x)
    n = Gather (s, last)
    c = Equal (n, one)
    v = If (c) <
        then_branch = inner () => (t) { ax = Constant <value_ints = [3]> () t = Squeeze (x, ax) },
        else_branch = inner () => (u) { u = Identity (x) }
    >
    w = Relu (v)
    y = Flatten (w)
}
"""
"""As torch exports squeeze(3): what it does depends on a size, here 1."""

LAST = {"last": np.array(3), "one": np.array(1)}


def outputs(path: Path, graph: bytes | None = None) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph or path.read_bytes(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 1)).astype(np.float32)
    return session.run(None, {"x": x})[0]


def ops(read: files.Model) -> list[str]:
    return [node.op for node in view(read.graph).nodes]


def test_the_branch_that_a_static_size_decides_stands_where_the_if_was(tmp_path: Path) -> None:
    path = save(model(SQUEEZED, LAST), tmp_path / "m.onnx")
    read = files.read(path)
    assert ops(read) == ["Constant", "Squeeze", "Relu", "Flatten"]
    assert read.notes[0] == "took 1 branches that sizes or constants decide"
    files.write(read, tmp_path / "out.onnx")
    np.testing.assert_array_equal(outputs(tmp_path / "out.onnx"), outputs(path))


def test_a_number_of_axes_decides_where_all_sizes_are_free(tmp_path: Path) -> None:
    text = """g (float[A,B,C,D] x) => (float[A,B,C,D] y) {
        s = Shape (x) r = Size (s) c = Equal (r, four)
        y = If (c) <then_branch = i () => (t) { t = Relu (x) }, else_branch = i () => (u) { u = Neg (x) }>
    }"""
    read = files.read(save(model(text, {"four": np.array(4)}), tmp_path / "m.onnx"))
    assert ops(read) == ["Relu"]


def test_branches_within_branches_get_names_of_their_own(tmp_path: Path) -> None:
    text = """g (float[1,2] x) => (float[1,2] y, float[1,2] z) {
        yes = Constant <value = bool {1}> ()
        no = Constant <value = bool {0}> ()
        y = If (yes) <
            then_branch = i () => (t) {
                a = Relu (x)
                t = If (no) <then_branch = j () => (p) { p = Neg (a) }, else_branch = j () => (q) { b = Exp (a) q = Neg (b) }>
            },
            else_branch = i () => (u) { u = Identity (x) }
        >
        z = If (yes) <then_branch = i () => (t) { a = Abs (x) t = Sqrt (a) }, else_branch = i () => (u) { u = Identity (x) }>
    }"""
    path = save(model(text), tmp_path / "m.onnx")
    read = files.read(path)
    assert ops(read) == ["Relu", "Exp", "Neg", "Abs", "Sqrt"]
    files.write(read, tmp_path / "out.onnx")
    x = {"x": np.array([[0.5, -2]], np.float32)}
    both = [onnxruntime.InferenceSession(p.read_bytes()).run(None, x) for p in (path, tmp_path / "out.onnx")]
    np.testing.assert_array_equal(both[0], both[1])


def test_a_branch_may_hand_on_what_is_outside_it_twice(tmp_path: Path) -> None:
    body = helper.make_graph([], "b", [], [helper.make_empty_tensor_value_info("x")] * 2)
    made = model(
        "g (float[1,2] x) => (float[1,2] y, float[1,2] z) { c = Constant <value = bool {1}> () y = Relu (x) z "
        "= Relu (x) }"
    )
    del made.graph.node[1:]
    made.graph.node.append(helper.make_node("If", ["c"], ["y", "z"], then_branch=body, else_branch=body))
    read = files.read(save(made, tmp_path / "m.onnx"))
    assert [(node.op, node.inputs) for node in view(read.graph).nodes] == [("Identity", ("x",)), ("Identity", ("x",))]


def test_the_constants_of_a_branch_come_with_it(tmp_path: Path) -> None:
    ten = helper.make_tensor("k", TensorProto.FLOAT, [1], [10.0])
    body = helper.make_graph(
        [helper.make_node("Add", ["x", "k"], ["t"])], "b", [], [helper.make_empty_tensor_value_info("t")], [ten]
    )
    made = model("g (float[1,2] x) => (float[1,2] y) { c = Constant <value = bool {1}> () y = Relu (x) }")
    del made.graph.node[1:]
    made.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body))
    read = files.read(save(made, tmp_path / "m.onnx"))
    files.write(read, tmp_path / "out.onnx")
    session = onnxruntime.InferenceSession((tmp_path / "out.onnx").read_bytes())
    assert session.run(None, {"x": np.ones((1, 2), np.float32)})[0].tolist() == [[11, 11]]


@pytest.mark.parametrize(
    "condition",
    [
        "s = Shape (x) n = Gather (s, first) c = Equal (n, one)",
        "m = ReduceMax <keepdims = 0> (x) c = Cast <to = 9> (m)",
    ],
)
def test_a_condition_known_only_when_it_runs_is_refused_with_the_reason(condition: str, tmp_path: Path) -> None:
    text = f"""g (float[N,2] x) => (float[N,2] y) {{
        {condition}
        y = If (c) <then_branch = i () => (t) {{ t = Relu (x) }}, else_branch = i () => (u) {{ u = Neg (x) }}>
    }}"""
    path = save(model(text, {"first": np.array(0), "one": np.array(1)}), tmp_path / "m.onnx")
    with pytest.raises(
        RefusedModel, match="its condition depends on the data, or on a free size that --input can give"
    ):
        files.read(path)


TALL = """g (float[N,2,H,W] x) => (float[N,2,K,W] y) {
    s = Shape (x) n = Gather (s, last) c = Equal (n, one)
    y = If (c) <then_branch = i () => (t) { t = Relu (x) }, else_branch = i () => (u) { u = Neg (x) }>
}"""


@pytest.mark.parametrize(("size", "op"), [(1, "Relu"), (5, "Neg")])
def test_sizes_given_decide_a_branch_and_are_the_models_own_then(size: int, op: str, tmp_path: Path) -> None:
    path = save(model(TALL, {"last": np.array(2), "one": np.array(1)}), tmp_path / "m.onnx")
    read = files.read(path, {"x": (1, 2, size, 7)})
    assert ops(read) == [op]
    assert read.graph.inputs[0].shape == ["N", 2, size, "W"]
    assert (
        read.notes[0]
        == f"took 1 branches that the sizes given decide; they are the model's own now: {size} on axis 2 of 'x'"
    )


def test_sizes_that_decide_nothing_change_nothing(tmp_path: Path) -> None:
    text = TALL.replace("s = Shape (x) n = Gather (s, last)", "n = ReduceMax <keepdims = 0> (x)")
    path = save(model(text, {"last": np.array(2), "one": np.array(1, np.float32)}), tmp_path / "m.onnx")
    with pytest.raises(RefusedModel, match="depends on the data"):
        files.read(path, {"x": (1, 2, 5, 7)})
    free = """g (float[N,2,H] x) => (float[N,2,H] y) {
        yes = Constant <value = bool {1}> ()
        y = If (yes) <then_branch = i () => (t) { t = Relu (x) }, else_branch = i () => (u) { u = Neg (x) }>
    }"""
    assert files.read(save(model(free), tmp_path / "free.onnx"), {"x": (1, 2, 5)}).graph.inputs[0].shape == [
        "N",
        2,
        "H",
    ]


def test_a_sequence_joined_as_soon_as_it_is_made_is_a_concat(tmp_path: Path) -> None:
    text = """g (float[1,2] x) => (float[1,4] y) {
        a = Relu (x) s = SequenceConstruct (a, x) y = ConcatFromSequence <axis = 1> (s)
    }"""
    read = files.read(save(model(text), tmp_path / "m.onnx"))
    assert [(node.op, node.inputs) for node in view(read.graph).nodes] == [("Relu", ("x",)), ("Concat", ("a", "x"))]
    assert onnx.checker.check_model(read_back(read, tmp_path), full_check=True) is None


def read_back(read: files.Model, folder: Path) -> str:
    files.write(read, folder / "out.onnx")
    return str(folder / "out.onnx")
