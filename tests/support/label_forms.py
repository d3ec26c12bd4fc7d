"""One data set of boxes in three forms: COCO's json, Pascal VOC's XML, YOLO's text. Its pictures have sides that are
powers of two, so that YOLO's shares of them are exact decimals."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import sets

NAMES = ("cat", "dog", "owl")
SIZE = (64, 128)  # height, width
Box = tuple[int, int, int, int, int]  # number of the class, left, top, right, bottom
Scene = Sequence[Box]


def scenes(count: int, seed: int) -> list[Scene]:
    """Boxes of whole pixels, up to three a picture; the first has none."""
    rng = np.random.default_rng(seed)
    found: list[Scene] = [()]
    while len(found) < count:
        boxes = []
        for _ in range(int(rng.integers(1, 4))):
            left, top = int(rng.integers(0, SIZE[1] - 8)), int(rng.integers(0, SIZE[0] - 8))
            right, bottom = int(rng.integers(left + 4, SIZE[1] + 1)), int(rng.integers(top + 4, SIZE[0] + 1))
            boxes.append((int(rng.integers(len(NAMES))), left, top, right, bottom))
        found.append(tuple(boxes))
    return found


def splits() -> dict[str, list[Scene]]:
    return {"train": scenes(12, 0), "val": scenes(6, 1)}


def pictures(root: Path, folder: str, many: Sequence[Scene]) -> list[Path]:
    return [sets.picture(root / folder / f"{number:03}.png", SIZE, seed=number) for number in range(len(many))]


def coco(root: Path) -> Path:
    for split, many in splits().items():
        pictures(root, split, many)
        images = [{"id": n, "file_name": f"{n:03}.png", "height": SIZE[0], "width": SIZE[1]} for n in range(len(many))]
        annotations = [
            sets.box(
                100 * n + k, n, label, [left, top, right - left, bottom - top], area=(right - left) * (bottom - top)
            )
            for n, scene in enumerate(many)
            for k, (label, left, top, right, bottom) in enumerate(scene)
        ]
        categories = [{"id": k, "name": name} for k, name in enumerate(NAMES)]
        (root / "annotations").mkdir(exist_ok=True)
        document = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(document))
    return root


def note(scene: Scene, *, name: str = "", size: tuple[int, int] | None = SIZE, more: str = "") -> str:
    """Pascal VOC's XML: pixels are counted from 1, and the last one is the object's too."""
    said = "" if size is None else f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    objects = "".join(
        f"<object><name>{NAMES[label]}</name>{more}<bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax>"
        f"<ymax>{bottom}</ymax></bndbox></object>"
        for label, left, top, right, bottom in scene
    )
    return f"<annotation><filename>{name}</filename>{said}{objects}</annotation>"


def voc(root: Path) -> Path:
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, many in splits().items():
        stems = []
        for picture, scene in zip(pictures(root / "x", split, many), many, strict=True):
            stem = f"{split}_{picture.stem}"
            (root / "JPEGImages").mkdir(exist_ok=True)
            picture.rename(root / f"JPEGImages/{stem}.png")
            (root / f"Annotations/{stem}.xml").write_text(note(scene, name=f"{stem}.png"))
            stems.append(stem)
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(stems) + "\n")
    return root


def rows(scene: Scene) -> str:
    """YOLO's rows, in as many decimals as the shares have."""
    height, width = SIZE
    return "".join(
        f"{label} {(left + right) / 2 / width!r} {(top + bottom) / 2 / height!r} {(right - left) / width!r} "
        f"{(bottom - top) / height!r}\n"
        for label, left, top, right, bottom in scene
    )


def yolo(root: Path) -> Path:
    for split, many in splits().items():
        labels = root / "labels" / split
        labels.mkdir(parents=True)
        for picture, scene in zip(pictures(root, f"images/{split}", many), many, strict=True):
            if scene:
                (labels / f"{picture.stem}.txt").write_text(rows(scene))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(NAMES))
    (root / "data.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return root


FORMS: Mapping[str, Callable[[Path], Path]] = {"coco": coco, "voc": voc, "yolo": yolo}
