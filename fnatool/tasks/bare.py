"""Tensors without what torchvision knows of them."""

from __future__ import annotations

import torch


def plain(value: torch.Tensor) -> torch.Tensor:
    """The same as a bare tensor, of no kind of torchvision's."""
    found: torch.Tensor = value.as_subclass(torch.Tensor)
    return found
