"""Words and colours on pictures."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from PIL import Image

from fnatool.tasks import drawing

# Machado, Oliveira and Fernandes 2009, severity 1: what people with these kinds of colour vision see, in linear RGB
KINDS = {
    "usual": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def seen(colour: drawing.Colour, kind: str) -> np.ndarray:
    return np.clip(KINDS[kind] @ (np.array(colour) / 255) ** 2.2, 0, 1) ** (1 / 2.2) * 255


def test_the_colours_are_told_apart_with_any_colour_vision() -> None:
    for kind in KINDS:
        apart = [np.linalg.norm(seen(a, kind) - seen(b, kind)) for a, b in combinations(drawing.PALETTE, 2)]
        assert min(apart) > 30, (kind, min(apart))


def test_many_classes_have_different_colours() -> None:
    assert len({drawing.colour(number) for number in range(21)}) == 21


def test_small_pictures_are_enlarged_and_large_ones_are_not() -> None:
    made, zoom = drawing.canvas(Image.new("RGB", (96, 50)))
    assert (made.size, zoom) == ((480, 250), 5)
    made, zoom = drawing.canvas(Image.new("L", (1280, 960)))
    assert (made.size, zoom, made.mode) == ((1280, 960), 1, "RGB")


def test_words_stay_in_the_picture() -> None:
    for corner in ((-50.0, -50.0), (470.0, 475.0), (0.0, 0.0)):
        image = Image.new("RGB", (480, 480), (128, 128, 128))
        words = "a name that is far longer than any picture has room for, whatever its size may be"
        drawing.labels(image, [((*corner, *corner), words, (0, 114, 178))])
        there = (np.asarray(image) == (0, 114, 178)).all(-1)
        assert there.any()
        assert there.any(0).sum() <= 480


def ground(image: Image.Image, hue: drawing.Colour) -> int:
    return int((np.asarray(image) == hue).all(-1).sum())


def test_words_of_boxes_at_one_place_do_not_cover_each_other() -> None:
    box, hues = (40.0, 40.0, 400.0, 400.0), [drawing.colour(number) for number in range(6)]
    together = Image.new("RGB", (480, 480))
    drawing.labels(together, [(box, "coat", hue) for hue in hues])
    for hue in hues:
        alone = Image.new("RGB", (480, 480))
        drawing.labels(alone, [(box, "coat", hue)])
        assert ground(together, hue) == ground(alone, hue) > 0


def test_where_there_is_no_room_the_first_is_on_top() -> None:
    image = Image.new("RGB", (60, 24))
    drawing.labels(image, [((0, 0, 60, 24), "coat", hue) for hue in (drawing.colour(0), drawing.colour(1))])
    assert ground(image, drawing.colour(0)) > ground(image, drawing.colour(1))


def test_ink_is_read_on_every_ground() -> None:
    for number in range(21):
        ground, ink = drawing.colour(number), drawing.ink(drawing.colour(number))
        light = [0.299 * red + 0.587 * green + 0.114 * blue for red, green, blue in (ground, ink)]
        assert abs(light[0] - light[1]) > 80


def test_a_contact_sheet_shows_every_picture_and_goes_on_a_second_one() -> None:
    pictures = [(f"{k}.png", Image.new("RGB", (500, 400), (k, 0, 0))) for k in range(31)]
    sheets = list(drawing.contact_sheets(iter(pictures), 31))
    assert len(sheets) == 2
    seen_reds = {colour[0] for _, colour in sheets[0].getcolors(1 << 20) if colour[1:] == (0, 0)}
    assert set(range(30)) <= seen_reds
