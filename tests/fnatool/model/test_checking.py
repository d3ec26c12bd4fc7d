"""`fnatool check`: all findings in one report, gates for CI, and a verdict that a broken model cannot dodge by breaking
the tools.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny import model, net, save

from fnatool import seeds
from fnatool.cli.main import run
from fnatool.model import faults
from fnatool.model.check import CheckOptions, check
from fnatool.model.demands import same_interface
from passes.errors import UserError


def found(proto: onnx.ModelProto, folder: Path, demands: CheckOptions | None = None) -> list[tuple[str, str]]:
    report = check(save(proto, folder / "a.onnx"), options=demands or CheckOptions())
    return [(finding.severity, finding.code) for finding in report.findings]


def test_the_bundled_seed_passes() -> None:
    assert check(seeds.DEFAULT).findings == ()


def test_what_the_checker_and_the_runtime_say_joins_what_they_miss(tmp_path: Path) -> None:
    proto = net(b=(7,), mean=(7,))
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    codes = found(proto, tmp_path)
    assert ("error", "bias-length") in codes
    assert ("error", "vector-length") in codes
    assert ("error", "shape-inference") in codes


def test_an_error_that_only_the_run_shows_is_found(tmp_path: Path) -> None:
    text = "g (float[2,6] x) => (float[N,M] y) { y = Reshape (x, s) }"
    assert found(model(text, {"s": np.array([5, -1])}), tmp_path)[-1] == ("error", "run")
    assert found(model(text, {"s": np.array([3, -1])}), tmp_path) == []


def test_a_failing_run_on_guessed_sizes_is_a_note_and_on_given_ones_an_error(tmp_path: Path) -> None:
    proto = model("g (float[2,n] x) => (float[N,M] y) { y = Reshape (x, s) }", {"s": np.array([5, -1])})
    assert found(proto, tmp_path) == [("note", "run")]
    assert found(proto, tmp_path, CheckOptions(inputs={"x": (2, 6)})) == [
        ("error", "shape-inference"),
        ("error", "run"),
    ]
    assert found(proto, tmp_path, CheckOptions(inputs={"x": (2, 5)})) == []


def test_an_output_that_is_not_as_declared_is_an_error(tmp_path: Path) -> None:
    proto = model("g (float[6] x) => (float[3,N] y) { y = Reshape (x, s) }", {"s": np.array([2, -1])})
    assert ("error", "shape-inference") in found(proto, tmp_path)
    hidden = model(
        "g (float[6] x) => (float[3] y) { b = Greater (x, z) c = NonZero (b) d = Squeeze (c) y = Cast <to = 1> (d) }"
    )
    hidden.graph.initializer.append(onnx.numpy_helper.from_array(np.full(1, -100, np.float32), "z"))
    assert ("error", "output-shape") in found(hidden, tmp_path)


def test_an_operator_of_a_foreign_domain_cannot_be_run_here(tmp_path: Path) -> None:
    proto = model("g (float[3] x) => (float[3] y) { y = com.example.Magic (x) }")
    proto.opset_import.add(domain="com.example", version=1)
    assert found(proto, tmp_path) == [("note", "not-run")]


def test_a_broken_file_is_a_finding_and_a_missing_one_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no model")
    report = check(tmp_path / "a.onnx")
    assert [finding.code for finding in report.findings] == ["unreadable"]
    with pytest.raises(UserError, match="does not exist"):
        check(tmp_path / "no.onnx")


def test_a_crash_of_native_code_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    monkeypatch.setattr(onnx.checker, "check_model", crash)
    monkeypatch.setattr(faults, "_session_run", crash)
    report = check(save(net(), tmp_path / "a.onnx"), options=CheckOptions(inputs={"x": (1, 3, 8, 8)}))
    assert [(finding.severity, finding.code) for finding in report.findings] == [
        ("error", "checker-died"),
        ("error", "run"),
    ]
    assert all("SIGSEGV" in finding.message for finding in report.findings)


def test_a_model_that_takes_too_long_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compute(*_: object) -> None:
        while True:
            pass

    monkeypatch.setattr(faults, "_session_run", compute)
    report = check(save(net(), tmp_path / "a.onnx"), options=CheckOptions(inputs={"x": (1, 3, 8, 8)}, seconds=1))
    assert "more than 1 seconds of processor time" in report.findings[-1].message


def test_the_interface_is_compared_by_name_order_type_and_shape() -> None:
    def messages(text: str) -> list[str]:
        seed = model("g (float[N,3] x, int64[1] i) => (float[N,3] y) { y = Foo (x, i) }")
        return [f"{finding.where} {finding.message}" for finding in same_interface(model(text), seed)]

    assert messages("g (float[M,3] x, int64[1] i) => (float[M,3] y) { y = Foo (x, i) }") == []
    assert messages("g (int64[1] i, float[N,3] x) => (float[N,3] y) { y = Foo (x, i) }") == [
        "inputs their order is i, x, the seed's x, i"
    ]
    assert messages("g (float[1,3] x, int64[1] i) => (float[N,3] y) { y = Foo (x, i) }") == [
        "input 'x' it is float 1x3, the seed's is float ?x3"
    ]
    assert messages("g (float16[N,3] x, int64[1] i) => (float[N,3] y) { y = Foo (x, i) }") == [
        "input 'x' it is float16 ?x3, the seed's is float ?x3"
    ]
    assert messages("g (float[N,3] x, int64[1] i) => (float[N,3] z) { z = Foo (x, i) }") == [
        "output 'y' the seed has it, the model has not",
        "output 'z' the model has it, the seed has not",
    ]


# --- the command ---


def test_the_command_reports_all_models_and_fails_if_one_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = save(net(), tmp_path / "good.onnx"), save(net(b=(7,)), tmp_path / "bad.onnx")
    assert run(["check", str(good)]) == 0
    assert run(["check", str(good), str(bad)]) == 1
    out = capsys.readouterr().out
    assert "good.onnx: passed" in out
    assert "bad.onnx: failed" in out
    assert "[bias-length] Conv '': its bias 'b' is 7, the weight makes 8 channels; give the bias 8 values" in out


def test_the_json_report_is_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--format", "json", str(save(net(b=(7,)), tmp_path / "bad.onnx")), "mobilenetv2_bn"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is False
    assert [entry["passed"] for entry in report["models"]] == [False, True]
    assert set(report["models"][0]["findings"][0]) == {"severity", "code", "where", "message", "fix"}


def test_a_seed_with_another_interface_fails_the_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(save(net(), tmp_path / "a.onnx"))
    assert run(["check", path, "--against", path]) == 0
    assert run(["check", path, "--against", "mobilenetv2_bn"]) == 1
    assert "[interface]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["chekc"], 2, "Did you mean 'check'?"),
        (["check"], 2, "Missing argument"),
        (["check", "--formt", "json", "x"], 2, "Did you mean '--format'?"),
        (["check", "/no/such.onnx"], 2, "fnatool: '/no/such.onnx' does not exist; give the path of an ONNX file"),
        (["check", "mobilenetv2_bn", "--input", "input=1x3x"], 2, "is not of the form NAME=1x3x224x224"),
        (["check", "mobilenetv2_bn", "--input", "image=1x3x8x8"], 2, "the model has no such input; it has 'input'"),
        (["check", "mobilenetv2_bn", "--input", "input=1x4x8x8"], 2, "1x4x8x8 does not fit the model's"),
        (["check", "mobilenetv2_bn", "--against", "/no/seed.onnx"], 2, "'/no/seed.onnx' does not exist"),
        (["check", "mobilenetv2_bn", "--max-macs", "0"], 2, "0 is not in the range"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_a_seed_that_is_broken_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "seed.onnx").write_bytes(b"no model")
    assert run(["check", "mobilenetv2_bn", "--against", str(tmp_path / "seed.onnx")]) == 1
    assert "not an ONNX model" in capsys.readouterr().err


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fnatool", *arguments]


def test_ctrl_c_is_one_line_and_exit_code_130(tmp_path: Path) -> None:
    steps = "".join(f"t{i + 1} = MatMul (t{i}, t{i}) " for i in range(2000))
    path = save(model(f"g (float[1500,1500] t0) => (float[1500,1500] t2000) {{ {steps} }}"), tmp_path / "slow.onnx")
    process = subprocess.Popen(command("check", str(path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(2.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err.strip(), out) == (130, "fnatool: interrupted", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line_and_exit_code_2() -> None:
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            command("check", "mobilenetv2_bn"), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert process.returncode == 2
    assert process.stderr == "fnatool: No space left on device\n"


def test_a_reader_that_leaves_early_is_no_error() -> None:
    line = f"{' '.join(command('check', '--format', 'json', 'mobilenetv2_bn'))} | true; exit ${{PIPESTATUS[0]}}"
    process = subprocess.run(["bash", "-c", line], stderr=subprocess.PIPE, text=True, check=False)
    assert process.stderr == ""


def test_help_and_version_answer_at_once() -> None:
    seconds: list[float] = []
    for _ in range(4):  # the first compiles, the others may meet a busy machine
        start = time.perf_counter()
        process = subprocess.run(command("--help"), capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
        assert "check" in process.stdout
    assert min(seconds) < 0.8
    heavy = (
        "import sys, fnatool.cli; print({'onnx', 'numpy', 'rich', 'torch', 'onnxruntime', 'onnx_graphsurgeon'} "
        "& set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout == "set()\n"
    assert "0.1.0" in subprocess.run(command("--version"), capture_output=True, text=True, check=True).stdout


def test_a_model_over_budget_fails_the_gate(tmp_path: Path) -> None:
    proto, sizes = net(), {"x": (1, 3, 8, 8)}
    assert found(proto, tmp_path, CheckOptions(inputs=sizes, max_macs=10**9, max_params=10**9)) == []
    assert found(proto, tmp_path, CheckOptions(inputs=sizes, max_macs=8 * 27 * 64 - 1)) == [("error", "max-macs")]
    assert found(proto, tmp_path, CheckOptions(inputs=sizes, max_params=8 * 27 - 1)) == [("error", "max-params")]


def test_the_cost_of_dynamic_axes_is_unknown_until_their_sizes_are_given(tmp_path: Path) -> None:
    proto = net()
    for axis in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.dim_param = "extent"
    assert found(proto, tmp_path, CheckOptions(max_macs=10**9)) == [("error", "max-macs")]
    assert found(proto, tmp_path, CheckOptions(max_macs=10**9, inputs={"x": (1, 3, 32, 32)})) == []
