"""Pose: the squared distance of heatmaps to peaks at the joints; COCO's average precision by OKS, and PCK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, FiniteFloat, model_validator

from fnatool.data.placement import Placement, Size
from fnatool.data.split import Posed, Split
from fnatool.tasks import drawing
from fnatool.tasks.description import Description, Input, Name, Positive, is_placeholder
from fnatool.tasks.joints import Joints, pairs, sigmas
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

Floats = npt.NDArray[np.float32]

WIDTH = 1 / 32  # σ of a peak: share of the heatmap's longer side (2 for 64 × 48, Xiao et al. 2018) …
LEAST_WIDTH = 1.0  # … and at least, in cells
NEAR = 0.1  # PCK: share of the longer side of the object's box
SURE = 0.3  # the peak from which a joint is drawn
LIKE = 0.01  # how far joints may be apart, as a share of the extent of all of them, or peaks, to be the same


class Pose(Description):
    """heatmaps [N, J, h, w], a peak of 1 at each joint of the object in the middle of the image.

    sigmas: COCO's tolerances, in shares of the object's extent. flip_pairs: joints that change places in a mirror.
    padding: how much larger than the object's box the part of the image is that the model is shown.
    """

    named_by: ClassVar[tuple[str, ...]] = ("classes", "joints", "sigmas", "flip_pairs")

    task: Literal["pose"] = "pose"
    joints: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1000)]
    sigmas: tuple[Positive, ...]
    flip_pairs: tuple[tuple[int, int], ...] = ()
    padding: Annotated[FiniteFloat, Field(ge=1, le=10)] = 1.25

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.sigmas) != len(self.joints) or len(set(self.joints)) < len(self.joints):
            raise ValueError(f"{len(self.joints)} joints need as many different names and sigmas ({len(self.sigmas)})")
        paired = [joint for pair in self.flip_pairs for joint in pair]
        if len(set(paired)) < len(paired) or not all(0 <= joint < len(self.joints) for joint in paired):
            raise ValueError(f"flip_pairs are numbers of different joints, 0 … {len(self.joints) - 1}")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The joints."""
        return self.joints

    def counted(self) -> str:
        """'1 class, 5 joints'"""
        return f"{super().counted()}, {len(self.joints)} joints"

    def adopting(self, classes: Sequence[str], joints: Sequence[str]) -> Self:
        """The same with these names, and what follows from those of joints, where it has only placeholders for as
        many.
        """
        made = super().adopting(classes, joints)
        if is_placeholder(self.joints) and len(self.joints) == len(joints):
            return made.model_copy(
                update={"joints": tuple(joints), "sigmas": sigmas(joints), "flip_pairs": pairs(joints)}
            )
        return made


def describe(seen: Input, *, classes: tuple[str, ...], joints: Joints, boxes: object = None) -> Pose:
    """The description of a model with such a head."""
    return Pose(classes=classes, input=seen, joints=joints.names, sigmas=joints.sigmas, flip_pairs=joints.flip_pairs)


def heatmaps(description: Pose) -> Output:
    """A map a joint."""
    return Output((len(description.joints), None, None))


# --- samples ---


def sample(split: Split, item: Posed, description: Pose, how: SampleOptions) -> Sample:
    """`image` uint8 [3, *size], `points` [J, 2] in pixels of the input and `weights` [J]."""
    import torch

    from fnatool.tasks import augment, samples
    from fnatool.tasks.pixels import fill

    whole: Sample = {
        "image": samples.tensor(split, item),
        "points": augment.points_of(item.points, item.size),
        "box": torch.from_numpy(item.box),
        "seen": torch.from_numpy(item.seen),
    }
    return augment.posed(
        whole,
        how.size,
        how.augment,
        padding=description.padding,
        fill=fill(description.input),
        pairs=description.flip_pairs,
    )


def batch(samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """`images` uint8 [N, 3, H, W], `points` [N, J, 2] and `weights` [N, J]."""
    from fnatool.tasks.samples import stacked

    return stacked(samples, {})


def show(
    image: torch.Tensor, description: Pose, size: Size, item: Posed | None = None
) -> tuple[torch.Tensor, Placement]:
    """The part of the image around the item's box, or around the whole image."""
    import torch

    from fnatool.tasks import augment
    from fnatool.tasks.pixels import fill

    height, width = image.shape[-2:]
    box = np.array([0, 0, width, height], np.float32) if item is None else item.box
    none = augment.points_of(np.zeros((0, 2), np.float32), (height, width))
    shown, _, placement = augment.around(
        image, none, torch.from_numpy(box), size=size, factor=description.padding, fill=fill(description.input)
    )
    return shown, placement


def truth(split: Split, item: Posed) -> Posed:
    """The joints, as they are read."""
    return item


# --- learning, answers and figures ---


def loss(outputs: Outputs, batch: Batch, description: Pose) -> Parts:
    """The squared error of heatmaps [N, J, h, w], over that of a heatmap of zeros, for each joint of weight 1.

    points [N, J, 2] are in pixels of the input, whose size the images of the batch tell; weights [N, J]. (A mean over
    cells would be small for large maps, whose cells are nearly all zero.)
    """
    from fnatool.tasks.parts import Part

    maps = outputs["heatmaps"].float()
    height, width = maps.shape[-2:]
    size = batch["images"].shape[-2:]
    sigma = max(WIDTH * max(height, width), LEAST_WIDTH)
    wanted = peaks(batch["points"], (size[0], size[1]), (height, width), sigma)
    error = (maps - wanted).square().sum((2, 3)) / (np.pi * sigma**2)  # ∫ exp(−r² / 2σ²)² = π σ²
    weights = batch["weights"]
    return {"heatmaps": Part((error * weights).sum(), weights.sum())}


def peaks(points: torch.Tensor, size: tuple[int, int], cells: tuple[int, int], sigma: float) -> torch.Tensor:
    """exp(−r² / 2σ²) around points [N, J, 2] of an input of that size, on heatmaps [N, J, *cells]; σ in cells."""
    import torch

    from fnatool.tasks.constants import constant

    scale = constant((cells[1] / size[1], cells[0] / size[0]), points.device)
    places = points.float() * scale - 0.5  # the first cell's middle is 0
    along, down = (torch.arange(extent, device=points.device) for extent in (cells[1], cells[0]))
    across = torch.exp(-((along - places[..., :1]) ** 2) / (2 * sigma**2))
    rows = torch.exp(-((down - places[..., 1:]) ** 2) / (2 * sigma**2))
    return rows[..., :, None] * across[..., None, :]


@dataclass(frozen=True)
class Jointed:
    """The joints of an object: x, y in the image's pixels, (0, 0) at the corner of the first one, [J, 2]; their peaks
    [J], and the mean.
    """

    points: Floats
    scores: Floats
    score: float


def decode(placement: Placement, outputs: Sequence[torch.Tensor], description: Pose, size: Size) -> Jointed:
    """The peak of each of one image's heatmaps [J, h, w], moved by a quarter of a cell towards its higher neighbour on
    either axis.
    """
    import torch

    (maps,) = outputs
    _, height, width = maps.shape
    peaks, places = maps.flatten(1).max(1)
    rows, columns = places // width, places % width
    down, along = (_quarter(maps, rows, columns, axis) for axis in (1, 2))
    cells = torch.stack([columns + along, rows + down], 1)
    points = (cells + 0.5) * torch.tensor([size[1] / width, size[0] / height], device=maps.device)
    scores = peaks.cpu().numpy()
    return Jointed(placement.points_to_image(points.cpu().numpy()), scores, float(scores.mean()))


def _quarter(heatmaps: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, axis: int) -> torch.Tensor:
    import torch

    extent = heatmaps.shape[axis]
    place = rows if axis == 1 else columns
    each = torch.arange(len(heatmaps), device=heatmaps.device)

    def beside(step: int) -> torch.Tensor:
        moved = (place + step).clamp(0, extent - 1)
        return heatmaps[each, moved, columns] if axis == 1 else heatmaps[each, rows, moved]

    inside = (place > 0) & (place < extent - 1)
    return torch.sign(beside(1) - beside(-1)) * 0.25 * inside


def compare(prediction: Jointed, truth: Posed, description: Pose) -> tuple[Jointed, Posed]:
    """What was found, and where the joints are."""
    return prediction, truth


def score(evidence: Sequence[tuple[Jointed, Posed]], description: Pose) -> dict[str, float]:
    """COCO's OKS_AP (OKS .50 … .95), OKS_AP50, OKS_AP75; PCK@0.1, the share of labelled joints nearer than a tenth of
    the box's side, and PCK@0.1/JOINT."""
    from fnatool.tasks import coco

    near = np.array([_near(prediction, truth) for prediction, truth in evidence])  # [objects, J]
    labelled = np.array([truth.seen > 0 for _, truth in evidence])
    precision = coco.joint_precision(evidence, description.sigmas)
    each = {
        f"PCK@{NEAR}/{name}": float(near[labelled[:, k], k].mean())
        for k, name in enumerate(description.joints)
        if labelled[:, k].any()
    }
    return {**precision, f"PCK@{NEAR}": float(near[labelled].mean()), **each}


def _near(prediction: Jointed, truth: Posed) -> np.ndarray:
    """Whether each joint is near the true one, [J]."""
    distance = np.linalg.norm(prediction.points - truth.points, axis=1)
    side = max(truth.box[2] - truth.box[0], truth.box[3] - truth.box[1])
    return np.asarray(distance <= NEAR * side)


def right(truth: Posed, description: Pose) -> Jointed:
    """The joints that are labelled, without doubt."""
    known = (truth.seen > 0).astype(np.float32)
    return Jointed(truth.points, known, float(known.mean()))


# --- deployed ---


def apart(one: Jointed, other: Jointed) -> float:
    """The share of the joints that are elsewhere, by more than LIKE of how far the joints are apart, or whose peak is
    another.
    """
    reach = max(float(np.ptp(one.points, axis=0).max()), 1.0)
    moved = np.linalg.norm(one.points - other.points, axis=1) > max(LIKE * reach, 0.1)
    return float((moved | (np.abs(one.scores - other.scores) > LIKE)).mean())


def frame(description: Pose) -> Framing:
    """The part around the object."""
    from fnatool.tasks.pixels import fill
    from passes.deploy.preprocessing import Framing

    return Framing("around", description.padding, fill(description.input))


def finish(
    steps: Steps, outputs: Mapping[str, str], description: Pose, shapes: Mapping[str, Shape], ending: Ending
) -> list[End]:  # fmt: skip
    """The joints of the object in the box."""
    from passes.deploy.postprocessing import posed

    _, _, height, width = shapes["heatmaps"]
    return posed(steps, outputs["heatmaps"], (height, width), ending)


def answered(outputs: Mapping[str, npt.NDArray[Any]], description: Pose, image: Size) -> Jointed:
    """The joints that the graph has found."""
    points, scores = outputs["points"][0], outputs["scores"][0]
    return Jointed(points, scores, float(scores.mean()))


def draw(image: Image.Image, prediction: Jointed, description: Pose) -> Image.Image:
    """The image with a dot at each joint whose peak is SURE or more, lines between neighbours (see `limbs`), and below
    it their names.
    """
    made, zoom = drawing.canvas(image)
    sure = [bool(score >= SURE) for score in prediction.scores]
    points = [(float(x) * zoom, float(y) * zoom) for x, y in prediction.points]
    for one, other in limbs(description.joints):
        if sure[one] and sure[other]:
            drawing.limb(made, (points[one], points[other]), drawing.colour(other))
    there = [number for number in range(len(points)) if sure[number]]
    for number in there:
        drawing.dot(made, points[number], drawing.colour(number))
    return drawing.legend(
        made,
        [(drawing.colour(number), f"{description.joints[number]} {_percent(prediction, number)}") for number in there],
    )


def _percent(prediction: Jointed, number: int) -> str:
    return f"{min(float(prediction.scores[number]), 1):.0%}"


def mark(image: Image.Image, truth: Posed, description: Pose) -> Image.Image:
    """The image with the object's box, a dot at each joint that is labelled, lines between neighbours, and below it
    their names.
    """
    made, zoom = drawing.canvas(image)
    left, top, right, bottom = (truth.box * zoom).tolist()
    drawing.outlined(made, (left, top, right, bottom), drawing.WHITE)
    points = [(float(x) * zoom, float(y) * zoom) for x, y in truth.points]
    for one, other in limbs(description.joints):
        if truth.seen[one] and truth.seen[other]:
            drawing.limb(made, (points[one], points[other]), drawing.colour(other))
    there = [number for number in range(len(points)) if truth.seen[number]]
    for number in there:
        drawing.dot(made, points[number], drawing.colour(number))
    said = {number: description.joints[number] + (" (hidden)" if truth.seen[number] == 1 else "") for number in there}
    return drawing.legend(made, [(drawing.colour(number), words) for number, words in said.items()])


def say(prediction: Jointed, description: Pose) -> dict[str, object]:
    """The joints with their places in pixels of the image and their peaks, and the mean of the peaks."""
    rows = zip(description.joints, prediction.points.tolist(), prediction.scores.tolist(), strict=True)
    return {
        "score": prediction.score,
        "joints": [{"joint": name, "x": x, "y": y, "score": score} for name, (x, y), score in rows],
    }


def limbs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Which joints are drawn as connected: a person's (see `joints.LIMBS`) where names are such, else each with the one
    before it.
    """
    from fnatool.tasks.joints import limbs_of

    known = limbs_of(names)
    return known or tuple((number - 1, number) for number in range(1, len(names)))


def scenes() -> SceneKind:
    """One garment or two a scene, larger than for detection."""
    from fnatool.data.fashion import scenes, writing

    return writing.SceneKind(2, scenes.SceneStyle((1, 2), (0.45, 0.85)), writing.write_points)


TASK = Task(
    name="pose",
    description=Pose,
    describe=describe,
    outputs={"heatmaps": heatmaps},
    labels="joints",
    head="simplebaseline",
    sample=sample,
    batch=batch,
    show=show,
    truth=truth,
    loss=loss,
    decode=decode,
    compare=compare,
    score=score,
    metrics={
        "OKS_AP": "COCO's average precision of keypoints: the mean over similarities (OKS) of 0.50 … 0.95; of "
        "poses with the same score "
        "the wrong ones are taken to be surer",
        "OKS_AP50": "the same where a similarity of a half is enough",
        "OKS_AP75": "the same where a similarity of three quarters is asked for",
        f"PCK@{NEAR}": "the share of labelled joints that are found within a tenth of the longer side of the "
        "object's box",
    },
    each=f"PCK@{NEAR}",
    right=right,
    frame=frame,
    finish=finish,
    answered=answered,
    apart=apart,
    draw=draw,
    mark=mark,
    say=say,
    augment=Augment(scale=(0.75, 1.25), rotate=30.0),
    scenes=scenes,
    tuning={"optimiser": ADAMW},
)
