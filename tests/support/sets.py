"""Small data sets for the tests, in the formats people have, each in a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "owl")
Json = dict[str, object]


def picture(path: Path, size: tuple[int, int] = (20, 30), *, mode: str = "RGB", seed: int = 0) -> Path:
    """An image of random pixels; size is height, width."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    channels = {"RGB": 3, "RGBA": 4, "LA": 2, "CMYK": 4}.get(mode)
    pixels = rng.integers(0, 256, size if channels is None else (*size, channels), np.uint8)
    image = Image.fromarray(pixels, mode) if channels else Image.fromarray(pixels)
    image.save(path)
    return path


def mask(path: Path, values: np.ndarray | None = None, size: tuple[int, int] = (20, 30)) -> Path:
    """A mask whose left half is 0 and whose right half is 1, or of the values given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        values = np.zeros(size, np.uint8)
        values[:, size[1] // 2 :] = 1
    Image.fromarray(values).save(path)
    return path


def image_folder(root: Path, *, splits: tuple[str, ...] = ("train/", "val/"), each: int = 3) -> Path:
    for split in splits:
        for label, name in enumerate(CLASSES):
            for index in range(each):
                picture(root / f"{split}{name}/{index}.png", seed=100 * label + index)
    return root


def mask_folders(root: Path, count: int = 4) -> Path:
    for index in range(count):
        picture(root / f"images/{index}.jpg", seed=index)
        mask(root / f"masks/{index}.png")
    (root / "classes.txt").write_text("ground\nthing\n")
    return root


def pascal(root: Path, count: int = 3) -> Path:
    for index in range(count):
        picture(root / f"JPEGImages/{index}.jpg", seed=index)
        mask(root / f"SegmentationClass/{index}.png")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"{index}\n" for index in range(count - 1)))
    (lists / "val.txt").write_text(f"{count - 1}\n")
    return root


def streets(root: Path, *, kind: str = "labelIds") -> Path:
    values = np.full((20, 30), 7 if kind == "labelIds" else 0, np.uint8)
    values[:5] = 26 if kind == "labelIds" else 13
    values[5:6] = 3 if kind == "labelIds" else 255
    for split, city in (("train", "ulm"), ("val", "bonn")):
        picture(root / f"leftImg8bit/{split}/{city}/{city}_0_leftImg8bit.png")
        mask(root / f"gtFine/{split}/{city}/{city}_0_gtFine_{kind}.png", values)
    return root


def boxes(root: Path, split: str = "train", *, images: int = 3) -> Path:
    """COCO: every image has a cat and, but for the first, an owl; the ids of the categories have gaps."""
    for index in range(images):
        picture(root / f"{split}/{index}.jpg", seed=index)
    annotations = [box(1 + index, 10 + index, 7, [2, 3, 10, 12]) for index in range(images)]
    annotations += [box(100 + index, 10 + index, 90, [5, 5, 20, 10]) for index in range(1, images)]
    write_boxes(root, annotations, split, images)
    return root


def box(number: int, image: int, category: int, extent: list[float], **more: object) -> Json:
    area = extent[2] * extent[3] / 2 if len(extent) == 4 else 1
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": extent,
        "area": area,
        "iscrowd": 0,
        **more,
    }


def write_boxes(root: Path, annotations: list[Json], split: str = "train", images: int = 3, **more: object) -> Path:
    document = {
        "images": [
            {"id": 10 + index, "file_name": f"{index}.jpg", "height": 20, "width": 30} for index in range(images)
        ],
        "annotations": annotations,
        "categories": [{"id": 90, "name": "owl"}, {"id": 7, "name": "cat"}, {"id": 18, "name": "dog"}],
        **more,
    }
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    path = root / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(document))
    return path


JOINTS = ("nose", "left_eye", "right_eye")


def person(number: int, image: int, keypoints: list[float], **more: object) -> Json:
    seen = sum(v > 0 for v in keypoints[2::3])
    own = {"keypoints": keypoints, "num_keypoints": seen, "bbox": [4, 2, 16, 16], "area": 100.0, "iscrowd": 0}
    return {"id": number, "image_id": image, "category_id": 1, **own, **more}


def people(root: Path, annotations: list[Json] | None = None, split: str = "train") -> Path:
    """COCO keypoints: two images, the second with two people."""
    for index in range(2):
        picture(root / f"{split}/{index}.jpg", seed=index)
    if annotations is None:
        annotations = [
            person(1, 10, [12, 5, 2, 10, 4, 2, 14, 4, 1]),
            person(2, 11, [11, 6, 2, 9, 5, 2, 0, 0, 0]),
            person(3, 11, [13, 7, 2, 11, 6, 2, 15, 6, 2], bbox=[6, 3, 12, 14]),
        ]
    document = {
        "images": [{"id": 10 + index, "file_name": f"{index}.jpg", "height": 20, "width": 30} for index in range(2)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": JOINTS, "skeleton": [[1, 2]]}],
    }
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(document))
    return root
