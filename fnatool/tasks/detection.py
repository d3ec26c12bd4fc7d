"""Detection: focal loss (RetinaNet) or multibox loss (SSD) over anchors; COCO's average precision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fnatool.data.placement import Placement, Size
from fnatool.data.split import Boxed, Item, Split
from fnatool.tasks import anchors as anchor_sets
from fnatool.tasks import drawing
from fnatool.tasks.anchors import Level
from fnatool.tasks.description import Description, Input, Positive
from fnatool.tasks.task import ADAMW, Augment, Output, Sample, SampleOptions, Task

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from fnatool.data.fashion.writing import SceneKind
    from fnatool.tasks.parts import Batch, Outputs, Parts
    from passes.deploy.postprocessing import End, Ending
    from passes.deploy.preprocessing import Framing
    from passes.deploy.steps import Steps
    from passes.graph.tensors import Shape
    from passes.heads import BoxCoding

Floats = npt.NDArray[np.float32]

# overlaps from which an anchor answers for a box, and below which it shows background (Lin et al. 2017)
FOCAL = (0.5, 0.4)
MULTIBOX = (0.5, 0.5)  # Liu et al. 2016
NEGATIVES = 3  # anchors on background for each on an object: those that are most wrong
SURE = 0.3  # the score from which a box is drawn
# how far corners may be apart, as a share of the extent of all boxes, or scores, for two objects to be the same
LIKE = 0.01


class Detection(Description):
    """cls_logits [N, A, K] and boxes [N, A, 4] over the anchors of all levels: level by level, row by row, anchors
    last.

    scores: "sigmoid" with a column for each class, or "softmax" with one for the background before them. boxes:
    (wx·Δx/w, wy·Δy/h, ww·ln(w′/w), wh·ln(h′/h)) from an anchor (centre, w, h) to a box (centre + Δ, w′, h′),
    box_weights being (wx, wy, ww, wh).
    """

    task: Literal["detection"] = "detection"
    levels: Annotated[tuple[Level, ...], Field(min_length=1, max_length=32)]
    box_weights: tuple[Positive, Positive, Positive, Positive] = (1.0, 1.0, 1.0, 1.0)
    scores: Literal["sigmoid", "softmax"] = "sigmoid"

    @property
    def columns(self) -> int:
        """The last extent of cls_logits."""
        return len(self.classes) + (self.scores == "softmax")


def describe(seen: Input, *, classes: tuple[str, ...], boxes: BoxCoding, joints: object = None) -> Detection:
    """The description of a model with such a head, which says how its boxes are read."""
    levels = tuple(_level(level.stride, level.anchors) for level in boxes.levels)
    scores: Literal["sigmoid", "softmax"] = "softmax" if boxes.activation == "softmax" else "sigmoid"
    return Detection(classes=classes, input=seen, levels=levels, box_weights=boxes.coder, scores=scores)


def _level(stride: tuple[int, int], anchors: Sequence[tuple[float, float]]) -> Level:
    """Anchors by their sides, (width, height), as sizes √(width · height) and ratios height / width."""
    sizes = tuple(round(math.sqrt(width * height), 4) for width, height in anchors)
    return Level(stride=stride, sizes=sizes, ratios=tuple(round(height / width, 6) for width, height in anchors))


def cls_logits(description: Detection) -> Output:
    """A number a class and anchor, with a background where they are shares."""
    return Output((None, description.columns), softmax=2 if description.scores == "softmax" else None, logits=True)


def box_codes(description: Detection) -> Output:
    """Four numbers an anchor."""
    return Output((None, 4))


# --- samples ---


def sample(split: Split, item: Boxed, description: Detection, how: SampleOptions) -> Sample:
    """`image` uint8 [3, *size], `boxes` [n, 4] in pixels of the input and `labels` [n], negative for a doubtful one."""
    import torch

    from fnatool.tasks import augment, samples
    from fnatool.tasks.pixels import fill

    labels = torch.from_numpy(np.where(item.crowd, augment.NEITHER, item.labels))
    whole: Sample = {
        "image": samples.tensor(split, item),
        "boxes": augment.boxes_of(item.boxes, item.size),
        "labels": labels,
    }
    return augment.scaled(whole, how, fill(description.input))


def batch(samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """`images` uint8 [N, 3, H, W], `boxes` [N, M, 4], `labels` [N, M], M being the most boxes of an image; NO_LABEL
    where there is none.
    """
    from torch.nn.utils.rnn import pad_sequence

    from fnatool.tasks.augment import NO_LABEL
    from fnatool.tasks.bare import plain
    from fnatool.tasks.samples import stacked

    made = stacked([{"image": one["image"]} for one in samples], {})
    made["boxes"] = pad_sequence([plain(one["boxes"]) for one in samples], batch_first=True)
    made["labels"] = pad_sequence([plain(one["labels"]) for one in samples], batch_first=True, padding_value=NO_LABEL)
    return made


def show(
    image: torch.Tensor, description: Detection, size: Size, item: Item | None = None
) -> tuple[torch.Tensor, Placement]:
    """The whole image."""
    from fnatool.tasks import augment
    from fnatool.tasks.pixels import fill

    return augment.fitted(image, size, fill(description.input))


def truth(split: Split, item: Boxed) -> Boxed:
    """The objects, as they are read."""
    return item


# --- learning ---


def loss(outputs: Outputs, batch: Batch, description: Detection) -> Parts:
    """Parts `class` and `box` of cls_logits [N, A, K] and boxes [N, A, 4], both per anchor that answers for a box.

    The batch has boxes [N, M, 4] in pixels of the input and labels [N, M], negative where there is no box or a doubtful
    one.
    """
    import torch
    import torch.nn.functional as F

    from fnatool.tasks.boxes import anchors_on, assign, encode, require_anchors
    from fnatool.tasks.parts import Part

    logits, codes = outputs["cls_logits"].float(), outputs["boxes"].float()
    size = (batch["images"].shape[-2], batch["images"].shape[-1])
    anchors = anchors_on(description.levels, size, logits.device)
    require_anchors(logits.shape[1], len(anchors), size)
    focal = description.scores == "sigmoid"
    least = FOCAL if focal else MULTIBOX
    truth = zip(batch["boxes"], batch["labels"], strict=True)
    matched = torch.stack(
        [assign(anchors, boxes, labels, least=least, own_anchor=not focal) for boxes, labels in truth]
    )
    images, rows = torch.nonzero(matched >= 0, as_tuple=True)  # the host waits here, and once more below
    which = matched[images, rows]
    wanted = encode(batch["boxes"][images, which], anchors[rows], description.box_weights)
    labels = batch["labels"][images, which]
    count = torch.full((), len(rows), device=logits.device)
    by_class = (
        _focal(logits, matched, (images, rows, labels)) if focal else _multibox(logits, matched, (images, rows, labels))
    )
    by_box = F.smooth_l1_loss(codes[images, rows], wanted, beta=1 / 9 if focal else 1.0, reduction="sum")
    return {"class": Part(by_class, count), "box": Part(by_box, count)}


# image, anchor and class of each anchor that answers for a box
Answers = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]


def _focal(logits: torch.Tensor, matched: torch.Tensor, answers: Answers) -> torch.Tensor:
    import torch
    from torchvision.ops import sigmoid_focal_loss

    from fnatool.tasks.boxes import IGNORED

    wanted = torch.zeros_like(logits)
    wanted[answers] = 1
    counted = torch.nonzero(matched != IGNORED, as_tuple=True)
    value: torch.Tensor = sigmoid_focal_loss(logits[counted], wanted[counted], alpha=0.25, gamma=2, reduction="sum")
    return value


def _multibox(logits: torch.Tensor, matched: torch.Tensor, answers: Answers) -> torch.Tensor:
    """Cross entropy of the anchors on objects and of the NEGATIVES times as many on background with the highest, image
    by image.
    """
    import torch
    import torch.nn.functional as F

    from fnatool.tasks.boxes import IGNORED

    images, rows, labels = answers
    wanted = torch.zeros_like(matched)
    wanted[images, rows] = labels + 1  # 0 is the background
    each = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(matched)
    positive = matched >= 0
    hardness = torch.where(positive | (matched == IGNORED), -torch.inf, each.detach())
    rank = hardness.argsort(1, descending=True).argsort(1)
    hard = (rank < NEGATIVES * positive.sum(1, keepdim=True)) & (hardness > -torch.inf)
    return each[torch.nonzero(positive | hard, as_tuple=True)].sum()


# --- answers and figures ---


@dataclass(frozen=True)
class Detected:
    """Objects in the image, the surest first: left, top, right, bottom in its pixels [n, 4], scores [n], indices of
    classes [n].
    """

    boxes: Floats
    scores: Floats
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Suppression:
    """Which boxes are kept: of a score above `least`, of each level the `per_level` best, of a class none that overlaps
    a better one by more than `overlap` (IoU), of an image the `per_image` best. The usual values of COCO's
    evaluation."""

    least: float = 0.05
    per_level: int = 1000
    overlap: float = 0.5
    per_image: int = 100


USUAL = Suppression()


def decode(
    placement: Placement,
    outputs: Sequence[torch.Tensor],
    description: Detection,
    size: Size,
    *,
    keep: Suppression = USUAL,
) -> Detected:
    """The objects that one image's cls_logits [A, K] and boxes [A, 4] speak of."""
    import torch
    from torchvision.ops import batched_nms, clip_boxes_to_image

    from fnatool.tasks.boxes import anchors_on, require_anchors
    from fnatool.tasks.boxes import decode as decode_boxes

    logits, codes = outputs
    anchors = anchors_on(description.levels, size, logits.device)
    counts = anchor_sets.counts(description.levels, size)
    require_anchors(len(logits), len(anchors), size)
    require_anchors(len(codes), len(anchors), size)
    scores = logits.sigmoid() if description.scores == "sigmoid" else logits.softmax(1)[:, 1:]
    found: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for part, code, anchor in zip(
        *(torch.split(values, list(counts)) for values in (scores, codes, anchors)), strict=True
    ):
        flat = part.flatten()
        candidates = torch.nonzero(flat > keep.least).flatten()
        best = candidates[flat[candidates].argsort(descending=True, stable=True)[: keep.per_level]]
        rows = best // part.shape[1]
        found.append(
            (decode_boxes(code[rows], anchor[rows], description.box_weights), flat[best], best % part.shape[1])
        )
    boxes, values, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    boxes = clip_boxes_to_image(boxes, size)
    kept = batched_nms(boxes, values, labels, keep.overlap)[: keep.per_image]
    in_image = placement.boxes_to_image(boxes[kept].cpu().numpy())
    return Detected(in_image, values[kept].cpu().numpy(), labels[kept].cpu().numpy())


def compare(prediction: Detected, truth: Boxed, description: Detection) -> tuple[Detected, Boxed]:
    """What was found in an image, and what is there."""
    return prediction, truth


def score(evidence: Sequence[tuple[Detected, Boxed]], description: Detection) -> dict[str, float]:
    """COCO's mAP (IoU .50 … .95), AP50, AP75, AP_small, AP_medium, AP_large and AP/CLASS where there are such
    objects.
    """
    from fnatool.tasks import coco

    return coco.box_precision(evidence, description.classes)


def right(truth: Boxed, description: Detection) -> Detected:
    """The true objects, without doubt, but no crowds."""
    single = ~truth.crowd
    return Detected(truth.boxes[single], np.ones(int(single.sum()), np.float32), truth.labels[single])


# --- deployed ---


def apart(one: Detected, other: Detected) -> float:
    """The share of the objects, by their scores, that the other answer does not have: of the class, nearly the box and
    the score.
    """
    missed = [_missing(one, other), _missing(other, one)]
    total = float(one.scores.sum() + other.scores.sum())
    return sum(missed) / total if total else 0.0


def _missing(one: Detected, other: Detected) -> float:
    """The scores, summed, of the objects that the other does not have. Corners are compared: a box cut to the image may
    have no area.
    """
    if not len(one.scores) or not len(other.scores):
        return float(one.scores.sum())
    reach = LIKE * max(float(one.boxes.max()), 1.0)
    near = np.abs(one.boxes[:, None] - other.boxes).max(2) <= reach
    like = near & (one.labels[:, None] == other.labels) & (np.abs(one.scores[:, None] - other.scores) <= LIKE)
    return float(one.scores[~like.any(1)].sum())


def frame(description: Detection) -> Framing:
    """All of the image."""
    from fnatool.tasks.pixels import fill
    from passes.deploy.preprocessing import Framing

    return Framing("fitted", fill=fill(description.input))


def finish(
    steps: Steps, outputs: Mapping[str, str], description: Detection, shapes: Mapping[str, Shape], ending: Ending
) -> list[End]:  # fmt: skip
    """The objects in the image, or where the runtime does not suppress any, the candidates."""
    from fnatool.tasks.boxes import LARGEST_GROWTH, require_anchors
    from passes.deploy.postprocessing import BoxReading, detected

    anchors = anchor_sets.anchors(description.levels, ending.size)
    for name in ("cls_logits", "boxes"):
        require_anchors(shapes[name][1], len(anchors), ending.size)
    how = BoxReading(
        anchors=anchors,
        counts=anchor_sets.counts(description.levels, ending.size),
        weights=description.box_weights,
        largest=LARGEST_GROWTH,
        classes=len(description.classes),
        shares=description.scores == "softmax",
        **asdict(USUAL),
    )
    return detected(steps, (outputs["cls_logits"], outputs["boxes"]), how, ending)


def answered(outputs: Mapping[str, npt.NDArray[Any]], description: Detection, image: Size) -> Detected:
    """The objects that the graph has found; of candidates those that overlap no surer one."""
    import torch
    from torchvision.ops import batched_nms

    boxes, scores, labels = (outputs[name] for name in ("boxes", "scores", "labels"))
    if "image_of" in outputs:
        boxes, scores, labels = (values[outputs["image_of"] == 0] for values in (boxes, scores, labels))
    if boxes.ndim == 3:
        sure = scores[0] > USUAL.least
        boxes, scores, labels = (values[0][sure] for values in (boxes, scores, labels))
        rows = [torch.from_numpy(np.ascontiguousarray(values)) for values in (boxes, scores, labels)]
        kept = batched_nms(*rows, USUAL.overlap)[: USUAL.per_image].numpy()
        boxes, scores, labels = (
            np.clip(boxes[kept], 0, np.tile(image[::-1], 2)).astype(np.float32),
            scores[kept],
            labels[kept],
        )
    return Detected(boxes, scores, labels)


def draw(image: Image.Image, prediction: Detected, description: Detection) -> Image.Image:
    """The image with a box around each object of a score of SURE or more, its class and score at the box; the surest on
    top.
    """
    made, zoom = drawing.canvas(image)
    rows = zip((prediction.boxes * zoom).tolist(), prediction.scores.tolist(), prediction.labels.tolist(), strict=True)
    sure = [row for row in rows if row[1] >= SURE]
    for box, _, label in reversed(sure):
        drawing.outlined(made, box, drawing.colour(label))
    named = [(box, f"{description.classes[label]} {score:.0%}", drawing.colour(label)) for box, score, label in sure]
    drawing.labels(made, named)
    return made


def mark(image: Image.Image, truth: Boxed, description: Detection) -> Image.Image:
    """The image with a box around each object and its class at it; what counts for nothing, as crowds do, is said
    to.
    """
    made, zoom = drawing.canvas(image)
    rows = list(zip((truth.boxes * zoom).tolist(), truth.labels.tolist(), truth.crowd.tolist(), strict=True))
    for box, label, _ in rows:
        drawing.outlined(made, box, drawing.colour(label))
    words = [f"{description.classes[label]}{' (not counted)' if crowd else ''}" for _, label, crowd in rows]
    drawing.labels(
        made, [(box, text, drawing.colour(label)) for (box, label, _), text in zip(rows, words, strict=True)]
    )
    return made


def say(prediction: Detected, description: Detection) -> dict[str, object]:
    """The objects, the surest first: class, score, and the box (left, top, right, bottom) in pixels of the image."""
    rows = zip(prediction.boxes.tolist(), prediction.scores.tolist(), prediction.labels.tolist(), strict=True)
    return {
        "objects": [{"class": description.classes[label], "score": score, "box": box} for box, score, label in rows]
    }


def scenes() -> SceneKind:
    """Up to four garments a scene; the same scenes as for segmentation."""
    from fnatool.data.fashion import scenes, writing

    return writing.SceneKind(1, scenes.SceneStyle((1, 4), (0.35, 0.75)), writing.write_boxes)


TASK = Task(
    name="detection",
    description=Detection,
    describe=describe,
    outputs={"cls_logits": cls_logits, "boxes": box_codes},
    head="retinanet",
    sample=sample,
    batch=batch,
    show=show,
    truth=truth,
    loss=loss,
    decode=decode,
    compare=compare,
    score=score,
    metrics={
        "mAP": "COCO's average precision: the mean over the classes, and over overlaps (IoU) of 0.50 … 0.95; of "
        "boxes with the same score "
        "the wrong ones are taken to be surer",
        "AP50": "the same where an overlap of a half is enough",
        "AP75": "the same where an overlap of three quarters is asked for",
        "AP_small": "mAP of objects of less than 32 × 32 pixels",
        "AP_medium": "mAP of objects between small and large",
        "AP_large": "mAP of objects of more than 96 × 96 pixels",
    },
    each="AP",
    right=right,
    frame=frame,
    finish=finish,
    answered=answered,
    apart=apart,
    draw=draw,
    mark=mark,
    say=say,
    augment=Augment(scale=(0.75, 1.5)),
    scenes=scenes,
    thresholds=asdict(USUAL),
    small_batch=8,
    tuning={"optimiser": ADAMW, "run": {"batch": 16}},
    searching={"search": {"alpha_from": 0.57}, "alpha": {"beta1": 0.5, "weight_decay": 1e-3}},
    published={"alpha": {"lr": 3e-4}, "weights": {"name": "sgd", "lr": 0.02, "weight_decay": 1e-4}},
)
