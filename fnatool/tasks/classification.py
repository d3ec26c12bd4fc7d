"""Classification: cross entropy with smoothed labels; the share of images whose class comes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, FiniteFloat

from fnatool.data.placement import Placement, Size
from fnatool.data.split import Item, Labelled, Split
from fnatool.tasks import drawing
from fnatool.tasks.description import Description, Input
from fnatool.tasks.task import Augment, Output, Sample, SampleOptions, Task

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from fnatool.data.fashion.writing import SceneKind
    from fnatool.tasks.parts import Batch, Outputs, Parts
    from passes.deploy.postprocessing import End, Ending
    from passes.deploy.preprocessing import Framing
    from passes.deploy.steps import Steps
    from passes.graph.tensors import Shape


SEEN = 0.05  # the probability from which a class is told beside the most probable one


class Classification(Description):
    """logits [N, K]; `crop`: the share of the resized image's sides that the model is shown, cut from the middle."""

    task: Literal["classification"] = "classification"
    crop: Annotated[FiniteFloat, Field(gt=0, le=1)] = 0.875


def describe(seen: Input, *, classes: tuple[str, ...], joints: object = None, boxes: object = None) -> Classification:
    """The description of a model with such a head."""
    return Classification(classes=classes, input=seen)


def logits(description: Classification) -> Output:
    """A number a class."""
    return Output((len(description.classes),), softmax=1, logits=True)


# --- samples ---


def sample(split: Split, item: Labelled, description: Classification, how: SampleOptions) -> Sample:
    """`image` uint8 [3, *size] and `label` []."""
    import torch

    from fnatool.tasks import augment, samples

    return {
        "image": augment.cut_out(samples.picture(split, item), how.size, how.augment),
        "label": torch.tensor(item.label),
    }


def batch(samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """`images` uint8 [N, 3, H, W] and `labels` [N]."""
    from fnatool.tasks.samples import stacked

    return stacked(samples, {"label": "labels"})


def show(
    image: torch.Tensor, description: Classification, size: Size, item: Item | None = None
) -> tuple[torch.Tensor, Placement]:
    """The middle of the image."""
    from fnatool.tasks import augment
    from fnatool.tasks.pixels import fill

    return augment.middle(image, size, description.crop, fill(description.input))


def truth(split: Split, item: Labelled) -> int:
    """The index of the class."""
    return item.label


# --- learning, answers and figures ---


def loss(outputs: Outputs, batch: Batch, description: Classification, *, smoothing: float = 0.1) -> Parts:
    """Cross entropy of logits [N, K] and labels [N], with a share `smoothing` of each label spread over all classes."""
    import torch
    import torch.nn.functional as F

    from fnatool.tasks.parts import Part

    logits, labels = outputs["logits"].float(), batch["labels"]
    value = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
    return {"cross_entropy": Part(value, torch.full((), len(labels), device=logits.device))}


@dataclass(frozen=True)
class Classified:
    """The most probable class, its probability, and those of all, [K]; and the logits, which differ where probabilities
    round to 0.
    """

    label: int
    score: float
    probabilities: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]


def decode(_: Placement, outputs: Sequence[torch.Tensor], description: Classification, size: Size) -> Classified:
    """The class of one image's logits [K]."""
    (logits,) = outputs
    probabilities = logits.softmax(0)
    label = int(probabilities.argmax())
    return Classified(label, float(probabilities[label]), probabilities.cpu().numpy(), logits.cpu().numpy())


def compare(prediction: Classified, truth: int, description: Classification) -> tuple[int, int]:
    """The class, and how many others seem at least as probable: who cannot tell has not found it."""
    return truth, int((prediction.logits >= prediction.logits[truth]).sum()) - 1


def score(evidence: Sequence[tuple[int, int]], description: Classification) -> dict[str, float]:
    """top1, and top5 where there are more than five classes: shares of the images; top1/CLASS: of those of a class that
    has some.
    """
    best = {"top1": 1} | ({"top5": 5} if len(description.classes) > 5 else {})
    whole = {name: sum(rank < most for _, rank in evidence) / len(evidence) for name, most in best.items()}
    found: dict[int, list[bool]] = {}
    for truth, rank in sorted(evidence):
        found.setdefault(truth, []).append(rank < 1)
    return {**whole, **{f"top1/{description.classes[truth]}": sum(rows) / len(rows) for truth, rows in found.items()}}


def right(truth: int, description: Classification) -> Classified:
    """The true class, without doubt."""
    sure = np.zeros(len(description.classes), np.float32)
    sure[truth] = 1
    return Classified(truth, 1.0, sure, sure)


# --- deployed ---


def apart(one: Classified, other: Classified) -> float:
    """The largest difference of a probability."""
    return float(np.abs(one.probabilities - other.probabilities).max())


def frame(description: Classification) -> Framing:
    """The middle of the image."""
    from fnatool.tasks.pixels import fill
    from passes.deploy.preprocessing import Framing

    return Framing("middle", description.crop, fill(description.input))


def finish(
    steps: Steps, outputs: Mapping[str, str], description: Classification, shapes: Mapping[str, Shape], ending: Ending
) -> list[End]:  # fmt: skip
    """Probabilities, and the most probable class."""
    from passes.deploy.postprocessing import classified

    return classified(steps, outputs["logits"], len(description.classes), ending)


def answered(outputs: Mapping[str, npt.NDArray[Any]], description: Classification, image: Size) -> Classified:
    """The class that the graph has found."""
    probabilities = outputs["probabilities"][0]
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities)
    return Classified(int(outputs["label"][0]), float(outputs["score"][0]), probabilities, logits)


def draw(image: Image.Image, prediction: Classified, description: Classification) -> Image.Image:
    """The image, and below it the class and its probability, with those that come next as far as they are SEEN or
    more.
    """
    made, _ = drawing.canvas(image)
    best = [
        label for label in _best(prediction) if label == prediction.label or prediction.probabilities[label] >= SEEN
    ]
    entries = [
        (drawing.colour(label), f"{description.classes[label]} {prediction.probabilities[label]:.0%}")
        for label in best[:3]
    ]
    return drawing.legend(made, entries)


def mark(image: Image.Image, truth: int, description: Classification) -> Image.Image:
    """The image, and below it its class."""
    made, _ = drawing.canvas(image)
    return drawing.legend(made, [(drawing.colour(truth), description.classes[truth])])


def say(prediction: Classified, description: Classification) -> dict[str, object]:
    """The class and its probability, and the five most probable ones."""
    shares = {description.classes[label]: float(prediction.probabilities[label]) for label in _best(prediction)[:5]}
    return {"class": description.classes[prediction.label], "probability": prediction.score, "most_probable": shares}


def _best(prediction: Classified) -> list[int]:
    """The classes, the most probable first."""
    order: list[int] = np.argsort(-prediction.probabilities, kind="stable").tolist()
    return order


def scenes() -> SceneKind:
    """One garment a scene, large; class after class."""
    from fnatool.data.fashion import scenes, writing

    return writing.SceneKind(0, scenes.SceneStyle((1, 1), (0.55, 0.95)), writing.write_classes, in_turn=True)


TASK = Task(
    name="classification",
    description=Classification,
    describe=describe,
    outputs={"logits": logits},
    head="linear",
    sample=sample,
    batch=batch,
    show=show,
    truth=truth,
    loss=loss,
    decode=decode,
    compare=compare,
    score=score,
    metrics={
        "top1": "the share of images whose class is the most probable one",
        "top5": "the share of images whose class is among the five most probable ones",
    },
    each="top1",
    right=right,
    frame=frame,
    finish=finish,
    answered=answered,
    apart=apart,
    draw=draw,
    mark=mark,
    say=say,
    augment=Augment(scale=(0.25, 1.0)),
    scenes=scenes,
)
