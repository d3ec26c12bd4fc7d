"""BatchNormalization by the samples of all processes (SyncBN), by torch.distributed's default group on any device.

torch's own module for it is one of a network written in Python, and for CUDA alone; here it is one way to run the
operator.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Mean(torch.autograd.Function):
    """The mean of what the processes have, in each of them; the gradient of each is the mean of their gradients too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _averaged(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _averaged(gradients[0])


def _averaged(value: Tensor) -> Tensor:
    found = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(found)
    return found / dist.get_world_size()


def batch_norm_together(
    x: Tensor, scale: Tensor, bias: Tensor, *, running: tuple[Tensor, Tensor] | None, momentum: float, epsilon: float
) -> Tensor:
    """y = γ (x − μ) / √(σ² + ε) + β, μ and σ² being those of the batches of all processes, which are of the same size.

    running: mean and variance that move by the share `momentum` towards these (σ² · n / (n − 1), as torch does).
    Statistics are computed in single precision at least: μ first, then σ² about it, so that large means cancel nothing.
    """
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    axes = [axis for axis in range(x.dim()) if axis != 1]
    across = [-1 if axis == 1 else 1 for axis in range(x.dim())]
    mean: Tensor = _Mean.apply(values.mean(axes))
    centred = values - mean.reshape(across)
    variance: Tensor = _Mean.apply(centred.square().mean(axes))
    if running is not None:
        count = x.numel() // x.shape[1] * dist.get_world_size()
        with torch.no_grad():
            for kept, new in zip(running, (mean, variance * (count / max(count - 1, 1))), strict=True):
                kept.lerp_(new.to(kept.dtype), momentum)
    factor = (scale * (variance + epsilon).rsqrt()).reshape(across)
    return (centred * factor + bias.reshape(across)).to(x.dtype)
