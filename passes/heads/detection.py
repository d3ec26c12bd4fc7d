"""What the detection heads have in common: levels with their anchors, and the two outputs, one row per anchor.

`cls_logits` [N, A, K] and `boxes` [N, A, 4]: levels from fine to coarse, in a level row by row, at a location anchor by
anchor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from passes.errors import UserError
from passes.heads.writer import FeatureMap, Writer

# the outputs of a detector, and how their first axis is called
BOXES = {"cls_logits": ("anchors",), "boxes": ("anchors",)}
MOST_TAPS = 8


@dataclass(frozen=True)
class HeadLevel:
    """A map of `space` (h, w) locations, `stride` (down, across) image pixels apart, and its anchors' (width, height)
    in pixels.

    Location (i, j) is the square around pixel ((j + ½) · across, (i + ½) · down); the map covers the image: h = ⌈image
    height / down⌉.
    """

    space: tuple[int, int]
    stride: tuple[int, int]
    anchors: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class BoxCoding:
    """How a detector's outputs are read: `coder` multiplies (Δx, Δy, Δw, Δh) when boxes are encoded; softmax has the
    background first.
    """

    style: str
    levels: tuple[HeadLevel, ...]
    coder: tuple[float, float, float, float]
    activation: str


def per_anchor(x: FeatureMap, entries: int, name: str, writer: Writer) -> str:
    """[N, anchors · entries, h, w] → [N, h · w · anchors, entries]: locations row by row, anchors last."""
    anchors = x.channels // entries
    split = writer.node(
        "Reshape", f"{name}.split", [x.tensor, writer.sizes(f"{name}.split.shape", [0, anchors, entries, -1])]
    )
    moved = writer.node("Transpose", f"{name}.move", [split], perm=[0, 3, 1, 2])
    return writer.node("Reshape", f"{name}.rows", [moved, writer.sizes(f"{name}.rows.shape", [0, -1, entries])])


def joined(levels: Sequence[str], output: str, writer: Writer) -> None:
    """The rows of all levels, as the graph's output."""
    writer.node("Concat", output, levels, output=output, axis=1)


@dataclass(frozen=True)
class HeadGeometry:
    """What levels are made for: the image's (height, width) in pixels, whether it is fixed, and the taps' rising
    strides (down, across).
    """

    image: tuple[int, int]
    fixed: bool
    strides: tuple[tuple[int, int], ...]


def level_name(stride: tuple[int, int]) -> str:
    """p3 lies at stride 8, p4 at 16, and so on."""
    return f"p{round(math.log2(min(stride)))}"


def require_room(x: FeatureMap, level: int, levels: int, image: tuple[int, int]) -> None:
    """Another level makes sense behind x. Raises UserError where x has a single location already."""
    if max(x.space) == 1:
        raise UserError(
            f"an image of {image[0]}×{image[1]} is too small for {levels} levels: the first {level} end in a "
            "single location; "
            f"ask for {level} levels (--levels {level}) or give the model a larger image"
        )


def require_levels(levels: int, taps: int) -> None:
    """Every tap makes a level."""
    if levels < taps:
        raise UserError(
            f"{levels} levels are fewer than the {taps} maps tapped; ask for more levels or name fewer taps"
        )


def stride_of(x: FeatureMap, running: tuple[int, int] | None, scene: HeadGeometry) -> tuple[int, int]:
    """The stride at which x has ⌈image / stride⌉ locations, as whoever makes the anchors will reckon.

    That is the running stride, if there is one. A network that loses its border has fewer locations: they are spread
    over the image, whose size must be fixed then. Raises UserError where no stride will do.
    """
    if running is not None and _locations(scene.image, running) == x.space:
        return running
    spread = (-(-scene.image[0] // x.space[0]), -(-scene.image[1] // x.space[1]))
    if (running is None or scene.fixed) and _locations(scene.image, spread) == x.space:
        return spread
    (height, width), (rows, columns) = scene.image, x.space
    stride = running or spread
    raise UserError(
        f"a map of {rows}×{columns} at stride {stride[0]}×{stride[1]} does not cover an image of "
        f"{height}×{width}, so anchors would "
        "not lie where the map looks; choose an image size that the strides divide (--input), or other taps"
    )


def _locations(image: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    return -(-image[0] // stride[0]), -(-image[1] // stride[1])
