"""What the outputs of a model mean, in terms of the image it was shown: the one decoder, for evaluation, prediction and deployment.

Outputs are those of ONNX Runtime (numpy) or of torch, by name, as `description.OUTPUTS` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torchvision.ops import batched_nms, clip_boxes_to_image

from fnatool.data.placement import Placement, Size
from fnatool.tasks import anchors as anchor_sets
from fnatool.tasks.boxes import anchors_on, require_anchors
from fnatool.tasks.boxes import decode as decode_boxes
from fnatool.tasks.description import OUTPUTS, Classification, Description, Detection, Pose, Segmentation
from fnatool.tasks.finite import Array, require_finite
from passes.errors import RefusedModel

Floats = npt.NDArray[np.float32]

UNDECIDED = 254  # in place of a class: no class has this number


@dataclass(frozen=True)
class Classified:
    """The most probable class, its probability, and those of all, [K]; and the logits, which differ where probabilities round to 0."""

    label: int
    score: float
    probabilities: Floats
    logits: Floats


@dataclass(frozen=True)
class Segmented:
    """The class of every pixel of the image, [h, w]; UNDECIDED where several are the most probable."""

    classes: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Detected:
    """Objects in the image, the surest first: left, top, right, bottom in its pixels [n, 4], scores [n], indices of classes [n]."""

    boxes: Floats
    scores: Floats
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Jointed:
    """The joints of an object: x, y in the image's pixels, (0, 0) at the corner of the first one, [J, 2]; their peaks [J], and the mean."""

    points: Floats
    scores: Floats
    score: float


Prediction = Classified | Segmented | Detected | Jointed


@dataclass(frozen=True)
class Suppression:
    """Which boxes are kept: of a score above `least`, of each level the `per_level` best, of a class none that overlaps a better one by
    more than `overlap` (IoU), of an image the `per_image` best. The usual values of COCO's evaluation."""

    least: float = 0.05
    per_level: int = 1000
    overlap: float = 0.5
    per_image: int = 100


def decode(
    outputs: Mapping[str, Array], description: Description, placements: Sequence[Placement], *, size: Size, keep: Suppression | None = None
) -> list[Prediction]:
    """One prediction for each of the N images of a batch of that size (height, width), which lie in it as placements say.

    Raises RefusedModel where outputs are not those of the description, or not finite.
    """
    wanted = OUTPUTS[description.task]
    if missing := [name for name in wanted if name not in outputs]:
        raise RefusedModel(f"the model has no output '{missing[0]}', which {description.task} needs; it has {', '.join(outputs) or 'none'}")
    tensors = [_tensor(outputs[name]) for name in wanted]
    _require_shapes(dict(zip(wanted, tensors, strict=True)), description, len(placements))
    require_finite(dict(zip(wanted, tensors, strict=True)), wanted)
    rows = zip(placements, *tensors, strict=True)
    one: Callable[..., Prediction]
    if isinstance(description, Classification):
        one = _classified
    elif isinstance(description, Segmentation):
        one = partial(_segmented, size=size)
    elif isinstance(description, Detection):
        one = partial(_detected, description=description, size=size, keep=keep or Suppression())
    else:
        one = partial(_jointed, size=size)
    with torch.inference_mode():
        return [one(*row) for row in rows]


def _tensor(values: Array) -> torch.Tensor:
    return (values if isinstance(values, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(values))).detach().float()


def _require_shapes(tensors: Mapping[str, torch.Tensor], description: Description, images: int) -> None:
    """Every output has the axes and the classes that the description says."""
    columns = len(description.joints) if isinstance(description, Pose) else len(description.classes)
    expected: dict[str, tuple[int | None, ...]] = {
        "logits": (images, columns),
        "mask_logits": (images, columns, None, None),
        "heatmaps": (images, columns, None, None),
    }
    if isinstance(description, Detection):
        expected |= {"cls_logits": (images, None, description.columns), "boxes": (images, None, 4)}
    for name, tensor in tensors.items():
        shape = expected[name]
        if len(shape) != tensor.dim() or any(want not in (None, have) for want, have in zip(shape, tensor.shape, strict=True)):
            found, said = ("×".join("?" if extent is None else str(extent) for extent in extents) for extents in (tensor.shape, shape))
            raise RefusedModel(f"output '{name}' is {found}, but by its description '{description.task}' it should be {said}")


def _classified(_: Placement, logits: torch.Tensor) -> Classified:
    probabilities = logits.softmax(0)
    label = int(probabilities.argmax())
    return Classified(label, float(probabilities[label]), probabilities.cpu().numpy(), logits.cpu().numpy())


def _segmented(placement: Placement, logits: torch.Tensor, *, size: Size) -> Segmented:
    """Logits resized to the input, cut to where the image is, resized to the image: then the best class of every pixel."""
    on_input = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)
    top, left = (round(shift) for shift in placement.shift)
    height, width = (round(extent * scale) for extent, scale in zip(placement.image, placement.scale, strict=True))
    shown = on_input[..., top : top + height, left : left + width]
    whole = shown if (height, width) == placement.image else F.interpolate(shown, placement.image, mode="bilinear", align_corners=False)
    best, classes = whole[0].max(0)
    decided = (whole[0] == best).sum(0) == 1
    return Segmented(torch.where(decided, classes, UNDECIDED).to(torch.uint8).cpu().numpy())


def _detected(
    placement: Placement, logits: torch.Tensor, codes: torch.Tensor, *, description: Detection, size: Size, keep: Suppression
) -> Detected:
    anchors = anchors_on(description.levels, size, logits.device)
    counts = anchor_sets.counts(description.levels, size)
    require_anchors(len(logits), len(anchors), size)
    require_anchors(len(codes), len(anchors), size)
    scores = logits.sigmoid() if description.scores == "sigmoid" else logits.softmax(1)[:, 1:]
    found: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for part, code, anchor in zip(*(torch.split(values, list(counts)) for values in (scores, codes, anchors)), strict=True):
        flat = part.flatten()
        candidates = torch.nonzero(flat > keep.least).flatten()
        best = candidates[flat[candidates].argsort(descending=True, stable=True)[: keep.per_level]]
        rows = best // part.shape[1]
        found.append((decode_boxes(code[rows], anchor[rows], description.box_weights), flat[best], best % part.shape[1]))
    boxes, values, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    boxes = clip_boxes_to_image(boxes, size)
    kept = batched_nms(boxes, values, labels, keep.overlap)[: keep.per_image]
    in_image = placement.boxes_to_image(boxes[kept].cpu().numpy())
    return Detected(in_image, values[kept].cpu().numpy(), labels[kept].cpu().numpy())


def _jointed(placement: Placement, heatmaps: torch.Tensor, *, size: Size) -> Jointed:
    """The peak of each heatmap, moved by a quarter of a cell towards its higher neighbour on either axis."""
    _, height, width = heatmaps.shape
    peaks, places = heatmaps.flatten(1).max(1)
    rows, columns = places // width, places % width
    cells = torch.stack([columns + _quarter(heatmaps, rows, columns, 2), rows + _quarter(heatmaps, rows, columns, 1)], 1)
    points = (cells + 0.5) * torch.tensor([size[1] / width, size[0] / height], device=heatmaps.device)
    scores = peaks.cpu().numpy()
    return Jointed(placement.points_to_image(points.cpu().numpy()), scores, float(scores.mean()))


def _quarter(heatmaps: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, axis: int) -> torch.Tensor:
    extent = heatmaps.shape[axis]
    place = rows if axis == 1 else columns
    each = torch.arange(len(heatmaps), device=heatmaps.device)

    def beside(step: int) -> torch.Tensor:
        moved = (place + step).clamp(0, extent - 1)
        return heatmaps[each, moved, columns] if axis == 1 else heatmaps[each, rows, moved]

    inside = (place > 0) & (place < extent - 1)
    return torch.sign(beside(1) - beside(-1)) * 0.25 * inside
