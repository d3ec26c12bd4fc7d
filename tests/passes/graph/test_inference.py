"""What was exported for training computes as in inference; what is there already stays."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from nets import graph

from fnatool.runtime.verify import run_inner
from passes.graph.inference import in_training, to_inference
from passes.graph.view import records, view

NORM = dict.fromkeys(("g", "b", "m", "v"), (4,))
X = "g (float[2,4,3,3] x) => (float[2,4,3,3] y)"
ON, OFF, ZERO = np.array(True), np.array(False), np.array(0, np.float32)
HALF = np.array(0.5, np.float32)


def dropout(text: str, opset: int = 17, **values: np.ndarray) -> gs.Graph:
    return graph(f"{X} {{ y = Dropout {text} }}", values, opset)


TRAINS = {
    "a switch": dropout("(x, r, t)", r=HALF, t=ON),
    "a switch and the usual ratio": dropout("(x, , t)", t=ON),
    "a switch that is computed": graph(f"{X} {{ t = Not(o) y = Dropout(x, r, t) }}", {"r": HALF, "o": OFF}),
    "an early one": dropout("<ratio = 0.5> (x)", 6),
    "statistics of the batch": graph(
        f"{X} {{ y, rm, rv = BatchNormalization<training_mode = 1>(x, g, b, m, v) }}", NORM
    ),
    "statistics of the batch, before version 14": graph(
        f"{X} {{ y, rm, rv, sm, sv = BatchNormalization(x, g, b, m, v) }}", NORM, 9
    ),
    "statistics of the batch, early": graph(f"{X} {{ y = BatchNormalization(x, g, b, m, v) }}", NORM, 6),
}
RESTS = {
    "no switch": dropout("(x, r)", r=HALF),
    "a switch that is off": dropout("(x, r, t)", r=HALF, t=OFF),
    "a switch of a node that is off": graph(
        f"{X} {{ t = Constant<value = bool {{0}}>() y = Dropout(x, r, t) }}", {"r": HALF}
    ),
    "a ratio of zero": dropout("(x, r, t)", r=ZERO, t=ON),
    "a version that never drops": dropout("<ratio = 0.5> (x)", 10),
    "an early test": dropout("<is_test = 1> (x)", 6),
    "running statistics": graph(f"{X} {{ y = BatchNormalization(x, g, b, m, v) }}", NORM),
}


@pytest.mark.parametrize("name", TRAINS)
def test_what_trains_is_found_and_brought_to_inference(name: str) -> None:
    made = TRAINS[name]
    assert in_training(view(made)) == ("y",)
    found = to_inference(made)
    assert found.changed == ("y",)
    assert in_training(view(found.graph)) == ()
    assert in_training(view(made)) == ("y",)  # the one given stays


@pytest.mark.parametrize("name", RESTS)
def test_what_is_in_inference_stays(name: str) -> None:
    found = to_inference(RESTS[name])
    assert found.changed == ()
    assert found.graph is RESTS[name]


def test_dropout_is_the_identity_then() -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 3, 3)).astype(np.float32)
    assert run_inner(to_inference(TRAINS["a switch"]).graph, {"x": x}, ["y"], "it")["y"].tobytes() == x.tobytes()
    assert run_inner(TRAINS["a switch"], {"x": x}, ["y"], "it")["y"].tobytes() != x.tobytes()


def test_a_batch_normalization_reads_its_running_statistics_then() -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 3, 3)).astype(np.float32)
    made = TRAINS["statistics of the batch"]
    gain, shift, mean, variance = (records(made)[1][name].values.reshape(4, 1, 1) for name in "gbmv")
    wanted = gain * (x - mean) / np.sqrt(variance + 1e-5) + shift
    np.testing.assert_allclose(
        run_inner(to_inference(made).graph, {"x": x}, ["y"], "it")["y"], wanted, rtol=1e-5, atol=1e-5
    )


def test_statistics_that_only_training_makes_are_no_outputs_and_who_reads_them_reads_the_running_ones() -> None:
    head = "g (float[2,4,3,3] x) => (float[2,4,3,3] y, float[4] rm, float[4] z)"
    made = graph(f"{head} {{ y, rm, rv = BatchNormalization<training_mode = 1>(x, g, b, m, v) z = Add(rv, rm) }}", NORM)
    found = to_inference(made)
    assert found.gone == ("rm",)
    assert [tensor.name for tensor in found.graph.outputs] == ["y", "z"]
    assert [node.inputs for node in records(found.graph)[0] if node.name == "z"] == [("v", "m")]
