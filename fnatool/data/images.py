"""Image files: pictures become RGB of 8 bits, masks one class number per pixel; what cannot is said, never passed on."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from fnatool.data import folders
from fnatool.data.inputs import Unreadable as Unreadable

# What is read, whatever a file is called: no format for which Pillow runs another program
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "TGA", "AVIF")
LOSSY = ("JPEG", "MPO")  # change the values of a mask

# What Pillow's readers raise about files that are not what they say
DAMAGED: tuple[type[Exception], ...] = (
    *(OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, OverflowError, struct.error, zlib.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)


def rgb(path: Path) -> Image.Image:
    """The picture in path, as its viewers show it (turned by its EXIF tag), in mode RGB. Raises Unreadable.

    Grey is repeated, transparency dropped, CMYK converted; of 16 bits the upper 8 are kept, of several frames the first.
    """
    with _reading(path) as image:
        if image.format in LOSSY and image.mode == "RGB":  # a photograph is not copied twice
            ImageOps.exif_transpose(image, in_place=True)
            return image
        return ImageOps.exif_transpose(_as_rgb(image))


def mask(path: Path) -> npt.NDArray[np.uint8]:
    """The class numbers in path, [height, width]: a grey, palette or black-and-white file, or one whose colours are all grey.

    Raises Unreadable.
    """
    with _reading(path) as image:
        if image.format in LOSSY:
            raise Unreadable("it is a JPEG, which changes the class numbers near every edge; save it as PNG, from what it was made of")
        values = _grey(image)
        if values.size and values.dtype != np.uint8 and not 0 <= int(values.min()) <= int(values.max()) <= 255:
            raise Unreadable(f"it holds the value {int(values.max())}; class numbers go up to 253")
        return values.astype(np.uint8, copy=False)


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow reads."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _grey(image: Image.Image) -> npt.NDArray[np.generic]:
    """One number per pixel. Raises Unreadable for a picture in colours."""
    if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
        return np.asarray(image)
    if image.mode in ("RGB", "RGBA", "LA"):
        colours = np.asarray(image)[..., : 1 if image.mode == "LA" else 3]
        if np.ptp(colours, axis=2).max(initial=0) == 0:
            return colours[..., 0]
    raise Unreadable(f"it is a picture of mode {image.mode}; a mask holds one class number per pixel, in a grey or palette PNG")


def size(path: Path) -> tuple[int, int]:
    """Height and width of the picture as `rgb` gives it, from the head of the file. Raises Unreadable."""
    with _opening(path) as image:
        # the EXIF tag for orientation, and its values that swap the axes; Pillow has turned a TIFF's size already
        turned = image.format != "TIFF" and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (image.width, image.height) if turned else (image.height, image.width)


@contextmanager
def _reading(path: Path) -> Iterator[Image.Image]:
    with _opening(path) as image:
        image.load()
        yield image


@contextmanager
def _opening(path: Path) -> Iterator[Image.Image]:
    kind = folders.special(path)
    if kind is not None:
        raise Unreadable(f"it is {kind}, not a file")
    try:
        with Image.open(path, formats=_formats()) as image:
            yield image
    except FileNotFoundError:
        raise Unreadable("there is no such file") from None
    except DAMAGED as error:
        if isinstance(error, OSError) and error.strerror:
            raise Unreadable(f"it cannot be read ({error.strerror})") from error
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
