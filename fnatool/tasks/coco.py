"""Average precision as COCO measures it, by pycocotools, but for what is found with the same score.

COCO ranks such detections in the order in which they are told, image by image: a network that is equally sure of
everything scores by luck. Here they count against: at each overlap those that are right come after those that are
wrong. Where all scores differ, nothing does.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

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


def box_precision(evidence: Sequence[tuple[FoundBoxes, Boxed]], classes: Sequence[str]) -> dict[str, float]:
    """mAP over IoU .50 … .95, AP50, AP75, those by area that the truth has objects for, and AP/CLASS for each class
    that it has.
    """
    truths: list[Json] = []
    found: list[Json] = []
    for image, (prediction, truth) in enumerate(evidence, 1):
        for box, label, crowd, area in zip(truth.boxes, truth.labels, truth.crowd, truth.areas, strict=True):
            own = {"bbox": _extent(box), "category_id": int(label) + 1, "iscrowd": int(crowd), "area": float(area)}
            truths.append({"id": len(truths) + 1, "image_id": image, **own})
        for box, score, label in zip(prediction.boxes, prediction.scores, prediction.labels, strict=True):
            found.append(
                {"image_id": image, "category_id": int(label) + 1, "bbox": _extent(box), "score": float(score)}
            )
    return _figures("bbox", _document(len(evidence), truths, len(classes)), found, BOXES, classes=classes)


def joint_precision(evidence: Sequence[tuple[FoundJoints, Posed]], sigmas: Sequence[float]) -> dict[str, float]:
    """OKS_AP over OKS .50 … .95, OKS_AP50, OKS_AP75; objects of the same image are matched with each other."""
    numbers: dict[str, int] = {}
    truths: list[Json] = []
    found: list[Json] = []
    for prediction, truth in evidence:
        image = numbers.setdefault(truth.image, len(numbers) + 1)
        flat = np.column_stack([truth.points, truth.seen]).ravel().tolist()
        own = {
            "keypoints": flat,
            "num_keypoints": int((truth.seen > 0).sum()),
            "bbox": _extent(truth.box),
            "area": float(truth.area),
        }
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
    kind: str,
    truth: Json,
    found: list[Json],
    figures: Mapping[str, int],
    *,
    sigmas: np.ndarray | None = None,
    classes: Sequence[str] = (),
) -> dict[str, float]:
    """The figures that pycocotools states; those it has no objects for are left out, and without predictions all are
    0.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        stated = COCO()
        stated.dataset = truth
        stated.createIndex()
        if not found:
            there = {row["category_id"] for row in truth["annotations"] if not row["iscrowd"]}  # type: ignore[attr-defined]
            each = [f"AP/{name}" for number, name in enumerate(classes, 1) if number in there]
            return dict.fromkeys([*list(figures)[:3], *each], 0.0)
        evaluation = COCOeval(stated, stated.loadRes(sorted(found, key=_place)), kind)
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.evaluate()
        _accumulate(evaluation)
        evaluation.summarize()
    stated_ones = {
        name: float(evaluation.stats[index]) for name, index in figures.items() if evaluation.stats[index] >= 0
    }
    return {**stated_ones, **_of_classes(evaluation, classes)}


def _of_classes(evaluation: COCOeval, classes: Sequence[str]) -> dict[str, float]:
    """AP/CLASS: what mAP is the mean of; no class that the truth has no object of, which COCO's convention counts for
    nothing.
    """
    # [overlaps, recalls, classes, areas, most detections]: −1 where there is no object
    precision = evaluation.eval["precision"]
    means = {name: precision[:, :, k, 0, -1] for k, name in enumerate(classes)}
    return {f"AP/{name}": float(values.mean()) for name, values in means.items() if values.min() >= 0}


def _place(found: Mapping[str, Any]) -> list[float]:
    """What detections are sorted by, so that those of the same score are matched alike in whatever order they are
    told.
    """
    return [found["image_id"], found["category_id"], *(found["bbox"] if "bbox" in found else found["keypoints"])]


def _accumulate(evaluation: COCOeval) -> None:
    """Precision and recall over all images, where the right ones among equal scores are the last, overlap by
    overlap.
    """
    compared = evaluation.evalImgs
    levels = np.unique(np.concatenate([each["dtScores"] for each in compared if each is not None] or [[]]))
    if all(len(np.unique(scores)) == len(scores) for scores in _by_category(evaluation)):
        evaluation.accumulate()
        return
    parts = []
    for k, overlap in enumerate(evaluation.params.iouThrs):
        evaluation.evalImgs = [each and _at(each, k, levels) for each in compared]
        asked = copy.copy(evaluation.params)
        asked.iouThrs = np.array([overlap])
        evaluation.accumulate(asked)
        parts.append(evaluation.eval)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in ("precision", "recall", "scores")}
    evaluation.evalImgs, evaluation.eval = compared, {**parts[0], **joined, "params": evaluation.params}


def _by_category(evaluation: COCOeval) -> list[np.ndarray]:
    """The scores of all images, for each class."""
    classes: dict[int, list[float]] = {}
    for each in evaluation.evalImgs:
        if each is not None and each["aRng"] == evaluation.params.areaRng[0]:
            classes.setdefault(each["category_id"], []).extend(each["dtScores"])
    return [np.array(scores) for scores in classes.values()]


def _at(compared: Mapping[str, Any], k: int, levels: np.ndarray) -> dict[str, Any]:
    """An image's matches at one overlap. Its scores are ranks: those of the right ones are half a step lower."""
    matches = compared["dtMatches"][k : k + 1]
    ranks = np.searchsorted(levels, np.asarray(compared["dtScores"])) - 0.5 * (matches[0] > 0)
    return {**compared, "dtMatches": matches, "dtIgnore": compared["dtIgnore"][k : k + 1], "dtScores": ranks}
