"""The optimiser of a config, and what its parameters are: which are fresh, which decay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from fnatool.training.config import Optimiser

BETAS = (0.9, 0.999)


def optimiser_for(parameters: Iterable[tuple[str, nn.Parameter]], how: Optimiser) -> torch.optim.Optimizer:
    """SGD or AdamW over four groups: inherited or fresh (`how.fresh`), decaying (weights) or not (biases, norms: one
    axis at most).

    Each group's `factor` times the step's learning rate is its own.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        factor = how.fresh_lr if is_fresh(name, how.fresh) else 1.0
        decay = how.weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((factor, decay), []).append(parameter)
    rows = [{"params": found, "factor": factor, "weight_decay": decay} for (factor, decay), found in groups.items()]
    if how.name == "adamw":
        return torch.optim.AdamW(rows, lr=how.lr, betas=BETAS)
    return torch.optim.SGD(rows, lr=how.lr, momentum=how.momentum)


def is_fresh(name: str, patterns: Sequence[str]) -> bool:
    """One of the patterns is like the name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Every group learns at its factor times rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]
