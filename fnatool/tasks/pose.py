"""Pose: the squared distance of heatmaps to peaks at the joints; COCO's average precision by OKS, and PCK."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fnatool.data.split import Posed
from fnatool.tasks import coco
from fnatool.tasks.decode import Jointed
from fnatool.tasks.description import Pose
from fnatool.tasks.parts import Batch, Outputs, Part, Parts

WIDTH, LEAST_WIDTH = (
    1 / 32,
    1.0,
)  # σ of a peak: share of the heatmap's longer side (2 for 64 × 48, Xiao et al. 2018), and at least, in cells
NEAR = 0.1  # PCK: share of the longer side of the object's box


def loss(outputs: Outputs, batch: Batch, description: Pose) -> Parts:
    """The squared error of heatmaps [N, J, h, w], over that of a heatmap of zeros, for each joint of weight 1.

    points [N, J, 2] are in pixels of the input, whose size the images of the batch tell; weights [N, J]. (A mean over cells would be
    small for large maps, whose cells are nearly all zero.)
    """
    maps = outputs["heatmaps"].float()
    height, width = maps.shape[-2:]
    size = batch["images"].shape[-2:]
    sigma = max(WIDTH * max(height, width), LEAST_WIDTH)
    wanted = peaks(batch["points"], (size[0], size[1]), (height, width), sigma)
    error = (maps - wanted).square().sum((2, 3)) / (np.pi * sigma**2)  # ∫ exp(−r² / 2σ²)² = π σ²
    weights = batch["weights"]
    return {"heatmaps": Part((error * weights).sum(), weights.sum())}


def peaks(points: torch.Tensor, size: tuple[int, int], cells: tuple[int, int], sigma: float) -> torch.Tensor:
    """exp(−r² / 2σ²) around points [N, J, 2] of an input of that size, on heatmaps [N, J, *cells]; σ in cells."""
    scale = torch.tensor([cells[1] / size[1], cells[0] / size[0]], device=points.device)
    places = points.float() * scale - 0.5  # the first cell's middle is 0
    along, down = (torch.arange(extent, device=points.device) for extent in (cells[1], cells[0]))
    across = torch.exp(-((along - places[..., :1]) ** 2) / (2 * sigma**2))
    rows = torch.exp(-((down - places[..., 1:]) ** 2) / (2 * sigma**2))
    return rows[..., :, None] * across[..., None, :]


def compare(prediction: Jointed, truth: Posed, description: Pose) -> tuple[Jointed, Posed]:
    """What was found, and where the joints are."""
    return prediction, truth


def score(evidence: Sequence[tuple[Jointed, Posed]], description: Pose) -> dict[str, float]:
    """COCO's OKS_AP (OKS .50 … .95), OKS_AP50, OKS_AP75; PCK@0.1, the share of labelled joints nearer than a tenth of the box's side."""
    near = [_near(prediction, truth) for prediction, truth in evidence]
    precision = coco.joint_precision(evidence, description.sigmas)
    return {**precision, f"PCK@{NEAR}": float(np.concatenate(near).mean())}


def _near(prediction: Jointed, truth: Posed) -> np.ndarray:
    labelled = truth.seen > 0
    distance = np.linalg.norm(prediction.points[labelled] - truth.points[labelled], axis=1)
    side = max(truth.box[2] - truth.box[0], truth.box[3] - truth.box[1])
    return np.asarray(distance <= NEAR * side)
