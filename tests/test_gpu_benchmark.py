"""The script that is run where there is a GPU: its checks go through on the CPU, where they have next to nothing to
do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu import CHECKS, Bench, Verdict


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in ("steps", "processes")])
def test_a_check_goes_through_on_the_cpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = CHECKS[name](Bench("cpu", True, tmp_path))
    assert found.holds, found.said
    assert "\n" not in found.said
    json.dumps(vars(found))


def test_a_line_a_check_and_a_file_with_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verdicts = {
        "forward": Verdict(True, "fine", {"outputs": 0.0}),
        "idle": Verdict(None, "no way"),
        "tasks": Verdict(False, "bad"),
    }
    monkeypatch.setattr(gpu, "checked", lambda name, options: verdicts[name])
    out = tmp_path / "gpu.json"
    assert gpu.main(["--dry", "--only", "forward", "idle", "--output", str(out)]) == 0
    assert [line[:20].split() for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["ok", "forward"],
        ["skipped", "idle"],
    ]
    document = json.loads(out.read_text())
    assert document["checks"]["forward"] == {"holds": True, "said": "fine", "numbers": {"outputs": 0.0}}
    assert {"processor", "torch", "onnxruntime"} <= set(document["machine"])
    assert gpu.main(["--dry", "--only", "tasks"]) == 1


def test_a_check_that_dies_is_a_failure_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    class Died:
        returncode = 1

        def __init__(self, *given: object, **more: object) -> None:
            pass

        def __enter__(self) -> Died:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def communicate(self, timeout: float) -> tuple[str, str]:
            return "", "Traceback …\nValueError: broken"

    monkeypatch.setattr(subprocess, "Popen", Died)
    options = type("Options", (), {"device": "cpu", "dry": True})
    found = gpu.checked("forward", options)  # type: ignore[arg-type]
    assert (found.holds, found.said) == (False, "it died: ValueError: broken")


def test_a_check_that_takes_too_long_is_a_failure_and_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "DRY_SECONDS", 0.5)
    killed: list[int] = []
    kill = os.killpg
    monkeypatch.setattr(os, "killpg", lambda group, how: killed.append(group) or kill(group, how))
    options = type("Options", (), {"device": "cpu", "dry": True})
    found = gpu.checked("forward", options)  # type: ignore[arg-type]
    assert (found.holds, found.said) == (False, "it took more than 0.5 seconds")
    with pytest.raises(ProcessLookupError):
        kill(killed[0], 0)


def test_without_a_device_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "torch finds no CUDA device" in capsys.readouterr().out
    assert sys.executable


def test_all_checks_together_take_ten_minutes_at_most_and_the_plan_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(gpu.SECONDS) == set(CHECKS)
    assert sum(gpu.SECONDS.values()) <= 600
    monkeypatch.setattr(gpu, "checked", lambda name, options: Verdict(True, "fine"))
    assert gpu.main(["--dry", "--only", "idle", "steps"]) == 0
    assert capsys.readouterr().out.startswith("on a device at most 4 minutes: idle 70 s, steps 160 s\n")


def test_a_step_over_its_bar_is_a_failure() -> None:
    def training(**ratios: float) -> dict[str, object]:
        return {"training_step": {"cuda": {"models": {name: {"time_ratio": ratio} for name, ratio in ratios.items()}}}}

    assert gpu._within(training(**{"a": 1.04, "a, NHWC, compiled": 1.0}))
    assert not gpu._within(training(a=1.06))
    assert not gpu._within(training(**{"a, NCHW, compiled": 1.02}))
    assert gpu._within({"architecture_step": {"cuda": {"ratios": {"entangled / largest, time": 1.3}}}})
    assert not gpu._within({"architecture_step, compiled": {"cuda": {"ratios": {"entangled / largest, time": 1.4}}}})
    assert not gpu._within({"training_step": "Traceback …"})


def test_the_second_backbone_has_every_head(tmp_path: Path) -> None:
    bench = Bench("cpu", True, tmp_path)
    for task in gpu.HEADS:
        assert bench.model(task, gpu.BACKBONES[1]).exists()
