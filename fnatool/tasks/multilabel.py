"""Several classes an image, or none: binary cross entropy; the mean over the classes of average precision."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, FiniteFloat

from fnatool.data.placement import Placement, Size
from fnatool.data.sources import DataLayout, Sources, split_of
from fnatool.data.split import Fault, Item, Split
from fnatool.tasks import drawing
from fnatool.tasks.description import Description, Input
from fnatool.tasks.task import Augment, Output, Sample, SampleOptions, Task
from passes.check.finding import Finding
from passes.errors import UserError

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from fnatool.data.fashion.scenes import Scene
    from fnatool.data.fashion.writing import SceneKind
    from fnatool.tasks.parts import Batch, Outputs, Parts

LAYOUT = "table of classes"
LOOKED_FOR = "DIR/train.csv and DIR/val.csv: a header 'image,CLASS,CLASS …', then a row an image, its path from DIR and 0 or 1 a class"
SURE = 0.5  # the probability from which a class is said


class Multilabel(Description):
    """logits [N, K], each of which a sigmoid makes a probability; `crop`: the share of the resized image's sides that is shown."""

    task: Literal["multilabel"] = "multilabel"
    crop: Annotated[FiniteFloat, Field(gt=0, le=1)] = 0.875


def describe(seen: Input, *, classes: tuple[str, ...], joints: object = None, boxes: object = None) -> Multilabel:
    """The description of a model with such a head."""
    return Multilabel(classes=classes, input=seen)


def logits(description: Multilabel) -> Output:
    """A number a class."""
    return Output((len(description.classes),))


# --- data ---


@dataclass(frozen=True, slots=True)
class Tagged(Item):
    """An image and which classes it shows, [K]."""

    shows: npt.NDArray[np.bool_]

    def arrays(self) -> tuple[npt.NDArray[np.generic], ...]:
        """The classes."""
        return (self.shows,)


def find(root: Path) -> Sources:
    """The tables in root that are named like splits."""
    return {name: partial(read, file, name) for file in sorted(root.glob("*.csv")) if (name := split_of(file.stem)) is not None}


def read(file: Path, name: str, classes: Sequence[str] | None) -> Split:
    """The split that a table says. Raises UserError where it is none."""
    with file.open(newline="", encoding="utf-8-sig") as lines:
        header, *rows = list(csv.reader(lines)) or [[]]
    own = tuple(word.strip() for word in header[1:])
    known = tuple(classes or own)
    if not own or set(own) != set(known):
        raise UserError(
            f"'{file}' has the classes {', '.join(own) or 'none'}; {', '.join(known) or 'at least one'} should stand in its header"
        )
    items: list[Item] = []
    faults: list[Fault] = []
    order = [own.index(word) for word in known]
    for number, row in enumerate(rows, 2):
        flags = [cell.strip() for cell in row[1:]]
        if len(flags) == len(own) and set(flags) <= {"0", "1"}:
            items.append(Tagged(row[0], np.array([flags[k] == "1" for k in order])))
        else:
            faults.append(
                Fault(Finding("error", "row", f"{file.name}:{number}", f"it is not an image and {len(own)} times 0 or 1"), samples=1)
            )
    return Split("multilabel", name, file.parent, LAYOUT, known, tuple(items), tuple(faults), len(items) + len(faults))


def sample(split: Split, item: Tagged, description: Multilabel, how: SampleOptions) -> Sample:
    """`image` uint8 [3, *size] and `shows` [K]."""
    import torch

    from fnatool.tasks import augment, samples

    return {"image": augment.cut_out(samples.picture(split, item), how.size, how.augment), "shows": torch.from_numpy(item.shows).float()}


def batch(samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """`images` uint8 [N, 3, H, W] and `shows` [N, K]."""
    from fnatool.tasks.samples import stacked

    return stacked(samples, {})


def show(image: torch.Tensor, description: Multilabel, size: Size, item: Item | None = None) -> tuple[torch.Tensor, Placement]:
    """The middle of the image."""
    from fnatool.tasks import augment
    from fnatool.tasks.pixels import fill

    return augment.middle(image, size, description.crop, fill(description.input))


def truth(split: Split, item: Tagged) -> npt.NDArray[np.bool_]:
    """Which classes the image shows."""
    return item.shows


# --- learning, answers and figures ---


def loss(outputs: Outputs, batch: Batch, description: Multilabel) -> Parts:
    """Binary cross entropy of logits [N, K], summed over the classes, a mean over the images."""
    import torch
    import torch.nn.functional as F

    from fnatool.tasks.parts import Part

    value = F.binary_cross_entropy_with_logits(outputs["logits"].float(), batch["shows"], reduction="sum")
    return {"cross_entropy": Part(value, torch.tensor(len(batch["shows"]), device=value.device))}


def decode(_: Placement, outputs: Sequence[torch.Tensor], description: Multilabel, size: Size) -> npt.NDArray[np.float32]:
    """The probabilities of the classes, [K]."""
    (logits,) = outputs
    return np.asarray(logits.sigmoid().cpu().numpy(), np.float32)


def compare(prediction: np.ndarray, truth: np.ndarray, description: Multilabel) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and what is true."""
    return prediction, truth


def score(evidence: Sequence[tuple[np.ndarray, np.ndarray]], description: Multilabel) -> dict[str, float]:
    """mAP, the mean over the classes that are shown of average precision; the share of right answers; AP/CLASS."""
    scores, shown = (np.stack(rows) for rows in zip(*evidence, strict=True))
    each = {}
    for k in np.flatnonzero(shown.any(0)):
        right = shown[np.argsort(-scores[:, k], kind="stable"), k]
        each[f"AP/{description.classes[k]}"] = float((np.cumsum(right) / np.arange(1, len(right) + 1))[right].mean())
    return {"mAP": float(np.mean(list(each.values()))) if each else 0.0, "right": float(((scores >= SURE) == shown).mean()), **each}


def draw(image: Image.Image, prediction: np.ndarray, description: Multilabel) -> Image.Image:
    """The image with the names and probabilities of the classes that it is said to show."""
    made = image.convert("RGB")
    top = 0
    for k in np.flatnonzero(prediction >= SURE).tolist():
        top = drawing.label(made, (0, top), f"{description.classes[k]} {prediction[k]:.0%}", drawing.colour(k))
    return made


def write_scenes(folder: Path, split: str, numbered: object) -> None:
    """SPLIT/00000.jpg and SPLIT.csv."""
    from collections.abc import Iterator
    from typing import cast

    from PIL import Image as images

    from fnatool.data.fashion import CLASSES

    (folder / split).mkdir(parents=True, exist_ok=True)
    lines = [",".join(("image", *CLASSES))]
    for number, scene in cast("Iterator[tuple[int, Scene]]", numbered):
        name = f"{split}/{number:05}.jpg"
        images.fromarray(scene.image).save(folder / name, quality=92, subsampling=0)
        there = {garment.label for garment in scene.garments}
        lines.append(",".join((name, *("1" if k in there else "0" for k in range(len(CLASSES))))))
    (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")


def scenes() -> SceneKind:
    """Up to three garments a scene."""
    from fnatool.data.fashion import scenes, writing

    return writing.SceneKind(3, scenes.SceneStyle((1, 3), (0.4, 0.8)), write_scenes)


TASK = Task(
    name="multilabel",
    description=Multilabel,
    describe=describe,
    outputs={"logits": logits},
    head="linear",
    layouts={LAYOUT: DataLayout(LOOKED_FOR, find)},
    sample=sample,
    batch=batch,
    show=show,
    truth=truth,
    loss=loss,
    decode=decode,
    compare=compare,
    score=score,
    metrics={
        "mAP": "the mean over the classes that are shown of average precision",
        "right": "the share of right answers, class by class",
    },
    draw=draw,
    augment=Augment(scale=(0.5, 1.0)),
    scenes=scenes,
    tuning={"run": {"batch": 16}},
)
