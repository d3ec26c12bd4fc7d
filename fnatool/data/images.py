"""Image files: pictures become RGB of 8 bits, masks one class number per pixel; what cannot is said, never passed on."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})

# What Pillow's readers raise about files that are not what they say
DAMAGED: tuple[type[Exception], ...] = (
    *(OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, OverflowError, struct.error, zlib.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)


class Unreadable(Exception):
    """Why a file is no picture, or no mask, that can be used."""


def is_image(name: str) -> bool:
    """The file name ends like that of an image, and the file is not hidden."""
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def rgb(path: Path) -> Image.Image:
    """The picture in path, as its viewers show it (turned by its EXIF tag), in mode RGB. Raises Unreadable.

    Grey is repeated, transparency dropped, CMYK converted; of 16 bits the upper 8 are kept.
    """
    with _reading(path) as image:
        return ImageOps.exif_transpose(_as_rgb(image))


def mask(path: Path) -> npt.NDArray[np.uint8]:
    """The class numbers in path, [height, width]: a grey, palette or black-and-white file. Raises Unreadable."""
    with _reading(path) as image:
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise Unreadable(f"it is a picture of mode {image.mode}; a mask holds one class number per pixel, in a grey or palette PNG")
        values = np.asarray(image)
        if values.size and not 0 <= int(values.min()) <= int(values.max()) <= 255:
            raise Unreadable(f"it holds the value {int(values.max())}; class numbers go up to 253")
        return values.astype(np.uint8)


def size(path: Path) -> tuple[int, int]:
    """Height and width of the picture as `rgb` gives it, from the head of the file. Raises Unreadable."""
    with _opening(path) as image:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # the EXIF tag for orientation, and its values that swap the axes
        return (image.width, image.height) if turned else (image.height, image.width)


@contextmanager
def _reading(path: Path) -> Iterator[Image.Image]:
    with _opening(path) as image:
        image.load()
        yield image


@contextmanager
def _opening(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise Unreadable("there is no such file") from None
    except DAMAGED as error:
        if isinstance(error, UnidentifiedImageError):
            raise Unreadable("it is not an image of a known kind") from error
        raise Unreadable(f"it cannot be decoded ({' '.join(str(error).split()) or type(error).__name__})") from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow would clip 16 bits to 8
        values = np.asarray(image)
        if not 0 <= int(values.min()) <= int(values.max()) <= 65535:
            raise Unreadable("its pixels have 32 bits; save it with 8 or 16")
        grey = Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))
        grey.info = dict(image.info)
        return grey.convert("RGB")
    if image.mode == "F":
        raise Unreadable("its pixels are floating-point numbers; save it with 8 or 16 bits")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
