"""Networks that run at certain sizes only: the sizes given reach every command, and without them the message asks for
them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from tiny import model, save

from fnatool import nn
from fnatool.cli.main import run
from fnatool.files import model as files
from passes.errors import RefusedModel
from passes.graph.normalise import normalise
from passes.graph.shapes import infer, open_axes
from passes.graph.view import view

Capture = pytest.CaptureFixture[str]

READER = """
reader (float[N,3,H,W] x) => (float[N,T,5] y) {
    c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w, b)
    a = Relu (c)
    d = Conv <kernel_shape = [3, 3], auto_pad = "SAME_UPPER", strides = [2, 2]> (a, v, vb)
    e = Relu (d)
    p = MaxPool <kernel_shape = [4, 1], strides = [4, 1]> (e)
    q = Squeeze (p, two)
    t = Transpose <perm = [0, 2, 1]> (q)
    s = Shape (t)
    y0 = MatMul (t, m)
    y = Add (y0, mb)
}
"""
"""A reader of text lines 8 pixels high: at another height what it squeezes is not 1."""

WEIGHTS = {"w": (6, 3, 3, 3), "b": (6,), "v": (8, 6, 3, 3), "vb": (8,), "two": np.array([2]), "m": (8, 5), "mb": (5,)}
SIZE = ("--input", "x=1x3x8x32")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a reader of text lines and a spec that makes it wider."""
    monkeypatch.chdir(tmp_path)
    save(model(READER, WEIGHTS), tmp_path / "reader.onnx")
    (tmp_path / "spec.json").write_text(json.dumps({"version": 1, "knobs": {"node:Conv_0.width": 9}}))
    (tmp_path / "photos").mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (8, 32, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "photos" / "a.png")
    return tmp_path


COMMANDS = {
    "inspect": ["inspect", "reader.onnx"],
    "profile": ["profile", "reader.onnx"],
    "check": ["check", "reader.onnx", "--max-params", "100000"],
    "diff": ["diff", "reader.onnx", "reader.onnx"],
    "remap": ["remap", "reader.onnx", "--spec", "spec.json", "-o", "out.onnx"],
    "head": ["head", "reader.onnx", "--task", "segmentation", "--classes", "2", "--width", "8", "-o", "out.onnx"],
    "fold": ["fold", "reader.onnx", "-o", "out.onnx"],
    "unfold": ["unfold", "reader.onnx", "--data", "photos", "-o", "out.onnx"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_given_sizes_reach_every_command(name: str, folder: Path, capsys: Capture) -> None:
    assert run([*COMMANDS[name], *SIZE]) == 0, capsys.readouterr()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["inspect", "profile", "remap", "head", "fold", "unfold"])
def test_without_sizes_the_message_asks_for_them(name: str, folder: Path, capsys: Capture) -> None:
    assert run(COMMANDS[name]) == 1
    said = capsys.readouterr().err
    assert (
        "nobody said what its free sizes are ('x' was taken as 1x3x224x224): give those that it runs at with "
        "--input x=…x3x…x…" in said
    )
    assert said.count("\n") == 1


def test_a_remap_at_given_sizes_still_takes_others(folder: Path) -> None:
    """What was padded for any width is not padded for the one that was given."""
    assert run([*COMMANDS["remap"], *SIZE]) == 0
    assert run(["check", "out.onnx", "--spec", "spec.json", "--against", "reader.onnx", "--input", "x=1x3x8x32"]) == 0
    assert run(["check", "out.onnx", "--input", "x=1x3x7x33"]) == 0
    pads = [a.s for node in onnx.load("out.onnx").graph.node for a in node.attribute if a.name == "auto_pad"]
    assert pads == [b"SAME_UPPER"]


def test_given_sizes_stay_free_in_normal_form() -> None:
    graph = files.import_graph(
        model(READER), {t.name: onnx.numpy_helper.to_array(t) for t in model(READER, WEIGHTS).graph.initializer}
    )
    made = view(normalise(graph, {"x": (1, 3, 8, 32)}).graph)
    assert open_axes(made)["x"] == (0, 2, 3)
    assert any("auto_pad" in node.attrs for node in made.nodes)


def test_torch_is_given_the_sizes_of_training(folder: Path) -> None:
    with pytest.raises(RefusedModel, match="nobody said what its free sizes are"):
        nn.load("reader.onnx")
    assert nn.load("reader.onnx", sizes={"x": (1, 3, 8, 32)}).origin.reading.shapes.shapes["y"] == (1, 16, 5)


def test_a_refusal_for_another_reason_does_not_ask_for_sizes() -> None:
    made = model("net (float[N,3,8,8] x) => (float[N,M] y) { y = Squeeze (x, two) }", {"two": np.array([2])})
    graph = files.import_graph(made, {"two": np.array([2])})
    with pytest.raises(RefusedModel) as refused:
        infer(view(graph))
    assert "--input" not in str(refused.value)
