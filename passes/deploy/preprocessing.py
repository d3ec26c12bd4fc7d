"""From an image, uint8 and of any size, to what a network's input takes: the same numbers, bit for bit, as evaluation
shows it.

Evaluation resizes as torch does an image of bytes: the weights of a triangle as wide as a pixel of the smaller picture,
rounded to 16 bits, first across and then down, each rounded to bytes (torch's UpSampleKernel, which follows Pillow).
That is written out here: with

    centre(i) = (i + ½) · s,   s = pixels before / pixels after
    w(i, j) = max(0, 1 − |j + ½ − centre(i)| / max(s, 1)),   Σⱼ w = 1
    ŵ = ⌊w · 2ᵖ + ½⌋, p the largest ≤ 22 for which every ŵ has 15 bits,   pixel(i) = ⌊(Σⱼ ŵ(i, j) · pixel(j)) / 2ᵖ + ½⌋

as matrix products: pixels that lie side by side in the smaller picture are made of nearly the same ones, so BLOCK of
them are one product with all that they are made of. Each ŵ is split into 256·a + b, whole numbers of 8 bits as pixels
are: their products, and the sums of those in any order, are exact in float32 up to a reduction of 100 times, also where
it multiplies with fewer bits, as a GPU may (TF32, bfloat16). With A = Σ a·pixel and B = Σ b·pixel

    pixel(i) = ⌊A · 2⁸⁻ᵖ + ⌊B / 256⌋ · 2⁸⁻ᵖ + ½⌋,   as ½ · 2ᵖ is a multiple of 256

which is never above 255: the ŵ add up to 2ᵖ but for ½ each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from passes.deploy.steps import Steps

Size = tuple[int, int]  # height, width
BITS, MOST_SHIFT = 15, 22
LOW = 256.0  # ŵ = LOW · a + b
BLOCK = 16  # pixels of the smaller picture that are made together
GREY = (19595.0, 38470.0, 7471.0)  # of red, green and blue, in 65,536ths (ITU-R BT.601)


@dataclass(frozen=True)
class Framing:
    """What of an image a network is shown.

    fitted: all of it, as large as there is room for, in the upper left corner. middle: `share` of what fills the input,
    cut from its middle. around: the part around a box, `share` times as large, in the input's aspect. Beyond the image
    is the colour `fill` (RGB). most: by how much a box gets smaller at most, along an axis, where a runtime must know
    that; None: by as much as it takes. cut: whether what is not shown is cut off first, for which a runtime has to take
    sizes that are computed from values.
    """

    kind: Literal["fitted", "middle", "around"]
    share: float = 1.0
    fill: tuple[int, int, int] = (0, 0, 0)
    most: int | None = None
    cut: bool = True


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
    """Where the image lies in the input, as names of numbers without axes: input = image · scale + shift, down and
    across.

    `image`: height and width; `resized`: those that the whole of it, or the part around the box, has been resized to.
    """

    image: tuple[str, str]
    resized: tuple[str, str]
    scale: tuple[str, str]
    shift: tuple[str, str]


@dataclass(frozen=True)
class _Window:
    """Along one axis: a window of the image (its first pixel, its length) is resized; of that `out` pixels from
    `corner` on are shown.
    """

    extent: str  # of the image
    first: str
    length: str
    resized: str
    corner: str
    out: int
    most: int | None = None


@dataclass(frozen=True)
class _Taps:
    """The J blocks of the `out` pixels that are shown.

    index [J, K]: the K pixels of the image that each block is made of. weight [J, 2 · BLOCK, K]: a for each of its
    pixels, then b / LOW. outside [J, 2 · BLOCK, 1]: the weights of what is beyond the image, summed. part: LOW / 2ᵖ.
    first, end: what is needed of the image. shown [out]: whether the resized window goes there.
    """

    index: str
    weight: str
    outside: str
    part: str
    first: str
    end: str
    shown: str
    out: int


def preprocessed(steps: Steps, image: str, box: str, framing: Framing, taking: Taking) -> tuple[str, Placed]:
    """What the network takes of images uint8 [N, H, W, 3], and where an image lies in it. box: [4], for a framing
    around it.
    """
    extents = (steps.extent(image, 1), steps.extent(image, 2))
    windows, placed = _FRAMINGS[framing.kind](steps, extents, box, (framing, taking.size))
    down, across = (_taps(steps, window) for window in windows)
    if framing.cut and framing.kind != "fitted":
        first, end = (steps.listed(*pair) for pair in ((down.first, across.first), (down.end, across.end)))
        image = steps.node("Slice", image, first, end, steps.ints(1, 2))
        down, across = (replace(taps, index=steps.sub(taps.index, taps.first)) for taps in (down, across))
    pixels = _down(steps, _across(steps, image, across, framing), (down, taking.size), framing)
    pixels = steps.transposed(pixels, 0, 3, 1, 2) if taking.layout == "NCHW" else pixels
    if framing.kind == "fitted":
        shown = steps.node("And", steps.with_axes(down.shown, 1), steps.with_axes(across.shown, 0))
        shown = shown if taking.layout == "NCHW" else steps.with_axes(shown, 2)
        pixels = steps.node("Where", shown, pixels, _by_colour(steps, framing.fill, taking))
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
    resized = [
        steps.most(_rounded(steps, steps.mul(real, factor)), steps.whole(side))
        for real, side in zip(reals, size, strict=True)
    ]
    corners = [
        steps.div(steps.sub(new, steps.whole(side)), steps.whole(2)) for new, side in zip(resized, size, strict=True)
    ]
    nothing = steps.whole(0)
    windows = [
        _Window(e, nothing, e, r, c, side) for e, r, c, side in zip(extents, resized, corners, size, strict=True)
    ]
    scale = [steps.div(steps.as_real(new), real) for new, real in zip(resized, reals, strict=True)]
    shift = [steps.node("Neg", steps.as_real(corner)) for corner in corners]
    return (windows[0], windows[1]), Placed(
        extents, (resized[0], resized[1]), (scale[0], scale[1]), (shift[0], shift[1])
    )


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
    firsts = [
        _rounded(steps, steps.div(steps.sub(total, steps.as_real(length)), two))
        for total, length in zip(sums, lengths, strict=True)
    ]
    sizes = [steps.whole(rows), steps.whole(columns)]
    windows = [
        _Window(e, f, length, r, nothing, side, framing.most)
        for e, f, length, r, side in zip(extents, firsts, lengths, sizes, how[1], strict=True)
    ]
    scale = [steps.div(steps.number(side), steps.as_real(length)) for side, length in zip(how[1], lengths, strict=True)]
    shift = [
        steps.mul(steps.node("Neg", steps.as_real(first)), factor) for first, factor in zip(firsts, scale, strict=True)
    ]
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

    def triangle(start: str, count: str, centre: str, end: str) -> tuple[str, str]:
        """Pixels of the window [rows, count] from `start` on, and what they weigh so far."""
        index = steps.add(steps.with_axes(start, 1), steps.with_axes(count, 0))
        away = steps.mul(steps.add(steps.sub(steps.as_real(index), steps.with_axes(centre, 1)), half), inverse)
        plain = steps.node("Relu", steps.sub(one, steps.node("Abs", away)))
        return index, steps.mul(plain, steps.as_real(steps.node("Less", index, steps.with_axes(end, 1))))

    twice = steps.mul(reach, steps.number(2.0))
    _, plain = triangle(first, _numbers(steps, twice, window.most and 2 * window.most), centre, end)
    whole = steps.sum(plain, 1, keep=True)  # [resized, 1]
    unit = _unit(steps, steps.node("ReduceMax", steps.div(plain, whole), keepdims=0))

    blocks = -(-window.out // BLOCK)
    places = steps.add(steps.constant(np.arange(blocks * BLOCK), np.int64), window.corner)
    row = steps.least(places, steps.sub(window.resized, steps.whole(1)))
    centre, first, end, whole = (steps.node("Gather", values, row, axis=0) for values in (centre, first, end, whole))
    starts = np.arange(blocks) * BLOCK
    own = steps.node("Gather", first, steps.constant(starts.repeat(BLOCK), np.int64), axis=0)
    width = steps.add(steps.mul(scale, steps.number(BLOCK - 1.0)), twice)
    count = _numbers(steps, width, window.most and (BLOCK + 1) * window.most)
    index, plain = triangle(own, count, centre, end)  # [blocks · BLOCK, K]
    weight = steps.node("Floor", steps.add(steps.mul(steps.div(plain, whole), unit), half))
    high = steps.node("Floor", steps.div(weight, steps.number(LOW)))
    low = steps.sub(steps.div(weight, steps.number(LOW)), high)
    parts = [steps.node("Reshape", steps.cast(part, np.float32), steps.ints(blocks, BLOCK, -1)) for part in (high, low)]
    both = steps.joined(*parts, axis=1)

    # of each block all K pixels: [blocks, K]
    place = steps.add(steps.node("Gather", index, steps.constant(starts, np.int64), axis=0), window.first)
    clipped = _between(steps, place, none, steps.sub(window.extent, steps.whole(1)))
    inside = steps.with_axes(steps.cast(steps.node("Equal", place, clipped), np.float32), 1)
    needed = [
        _between(steps, steps.add(value, window.first), none, steps.sub(window.extent, steps.whole(1)))
        for value in (
            steps.node("Gather", first, steps.whole(0), axis=0),
            steps.sub(steps.node("Gather", end, steps.whole(blocks * BLOCK - 1), axis=0), steps.whole(1)),
        )
    ]
    kept = steps.mul(both, inside)
    return _Taps(
        _between(steps, clipped, *needed), kept, steps.sum(steps.sub(both, kept), 2, keep=True),
        steps.cast(steps.div(steps.number(LOW), unit), np.float32),
        needed[0], steps.add(needed[1], steps.whole(1)),
        steps.node("Less", steps.node("Slice", places, steps.ints(0), steps.ints(window.out)), window.resized),
        window.out,
    )  # fmt: skip


def _between(steps: Steps, x: str, least: str, most: str) -> str:
    return steps.least(steps.most(x, least), most)


def _numbers(steps: Steps, width: str, most: int | None) -> str:
    """0 … K − 1, K being as many as can lie in such a width, or as there may be."""
    if most is not None:
        return steps.constant(np.arange(most + 1), np.int64)
    return steps.range(steps.add(steps.as_whole(steps.node("Ceil", width)), steps.whole(1)))


def _unit(steps: Steps, most: str) -> str:
    """2ᵖ, p being the largest for which ⌊most · 2ᵖ + ½⌋ has BITS bits."""
    powers = steps.number(2.0 ** np.arange(MOST_SHIFT + 1))
    fits = steps.node("Less", steps.add(steps.mul(powers, most), steps.number(0.5)), steps.number(float(2**BITS)))
    return steps.most(steps.node("ReduceMax", steps.mul(powers, steps.as_real(fits)), keepdims=0), steps.number(1.0))


def _across(steps: Steps, pixels: str, taps: _Taps, framing: Framing) -> str:
    """The pixels [N, H, W, 3] resized along W: [N, H, out · 3]."""
    # colours are rows as long as H
    flat = steps.node("Reshape", steps.transposed(pixels, 0, 2, 3, 1), steps.ints(0, 0, -1))
    beyond = ""
    if framing.kind == "around":
        colours = steps.constant(np.reshape(framing.fill, (3, 1)), np.float32)
        beyond = steps.node(
            "Reshape",
            steps.node("Expand", colours, steps.listed(steps.whole(3), steps.extent(pixels, 1))),
            steps.ints(-1),
        )
    made = steps.node("Reshape", _resized(steps, flat, taps, beyond), steps.ints(0, taps.out, 3, -1))
    return steps.node("Reshape", steps.transposed(made, 0, 3, 1, 2), steps.ints(0, 0, taps.out * 3))


def _down(steps: Steps, pixels: str, how: tuple[_Taps, Size], framing: Framing) -> str:
    """The pixels [N, H, W · 3] resized along H: [N, out, W, 3]."""
    taps, (_, wide) = how
    beyond = steps.constant(np.tile(framing.fill, wide), np.float32) if framing.kind == "around" else ""
    return steps.node("Reshape", _resized(steps, pixels, taps, beyond), steps.ints(0, taps.out, wide, 3))


def _resized(steps: Steps, pixels: str, taps: _Taps, beyond: str) -> str:
    """The pixels [N, L, M] resized along L: [N, out, M]. beyond: those beyond the image, [M], where it can be looked
    there.
    """
    gathered = steps.cast(steps.node("Gather", pixels, taps.index, axis=1), np.float32)  # [N, J, K, M]
    sums = steps.node("MatMul", taps.weight, gathered)  # [N, J, 2 · BLOCK, M]
    if beyond:
        sums = steps.add(sums, steps.mul(taps.outside, beyond))
    high, low = steps.several("Split", 2, sums, steps.ints(BLOCK, BLOCK), axis=2)
    total = steps.add(steps.add(high, steps.node("Floor", low)), steps.div(steps.constant(0.5, np.float32), taps.part))
    rounded = steps.node("Floor", steps.mul(total, taps.part))
    blocks = -(-taps.out // BLOCK)
    made = steps.node(
        "Reshape", rounded, steps.joined(steps.with_axes(steps.extent(pixels, 0), 0), steps.ints(blocks * BLOCK, -1))
    )
    return (
        made
        if taps.out == blocks * BLOCK
        else steps.node("Slice", made, steps.ints(0), steps.ints(taps.out), steps.ints(1))
    )


# --- values -------------------------------------------------------------------------------------


def _values(steps: Steps, pixels: str, taking: Taking) -> str:
    """(pixel − mean) / scale of pixels in the layout of the input, in its channels and its type."""
    axis = 1 if taking.layout == "NCHW" else 3
    if taking.channels == "BGR":
        pixels = steps.node("Gather", pixels, steps.ints(2, 1, 0), axis=axis)
    elif taking.channels == "GREY":
        total = steps.sum(steps.mul(pixels, _by_colour(steps, GREY, taking)), axis, keep=True)
        half, unit = steps.constant(32768.0, np.float32), steps.constant(65536.0, np.float32)
        pixels = steps.node("Floor", steps.div(steps.add(total, half), unit))
    values = steps.div(
        steps.sub(pixels, _by_colour(steps, taking.mean, taking)), _by_colour(steps, taking.scale, taking)
    )
    return values if np.dtype(taking.dtype) == np.float32 else steps.cast(values, taking.dtype)


def _by_colour(steps: Steps, numbers: Sequence[float], taking: Taking) -> str:
    """A number for each channel."""
    return steps.constant(np.reshape(numbers, (-1, 1, 1) if taking.layout == "NCHW" else (-1,)), np.float32)
