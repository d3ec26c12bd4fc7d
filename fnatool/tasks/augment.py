"""From an image and its labels to a training sample: changed at random, all together, by torchvision's transforms of the second kind.

The randomness is torch's global generator, which `training.samples` sets from (seed, epoch, index) before and puts back after.
Points are kept with (0, 0) at the corner of the first pixel, as torchvision's resize, crop and rotate take them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from fnatool.data.placement import Placement, Size
from fnatool.data.split import IGNORE
from fnatool.tasks.task import Augment, Sample, SampleOptions

Colour = tuple[int, int, int]

NO_LABEL, NEITHER = -1, -2  # of a box: padding of a batch; neither right nor wrong (crowds, objects mostly cut away)
LEAST_LEFT = 0.25  # of a box's area, or it is neither right nor wrong


def cut_out(image: Image.Image, size: Size, how: Augment) -> tv_tensors.Image:
    """A part of the image, mirrored or not, [3, *size]."""
    changes = v2.Compose([v2.RandomResizedCrop(list(size), scale=how.scale), v2.RandomHorizontalFlip(how.flip), _colours(how)])
    changed: tv_tensors.Image = changes(F.to_image(image))
    return changed


def scaled(sample: Sample, sampling: SampleOptions, fill: Colour) -> Sample:
    """Image, mask and boxes, scaled at random from what fits them into `full`, then cut or padded to `size` at a random place."""
    size, full, how = sampling.size, sampling.full, sampling.augment
    image = sample["image"]
    low, high = how.scale
    factor = low * (high / low) ** _random() * min(full[0] / image.shape[-2], full[1] / image.shape[-1])
    height, width = (max(round(extent * factor), 1) for extent in image.shape[-2:])
    resized = _each(sample, lambda value: F.resize(value, [height, width]))
    top, left = _anywhere(height - size[0]), _anywhere(width - size[1])
    placed = _each(resized, lambda value: _window(value, (top, left), size, fill))
    if "boxes" in sample:
        placed["labels"] = _still_there(resized["boxes"], placed["boxes"], sample["labels"])
    changes = v2.Compose([v2.RandomHorizontalFlip(how.flip), _colours(how)])
    changed: Sample = changes(placed)
    return changed


def posed(sample: Sample, size: Size, how: Augment, *, padding: float, fill: Colour, pairs: tuple[tuple[int, int], ...]) -> Sample:
    """The image around the object in `box` and its `points` [J, 2], scaled and turned about the middle of the box, mirrored or not.

    `weights` [J] is 0 for joints that are not labelled or out of the picture, else 1.
    """
    low, high = how.scale
    scale, angle = low * (high / low) ** _random(), how.rotate * (2 * _random() - 1)
    picture, points, _ = around(sample["image"], sample["points"], sample["box"], size=size, factor=padding / scale, angle=angle, fill=fill)
    if _random() < how.flip:
        # Here, and only here, torchvision counts points from the middle of the first pixel.
        picture, points = F.horizontal_flip(picture), F.horizontal_flip(points) + torch.tensor([1, 0])
        order = list(range(len(points)))
        for one, other in pairs:
            order[one], order[other] = other, one
        points, seen = points[order], sample["seen"][order]
    else:
        seen = sample["seen"]
    places = points.as_subclass(torch.Tensor)
    inside = ((places >= 0) & (places < torch.tensor([size[1], size[0]]))).all(1)
    return {"image": _colours(how)(picture), "points": places, "weights": (inside & (seen > 0)).float()}


# --- without chance, for evaluation too ---


def around(
    image: torch.Tensor, points: torch.Tensor, box: torch.Tensor, *, size: Size, factor: float, fill: Colour, angle: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, Placement]:
    """The part of the image around the box, enlarged by a factor and to the aspect of size, turned by an angle (degrees).

    With it the points, and where the image lies in it (of no use where it is turned).
    """
    left, top, right, bottom = box.tolist()
    height = max(bottom - top, (right - left) * size[0] / size[1]) * factor
    rows, columns = max(round(height), 1), max(round(height * size[1] / size[0]), 1)
    first = (round((top + bottom - rows) / 2), round((left + right - columns) / 2))
    margin = (0, 0)
    if angle:
        reach = math.ceil(math.hypot(rows, columns))
        margin = ((reach - rows) // 2 + 1, (reach - columns) // 2 + 1)
    window = (rows + 2 * margin[0], columns + 2 * margin[1])
    corner = (first[0] - margin[0], first[1] - margin[1])

    def shown(value: torch.Tensor) -> torch.Tensor:
        part = _window(value, corner, window, fill)
        if angle:
            turned = F.rotate(part, angle, interpolation=v2.InterpolationMode.BILINEAR, fill=_fill_of(part, fill))
            part = F.crop(turned, margin[0], margin[1], rows, columns)
        resized: torch.Tensor = F.resize(part, list(size))
        return resized

    scale = (size[0] / rows, size[1] / columns)
    placement = Placement((image.shape[-2], image.shape[-1]), scale, (-first[0] * scale[0], -first[1] * scale[1]))
    return shown(image), shown(points), placement


def fitted(image: torch.Tensor, size: Size, fill: Colour) -> tuple[torch.Tensor, Placement]:
    """The whole image, as large as size has room for, in its upper left corner; and where it lies."""
    extent = (image.shape[-2], image.shape[-1])
    factor = min(size[0] / extent[0], size[1] / extent[1])
    height, width = (min(max(round(old * factor), 1), new) for old, new in zip(extent, size, strict=True))
    resized = F.resize(image, [height, width])
    return _window(resized, (0, 0), size, fill), Placement(extent, (height / extent[0], width / extent[1]), (0.0, 0.0))


def middle(image: torch.Tensor, size: Size, share: float, fill: Colour) -> tuple[torch.Tensor, Placement]:
    """The middle of the image in its own aspect: share of what fills size; and where it lies."""
    extent = (image.shape[-2], image.shape[-1])
    factor = max(size[0] / extent[0], size[1] / extent[1]) / share
    height, width = (max(round(old * factor), new) for old, new in zip(extent, size, strict=True))
    resized = F.resize(image, [height, width])
    corner = ((height - size[0]) // 2, (width - size[1]) // 2)
    scale = (height / extent[0], width / extent[1])
    return _window(resized, corner, size, fill), Placement(extent, scale, (-float(corner[0]), -float(corner[1])))


# --- parts ---


def _random() -> float:
    return float(torch.rand(()))


def _anywhere(room: int) -> int:
    """A whole number between 0 and room, which may be negative."""
    return int(torch.randint(min(room, 0), max(room, 0) + 1, ()))


def _colours(how: Augment) -> v2.Transform:
    return v2.ColorJitter(how.colour, how.colour, how.colour) if how.colour else v2.Identity()


CHANGES = 4  # of colours, in an order that is drawn: brightness, contrast, saturation, and hue, which stays
GREYS = (0.2989, 0.587, 0.114)  # of torchvision's grey


def drawn_colours(how: Augment) -> torch.Tensor:
    """What changes of colours would draw now, to be made later: their order [4], and the factors of the first three, as 7 floats."""
    drawn = v2.ColorJitter(how.colour, how.colour, how.colour).make_params([])
    factors = [drawn[f"{name}_factor"] for name in ("brightness", "contrast", "saturation")]
    return torch.tensor([*drawn["fn_idx"].tolist(), *factors], dtype=torch.float32)


def coloured(images: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Images uint8 [N, 3, H, W] with what was drawn for each, [N, 7]: those of torchvision, all at once where the images lie.

    A factor of 1 changes nothing, so that every image can go through every change in every place of the order.
    """
    order, factors = colours[:, :CHANGES], colours[:, CHANGES:, None, None, None]
    for place in range(CHANGES):
        for kind, change in enumerate((_brightened, _contrasted, _saturated)):
            now = (order[:, place] == kind)[:, None, None, None]
            images = change(images, torch.where(now, factors[:, kind], 1.0))
    return images


def _brightened(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return images.mul(factor).clamp_(0, 255).to(images.dtype)


def _contrasted(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return _blended(images, _grey(images).mean((1, 2, 3), keepdim=True), factor)


def _saturated(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return _blended(images, _grey(images), factor)


def _grey(images: torch.Tensor) -> torch.Tensor:
    red, green, blue = torch.split(images.float(), 1, 1)
    return (red * GREYS[0]).add_(green, alpha=GREYS[1]).add_(blue, alpha=GREYS[2]).floor_()


def _blended(images: torch.Tensor, others: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return images.mul(factor).add_(others * (1 - factor)).clamp_(0, 255).to(images.dtype)


def _each(sample: Sample, change: Callable[[torch.Tensor], torch.Tensor]) -> Sample:
    """The sample with its image, mask and boxes changed, whatever else is in it left as it is."""
    return {name: change(value) if isinstance(value, tv_tensors.TVTensor) else value for name, value in sample.items()}


def _fill_of(value: torch.Tensor, fill: Colour) -> list[float] | float:
    if isinstance(value, tv_tensors.Mask):
        return float(IGNORE)
    return [float(channel) for channel in fill] if isinstance(value, tv_tensors.Image) else 0.0


def _window(value: torch.Tensor, corner: tuple[int, int], size: Size, fill: Colour) -> torch.Tensor:
    """What lies in a window of that size whose first pixel is `corner` (row, column); beyond the image is fill, or IGNORE in a mask."""
    top, left = corner
    height, width = F.get_size(value)
    pad = [max(-left, 0), max(-top, 0), max(left + size[1] - width, 0), max(top + size[0] - height, 0)]
    padded = F.pad(value, pad, fill=_fill_of(value, fill)) if any(pad) else value
    window: torch.Tensor = F.crop(padded, top + pad[1], left + pad[0], *size)
    return window


def _still_there(before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The labels, NEITHER where a box has lost most of its area."""
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (before, after)]
    return torch.where(areas[1] < LEAST_LEFT * areas[0], NEITHER, labels)


def points_of(points: np.ndarray, size: Size) -> tv_tensors.KeyPoints:
    """Points [J, 2] as torchvision moves them."""
    return tv_tensors.KeyPoints(torch.from_numpy(points), canvas_size=size)


def boxes_of(boxes: np.ndarray, size: Size) -> tv_tensors.BoundingBoxes:
    """Boxes [n, 4] as torchvision moves them."""
    return tv_tensors.BoundingBoxes(torch.from_numpy(boxes.reshape(-1, 4)), format="XYXY", canvas_size=size)
