"""Constants of losses and inputs that lie on a device, put there once: the host would wait for each copy."""

from __future__ import annotations

from functools import lru_cache

import torch


@lru_cache(maxsize=64)
def constant(
    values: tuple[float, ...] | tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """The numbers on the device, not to be written to."""
    return torch.tensor(values, dtype=dtype, device=device)
