"""The learning rate of a step, as a factor of the highest one."""

from __future__ import annotations

import math

from fnatool.training.config import Optimiser


def factor(step: int, total: int, how: Optimiser) -> float:
    """Linear from 0 over the warm-up, then down to `final_lr` at the last of `total` steps; steps count from 0.

    cosine: ½(1 + cos πt); poly: (1 − t)^power (DeepLab, arXiv 1606.00915); t from 0 to 1 after the warm-up.
    """
    if step < how.warmup:
        return (step + 1) / how.warmup
    t = min((step - how.warmup) / max(total - how.warmup, 1), 1.0)
    shapes = {"cosine": 0.5 * (1 + math.cos(math.pi * t)), "poly": math.pow(1 - t, how.power), "constant": 1.0}
    shape = shapes[how.schedule]
    return shape if how.schedule == "constant" else how.final_lr + (1 - how.final_lr) * shape
