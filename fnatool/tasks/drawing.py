"""Words, colours and lines on a picture, for the tasks' answers: readable at the picture's size, and by the
colour-blind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image

Colour = tuple[int, int, int]
Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom
Entry = tuple[Colour, str]  # of a legend

# Told apart with any kind of colour vision (Okabe and Ito 2008); the order keeps the first ones farthest apart
PALETTE: tuple[Colour, ...] = (
    *((230, 159, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66)),
)
SHADES = (0.0, 0.5, -0.45)  # towards white and towards black, when the palette is at its end
BLACK, WHITE, PAPER = (0, 0, 0), (255, 255, 255), (250, 250, 250)
LEAST_SIDE = 480  # pixels: smaller pictures are enlarged, or no word on them could be read
# pixels of the longer side of a picture on a contact sheet, and how many there are on one
SHEET_TILE, SHEET_TILES = 360, 30


def colour(number: int) -> Colour:
    """The colour of a class or a joint, the same in every picture."""
    red, green, blue = (
        _shaded(part, SHADES[number // len(PALETTE) % len(SHADES)]) for part in PALETTE[number % len(PALETTE)]
    )
    return red, green, blue


def _shaded(part: int, towards: float) -> int:
    return round(part + (255 - part) * towards if towards > 0 else part * (1 + towards))


def ink(ground: Colour) -> Colour:
    """Black or white, whichever is read better on a ground of that colour (luminance as in ITU-R BT.601)."""
    red, green, blue = ground
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else WHITE


def canvas(image: Image.Image) -> tuple[Image.Image, int]:
    """A copy of the picture to draw on, and how often it was enlarged: a whole number, so that LEAST_SIDE is
    reached.
    """
    from PIL import Image as images

    zoom = -(-LEAST_SIDE // max(image.size))
    made = image.convert("RGB")
    return made.resize((made.width * zoom, made.height * zoom), images.Resampling.BICUBIC), zoom


def line_width(image: Image.Image) -> int:
    """Of lines that are seen on an image of this size, in pixels."""
    return max(round(max(image.size) / 200), 2)


def font(image: Image.Image) -> Any:
    """One whose words are read on an image of this size."""
    from PIL import ImageFont

    return ImageFont.load_default(max(round(max(image.size) / 26), 16))


def shortened(text: str, face: Any, room: float) -> str:
    """As much of the text as there is room for, in pixels, with … where some is left out."""
    if face.getlength(text) <= room:
        return text
    while text and face.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text.rstrip()}…"


def labels(image: Image.Image, rows: Sequence[tuple[Box, str, Colour]]) -> None:
    """The image has the text of each row in it, on a ground of its colour: above the corner of its box, or, to cover no
    other text,

    elsewhere at an edge of it. The first rows choose first, and are on top where there is no room at all.
    """
    from PIL import ImageDraw

    draw, face, pad = ImageDraw.Draw(image), font(image), line_width(image)
    high = sum(face.getmetrics()) + pad
    taken: list[Box] = []
    shown: list[tuple[Box, str, Colour]] = []
    for box, words, ground in rows:
        text = shortened(words, face, image.width - 2 * pad)
        wide = round(face.getlength(text)) + 2 * pad
        places = [_within(image, corner, (wide, high)) for corner in _corners(box, wide, high)]
        place = next((place for place in places if not any(_meet(place, other) for other in taken)), places[0])
        taken.append(place)
        shown.append((place, text, ground))
    for (left, top, right, bottom), text, ground in reversed(shown):
        draw.rectangle((left, top, right - 1, bottom - 1), fill=ground)
        draw.text((left + pad, top + pad // 2), text, fill=ink(ground), font=face)


def _corners(box: Box, wide: int, high: int) -> Iterator[Point]:
    """Where a text of that size may begin, the best first."""
    left, top, right, bottom = box
    yield left, top - high
    for number in range(max(int((bottom - top) // high), 1)):
        yield left, top + number * high
    yield left, bottom
    yield right - wide, top - high
    for number in range(max(int((bottom - top) // high), 1)):
        yield right - wide, top + number * high


def _within(image: Image.Image, corner: Point, size: tuple[int, int]) -> Box:
    """A box of that size with its corner there, or as near as it is in the image."""
    x, y = (max(min(round(at), side - extent), 0) for at, side, extent in zip(corner, image.size, size, strict=True))
    return x, y, x + size[0], y + size[1]


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def outlined(image: Image.Image, box: Box, hue: Colour) -> None:
    """The image has a frame around the box, with a dark rim, so that it is seen on any ground."""
    from PIL import ImageDraw

    lines, width = ImageDraw.Draw(image), line_width(image)
    left, top, right, bottom = box
    lines.rectangle((left - 1, top - 1, max(right, left) + 1, max(bottom, top) + 1), outline=BLACK, width=width + 2)
    lines.rectangle((left, top, max(right, left), max(bottom, top)), outline=hue, width=width)


def limb(image: Image.Image, ends: tuple[Point, Point], hue: Colour) -> None:
    """The image has a line between two points, with a dark rim."""
    from PIL import ImageDraw

    lines, width = ImageDraw.Draw(image), line_width(image) + 1
    lines.line(ends, fill=BLACK, width=width + 2)
    lines.line(ends, fill=hue, width=width)


def dot(image: Image.Image, at: Point, hue: Colour) -> None:
    """The image has a dot at a point, with a dark rim."""
    from PIL import ImageDraw

    radius = 2.5 * line_width(image)
    x, y = at
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=hue, outline=BLACK, width=2)


def legend(image: Image.Image, entries: Sequence[Entry]) -> Image.Image:
    """The image, and below it a strip with a patch of each colour and its words; the image alone where there are
    none.
    """
    from PIL import Image as images
    from PIL import ImageDraw

    if not entries:
        return image
    face, pad = font(image), 2 * line_width(image)
    high = sum(face.getmetrics())
    rows = list(
        _rows(
            [(hue, shortened(text, face, image.width - high - 3 * pad)) for hue, text in entries],
            face,
            (image.width, high, pad),
        )
    )
    made = images.new("RGB", (image.width, image.height + len(rows) * (high + pad) + pad), PAPER)
    made.paste(image, (0, 0))
    draw = ImageDraw.Draw(made)
    for number, row in enumerate(rows):
        top = image.height + pad + number * (high + pad)
        for left, (hue, text) in row:
            draw.rectangle((left, top + 2, left + high - 4, top + high - 2), fill=hue, outline=BLACK)
            draw.text((left + high, top), text, fill=BLACK, font=face)
    return made


def _rows(entries: Sequence[Entry], face: Any, sizes: tuple[int, int, int]) -> Iterator[list[tuple[int, Entry]]]:
    """The entries in rows that the width has room for, each with its left end. sizes: of the row, of a patch, of a
    gap.
    """
    width, patch, gap = sizes
    row: list[tuple[int, Entry]] = []
    left = gap
    for entry in entries:
        need = patch + round(face.getlength(entry[1])) + 2 * gap
        if row and left + need - gap > width:
            yield row
            row, left = [], gap
        row.append((left, entry))
        left += need
    yield row


def cover(image: Image.Image, numbers: npt.NDArray[np.uint8], there: Sequence[int], opacity: float) -> None:
    """The pixels of the image whose number is one of `there` have its colour over them; their regions have an edge,
    with a dark rim.
    """
    from PIL import Image as images
    from PIL import ImageFilter

    large = np.asarray(images.fromarray(numbers).resize(image.size, images.Resampling.NEAREST))
    palette = np.zeros((256, 3), np.uint8)
    for number in there:
        palette[number] = colour(number)
    shown = np.isin(large, there)
    edge = np.zeros(large.shape, bool)
    edge[1:] |= large[1:] != large[:-1]
    edge[:, 1:] |= large[:, 1:] != large[:, :-1]
    width = line_width(image) // 2 * 2 + 1
    wide = np.asarray(images.fromarray(edge.astype(np.uint8)).filter(ImageFilter.MaxFilter(width))) > 0
    strength = np.where(shown, np.where(wide, 255, round(255 * opacity)), 0).astype(np.uint8)
    # a dark rim, as lines have
    around = images.fromarray(shown.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(3))
    image.paste(BLACK, mask=images.fromarray(np.where(shown, 0, np.asarray(around))))
    image.paste(images.fromarray(palette[large]), mask=images.fromarray(strength))


def contact_sheets(pictures: Iterator[tuple[str, Image.Image]], count: int) -> Iterator[Image.Image]:
    """The pictures, `count` in number, small and with their names, in rows on as few sheets as hold SHEET_TILES
    each.
    """
    held: list[tuple[str, Image.Image]] = []
    columns = min(max(round(count**0.5), 1), 6)
    for name, picture in pictures:
        small = picture.copy()
        small.thumbnail((SHEET_TILE, SHEET_TILE))
        held.append((name, small))
        if len(held) == SHEET_TILES:
            yield _sheet(held, columns)
            held = []
    if held:
        yield _sheet(held, columns)


def _sheet(tiles: Sequence[tuple[str, Image.Image]], columns: int) -> Image.Image:
    from PIL import Image as images
    from PIL import ImageDraw, ImageFont

    face: Any = ImageFont.load_default(16)
    gap = 10
    words = sum(face.getmetrics())
    wide = max(picture.width for _, picture in tiles)
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(picture.height for _, picture in row) + words + gap for row in rows]
    made = images.new("RGB", (min(columns, len(tiles)) * (wide + gap) + gap, sum(heights) + gap), PAPER)
    draw, top = ImageDraw.Draw(made), gap
    for row, height in zip(rows, heights, strict=True):
        for number, (name, picture) in enumerate(row):
            left = gap + number * (wide + gap)
            made.paste(picture, (left, top))
            draw.text((left, top + picture.height), shortened(name, face, wide), fill=BLACK, font=face)
        top += height
    return made
