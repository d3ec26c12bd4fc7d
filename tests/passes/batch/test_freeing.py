"""Graphs that declare a free batch but hold sizes for one sample."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest

from passes.batch.freeing import freed

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float["N",4,6,6] x) => '
BUILT_IN = {
    "a Reshape": '(float["N",4] y) <int64[2] s = {1,-1}> { p = GlobalAveragePool(x)  y = Reshape(p, s) }',
    "two Reshapes": '(float["N",4,6,6] y) <int64[5] s = {1,2,2,6,6}, int64[4] t = {1,4,6,6}>'
    "{ a = Reshape(x, s)  b = Transpose<perm=[0,2,1,3,4]>(a)  y = Reshape(b, t) }",
    "a Resize": '(float["N",4,9,9] y) <int64[4] s = {1,4,9,9}> { y = Resize<mode="linear">(x, "", "", s) }',
    "a constant joined": '(float["N",5,6,6] y) <float[1,1,1,1] one = {1}, int64[4] s = {1,1,6,6}>'
    "{ k = Expand(one, s)  y = Concat<axis=1>(x, k) }",
    "sizes computed in part": '(float["N",4,36] y) <int64[1] one = {1}, int64[1] two = {4}, int64[1] rest = {-1}>'
    "{ s = Concat<axis=0>(one, two, rest)  y = Reshape(x, s) }",
}


def run(graph: gs.Graph, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        gs.export_onnx(graph).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"x": x})
    return np.asarray(y)


def graph(text: str) -> gs.Graph:
    return gs.import_onnx(onnx.parser.parse_model(HEAD + text))


@pytest.mark.parametrize("text", BUILT_IN.values(), ids=BUILT_IN)
def test_a_graph_with_one_sample_built_in_takes_any_number(text: str) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 6, 6)).astype(np.float32)
    given = graph(text)
    made = freed(given)
    assert made is not given
    np.testing.assert_array_equal(run(made, x), np.concatenate([run(given, x[k : k + 1]) for k in range(3)]))


def test_a_graph_that_takes_any_batch_stays_the_same_object() -> None:
    given = graph('(float["N",4] y) <int64[2] s = {0,-1}> { p = GlobalAveragePool(x)  y = Reshape(p, s) }')
    assert freed(given) is given


def test_a_leading_one_that_is_not_the_batch_is_left_alone() -> None:
    text = (
        '(float["N",4,6,6] y) <int64[4] s = {1,-1,6,6}, int64[4] t = {-1,4,6,6}> { a = Reshape(x, s)  b = '
        "Relu(a)  y = Reshape(b, t) }"
    )
    given = graph(text)
    assert freed(given) is given


def test_a_static_batch_stays_static() -> None:
    text = (
        HEAD.replace('"N"', "1")
        + "(float[1,4] y) <int64[2] s = {1,-1}> { p = GlobalAveragePool(x)  y = Reshape(p, s) }"
    )
    given = gs.import_onnx(onnx.parser.parse_model(text))
    assert freed(given) is given
