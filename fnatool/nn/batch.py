"""Whether a network computes any number of samples, each by itself.

Sizes in a file may hold for the batch it was exported with only. Reading lets them follow the batch; here is the proof that this is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fnatool.nn.program import FAILURES
from fnatool.nn.reading import Reading
from fnatool.nn.site import torch_type
from passes.errors import RefusedModel

TOLERANCE = 1e-3  # of the spread; another sample's values are off by all of it
HALF_TOLERANCE = 3e-2


def require_batch(reading: Reading, values: Mapping[str, Tensor], *, static: bool) -> None:
    """Two and three samples go through; where the file says a static batch, two samples give what each gives alone.

    The first is tried without computing. Raises RefusedModel, naming the node that stands in the way.
    """
    probe = reading.facts.batch
    empty = {name: torch.empty_like(value, device="meta") for name, value in {**reading.constants, **values}.items()}
    for times in (2, 3):
        inputs = [torch.empty(_shape(reading, name, times), dtype=_type(reading, name), device="meta") for name in reading.inputs]
        try:
            results = reading(empty, inputs)
        except FAILURES as error:
            where = " ".join(getattr(error, "__notes__", ()))
            raise RefusedModel(f"{times * probe} samples do not go through: {_first_line(error)}, {where}; {FIX}") from error
        for name, result in zip(reading.outputs, results, strict=True):
            _require_scaled(reading, name, result, times)
    if static:
        _require_separate(reading, values)


FIX = "export the model with a free batch axis"


def _shape(reading: Reading, name: str, times: int) -> tuple[int, ...]:
    shape = reading.shapes.shapes[name]
    return (shape[0] * times, *shape[1:]) if name in reading.batched else shape


def _type(reading: Reading, name: str) -> torch.dtype:
    return torch_type(reading.facts.types[name]) or torch.float32


def _require_scaled(reading: Reading, name: str, result: Tensor, times: int) -> None:
    """An output with the batch in front has all samples in it."""
    probed = reading.shapes.shapes.get(name)
    if probed and probed[0] == reading.facts.batch and tuple(result.shape) == probed:
        raise RefusedModel(f"output '{name}' has {probed[0]} samples for {times * probed[0]}: the batch is built into the graph; {FIX}")


def _require_separate(reading: Reading, values: Mapping[str, Tensor]) -> None:
    """Each of two samples (of the batch of the file) gives what it gives alone."""
    rng = np.random.default_rng(0)
    probe = reading.facts.batch
    inputs = [_noise(rng, _shape(reading, name, 2), _type(reading, name)) for name in reading.inputs]
    with torch.no_grad():
        together = reading(values, inputs)
        alone = reading(values, [x[:probe] if name in reading.batched else x for name, x in zip(reading.inputs, inputs, strict=True)])
    for name, both, one in zip(reading.outputs, together, alone, strict=True):
        if both.shape[:1] != (2 * probe,) or not one.is_floating_point():
            continue
        spread = float((one.max() - one.min()).float()) or 1.0
        moved = float((both[:probe] - one).abs().max().float()) / spread
        limit = HALF_TOLERANCE if one.dtype in (torch.float16, torch.bfloat16) else TOLERANCE
        if not moved <= limit:
            raise RefusedModel(f"output '{name}' of a sample depends on the others in its batch (by {moved:.1e} of its spread); {FIX}")


def _noise(rng: np.random.Generator, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    if dtype.is_floating_point:
        return torch.from_numpy(rng.standard_normal(shape)).to(dtype)
    return torch.from_numpy(rng.integers(0, 2, shape)).to(dtype)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
