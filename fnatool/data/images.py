"""Image files: pictures become RGB of 8 bits, masks one class number per pixel; what cannot is said, never passed
on.
"""

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
from fnatool.data.options import Colours

# What is read, whatever a file is called: no format for which Pillow runs another program
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "TGA", "AVIF")
LOSSY = ("JPEG", "MPO")  # change the values of a mask

# What Pillow's readers raise about files that are not what they say
DAMAGED: tuple[type[Exception], ...] = (
    *(
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        EOFError,
        IndexError,
        KeyError,
        OverflowError,
        struct.error,
        zlib.error,
    ),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)


def rgb(path: Path) -> Image.Image:
    """The picture in path, as its viewers show it (turned by its EXIF tag), in mode RGB. Raises Unreadable.

    Grey is repeated, transparency dropped, CMYK converted; of 16 bits the upper 8 are kept, of several frames the
    first.
    """
    with _reading(path) as image:
        if image.format in LOSSY and image.mode == "RGB":  # a photograph is not copied twice
            ImageOps.exif_transpose(image, in_place=True)
            return image
        return ImageOps.exif_transpose(_as_rgb(image))


def mask(path: Path, colours: Colours = ()) -> npt.NDArray[np.uint8]:
    """The class numbers in path, [height, width]: a grey, palette or black-and-white file, or one whose colours are all
    grey.

    colours: those that stand for 0, 1, 2 …, where the mask has them alone; without, a picture in Pascal VOC's colours
    is read as such. Raises Unreadable.
    """
    with _reading(path) as image:
        if image.format in LOSSY:
            raise Unreadable(
                "it is a JPEG, which changes the class numbers near every edge; save it as PNG, from what it "
                "was made of"
            )
        values = _coloured(image, colours) if colours else _grey(image)
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
        numbers, _ = _numbered(colours, voc_colours())
        if numbers is not None:
            return numbers
    raise Unreadable(
        f"it is a picture of mode {image.mode}, and not in Pascal VOC's colours; a mask holds one class number "
        "per pixel, in a grey or "
        "palette PNG, or colours that a labelmap.txt beside the folders names"
    )


def _coloured(image: Image.Image, colours: Colours) -> npt.NDArray[np.generic]:
    """The number of each pixel's colour. Grey pictures without these colours hold the numbers themselves. Raises
    Unreadable.
    """
    if image.mode.startswith("I") or image.mode in ("F", "CMYK", "YCbCr", "LAB", "HSV"):
        return _grey(image)
    pixels = np.asarray(image.convert("RGB"))
    numbers, strange = _numbered(pixels, colours)
    if numbers is not None:
        return numbers
    if np.ptp(pixels, axis=2).max(initial=0) == 0:
        return _grey(image)
    shown = ",".join(map(str, strange))
    raise Unreadable(f"it has the colour {shown}, which is none of the {len(colours)} that labelmap.txt names")


def _numbered(pixels: npt.NDArray[np.uint8], colours: Colours) -> tuple[npt.NDArray[np.uint8] | None, tuple[int, ...]]:
    """For each pixel the number of its colour; or None and the first colour that is none of them."""
    known = _packed(np.array(colours, np.uint8))
    order = np.argsort(known, kind="stable")
    packed = _packed(pixels)
    place = order[np.minimum(np.searchsorted(known[order], packed), len(known) - 1)]
    strange = known[place] != packed
    if strange.any():
        return None, tuple(pixels[strange][0].tolist())
    return place.astype(np.uint8), ()


def _packed(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    wide = pixels.astype(np.int32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])


@cache
def voc_colours() -> Colours:
    """Pascal VOC's colours of 0 … 255: the bits of the number, three at a time, are the highest bits of red, green and
    blue.
    """

    def part(number: int, channel: int) -> int:
        return sum((number >> 3 * bit + channel & 1) << 7 - bit for bit in range(3))

    return tuple((part(number, 0), part(number, 1), part(number, 2)) for number in range(256))


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
