"""From an image, uint8 and of any size, to what a network's input takes: the same numbers, bit for bit, as evaluation shows it.

Evaluation resizes as torch does an image of bytes: the weights of a triangle as wide as a pixel of the smaller picture, rounded to 16 bits,
first across and then down, each rounded to bytes (torch's UpSampleKernel, which follows Pillow). That is written out here: with

    centre(i) = (i + ½) · s,   s = pixels before / pixels after,   w(i, j) = max(0, 1 − |j + ½ − centre(i)| / max(s, 1)),  Σⱼ w = 1
    ŵ = ⌊w · 2ᵖ + ½⌋, p the largest ≤ 22 for which every ŵ has 15 bits,   pixel(i) = ⌊(Σⱼ ŵ(i, j) · pixel(j)) / 2ᵖ + ½⌋

every sum is of whole numbers, so that no order of adding changes it; float32 holds them exactly up to a reduction of about four times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from passes.deploy.steps import Steps

Size = tuple[int, int]  # height, width
BITS, MOST_SHIFT = 15, 22
GREY = (19595.0, 38470.0, 7471.0)  # of red, green and blue, in 65,536ths (ITU-R BT.601)


@dataclass(frozen=True)
class Framing:
    """What of an image a network is shown.

    fitted: all of it, as large as there is room for, in the upper left corner. middle: `share` of what fills the input, cut from
    its middle. around: the part around a box, `share` times as large, in the input's aspect. Beyond the image is the colour `fill` (RGB).
    taps: how many pixels one is made of at most, along an axis, where a runtime must know that; None: as many as it takes.
    """

    kind: Literal["fitted", "middle", "around"]
    share: float = 1.0
    fill: tuple[int, int, int] = (0, 0, 0)
    taps: int | None = None


@dataclass(frozen=True)
class Taking:
    """What the network's input takes: its size, layout, channels and type; values are (pixel − mean) / scale."""

    size: Size
    layout: str
    channels: str
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    dtype: npt.DTypeLike


@dataclass(frozen=True)
class Placed:
    """Where the image lies in the input, as names of numbers without axes: input = image · scale + shift, down and across.

    `image`: height and width; `resized`: those that the whole of it, or the part around the box, has been resized to.
    """

    image: tuple[str, str]
    resized: tuple[str, str]
    scale: tuple[str, str]
    shift: tuple[str, str]


@dataclass(frozen=True)
class _Window:
    """Along one axis: a window of the image (its first pixel, its length) is resized; of that `out` pixels from `corner` on are shown."""

    extent: str  # of the image
    first: str
    length: str
    resized: str
    corner: str
    out: int
    taps: int | None = None


@dataclass(frozen=True)
class _Taps:
    """For each pixel that is shown, [out, T]: those of the image that it is made of, and their weights, whole numbers of which `unit` is 1.

    outside: the weights of those beyond the image, summed, [out]; shown: whether the resized window goes there, [out].
    """

    index: str
    weight: str
    outside: str
    unit: str
    shown: str


def preprocessed(steps: Steps, image: str, box: str, framing: Framing, taking: Taking) -> tuple[str, Placed]:
    """What the network takes of images uint8 [N, H, W, 3], and where an image lies in it. box: [4], for a framing around it."""
    extents = (steps.extent(image, 1), steps.extent(image, 2))
    windows, placed = _FRAMINGS[framing.kind](steps, extents, box, (framing, taking.size))
    down, across = (_taps(steps, window) for window in windows)
    fill = steps.constant(framing.fill, np.float32)
    pixels = _resized(steps, image, across, (2, fill))
    pixels = _resized(steps, pixels, down, (1, fill))
    if framing.kind == "fitted":
        shown = steps.node("And", steps.with_axes(down.shown, 1, 2), steps.with_axes(across.shown, 0, 2))
        pixels = steps.node("Where", shown, pixels, fill)
    return _values(steps, pixels, taking), placed


# --- what is shown ------------------------------------------------------------------------------

Shown = tuple[tuple[_Window, _Window], Placed]


def _rounded(steps: Steps, x: str) -> str:
    """To the nearest whole number, halves to even."""
    return steps.as_whole(steps.node("Round", x))


def _fitted(steps: Steps, extents: tuple[str, str], _: str, how: tuple[Framing, Size]) -> Shown:
    size = how[1]
    reals = [steps.as_real(extent) for extent in extents]
    factor = steps.least(*(steps.div(steps.number(side), real) for side, real in zip(size, reals, strict=True)))
    resized = [
        steps.least(steps.most(_rounded(steps, steps.mul(real, factor)), steps.whole(1)), steps.whole(side))
        for real, side in zip(reals, size, strict=True)
    ]
    nothing = steps.whole(0)
    windows = [_Window(e, nothing, e, r, nothing, side) for e, r, side in zip(extents, resized, size, strict=True)]
    scale = [steps.div(steps.as_real(new), real) for new, real in zip(resized, reals, strict=True)]
    zero = steps.number(0.0)
    return (windows[0], windows[1]), Placed(extents, (resized[0], resized[1]), (scale[0], scale[1]), (zero, zero))


def _middle(steps: Steps, extents: tuple[str, str], _: str, how: tuple[Framing, Size]) -> Shown:
    framing, size = how
    reals = [steps.as_real(extent) for extent in extents]
    whole = steps.most(*(steps.div(steps.number(side), real) for side, real in zip(size, reals, strict=True)))
    factor = steps.div(whole, steps.number(framing.share))
    resized = [steps.most(_rounded(steps, steps.mul(real, factor)), steps.whole(side)) for real, side in zip(reals, size, strict=True)]
    corners = [steps.div(steps.sub(new, steps.whole(side)), steps.whole(2)) for new, side in zip(resized, size, strict=True)]
    nothing = steps.whole(0)
    windows = [_Window(e, nothing, e, r, c, side) for e, r, c, side in zip(extents, resized, corners, size, strict=True)]
    scale = [steps.div(steps.as_real(new), real) for new, real in zip(resized, reals, strict=True)]
    shift = [steps.node("Neg", steps.as_real(corner)) for corner in corners]
    return (windows[0], windows[1]), Placed(extents, (resized[0], resized[1]), (scale[0], scale[1]), (shift[0], shift[1]))


def _around(steps: Steps, extents: tuple[str, str], box: str, how: tuple[Framing, Size]) -> Shown:
    framing, (rows, columns) = how
    corners = steps.as_real(box)
    left, top, right, bottom = (steps.node("Gather", corners, steps.whole(k), axis=0) for k in range(4))
    aspect = steps.div(steps.mul(steps.sub(right, left), steps.number(rows)), steps.number(columns))
    height = steps.mul(steps.most(steps.sub(bottom, top), aspect), steps.number(framing.share))
    width = steps.div(steps.mul(height, steps.number(columns)), steps.number(rows))
    one, two, nothing = steps.whole(1), steps.number(2.0), steps.whole(0)
    lengths = [steps.most(_rounded(steps, extent), one) for extent in (height, width)]
    sums = [steps.add(top, bottom), steps.add(left, right)]
    firsts = [_rounded(steps, steps.div(steps.sub(total, steps.as_real(length)), two)) for total, length in zip(sums, lengths, strict=True)]
    sizes = [steps.whole(rows), steps.whole(columns)]
    windows = [
        _Window(e, f, length, r, nothing, side, framing.taps)
        for e, f, length, r, side in zip(extents, firsts, lengths, sizes, how[1], strict=True)
    ]
    scale = [steps.div(steps.number(side), steps.as_real(length)) for side, length in zip(how[1], lengths, strict=True)]
    shift = [steps.mul(steps.node("Neg", steps.as_real(first)), factor) for first, factor in zip(firsts, scale, strict=True)]
    return (windows[0], windows[1]), Placed(extents, (sizes[0], sizes[1]), (scale[0], scale[1]), (shift[0], shift[1]))


_FRAMINGS = {"fitted": _fitted, "middle": _middle, "around": _around}


# --- resizing -----------------------------------------------------------------------------------


def _taps(steps: Steps, window: _Window) -> _Taps:
    """The weights of a resize along an axis, as in the equations above."""
    half, one, none = steps.number(0.5), steps.number(1.0), steps.whole(0)
    length = steps.as_real(window.length)
    scale = steps.div(length, steps.as_real(window.resized))
    reach = steps.most(scale, one)
    inverse = steps.div(one, reach)
    centre = steps.mul(steps.add(steps.as_real(steps.range(window.resized)), half), scale)  # [resized]
    first = steps.most(steps.as_whole(steps.add(steps.sub(centre, reach), half)), none)
    end = steps.least(steps.as_whole(steps.add(steps.add(centre, reach), half)), window.length)
    number = steps.with_axes(_numbers(steps, reach, window.taps), 0)  # [1, T]
    index = steps.add(steps.with_axes(first, 1), number)  # [resized, T], in the window
    away = steps.mul(steps.add(steps.sub(steps.as_real(index), steps.with_axes(centre, 1)), half), inverse)
    plain = steps.node("Relu", steps.sub(one, steps.node("Abs", away)))
    there = steps.node("Less", index, steps.with_axes(end, 1))
    plain = steps.mul(plain, steps.as_real(there))
    share = steps.div(plain, steps.sum(plain, 1, keep=True))
    unit = _unit(steps, steps.node("ReduceMax", share, keepdims=0))
    weight = steps.node("Floor", steps.add(steps.mul(share, unit), half))
    shown = steps.add(steps.constant(np.arange(window.out), np.int64), window.corner)
    row = steps.least(shown, steps.sub(window.resized, steps.whole(1)))
    index, weight = (steps.node("Gather", values, row, axis=0) for values in (index, weight))
    place = steps.add(index, window.first)
    last = steps.sub(window.extent, steps.whole(1))
    clipped = steps.least(steps.most(place, none), last)
    inside = steps.as_real(steps.node("Equal", place, clipped))
    kept = steps.mul(weight, inside)
    outside = steps.sum(steps.sub(weight, kept), 1)
    return _Taps(
        clipped, steps.cast(kept, np.float32), steps.cast(outside, np.float32), steps.cast(unit, np.float32),
        steps.node("Less", shown, window.resized),
    )  # fmt: skip


def _numbers(steps: Steps, reach: str, most: int | None) -> str:
    """0 … T − 1, T being as many as a pixel is made of, or as there may be."""
    if most is not None:
        return steps.constant(np.arange(most), np.int64)
    return steps.range(steps.add(steps.mul(steps.as_whole(steps.node("Ceil", reach)), steps.whole(2)), steps.whole(1)))


def _unit(steps: Steps, most: str) -> str:
    """2ᵖ, p being the largest for which ⌊most · 2ᵖ + ½⌋ has BITS bits."""
    powers = steps.number(2.0 ** np.arange(MOST_SHIFT + 1))
    fits = steps.node("Less", steps.add(steps.mul(powers, most), steps.number(0.5)), steps.number(float(2**BITS)))
    return steps.most(steps.node("ReduceMax", steps.mul(powers, steps.as_real(fits)), keepdims=0), steps.number(1.0))


def _resized(steps: Steps, pixels: str, taps: _Taps, where: tuple[int, str]) -> str:
    """The pixels [N, h, w, 3] resized along an axis. where: that axis, and the colour beyond the image."""
    axis, fill = where
    tail = (2,) if axis == 2 else (2, 3)
    gathered = steps.cast(steps.node("Gather", pixels, taps.index, axis=axis), np.float32)  # [N, (h,) out, T, (w,) 3]
    inside = steps.sum(steps.mul(gathered, steps.with_axes(taps.weight, *tail)), axis + 1)
    outside = steps.mul(steps.with_axes(taps.outside, *(() if axis == 2 else (1,)), -1), fill)
    half = steps.mul(taps.unit, steps.constant(0.5, np.float32))
    total = steps.add(steps.add(inside, outside), half)
    rounded = steps.node("Floor", steps.div(total, taps.unit))
    return steps.node("Clip", rounded, steps.constant(0.0, np.float32), steps.constant(255.0, np.float32))


# --- values -------------------------------------------------------------------------------------


def _values(steps: Steps, pixels: str, taking: Taking) -> str:
    """(pixel − mean) / scale of [N, h, w, 3], in the layout, the channels and the type of the input."""
    if taking.channels == "BGR":
        pixels = steps.node("Gather", pixels, steps.ints(2, 1, 0), axis=3)
    elif taking.channels == "GREY":
        total = steps.sum(steps.mul(pixels, steps.constant(GREY, np.float32)), 3, keep=True)
        half, unit = steps.constant(32768.0, np.float32), steps.constant(65536.0, np.float32)
        pixels = steps.node("Floor", steps.div(steps.add(total, half), unit))
    values = steps.div(steps.sub(pixels, steps.constant(taking.mean, np.float32)), steps.constant(taking.scale, np.float32))
    if taking.layout == "NCHW":
        values = steps.transposed(values, 0, 3, 1, 2)
    return values if np.dtype(taking.dtype) == np.float32 else steps.cast(values, taking.dtype)
