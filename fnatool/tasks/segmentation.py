"""Segmentation: cross entropy of every pixel; the mean over the classes of intersection over union."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F

from fnatool.data.split import IGNORE
from fnatool.tasks.decode import Segmented
from fnatool.tasks.description import Segmentation
from fnatool.tasks.parts import Batch, Outputs, Part, Parts

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Confusion:
    """How often which (true class · (K + 1) + predicted class) occurs in an image, K standing for none; the pairs that do."""

    pairs: Ints
    counts: Ints


def loss(outputs: Outputs, batch: Batch, description: Segmentation) -> Parts:
    """Cross entropy of mask_logits [N, K, h, w], resized bilinearly to the masks [N, H, W]; pixels of IGNORE count for nothing."""
    masks = batch["masks"].long()
    logits = F.interpolate(outputs["mask_logits"].float(), masks.shape[-2:], mode="bilinear", align_corners=False)
    value = F.cross_entropy(logits, masks, ignore_index=IGNORE, reduction="sum")
    return {"cross_entropy": Part(value, (masks != IGNORE).sum())}


def compare(prediction: Segmented, truth: npt.NDArray[np.uint8], description: Segmentation) -> Confusion:
    """The confusion of one image, over its pixels that are not IGNORE. A pixel of several classes equally is of none."""
    counted, classes = truth != IGNORE, len(description.classes)
    joint = truth[counted].astype(np.int64) * (classes + 1) + np.minimum(prediction.classes[counted], classes)
    pairs, counts = np.unique(joint, return_counts=True)
    return Confusion(pairs, counts.astype(np.int64))


def score(evidence: Sequence[Confusion], description: Segmentation) -> dict[str, float]:
    """mIoU over the classes that occur, in truth or prediction; the share of right pixels; IoU/CLASS for each class that occurs."""
    classes = len(description.classes)
    flat = np.zeros(classes * (classes + 1), np.int64)
    for confusion in evidence:
        flat[confusion.pairs] += confusion.counts
    matrix = flat.reshape(classes, classes + 1)  # [true, predicted]
    right = matrix.diagonal()
    union = matrix[:, :-1].sum(0) + matrix.sum(1) - right
    occur = union > 0
    each = {f"IoU/{description.classes[index]}": float(right[index] / union[index]) for index in np.flatnonzero(occur)}
    return {"mIoU": float(np.mean(list(each.values()))) if each else 0.0, "pixels": float(right.sum() / max(matrix.sum(), 1)), **each}
