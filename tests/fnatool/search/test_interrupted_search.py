"""A search that is killed, that runs out of disk, or whose loss is no number; and one on several processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from searches import MODULE, TWO, Sections, environment, gradient, refused, report, rows, search

Capture = pytest.CaptureFixture[str]
STEADY: Sections = {
    "search": {"freeze_batchnorm": "yes", "steps": 8},
    "run": {"checkpoint": 1},
    "finetune": {"enabled": False},
}


def killed_at(command: list[str], reached: Callable[[], bool]) -> None:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_run_that_is_killed_goes_on_to_the_same_bits(world: Path) -> None:
    gradient(world)
    command = [*MODULE, "search", "-o", "run", "--budget", "madds=1.1M"]
    killed_at(command, lambda: len(rows("weights")) >= 3)  # after a step on α, between checkpoints
    assert not Path("run/target.onnx").exists()
    killed_at(command, Path("run/finetune/metrics.jsonl").exists)
    assert search("--budget", "madds=1.1M") == 0
    for name in ("target.onnx", "remapped.onnx", "spec.json", "report.json", "report.md"):
        assert Path("run", name).read_bytes() == (world / "done" / name).read_bytes(), name
    assert rows("weights") == rows("weights", world / "done")
    assert rows("alpha") == rows("alpha", world / "done")


@pytest.fixture(scope="module")
def whole(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search by two processes that nothing has disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("two"))
        gradient(world, **STEADY)
        done = subprocess.run(
            [*TWO, "search", "-o", "whole"], capture_output=True, text=True, env=environment(), timeout=300
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return Path("whole").absolute()


def test_two_processes_lose_what_one_does(world: Path, whole: Path) -> None:
    gradient(world, **STEADY)
    assert search(folder="one") == 0
    for kind in ("weights", "alpha"):
        one, two = rows(kind, "one"), rows(kind, whole)
        assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-5)
        assert len({row["loss"] for row in one}) == len(one)
    assert report(whole)["architecture"]["spec"] == report("one")["architecture"]["spec"]


def test_when_a_process_dies_nothing_is_lost_and_the_run_goes_on(world: Path, whole: Path) -> None:
    gradient(world, **STEADY)
    command = [*TWO, "search", "-o", "run"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
    deadline = time.monotonic() + 120
    while not Path("run/checkpoint.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(worker(process.pid, rank=1), signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1  # of torchrun, which ends the others and says which one died
    assert "Signal 9 (SIGKILL)" in said
    again = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300)
    assert again.returncode == 0, again.stderr[-2000:]
    for kind in ("weights", "alpha"):
        assert [row["loss"] for row in rows(kind)] == pytest.approx(
            [row["loss"] for row in rows(kind, whole)], rel=1e-6
        )


def worker(launcher: int, *, rank: int) -> int:
    """The id of the process of that rank which torchrun has started."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and f"\0RANK={rank}\0" in (path / "environ").read_text():
                return int(path.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    raise AssertionError(f"torchrun has no process of rank {rank}")


def test_a_full_disk_stops_the_run_and_loses_nothing(world: Path, capsys: Capture) -> None:
    gradient(world, finetune={"enabled": False})
    assert search("--dry-run", "--budget", "madds=1.1M") == 0
    capsys.readouterr()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((world / "done/checkpoint.pt").stat().st_size - 1, before[1]))
    try:
        assert search("--budget", "madds=1.1M") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    refused(capsys, "there is no room left for", "run/checkpoint.pt", "make room")
    assert [path.name for path in Path("run").iterdir() if path.suffix == ".tmp"] == []
    assert search("--budget", "madds=1.1M") == 0
    assert rows("alpha") == rows("alpha", world / "done")


def test_a_loss_that_is_no_number_stops_the_run(world: Path, capsys: Capture) -> None:
    wild = {"name": "sgd", "lr": 100.0, "clip": 0.0, "warmup": 0, "momentum": 0.99}
    gradient(world, search={"steps": 30}, weights=wild, run={"checkpoint": 1})
    assert search() == 2
    refused(capsys, "of the search went wrong", "is not finite", "lower 'weights.lr'")
    state = torch.load("run/checkpoint.pt", weights_only=True)["state"]["network"]
    assert all(np.isfinite(value.numpy()).all() for value in state.values())
