"""Outputs that are no numbers are no answers: no figure is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from passes.errors import RefusedModel

Array = npt.NDArray[Any] | torch.Tensor


class NotFinite(RefusedModel):
    """A network computes NaN or infinities."""


def require_finite(outputs: Mapping[str, Array], names: Sequence[str]) -> None:
    """The outputs of these names hold numbers alone. Raises NotFinite, which names the first that does not."""
    for name in names:
        values = outputs[name]
        count = _broken(values)
        if count:
            size = values.numel() if isinstance(values, torch.Tensor) else values.size
            raise NotFinite(
                f"output '{name}' is not finite: {count:,} of its {size:,} values are NaN or infinite, so no "
                "figure can be made of it; "
                "are the model's weights whole?"
            )


def _broken(values: Array) -> int:
    """How many values are NaN or infinite."""
    if isinstance(values, torch.Tensor):
        return int((~torch.isfinite(values)).sum()) if values.is_floating_point() else 0
    return int((~np.isfinite(values)).sum()) if values.dtype.kind == "f" else 0
