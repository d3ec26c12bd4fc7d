"""Boxes, joints and outlines in the formats that tools write: Pascal VOC's XML, YOLO's text with a data.yaml; and which
format is meant.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import label_forms
import numpy as np
import pytest
import sets
from label_forms import FORMS, SIZE, note, rows

from fnatool.data.checking import checked
from fnatool.data.formats import FORMATS
from fnatool.data.options import FORMAT_NAMES, DataOptions
from fnatool.data.split import BadData, Boxed, Outlined, Posed, Split
from fnatool.tasks import detection, segmentation
from fnatool.tasks.detection import Detected
from fnatool.tasks.reading import Holdout, read, read_both
from passes.errors import UserError

ONE = [(1, 10, 20, 50, 60)]


def whole(root: Path, task: str = "detection", options: DataOptions | None = None) -> Split:
    """All of a data set that is not split."""
    return read(root, task=task, holdout=Holdout(0), options=options or DataOptions())


def boxes(split: Split) -> list[list[list[float]]]:
    return [item.boxes.tolist() for item in split.items if isinstance(item, Boxed)]


def faults(split: Split) -> list[tuple[str, str]]:
    return [(fault.finding.code, f"{fault.finding.where}: {fault.finding.message}") for fault in split.faults]


LONG = "larger than any file of labels"


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if content == LONG:
        with path.open("wb") as file:
            file.truncate((16 << 20) + 1)
        return path
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- the same boxes in three forms ---


def seen(split: Split) -> list[tuple[object, ...]]:
    return [tuple(array.tobytes() for array in item.arrays()) for item in split.items]


def test_the_names_that_configs_know_are_those_of_the_table() -> None:
    assert list(FORMATS) == list(FORMAT_NAMES)


def test_the_same_boxes_are_the_same_items_to_the_bit_in_every_form(tmp_path: Path) -> None:
    read_ones = {
        name: checked(read_both(write_form(tmp_path / name), task="detection")) for name, write_form in FORMS.items()
    }
    first = read_ones["coco"]
    assert sum(len(item.boxes) for split in first for item in split.items if isinstance(item, Boxed)) > 20
    for name, found in read_ones.items():
        assert [split.classes for split in found] == [label_forms.NAMES] * 2, name
        assert [seen(split) for split in found] == [seen(split) for split in first], name


def precision(split: Split) -> dict[str, float]:
    """The figures of a detector that is off by up to three pixels, and finds most of what is there."""
    rng = np.random.default_rng(0)
    evidence = []
    for item in split.items:
        assert isinstance(item, Boxed)
        moved = (item.boxes + rng.uniform(-3, 3, item.boxes.shape)).astype(np.float32)
        found = Detected(
            moved, rng.random(len(moved)).astype(np.float32), np.where(rng.random(len(moved)) < 0.8, item.labels, 0)
        )
        evidence.append((found, item))
    described = detection.Detection.model_construct(classes=split.classes)
    return detection.score(evidence, described)


def test_figures_are_the_same_to_the_bit_in_every_form(tmp_path: Path) -> None:
    figures = [
        precision(read(write_form(tmp_path / name), task="detection", split="val"))
        for name, write_form in FORMS.items()
    ]
    assert 0 < figures[0]["mAP"] < 1
    assert figures[0] == figures[1] == figures[2]
    other = write(tmp_path / "yolo/labels/val/001.txt", rows([(0, 0, 0, 64, 64)]))
    assert precision(read(other.parents[2], task="detection", split="val")) != figures[0]


# --- Pascal VOC ---


def flat(root: Path, content: str | bytes, name: str = "a") -> Path:
    sets.picture(root / f"{name}.png", SIZE)
    write(root / f"{name}.xml", content)
    return root


def test_pixels_of_voc_are_counted_from_one_and_the_last_is_the_objects(root: Path) -> None:
    box = "<xmin>1</xmin><ymin>2</ymin><xmax>128</xmax><ymax>3.5</ymax>"
    text = f"<annotation><object><name>cat</name><bndbox>{box}</bndbox></object></annotation>"
    assert boxes(whole(flat(root, text))) == [[[0, 1, 128, 3.5]]]


def test_difficult_objects_are_crowds(root: Path) -> None:
    flat(root, note(ONE, more="<difficult>1</difficult>"))
    flat(root, note(ONE, more="<difficult>0</difficult>"), "b")
    assert [item.crowd.tolist() for item in whole(root).items if isinstance(item, Boxed)] == [[True], [False]]


@pytest.mark.parametrize("split", ["", "train/"])
@pytest.mark.parametrize(
    ("pictures", "notes"),
    [("", ""), ("images/", "annotations/"), ("JPEGImages/", "Annotations/"), ("images/", "images/"), ("", "labels/")],
)
def test_xml_is_found_beside_pictures_and_in_folders(pictures: str, notes: str, split: str, root: Path) -> None:
    sets.picture(root / f"{split}{pictures}a ä.PNG", SIZE)
    write(root / f"{split}{notes}a ä.XML", note(ONE, name="a ä.PNG"))
    assert boxes(whole(root)) == [[[10, 20, 50, 60]]]


def test_an_archive_of_voc_has_folders_around_it(root: Path) -> None:
    label_forms.voc(root / "VOCdevkit/VOC2012")
    train, val = checked(read_both(root, task="detection"))
    assert (len(train.items), len(val.items)) == (12, 6)


@pytest.mark.parametrize("name", ["a.png", "old\\dir\\a.png", "old/a.png", "", "renamed.png", "a"])
def test_the_picture_is_that_of_the_filename_or_else_of_the_xmls_own_name(name: str, root: Path) -> None:
    assert [item.image for item in whole(flat(root, note(ONE, name=name))).items] == ["a.png"]


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "C:\\data\\a.png", "x/../../a.png"])
def test_a_filename_does_not_lead_out_of_the_data(name: str, root: Path) -> None:
    flat(root, note(ONE, name="b.png"), "b")
    ((code, message),) = faults(whole(flat(root, note(ONE, name=name))))
    assert (code, message[:20]) == ("outside", "a.xml: its filename ")


def test_names_of_classes_are_those_of_all_splits_in_order(root: Path) -> None:
    flat(root / "train", note([(2, 0, 0, 9, 9)]))
    flat(root / "val", note([(0, 0, 0, 9, 9)]))
    assert [split.classes for split in read_both(root, task="detection")] == [("cat", "owl")] * 2
    write(root / "classes.txt", "owl\r\ncat\r\n")
    assert read(root, task="detection").classes == ("owl", "cat")


def test_a_class_that_the_model_has_not_is_a_fault_and_no_picture_is_lost(root: Path) -> None:
    flat(root, note([*ONE, (0, 0, 0, 9, 9)]))
    split = read(root, task="detection", classes=("cat",), holdout=Holdout(0))
    assert faults(split) == [("foreign-class", "a.xml: object 1 ('dog'): its name is none of the 1 classes")]
    assert boxes(split) == [[[0, 0, 9, 9]]]


def test_pictures_without_xml_are_no_samples_and_are_counted(root: Path) -> None:
    flat(root, note(ONE))
    sets.picture(root / "b.png", SIZE)
    split = whole(root)
    assert len(split.items) == 1
    assert split.notes == ("1 picture(s) without an .xml are left out, as 'b.png'",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is not XML, or not all of it (line 1: no element found)"),
        (note(ONE)[:-20], "it is not XML, or not all of it"),
        (b"\xff\xff" + note(ONE).encode(), "it is not XML"),
        ("<annotations><image/></annotations>", "it is a <annotations>, not the <annotation> of Pascal VOC"),
        (
            '<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>',
            "it declares entities, or has a document type from elsewhere",
        ),
        ('<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]><annotation/>', "it declares entities"),
        ('<!DOCTYPE a SYSTEM "http://example.com/a.dtd"><annotation/>', "or has a document type from elsewhere"),
        ("<annotation>" * 40 + "</annotation>" * 40, "its elements lie more than 32 deep in each other"),
        (LONG, "it is larger than 16 MiB"),
        (note([(0, 20, 20, 10, 30)]), "its bndbox has no area: xmin 21, ymin 21, xmax 10, ymax 30"),
        (note([(0, 200, 20, 210, 30)]), "its bndbox is outside the image, which is 128×64"),
        (
            note(ONE).replace("<xmax>50", "<xmax>nan"),
            "its bndbox is not four numbers: xmin '11', ymin '21', xmax 'nan', ymax '60'",
        ),
        (note(ONE).replace("<xmax>50", "<xmax>1e400"), "its bndbox is not four numbers"),
        (note(ONE).replace("<xmax>50", "<xmax>" + "5" * 500), "its bndbox is not four numbers"),
        (note(ONE).replace("bndbox", "robndbox"), "object 1 ('dog'): it has no bndbox"),
        (note(ONE).replace("<name>dog</name>", ""), "object 1: it has no name"),
        (note(ONE, size=(64, 64)), "it is 128×64, but the annotations say 64×64"),
    ],
)
def test_broken_xml_is_named_and_left_out_on_demand(content: str | bytes, message: str, root: Path) -> None:
    flat(root, note(ONE), "good")
    flat(root, content, "bad")
    with pytest.raises(BadData) as error:
        checked([whole(root)])
    assert any(
        message in f"{finding.where}: {finding.message}" and "bad.xml" in finding.where
        for finding in error.value.findings
    )
    (left,) = checked([whole(root)], skip_bad=True)
    assert [item.image for item in left.items] == ["good.png"]


def test_a_pipe_among_labels_is_not_opened(root: Path) -> None:
    flat(root, note(ONE))
    os.mkfifo(root / "b.xml")
    assert faults(whole(root)) == [("xml", "b.xml: it is a named pipe, not a file")]


def test_two_files_about_one_picture_are_a_fault(root: Path) -> None:
    flat(root, note(ONE, name="a.png"))
    write(root / "b.xml", note(ONE, name="a.png"))
    ((code, message),) = faults(whole(root))
    assert (code, "that of a.xml too" in message) == ("same-file", True)


def test_lines_of_a_list_that_have_no_labels_are_named(root: Path) -> None:
    label_forms.voc(root)
    with (root / "ImageSets/Main/train.txt").open("a") as file:
        file.write("train_000 1\nnone\n")
    assert faults(read(root, task="detection")) == [
        ("listed-twice", "ImageSets/Main/train.txt:13: 'train_000' is listed before"),
        ("missing-labels", "ImageSets/Main/train.txt:14: there is no Annotations/none.xml"),
    ]


def test_boxes_that_reach_out_are_cut_with_one_note(root: Path) -> None:
    flat(root, note([(0, 100, 10, 140, 30), (0, 100, 10, 133, 30)]))
    split = whole(root)
    assert boxes(split) == [[[100, 10, 128, 30]] * 2]
    assert split.notes == ("2 box(es) reach out of their images, by up to 12 pixels, and are cut to them",)


# --- YOLO ---


def yolo(root: Path, content: str | bytes, *, names: str = "names: [cat, dog, owl]", more: str = "") -> Path:
    sets.picture(root / "images/train/a.png", SIZE)
    write(root / "labels/train/a.txt", content)
    write(root / "data.yaml", f"train: images/train\n{names}\n{more}\n")
    return root


@pytest.mark.parametrize(
    "names",
    [
        "names: [cat, dog]",
        "nc: 2\nnames:\n- cat\n- dog",
        "names:\n  1: dog\n  0: cat",
        "names: {0: cat, '1': dog}",
        "nc: 2",
    ],
)
def test_names_are_a_list_or_by_number(names: str, root: Path) -> None:
    found = whole(yolo(root, rows(ONE), names=names)).classes
    assert found == (("class_0", "class_1") if names == "nc: 2" else ("cat", "dog"))


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        ("train: images/train", ""),
        ("path: .\ntrain: images/train", ""),
        ("path: /home/me/datasets/pets\ntrain: images/train", ""),
        ("path: ../datasets/pets\ntrain: images/train", ""),
        ("path: pets\ntrain: images/train", "pets/"),
        ("train: ../train/images", "ROBOFLOW"),
        ("train: [images/train, images/more]", ""),
        ("train: list.txt", ""),
        ("train: ./images\\train", ""),
    ],
)
def test_pictures_are_where_tools_say(lines: str, path: str, root: Path) -> None:
    inside = root / path if path != "ROBOFLOW" else root
    images, labels = ("train/images", "train/labels") if path == "ROBOFLOW" else ("images/train", "labels/train")
    sets.picture(inside / f"{images}/a.png", SIZE)
    write(inside / f"{labels}/a.txt", rows(ONE))
    (inside / "images/more").mkdir(parents=True, exist_ok=True)
    write(root / "list.txt", "./images/train/a.png\r\n")
    write(root / "data.yaml", f"{lines}\ntest: ../test/images\nnames: [cat, dog]\n")
    assert boxes(whole(root)) == [[[10, 20, 50, 60]]]


@pytest.mark.parametrize("line", ["train: ../../other", "train: /etc", "train: [images/train, ../other]"])
def test_a_yaml_does_not_lead_out_of_the_data(line: str, root: Path) -> None:
    yolo(root, rows(ONE))
    (root.parent / "other").mkdir()
    write(root / "data.yaml", f"{line}\nnames: [cat, dog]\n")
    with pytest.raises(UserError, match=r"(leads out of the folder of the data|is not there); give folders seen from"):
        read(root, task="detection")


@pytest.mark.parametrize(
    "form", ["images and labels", "beside", "split folders", "splits inside", "label studio", "darknet"]
)
def test_labels_are_found_without_a_yaml(form: str, root: Path) -> None:
    names = root / "classes.txt"
    places = {
        "images and labels": ("images", "labels"),
        "beside": ("", ""),
        "split folders": ("train/images", "train/labels"),
        "splits inside": ("images/train", "labels/train"),
        "label studio": ("images", "labels"),
        "darknet": ("obj_train_data", "obj_train_data"),
    }
    images, labels = places[form]
    sets.picture(root / images / "a b.JPG", SIZE)
    write(root / labels / "a b.txt", rows(ONE))
    if form == "label studio":
        write(root / "notes.json", json.dumps({"categories": [{"id": 0, "name": "cat"}], "info": {}}))
    write(root / "obj.names" if form == "darknet" else names, "\ufeffcat\r\ndog\r\n")
    assert boxes(whole(root)) == [[[10, 20, 50, 60]]]
    assert whole(root).classes == ("cat", "dog")


def test_labels_without_names_ask_for_them(root: Path) -> None:
    sets.picture(root / "images/a.png", SIZE)
    write(root / "labels/a.txt", rows(ONE))
    with pytest.raises(UserError, match=r"nothing that names their classes: put the names into classes\.txt"):
        read(root, task="detection")


def test_a_picture_without_labels_has_no_objects_and_is_counted(root: Path) -> None:
    yolo(root, rows(ONE))
    sets.picture(root / "images/train/b.png", SIZE)
    split = whole(root)
    assert boxes(split) == [[[10, 20, 50, 60]], []]
    assert split.notes == ("1 picture(s) have no file of labels, and count as pictures without objects",)


def test_not_one_file_of_labels_is_a_mistake(root: Path) -> None:
    yolo(root, rows(ONE))
    shutil.rmtree(root / "labels")
    with pytest.raises(
        UserError, match=r"not one of the 1 pictures for train in .* has labels: looked for '.*images/train/a\.txt'"
    ):
        read(root, task="detection")


@pytest.mark.parametrize("content", ["\ufeff{}", "{}\n\n", "\r\n{}\r\n"])
def test_marks_and_ends_of_lines_do_not_matter(content: str, root: Path) -> None:
    assert boxes(whole(yolo(root, content.format(rows(ONE).strip())))) == [[[10, 20, 50, 60]]]


def test_an_outline_is_a_box_around_it_and_keeps_its_own_area(root: Path) -> None:
    (item,) = whole(yolo(root, "0 0.25 0.25 0.5 0.25 0.25 0.75\n")).items
    assert isinstance(item, Boxed)
    assert (item.boxes.tolist(), item.areas.tolist()) == ([[32, 16, 64, 48]], [512.0])


def test_a_row_that_stands_twice_counts_once(root: Path) -> None:
    split = whole(yolo(root, rows(ONE) * 2))
    assert (len(boxes(split)[0]), split.notes) == (1, ("1 row(s) of labels stand twice, and count once",))


def test_shares_beyond_the_picture_are_cut_with_one_note(root: Path) -> None:
    split = whole(yolo(root, "0 1.0 0.5 0.5 0.5\n"))
    assert boxes(split) == [[[96, 16, 128, 48]]]
    assert split.notes == ("1 box(es) reach out of their images, by up to 32 pixels, and are cut to them",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("3 .5 .5 .1 .1", "labels/train/a.txt:1: its class is 3, but there are 3 classes, 0 … 2"),
        ("-1 .5 .5 .1 .1", "its class is -1, but"),
        ("0.5 .5 .5 .1 .1", "its class is 0.5, but"),
        ("cat .5 .5 .1 .1", "it holds 'cat', which is no number that a place can be"),
        ("0 nan .5 .1 .1", "it holds 'nan'"),
        ("0 inf .5 .1 .1", "it holds 'inf'"),
        ("0 1_0 .5 .1 .1", "it holds '1_0'"),
        ("0 .5 .5 .1", "it holds 4 numbers, not the 5 of a class and a box"),
        ("0 .5 .5 .1 .1 .99", "it holds 6 numbers, not the 5"),
        ("0 .5 .5 0 .1", "its box has no area: width 0, height 0.1"),
        ("0 320 240 50 60", "its box 320 240 50 60 is outside the picture; are these pixels?"),
        ("0 .5 .5 .5 .5 .5 .5", "its outline has no area"),
        (b"\xff\xfe0\x00", "labels/train/a.txt: it is not UTF-8 text (byte 0)"),
        (LONG, "it is larger than 16 MiB"),
    ],
)
def test_broken_rows_are_named_and_their_pictures_left_out_on_demand(
    content: str | bytes, message: str, root: Path
) -> None:
    yolo(root, content)
    sets.picture(root / "images/train/good.png", SIZE)
    write(root / "labels/train/good.txt", rows(ONE))
    with pytest.raises(BadData) as error:
        checked([whole(root)])
    assert any(message in f"{finding.where}: {finding.message}" for finding in error.value.findings)
    (left,) = checked([whole(root)], skip_bad=True)
    assert [item.image for item in left.items] == ["images/train/good.png"]


def test_labels_without_a_picture_and_pipes_are_faults(root: Path) -> None:
    yolo(root, rows(ONE))
    write(root / "labels/train/gone.txt", rows(ONE))
    sets.picture(root / "images/train/b.png", SIZE)
    os.mkfifo(root / "labels/train/b.txt")
    assert {code for code, _ in faults(whole(root))} == {"missing-image", "labels"}


def test_a_list_names_what_is_not_there(root: Path) -> None:
    yolo(root, rows(ONE))
    write(root / "list.txt", "images/train/a.png\nimages/train/none.png\n/etc/passwd\nimages/train/a.png\n")
    write(root / "data.yaml", "train: list.txt\nnames: [cat, dog]\n")
    split = whole(root)
    assert [code for code, _ in faults(split)] == ["missing-image", "outside", "listed-twice"]
    assert len(split.items) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not describe data"),
        ("- a", "does not describe data"),
        ("names: [cat", "this is not YAML that can be read"),
        ("train: images/train\nnames: []", "'names' is no list of names"),
        ("train: images/train\nnames: [cat, cat]", "two of the 'names' are equal"),
        ("train: images/train\nnames: {0: cat, 2: dog}", "does not give a name to each of 0 … 1"),
        ("train: images/train\nnames: [cat]\nnc: 2", "'nc' is 2, but there are 1 'names'"),
        ("train: 5\nnames: [cat]", "'train' is no path, and no list of paths"),
        ("names: [cat]", "says nowhere where the data is"),
        ("train: images/train\nnames: &a [cat]\nother: [*a, *a]", "has aliases"),
        ("train: images/train\nnames: !!python/object/apply:os.system [ls]", "this is not YAML that can be read"),
        ("a: " + "[" * 2000, "brackets lie more than 32 deep in each other"),
        (LONG, "is larger than 256 KiB"),
        ("train: images/train\nnames: [cat]\nkpt_shape: [3, 4]", "'kpt_shape' is not [joints, 2] or [joints, 3]"),
        (
            "train: images/train\nnames: [cat]\nkpt_shape: [2, 3]\nflip_idx: [1, 0]",
            "nothing names them; add 'kpt_names'",
        ),
        (
            "train: images/train\nnames: [cat]\nkpt_shape: [2, 3]\nkpt_names: [a]",
            "'kpt_names' is not 2 different names",
        ),
    ],
)
def test_a_yaml_of_no_use_is_one_message(text: str, message: str, root: Path) -> None:
    yolo(root, rows(ONE))
    write(root / "data.yaml", text)
    with pytest.raises(UserError) as error:
        read(root, task="detection")
    assert message in str(error.value)


def test_a_yaml_may_be_given_instead_of_its_folder(root: Path) -> None:
    label_forms.yolo(root)
    split = read(root / "data.yaml", task="detection", split="val")
    assert seen(split) == seen(read(root, task="detection", split="val"))


def darknet(
    root: Path, said: str = "classes = 3\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n"
) -> Path:
    """As CVAT writes YOLO 1.1: paths begin with a folder that is not there."""
    label_forms.yolo(root)
    (root / "data.yaml").unlink()
    for split, name in (("train", "train"), ("val", "valid")):
        shutil.move(root / "images" / split, root / f"obj_{name}_data")
        for label in (root / "labels" / split).iterdir():
            label.rename(root / f"obj_{name}_data" / label.name)
        pictures = sorted(path.name for path in (root / f"obj_{name}_data").glob("*.png"))
        write(root / f"{name}.txt", "".join(f"data/obj_{name}_data/{picture}\n" for picture in pictures))
    for folder in ("images", "labels"):
        shutil.rmtree(root / folder)
    write(root / "obj.names", "\n".join(label_forms.NAMES))
    write(root / "obj.data", said)
    return root


@pytest.mark.parametrize("split", ["train", "val"])
def test_darknets_obj_data_says_the_same_as_a_yaml(split: str, tmp_path: Path) -> None:
    old, new = label_forms.yolo(tmp_path / "yaml"), darknet(tmp_path / "darknet")
    before, after = read(old, task="detection", split=split), read(new, task="detection", split=split)
    assert seen(after) == seen(before)
    assert after.classes == before.classes
    assert seen(read(new / "obj.data", task="detection", split=split)) == seen(after)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("train = data/train.txt\nnames = none.names", "there is no file of names 'none.names'"),
        ("train = data/gone.txt\nnames = obj.names", "'data/gone.txt' is not there"),
        ("train = ../../train.lst\nnames = obj.names", "'../../train.lst' is not there"),
        ("classes = 7\ntrain = train.txt\nnames = obj.names", "'classes' is 7, but there are 3 names"),
        ("train = train.txt\nnames = twice.names", "two of the names in"),
    ],
)
def test_an_obj_data_of_no_use_is_one_message(said: str, message: str, tmp_path: Path) -> None:
    root = darknet(tmp_path, said)
    write(root / "twice.names", "cat\ncat\n")
    with pytest.raises(UserError) as error:
        read(root, task="detection")
    assert message in str(error.value)


POSE = "kpt_shape: [3, 3]\nkpt_names: {0: [nose, left_eye, right_eye]}"


def test_joints_follow_the_box(root: Path) -> None:
    content = "0 .5 .5 .5 .5 .5 .25 2 .25 .5 1 0 0 0\n0 .5 .5 .5 .5 " + "0 0 0 " * 3
    split = whole(yolo(root, content, names="names: [person]", more=POSE), "pose")
    (item,) = split.items
    assert isinstance(item, Posed)
    assert split.joints == ("nose", "left_eye", "right_eye")
    assert item.box.tolist() == [32, 16, 96, 48]
    assert (item.points[:2].tolist(), item.seen.tolist()) == ([[64, 16], [32, 32]], [2, 1, 0])
    assert split.notes == ("1 object(s) have no joint that is labelled",)


def test_joints_of_two_numbers_are_seen_where_they_are_in_the_picture(root: Path) -> None:
    more = "kpt_shape: [3, 2]"
    split = whole(yolo(root, "0 .5 .5 .5 .5 .5 .5 0 0 -1 -1", names="names: [person]", more=more), "pose")
    assert [item.seen.tolist() for item in split.items if isinstance(item, Posed)] == [[2, 0, 0]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0 .5 .5 .5 .5 .5 .5 2", "it holds 8 numbers, not the 14 of a box and 3 joints of 3 ('kpt_shape')"),
        ("0 .5 .5 .5 .5 .5 .5 3 0 0 0 0 0 0", "a visibility of its joints is not 0, 1 or 2"),
        ("0 .5 .5 .5 .5 5 5 2 0 0 0 0 0 0", "all of its joints are outside the picture; are these pixels?"),
    ],
)
def test_broken_joints_are_faults(row: str, message: str, root: Path) -> None:
    yolo(root, f"{row}\n0 .5 .5 .5 .5 .5 .5 2 0 0 0 0 0 0", names="names: [person]", more=POSE)
    assert message in faults(whole(root, "pose"))[0][1]


def test_outlines_become_masks_the_smaller_ones_on_top(root: Path) -> None:
    square = "1 .25 .25 .75 .25 .75 .75 .25 .75"
    inner = "0 .375 .375 .625 .375 .625 .625 .375 .625"
    for text in (f"{square}\n{inner}\n", f"{inner}\n{square}\n"):
        split = whole(yolo(root, text), "segmentation")
        assert split.classes == ("background", "cat", "dog", "owl")
        (item,) = split.items
        assert isinstance(item, Outlined)
        made = segmentation.truth(split, item)
        assert [int((made == label).sum()) for label in range(3)] == [64 * 128 - 64 * 32, 32 * 16, 64 * 32 - 32 * 16]
        assert (made[16:48, 32:96] > 0).all()
    checked([split])


def test_a_box_is_no_outline(root: Path) -> None:
    yolo(root, "1 .25 .25 .75 .25 .75 .75 .25 .75\n0 .5 .5 .1 .1")
    assert "it is a box, not a class and the points of an outline" in faults(whole(root, "segmentation"))[0][1]


# --- which format is meant ---


def test_two_formats_in_a_folder_are_a_question_that_a_config_answers(root: Path) -> None:
    label_forms.voc(root)
    label_forms.coco(root / "x")
    for name in ("train", "val"):
        shutil.move(root / "x" / name, root / name)
        shutil.move(root / f"x/annotations/instances_{name}.json", root / f"Annotations/instances_{name}.json")
    with pytest.raises(
        UserError,
        match=r"detection data as COCO \('coco'\) and Pascal VOC \('voc'\); say which one is meant, with --data-format",
    ):
        read(root, task="detection")
    found = {name: read(root, task="detection", options=DataOptions(format=name)).layout for name in ("coco", "voc")}
    assert found == {"coco": "COCO", "voc": "Pascal VOC"}


@pytest.mark.parametrize(
    ("name", "message"),
    [("xyz", "is no format of data; there are folders, coco"), ("masks", "there is no detection data")],
)
def test_a_format_that_there_is_not_is_said(name: str, message: str, root: Path) -> None:
    label_forms.coco(root)
    with pytest.raises(UserError, match=message):
        read(root, task="detection", options=DataOptions(format=name))


def test_labels_of_another_tool_beside_do_not_make_a_format(root: Path) -> None:
    flat(root, note(ONE))
    write(root / "a.json", "{}")
    write(root / "b.json", "[]")
    assert whole(root).layout == "Pascal VOC"
