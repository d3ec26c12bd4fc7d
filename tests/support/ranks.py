"""Two processes that work together, as torchrun would start them: gloo on the CPU, forked from the test."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fnatool.training.processes import World

Work = Callable[[World], Any]


def two(work: Work, folder: Path) -> list[Any]:
    """What work comes to in each of two processes; what one raises the test raises."""
    with warnings.catch_warnings():
        # Python 3.12 warns of forking; spawning would import torch twice more
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.multiprocessing.start_processes(_one, (work, folder), nprocs=2, start_method="fork")
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)]


def _one(rank: int, work: Work, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    torch.save(work(World(rank, 2, torch.device("cpu"))), folder / f"rank{rank}.pt")
    dist.destroy_process_group()
