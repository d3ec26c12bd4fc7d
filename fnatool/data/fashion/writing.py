"""Folders of scenes in the formats people have: ImageFolder, Pascal VOC, COCO boxes, COCO keypoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from fnatool.data.fashion import CLASSES
from fnatool.data.fashion.scenes import OUTSIDE, POINTS, PlacedGarment, Scene, SceneStyle

SKELETON = [[1, 5], [2, 5], [3, 5], [4, 5]]  # COCO counts points from 1
SOURCE = "composed by fnatool from Fashion-MNIST, Copyright (c) 2017 Zalando SE, MIT licence"

Numbered = Iterator[tuple[int, Scene]]


@dataclass(frozen=True)
class SceneKind:
    """Which scenes a task has: the stream of chance they are drawn from, what they are like, and what writes a split of
    them to a folder.

    Tasks with the same stream and style label the same scenes. in_turn: a garment of each class after the other, one a
    scene.
    """

    stream: int
    style: SceneStyle
    write: Callable[[Path, str, Numbered], None]
    in_turn: bool = False


def _save(scene: Scene, path: Path) -> None:
    Image.fromarray(scene.image).save(path, quality=92, subsampling=0)


# --- one writer per format ---


def write_classes(folder: Path, split: str, numbered: Numbered) -> None:
    """An ImageFolder: SPLIT/CLASS/00000.jpg."""
    for number, scene in numbered:
        path = folder / split / CLASSES[scene.garments[0].label] / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(scene, path)


def write_masks(folder: Path, split: str, numbered: Numbered) -> None:
    """Pascal VOC's layout, and classes.txt with the names of 0 (background), 1 …"""
    lists = folder / "ImageSets" / "Segmentation"
    for part in (folder / "JPEGImages", folder / "SegmentationClass", lists):
        part.mkdir(parents=True, exist_ok=True)
    stems = []
    for number, scene in numbered:
        stems.append(f"{split}_{number:05}")
        _save(scene, folder / "JPEGImages" / f"{stems[-1]}.jpg")
        mask = Image.fromarray(scene.classes)
        mask.putpalette(_palette())
        mask.save(folder / "SegmentationClass" / f"{stems[-1]}.png")
    (lists / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in ("background", *CLASSES)))


@cache
def _palette() -> list[int]:
    """Pascal VOC's colours: the bits of a class number, dealt to red, green and blue from the highest bit down."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.int64)
    for bit in range(8):
        colours[:, bit % 3] |= (numbers >> bit & 1) << 7 - bit // 3
    return [int(value) for value in colours.ravel()]


def write_boxes(folder: Path, split: str, numbered: Numbered) -> None:
    """COCO's layout: SPLIT/00000.jpg and annotations/instances_SPLIT.json, a category for every class."""
    categories = [{"id": index + 1, "name": name, "supercategory": "garment"} for index, name in enumerate(CLASSES)]
    _write_coco(
        folder, split, numbered, name="instances", categories=categories, entry=lambda g: {"category_id": g.label + 1}
    )


def write_points(folder: Path, split: str, numbered: Numbered) -> None:
    """COCO's layout: SPLIT/00000.jpg and annotations/garment_keypoints_SPLIT.json, one category with five keypoints."""
    categories = [{"id": 1, "name": "garment", "keypoints": POINTS, "skeleton": SKELETON}]
    _write_coco(folder, split, numbered, name="garment_keypoints", categories=categories, entry=_points)


def _points(garment: PlacedGarment) -> dict[str, object]:
    flat: list[float] = []
    for (x, y), seen in zip(garment.points, garment.seen, strict=True):
        # COCO counts from the middle of the first pixel
        flat += [0, 0, 0] if seen == OUTSIDE else [round(float(x) - 0.5, 2), round(float(y) - 0.5, 2), seen]
    return {"category_id": 1, "keypoints": flat, "num_keypoints": sum(seen != OUTSIDE for seen in garment.seen)}


def _write_coco(
    folder: Path,
    split: str,
    numbered: Numbered,
    *,
    name: str,
    categories: object,
    entry: Callable[[PlacedGarment], dict[str, object]],
) -> None:
    for part in (folder / split, folder / "annotations"):
        part.mkdir(parents=True, exist_ok=True)
    images: list[object] = []
    annotations: list[object] = []
    for number, scene in numbered:
        path = folder / split / f"{number:05}.jpg"
        _save(scene, path)
        height, width = scene.classes.shape
        images.append({"id": number + 1, "file_name": path.name, "width": width, "height": height})
        for garment in scene.garments:
            left, top, right, bottom = garment.box
            common = {
                "id": len(annotations) + 1,
                "image_id": number + 1,
                "bbox": [left, top, right - left, bottom - top],
            }
            annotations.append({**common, "area": garment.area, "iscrowd": 0, **entry(garment)})
    document = {"info": {"description": SOURCE}, "images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / f"{name}_{split}.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")
