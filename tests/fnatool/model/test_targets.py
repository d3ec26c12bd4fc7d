"""`check --target`: what keeps a model from an engine, among the other findings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import model, net, save

import fnatool
from fnatool.cli.main import run
from fnatool.runtime import engine
from passes.errors import UserError


@pytest.fixture
def unique(tmp_path: Path) -> Path:
    return save(model("g (float[4] x) => (float[n] y) { y = Unique (x) }"), tmp_path / "unique.onnx")


def codes(path: Path, target: str | None) -> set[str]:
    report = fnatool.check(path, options=fnatool.CheckOptions(target=target))
    return {finding.code for finding in report.findings if finding.code.startswith("engine")}


def test_an_operator_without_a_kernel_fails_the_check_for_an_engine_and_no_other(unique: Path) -> None:
    assert codes(unique, None) == set()
    assert codes(unique, "onnxruntime") == set()
    assert "engine-operator" in codes(unique, "tensorrt")


def test_what_was_not_parsed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "is_installed", lambda: False)
    assert codes(save(net(), tmp_path / "net.onnx"), "tensorrt-rtx") <= {"engine-not-parsed", "engine-profile"}
    assert "engine-not-parsed" in codes(tmp_path / "net.onnx", "tensorrt-rtx")


def test_what_the_parser_says_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "is_installed", lambda: True)
    monkeypatch.setattr(engine, "parse", lambda path: "no plugin")
    assert "engine-parse" in codes(save(net(), tmp_path / "net.onnx"), "tensorrt-rtx")


def test_it_is_in_the_formats_too(unique: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(unique), "--target", "tensorrt", "--format", "sarif"]) == 1
    found = json.loads(capsys.readouterr().out)["runs"][0]["results"]
    assert "engine-operator" in {result["ruleId"] for result in found}


def test_an_unknown_target_is_a_mistake(unique: Path) -> None:
    with pytest.raises(UserError, match="'tpu' is no target; there are onnxruntime, tensorrt, tensorrt-rtx"):
        fnatool.check(unique, options=fnatool.CheckOptions(target="tpu"))
