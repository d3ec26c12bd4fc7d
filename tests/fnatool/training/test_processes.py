"""Several processes that learn one network together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed
from objectives import Zero, job
from ranks import two
from torch import Tensor

from fnatool.training.finetune import RunPlaces, perform
from fnatool.training.loop import finetune
from fnatool.training.processes import PATIENCE, World, joined
from fnatool.training.said import Tuned
from fnatool.training.watching import silent
from passes.errors import UserError

HERE = World(0, 1, torch.device("cpu"))


def test_an_output_that_the_loss_leaves_out_ends_nothing_on_two_processes(tmp_path: Path) -> None:
    todo = job(tmp_path / "two")

    def learnt(world: World) -> dict[str, Tensor]:
        return dict(finetune(todo, world, silent()).network.state_dict())

    alone = finetune(job(tmp_path / "one"), HERE, silent()).network.state_dict()
    for found in two(learnt, tmp_path):
        for name, value in alone.items():
            assert torch.allclose(found[name], value, rtol=1e-5), name


def test_gradients_of_several_types_are_averaged(tmp_path: Path) -> None:
    def averaged(world: World) -> list[Tensor]:
        values = [torch.full((2, 3), 1.0 + world.rank), torch.full((3,), 3.0 * world.rank, dtype=torch.float64), torch.ones(2)]
        values[0] = values[0].t()  # an order of its own in memory
        world.average(values)
        return values

    for single, double, same in two(averaged, tmp_path):
        assert torch.equal(single, torch.full((3, 2), 1.5))
        assert double.dtype == torch.float64
        assert torch.equal(double, torch.full((3,), 1.5, dtype=torch.float64))
        assert torch.equal(same, torch.ones(2))


# --- how processes find each other, with a device that is pretended ---


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """One CUDA device, and a group of processes that is never made."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *given, **more: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda *given: None)
    monkeypatch.setattr(torch.distributed, "new_group", lambda *given, **more: None)
    return monkeypatch


def started(patch: pytest.MonkeyPatch, *, rank: int, size: int, beside: int) -> None:
    """As torchrun starts one of so many processes, of which some are on this machine."""
    for name, value in {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank % beside, "LOCAL_WORLD_SIZE": beside}.items():
        patch.setenv(name, str(value))


def test_more_processes_than_devices_are_refused(devices: pytest.MonkeyPatch) -> None:
    for rank in (0, 1):
        started(devices, rank=rank, size=2, beside=2)
        with (
            pytest.raises(UserError, match=r"2 processes are on this machine, and torch finds 1 CUDA device.*--nproc-per-node"),
            joined("auto"),
        ):
            pass
    started(devices, rank=1, size=2, beside=1)  # on two machines
    with joined("auto") as world:
        assert (world.rank, world.size, str(world.device)) == (1, 2, "cuda:0")


@pytest.mark.parametrize(
    ("words", "lost"),
    [
        ("[enforce fail] Connection closed by peer [127.0.0.1]:3000", True),
        ("NCCL error in: x.cpp:1, remote process exited or there was a network error, NCCL version 2.30.7\nncclRemoteError", True),
        ("[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5)", True),
        (
            "NCCL error in: x.cpp:1, invalid usage\nncclInvalidUsage: Duplicate GPU detected : rank 1 and rank 0",
            False,
        ),
        ("NCCL error in: x.cpp:1, unhandled cuda error\nLast error:\nFailed to CUDA calloc async 608 bytes", False),
        ("NCCL error in: x.cpp:1, unhandled system error, NCCL version 2.30.7\nncclSystemError: no socket interface found", False),
    ],
)
def test_a_process_that_has_ended_is_told_from_what_else_can_fail_between_processes(
    words: str, lost: bool, devices: pytest.MonkeyPatch
) -> None:
    started(devices, rank=0, size=2, beside=1)
    with pytest.raises(UserError if lost else RuntimeError, match="another process" if lost else "NCCL"), joined("auto"):
        raise RuntimeError(words)


# --- the end of a run ---


def test_the_last_evaluation_is_dealt_over_the_processes_after_the_result_is_there(tmp_path: Path) -> None:
    todo, out = job(tmp_path / "run"), tmp_path / "out.onnx"

    def ended(world: World) -> tuple[Tuned | None, list[tuple[bool, object]]]:
        seen: list[tuple[bool, object]] = []

        def figures_of(objective: Zero, path: Path, world: World, *, batch: int, workers: int) -> dict[str, float]:
            report = json.loads((tmp_path / "run/report.json").read_text())
            seen.append((path == out and out.is_file(), report["in_runtime"]))
            return {"nearness": float(len(world.gather(None)))}

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Zero, "figures_of", figures_of)
            return perform(todo, RunPlaces(out, tmp_path / "run"), world), seen

    (first, there), (second, there_too) = two(ended, tmp_path)
    assert there == there_too == [(True, None)]
    assert first is not None
    assert first.in_runtime == {"nearness": 2.0}
    assert second is None
    assert json.loads((tmp_path / "run/report.json").read_text())["in_runtime"] == {"nearness": 2.0}


def test_processes_wait_on_the_processor_while_tensors_go_over_a_device(devices: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    devices.setattr(torch.distributed, "new_group", lambda *, backend, timeout: made.append((backend, timeout)) or "group")
    waited: list[object] = []
    devices.setattr(torch.distributed, "barrier", lambda group=None: waited.append(group))
    started(devices, rank=0, size=2, beside=1)
    with joined("auto") as world:
        world.wait()
    assert made == [("gloo", PATIENCE)]
    assert waited == ["group"]
