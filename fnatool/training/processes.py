"""One process or several under torchrun: which one this is, and what they do together. torch.distributed is the
engine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist

from passes.errors import UserError

PATIENCE = timedelta(hours=12)  # the others wait on the CPU while the first one remaps, verifies and measures
STEP = timedelta(minutes=30)  # and on the device within a step
LOST = (
    # gloo
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "Socket Timeout"),
    # NCCL
    *(
        "ncclRemoteError",
        "remote process exit",
        "communicator was aborted",
        "Watchdog caught collective operation timeout",
    ),
)
"""What torch.distributed says where one of the processes is gone. NCCL fails for reasons of its own too: these are told
as they are.
"""


@dataclass(frozen=True)
class World:
    """This process among all: its rank, how many there are, and its device.

    `waiting`: the group in which they wait for each other and hand on what is no tensor, on the CPU (None: that of
    tensors is).
    """

    rank: int
    size: int
    device: torch.device
    waiting: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """The process that speaks and writes."""
        return self.rank == 0

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in each of them."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def share(self, values: Iterable[torch.Tensor]) -> None:
        """All processes have the values of the first."""
        if self.size > 1:
            for value in values:
                dist.broadcast(value, 0)

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Each tensor is, in every process, the mean of those that the processes had; one message for each type of
        numbers.
        """
        if self.size == 1:
            return
        for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
            same = [tensor for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            dist.all_reduce(flat)
            for tensor, mean in zip(
                same, torch.split(flat / self.size, [tensor.numel() for tensor in same]), strict=True
            ):
                tensor.copy_(mean.reshape(tensor.shape))

    def gather(self, item: object) -> list[object]:
        """The items of all processes, by rank."""
        if self.size == 1:
            return [item]
        items: list[object] = [None] * self.size
        dist.all_gather_object(items, item, group=self.waiting)
        return items

    def wait(self) -> None:
        """All processes come to this point."""
        if self.size > 1:
            dist.barrier(group=self.waiting)


def cores() -> int:
    """How many of this machine's cores each of the processes on it may take; 0, all of them, where there is one
    process.
    """
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return 0 if beside == 1 else max((os.cpu_count() or 1) // beside, 1)


@contextmanager
def joined(device: str) -> Iterator[World]:
    """The World that torchrun's environment describes (one process without it): gloo on CPU, NCCL on CUDA.

    Raises UserError where cuda is asked for and absent, where this machine has fewer devices than processes, and where
    another process has ended in the middle of the work.
    """
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise UserError("'run.device' is cuda, but torch finds no CUDA device; use auto or cpu")
    use_cuda = cuda and device != "cpu"
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local, beside = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    processes, devices = max(local + 1, beside), torch.cuda.device_count()
    if use_cuda and processes > devices:
        raise UserError(
            f"{processes} processes are on this machine, and torch finds {devices} CUDA device(s): each needs "
            "one of its own; "
            "give torchrun a smaller --nproc-per-node, or set 'run.device' to cpu"
        )
    where = torch.device("cuda", local) if use_cuda else torch.device("cpu")
    if size == 1:
        yield World(0, 1, where)
        return
    if use_cuda:
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if use_cuda else "gloo", timeout=STEP if use_cuda else PATIENCE)
    try:
        waiting = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=PATIENCE)) if use_cuda else None
        yield World(rank, size, where, waiting)
    except RuntimeError as error:
        if not any(word in str(error) for word in LOST):
            raise
        raise UserError(
            "another process of this run has ended; nothing that was written is lost: the same command goes on "
            "from the last checkpoint"
        ) from error
    finally:
        dist.destroy_process_group()
