"""Scenes: real garments, scaled, turned, coloured and partly hidden, on textured grounds, with labels that fit by
construction.

Everything is drawn from one generator, and no function whose last bit depends on the processor takes part: same seed,
same pixels. Coordinates of this module are in pixels with (0, 0) at the corner of the first pixel, so its centre is
(0.5, 0.5).
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from fnatool.data.fashion import SIDE, Bytes, Mask, silhouette

Floats = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int8]

POINTS = ("collar", "hem", "left", "right", "centre")
LEAST_VISIBLE = 0.5  # of a garment's silhouette, or it is not put where it would hide, or be hidden, more
TRIES = 8  # for a place
MOST_TURNED = 40  # degrees
INDEX = np.arange(SIDE)
IN_SIGHT, HIDDEN, OUTSIDE = 2, 1, 0  # of a point, as in COCO


@dataclass(frozen=True)
class SceneStyle:
    """What scenes of a task are like: how many garments, and how large, as shares of the image's side."""

    garments: tuple[int, int]
    extent: tuple[float, float]


@dataclass(frozen=True)
class PlacedGarment:
    """A garment in a scene."""

    label: int  # index of its class
    box: tuple[int, int, int, int]  # left, top, right, bottom edges of what is visible of it
    area: int  # visible pixels
    points: Points  # [5, 2] x and y of POINTS
    seen: tuple[int, ...]  # for each point: in sight, hidden by something else, outside


@dataclass(frozen=True)
class Scene:
    """A picture, [size, size, 3]; for every pixel 0 or 1 + class; the garments from back to front."""

    image: Bytes
    classes: Bytes
    garments: tuple[PlacedGarment, ...]


@dataclass(frozen=True)
class _Cut:
    """A garment cut out of its picture: its silhouette, the picture with that as the second channel, and its points."""

    label: int
    mask: Mask
    picture: Image.Image  # LA: grey, silhouette; with a margin of a pixel
    points: Points


@dataclass(frozen=True)
class _Layer:
    """A garment laid on the canvas, where `at` says; `whole` pixels it would show with nothing in front and no
    border.
    """

    label: int
    at: tuple[slice, slice]  # rows and columns of the canvas that it may touch, [h, w]
    warped: Bytes  # [h, w, 2], the picture of the cut: grey and cover
    whole: float
    points: Points

    @property
    def solid(self) -> Mask:
        """Its pixels, [h, w]: those covered by more than a half."""
        return np.asarray(self.warped[..., 1] > 127, bool)


def compose(rng: np.random.Generator, pool: Bytes, labels: Sequence[int], *, style: SceneStyle, size: int) -> Scene:
    """A scene with a garment of pool [classes, n, 28, 28] for each of labels, in this order from back to front.

    A garment that finds no place where all stay visible by LEAST_VISIBLE is left out; the first never is.
    """
    image = _ground(rng, size)
    layers: list[_Layer] = []
    nothing = np.zeros((size, size), bool)
    for label in labels:
        cut = _cut(rng, pool[label, rng.integers(pool.shape[1])], label)
        for _ in range(TRIES):
            layer = _laid(rng, cut, extent=rng.uniform(*style.extent) * size, size=size)
            if _all_visible([*layers, layer], _front([*layers, layer], nothing)):
                layers.append(layer)
                break
        else:
            layers = layers or [
                _warped(cut, size, angle=0.0, scale=style.extent[0] * size / SIDE, centre=np.full(2, size / 2))
            ]
    patch, colour = _occluder(rng, size)
    front = _front(layers, patch)
    if not _all_visible(layers, front):
        patch, front = nothing, _front(layers, nothing)
    for layer in layers:
        _paint(rng, image, layer)
    image[patch] = colour
    codes = np.array([0, *(layer.label + 1 for layer in layers), 0], np.uint8)  # the last is the patch's, −1
    return Scene(
        _develop(rng, image),
        codes[front],
        tuple(_placed(layer, front, index + 1) for index, layer in enumerate(layers)),
    )


# --- garments ---


def _cut(rng: np.random.Generator, garment: Bytes, label: int) -> _Cut:
    """The garment, mirrored in half of all cases."""
    upright = garment[:, ::-1] if rng.random() < 0.5 else garment
    mask = silhouette(upright)
    channels = np.zeros((SIDE + 2, SIDE + 2, 2), np.uint8)
    channels[1:-1, 1:-1, 0] = upright
    channels[1:-1, 1:-1, 1] = 255 * mask
    return _Cut(label, mask, Image.fromarray(channels, "LA"), _points(mask))


def _laid(rng: np.random.Generator, cut: _Cut, *, extent: float, size: int) -> _Layer:
    """The garment, its picture's side as long as extent, turned, somewhere on the canvas."""
    angle = math.radians(rng.uniform(-MOST_TURNED, MOST_TURNED))
    margin = 0.35 * extent  # its middle keeps this distance from the border
    return _warped(cut, size, angle=angle, scale=extent / SIDE, centre=rng.uniform(margin, size - margin, 2))


def _warped(cut: _Cut, size: int, *, angle: float, scale: float, centre: Points) -> _Layer:
    """The garment turned (radians) and scaled about its middle, which is laid at the centre given."""
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    turn = np.array([[cosine, -sine], [sine, cosine]])  # garment → canvas: p = turn (u − SIDE / 2) + centre
    reach = (abs(cosine) + abs(sine)) * SIDE / 2 + 1
    left, top = (max(math.floor(middle - reach), 0) for middle in centre)
    right, bottom = (min(math.ceil(middle + reach), size) for middle in centre)
    back = turn.T / scale**2
    shift = SIDE / 2 + 1 - back @ (centre - (left, top))  # 1: the margin of the picture
    matrix = (*back[0], shift[0], *back[1], shift[1])
    warped = cut.picture.transform(
        (right - left, bottom - top), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    points = (cut.points - SIDE / 2) @ turn.T + centre
    at = (slice(top, bottom), slice(left, right))
    return _Layer(cut.label, at, np.asarray(warped), cut.mask.sum() * scale**2, points)


def _paint(rng: np.random.Generator, image: Floats, layer: _Layer) -> None:
    dark, bright = _dyes(rng)
    shades = layer.warped * np.array([1 / 255, 2 / 255], np.float32)
    edge = np.clip(shades[..., 1:] - np.float32(0.5), 0, 1)
    below = image[layer.at]
    below += edge * (dark + (bright - dark) * shades[..., :1] - below)


def _points(mask: Mask) -> Points:
    """x and y of POINTS in the upright garment: the middles of its first and last two rows and columns, and its
    centre.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    across = [
        span @ INDEX / span.sum()
        for span in (mask[rows[0] :][:2].sum(0), mask[: rows[-1] + 1][-2:].sum(0), mask.sum(0))
    ]
    down = [
        span @ INDEX / span.sum()
        for span in (mask[:, columns[0] :][:, :2].sum(1), mask[:, : columns[-1] + 1][:, -2:].sum(1), mask.sum(1))
    ]
    collar, hem, centre = (across[0], rows[0]), (across[1], rows[-1]), (across[2], down[2])
    left, right = (columns[0], down[0]), (columns[-1], down[1])
    return np.array([collar, hem, left, right, centre]) + 0.5


def _front(layers: Sequence[_Layer], patch: Mask) -> Ids:
    """Which garment is in front at each pixel, counted from 1; 0: none, −1: the patch."""
    front = np.zeros(patch.shape, np.int8)
    for index, layer in enumerate(layers):
        front[layer.at][layer.solid] = index + 1
    front[patch] = -1
    return front


def _all_visible(layers: Sequence[_Layer], front: Ids) -> bool:
    shown = np.bincount(front[front > 0], minlength=len(layers) + 1)[1:]
    return all(count >= LEAST_VISIBLE * layer.whole for count, layer in zip(shown, layers, strict=True))


def _placed(layer: _Layer, front: Ids, number: int) -> PlacedGarment:
    shown = front == number
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return PlacedGarment(
        layer.label, box, int(shown.sum()), layer.points, tuple(_seen(point, front, number) for point in layer.points)
    )


def _seen(point: Points, front: Ids, number: int) -> int:
    column, row = math.floor(point[0]), math.floor(point[1])
    if not (0 <= row < front.shape[0] and 0 <= column < front.shape[1]):
        return OUTSIDE
    return HIDDEN if front[row, column] == -1 or front[row, column] > number else IN_SIGHT


# --- everything else ---


def _dyes(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """What black and white of a garment's picture become, of one or of two hues."""
    bright = _colour(rng, rng.uniform(0.1, 0.9), rng.uniform(0.6, 1))
    dark = (
        bright * rng.uniform(0, 0.4) if rng.random() < 0.7 else _colour(rng, rng.uniform(0.3, 1), rng.uniform(0.1, 0.4))
    )
    return dark.astype(np.float32), bright


def _colour(rng: np.random.Generator, saturation: float, value: float) -> Floats:
    return np.array(colorsys.hsv_to_rgb(rng.random(), saturation, value), np.float32)


def _ground(rng: np.random.Generator, size: int) -> Floats:
    """A ground of two or three colours: a slope, stripes, checks or blotches, with a few plain shapes that are no
    garments.
    """
    one, other = (_colour(rng, rng.uniform(0, 0.7), rng.uniform(0.15, 0.95)) for _ in range(2))
    ground = one + (other - one) * _texture(rng, size)[..., None]
    for _ in range(rng.integers(0, 4)):
        ground[_shape(rng, size, largest=0.4)] = _colour(rng, rng.uniform(0, 0.9), rng.uniform(0.1, 1))
    return np.asarray(ground, np.float32)


def _texture(rng: np.random.Generator, size: int) -> Floats:
    """Values 0 … 1, [size, size]."""
    along = (np.arange(size, dtype=np.float32) + 0.5) / size
    kind = rng.integers(4)
    if kind == 0:  # blotches, coarse to fine
        cells = int(rng.integers(3, 17))
        grain = Image.fromarray(rng.integers(0, 256, (cells, cells), np.uint8))
        return np.asarray(grain.resize((size, size), Image.Resampling.BICUBIC), np.float32) / np.float32(255)
    across, down = rng.uniform(-1, 1, 2).astype(np.float32)
    slope = across * along[None, :] + down * along[:, None]
    if kind == 1:
        return np.asarray((slope - slope.min()) / max(float(np.ptp(slope)), 1e-6), np.float32)
    waves = np.abs((slope * np.float32(rng.uniform(4, 14))) % 1 * 2 - 1)
    if kind == 2:
        return np.asarray(waves, np.float32)
    crossed = np.abs(((across * along[:, None] - down * along[None, :]) * np.float32(rng.uniform(4, 14))) % 1 * 2 - 1)
    return np.asarray((waves > 0.5) ^ (crossed > 0.5), np.float32)


def _shape(rng: np.random.Generator, size: int, *, largest: float) -> Mask:
    """An ellipse or a quadrilateral somewhere, [size, size]."""
    canvas = Image.new("1", (size, size))
    draw = ImageDraw.Draw(canvas)
    centre = rng.uniform(0, size, 2)
    if rng.random() < 0.5:
        half = rng.uniform(0.05, largest / 2, 2) * size
        draw.ellipse((*(centre - half), *(centre + half)), fill=1)
    else:
        corners = centre + rng.uniform(-largest / 2, largest / 2, (4, 2)) * size
        draw.polygon([tuple(corner) for corner in corners], fill=1)
    return np.asarray(canvas)


def _occluder(rng: np.random.Generator, size: int) -> tuple[Mask, Floats]:
    """In half of all scenes a shape in front of everything, and its colour."""
    shape = _shape(rng, size, largest=0.35) if rng.random() < 0.5 else np.zeros((size, size), bool)
    return shape, _colour(rng, rng.uniform(0, 0.9), rng.uniform(0.1, 1))


def _develop(rng: np.random.Generator, image: Floats) -> Bytes:
    """The picture with its own brightness, contrast and grain."""
    contrast, brightness = np.float32(rng.uniform(0.7, 1.1)), np.float32(rng.uniform(-0.08, 0.08))
    strength = int(rng.integers(1, 24))
    grain = rng.integers(-strength, strength + 1, image.shape[:2], np.int16)[..., None]
    grey = ((image - 0.5) * contrast + 0.5 + brightness) * 255 + grain
    return np.asarray(np.clip(np.rint(grey), 0, 255), np.uint8)
