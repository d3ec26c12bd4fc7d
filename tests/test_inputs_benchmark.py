"""The benchmark of other batches and channels, on small networks of our own: what is planted is noticed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny import model, save

from benchmarks import inputs
from benchmarks.inputs import DONE, NOTHING, REFUSED, STEPS, WRONG, counted, tried

NET = """
net (float[1,3,8,8] x) => (float[1,4] y) {
    c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)
    r = Relu (c)
    p = GlobalAveragePool (r)
    f = Reshape (p, s)
    y = Gemm <transB = 1> (f, m)
}
"""
WEIGHTS = {"w": (6, 3, 3, 3), "m": (4, 6), "s": np.array([1, 6])}
MIXED = NET.replace(
    "y = Gemm <transB = 1> (f, m)",
    "o = ReduceMean <axes = [0], keepdims = 1> (f)  d = Sub (f, o)  y = Gemm <transB = 1> (d, m)",
)


def ends(path: Path) -> dict[str, str]:
    return {step: row.end for step, row in tried(partial(Path, path)).items()}


def test_what_can_have_another_batch_and_other_channels_is_done(tmp_path: Path) -> None:
    rows = tried(partial(Path, save(model(NET, WEIGHTS), tmp_path / "net.onnx")))
    assert {step: row.end for step, row in rows.items()} == dict.fromkeys(STEPS, DONE)
    assert all(row.drift is not None and row.drift <= 1 for row in rows.values())
    assert counted({"net": rows})["grey"] == {DONE: 1}


def test_what_mixes_samples_is_refused_with_its_reason(tmp_path: Path) -> None:
    header = '<ir_version: 8, opset_import: ["" : 13]>'
    rows = tried(partial(Path, save(model(MIXED, WEIGHTS, header), tmp_path / "net.onnx")))
    assert rows["free"].end == REFUSED
    assert "ReduceMean" in rows["free"].reason
    assert rows["grey"].end == DONE


def test_a_grey_network_is_not_made_grey(tmp_path: Path) -> None:
    grey = model(NET.replace("float[1,3,8,8]", "float[1,1,8,8]"), {**WEIGHTS, "w": (6, 1, 3, 3)})
    assert ends(save(grey, tmp_path / "net.onnx"))["grey"] == NOTHING


def test_a_network_that_does_not_run_is_told(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no model")
    assert ends(tmp_path / "net.onnx") == {"read": REFUSED}


@pytest.mark.parametrize("step", ["free", "grey", "more"])
def test_a_result_that_computes_something_else_is_noticed(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = inputs.remap

    def planted(seed: Path, spec: None, out: Path, **how: object) -> None:
        made(seed, spec, out, **how)  # type: ignore[arg-type]
        if out.stem == step:
            proto = onnx.load(out)
            weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "m")
            weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight)[::-1].copy(), "m"))
            out.write_bytes(proto.SerializeToString())

    monkeypatch.setattr(inputs, "remap", planted)
    assert ends(save(model(NET, WEIGHTS), tmp_path / "net.onnx"))[step] == WRONG
