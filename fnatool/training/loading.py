"""How many processes load samples, where a config leaves that to us. What is loaded does not depend on it."""

from __future__ import annotations

import os
from typing import Literal

import torch

Asked = int | Literal["auto"]
MOST = 16  # for one device
FEW = 4  # for the processor: a step there takes its cores, and longer than its samples do
AHEAD = 2  # batches that each process keeps, as torch's loaders do
ROOM = 1 << 30  # bytes of all of them


def workers_for(asked: Asked, device: torch.device, *, batch: int, sample: int) -> int:
    """As many as are asked for; sample: bytes of one. "auto", of the c cores that are there for this process and no
    other on the machine:

    * a device that is no processor: c − 1, so that one core feeds it, and 16 at most;
    * the processor: one for every four cores, 4 at most; with two or three cores one, with a single one none: it loads
      between its steps;
    * with batches so large that what is kept ahead would take more than a GiB, as many as it has room for, at least
      one.
    """
    if asked != "auto":
        return asked
    here = own_cores()
    if here == 1:
        return 0
    wanted = min(here - 1, MOST) if device.type != "cpu" else min(max(here // 4, 1), FEW)
    return max(min(wanted, ROOM // (AHEAD * batch * sample)), 1)


def own_cores() -> int:
    """Those that this process may use, without those of its neighbours under torchrun."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(allowed // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)
