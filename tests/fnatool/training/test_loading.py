"""How many processes load samples where that is left to us."""

from __future__ import annotations

import os

import pytest
import torch

from fnatool.training import loading
from fnatool.training.config import parse_config
from fnatool.training.loading import workers_for
from passes.errors import UserError

IMAGE = 3 * 224 * 224
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def test_a_number_is_that_number() -> None:
    assert [workers_for(asked, CUDA, batch=32, sample=IMAGE) for asked in (0, 2, 40)] == [0, 2, 40]


@pytest.mark.parametrize(
    ("cores", "cpu", "cuda"), [(1, 0, 0), (2, 1, 1), (3, 1, 2), (8, 2, 7), (16, 4, 15), (64, 4, 16)], ids=lambda value: str(value)
)
def test_the_rule_by_cores_and_device(cores: int, cpu: int, cuda: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "own_cores", lambda: cores)
    assert [workers_for("auto", device, batch=32, sample=IMAGE) for device in (CPU, CUDA)] == [cpu, cuda]


def test_large_batches_have_fewer_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "own_cores", lambda: 64)
    assert workers_for("auto", CUDA, batch=256, sample=IMAGE) == 13  # of 77 MB each, twice
    assert workers_for("auto", CUDA, batch=32, sample=3 * 4096 * 4096) == 1


def test_processes_on_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(32)), raising=False)
    assert loading.own_cores() == 32
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert loading.own_cores() == 8


def test_a_config_takes_a_number_or_the_word() -> None:
    assert [parse_config({"data": {"workers": given}}).data.workers for given in (0, "auto")] == [0, "auto"]
    assert parse_config({}).data.workers == 2
    for wrong in ("many", -1, 1000, 1.5, True):
        with pytest.raises(UserError, match=r"^'data\.workers' is .*: input should be a whole number from 0 to 256, or 'auto'$"):
            parse_config({"data": {"workers": wrong}})
