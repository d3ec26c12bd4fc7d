"""Folders of scenes in the formats people have: ImageFolder, Pascal VOC, COCO boxes, COCO keypoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from fnatool.data.fashion import CLASSES, garments
from fnatool.data.fashion.scenes import OUTSIDE, POINTS, STYLES, PlacedGarment, Scene, compose
from fnatool.files.atomic import replacing_folder
from passes.errors import UserError

MARK = "fashion-scenes.json"  # in every folder written here, with how it was asked for
VERSION = 1  # of the scenes: another one may give other pixels for the same seed
SPLITS = ("train", "val")
SKELETON = [[1, 5], [2, 5], [3, 5], [4, 5]]  # COCO counts points from 1
SOURCE = "composed by fnatool from Fashion-MNIST, Copyright (c) 2017 Zalando SE, MIT licence"
# Segmentation and detection label the same scenes.
STREAMS = {"classification": 0, "segmentation": 1, "detection": 1, "pose": 2}

Numbered = Iterator[tuple[int, Scene]]


@dataclass(frozen=True)
class SceneOptions:
    """Which scenes: for what task, how large (pixels a side), how many, from what seed."""

    task: str
    size: int = 96
    train: int = 2000
    val: int = 500
    seed: int = 0


def write_scenes(folder: Path, wanted: SceneOptions, *, force: bool = False, done: Callable[[], None] | None = None) -> None:
    """folder holds the scenes wanted, all of them or, after any failure, what it held before; the same wanted gives the same bytes.

    Training scenes show the data set's training garments, the others its test garments. `done` is called after every scene.
    Raises UserError where folder is in use: with force, an older folder of scenes is replaced, but never anything else.
    """
    require_replaceable(folder, force=force)
    if wanted.task == "classification" and wanted.train < len(CLASSES):
        raise UserError(f"--train {wanted.train} is too few: classification wants a scene of each of the {len(CLASSES)} classes")
    with replacing_folder(folder) as made:
        for split in SPLITS:
            WRITERS[wanted.task](made, split, _counted(scenes(wanted, split), done))
        mark = {"version": VERSION, **asdict(wanted), "classes": CLASSES, "source": SOURCE}
        (made / MARK).write_text(json.dumps(mark, indent=1) + "\n")


def require_replaceable(folder: Path, *, force: bool) -> None:
    """A folder of scenes may be put at that path. Raises UserError."""
    if not folder.absolute().parent.is_dir():
        raise UserError(f"'{folder.absolute().parent}', where '{folder.name}' should go, is no folder; create it first")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"'{folder}' is not a folder; choose another name")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / MARK).is_file():
        raise UserError(f"'{folder}' holds files that 'fnatool data fashion-scenes' has not written; choose another folder")
    if not force:
        raise UserError(f"'{folder}' exists; choose another folder or pass --force to replace it")


def scenes(wanted: SceneOptions, split: str) -> Numbered:
    """The scenes of a split, numbered from 0; each is a function of the seed and its number alone."""
    pool = garments(split)
    style = STYLES[wanted.task]
    for number in range(wanted.train if split == "train" else wanted.val):
        rng = np.random.default_rng([wanted.seed, STREAMS[wanted.task], SPLITS.index(split), number])
        count = int(rng.integers(style.garments[0], style.garments[1] + 1))
        labels = [number % len(CLASSES)] if wanted.task == "classification" else rng.integers(0, len(CLASSES), count).tolist()
        yield number, compose(rng, pool, labels, style=style, size=wanted.size)


def _counted(numbered: Numbered, done: Callable[[], None] | None) -> Numbered:
    for item in numbered:
        yield item
        if done is not None:
            done()


def _save(scene: Scene, path: Path) -> None:
    Image.fromarray(scene.image).save(path, quality=92, subsampling=0)


# --- one writer per task ---


def _write_classes(folder: Path, split: str, numbered: Numbered) -> None:
    """An ImageFolder: SPLIT/CLASS/00000.jpg."""
    for number, scene in numbered:
        path = folder / split / CLASSES[scene.garments[0].label] / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(scene, path)


def _write_masks(folder: Path, split: str, numbered: Numbered) -> None:
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


def _write_boxes(folder: Path, split: str, numbered: Numbered) -> None:
    """COCO's layout: SPLIT/00000.jpg and annotations/instances_SPLIT.json, a category for every class."""
    categories = [{"id": index + 1, "name": name, "supercategory": "garment"} for index, name in enumerate(CLASSES)]
    _write_coco(folder, split, numbered, name="instances", categories=categories, entry=lambda g: {"category_id": g.label + 1})


def _write_points(folder: Path, split: str, numbered: Numbered) -> None:
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
    folder: Path, split: str, numbered: Numbered, *, name: str, categories: object, entry: Callable[[PlacedGarment], dict[str, object]]
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
            common = {"id": len(annotations) + 1, "image_id": number + 1, "bbox": [left, top, right - left, bottom - top]}
            annotations.append({**common, "area": garment.area, "iscrowd": 0, **entry(garment)})
    document = {"info": {"description": SOURCE}, "images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / f"{name}_{split}.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")


WRITERS: dict[str, Callable[[Path, str, Numbered], None]] = {
    "classification": _write_classes,
    "segmentation": _write_masks,
    "detection": _write_boxes,
    "pose": _write_points,
}
