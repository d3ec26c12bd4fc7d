"""How far a network is from its teacher, as a loss: by features, by what its outputs mean, or by the outputs as they
are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fnatool.tasks.description import Description
from fnatool.tasks.parts import Outputs
from fnatool.tasks.table import TASKS, by_task
from passes.errors import UserError

FLOOR = 1e-6  # of the square: where all samples are the same, nothing else says what is far


def apart(own: Tensor, other: Tensor) -> Tensor:
    """Σ ‖own − other‖² / Σ ‖other − mean other‖² over a batch: 1 is as far as the samples are from each other."""
    other = other.detach().float()
    around = (other - other.mean(0, keepdim=True)).square().sum()
    return (own.float() - other).square().sum() / torch.maximum(around, FLOOR * other.square().sum()).clamp_min(FLOOR)


def features_apart(own: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """The mean over places."""
    return torch.stack([apart(one, other) for one, other in zip(own, teacher, strict=True)]).mean()


def outputs_apart(student: Outputs, teacher: Outputs, description: Description, temperature: float) -> Tensor:
    """The mean over samples (pixels, anchors) and outputs of how far the student is from the teacher (Hinton et al.
    2015, 1503.02531).

    Scores of classes: T² · KL(teacher ‖ student) of softmax(· / T) over axis 1, of anchors over the last; sigmoid
    scores (boxes too) and heatmaps: half the squared distance, over T². Maps of another resolution are resized to the
    student's. Raises UserError where outputs do not correspond.
    """
    outputs = TASKS[description.task].outputs.items()
    own, others = by_task(student, description), by_task(teacher, description)
    parts = [
        _apart(name, own[name].float(), others, temperature, axis=made(description).softmax) for name, made in outputs
    ]
    return torch.stack(parts).sum()


def _apart(name: str, own: Tensor, teacher: Outputs, temperature: float, *, axis: int | None) -> Tensor:
    if name not in teacher:
        raise UserError(
            f"the teacher has no output '{name}'; it has {', '.join(teacher)}: give one with a head for the same task"
        )
    other = teacher[name].float().detach()
    if other.dim() == own.dim() == 4 and other.shape[2:] != own.shape[2:]:
        other = F.interpolate(other, own.shape[2:], mode="bilinear", align_corners=False)
    if other.shape != own.shape:
        found, wanted = ("×".join(map(str, value.shape)) for value in (other, own))
        raise UserError(
            f"the teacher's '{name}' is {found}, the model's {wanted}: they are for other classes or anchors"
        )
    if axis is None:
        return 0.5 * F.mse_loss(own, other) / temperature**2
    logs = (F.log_softmax(value / temperature, axis) for value in (own, other))
    mine, theirs = logs
    each = (theirs.exp() * (theirs - mine)).sum(axis)
    return each.mean() * temperature**2
