"""What a run says of the machine it works on, and how torch is set for it; devices are pretended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import supers
import torch

from fnatool import terminal
from fnatool.search import searcher
from fnatool.search.config import SearchRunSection, parse_search
from fnatool.training import machine
from fnatool.training.config import RunSection, parse_config
from fnatool.training.processes import World
from passes.errors import UserError

CUDA = World(0, 4, torch.device("cuda", 0))
HERE = World(0, 1, torch.device("cpu"))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    return monkeypatch


def test_device_type_and_processes_are_said(device: pytest.MonkeyPatch) -> None:
    assert machine.about(HERE, RunSection()) == "on the CPU, in float32, 1 process"
    assert machine.about(CUDA, RunSection()) == "on NVIDIA H200 (cuda:0), in bfloat16, 4 processes"
    assert machine.about(CUDA, RunSection(amp=False)) == "on NVIDIA H200 (cuda:0), in float32, 4 processes"


def test_bfloat16_that_is_emulated_does_not_count(device: pytest.MonkeyPatch) -> None:
    assert machine.amp_type(True) == torch.bfloat16
    device.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert machine.amp_type(True) == torch.float16
    assert machine.amp_type(False) is None


def test_a_gpu_that_torch_cannot_use_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def old() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nPlease update")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", old)
    monkeypatch.setattr(machine, "GPUS", (tmp_path / "none",))
    assert machine.unusable() is None
    with terminal.heard():
        machine.say(HERE, RunSection())
    assert capsys.readouterr().out == "on the CPU, in float32, 1 process\n"
    monkeypatch.setattr(machine, "GPUS", (tmp_path,))
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    with terminal.heard():
        machine.say(HERE, RunSection())
    said = capsys.readouterr().out
    assert (
        "warning: a GPU is here, but torch (for CUDA 13.2) cannot use it: The NVIDIA driver on your system is too old"
        in said
    )
    with terminal.heard():
        machine.say(HERE, RunSection(device="cpu"))  # as it was asked for
    assert "warning" not in capsys.readouterr().out
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built without CUDA" in str(machine.unusable())


def test_deterministic_kernels_are_asked_for_on_a_device_and_no_longer_than_the_run(
    device: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(machine.WORKSPACE, raising=False)
    with machine.arranged(RunSection()):
        assert not torch.are_deterministic_algorithms_enabled()
    with machine.arranged(RunSection(deterministic=True)):
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ[machine.WORKSPACE] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()
    said = r"'run.deterministic' cannot be kept: torch has no such kernel for cumsum; set it to false"
    with pytest.raises(UserError, match=said), machine.arranged(RunSection(deterministic=True)):
        raise RuntimeError(
            "cumsum does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'"
        )
    device.setattr(torch.cuda, "is_available", lambda: False)
    with machine.arranged(RunSection(deterministic=True)):
        assert not torch.are_deterministic_algorithms_enabled()  # on the CPU the bits are the same anyway


def test_a_key_that_is_new_leaves_older_runs_what_they_were() -> None:
    written = parse_config({}).model_dump(mode="json")["run"]
    assert "deterministic" not in written
    assert "sync_batchnorm" not in written
    assert parse_config({"run": {"deterministic": True}}).model_dump(mode="json")["run"]["deterministic"] is True


def test_weights_lie_with_channels_last_on_a_device_and_as_they_were_elsewhere() -> None:
    for run in (RunSection(), SearchRunSection()):
        assert machine.memory_order(CUDA, run) == torch.channels_last
        assert machine.memory_order(HERE, run) == torch.preserve_format
    assert machine.memory_order(CUDA, RunSection(channels_last=False)) == torch.preserve_format
    assert "channels_last" not in SearchRunSection().model_dump()  # an older search is the same one


def test_a_super_network_with_channels_last_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_search({"task": "classification", "search": {"method": "gradient"}, "run": {"batch": 4}})
    plain, other = (supers.network("grouped") for _ in range(2))
    monkeypatch.setattr(searcher, "memory_order", lambda world, run: torch.channels_last)
    moved = searcher.Searcher(other, config, HERE, alpha_steps=1).network
    wide = [value for value in moved.weight_parameters() if value.dim() == 4 and min(value.shape[1:]) > 1]
    assert wide
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in wide)
    x = supers.images("grouped", 4)
    for member in (None, plain.choices.largest()):
        ours, theirs = moved(x, member)["y"], plain(x, member)["y"]
        assert torch.allclose(ours, theirs, atol=1e-5)
    moved(x)["y"].square().sum().backward()
    assert all(alpha.grad is not None for alpha in moved.alphas)
