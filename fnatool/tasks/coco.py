"""Average precision as COCO measures it, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fnatool.data.split import Boxed, Posed

Json = dict[str, object]

# Which of pycocotools' figures, in its order
BOXES = {"mAP": 0, "AP50": 1, "AP75": 2, "AP_small": 3, "AP_medium": 4, "AP_large": 5}
JOINTS = {"OKS_AP": 0, "OKS_AP50": 1, "OKS_AP75": 2}


class FoundBoxes(Protocol):
    """What was found in an image: boxes [n, 4], scores [n], indices of classes [n]."""

    @property
    def boxes(self) -> np.ndarray: ...
    @property
    def scores(self) -> np.ndarray: ...
    @property
    def labels(self) -> np.ndarray: ...


class FoundJoints(Protocol):
    """What was found of an object: points [J, 2], and how sure that is."""

    @property
    def points(self) -> np.ndarray: ...
    @property
    def score(self) -> float: ...


def box_precision(evidence: Sequence[tuple[FoundBoxes, Boxed]], classes: int) -> dict[str, float]:
    """mAP over IoU .50 … .95, AP50, AP75, and those by area that the truth has objects for."""
    truths: list[Json] = []
    found: list[Json] = []
    for image, (prediction, truth) in enumerate(evidence, 1):
        for box, label, crowd, area in zip(truth.boxes, truth.labels, truth.crowd, truth.areas, strict=True):
            own = {"bbox": _extent(box), "category_id": int(label) + 1, "iscrowd": int(crowd), "area": float(area)}
            truths.append({"id": len(truths) + 1, "image_id": image, **own})
        for box, score, label in zip(prediction.boxes, prediction.scores, prediction.labels, strict=True):
            found.append({"image_id": image, "category_id": int(label) + 1, "bbox": _extent(box), "score": float(score)})
    return _figures("bbox", _document(len(evidence), truths, classes), found, BOXES)


def joint_precision(evidence: Sequence[tuple[FoundJoints, Posed]], sigmas: Sequence[float]) -> dict[str, float]:
    """OKS_AP over OKS .50 … .95, OKS_AP50, OKS_AP75; objects of the same image are matched with each other."""
    numbers: dict[str, int] = {}
    truths: list[Json] = []
    found: list[Json] = []
    for prediction, truth in evidence:
        image = numbers.setdefault(truth.image, len(numbers) + 1)
        flat = np.column_stack([truth.points, truth.seen]).ravel().tolist()
        own = {"keypoints": flat, "num_keypoints": int((truth.seen > 0).sum()), "bbox": _extent(truth.box), "area": float(truth.area)}
        truths.append({"id": len(truths) + 1, "image_id": image, "category_id": 1, "iscrowd": 0, **own})
        points = np.column_stack([prediction.points, np.ones(len(prediction.points))]).ravel().tolist()
        found.append({"image_id": image, "category_id": 1, "keypoints": points, "score": float(prediction.score)})
    return _figures("keypoints", _document(len(numbers), truths, 1), found, JOINTS, sigmas=np.array(sigmas))


def _extent(box: np.ndarray) -> list[float]:
    left, top, right, bottom = (float(value) for value in box)
    return [left, top, right - left, bottom - top]


def _document(images: int, annotations: list[Json], classes: int) -> Json:
    return {
        "info": {},
        "images": [{"id": index + 1} for index in range(images)],
        "annotations": annotations,
        "categories": [{"id": index + 1} for index in range(classes)],
    }


def _figures(
    kind: str, truth: Json, found: list[Json], figures: Mapping[str, int], *, sigmas: np.ndarray | None = None
) -> dict[str, float]:
    """The figures that pycocotools states; those it has no objects for are left out, and without predictions all are 0."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        stated = COCO()
        stated.dataset = truth
        stated.createIndex()
        if not found:
            return dict.fromkeys(list(figures)[:3], 0.0)
        evaluation = COCOeval(stated, stated.loadRes(found), kind)
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(evaluation.stats[index]) for name, index in figures.items() if evaluation.stats[index] >= 0}
