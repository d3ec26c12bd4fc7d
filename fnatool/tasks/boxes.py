"""Boxes as a detector's head speaks of them: codes relative to anchors, and which anchor answers for which box."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torchvision.ops import box_area, box_convert, box_iou

from fnatool.tasks.anchors import Level, Size, anchors
from fnatool.tasks.constants import constant
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
            f"the model answers for {found:,} anchors, but its description has {expected:,} on an input of "
            f"{size[0]}×{size[1]}; "
            "strides, sizes or ratios of 'fnatool.task' are not those of the head"
        )


def encode(boxes: torch.Tensor, anchors: torch.Tensor, weights: Weights) -> torch.Tensor:
    """What the head should say for boxes [n, 4] at anchors [n, 4]: see `detection.Detection`."""
    own, of_anchor = box_convert(boxes, "xyxy", "cxcywh"), box_convert(anchors, "xyxy", "cxcywh")
    shift = (own[:, :2] - of_anchor[:, :2]) / of_anchor[:, 2:]
    growth = torch.log(own[:, 2:] / of_anchor[:, 2:])
    return torch.cat([shift, growth], 1) * constant(weights, boxes.device)


def decode(codes: torch.Tensor, anchors: torch.Tensor, weights: Weights) -> torch.Tensor:
    """The boxes [n, 4] that codes [n, 4] mean at anchors [n, 4]."""
    plain = codes / constant(weights, codes.device)
    of_anchor = box_convert(anchors, "xyxy", "cxcywh")
    centre = of_anchor[:, :2] + plain[:, :2] * of_anchor[:, 2:]
    extent = of_anchor[:, 2:] * plain[:, 2:].clamp(max=LARGEST_GROWTH).exp()
    corners: torch.Tensor = box_convert(torch.cat([centre, extent], 1), "cxcywh", "xyxy")
    return corners


def assign(
    anchors: torch.Tensor,
    boxes: torch.Tensor,
    labels: torch.Tensor,
    *,
    least: tuple[float, float],
    own_anchor: bool = False,
) -> torch.Tensor:
    """For each anchor [A] the index of the box [M, 4] it answers for, NEGATIVE or IGNORED. Boxes of negative label are
    none.

    least: the overlap (IoU) from which an anchor answers, and the one below which it shows background. Every box has an
    anchor: the one of most overlap, with own_anchor even where that overlaps another box more (SSD), else with the box
    it overlaps most (RetinaNet). A NEGATIVE anchor that mostly lies in a box of label −2 is IGNORED.
    """
    matched = torch.full((len(anchors),), NEGATIVE, device=anchors.device)
    if not len(boxes):
        return matched
    # Every step keeps its shape, whatever the labels are, so that no device has to be waited for. A box that is none
    # overlaps by -1.
    overlap = torch.where((labels >= 0)[:, None], box_iou(boxes, anchors), -1.0)
    most, which = overlap.max(0)
    matched = torch.where(most >= least[1], IGNORED, matched)
    matched = torch.where(most >= least[0], which, matched)
    best, where = overlap.max(1)
    if own_anchor:
        numbers = torch.where(best > 0, torch.arange(len(boxes), device=boxes.device), NEGATIVE)
        owner = matched.new_full((len(anchors),), NEGATIVE).scatter_reduce(0, where, numbers, "amax")
        matched = torch.where(owner >= 0, owner, matched)
    else:
        chosen = ((overlap == best[:, None]) & (best[:, None] > 0)).any(0)
        matched = torch.where(chosen, which, matched)
    # where it costs nothing to look, there may be nothing to do
    if labels.device.type == "cpu" and not bool((labels == -2).any()):
        return matched
    lower, upper = (
        torch.maximum(anchors[None, :, :2], boxes[:, None, :2]),
        torch.minimum(anchors[None, :, 2:], boxes[:, None, 2:]),
    )
    covered = (upper - lower).clamp(min=0).prod(-1) / box_area(anchors)
    unclear = ((covered >= COVERED) & (labels == -2)[:, None]).any(0)
    return torch.where(unclear & (matched == NEGATIVE), IGNORED, matched)
