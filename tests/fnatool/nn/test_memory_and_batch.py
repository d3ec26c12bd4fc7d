"""What `load` and `check` find out about memory and the batch before anything is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
import torch.nn.functional as F
from tiny import model, save

import fnatool.nn
from fnatool.model.check import check
from fnatool.nn.batch import ShapesAlone
from fnatool.nn.memory import held, largest
from passes.check.message import check_proto
from passes.errors import RefusedModel

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '


def written(text: str, folder: Path, opset: int = 17) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(onnx.parser.parse_model(HEAD.replace("17", str(opset)) + text).SerializeToString())
    return path


def codes(path: Path) -> list[str]:
    return [finding.code for finding in check(path).findings if finding.severity == "error"]


HUGE = {
    "of the data": "(float[1,3,8,8] x) => (float[1,3,40000,40000] y) <int64[4] s = {1,3,40000,40000}> { y = "
    'Resize(x, "", "", s) }',
    "of constants": "(float[1,3,8,8] x) => (float[1,3,8,8] y) <int64[2] s = {90000,90000}, float[1,1] one = {1}>"
    "{ e = Expand(one, s)  r = ReduceMax<keepdims=0>(e)  y = Add(x, r) }",
}


@pytest.mark.parametrize("text", HUGE.values(), ids=HUGE)
def test_a_graph_that_needs_more_memory_than_there_may_be_is_refused_before_it_runs(text: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedModel, match=r"it would take [\d.,]+ GiB .* has the shape"):
        fnatool.nn.load(written(text, tmp_path))


def test_what_learning_and_running_take_at_the_least_follows_from_shapes(tmp_path: Path) -> None:
    text = '(float["N",3,8,8] x) => (float["N",4] y) <float[16,3,1,1] w, float[16,4] v>'
    text += "{ c = Conv(x, w)  r = Relu(c)  p = GlobalAveragePool(r)  f = Flatten(p)  y = MatMul(f, v) }"
    model = onnx.parser.parse_model(HEAD + text)
    del model.graph.initializer[:]
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in (("w", (16, 3, 1, 1)), ("v", (16, 4)))
    )
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    reading = fnatool.nn.load(tmp_path / "m.onnx").origin.reading
    parts = (reading.view, reading.shapes, reading.facts.data)
    count = reading.facts.batch
    assert held(*parts) == count * (3 * 8 * 8 + 16) * 4  # what the convolution and the product read
    assert largest(*parts) == count * 16 * 8 * 8 * 4


def test_one_scalar_output_is_not_taken_to_depend_on_the_batch(tmp_path: Path) -> None:
    text = "(float[1,64,9,9] x) => (float[1,1] y) <float[64,1] w = {%s}>"
    text += "{ p = GlobalAveragePool(x)  f = Flatten(p)  m = MatMul(f, w)  s = Sigmoid(m)  y = Mul(s, s) }"
    path = written(text % ",".join(f"{0.3 + 0.01 * k:.2f}" for k in range(64)), tmp_path)
    module = fnatool.nn.load(path)
    assert module(torch.zeros(3, 64, 9, 9)).shape == (3, 1)


def test_check_proves_a_free_batch_with_two_samples(tmp_path: Path) -> None:
    free = (
        '(float["N",4,6,6] x) => (float["N",4] y) <int64[2] s = {%s}> { p = GlobalAveragePool(x)  y = Reshape(p, s) }'
    )
    assert codes(written(free % "1,4", tmp_path)) == ["batch"]
    assert codes(written(free % "1,-1", tmp_path)) == ["batch"]
    assert codes(written(free % "0,-1", tmp_path)) == []
    mixing = '(float["N",4,6,6] x) => (float["N",4,6,6] y) { m = ReduceMean<axes=[0]>(x)  y = Sub(x, m) }'
    assert codes(written(mixing, tmp_path)) == ["batch"]


STOPPED = {
    "beside what has no batch": (
        "(float[1,4,1,6] x, float[3,1,5,6] y) => (float[3,4,5,6] z) { z = Add(x, y) }",
        r"node '\w+' \(Add\) does not take 'x' \(2×4×1×6\) beside 'y' \(3×1×5×6\), which no batch makes larger",
    ),
    "made before": (
        "(float[1,4] x, float[3,4] y) => (float[3,4] z) { r = Relu(x)  s = Neg(r)  z = Mul(y, s) }",
        r"node '\w+' \(Mul\) does not take 's' \(2×4\) beside 'y' \(3×4\)",
    ),
}


@pytest.mark.parametrize(("text", "why"), STOPPED.values(), ids=STOPPED)
def test_what_does_not_take_two_samples_is_named_with_what_it_reads(text: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedModel, match=why):
        fnatool.nn.load(written(text, tmp_path))


def test_sizes_are_no_samples_though_there_are_as_many(tmp_path: Path) -> None:
    path = written("(float[2,4] x) => (float[2,4] y, int64[2] s) { y = Relu(x)  s = Shape(x) }", tmp_path)
    y, sizes = fnatool.nn.load(path)(torch.ones(6, 4))
    assert y.shape == (6, 4)
    assert sizes.tolist() == [6, 4]


def test_a_size_below_0_is_a_free_one(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(HEAD + '(float["N",3,8,8] x) => (float["N",3,8,8] y) { y = Relu(x) }')
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[2].dim_value = -1
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert check(tmp_path / "m.onnx").findings == ()


TRAINING = {
    "BatchNormalization": '(float["N",2,4,4] x) => (float["N",2,4,4] y) <float[2] a = {1,1}, float[2] b = {0,0}>'
    "{ y, m, v = BatchNormalization<training_mode=1>(x, a, b, b, a) }",
    "Dropout": '(float["N",4] x) => (float["N",4] y) <float r = {0.5}, bool t = {1}> { y = Dropout(x, r, t) }',
}


@pytest.mark.parametrize("op", TRAINING)
def test_a_network_in_training_mode_is_found_and_refused(op: str, tmp_path: Path) -> None:
    path = written(TRAINING[op], tmp_path)
    assert [(finding.code, finding.where.split()[0]) for finding in check_proto(onnx.load(path))] == [
        ("training-mode", op)
    ]
    with pytest.raises(RefusedModel, match="export the network in evaluation mode"):
        fnatool.nn.load(path)


def test_an_operand_laid_along_an_axis_by_an_old_version_is_refused(tmp_path: Path) -> None:
    text = "(float[1,4,4,4] x) => (float[1,4,4,4] y) <float[4] b = {1,2,3,4}> { y = Add<broadcast=1, axis=%d>(x, b) }"
    with pytest.raises(RefusedModel, match="lays its second operand along axis 1"):
        fnatool.nn.load(written(text % 1, tmp_path, opset=6))
    module = fnatool.nn.load(written(text % 3, tmp_path, opset=6))
    np.testing.assert_array_equal(module(torch.zeros(1, 4, 4, 4)).detach().numpy()[0, 0, 0], [1, 2, 3, 4])


def test_a_mean_over_the_samples_is_refused_however_little_it_moves(tmp_path: Path) -> None:
    text = """net (float[1,3,64,64] x) => (float[1,8] y) {
        q = Mul (x, x)
        v = ReduceMean <axes = [0, 1, 2, 3], keepdims = 1> (q)
        c = Conv <kernel_shape = [3, 3]> (x, w)
        r = Relu (c)
        p = GlobalMaxPool (r)
        n = Add (p, v)
        y = Flatten (n)
    }"""
    path = save(
        model(text, {"w": np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)}), tmp_path / "net.onnx"
    )
    with pytest.raises(RefusedModel, match="depends on the others in its batch"):
        fnatool.nn.load(path)


def test_a_normalization_without_computing_has_the_shape_and_the_refusals_of_torch() -> None:
    x, four, three = (torch.empty(size, device="meta") for size in ((2, 4, 5, 5), (4,), (3,)))
    with ShapesAlone():
        assert F.batch_norm(x, four, four, four, four, False).shape == x.shape
        with pytest.raises(RuntimeError, match="running_mean should contain 4 elements not 3"):
            F.batch_norm(x, three, four, four, four, False)
