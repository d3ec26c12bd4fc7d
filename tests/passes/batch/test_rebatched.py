"""Another number of samples at once: each is computed as it was alone, or the node that stands in the way is named."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest

from passes.batch.contents import Mixed
from passes.batch.rebatched import with_samples
from passes.graph.normalise import normalise
from passes.graph.shapes import infer
from passes.graph.view import view

HEAD = '<ir_version: 8, opset_import: ["" : %d]> g (float[%s,4,6,6] x) => '
WRITTEN = {
    "a Reshape": "(float[1,4] y) <int64[2] s = {1,-1}> { p = GlobalAveragePool(x)  y = Reshape(p, s) }",
    "two Reshapes": "(float[1,4,6,6] y) <int64[5] s = {1,2,2,6,6}, int64[4] t = {1,4,6,6}>"
    "{ a = Reshape(x, s)  b = Transpose<perm=[0,2,1,3,4]>(a)  y = Reshape(b, t) }",
    "channels in front": "(float[1,4,6,6] y) <int64[4] s = {4,1,6,6}, int64[4] t = {1,4,6,6}, float[1,1,3,3] w = "
    "{1,2,3,4,5,6,7,8,9}>"
    "{ a = Reshape(x, s)  b = Conv<pads=[1,1,1,1]>(a, w)  y = Reshape(b, t) }",
    "samples moved away and back": "(float[1,6,6,4] y) <int64[3] s = {1,4,36}, int64[4] t = {6,6,1,4}>"
    "{ a = Reshape(x, s)  b = Transpose<perm=[2,0,1]>(a)  c = Reshape(b, t)  y = Transpose<perm=[2,0,1,3]>(c) }",
    "a Flatten": "(float[1,144] y) { y = Flatten(x) }",
    "a Resize": '(float[1,4,9,9] y) <int64[4] s = {1,4,9,9}> { y = Resize<mode="linear">(x, "", "", s) }',
    "an unpooling": "(float[1,4,6,6] y) <int64[4] s = {1,4,6,6}> { p, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)"
    "  y = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(p, i, s) }",
    "an Expand": "(float[1,4,6,6] y) <int64[4] s = {1,4,6,6}> { m = ReduceMean<axes=[2,3]>(x)  e = Expand(m, s)  y "
    "= Mul(e, x) }",
    "a constant joined": "(float[1,5,6,6] y) <float[1,1,1,1] one = {1}, int64[4] s = {1,1,6,6}>"
    "{ k = Expand(one, s)  y = Concat<axis=1>(x, k) }",
    "a Slice to the last sample": "(float[1,4,3,6] y) <int64[3] a = {0,0,0}, int64[3] b = {1,4,3}, int64[3] c = "
    "{0,1,2}>"
    "{ y = Slice(x, a, b, c) }",
    "both halves in one batch": "(float[1,4,6,6] y) <int64[2] s = {1,1}>"
    "{ f = Neg(x)  c = Concat<axis=0>(x, f)  r = Relu(c)  a, b = Split<axis=0>(r, s)  y = Sub(a, b) }",
    "shapes computed": "(float[1,4,36] y) <int64[1] i = {0}, int64[1] j = {1}, int64[1] rest = {-1}>"
    "{ s = Shape(x)  n = Gather(s, i)  c = Gather(s, j)  t = Concat<axis=0>(n, c, rest)  y = Reshape(x, t) }",
    "a matrix of its own for each": "(float[1,4,4] y) <int64[3] s = {1,4,36}>"
    "{ a = Reshape(x, s)  b = Transpose<perm=[0,2,1]>(a)  y = MatMul(a, b) }",
    "the largest": "(float[1,4,6,2] y) <int64[1] k = {2}> { y, i = TopK<axis=3>(x, k) }",
    "an equation": '(float[1,4,6] y) { y = Einsum<equation="nchw,nchw->nch">(x, x) }',
    "a place for every pixel": "(float[1,4,2,2] y) <float[1,2,2,2] g = {0,0,0.5,0,0,0.5,0.25,0.25}> { y = "
    "GridSample(x, g) }",
    "a tensor of its size": "(float[1,4,6,6] y) { s = Shape(x)  z = ConstantOfShape(s)  y = Concat<axis=1>(x, z) }".replace(
        "[1,4,6,6] y", "[1,8,6,6] y"
    ),
    "a table": "(float[1,2,6,6] y) <int64[2] i = {2,0}> { y = Gather<axis=1>(x, i) }",
    "old pooling of all": "(float[1,4] y) <float[4,4] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7}, float[4] b = {1,2,3,4}>"
    "{ p = GlobalMaxPool(x)  f = Flatten(p)  y = Gemm(f, w, b) }",
}


def graph(text: str, batch: str = "1", opset: int = 17) -> gs.Graph:
    body = text if batch == "1" else text.replace("(float[1,", f"(float[{batch},", 1)
    return gs.import_onnx(onnx.parser.parse_model(HEAD % (opset, batch) + body))


def run(made: gs.Graph, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        gs.export_onnx(made).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    y = session.run(None, {"x": x})[0]
    return np.asarray(y)


def other(given: gs.Graph, batch: int | None) -> gs.Graph:
    seen = normalise(given).graph
    return with_samples(seen, infer(view(seen)), batch)


SAMPLES = np.random.default_rng(0).standard_normal((6, 4, 6, 6)).astype(np.float32)


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("said", ["1", '"N"'])
def test_a_network_for_one_sample_takes_any_number(text: str, said: str) -> None:
    given = graph(text, said)
    one = graph(text)
    alone = [run(one, SAMPLES[k : k + 1]) for k in range(6)]
    free = other(given, None)
    assert [tensor.shape[0] for tensor in (*free.inputs, *free.outputs)] == ["N", "N"]
    for count in (1, 2, 3):
        np.testing.assert_allclose(run(free, SAMPLES[:count]), np.concatenate(alone[:count]), rtol=1e-5, atol=1e-5)
    for count in (1, 2, 3):
        fixed = other(given, count)
        assert [tensor.shape[0] for tensor in (*fixed.inputs, *fixed.outputs)] == [count, count]
        np.testing.assert_allclose(run(fixed, SAMPLES[:count]), np.concatenate(alone[:count]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_a_network_for_several_samples_takes_any_number(text: str) -> None:
    one = graph(text)
    alone = [run(one, SAMPLES[k : k + 1]) for k in range(6)]
    two = other(one, 2)
    for batch in (None, 1, 3):
        made = other(two, batch)
        count = batch or 3
        np.testing.assert_allclose(run(made, SAMPLES[:count]), np.concatenate(alone[:count]), rtol=1e-5, atol=1e-5)


MIXED = {
    "a mean over the samples": (
        "(float[1,4,6,6] y) { m = ReduceMean<axes=[0]>(x)  y = Sub(x, m) }",
        r"ReduceMean.*over the samples",
    ),
    "all sizes of one": ("(float[4,6,6] y) { y = Squeeze(x) }", "Squeeze.*axis of the samples"),
    "the first sample": ("(float[4,6,6] y) <int64 i = {0}> { y = Gather(x, i) }", "Gather.*some of the samples"),
    "a comparison": ("(float[1,4,6,6] y) { y = Softmax<axis=0>(x) }", "Softmax.*compares the samples"),
    "one number": ("(float y) { y = ReduceMax<keepdims=0>(x) }", "ReduceMax.*over the samples"),
    "a list": ("(int64[4,M] y) { y = NonZero(x) }", "depends on its values"),
}


@pytest.mark.parametrize(("text", "why"), MIXED.values(), ids=MIXED)
def test_what_mixes_samples_is_named(text: str, why: str) -> None:
    given = gs.import_onnx(onnx.parser.parse_model(HEAD % (17, "1") + text))
    with pytest.raises(Mixed, match=why):
        other(given, 2)


def test_a_constant_for_each_sample_is_refused_unless_all_are_alike() -> None:
    alike = "(float[2,4,6,6] y) <float[2,1,1,1] k = {3,3}> { y = Add(x, k) }"
    made = other(gs.import_onnx(onnx.parser.parse_model(HEAD % (17, "2") + alike)), 3)
    np.testing.assert_array_equal(run(made, SAMPLES[:3]), SAMPLES[:3] + 3)
    with pytest.raises(Mixed, match="other values for each of the 2 samples"):
        other(gs.import_onnx(onnx.parser.parse_model(HEAD % (17, "2") + alike.replace("3,3", "3,4"))), 3)


def test_nothing_changes_where_any_number_goes_through_already() -> None:
    given = normalise(
        graph('(float["N",4] y) <int64[2] s = {0,-1}> { p = GlobalAveragePool(x)  y = Reshape(p, s) }', '"N"')
    ).graph
    made = with_samples(given, infer(view(given)), None)
    assert [(n.op, [t.name for t in n.inputs]) for n in made.nodes] == [
        (n.op, [t.name for t in n.inputs]) for n in given.nodes
    ]
