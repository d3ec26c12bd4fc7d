"""Processes that load samples: how many where that is left to us, and how long they live."""

from __future__ import annotations

import os

import pytest
import torch
from torch.utils.data import Dataset

from fnatool.training import loading
from fnatool.training.config import parse_config
from fnatool.training.loading import workers_for
from fnatool.training.order import EvaluationOrder
from fnatool.training.samples import loader
from passes.errors import UserError

IMAGE = 3 * 224 * 224
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def test_a_number_is_that_number() -> None:
    assert [workers_for(asked, CUDA, batch=32, sample=IMAGE) for asked in (0, 2, 40)] == [0, 2, 40]


@pytest.mark.parametrize(
    ("cores", "cpu", "cuda"),
    [(1, 0, 0), (2, 1, 1), (3, 1, 2), (8, 2, 7), (16, 4, 15), (64, 4, 16)],
    ids=lambda value: str(value),
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
        with pytest.raises(
            UserError, match=r"^'data\.workers' is .*: input should be a whole number from 0 to 256, or 'auto'$"
        ):
            parse_config({"data": {"workers": wrong}})


# --- processes that load ---


class Makers(Dataset[torch.Tensor]):
    """Of every sample its number and the process that made it; number `wrong` cannot be made."""

    def __init__(self, wrong: int = -1) -> None:
        self.wrong = wrong

    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
        if key[1] == self.wrong:
            raise UserError("it cannot be made")
        return torch.tensor([key[1], os.getpid()])


def test_processes_that_load_are_kept_from_one_time_to_the_next_and_end_with_the_loader() -> None:
    with loader(Makers(), EvaluationOrder(8, 2), torch.stack, 2, pin=False) as batches:
        first, again = (torch.cat(list(batches())) for _ in range(2))
        makers = set(first[:, 1].tolist())
        assert (len(makers), os.getpid() in makers) == (2, False)
        assert all(map(is_running, makers))
        torch.testing.assert_close(again, first, rtol=0, atol=0)
    assert first[:, 0].tolist() == list(range(8))
    assert not any(map(is_running, makers))


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_that_were_left_in_the_middle_begin_with_the_first(workers: int) -> None:
    with loader(Makers(), EvaluationOrder(12, 2), torch.stack, workers, pin=False) as batches:
        next(batches())
        assert torch.cat(list(batches()))[:, 0].tolist() == list(range(12))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_cannot_be_made_ends_every_time_with_the_same_words(workers: int) -> None:
    with loader(Makers(wrong=5), EvaluationOrder(12, 2), torch.stack, workers, pin=False) as batches:
        for _ in range(2):
            with pytest.raises(UserError, match=r"^it cannot be made$"):
                list(batches())
