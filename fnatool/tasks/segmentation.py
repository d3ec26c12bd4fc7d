"""Segmentation: cross entropy of every pixel; the mean over the classes of intersection over union."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from fnatool.data.placement import Placement, Size
from fnatool.data.split import IGNORE, Item, Masked, Outlined, Split
from fnatool.tasks import drawing
from fnatool.tasks.description import Description, Input
from fnatool.tasks.task import ADAMW, Augment, Output, Sample, SampleOptions, Task

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from fnatool.data.fashion.writing import SceneKind
    from fnatool.tasks.parts import Batch, Outputs, Parts
    from passes.deploy.postprocessing import End, Ending
    from passes.deploy.preprocessing import Framing
    from passes.deploy.steps import Steps
    from passes.graph.tensors import Shape

Ints = npt.NDArray[np.int64]

UNDECIDED = 254  # in place of a class: no class has this number
OPACITY = 0.5  # of the classes on a picture


class Segmentation(Description):
    """mask_logits [N, K, h, w], to be resized to the input, bilinearly, with pixels as squares (align_corners
    false).
    """

    task: Literal["segmentation"] = "segmentation"


def describe(seen: Input, *, classes: tuple[str, ...], joints: object = None, boxes: object = None) -> Segmentation:
    """The description of a model with such a head."""
    return Segmentation(classes=classes, input=seen)


def mask_logits(description: Segmentation) -> Output:
    """A number a class and pixel."""
    return Output((len(description.classes), None, None), softmax=1, logits=True)


# --- samples ---


def sample(split: Split, item: Masked | Outlined, description: Segmentation, how: SampleOptions) -> Sample:
    """`image` uint8 [3, *size] and `mask` uint8 [*size]."""
    import torch
    from torchvision import tv_tensors

    from fnatool.tasks import augment, samples
    from fnatool.tasks.pixels import fill

    mask = tv_tensors.Mask(torch.from_numpy(truth(split, item)))
    whole: Sample = {"image": samples.tensor(split, item), "mask": mask}
    return augment.scaled(whole, how, fill(description.input))


def batch(samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """`images` uint8 [N, 3, H, W] and `masks` uint8 [N, H, W]."""
    from fnatool.tasks.samples import stacked

    return stacked(samples, {"mask": "masks"})


def show(
    image: torch.Tensor, description: Segmentation, size: Size, item: Item | None = None
) -> tuple[torch.Tensor, Placement]:
    """The whole image."""
    from fnatool.tasks import augment
    from fnatool.tasks.pixels import fill

    return augment.fitted(image, size, fill(description.input))


def truth(split: Split, item: Masked | Outlined) -> npt.NDArray[np.uint8]:
    """The classes of the pixels of the whole image, [h, w]."""
    from fnatool.tasks.samples import readable

    return readable(lambda path: item.pixels(split), split.path(item.files[-1]))


# --- learning, answers and figures ---


def loss(outputs: Outputs, batch: Batch, description: Segmentation) -> Parts:
    """Cross entropy of mask_logits [N, K, h, w], resized bilinearly to the masks [N, H, W]; pixels of IGNORE count for
    nothing.
    """
    import torch
    import torch.nn.functional as F

    from fnatool.tasks.parts import Part

    masks = batch["masks"].long()
    logits = F.interpolate(outputs["mask_logits"].float(), masks.shape[-2:], mode="bilinear", align_corners=False)
    if torch.are_deterministic_algorithms_enabled():  # on cuda there is no such kernel for maps
        logits, masks = logits.movedim(1, -1).flatten(0, -2), masks.flatten()
    value = F.cross_entropy(logits, masks, ignore_index=IGNORE, reduction="sum")
    return {"cross_entropy": Part(value, (masks != IGNORE).sum())}


@dataclass(frozen=True)
class Segmented:
    """The class of every pixel of the image, [h, w]; UNDECIDED where several are the most probable."""

    classes: npt.NDArray[np.uint8]


def decode(placement: Placement, outputs: Sequence[torch.Tensor], description: Segmentation, size: Size) -> Segmented:
    """Logits [K, h, w] resized to the input, cut to where the image is, resized to the image: then the best class of
    every pixel.
    """
    import torch
    import torch.nn.functional as F

    (logits,) = outputs
    on_input = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)
    top, left = (round(shift) for shift in placement.shift)
    height, width = (round(extent * scale) for extent, scale in zip(placement.image, placement.scale, strict=True))
    shown = on_input[..., top : top + height, left : left + width]
    whole = (
        shown
        if (height, width) == placement.image
        else F.interpolate(shown, placement.image, mode="bilinear", align_corners=False)
    )
    best, classes = whole[0].max(0)
    decided = (whole[0] == best).sum(0) == 1
    return Segmented(torch.where(decided, classes, UNDECIDED).to(torch.uint8).cpu().numpy())


@dataclass(frozen=True)
class Confusion:
    """How often which (true class · (K + 1) + predicted class) occurs in an image, K standing for none; the pairs that
    do.
    """

    pairs: Ints
    counts: Ints


def compare(prediction: Segmented, truth: npt.NDArray[np.uint8], description: Segmentation) -> Confusion:
    """The confusion of one image, over its pixels that are not IGNORE. A pixel of several classes equally is of
    none.
    """
    counted, classes = truth != IGNORE, len(description.classes)
    joint = truth[counted].astype(np.int64) * (classes + 1) + np.minimum(prediction.classes[counted], classes)
    counts = np.bincount(joint)
    pairs = np.flatnonzero(counts)
    return Confusion(pairs, counts[pairs])


def score(evidence: Sequence[Confusion], description: Segmentation) -> dict[str, float]:
    """mIoU over the classes that occur, in truth or prediction; the share of right pixels; IoU/CLASS for each class
    that occurs.
    """
    classes = len(description.classes)
    flat = np.zeros(classes * (classes + 1), np.int64)
    for confusion in evidence:
        flat[confusion.pairs] += confusion.counts
    matrix = flat.reshape(classes, classes + 1)  # [true, predicted]
    right = matrix.diagonal()
    union = matrix[:, :-1].sum(0) + matrix.sum(1) - right
    occur = union > 0
    each = {f"IoU/{description.classes[index]}": float(right[index] / union[index]) for index in np.flatnonzero(occur)}
    return {
        "mIoU": float(np.mean(list(each.values()))) if each else 0.0,
        "pixels": float(right.sum() / max(matrix.sum(), 1)),
        **each,
    }


def right(truth: npt.NDArray[np.uint8], description: Segmentation) -> Segmented:
    """The true classes; pixels of IGNORE stay clear."""
    return Segmented(truth)


# --- deployed ---


def apart(one: Segmented, other: Segmented) -> float:
    """The share of the pixels whose class is another."""
    return float((one.classes != other.classes).mean()) if one.classes.shape == other.classes.shape else 1.0


def frame(description: Segmentation) -> Framing:
    """All of the image."""
    from fnatool.tasks.pixels import fill
    from passes.deploy.preprocessing import Framing

    return Framing("fitted", fill=fill(description.input))


def finish(
    steps: Steps, outputs: Mapping[str, str], description: Segmentation, shapes: Mapping[str, Shape], ending: Ending
) -> list[End]:  # fmt: skip
    """The class of every pixel of the image."""
    from passes.deploy.postprocessing import segmented

    return segmented(steps, outputs["mask_logits"], UNDECIDED, ending)


def answered(outputs: Mapping[str, npt.NDArray[Any]], description: Segmentation, image: Size) -> Segmented:
    """The mask that the graph has made."""
    return Segmented(outputs["mask"][0].astype(np.uint8))


def draw(image: Image.Image, prediction: Segmented, description: Segmentation) -> Image.Image:
    """The image under the colours of its classes, and below it their names, the largest first.

    The first class, a background mostly, and UNDECIDED stay clear.
    """
    shares = _shares(prediction, description)
    there = [label for label in shares if label > 0]
    made, _ = drawing.canvas(image)
    drawing.cover(made, prediction.classes, there, OPACITY)
    return drawing.legend(
        made, [(drawing.colour(label), f"{description.classes[label]} {shares[label]:.0%}") for label in there]
    )


def mark(image: Image.Image, truth: npt.NDArray[np.uint8], description: Segmentation) -> Image.Image:
    """The image under the colours of its classes; pixels of IGNORE stay clear, as those of the first class do."""
    return draw(image, right(truth, description), description)


def say(prediction: Segmented, description: Segmentation) -> dict[str, object]:
    """The share of the pixels of each class that occurs, the largest first."""
    return {"shares": {description.classes[label]: share for label, share in _shares(prediction, description).items()}}


def _shares(prediction: Segmented, description: Segmentation) -> dict[int, float]:
    counts = np.bincount(prediction.classes.ravel(), minlength=len(description.classes))[
        : len(description.classes)
    ].tolist()
    rows = sorted(((count, label) for label, count in enumerate(counts) if count), reverse=True)
    return {label: count / prediction.classes.size for count, label in rows}


def scenes() -> SceneKind:
    """Up to four garments a scene; the same scenes as for detection."""
    from fnatool.data.fashion import scenes, writing

    return writing.SceneKind(1, scenes.SceneStyle((1, 4), (0.35, 0.75)), writing.write_masks)


TASK = Task(
    name="segmentation",
    description=Segmentation,
    describe=describe,
    outputs={"mask_logits": mask_logits},
    head="deeplabv3",
    sample=sample,
    batch=batch,
    show=show,
    truth=truth,
    loss=loss,
    decode=decode,
    compare=compare,
    score=score,
    metrics={
        "mIoU": "the mean over the classes that occur of intersection over union",
        "pixels": "the share of pixels whose class is right",
    },
    each="IoU",
    right=right,
    frame=frame,
    finish=finish,
    answered=answered,
    apart=apart,
    draw=draw,
    mark=mark,
    say=say,
    augment=Augment(scale=(0.5, 2.0)),
    scenes=scenes,
    tuning={"optimiser": ADAMW, "run": {"batch": 16}},
    searching={"search": {"alpha_from": 0.375}, "cost": {"weight": 9e-3, "base": 45.0, "scale": 10.0}},
    published={"weights": {"name": "sgd", "lr": 0.02, "final_lr": 0.05, "weight_decay": 5e-4}},
)
