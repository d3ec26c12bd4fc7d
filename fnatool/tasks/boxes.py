"""Boxes as a detector's head speaks of them: codes relative to anchors, and which anchor answers for which box."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torchvision.ops import box_area, box_convert, box_iou

from fnatool.tasks.anchors import Level, Size, anchors
from passes.errors import RefusedModel

Weights = tuple[float, float, float, float]

NEGATIVE, IGNORED = -1, -2  # of an anchor: it shows background; it says nothing
LARGEST_GROWTH = math.log(1000 / 16)  # of a side, so that no code overflows: the usual bound
COVERED = 0.5  # share of an anchor in a region that is neither right nor wrong


@lru_cache(maxsize=8)
def anchors_on(levels: tuple[Level, ...], size: Size, device: torch.device) -> torch.Tensor:
    """The anchors [A, 4] of an input of that size, kept on the device."""
    return torch.from_numpy(anchors(levels, size)).to(device)


def require_anchors(found: int, expected: int, size: Size) -> None:
    """Raises RefusedModel where the model has other anchors than its description."""
    if found != expected:
        raise RefusedModel(
            f"the model answers for {found:,} anchors, but its description has {expected:,} on an input of {size[0]}×{size[1]}; "
            "strides, sizes or ratios of 'fnatool.task' are not those of the head"
        )


def encode(boxes: torch.Tensor, anchors: torch.Tensor, weights: Weights) -> torch.Tensor:
    """What the head should say for boxes [n, 4] at anchors [n, 4]: see `detection.Detection`."""
    own, of_anchor = box_convert(boxes, "xyxy", "cxcywh"), box_convert(anchors, "xyxy", "cxcywh")
    shift = (own[:, :2] - of_anchor[:, :2]) / of_anchor[:, 2:]
    growth = torch.log(own[:, 2:] / of_anchor[:, 2:])
    return torch.cat([shift, growth], 1) * torch.tensor(weights, device=boxes.device)


def decode(codes: torch.Tensor, anchors: torch.Tensor, weights: Weights) -> torch.Tensor:
    """The boxes [n, 4] that codes [n, 4] mean at anchors [n, 4]."""
    plain = codes / torch.tensor(weights, device=codes.device)
    of_anchor = box_convert(anchors, "xyxy", "cxcywh")
    centre = of_anchor[:, :2] + plain[:, :2] * of_anchor[:, 2:]
    extent = of_anchor[:, 2:] * plain[:, 2:].clamp(max=LARGEST_GROWTH).exp()
    corners: torch.Tensor = box_convert(torch.cat([centre, extent], 1), "cxcywh", "xyxy")
    return corners


def assign(
    anchors: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor, *, least: tuple[float, float], own_anchor: bool = False
) -> torch.Tensor:
    """For each anchor [A] the index of the box [M, 4] it answers for, NEGATIVE or IGNORED. Boxes of negative label are none.

    least: the overlap (IoU) from which an anchor answers, and the one below which it shows background. Every box has an anchor: the one
    of most overlap, with own_anchor even where that overlaps another box more (SSD), else with the box it overlaps most (RetinaNet).
    A NEGATIVE anchor that mostly lies in a box of label −2 is IGNORED.
    """
    real = torch.nonzero(labels >= 0).flatten()
    matched = torch.full((len(anchors),), NEGATIVE, device=anchors.device)
    if len(real):
        overlap = box_iou(boxes[real], anchors)
        most, which = overlap.max(0)
        matched[most >= least[1]] = IGNORED
        matched = torch.where(most >= least[0], real[which], matched)
        best, where = overlap.max(1)
        if own_anchor:
            matched[where[best > 0]] = real[best > 0]
        else:
            chosen = ((overlap == best[:, None]) & (best[:, None] > 0)).any(0)
            matched[chosen] = real[which[chosen]]
    unclear = boxes[labels == -2]
    if len(unclear):
        lower, upper = torch.maximum(anchors[:, None, :2], unclear[:, :2]), torch.minimum(anchors[:, None, 2:], unclear[:, 2:])
        covered = (upper - lower).clamp(min=0).prod(-1) / box_area(anchors)[:, None]
        matched[(covered.amax(1) >= COVERED) & (matched == NEGATIVE)] = IGNORED
    return matched
