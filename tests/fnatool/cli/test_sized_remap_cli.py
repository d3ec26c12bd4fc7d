"""Size and stride as their user meets them: remap, check and inspect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
import pytest
from sized import unet
from strided import encoder_with_classifier, free, squeezing

from fnatool.cli.main import run
from passes import Plan, apply


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with seeds to remap."""
    monkeypatch.chdir(tmp_path)
    onnx.save(gs.export_onnx(squeezing()), "gated.onnx")
    onnx.save(gs.export_onnx(unet(32, 64)), "unet.onnx")
    onnx.save(gs.export_onnx(free(encoder_with_classifier(), "h", "w")), "free.onnx")
    return tmp_path


def run_with(seed: str, knobs: Mapping[str, object], *arguments: str) -> int:
    Path("spec.json").write_text(json.dumps({"version": 1, "knobs": knobs}))
    return run(["remap", seed, "--spec", "spec.json", "-o", "out.onnx", *arguments])


def test_a_remap_lists_both_and_check_knows_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    knobs = {"input.size": [64, 96], "output_stride": 16, "stage4.width": 120}
    assert run_with("mobilenetv2_bn", knobs, "--strategy", "preserve", "--report", "report.json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines[:3]] == [
        "input.size: 160×160 → 64×96",
        "output_stride: 32 → 16",
        "stage4.width: 96 → 120",
    ]
    assert lines[-2].startswith("exact: 52 inner tensors compared with the seed in ONNX Runtime")
    report = json.loads(Path("report.json").read_text())
    assert report["changes"][0] == {"knob": "input.size", "from": [160, 160], "to": [64, 96]}
    assert (report["spec"]["input.size"], report["drifts"]) == ([64, 96], [])
    assert run(["check", "out.onnx", "--spec", "spec.json", "--against", "mobilenetv2_bn"]) == 0
    assert run(["check", "out.onnx", "--against", "mobilenetv2_bn"]) == 1
    assert "it is float ?x3x64x96, the seed's is float ?x3x160x160" in " ".join(capsys.readouterr().out.split())
    assert run(["inspect", "out.onnx", "--spec"]) == 0
    assert '"input.size": [64, 96],' in capsys.readouterr().out
    other = {"version": 1, "knobs": {**knobs, "input.size": 64, "output_stride": 8}}
    Path("other.json").write_text(json.dumps(other))
    assert run(["check", "out.onnx", "--spec", "other.json", "--against", "mobilenetv2_bn"]) == 1
    found = " ".join(capsys.readouterr().out.split())
    assert "'input.size' should be 64×64, the model has 64×96" in found
    assert "'output_stride' should be 8, the model has 16" in found


def test_a_gate_over_a_finer_map_is_stated(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with("gated.onnx", {"output_stride": 4}) == 0
    out = capsys.readouterr().out
    assert (
        "the function changes (output_stride shrinks: 'g2' averages over a finer map): 5 inner tensors compared"
        in " ".join(out.split())
    )
    assert run_with("gated.onnx", {"output_stride": 4}, "--strategy", "preserve", "--force") == 2
    assert "'g2' averages over the finer map; use --strategy fna, or --allow-drift" in capsys.readouterr().err


def test_a_wrong_size_is_one_message_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with("unet.onnx", {"input.size": [50, 64]}) == 2
    message = capsys.readouterr().err
    assert message.startswith("fnatool: 'input.size': 50×64 is not possible: ")
    assert message.endswith("50 is no multiple of 8, the total stride: try one\n")
    assert run_with("unet.onnx", {"output_stride": 4}) == 2
    assert (
        capsys.readouterr().err
        == "fnatool: 'output_stride' is frozen at 8: 'd' (ConvTranspose) resamples a map, which has no dilation\n"
    )
    assert not Path("out.onnx").exists()


def test_inspect_shows_what_is_free_and_what_is_frozen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "free.onnx"]) == 0
    assert "any size runs already; one given becomes the only one" in capsys.readouterr().out
    assert run(["inspect", "free.onnx", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["knobs"][0]["value"] is None
    assert run(["inspect", "unet.onnx", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frozen"][0]["name"] == "output_stride"
    for knob in ("input.size", "output_stride"):
        assert run(["inspect", "unet.onnx", "--group", knob]) == 2
        assert "changes no weight" in capsys.readouterr().err


def test_a_free_size_is_given_from_the_command_line_once_and_for_all(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with("free.onnx", {"input.size": [48, 80], "output_stride": 8}) == 0
    assert capsys.readouterr().out.splitlines()[0].strip() == "input.size: free → 48×80"
    dims = onnx.load("out.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [1, 3, 48, 80]
    assert run(["check", "out.onnx", "--spec", "spec.json", "--against", "free.onnx"]) == 0


def test_an_error_planted_in_a_remap_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(made: gs.Graph, found: Plan) -> gs.Graph:
        target = apply(made, found)
        node = next(node for node in target.nodes if node.attrs.get("dilations") == [2, 2])
        node.attrs["pads"] = [1, 2, 3, 2]
        return target

    for module in ("remapped", "verified"):
        monkeypatch.setattr(f"fnatool.model.{module}.apply", shifted)
    for knobs in ({"output_stride": 16}, {"output_stride": 16, "input.size": 96}):
        assert run_with("mobilenetv2_bn", knobs) == 1
        assert "this remap must be exact but is not: " in capsys.readouterr().err
        assert not Path("out.onnx").exists()
