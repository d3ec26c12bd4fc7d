"""What a network with a head is for, as plain data: the record that is stored in the model's metadata as `fnatool.task`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from passes.analysis import Analysis
from passes.errors import UserError
from passes.heads.detection import Detection

VERSION = 1
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # of pixels 0…255, red, green, blue
IMAGENET_SCALE = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Image:
    """The network's one input: `size` is (height, width) as analysed, `free` says that the network takes other sizes too."""

    name: str
    layout: str
    channels: int
    size: tuple[int, int]
    free: bool
    batch: int | str | None


@dataclass(frozen=True)
class Pose:
    """The joints of a pose: names, COCO's per-joint sigmas, and pairs that a mirror swaps."""

    joints: tuple[str, ...]
    sigmas: tuple[float, ...]
    flip_pairs: tuple[tuple[int, int], ...]


def image_of(analysis: Analysis) -> Image:
    """The image that the network looks at. Raises UserError where it has no such input, or several inputs."""
    seen = analysis.view
    names = [name for name in seen.inputs if name not in seen.constants]
    if len(names) != 1:
        raise UserError(f"a head is for networks that look at one image; this model has the inputs {', '.join(map(repr, names)) or 'none'}")
    seen_image = analysis.image
    shape = analysis.shapes.shapes[names[0]]
    if len(shape) != 4 or seen_image.axes not in ((2, 3), (1, 2)) or seen_image.size is None:
        what = f"input '{names[0]}' {list(shape)} is not one that convolutions slide over"
        raise UserError(f"a head is for networks that look at an image [N, channels, h, w] or [N, h, w, channels]; {what}")
    layout, channels = ("NCHW", shape[1]) if seen_image.axes == (2, 3) else ("NHWC", shape[3])
    stated = seen.inputs[names[0]][0]
    return Image(names[0], layout, channels, seen_image.size, seen_image.free, None if stated is None else stated[0])


def record(
    task: str,
    classes: Sequence[str],
    image: Image,
    *,
    mean: Sequence[float],
    scale: Sequence[float],
    detection: Detection | None = None,
    pose: Pose | None = None,
) -> dict[str, object]:
    """The record; an input value is (pixel − mean) / scale with pixels from 0 to 255. Raises UserError where mean or scale cannot be."""
    for word, values in (("mean", mean), ("scale", scale)):
        if len(values) != image.channels:
            raise UserError(f"the input '{image.name}' has {image.channels} channels, the {word} {len(values)} values; give one for each")
    if 0 in scale:
        raise UserError("a scale of 0 would divide by zero; give what the pixels are divided by, such as 255")
    found: dict[str, object] = {
        "version": VERSION,
        "task": task,
        "classes": list(classes),
        "input": {
            "name": image.name,
            "layout": image.layout,
            "colour": "RGB" if image.channels == 3 else "GRAY",
            "mean": list(mean),
            "scale": list(scale),
        },
    }
    if detection is not None:
        found["detection"] = {
            "style": detection.style,
            "strides": [list(level.stride) for level in detection.levels],
            "anchors": [{"sizes": [[round(side, 4) for side in box] for box in level.anchors]} for level in detection.levels],
            "coder": list(detection.coder),
            "activation": detection.activation,
        }
    if pose is not None:
        found["pose"] = {
            "joints": list(pose.joints),
            "sigmas": list(pose.sigmas),
            "flip_pairs": [list(pair) for pair in pose.flip_pairs],
        }
    return found
