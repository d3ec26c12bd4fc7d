"""What the outputs of a model mean, in terms of the image it was shown: the one decoder, for evaluation, prediction and
deployment.

Outputs are those of ONNX Runtime (numpy) or of torch, by name, as the task's `outputs` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fnatool.data.placement import Placement, Size
from fnatool.tasks.description import Description
from fnatool.tasks.finite import Array, require_finite
from fnatool.tasks.table import TASKS
from passes.errors import RefusedModel


def decode(
    outputs: Mapping[str, Array], description: Description, placements: Sequence[Placement], *, size: Size
) -> list[Any]:
    """One prediction for each of the N images of a batch of that size (height, width), which lie in it as placements
    say.

    Raises RefusedModel where outputs are not those of the description, or not finite.
    """
    task = TASKS[description.task]
    if missing := [name for name in map(description.output, task.outputs) if name not in outputs]:
        raise RefusedModel(
            f"the model has no output '{missing[0]}', which {description.task} needs; it has "
            f"{', '.join(outputs) or 'none'}"
        )
    tensors = {name: _tensor(outputs[description.output(name)]) for name in task.outputs}
    _require_shapes(tensors, description, len(placements))
    require_finite(tensors, list(tensors))
    with torch.inference_mode():
        return [
            task.decode(where, rows, description, size)
            for where, *rows in zip(placements, *tensors.values(), strict=True)
        ]


def _tensor(values: Array) -> torch.Tensor:
    return (
        (values if isinstance(values, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(values)))
        .detach()
        .float()
    )


def _require_shapes(tensors: Mapping[str, torch.Tensor], description: Description, images: int) -> None:
    """Every output has the axes and the classes that the description says."""
    for name, output in TASKS[description.task].outputs.items():
        shape, tensor = (images, *output(description).shape), tensors[name]
        if len(shape) != tensor.dim() or any(
            want not in (None, have) for want, have in zip(shape, tensor.shape, strict=True)
        ):
            found, said = (
                "×".join("?" if extent is None else str(extent) for extent in extents)
                for extents in (tensor.shape, shape)
            )
            raise RefusedModel(
                f"output '{name}' is {found}, but by its description '{description.task}' it should be {said}"
            )
