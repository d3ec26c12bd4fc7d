"""The formats of labelled data: the one table that says what is read, by the names that configs and commands know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from fnatool.data import coco, darknet, imagefolder, masks, voc, yolo
from fnatool.data.split import DataLayout, FileReader


@dataclass(frozen=True)
class Format:
    """A way in which labels are written: what it is called, and by task what is looked for and read."""

    said: str
    tasks: Mapping[str, DataLayout]


def _yolo(task: str, kind: str) -> DataLayout:
    file = FileReader((".yaml", ".yml", darknet.SUFFIX), partial(yolo.read_file, kind=kind, task=task))
    return DataLayout(yolo.LOOKED_FOR[kind], partial(yolo.find, kind=kind, task=task), file=file)


FORMATS: Mapping[str, Format] = {
    "folders": Format(
        imagefolder.LAYOUT, {"classification": DataLayout(imagefolder.LOOKED_FOR, imagefolder.find, general=2)}
    ),
    "coco": Format(
        coco.LAYOUT,
        {
            "detection": DataLayout(
                coco.BOXES_LOOKED_FOR, coco.find, sure=coco.is_sure, file=FileReader((".json", ""), coco.read_file)
            ),
            "pose": DataLayout(
                coco.JOINTS_LOOKED_FOR,
                partial(coco.find, keypoints=True),
                sure=partial(coco.is_sure, keypoints=True),
                file=FileReader((".json", ""), partial(coco.read_file, keypoints=True)),
            ),
        },
    ),
    "voc": Format(
        masks.PASCAL,
        {
            "segmentation": DataLayout(masks.PASCAL_LOOKED_FOR, masks.find_pascal),
            "detection": DataLayout(voc.LOOKED_FOR, voc.find),
        },
    ),
    "cityscapes": Format(masks.STREETS, {"segmentation": DataLayout(masks.STREETS_LOOKED_FOR, masks.find_streets)}),
    "masks": Format(
        masks.FOLDERS, {"segmentation": DataLayout(masks.FOLDERS_LOOKED_FOR, masks.find_folders, general=1)}
    ),
    "yolo": Format(
        yolo.LAYOUT,
        {
            "detection": _yolo("detection", yolo.BOXES),
            "pose": _yolo("pose", yolo.JOINTS),
            "segmentation": _yolo("segmentation", yolo.OUTLINES),
        },
    ),
}


def layouts_of(task: str) -> dict[str, DataLayout]:
    """The formats of a task's data, by name."""
    return {name: form.tasks[task] for name, form in FORMATS.items() if task in form.tasks}
