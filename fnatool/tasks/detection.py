"""Detection: focal loss (RetinaNet) or multibox loss (SSD) over anchors; COCO's average precision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from fnatool.data.split import Boxed
from fnatool.tasks import coco
from fnatool.tasks.boxes import IGNORED, anchors_on, assign, encode, require_anchors
from fnatool.tasks.decode import Detected
from fnatool.tasks.description import Detection
from fnatool.tasks.parts import Batch, Outputs, Part, Parts

FOCAL = (0.5, 0.4)  # overlaps from which an anchor answers for a box, and below which it shows background (Lin et al. 2017)
MULTIBOX = (0.5, 0.5)  # Liu et al. 2016
NEGATIVES = 3  # anchors on background for each on an object: those that are most wrong


def loss(outputs: Outputs, batch: Batch, description: Detection) -> Parts:
    """Parts `class` and `box` of cls_logits [N, A, K] and boxes [N, A, 4], both per anchor that answers for a box.

    The batch has boxes [N, M, 4] in pixels of the input and labels [N, M], negative where there is no box or a doubtful one.
    """
    logits, codes = outputs["cls_logits"].float(), outputs["boxes"].float()
    size = (batch["images"].shape[-2], batch["images"].shape[-1])
    anchors = anchors_on(description.levels, size, logits.device)
    require_anchors(logits.shape[1], len(anchors), size)
    focal = description.scores == "sigmoid"
    least = FOCAL if focal else MULTIBOX
    truth = zip(batch["boxes"], batch["labels"], strict=True)
    matched = torch.stack([assign(anchors, boxes, labels, least=least, own_anchor=not focal) for boxes, labels in truth])
    images, rows = torch.nonzero(matched >= 0, as_tuple=True)
    which = matched[images, rows]
    wanted = encode(batch["boxes"][images, which], anchors[rows], description.box_weights)
    labels = batch["labels"][images, which]
    count = torch.tensor(len(rows), device=logits.device)
    by_class = _focal(logits, matched, (images, rows, labels)) if focal else _multibox(logits, matched, (images, rows, labels))
    by_box = F.smooth_l1_loss(codes[images, rows], wanted, beta=1 / 9 if focal else 1.0, reduction="sum")
    return {"class": Part(by_class, count), "box": Part(by_box, count)}


Answers = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # image, anchor and class of each anchor that answers for a box


def _focal(logits: torch.Tensor, matched: torch.Tensor, answers: Answers) -> torch.Tensor:
    wanted = torch.zeros_like(logits)
    wanted[answers] = 1
    counted = matched != IGNORED
    value: torch.Tensor = sigmoid_focal_loss(logits[counted], wanted[counted], alpha=0.25, gamma=2, reduction="sum")
    return value


def _multibox(logits: torch.Tensor, matched: torch.Tensor, answers: Answers) -> torch.Tensor:
    """Cross entropy of the anchors on objects and of the NEGATIVES times as many on background with the highest, image by image."""
    images, rows, labels = answers
    wanted = torch.zeros_like(matched)
    wanted[images, rows] = labels + 1  # 0 is the background
    each = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(matched)
    positive = matched >= 0
    hardness = torch.where(positive | (matched == IGNORED), -torch.inf, each.detach())
    rank = hardness.argsort(1, descending=True).argsort(1)
    hard = (rank < NEGATIVES * positive.sum(1, keepdim=True)) & (hardness > -torch.inf)
    return each[positive | hard].sum()


def compare(prediction: Detected, truth: Boxed, description: Detection) -> tuple[Detected, Boxed]:
    """What was found in an image, and what is there."""
    return prediction, truth


def score(evidence: Sequence[tuple[Detected, Boxed]], description: Detection) -> dict[str, float]:
    """COCO's mAP (IoU .50 … .95), AP50, AP75, and AP_small, AP_medium, AP_large where there are such objects."""
    return coco.box_precision(evidence, len(description.classes))
