"""Words, colours and lines on a picture, for the tasks' answers."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

Colour = tuple[int, int, int]

GOLDEN = 0.618034  # of the circle of hues: neighbouring numbers are far apart on it


def colour(number: int) -> Colour:
    """A bright colour for a class or a joint, the same in every picture."""
    red, green, blue = colorsys.hsv_to_rgb(number * GOLDEN % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def line_width(image: Image.Image) -> int:
    """Of lines that are seen on an image of this size, in pixels."""
    return max(round(max(image.size) / 200), 1)


def label(image: Image.Image, corner: tuple[float, float], text: str, ground: Colour) -> int:
    """The image has the text in it, on a ground of that colour, its left upper corner there or as near as there is room.

    Returns the row below it.
    """
    from PIL import ImageDraw, ImageFont

    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(round(max(image.size) / 30), 10))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    wide, high = right - left + 4, bottom - top + 4
    x, y = (max(min(at, room - need), 0) for at, room, need in zip(corner, image.size, (wide, high), strict=True))
    draw.rectangle((x, y, x + wide - 1, y + high - 1), fill=ground)
    ink = (0, 0, 0) if sum(ground) > 380 else (255, 255, 255)
    draw.text((x + 2 - left, y + 2 - top), text, fill=ink, font=font)
    return round(y + high)
