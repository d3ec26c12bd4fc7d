"""Several processes that learn one network together."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.nn.functional as F
from objectives import Zero, job
from ranks import two
from torch import Tensor

from fnatool.nn.together import batch_norm_together
from fnatool.training.finetune import RunPlaces, perform
from fnatool.training.loop import TrainingJob, finetune
from fnatool.training.processes import PATIENCE, World, joined
from fnatool.training.said import TrainingWatch, Tuned
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
        values = [
            torch.full((2, 3), 1.0 + world.rank),
            torch.full((3,), 3.0 * world.rank, dtype=torch.float64),
            torch.ones(2),
        ]
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
    for name, value in {
        "RANK": rank,
        "WORLD_SIZE": size,
        "LOCAL_RANK": rank % beside,
        "LOCAL_WORLD_SIZE": beside,
    }.items():
        patch.setenv(name, str(value))


def test_more_processes_than_devices_are_refused(devices: pytest.MonkeyPatch) -> None:
    for rank in (0, 1):
        started(devices, rank=rank, size=2, beside=2)
        with (
            pytest.raises(
                UserError, match=r"2 processes are on this machine, and torch finds 1 CUDA device.*--nproc-per-node"
            ),
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
        (
            (
                "NCCL error in: x.cpp:1, remote process exited or there was a network error, NCCL version "
                "2.30.7\nncclRemoteError"
            ),
            True,
        ),
        ("[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5)", True),
        (
            "NCCL error in: x.cpp:1, invalid usage\nncclInvalidUsage: Duplicate GPU detected : rank 1 and rank 0",
            False,
        ),
        ("NCCL error in: x.cpp:1, unhandled cuda error\nLast error:\nFailed to CUDA calloc async 608 bytes", False),
        (
            (
                "NCCL error in: x.cpp:1, unhandled system error, NCCL version 2.30.7\nncclSystemError: no socket "
                "interface found"
            ),
            False,
        ),
    ],
)
def test_a_process_that_has_ended_is_told_from_what_else_can_fail_between_processes(
    words: str, lost: bool, devices: pytest.MonkeyPatch
) -> None:
    started(devices, rank=0, size=2, beside=1)
    with (
        pytest.raises(UserError if lost else RuntimeError, match="another process" if lost else "NCCL"),
        joined("auto"),
    ):
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
    devices.setattr(
        torch.distributed, "new_group", lambda *, backend, timeout: made.append((backend, timeout)) or "group"
    )
    waited: list[object] = []
    devices.setattr(torch.distributed, "barrier", lambda group=None: waited.append(group))
    started(devices, rank=0, size=2, beside=1)
    with joined("auto") as world:
        world.wait()
    assert made == [("gloo", PATIENCE)]
    assert waited == ["group"]


# --- what several processes must have in common ---


def test_a_process_that_is_killed_ends_the_other_one_within_thirty_seconds(tmp_path: Path) -> None:
    """Rank 1 is killed in the middle of the steps: the other says so, with the checkpoint in place."""
    context, port, todo = (
        torch.multiprocessing.get_context("fork"),
        free_port(),
        job(tmp_path / "run", run={"steps": 1000, "checkpoint": 1}),
    )
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        processes = [context.Process(target=dying, args=(rank, port, todo, tmp_path / "said")) for rank in range(2)]
        for process in processes:
            process.start()
    processes[1].join(60)
    assert processes[1].exitcode == -signal.SIGKILL
    start = time.monotonic()
    processes[0].join(60)
    assert time.monotonic() - start < 30
    assert (
        (tmp_path / "said")
        .read_text()
        .startswith("another process of this run has ended; nothing that was written is lost")
    )
    assert (tmp_path / "run" / "checkpoint.pt").exists()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port: int = found.getsockname()[1]
        return port


def dying(rank: int, port: int, todo: TrainingJob, said: Path) -> None:
    """A rank of two as torchrun starts it; the second one ends at its third step."""
    torch.set_num_threads(1)
    own = {
        "RANK": rank,
        "WORLD_SIZE": 2,
        "LOCAL_RANK": rank,
        "LOCAL_WORLD_SIZE": 2,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in own.items()})

    def stepped(step: int, values: object) -> None:
        if rank == 1 and step == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        with joined("cpu") as world:
            finetune(todo, world, TrainingWatch(lambda *_: None, stepped, lambda *_: None))
    except UserError as error:
        said.write_text(str(error))


def test_processes_that_would_go_on_from_different_steps_are_refused(tmp_path: Path) -> None:
    shared = job(tmp_path / "shared")
    others = [job(tmp_path / f"own{rank}") for rank in range(2)]

    def tried(world: World) -> str:
        finetune(shared, world, silent())
        if world.first:
            shutil.copy(tmp_path / "shared/checkpoint.pt", tmp_path / "own0/checkpoint.pt")
        try:
            finetune(others[world.rank], world, silent())
        except UserError as error:
            return str(error)
        return "went on"

    for rank, said in enumerate(two(tried, tmp_path)):
        assert f"different steps, 2, 0 by rank: '{tmp_path}/own{rank}' is not the same folder for all of them" in said


def test_a_run_says_that_it_had_another_number_of_processes(tmp_path: Path) -> None:
    todo = job(tmp_path / "run", run={"steps": 4})
    two(lambda world: finetune(todo, world, silent()).step, tmp_path)
    with pytest.raises(
        UserError, match=r"is of a run by 2 process\(es\), and this is one by 1: .* it goes on with the same number"
    ):
        finetune(replace(todo, key="another"), HERE, silent())
    finetune(job(tmp_path / "one"), HERE, silent())
    with pytest.raises(UserError, match="another model, config or data"):
        finetune(replace(job(tmp_path / "one"), key="another"), HERE, silent())


def test_batch_normalization_over_processes_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    x = 100 + torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def normalised(x: Tensor, how: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        x, scale, bias = (
            value.requires_grad_() for value in (x.clone(), torch.arange(1.0, 4).double(), torch.ones(3).double())
        )
        mean, variance = torch.zeros(3).double(), torch.ones(3).double()
        y = how(x, scale, bias, mean, variance)
        (y**3).mean().backward()
        assert x.grad is not None
        assert scale.grad is not None
        assert bias.grad is not None
        return y.detach(), x.grad, scale.grad, bias.grad, mean, variance

    def together(world: World) -> tuple[Tensor, ...]:
        def how(x: Tensor, scale: Tensor, bias: Tensor, *running: Tensor) -> Tensor:
            return batch_norm_together(x, scale, bias, running=(running[0], running[1]), momentum=0.1, epsilon=1e-5)

        return normalised(x.chunk(2)[world.rank], how)

    y, of_x, *others = normalised(
        x, lambda x, scale, bias, *running: F.batch_norm(x, *running, scale, bias, True, 0.1, 1e-5)
    )
    parts = two(together, tmp_path)
    assert torch.allclose(torch.cat([part[0] for part in parts]), y)
    assert torch.allclose(torch.cat([part[1] for part in parts]) / 2, of_x)  # each process has the mean of its own part
    for k, value in enumerate(others, 2):
        assert torch.allclose((parts[0][k] + parts[1][k]) / 2, value)


def test_statistics_of_all_processes_make_two_learn_what_one_does(tmp_path: Path) -> None:
    how: dict[str, dict[str, object]] = {"averages": {"freeze_batchnorm": "no"}, "run": {"sync_batchnorm": True}}

    def learnt(world: World) -> dict[str, Tensor]:
        return dict(finetune(todo, world, silent()).network.state_dict())

    alone = finetune(job(tmp_path / "one", **how), HERE, silent()).network.state_dict()
    todo = job(tmp_path / "two", **how)
    for found in two(learnt, tmp_path):
        assert all(torch.allclose(found[name], value, rtol=1e-4, atol=1e-6) for name, value in alone.items())
    (tmp_path / "meet").unlink(missing_ok=True)
    todo = job(tmp_path / "apart", averages={"freeze_batchnorm": "no"})
    assert not torch.allclose(two(learnt, tmp_path)[0]["mean"], alone["mean"], rtol=1e-4)
