"""The one image that a network with a head looks at."""

from __future__ import annotations

from dataclasses import dataclass

from passes.errors import UserError
from passes.network.analysis import Analysis


@dataclass(frozen=True)
class HeadImage:
    """The network's one input: `size` is (height, width) as analysed, `free` says that the network takes other sizes
    too.
    """

    name: str
    layout: str
    channels: int
    size: tuple[int, int]
    free: bool
    batch: int | str | None


def image_of(analysis: Analysis) -> HeadImage:
    """The image that the network looks at. Raises UserError where it has no such input, or several inputs."""
    seen = analysis.view
    names = [name for name in seen.inputs if name not in seen.constants]
    if len(names) != 1:
        raise UserError(
            "a head is for networks that look at one image; this model has the inputs "
            f"{', '.join(map(repr, names)) or 'none'}"
        )
    seen_image = analysis.image
    shape = analysis.shapes.shapes[names[0]]
    if len(shape) != 4 or seen_image.axes not in ((2, 3), (1, 2)) or seen_image.size is None:
        what = f"input '{names[0]}' {list(shape)} " + (
            f"has {len(shape)} axes" if len(shape) != 4 else "is not one that convolutions slide over"
        )
        raise UserError(
            f"a head is for networks that look at an image [N, channels, h, w] or [N, h, w, channels]; {what}"
        )
    layout, channels = ("NCHW", shape[1]) if seen_image.axes == (2, 3) else ("NHWC", shape[3])
    stated = seen.inputs[names[0]][0]
    return HeadImage(
        name=names[0],
        layout=layout,
        channels=channels,
        size=seen_image.size,
        free=seen_image.free,
        batch=None if stated is None else stated[0],
    )
