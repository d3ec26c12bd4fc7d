"""What a loss is made of: sums and what they are divided by, kept apart so that several processes can divide by what
all have together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed

Outputs = Mapping[str, torch.Tensor]  # by the names of the graph's outputs
Batch = Mapping[str, torch.Tensor]  # of the task's `batch`, on the device


@dataclass(frozen=True)
class Part:
    """A mean before its division: the sum over `count` pixels, boxes, images …, both scalars."""

    sum: torch.Tensor
    count: torch.Tensor


Parts = Mapping[str, Part]


def means(parts: Parts) -> dict[str, torch.Tensor]:
    """Each part as a mean over all processes' counts: averaged over the processes they, and their gradients, are those
    of one process.
    """
    if not parts:
        return {}
    counts = torch.stack([part.count.detach().float() for part in parts.values()])
    world = 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        world = torch.distributed.get_world_size()
        torch.distributed.all_reduce(counts)
    shared = counts.clamp(min=1) / world
    return {name: part.sum / count for (name, part), count in zip(parts.items(), shared, strict=True)}


def total(parts: Parts) -> torch.Tensor:
    """The loss: the sum of the means."""
    return torch.stack(list(means(parts).values())).sum()


def alone(parts: Parts) -> torch.Tensor:
    """The loss of what this process has by itself: no other process is asked, so that one alone may want to know."""
    return torch.stack([part.sum / part.count.detach().clamp(min=1) for part in parts.values()]).sum()
