"""Masks as tools leave them: called like their images but for an end, in colours, with other values for background and
what counts for nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sets
from PIL import Image

from fnatool.data import images
from fnatool.data.checking import checked
from fnatool.data.masks import codes_of
from fnatool.data.options import DataOptions
from fnatool.data.split import IGNORE, BadData, Masked, Split
from fnatool.tasks import segmentation
from fnatool.tasks.reading import Holdout, read
from passes.errors import UserError

SIZE = (20, 30)
LABELMAP = "# label:color_rgb:parts:actions\r\nground:0,0,0::\r\nthing:250,50,83::\r\nother:51,221,255::action\r\n"


def whole(root: Path, **said: object) -> Split:
    return read(root, task="segmentation", holdout=Holdout(0), options=DataOptions(**said))  # type: ignore[arg-type]


def pairs(split: Split) -> list[tuple[str, str]]:
    return [(item.image, item.mask) for item in split.items if isinstance(item, Masked)]


def coloured(path: Path, colours: list[tuple[int, int, int]]) -> Path:
    """A picture of as many columns as colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.tile(np.array(colours, np.uint8), (4, 1, 1))).save(path)
    return path


# --- names ---


@pytest.mark.parametrize(
    "end", ["_mask", "_seg", "-mask", "_label", "_labels", "_gt", "_Mask", " mask", "_segmentation", ".mask"]
)
@pytest.mark.parametrize(
    ("pictures", "masks"), [("images", "masks"), ("JPEGImages", "labels"), ("imgs", "gt"), ("x", "x")]
)
def test_a_mask_is_called_like_its_image_but_for_an_end(end: str, pictures: str, masks: str, root: Path) -> None:
    sets.picture(root / pictures / "a_1.jpg")
    sets.mask(root / masks / f"a_1{end}.png")
    (root / "classes.txt").write_text("ground\nthing\n")
    if pictures == masks:
        for path in list((root / "x").iterdir()):
            path.rename(root / path.name)
    (pair,) = pairs(whole(root))
    assert [Path(name).name for name in pair] == ["a_1.jpg", f"a_1{end}.png"]


def test_an_equal_name_goes_before_an_end(root: Path) -> None:
    for name in ("a", "a_mask"):
        sets.picture(root / f"images/{name}.jpg")
        sets.mask(root / f"masks/{name}.png")
    (root / "classes.txt").write_text("ground\nthing\n")
    assert pairs(whole(root)) == [("images/a.jpg", "masks/a.png"), ("images/a_mask.jpg", "masks/a_mask.png")]


def test_images_may_have_an_end_too(root: Path) -> None:
    sets.picture(root / "images/7_sat.jpg")
    sets.mask(root / "masks/7_mask.png")
    (root / "classes.txt").write_text("ground\nthing\n")
    assert pairs(whole(root)) == [("images/7_sat.jpg", "masks/7_mask.png")]


def test_masks_beside_images_without_a_partner_are_faults(root: Path) -> None:
    for name in ("a", "b"):
        sets.picture(root / f"{name}.jpg")
    sets.mask(root / "a_mask.png")
    (root / "classes.txt").write_text("ground\nthing\n")
    split = whole(root)
    assert pairs(split) == [("a.jpg", "a_mask.png")]
    assert [(fault.finding.code, fault.finding.where) for fault in split.faults] == [("missing-mask", "b.jpg")]


# --- colours ---


def with_labelmap(root: Path, *masks: list[tuple[int, int, int]], text: str = LABELMAP) -> Path:
    for number, colours in enumerate(masks):
        sets.picture(root / f"JPEGImages/{number}.jpg", (4, len(colours)))
        coloured(root / f"SegmentationClass/{number}.png", colours)
    (root / "labelmap.txt").write_text(text)
    return root


def truths(split: Split) -> list[list[int]]:
    return [segmentation.truth(split, item)[0].tolist() for item in split.items if isinstance(item, Masked)]


COLOURS = [(0, 0, 0), (250, 50, 83), (51, 221, 255)]


def test_a_labelmap_names_classes_and_their_colours(root: Path) -> None:
    split = whole(with_labelmap(root, COLOURS, [COLOURS[2], COLOURS[0]]))
    assert split.classes == ("ground", "thing", "other")
    assert truths(split) == [[0, 1, 2], [2, 0]]
    (left,) = checked([split])
    assert left.digest


def test_the_same_masks_by_numbers_and_by_colours_are_the_same(root: Path) -> None:
    split = whole(with_labelmap(root, COLOURS))
    path = root / "SegmentationClass/0.png"
    for mode in ("P", "L"):
        numbers = Image.fromarray(np.tile(np.arange(3, dtype=np.uint8), (4, 1)))
        if mode == "P":
            numbers.putpalette([part for colour in COLOURS for part in colour])
        numbers.save(path)
        assert truths(split) == [[0, 1, 2]]


def test_grey_colours_of_a_labelmap_may_be_those_of_a_grey_mask(root: Path) -> None:
    with_labelmap(root, [(0, 0, 0), (255, 255, 255)], text="ground:0,0,0::\nthing:255,255,255::\n")
    assert truths(whole(root)) == [[0, 1]]
    Image.fromarray(np.array([[0, 255]] * 4, np.uint8)).save(root / "SegmentationClass/0.png")
    assert truths(whole(root)) == [[0, 1]]


def test_a_colour_that_no_label_has_is_named(root: Path) -> None:
    with pytest.raises(BadData, match=r"it has the colour 1,2,3, which is none of the 3 that labelmap\.txt names"):
        checked([whole(with_labelmap(root, COLOURS, [(0, 0, 0), (1, 2, 3)]))])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ground:0,0,0::\nthing:0,0::\n", r"line 2: 'thing:0,0::' is not name:red,green,blue:parts:actions"),
        ("ground:0,0,0::\nthing:0,0,256::\n", "line 2: "),
        ("ground:0,0,0::\nground:1,0,0::\n", "line 2: 'ground' has the name or the colour of another label"),
        ("ground:0,0,0::\nthing:0,0,0::\n", "line 2: 'thing' has the name or the colour of another label"),
        ("# nothing\n", "names 0 labels"),
    ],
)
def test_a_labelmap_of_no_use_is_one_message(text: str, message: str, root: Path) -> None:
    with pytest.raises(UserError, match=message):
        whole(with_labelmap(root, COLOURS, text=text))


def test_classes_that_a_labelmap_has_otherwise_are_refused(root: Path) -> None:
    with_labelmap(root, COLOURS)
    with pytest.raises(UserError, match="are not those that are asked for"):
        read(root, task="segmentation", classes=("a", "b", "c"))
    (root / "classes.txt").write_text("thing\nground\nother\n")
    with pytest.raises(UserError, match=r"are not those that classes\.txt states"):
        whole(root)


def test_the_first_colours_of_voc_are_as_published() -> None:
    published = [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
        (0, 0, 128),
        (128, 0, 128),
        (0, 128, 128),
        (128, 128, 128),
        (64, 0, 0),
    ]
    assert list(images.voc_colours()[:9]) == published
    assert (images.voc_colours()[20], images.voc_colours()[255]) == ((0, 64, 128), (224, 224, 192))


def test_pictures_in_the_colours_of_voc_are_masks(root: Path) -> None:
    sets.pascal(root)
    colours = images.voc_colours()
    Image.fromarray(np.array([[colours[0], colours[20], colours[255]] * 10] * 20, np.uint8)).save(
        root / "SegmentationClass/0.png"
    )
    assert truths(read(root, task="segmentation"))[0][:3] == [0, 20, IGNORE]
    coloured(root / "SegmentationClass/1.png", [(0, 0, 0), (5, 6, 7)])
    with pytest.raises(BadData, match=r"not in Pascal VOC's colours"):
        checked([read(root, task="segmentation")])


# --- values ---


@pytest.mark.parametrize(
    ("said", "values"),
    [
        ({}, {0: 0, 1: 1, 2: 2, 255: IGNORE}),
        ({"ignore": (0,)}, {0: IGNORE, 1: 0, 2: 1, 3: 2}),
        ({"ignore": (0, 255)}, {0: IGNORE, 1: 0, 2: 1, 3: 2, 255: IGNORE}),
        ({"background": 2}, {2: 0, 0: 1, 1: 2, 255: IGNORE}),
        ({"background": 255, "ignore": (7,)}, {255: 0, 0: 1, 1: 2, 7: IGNORE}),
        ({"background": 3, "ignore": (1,)}, {3: 0, 0: 1, 2: 2, 1: IGNORE}),
    ],
)
def test_values_of_masks_are_classes_in_their_order_but_for_what_is_said(
    said: dict[str, object], values: dict[int, int]
) -> None:
    codes = codes_of(3, DataOptions(**said))  # type: ignore[arg-type]
    assert {value: code for value, code in enumerate(codes) if code != 254} == values


def test_masks_are_read_with_these_values(root: Path) -> None:
    sets.mask_folders(root, count=1)
    sets.mask(root / "masks/0.png", np.tile(np.array([0, 1, 2], np.uint8), (20, 10)))
    split = whole(root, ignore=(0,))
    assert truths(split)[0][:3] == [IGNORE, 0, 1]
    assert truths(whole(root, background=2, ignore=(0,)))[0][:3] == [IGNORE, 1, 0]
    assert checked([split])[0].digest != checked([whole(root, background=2, ignore=(0,))])[0].digest
    with pytest.raises(BadData, match=r"it holds the value 2, but the 2 classes are 0 … 1 \(255: to be ignored\)"):
        checked([whole(root)])


def test_values_are_said_of_masks_alone(root: Path) -> None:
    sets.boxes(root)
    with pytest.raises(UserError, match="'background' and 'ignore' are said of masks; detection has none"):
        read(root, task="detection", options=DataOptions(ignore=(0,)))
    sets.streets(root)
    with pytest.raises(UserError, match="Cityscapes itself says what its masks hold"):
        read(root, task="segmentation", options=DataOptions(background=1))
