"""From an image and its labels to a training sample: changed at random, all together.

The randomness is torch's global generator, which `training.samples` sets from (seed, epoch, index) before and puts back
after. Points have (0, 0) at the corner of the first pixel. Of an image only the part that is seen is scaled, and what
is scaled is turned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as nn
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from fnatool.data.placement import Placement, Size
from fnatool.data.split import IGNORE
from fnatool.tasks.bare import plain
from fnatool.tasks.constants import constant
from fnatool.tasks.task import Augment, Sample, SampleOptions

Colour = tuple[int, int, int]

NO_LABEL, NEITHER = -1, -2  # of a box: padding of a batch; neither right nor wrong (crowds, objects mostly cut away)
LEAST_LEFT = 0.25  # of a box's area, or it is neither right nor wrong


def cut_out(image: Image.Image, size: Size, how: Augment) -> torch.Tensor:
    """A part of the image, mirrored or not, uint8 [3, *size]."""
    whole = F.to_image(image).as_subclass(torch.Tensor)
    cut = v2.RandomResizedCrop(list(size), scale=how.scale).make_params([whole])
    part = whole[:, cut["top"] : cut["top"] + cut["height"], cut["left"] : cut["left"] + cut["width"]]
    return _finished(_resized(part, size), how, mirrored=_random() < how.flip)


def scaled(sample: Sample, sampling: SampleOptions, fill: Colour) -> Sample:
    """Image, mask and boxes, scaled at random from what fits them into `full`, then cut or padded to `size` at a random
    place.
    """
    size, full, how = sampling.size, sampling.full, sampling.augment
    image = plain(sample["image"])
    low, high = how.scale
    factor = low * (high / low) ** _random() * min(full[0] / image.shape[-2], full[1] / image.shape[-1])
    spans = tuple(_span(old, new, factor) for old, new in zip(image.shape[-2:], size, strict=True))
    mirrored = _random() < how.flip
    made = dict(sample)
    made["image"] = _finished(
        _filled(_resized(_part(image, spans), _extent(spans)), spans, size, fill), how, mirrored=mirrored
    )
    if "mask" in sample:
        mask = _filled(_nearest(_part(plain(sample["mask"])[None], spans), _extent(spans)), spans, size, (IGNORE,))[0]
        made["mask"] = mask.flip(-1) if mirrored else mask
    if "boxes" in sample:
        moved = _moved_boxes(plain(sample["boxes"]), spans)
        seen = torch.minimum(moved.clamp(min=0), torch.tensor([size[1], size[0]] * 2, dtype=moved.dtype))
        made["boxes"] = mirrored_boxes(seen, size[1]) if mirrored else seen
        made["labels"] = _still_there(moved, seen, sample["labels"])
    return made


def posed(
    sample: Sample, size: Size, how: Augment, *, padding: float, fill: Colour, pairs: tuple[tuple[int, int], ...]
) -> Sample:
    """The image around the object in `box` and its `points` [J, 2], scaled and turned about the middle of the box,
    mirrored or not.

    `weights` [J] is 0 for joints that are not labelled or out of the picture, else 1.
    """
    low, high = how.scale
    scale, angle = low * (high / low) ** _random(), how.rotate * (2 * _random() - 1)
    mirrored, factor = _random() < how.flip, padding / scale
    if angle:
        picture, points = turned(
            plain(sample["image"]), sample["points"], sample["box"], size=size, factor=factor, angle=angle, fill=fill
        )
    else:
        picture, points, _ = around(
            sample["image"], sample["points"], sample["box"], size=size, factor=factor, fill=fill
        )
    places, seen = plain(points), sample["seen"]
    if mirrored:
        order = list(range(len(places)))
        for one, other in pairs:
            order[one], order[other] = other, one
        places, seen = mirrored_points(places, size[1])[order], seen[order]
    inside = ((places >= 0) & (places < torch.tensor([size[1], size[0]]))).all(1)
    return {
        "image": _finished(plain(picture), how, mirrored=mirrored),
        "points": places,
        "weights": (inside & (seen > 0)).float(),
    }


def turned(
    image: torch.Tensor,
    points: torch.Tensor,
    box: torch.Tensor,
    *,
    size: Size,
    factor: float,
    angle: float,
    fill: Colour,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `around` shows, turned by an angle (degrees) about the middle of the box; and the points, [J, 2].

    Of the image only what is seen is read; it shrinks to the size of the sample first, and is turned there.
    """
    left, top, right, bottom = box.tolist()
    height = max(max(bottom - top, (right - left) * size[0] / size[1]) * factor, 1.0)
    scale = size[0] / height  # pixels of the sample to one of the image
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    middle = ((left + right) / 2, (top + bottom) / 2)
    margin = 1 + math.ceil(1 / min(scale, 1.0))  # what bilinear weights reach
    reach = [(size[1] * abs(a) + size[0] * abs(b)) / 2 / scale + margin for a, b in ((cos, sin), (sin, cos))]
    first = [max(math.floor(at - far), 0) for at, far in zip(middle, reach, strict=True)]
    end = [min(math.ceil(at + far), extent) for at, far, extent in zip(middle, reach, image.shape[:0:-1], strict=True)]
    # about the middle, x and y of the sample are s·(cos·x + sin·y) and s·(cos·y − sin·x) of those of the image
    from_middle = plain(points) - torch.tensor(middle)
    placed = scale * (from_middle @ torch.tensor([[cos, -sin], [sin, cos]])) + torch.tensor([size[1] / 2, size[0] / 2])
    if end[0] <= first[0] or end[1] <= first[1]:
        return torch.tensor(fill, dtype=torch.uint8)[:, None, None].expand(3, *size), placed
    part = image[:, first[1] : end[1], first[0] : end[0]]
    if scale < 1:
        part = _resized(part, (max(round(part.shape[1] * scale), 1), max(round(part.shape[2] * scale), 1)))
    along = (torch.arange(size[1]) + (0.5 - size[1] / 2)) / scale
    down = ((torch.arange(size[0]) + (0.5 - size[0] / 2)) / scale)[:, None]
    # where the middle of a pixel lies in the part, from −1 to 1: 2·(middle + R·(x, y) − first) / extent − 1, put
    # together from a row and a column, which are short
    wide, high = 2 / (end[0] - first[0]), 2 / (end[1] - first[1])
    grid = torch.empty(*size, 2)
    torch.add(wide * cos * along, wide * (middle[0] - first[0]) - 1 - wide * sin * down, out=grid[..., 0])
    torch.add(high * sin * along, high * (middle[1] - first[1]) - 1 + high * cos * down, out=grid[..., 1])
    ground = torch.tensor(fill, dtype=torch.float32)[:, None, None]
    made = nn.grid_sample(
        (part - ground)[None], grid[None], mode="bilinear", padding_mode="zeros", align_corners=False
    )[0]
    return made.add_(ground + 0.5).clamp_(0, 255).to(torch.uint8), placed


def mirrored_points(points: torch.Tensor, width: int) -> torch.Tensor:
    """Points [n, 2] in a mirror, counted from the corner of the first pixel."""
    return torch.stack([width - points[:, 0], points[:, 1]], 1)


def mirrored_boxes(boxes: torch.Tensor, width: int) -> torch.Tensor:
    """Boxes [n, 4] in a mirror."""
    left, top, right, bottom = boxes.unbind(1)
    return torch.stack([width - right, top, width - left, bottom], 1)


# --- without chance, for evaluation too ---


def around(
    image: torch.Tensor, points: torch.Tensor, box: torch.Tensor, *, size: Size, factor: float, fill: Colour
) -> tuple[torch.Tensor, torch.Tensor, Placement]:
    """The part of the image around the box, enlarged by a factor and to the aspect of size.

    With it the points, and where the image lies in it.
    """
    left, top, right, bottom = box.tolist()
    height = max(bottom - top, (right - left) * size[0] / size[1]) * factor
    rows, columns = max(round(height), 1), max(round(height * size[1] / size[0]), 1)
    first = (round((top + bottom - rows) / 2), round((left + right - columns) / 2))

    def shown(value: torch.Tensor) -> torch.Tensor:
        resized: torch.Tensor = F.resize(_window(value, first, (rows, columns), fill), list(size))
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
    """A whole number from 0 to room."""
    return int(torch.randint(0, room + 1, ()))


@dataclass(frozen=True)
class Span:
    """What becomes of an axis: `count` pixels of the image from `first` on are `length` pixels of the sample from
    `start` on.
    """

    first: int
    count: int
    start: int
    length: int


def _span(extent: int, size: int, factor: float) -> Span:
    """An axis scaled by the factor and then cut or padded to size at a random place: only what is seen need be
    scaled.
    """
    whole = max(round(extent * factor), 1)
    if whole <= size:
        return Span(0, extent, _anywhere(size - whole), whole)
    count = max(round(extent * size / whole), 1)
    return Span(_anywhere(extent - count), count, 0, size)


Spans = tuple[Span, ...]  # down and across


def _extent(spans: Spans) -> Size:
    return spans[0].length, spans[1].length


def _part(value: torch.Tensor, spans: Spans) -> torch.Tensor:
    down, across = spans
    return value[:, down.first : down.first + down.count, across.first : across.first + across.count]


def _filled(part: torch.Tensor, spans: Spans, size: Size, fill: Sequence[int]) -> torch.Tensor:
    """The part [C, h, w] at its place in a ground of that size."""
    if part.shape[1:] == size:
        return part
    down, across = spans
    ground = torch.tensor(fill, dtype=part.dtype)[:, None, None].repeat(1, *size)
    ground[:, down.start : down.start + down.length, across.start : across.start + across.length] = part
    return ground


def _resized(part: torch.Tensor, size: Size) -> torch.Tensor:
    """[3, h, w] at that size, bilinear, what shrinks averaged."""
    found: torch.Tensor = part if part.shape[1:] == size else F.resize(part, list(size))
    return found


def _nearest(part: torch.Tensor, size: Size) -> torch.Tensor:
    """[1, h, w] at that size: of each pixel the one under its middle."""
    return part if part.shape[1:] == size else nn.interpolate(part[None], size, mode="nearest-exact")[0]


def _moved_boxes(boxes: torch.Tensor, spans: Spans) -> torch.Tensor:
    down, across = spans
    scale = torch.tensor([across.length / across.count, down.length / down.count] * 2, dtype=boxes.dtype)
    first = torch.tensor([across.first, down.first] * 2, dtype=boxes.dtype)
    return (boxes - first) * scale + torch.tensor([across.start, down.start] * 2, dtype=boxes.dtype)


def _finished(image: torch.Tensor, how: Augment, *, mirrored: bool) -> torch.Tensor:
    """The image in its colours, uint8 [3, H, W]."""
    whole = image.flip(-1) if mirrored else image
    return coloured(whole[None], drawn_colours(how)[None])[0] if how.colour else whole.contiguous()


GREYS = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


def drawn_colours(how: Augment) -> torch.Tensor:
    """Factors [3] of brightness, contrast and saturation, drawn now."""
    return 1 + how.colour * (2 * torch.rand(3) - 1)


def coloured(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Images uint8 [N, 3, H, W] with factors [N, 3] of brightness b, contrast c and saturation s, where the images lie.

    Grey is g·x with g of sum 1, its mean over the image m. Brightness is b·x, contrast c·x + (1 − c)·m, saturation s·x
    + (1 − s)·g·x: in every order b·(c·(s·x + (1 − s)·g·x) + (1 − c)·m), so one product of matrices does all three, and
    nothing is cut off in between.
    """
    bright, contrast, saturation = factors.unbind(1)
    shares = constant(GREYS, images.device)
    values = images.flatten(2).float()
    mean = values.mean(2) @ shares
    mixed = saturation[:, None, None] * torch.eye(3, device=images.device) + (1 - saturation)[:, None, None] * shares
    offset = bright * (1 - contrast) * mean + 0.5  # to the nearest
    made = torch.baddbmm(offset[:, None, None], (bright * contrast)[:, None, None] * mixed, values)
    return made.clamp_(0, 255).to(images.dtype).view(images.shape)


def _fill_of(value: torch.Tensor, fill: Colour) -> list[float] | float:
    if isinstance(value, tv_tensors.Mask):
        return float(IGNORE)
    return [float(channel) for channel in fill] if isinstance(value, tv_tensors.Image) else 0.0


def _window(value: torch.Tensor, corner: tuple[int, int], size: Size, fill: Colour) -> torch.Tensor:
    """What lies in a window of that size whose first pixel is `corner` (row, column); beyond the image is fill, or
    IGNORE in a mask.
    """
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
