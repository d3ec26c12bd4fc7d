"""`python -m benchmarks.data_path`: images a second on one core, our training samples beside a plain torchvision
pipeline.

Photographs of 640×480 as JPEG, made of scikit-image's; batches of 224×224 as floats, normalised, in one process. The
plain pipelines are those of torchvision's references (transforms of the second kind) with the same changes of size,
place, direction and colours: for classification RandomResizedCrop, for segmentation RandomResize and RandomCrop, for
detection ScaleJitter and RandomCrop, for pose the part around the box and RandomAffine, with keypoints. Classification
is measured on Pillow's images and on tensors, and the faster one counts.

With --runs steps of `finetune` beside those of the references' own loop too, same network, same photographs. Both take
turns, a few batches each; time is the processor's, the ratio the median of the rounds. Exit code 1 where a ratio is
below BAR.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import models, tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

import fnatool
from fnatool.data.split import Item
from fnatool.export.export import ExportOptions
from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.model.headed import HeadOptions
from fnatool.tasks.anchors import Level
from fnatool.tasks.classification import Classification
from fnatool.tasks.description import Description, Input
from fnatool.tasks.detection import Detection
from fnatool.tasks.pixels import to_input
from fnatool.tasks.pose import Pose
from fnatool.tasks.reading import Holdout, read
from fnatool.tasks.segmentation import Segmentation
from fnatool.tasks.table import TASKS
from fnatool.training import loop, watching
from fnatool.training.config import parse_config
from fnatool.training.finetune import prepare_training
from fnatool.training.order import TrainOrder
from fnatool.training.processes import World
from fnatool.training.samples import Training
from fnatool.training.stepping import dealt

RESULTS = Path(__file__).parent / "results"
BAR = 1.0
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
EXTENT = (480, 640)  # of a photograph: height, width
SIZE = (224, 224)
MEAN, SCALE = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
FILL = (124, 116, 104)
INPUT = Input(mean=MEAN, scale=SCALE)
CLASSES = ("one", "other")
JOINTS = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
PAIRS = ((1, 2), (3, 4))

Batches = Iterator[torch.Tensor]


# --- the data -----------------------------------------------------------------------------------


def photograph(number: int) -> Image.Image:
    """A part of one of scikit-image's photographs at EXTENT, another one for every number."""
    rng = np.random.default_rng(number)
    whole = Image.fromarray(getattr(skimage.data, PHOTOS[number % len(PHOTOS)])()[..., :3])
    share = rng.uniform(0.6, 1.0)
    height = share * min(whole.height, whole.width * EXTENT[0] / EXTENT[1])
    width = height * EXTENT[1] / EXTENT[0]
    left, top = rng.uniform(0, whole.width - width), rng.uniform(0, whole.height - height)
    return whole.resize(EXTENT[::-1], Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))


def boxes_of(number: int) -> list[list[float]]:
    """Three boxes (left, top, width, height) in a photograph."""
    rng = np.random.default_rng([number, 1])
    width, height = rng.uniform(120, 320, 3), rng.uniform(120, 280, 3)
    left, top = rng.uniform(0, EXTENT[1] - width), rng.uniform(0, EXTENT[0] - height)
    rows: list[list[float]] = np.stack([left, top, width, height], 1).round(1).tolist()
    return rows


def write_data(root: Path, count: int) -> dict[str, Path]:
    """The same photographs as a data set of each task."""
    roots = {task: root / task for task in TASKS}
    places = {
        "classification": [f"train/{CLASSES[k % 2]}/{k}.jpg" for k in range(count)],
        "segmentation": [f"train/images/{k}.jpg" for k in range(count)],
        "detection": [f"train/{k}.jpg" for k in range(count)],
        "pose": [f"train/{k}.jpg" for k in range(count)],
    }
    for task, names in places.items():
        for number, name in enumerate(names):
            path = roots[task] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            photograph(number).save(path, quality=90)
    (roots["segmentation"] / "train/masks").mkdir()
    (roots["segmentation"] / "classes.txt").write_text("\n".join(["ground", *CLASSES]) + "\n")
    for number in range(count):
        mask = np.zeros(EXTENT, np.uint8)
        for label, (left, top, width, height) in enumerate(np.array(boxes_of(number)).astype(int).tolist()):
            mask[top : top + height, left : left + width] = 1 + label % 2
        Image.fromarray(mask).save(roots["segmentation"] / f"train/masks/{number}.png")
    for task in ("detection", "pose"):
        _write_coco(roots[task], task, count)
    return roots


def _write_coco(root: Path, task: str, count: int) -> None:
    rows: list[dict[str, object]] = []
    for number in range(count):
        for box in boxes_of(number)[: 1 if task == "pose" else 3]:
            left, top, width, height = box
            places = (
                np.random.default_rng([number, 2])
                .uniform((left, top), (left + width, top + height), (len(JOINTS), 2))
                .round(1)
            )
            points = [value for x, y in places.tolist() for value in (x, y, 2)]
            own = {"keypoints": points, "num_keypoints": len(JOINTS)} if task == "pose" else {}
            about = {
                "id": len(rows) + 1,
                "image_id": number + 1,
                "category_id": 1 + len(rows) % (1 if task == "pose" else 2),
            }
            rows.append({**about, "bbox": box, "area": width * height, "iscrowd": 0, **own})
    images = [{"id": k + 1, "file_name": f"{k}.jpg", "height": EXTENT[0], "width": EXTENT[1]} for k in range(count)]
    kinds = [{"id": 1, "name": "one", "keypoints": list(JOINTS), "skeleton": []}] if task == "pose" else []
    kinds = kinds or [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]  # type: ignore[misc]
    (root / "annotations").mkdir()
    name = f"{'person_keypoints' if task == 'pose' else 'instances'}_train.json"
    (root / "annotations" / name).write_text(json.dumps({"images": images, "annotations": rows, "categories": kinds}))


# --- ours ---------------------------------------------------------------------------------------

DESCRIPTIONS: Mapping[str, Description] = {
    "classification": Classification(classes=CLASSES, input=INPUT),
    "segmentation": Segmentation(classes=("ground", *CLASSES), input=INPUT),
    "detection": Detection(
        classes=CLASSES, input=INPUT, levels=(Level(stride=(16, 16), sizes=(32.0,), ratios=(1.0,)),)
    ),
    "pose": Pose(classes=("one",), joints=JOINTS, sigmas=(0.05,) * len(JOINTS), flip_pairs=PAIRS, input=INPUT),
}


def training(task: str, root: Path) -> Training:
    """The training samples of a data set, changed as the task's defaults say."""
    return Training(read(root, task=task, holdout=Holdout(0)), DESCRIPTIONS[task], SIZE, TASKS[task].augment, 0)


def ours(samples: Training, batch: int) -> Batches:
    """Batches without end."""
    order = TrainOrder(len(samples), batch, 10**6, 0)
    for found in dealt(samples, order, torch.device("cpu"), workers=0):
        yield to_input(found["images"], INPUT)


# --- plain torchvision --------------------------------------------------------------------------


class Plain(Dataset[Any]):
    """Items, each read and changed."""

    def __init__(self, samples: Training, make: Callable[[Training, Any], Any]) -> None:
        self.samples, self.make = samples, make

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.make(self.samples, self.samples.split.items[index])


def plain(samples: Training, batch: int, make: Callable[[Training, Any], Any]) -> Batches:
    """Batches without end of what `make` makes of an item; labels are put together as the references do."""
    dataset = Plain(samples, make)
    while True:
        for rows in DataLoader(dataset, batch, shuffle=True, drop_last=True, collate_fn=_together):
            yield rows[0]


def _together(rows: Sequence[Any]) -> Any:
    return torch.stack([row[0] for row in rows]), [row[1:] for row in rows]


def _picture(samples: Training, item: Item) -> Image.Image:
    return Image.open(samples.split.path(item.image)).convert("RGB")


def _last(how: Any) -> list[Any]:
    """What all pipelines end with."""
    scaled = [value / 255 for value in MEAN], [value / 255 for value in SCALE]
    return [
        v2.ColorJitter(how.colour, how.colour, how.colour),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(*scaled),
    ]


def _changes(task: str) -> Any:
    """The transforms of torchvision's references with the ranges of ours."""
    how = TASKS[task].augment
    low, high = how.scale
    fit = min(SIZE[0] / EXTENT[0], SIZE[1] / EXTENT[1])
    fill: Any = {tv_tensors.Image: FILL, tv_tensors.Mask: 255, "others": 0}
    crop = [v2.RandomCrop(SIZE, pad_if_needed=True, fill=fill), v2.RandomHorizontalFlip(how.flip)]
    if task == "classification":
        return v2.Compose([v2.RandomResizedCrop(SIZE, scale=how.scale), v2.RandomHorizontalFlip(how.flip), *_last(how)])
    if task == "segmentation":
        short = fit * EXTENT[0]
        return v2.Compose([v2.RandomResize(round(low * short), round(high * short)), *crop, *_last(how)])
    if task == "detection":
        return v2.Compose([v2.ScaleJitter(SIZE, scale_range=how.scale), *crop, *_last(how), v2.SanitizeBoundingBoxes()])
    turned = v2.RandomAffine(how.rotate, scale=how.scale, interpolation=v2.InterpolationMode.BILINEAR, fill=fill)
    return v2.Compose([turned, v2.RandomHorizontalFlip(how.flip), *_last(how)])


def _classification(changes: Any, samples: Training, item: Any, *, tensors: bool) -> Any:
    image = _picture(samples, item)
    if tensors:
        return changes(F.to_image(image)), item.label
    *first, kind, normalise = changes.transforms
    changed = F.to_image(v2.Compose(first)(image))
    return normalise(kind(changed)), item.label


def _segmentation(changes: Any, samples: Training, item: Any) -> Any:
    mask = np.array(Image.open(samples.split.path(item.mask)))
    return changes(F.to_image(_picture(samples, item)), tv_tensors.Mask(torch.from_numpy(mask)))


def _detection(changes: Any, samples: Training, item: Any) -> Any:
    boxes = tv_tensors.BoundingBoxes(torch.from_numpy(item.boxes), format="XYXY", canvas_size=item.size)  # type: ignore[call-overload]
    return changes(F.to_image(_picture(samples, item)), {"boxes": boxes, "labels": torch.from_numpy(item.labels)})


def _pose(changes: Any, samples: Training, item: Any) -> Any:
    left, top, right, bottom = item.box.tolist()
    side = round(1.25 * max(right - left, bottom - top))
    corner = round((top + bottom - side) / 2), round((left + right - side) / 2)
    points = tv_tensors.KeyPoints(torch.from_numpy(item.points), canvas_size=item.size)  # type: ignore[call-overload]
    around = [
        F.resized_crop(value, *corner, side, side, list(SIZE))
        for value in (F.to_image(_picture(samples, item)), points)
    ]
    return changes(*around)


def plain_kinds(task: str) -> dict[str, Callable[[Training, Any], Any]]:
    """Plain pipelines by name."""
    changes = _changes(task)
    if task == "classification":
        return {
            "Pillow": partial(_classification, changes, tensors=False),
            "tensors": partial(_classification, changes, tensors=True),
        }
    make = {"segmentation": _segmentation, "detection": _detection, "pose": _pose}[task]
    return {"tensors": partial(make, changes)}


# --- measured -----------------------------------------------------------------------------------


def measured(kinds: Mapping[str, Batches], *, batch: int, rounds: int, each: int) -> dict[str, list[float]]:
    """Images a second of the processor by kind and round, after one round that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(rounds + 1):
        for name in list(kinds)[:: 1 if number % 2 else -1]:
            start = time.process_time()
            for _ in range(each):
                next(kinds[name])
            if number:
                found[name].append(batch * each / (time.process_time() - start))
    return found


def row_of(task: str, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Images a second of one task, and the ratio to the faster plain pipeline."""
    samples = training(task, root)
    kinds = {"ours": ours(samples, options.batch)}
    kinds |= {name: plain(samples, options.batch, make) for name, make in plain_kinds(task).items()}
    found = measured(kinds, batch=options.batch, rounds=options.rounds, each=options.each)
    speeds = {name: statistics.median(values) for name, values in found.items()}
    best = max((name for name in speeds if name != "ours"), key=speeds.__getitem__)
    ratio = statistics.median(mine / theirs for mine, theirs in zip(found["ours"], found[best], strict=True))
    return {"images_per_second": speeds, "plain": best, "ratio": ratio}


# --- a whole run --------------------------------------------------------------------------------


def networks() -> dict[str, torch.nn.Module]:
    """One of two convolutions, so that the data shows, and MobileNetV2."""

    def layer(before: int, after: int) -> list[torch.nn.Module]:
        return [
            torch.nn.Conv2d(before, after, 3, stride=4, padding=1, bias=False),
            torch.nn.BatchNorm2d(after),
            torch.nn.ReLU(),
        ]

    pooled = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, len(CLASSES))]
    small = torch.nn.Sequential(*layer(3, 16), *layer(16, 32), *pooled)
    return {"two convolutions": small, "MobileNetV2": models.mobilenet_v2(num_classes=len(CLASSES))}


def run_row(network: torch.nn.Module, root: Path, place: Path, options: argparse.Namespace) -> dict[str, float]:
    """Images a second of `finetune` and of a plain loop as torchvision's references write it, on the same photographs,
    turn by turn.
    """
    (place / "run").mkdir(parents=True)
    fnatool.export(network, place / "trunk.onnx", options=ExportOptions(inputs=(1, 3, *SIZE)))
    head = HeadOptions(task="classification", classes=str(len(CLASSES)), verify=False)
    fnatool.head(place / "trunk.onnx", place / "start.onnx", options=head)
    rounds = options.runs + 2
    run = {"batch": options.batch, "steps": rounds, "device": "cpu", "evaluate": 10**6}
    config = parse_config({"data": {"path": str(root), "workers": 0}, "run": run})
    job = prepare_training(files.read(place / "start.onnx"), config, place / "run", World(0, 1, torch.device("cpu")))
    theirs = _reference(network, job.objective.train, options.batch)  # type: ignore[attr-defined]
    found: dict[str, list[float]] = {"finetune": [], "plain": []}
    start = time.process_time()

    def stepped(step: int, values: Mapping[str, float]) -> None:
        nonlocal start
        found["finetune"].append(time.process_time() - start)
        start = time.process_time()
        next(theirs)
        found["plain"].append(time.process_time() - start)
        start = time.process_time()
        if step == rounds:
            raise _Enough

    with suppress(_Enough):
        loop.finetune(job, World(0, 1, torch.device("cpu")), replace(watching.silent(), stepped=stepped))
    mine, other = (values[2:] for values in found.values())
    ratio = statistics.median(b / a for a, b in zip(mine, other, strict=True))
    return {
        "finetune": options.batch / statistics.median(mine),
        "plain": options.batch / statistics.median(other),
        "ratio": ratio,
    }


class _Enough(Exception):
    """As many steps as are measured."""


def _reference(network: torch.nn.Module, samples: Training, batch: int) -> Iterator[float]:
    """Steps of the references' loop without end, the faster of the plain pipelines loading its images: losses."""
    made = partial(_classification, _changes("classification"), tensors=True)
    network.train()
    optimiser = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    measure = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    while True:
        for images, labels in DataLoader(Plain(samples, made), batch, shuffle=True, drop_last=True):
            loss = measure(network(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            yield loss.item()


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a line a task, write the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_path", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS), metavar="TASK")
    parser.add_argument("--images", type=int, default=64, help="photographs")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--each", type=int, default=2, help="batches of a kind in a round")
    parser.add_argument("--runs", type=int, default=0, help="steps of `finetune`, and of a plain loop beside it")
    parser.add_argument("--output", type=Path, default=RESULTS / "data_path.json", metavar="FILE")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        roots = write_data(Path(folder), options.images)
        rows = {task: row_of(task, roots[task], options) for task in options.tasks}
        runs = {
            name: run_row(network, roots["classification"], Path(folder) / str(number), options)
            for number, (name, network) in enumerate(networks().items())
            if options.runs
        }
    for task, row in rows.items():
        speeds = ", ".join(f"{name} {value:.0f}" for name, value in row["images_per_second"].items())
        print(f"{task:15} {speeds} images/s: {row['ratio']:.2f}× (bar: at least {BAR})")
    for name, run in runs.items():
        print(
            f"{name:18} finetune {run['finetune']:.1f}, plain loop {run['plain']:.1f} images/s: "
            f"{run['ratio']:.2f}× (bar: at least {BAR})"
        )
    settings = {key: getattr(options, key) for key in ("images", "batch", "rounds", "each", "runs")}
    versions = {name: metadata.version(name) for name in ("torch", "torchvision", "pillow")}
    document = {
        "device": platform.machine(),
        **versions,
        **settings,
        "size": SIZE,
        "photographs": EXTENT,
        "tasks": rows,
        "runs": runs,
    }
    write_text(options.output, json.dumps(document, indent=1) + "\n", force=True)
    return 1 if any(row["ratio"] < BAR for row in (*rows.values(), *runs.values())) else 0


if __name__ == "__main__":
    raise SystemExit(main())
