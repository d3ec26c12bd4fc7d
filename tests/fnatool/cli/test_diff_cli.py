"""`fnatool diff` as its user meets it: what differs between two models, by name, and exit codes like those of diff."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from remaps import residual, save_external
from tiny import NET, WEIGHTS, model, net, save

from fnatool.cli.main import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a seed."""
    monkeypatch.chdir(tmp_path)
    save(residual(), Path("a.onnx"))
    return tmp_path


def told(capsys: Capture, *arguments: str, code: int = 1) -> str:
    """What diff prints; it must end with this code and have nothing to complain about."""
    assert run(["diff", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def differences(capsys: Capture, b: onnx.ModelProto, a: str = "a.onnx") -> dict[str, object]:
    """What differs from a.onnx, as JSON, without what is empty."""
    found = json.loads(told(capsys, a, str(save(b, Path("b.onnx"))), "--json"))
    assert found["equal"] is False
    rows = {key: value for key, value in found.items() if key not in ("equal", "a", "b") and value}
    for kind in ("nodes", "tensors"):
        rows[kind] = {key: value for key, value in rows[kind].items() if key != "equal" and value}
    return {key: value for key, value in rows.items() if value}


def node(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in proto.graph.node if node.name == name)


def rewrite(proto: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    """The initializer has these values."""
    (tensor,) = (tensor for tensor in proto.graph.initializer if tensor.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))


def weight(proto: onnx.ModelProto, name: str) -> np.ndarray:
    return next(
        np.array(onnx.numpy_helper.to_array(tensor)) for tensor in proto.graph.initializer if tensor.name == name
    )


# --- equal ---


def test_a_file_equals_itself_and_its_copies(capsys: Capture) -> None:
    save_external(residual(), Path("external.onnx"))
    reordered = residual()
    initializers = list(reordered.graph.initializer)
    del reordered.graph.initializer[:]
    reordered.graph.initializer.extend(reversed(initializers))
    reordered.doc_string = "the same, in another order"
    save(reordered, Path("reordered.onnx"))
    for other in ("a.onnx", "external.onnx", "reordered.onnx"):
        assert told(capsys, "a.onnx", other, code=0).splitlines() == [
            f"a.onnx → {other}: equal",
            "equal: 18 nodes, 27 tensors",
        ]
    assert json.loads(told(capsys, "a.onnx", "a.onnx", "--json", code=0))["equal"] is True


def test_the_bundled_seed_goes_by_its_name(capsys: Capture) -> None:
    assert "equal: 152 nodes, 264 tensors" in told(capsys, "mobilenetv2_bn", "mobilenetv2_bn", code=0)


# --- one difference at a time ---


def test_another_value_is_told_with_its_size(capsys: Capture) -> None:
    b = residual()
    values = weight(b, "stem.w")
    spread = float(values.max() - values.min())
    values[1, 2, 0, 0] += 0.25 * spread
    rewrite(b, "stem.w", values)
    found = differences(capsys, b)
    assert list(found) == ["tensors"]
    (change,) = found["tensors"]["changed"]  # type: ignore[index]
    assert (change["name"], change["a"], change["b"]) == ("stem.w", "float32 6x3x3x3", "float32 6x3x3x3")
    assert change["max"] == pytest.approx(0.25 * spread)
    assert change["relative"] == pytest.approx(0.25)
    assert "~ stem.w: values by up to" in told(capsys, "a.onnx", "b.onnx")


def test_changed_tensors_come_by_how_much_they_changed(capsys: Capture) -> None:
    b = residual()
    for name, factor in (("e0.w", 1.1), ("e1.w", 1.5), ("l0.w", 1.01)):
        rewrite(b, name, weight(b, name) * np.float32(factor))
    changed = differences(capsys, b)["tensors"]["changed"]  # type: ignore[index]
    assert [change["name"] for change in changed] == ["e1.w", "e0.w", "l0.w"]


def test_a_value_that_is_not_finite_is_a_difference_and_the_same_one_is_none(capsys: Capture) -> None:
    a, b = residual(), residual()
    values = weight(a, "e0.n.beta")
    values[3] = np.nan
    rewrite(a, "e0.n.beta", values)
    save(a, Path("a.onnx"))
    rewrite(b, "e0.n.beta", values)
    told(capsys, "a.onnx", str(save(b, Path("b.onnx"))), code=0)
    values[4] = np.inf
    rewrite(b, "e0.n.beta", values)
    (change,) = differences(capsys, b)["tensors"]["changed"]  # type: ignore[index]
    assert (change["name"], change["max"], change["relative"]) == ("e0.n.beta", None, None)


def test_a_tensor_of_equal_values_changes_relative_to_its_magnitude(capsys: Capture) -> None:
    a, b = residual(), residual()
    for proto, value in ((a, 4), (b, 5)):
        rewrite(proto, "stem.n.gamma", np.full(6, value, np.float32))
    save(a, Path("a.onnx"))
    (change,) = differences(capsys, b)["tensors"]["changed"]  # type: ignore[index]
    assert (change["max"], change["relative"]) == (1, 0.25)


def test_another_type_or_shape_is_told_as_such(capsys: Capture) -> None:
    b = net()
    save(b, Path("a.onnx"))
    rewrite(b, "w", weight(b, "w").astype(np.float16))
    rewrite(b, "mb", np.zeros((1, 4), np.float32))
    changed = {change["name"]: change for change in differences(capsys, b)["tensors"]["changed"]}  # type: ignore[index]
    assert (changed["w"]["a"], changed["w"]["b"]) == ("float32 8x3x3x3", "float16 8x3x3x3")
    assert 0 < changed["w"]["relative"] < 1e-3
    assert changed["mb"] == {"name": "mb", "a": "float32 4", "b": "float32 1x4", "max": None, "relative": None}


def test_an_attribute_an_operator_and_a_wire_are_told(capsys: Capture) -> None:
    b = residual()
    node(b, "e0.n.r").op_type = "LeakyRelu"
    node(b, "e1").input[0] = "stem.n.r"
    strides = next(attribute for attribute in node(b, "stem").attribute if attribute.name == "strides")
    strides.ints[:] = [1, 2]
    node(b, "y").attribute.append(onnx.helper.make_attribute("alpha", float("inf")))
    changed = {change["name"]: change["changes"] for change in differences(capsys, b)["nodes"]["changed"]}  # type: ignore[index]
    assert changed == {
        "stem": [{"name": "strides", "a": [1, 1], "b": [1, 2]}],
        "e0.n.r": [{"name": "op", "a": "Relu", "b": "LeakyRelu"}],
        "e1": [{"name": "input 0", "a": "s0", "b": "stem.n.r"}],
        "y": [{"name": "alpha", "a": None, "b": "inf"}],
    }
    out = told(capsys, "a.onnx", "b.onnx")
    assert "  ~ Conv 'stem': strides: [1, 1] → [1, 2]" in out
    assert "  ~ LeakyRelu 'e0.n.r': op: Relu → LeakyRelu" in out


def test_inputs_and_outputs_are_told_with_their_types_and_their_order(capsys: Capture) -> None:
    def two(order: str, batch: str) -> onnx.ModelProto:
        shapes = {"x": f"float[{batch},3] x", "i": "float[3] i"}
        return model(f"g ({', '.join(shapes[name] for name in order)}) => (float[{batch},3] y) {{ y = Add (x, i) }}")

    save(two("xi", "N"), Path("a.onnx"))
    found = differences(capsys, two("ix", "2"))
    assert found["inputs"] == [
        {"name": "x", "a": "float Nx3", "b": "float 2x3"},
        {"name": "(order)", "a": "x, i", "b": "i, x"},
    ]
    assert found["outputs"] == [{"name": "y", "a": "float Nx3", "b": "float 2x3"}]


def test_versions_and_metadata_are_told(capsys: Capture) -> None:
    b = residual()
    b.ir_version = 9
    b.opset_import[0].version = 16
    b.metadata_props.add(key="author", value="somebody")
    assert differences(capsys, b) == {
        "model": [
            {"name": "IR version", "a": 8, "b": 9},
            {"name": "operator set ai.onnx", "a": 17, "b": 16},
            {"name": "metadata author", "a": None, "b": "somebody"},
        ]
    }


def test_weights_in_constant_nodes_are_tensors(capsys: Capture) -> None:
    text = "g (float[3] x) => (float[3] y) { c = Constant <value = float[3] {1, 2, %s}> () y = Add (x, c) }"
    save(model(text % 3), Path("a.onnx"))
    found = differences(capsys, model(text % 7))
    assert found == {
        "tensors": {"changed": [{"name": "c", "a": "float32 3", "b": "float32 3", "max": 4, "relative": 2}]}
    }


def test_nodes_without_a_name_go_by_what_they_make(capsys: Capture) -> None:
    save(net(), Path("a.onnx"))
    found = differences(capsys, model(NET.replace("Relu", "Sigmoid"), WEIGHTS))
    assert found["nodes"] == {
        "changed": [{"name": "→ r", "op": "Sigmoid", "changes": [{"name": "op", "a": "Relu", "b": "Sigmoid"}]}]
    }


# --- a remap and its seed ---


def remapped(knobs: dict[str, object], capsys: Capture) -> None:
    """b.onnx is a.onnx with these knobs."""
    Path("spec.json").write_text(json.dumps({"version": 1, "knobs": knobs}))
    assert run(["remap", "a.onnx", "--spec", "spec.json", "-o", "b.onnx"]) == 0
    capsys.readouterr()


def test_a_remap_shows_its_knobs_and_its_copies_as_added(capsys: Capture) -> None:
    remapped({"stage0.depth": 3, "stage0.block0.hidden": 14}, capsys)
    found = json.loads(told(capsys, "a.onnx", "b.onnx", "--json"))
    assert (found["a"]["params"], found["a"]["macs"], found["a"]["refused"]) == (1473, 87_198, None)
    assert found["b"]["params"] > 1473
    knobs = {row["name"]: (row["a"], row["b"]) for row in found["knobs"]}
    assert (knobs["stage0.depth"], knobs["stage0.block0.hidden"]) == ((2, 3), (10, 14))
    assert knobs["stage0.block2.kernel"] == (None, 3)
    (stage,) = found["stages"]
    assert (stage["name"], stage["a"]["depth"], stage["b"]["depth"]) == ("stage0", 2, 3)
    assert [row["name"] for row in found["blocks"] if row["a"] is None] == ["stage0.block2"]
    assert [entry["name"] for entry in found["nodes"]["added"]] == [
        f"{name}_copy" for name in ("e1", "e1.n", "e1.n.r", "l1", "l1.n", "s1")
    ]
    assert found["nodes"]["removed"] == []
    changed = {row["name"]: (row["a"], row["b"]) for row in found["tensors"]["changed"]}
    assert changed["e0.w"] == ("float32 10x6x3x3", "float32 14x6x3x3")
    assert {"name": "e1.w_copy", "type": "float32 10x6x3x3"} in found["tensors"]["added"]
    assert [row["name"] for row in found["model"]] == ["metadata fnatool.stages", "metadata fnatool.spec"]


def test_another_image_size_is_a_knob_and_an_input(capsys: Capture) -> None:
    remapped({"input.size": [16, 24]}, capsys)
    found = json.loads(told(capsys, "a.onnx", "b.onnx", "--json"))
    assert found["knobs"] == [{"name": "input.size", "a": [8, 8], "b": [16, 24]}]
    assert found["inputs"] == [{"name": "x", "a": "float 1x3x8x8", "b": "float 1x3x16x24"}]
    assert "  input.size: [8, 8] → [16, 24]" in told(capsys, "a.onnx", "b.onnx")


def test_the_summary_is_short_and_all_is_all(capsys: Capture) -> None:
    remapped({"stage0.depth": 5}, capsys)
    short = told(capsys, "a.onnx", "b.onnx").splitlines()
    assert short[0] == "a.onnx → b.onnx: different"
    assert "  stage0.depth: 2 → 5" in short
    assert "  parameters 1,473 → 3,369" in short
    assert "knobs: 1 changed, 15 only in B" in short
    assert "nodes: 1 changed, 18 only in B" in short
    assert any("more (--all)" in line for line in short)
    assert short[-1] == "equal: 17 nodes, 27 tensors"
    full = told(capsys, "a.onnx", "b.onnx", "--all")
    assert "more (--all)" not in full
    assert "  + Conv 'e1_copy_3'" in full
    assert len(full.splitlines()) > len(short)


def test_what_only_the_first_has_is_removed(capsys: Capture) -> None:
    remapped({"stage0.depth": 1}, capsys)
    out = told(capsys, "a.onnx", "b.onnx", "--all")
    assert "nodes: 1 changed, 6 only in A" in out
    assert "  - Conv 'e1'" in out
    assert "stage0.block1: only in A" in out


# --- what cannot be analysed ---


def test_models_that_are_refused_still_have_nodes_and_tensors_to_compare(capsys: Capture) -> None:
    text = "g (float[3] x) => (float[3] y) { y = %s (x, c) }"
    save(model(text % "Add", {"c": (3,)}), Path("a.onnx"))
    b = save(model(text % "Mul", {"c": np.zeros(3, np.float32)}), Path("b.onnx"))
    found = json.loads(told(capsys, "a.onnx", str(b), "--json"))
    assert "nothing to adapt" in found["a"]["refused"]
    assert (found["a"]["params"], found["knobs"]) == (None, [])
    assert [row["name"] for row in found["nodes"]["changed"]] == ["→ y"]
    assert [row["name"] for row in found["tensors"]["changed"]] == ["c"]
    out = told(capsys, "a.onnx", "b.onnx")
    assert "'a.onnx' has no knobs to compare: there is no convolution or matrix product with a weight" in out


def test_one_refused_model_and_one_that_is_not(capsys: Capture) -> None:
    save(model("g (float[3] x) => (float[3] y) { y = Relu (x) }"), Path("b.onnx"))
    found = json.loads(told(capsys, "a.onnx", "b.onnx", "--json"))
    assert (found["a"]["refused"], found["knobs"], found["stages"]) == (None, [], [])
    assert found["b"]["refused"]


def test_control_flow_is_compared_as_an_attribute(capsys: Capture) -> None:
    def choice(op: str) -> onnx.ModelProto:
        text = (
            "g (bool c, float[3] x) => (float[3] y) { y = If (c) <then_branch = t () => (float[3] a) { a = Relu (x) }, "
        )
        return model(text + f"else_branch = e () => (float[3] b) {{ b = {op} (x) }}> }}")

    save(choice("Neg"), Path("a.onnx"))
    told(capsys, "a.onnx", "a.onnx", code=0)
    (change,) = differences(capsys, choice("Abs"))["nodes"]["changed"]  # type: ignore[index]
    assert change["changes"] == [{"name": "else_branch", "a": "graph", "b": "graph"}]


# --- free sizes ---


def test_the_cost_of_a_free_image_size_wants_an_input(capsys: Capture) -> None:
    for name, width in (("a.onnx", 8), ("b.onnx", 12)):
        proto = net(
            **{k: (width, *WEIGHTS[k][1:]) for k in ("w", "b", "scale", "shift", "mean", "variance")}, m=(4, width)
        )  # type: ignore[arg-type]
        for axis in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
            axis.dim_param = "extent"
        save(proto, Path(name))
    assert "MAdds" not in told(capsys, "a.onnx", "b.onnx")
    assert "  MAdds 13,856 → 20,784" in told(capsys, "a.onnx", "b.onnx", "--input", "x=1x3x8x8")


# --- mistakes and terminals ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.onnx", "no.onnx"], "'no.onnx' does not exist; give the path of an ONNX file"),
        (["no.onnx", "a.onnx"], "'no.onnx' does not exist; give the path of an ONNX file"),
        (["a.onnx", "."], "'.' is a folder; give the ONNX file in it"),
        (["a.onnx", "broken.onnx"], "'broken.onnx': this is not an ONNX model"),
        (["a.onnx", "a.onnx", "--input", "z=1x3x8x8"], "--input names 'z', but the inputs are: x"),
        (
            ["a.onnx", "a.onnx", "--input", "x=1x4x8x8"],
            "--input gives 'x' size 4 on axis 1, but the model fixes it to 3",
        ),
        (["a.onnx"], "Missing argument 'B'"),
    ],
)
def test_a_mistake_is_exit_code_2_and_never_a_difference(arguments: list[str], message: str, capsys: Capture) -> None:
    Path("broken.onnx").write_bytes(b"no model")
    assert run(["diff", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_names_that_look_like_markup_are_shown_as_they_are(capsys: Capture) -> None:
    b = residual()
    node(b, "stem").name = "[red]stem[/red]"
    save(b, Path("[bold]b.onnx"))
    out = told(capsys, "a.onnx", "[bold]b.onnx")
    assert out.startswith("a.onnx → [bold]b.onnx: different\n")
    assert "+ Conv '[red]stem[/red]'" in out


@pytest.mark.parametrize("form", ["", "--json", "--all"])
def test_a_reader_that_leaves_early_is_no_error(form: str, capsys: Capture) -> None:
    remapped({"stage0.depth": 5}, capsys)
    line = f"{sys.executable} -m fnatool diff a.onnx b.onnx {form} | true"
    done = subprocess.run(["bash", "-c", line], stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == ""


def test_a_terminal_that_knows_only_ascii_and_no_colour_is_no_error(capsys: Capture) -> None:
    remapped({"stage0.depth": 5}, capsys)
    command = [sys.executable, "-m", "fnatool", "diff", "a.onnx", "b.onnx"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"\x1b" not in done.stdout
