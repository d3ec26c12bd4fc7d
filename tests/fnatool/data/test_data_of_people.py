"""Data sets with the habits of people and tools: how folders are called and linked, what lies beside data, how names
are written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sets
from PIL import Image

from fnatool.data import folders, images
from fnatool.data.checking import checked
from fnatool.data.sources import split_in, split_of
from fnatool.data.split import BadData, Boxed, Labelled, Posed, Split, said, spread
from fnatool.model.calibration import image_files
from fnatool.tasks.reading import Holdout, read, read_both
from passes.errors import UserError


def whole(root: Path, task: str = "classification") -> Split:
    """All of a data set that is not split."""
    return read(root, task=task, holdout=Holdout(0))


def names(split: Split) -> list[str]:
    return [item.image for item in split.items]


def by_class(split: Split) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in split.classes}
    for item in split.items:
        assert isinstance(item, Labelled)
        found[split.classes[item.label]].append(item.image)
    return found


# --- splits ---


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(
            ("train", "train"),
            ("Train", "train"),
            ("TRAINING", "train"),
            ("training_set", "train"),
            ("train-data", "train"),
        ),
        *(
            ("trainset", "train"),
            ("train2017", "train"),
            ("val", "val"),
            ("Validation", "val"),
            ("valid", "val"),
            ("val_2017", "val"),
        ),
        *(("validation set", "val"), ("test_set", "test"), ("Testing", "test")),
        *(("trains", None), ("train1", None), ("all", None), ("trainer", None), ("valley", None), ("contest", None)),
    ],
)
def test_a_split_has_many_names(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("instances_train2017", "train"),
        ("Val", "val"),
        ("my-test-set", "test"),
        ("trainval", None),
        ("train_val", None),
        ("default", None),
    ],
)
def test_a_file_is_of_a_split_where_one_word_says_so(name: str, split: str | None) -> None:
    assert split_in(name) == split


@pytest.mark.parametrize("pair", [("Train", "Validation"), ("training_set", "VAL"), ("TRAINING", "valid")])
@pytest.mark.parametrize(
    "task", ["classification", "segmentation", "segmentation inside", "streets", "detection", "roboflow"]
)
def test_splits_are_found_under_any_name_in_every_layout(task: str, pair: tuple[str, str], root: Path) -> None:
    for name, split in zip(pair, ("train", "val"), strict=True):
        if task == "classification":
            sets.image_folder(root, splits=(f"{name}/",))
        elif task == "segmentation":
            sets.mask_folders(root / name)
        elif task == "segmentation inside":
            sets.mask_folders(root / "x")
            for kind in ("Images", "Masks"):
                shutil.copytree(root / "x" / kind.lower(), root / kind / name)
            shutil.rmtree(root / "x")
        elif task == "streets":
            sets.streets(root / "x")
            for kind in ("leftImg8bit", "gtFine"):
                shutil.copytree(root / "x" / kind / split, root / kind / name)
        else:
            sets.boxes(root, split)
            (root / split).rename(root / f"{name}.folder")
            (root / f"{name}.folder").rename(root / name)
            if task == "roboflow":
                (root / f"annotations/instances_{split}.json").rename(root / name / "_annotations.coco.json")
    shutil.rmtree(root / "x", ignore_errors=True)
    if task.startswith("segmentation"):
        (root / "classes.txt").write_text("ground\nthing\n")
    kind = {"streets": "segmentation", "roboflow": "detection"}.get(task, task.partition(" ")[0])
    train, val = checked(read_both(root, task=kind))
    assert (len(train.items), len(val.items)) == (train.found, val.found)
    assert all(pair[0] in name for name in names(train))
    assert all(pair[1] in name for name in names(val))


def test_two_folders_for_one_split_are_a_question(root: Path) -> None:
    sets.image_folder(root, splits=("train/", "Training/", "val/"))
    with pytest.raises(UserError, match="has two folders for train: Training and train; rename"):
        read(root, task="classification")


def test_a_class_may_be_called_train(root: Path) -> None:
    for name in ("bus", "car", "train"):
        sets.picture(root / name / "0.png")
    assert whole(root).classes == ("bus", "car", "train")


def test_splits_without_classes_are_not_taken_for_classes(root: Path) -> None:
    for name in ("Train", "Validation"):
        sets.picture(root / name / "0.png")
    with pytest.raises(
        UserError, match=r"'Train' and 'Validation' in '.*' are named like splits, but have no folders of classes"
    ):
        read(root, task="classification")


def test_an_archive_may_repeat_the_name_of_a_split(root: Path) -> None:
    sets.image_folder(root, splits=("training_set/training_set/", "test_set/test_set/"))
    split = read(root, task="classification", holdout=Holdout(0))
    assert split.classes == sets.CLASSES
    assert len(split.items) == 9


def test_a_folder_around_the_data_is_pointed_at(root: Path) -> None:
    sets.image_folder(root / "archive")
    with pytest.raises(
        UserError, match=r"has 1 class folder\(s\); classification needs two or more; is '.*/archive' meant\?"
    ):
        read(root, task="classification")


def test_what_lies_beside_classes_and_splits_is_said(root: Path) -> None:
    sets.image_folder(root)
    sets.picture(root / "train/loose.png")
    (root / "train/cat/notes.txt").write_text("")
    (root / "train/cat/1.heic").write_text("")
    (root / "raw").mkdir()
    train, val = read_both(root, task="classification")
    assert train.notes == (
        "2 file(s) of kinds that are not read (1 .heic, 1 .txt), as 'train/cat/1.heic'",
        "1 image(s) in no class folder, as 'train/loose.png'",
        "1 folder(s) beside the splits, as 'raw'",
    )
    assert said([train, val])[0] == "train: 9 samples; val: 9 samples"
    assert said([train, val])[1] == f"train: {train.notes[0]}"


# --- what is in a folder ---


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "gif", "webp", "avif", "tif", "bmp", "jp2", "pbm"])
def test_every_kind_of_image_is_read(suffix: str, root: Path) -> None:
    sets.image_folder(root, splits=("",))
    kind = {"jfif": "JPEG", "jpe": "JPEG"}.get(suffix)
    Image.fromarray(np.zeros((20, 30), bool) if suffix == "pbm" else np.zeros((20, 30, 3), np.uint8)).save(
        root / f"cat/x.{suffix.upper()}", format=kind
    )
    (split,) = checked([whole(root)])
    assert f"cat/x.{suffix.upper()}" in names(split)
    assert root / f"cat/x.{suffix.upper()}" in image_files(root, 99, 0)  # of unfold


def test_what_tools_leave_behind_is_no_data(root: Path) -> None:
    sets.mask_folders(root)
    sets.image_folder(root / "c", splits=("",))
    for place in (
        ".ipynb_checkpoints/0-checkpoint.jpg",
        "@eaDir/0.jpg/THUMB.jpg",
        "__MACOSX/0.jpg",
        "._0.jpg",
        ".git/0.jpg",
    ):
        sets.picture(root / "images" / place)
        sets.picture(root / "c/cat" / place)
    for place in ("@eaDir/x/0.jpg", "__MACOSX/0.jpg"):
        sets.picture(root / "c" / place)
    (root / "c/cat/Thumbs.db").write_text("")
    split = whole(root, "segmentation")
    assert (len(split.items), split.faults, split.notes) == (4, (), ())
    split = whole(root / "c")
    assert (len(split.items), split.classes, split.notes) == (9, sets.CLASSES, ())


def test_a_folder_with_two_underscores_is_a_class(root: Path) -> None:
    sets.picture(root / "__background__/0.png")
    sets.picture(root / "cat/0.png")
    assert whole(root).classes == ("__background__", "cat")


def test_linked_folders_are_followed_alike_by_every_reader(root: Path, tmp_path: Path) -> None:
    for site in "AB":
        sets.mask_folders(tmp_path / site)
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True, exist_ok=True)
            (root / kind / site).symlink_to(tmp_path / site / kind)
        (root / "classes").mkdir(exist_ok=True)
        (root / "classes" / site).symlink_to(tmp_path / site / "images")
    (root / "classes.txt").write_text("ground\nthing\n")
    assert len(checked([whole(root, "segmentation")])[0].items) == 8
    assert len(whole(root / "classes").items) == 8
    assert len(image_files(root / "classes", 99, 0)) == 8


@pytest.mark.parametrize("target", [".", "..", "../..", "../dog", "inner"])
def test_a_link_neither_multiplies_nor_mislabels(target: str, root: Path) -> None:
    sets.image_folder(root, splits=("",))
    sets.picture(root / "cat/inner/0.png")
    expected = by_class(whole(root))
    (root / "cat/a-link").symlink_to(target)
    assert by_class(whole(root)) == expected


def test_two_links_to_one_folder_are_read_once(root: Path, tmp_path: Path) -> None:
    sets.picture(tmp_path / "more/0.png")
    sets.image_folder(root, splits=("",))
    for name in ("x", "y"):
        (root / "cat" / name).symlink_to(tmp_path / "more")
    assert len(by_class(whole(root))["cat"]) == 4


def test_two_classes_that_are_one_folder_are_a_fault(root: Path) -> None:
    sets.image_folder(root, splits=("",))
    (root / "zebra").symlink_to("cat")
    with pytest.raises(BadData, match="zebra/: it is the same folder as 'cat', so its images have two classes"):
        checked([whole(root)])


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection"])
def test_a_pipe_is_not_opened(task: str, root: Path) -> None:
    if task == "classification":
        sets.image_folder(root, splits=("",))
        os.mkfifo(root / "cat/pipe.png")
        where = "cat/pipe.png"
    elif task == "segmentation":
        sets.mask_folders(root)
        (root / "masks/2.png").unlink()
        os.mkfifo(root / "masks/2.png")
        where = "masks/2.png"
    else:
        sets.boxes(root)
        (root / "train/1.jpg").unlink()
        os.mkfifo(root / "train/1.jpg")
        os.mkfifo(root / "annotations/instances_val.json")
        where = r"\('train/1.jpg'\)"
    with pytest.raises(BadData, match=f"{where}: it is a named pipe, not a file"):
        checked([whole(root, task)])
    os.mkfifo(root / "pipe")
    with pytest.raises(UserError, match="is a named pipe; give the folder"):
        read(root / "pipe", task=task)


def test_only_formats_of_images_are_decoded_whatever_a_file_is_called(tmp_path: Path) -> None:
    sets.picture(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    with pytest.raises(images.Unreadable, match="not an image of a known kind"):
        images.rgb(tmp_path / "x.png")


def test_names_that_are_no_text_are_read_and_no_class(root: Path) -> None:
    sets.image_folder(root, splits=("",))
    sets.picture(root / "x.png").rename(os.fsdecode(bytes(root / "cat") + b"/\xff.png"))
    (split,) = checked([whole(root)])
    assert len(split.items) == 10
    (root / os.fsdecode(b"\xff")).mkdir()
    with pytest.raises(UserError, match=r"the name of the folder '\\udcff' .* is not UTF-8"):
        whole(root)


# --- masks ---


def test_masks_called_otherwise_than_their_images_are_said(root: Path) -> None:
    sets.mask_folders(root)
    for path in (root / "masks").iterdir():
        path.rename(path.with_name(f"of-{path.stem}.png"))
    for split in ("train", "val"):
        with pytest.raises(
            UserError,
            match=r"no mask in .* has the name of its image .* as 'images/0.jpg', and 4 masks, as 'masks/of-0.png'",
        ):
            read(root, task="segmentation", split=split)


def test_a_grey_mask_may_be_stored_in_colours_but_not_with_loss(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for name, pixels in (
        ("rgb.png", np.repeat(values[..., None], 3, 2)),
        ("rgba.png", np.dstack([values, values, values, values * 0 + 255])),
    ):
        Image.fromarray(pixels).save(tmp_path / name)
        assert np.array_equal(images.mask(tmp_path / name), values)
    Image.fromarray(values).save(tmp_path / "x.jpg")
    with pytest.raises(images.Unreadable, match="it is a JPEG, which changes the class numbers"):
        images.mask(tmp_path / "x.jpg")


@pytest.mark.parametrize("split", ["train", "val"])
def test_masks_that_say_nothing_are_refused_before_training(split: str, root: Path) -> None:
    sets.mask_folders(root)
    for path in (root / "masks").iterdir():
        sets.mask(path, np.full((20, 30), 255, np.uint8))
    with pytest.raises(
        UserError,
        match=rf"\({split}\) hold no class, so there is nothing to {'tell apart' if split == 'train' else 'measure'}",
    ):
        checked([read(root, task="segmentation", split=split)])


# --- COCO ---


def document(root: Path) -> dict:
    return json.loads((root / "annotations/instances_train.json").read_text())


def layout(root: Path, annotations: str, folder: str, change: Callable[[str], str]) -> None:
    """A COCO set whose json and images are elsewhere, the names of the images changed."""
    sets.boxes(root)
    found = document(root)
    (root / folder).parent.mkdir(parents=True, exist_ok=True)
    (root / "train").rename(root / "moved")
    shutil.rmtree(root / "annotations")
    shutil.copytree(root / "moved", root / folder, dirs_exist_ok=True)
    shutil.rmtree(root / "moved")
    for entry in found["images"]:
        entry["file_name"] = change(entry["file_name"])
    (root / annotations).parent.mkdir(parents=True, exist_ok=True)
    (root / annotations).write_text(json.dumps(found))


LAYOUTS: dict[str, tuple[str, str, Callable[[str], str]]] = {
    "Label Studio": ("result.json", "images", lambda name: f"images/{name}"),
    "Label Studio on Windows": ("result.json", "images", lambda name: f"images\\{name}"),
    "Label Studio, served": ("result.json", "images", lambda name: f"/data/upload/1/{name}"),
    "Label Studio, local files": (
        "result.json",
        "images",
        lambda name: f"/data/local-files/?d=shots%5Cimages%5C{name}",
    ),
    "Label Studio, from elsewhere": (
        "result.json",
        "images",
        lambda name: f"../../label-studio/data/media/upload/1/{name}",
    ),
    "CVAT": ("annotations/instances_default.json", "images/default", lambda name: name),
    "FiftyOne": ("labels.json", "data", lambda name: name),
    "FiftyOne, split": ("train/labels.json", "train/data", lambda name: name),
    "the split's folder": ("annotations/instances_train.json", "train", lambda name: f"train/{name}"),
    "backslashes": ("annotations/instances_train.json", "train/sub", lambda name: f"sub\\{name}"),
    "seen from the json": ("annotations/instances_train.json", "images", lambda name: f"../images/{name}"),
    "a bucket": ("annotations.json", "images", lambda name: f"s3://bucket/a/b/{name}"),
    "quoted": ("annotations.json", "images/a b", lambda name: f"a%20b/{name}"),
    "beside": ("coco.json", ".", lambda name: f"./{name}"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_coco_is_read_as_annotation_tools_write_it(name: str, root: Path) -> None:
    annotations, folder, change = LAYOUTS[name]
    layout(root, annotations, folder, change)
    (root / "metadata.json").write_text("{}")
    (split,) = checked([whole(root, "detection")])
    assert sorted(names(split)) == [(Path(folder) / f"{index}.jpg").as_posix() for index in range(3)]
    assert sum(len(item.boxes) for item in split.items if isinstance(item, Boxed)) == 5


def test_accents_may_be_written_in_two_ways(root: Path) -> None:
    layout(root, "result.json", "images", lambda name: f"e\u0301{name}")
    for path in (root / "images").iterdir():
        path.rename(path.with_name(f"\u00e9{path.name}"))
    assert len(checked([whole(root, "detection")])[0].items) == 3


def test_an_absolute_name_within_the_data_is_read(root: Path) -> None:
    layout(root, "result.json", "images", lambda name: str(root.resolve() / "images" / name))
    assert names(checked([whole(root, "detection")])[0]) == [f"images/{index}.jpg" for index in range(3)]


@pytest.mark.parametrize("name", ["/etc/hostname", "C:\\photos\\0.jpg", "../../0.jpg", "//server/share/0.jpg"])
def test_a_name_that_leads_out_of_the_data_is_refused(name: str, root: Path) -> None:
    sets.boxes(root)
    sets.picture(root.parent / "0.jpg")
    found = document(root)
    found["images"][0]["file_name"] = name
    (root / "annotations/instances_train.json").write_text(json.dumps(found))
    with pytest.raises(BadData, match=r"images\[0\] .*: its file_name leads out of the folder of the data"):
        checked([whole(root, "detection")])
    assert all((root / item).is_file() for item in names(whole(root, "detection")))


@pytest.mark.parametrize("name", ["a\0b.jpg", "\ud800.jpg", "", "///", "x" * 300, 5, None])
def test_a_name_that_no_file_has_is_a_fault(name: object, root: Path) -> None:
    sets.boxes(root)
    found = document(root)
    found["images"][0]["file_name"] = name
    (root / "annotations/instances_train.json").write_text(json.dumps(found))
    message = (
        "its file_name is none that a file can have"
        if isinstance(name, str)
        else "it needs an 'id', .* and a 'file_name'"
    )
    with pytest.raises(BadData, match=rf"images\[0\]: {message}") as raised:
        checked([whole(root, "detection")])
    assert [finding.message for finding in raised.value.findings[1:]] == ["its image, images[0], cannot be used"]


def test_images_of_another_split_are_never_taken(root: Path) -> None:
    sets.boxes(root)
    sets.boxes(root, "val")
    shutil.rmtree(root / "val")
    with pytest.raises(BadData, match="there is no such file"):
        checked([read(root, task="detection", split="val")])


def test_two_entries_for_one_file_are_a_fault(root: Path) -> None:
    sets.boxes(root)
    found = document(root)
    found["images"].append({**found["images"][0], "id": 77})
    (root / "annotations/instances_train.json").write_text(json.dumps(found))
    with pytest.raises(BadData, match=r"images\[3\] \('0.jpg'\): its file is that of images\[0\] too"):
        checked([whole(root, "detection")])


@pytest.mark.parametrize("project", ["cat", "pets"])
def test_an_unused_root_of_categories_is_no_class(project: str, root: Path) -> None:
    sets.boxes(root)
    tree = [{"id": 0, "name": project, "supercategory": "none"}]
    tree += [{"id": number, "name": name, "supercategory": project} for number, name in ((90, "owl"), (7, "cat"))]
    found = {**document(root), "categories": tree}
    (root / "annotations/instances_train.json").write_text(json.dumps(found))
    split = whole(root, "detection")
    assert split.classes == ("cat", "owl")
    assert split.notes == (
        f"the category '{project}' is no class: no annotation has it, and others name it as their supercategory",
    )


def test_categories_that_are_used_or_above_themselves_stay(root: Path) -> None:
    sets.boxes(root)
    found = document(root)
    found["categories"] = [
        {"id": 7, "name": "cat", "supercategory": "cat"},
        {"id": 90, "name": "owl", "supercategory": "cat"},
    ]
    found["categories"].append({"id": 91, "name": "emu", "supercategory": "emu"})
    (root / "annotations/instances_train.json").write_text(json.dumps(found))
    assert whole(root, "detection").classes == ("cat", "owl", "emu")


def test_boxes_that_reach_out_of_the_image_are_cut_with_one_note(root: Path) -> None:
    sets.boxes(root)
    sets.write_boxes(
        root,
        [
            sets.box(1, 10, 7, [-4, 3, 10, 5]),
            sets.box(2, 10, 90, [25, 15, 10, 10]),
            sets.box(3, 11, 7, [0.5, 0, 30, 20]),
        ],
    )
    (split,) = checked([whole(root, "detection")])
    first = split.items[0]
    assert isinstance(first, Boxed)
    assert first.boxes.tolist() == [[0, 3, 6, 8], [25, 15, 30, 20]]
    assert split.notes == ("2 box(es) reach out of their images, by up to 5 pixels, and are cut to them",)
    assert not split.faults


def test_a_sliver_that_rounding_swallows_is_outside(root: Path) -> None:
    sets.boxes(root)
    sets.write_boxes(root, [sets.box(1, 10, 7, [30 - 1e-9, 3, 10, 5])])
    with pytest.raises(BadData, match="is outside the image, which is 30×20"):
        checked([whole(root, "detection")])


def test_joints_outside_the_image_are_not_labelled_with_one_note(root: Path) -> None:
    sets.people(
        root,
        [sets.person(1, 10, [12, 5, 2, -9, 4, 2, 29.9, 4, 1]), sets.person(2, 11, [12, 5, 2, 10, 50, 1, 14, 4, 1])],
    )
    (split,) = checked([whole(root, "pose")])
    first, second = split.items
    assert isinstance(first, Posed)
    assert isinstance(second, Posed)
    assert (first.seen.tolist(), second.seen.tolist()) == ([2, 0, 1], [2, 0, 1])
    assert first.points[2].tolist() == [30, 4.5]
    assert split.notes == ("2 keypoint(s) are outside their images and count as not labelled",)


def test_an_image_with_an_unusable_object_is_left_out_whole(root: Path) -> None:
    """Without its box the object would be taught as background."""
    sets.boxes(root)
    found = document(root)
    found["annotations"][1]["bbox"] = [3, 3, 0, 5]
    (root / "annotations/instances_train.json").write_text(json.dumps(found))
    (left,) = checked([whole(root, "detection")], skip_bad=True)
    assert names(left) == ["train/0.jpg", "train/2.jpg"]
    assert said([left]) == ["train: 2 of 3 samples (1 left out), 3 of 5 boxes (2 left out)"]


def test_an_object_of_no_class_of_the_model_is_background(root: Path) -> None:
    sets.boxes(root)
    split = read(root, task="detection", classes=("cat", "dog"), holdout=Holdout(0))
    (left,) = checked([split], skip_bad=True)
    assert len(left.items) == 3


@pytest.mark.parametrize("task", ["train", "val"])
def test_boxes_that_are_all_crowds_are_refused_before_training(task: str, root: Path) -> None:
    sets.boxes(root, task)
    sets.write_boxes(root, [sets.box(1, 10, 7, [0, 0, 5, 5], iscrowd=1)], task)
    split = read(root / f"annotations/instances_{task}.json", task="detection", split=task)
    what = "learn" if task == "train" else "measure"
    with pytest.raises(
        UserError,
        match=rf"every box in the 3 images of .* \({task}\) is a crowd \(iscrowd\), so there is nothing to {what}",
    ):
        checked([split])


ODD: dict[str, tuple[Callable[[dict], object], str | None]] = {
    "no annotation": (
        lambda d: d.update(annotations=[]),
        "none of the 3 images of .* has a box, so there is nothing to learn",
    ),
    "whole numbers as fractions": (
        lambda d: [a.update(image_id=float(a["image_id"]), category_id=7.0) for a in d["annotations"]],
        None,
    ),
    "huge ids": (
        lambda d: [
            e.update({k: e[k] + 10**30}) for n, k in (("images", "id"), ("annotations", "image_id")) for e in d[n]
        ],
        None,
    ),
    "a number as text": (lambda d: d["annotations"][0].update(bbox=["1", 2, 3, 4]), "is not four numbers"),
    "ids of text": (lambda d: d["annotations"][0].update(image_id="10"), "its image_id '10' is that of no image"),
    "a list as id": (
        lambda d: d["annotations"][0].update(image_id=[1], category_id={}),
        r"its image_id \[1\] is that of no image",
    ),
    "text as category": (
        lambda d: d["annotations"][0].update(category_id="cat"),
        "its category_id 'cat' is that of no category",
    ),
    "width as text": (lambda d: d["images"][0].update(width="30"), None),
    "width as fraction": (lambda d: d["images"][0].update(width=30.0), None),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_values_in_coco_are_right_or_one_message(name: str, root: Path) -> None:
    change, message = ODD[name]
    sets.boxes(root)
    found = document(root)
    change(found)
    (root / "annotations/instances_train.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(found).encode())
    if message is None:
        assert len(checked([whole(root, "detection")])[0].items) == 3
        return
    with pytest.raises(UserError, match=message):
        checked([whole(root, "detection")])


def test_a_number_of_thousands_of_digits_is_no_traceback(root: Path) -> None:
    sets.boxes(root)
    (root / "annotations/instances_train.json").write_text('{"images": [' + "9" * 5000 + "]}")
    with pytest.raises(UserError, match=r"instances_train.json' is not JSON that can be read"):
        read(root, task="detection")


def test_people_without_any_keypoint_are_said(root: Path) -> None:
    sets.people(root, [sets.person(1, 10, [0] * 9)])
    with pytest.raises(UserError, match=r"no annotation has a keypoint \(1 annotations of 2 images\)"):
        read(root, task="pose")


# --- what data is ---


def digests(root: Path, task: str) -> tuple[str, str]:
    first, second = checked(read_both(root, task=task))
    return first.digest, second.digest


def test_a_digest_tells_what_is_learnt_from_and_not_when_it_was_written(root: Path, tmp_path: Path) -> None:
    sets.image_folder(root)
    before = digests(root, "classification")
    shutil.copytree(root, tmp_path / "copy")
    os.utime(root / "train/cat/0.png")
    assert digests(root, "classification") == before == digests(tmp_path / "copy", "classification")
    assert before[0] != before[1]
    (root / "train/cat").rename(root / "x")
    (root / "train/dog").rename(root / "train/cat")
    (root / "x").rename(root / "train/dog")
    sets.picture(root / "train/cat/9.png")
    swapped = digests(root, "classification")
    assert swapped[0] != before[0]
    assert swapped[1] == before[1]


def plain_masks(root: Path) -> Path:
    """Masks whose size on disk does not depend on what they hold."""
    sets.mask_folders(root)
    for path in (root / "masks").iterdir():
        Image.fromarray(images.mask(path)).save(path, format="BMP")
    return root


def turned(path: Path) -> None:
    Image.fromarray(1 - images.mask(path)).save(path, format="BMP")


def written(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def renamed(root: Path) -> None:
    (root / "images/1.jpg").rename(root / "images/9.jpg")
    (root / "masks/1.png").rename(root / "masks/9.png")


BOXES, PEOPLE = "annotations/instances_train.json", "annotations/person_keypoints_train.json"
CHANGES: dict[str, tuple[Callable[[Path], Path], str, Callable[[Path], object]]] = {
    "labels of a mask": (plain_masks, "segmentation", lambda r: turned(r / "masks/1.png")),
    "a name": (sets.mask_folders, "segmentation", renamed),
    "a size": (
        sets.mask_folders,
        "segmentation",
        lambda r: (r / "images/1.jpg").write_bytes((r / "images/1.jpg").read_bytes() + b"x"),
    ),
    "a box": (sets.boxes, "detection", lambda r: written(r / BOXES, "[2, 3, 10, 12]", "[2, 3, 10, 11]")),
    "two classes": (sets.boxes, "detection", lambda r: written(r / BOXES, '"category_id": 90', '"category_id": 18')),
    "a joint": (sets.people, "pose", lambda r: written(r / PEOPLE, "[12, 5, 2,", "[12, 6, 2,")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_data_that_changed_has_another_digest(name: str, root: Path) -> None:
    make, task, change = CHANGES[name]
    make(root)
    size = {path: path.stat().st_size for path in root.rglob("*")}
    (before,) = checked([whole(root, task)])
    assert checked([whole(root, task)])[0].digest == before.digest  # from memory too
    change(root)
    if name == "labels of a mask":
        assert size[root / "masks/1.png"] == (root / "masks/1.png").stat().st_size
    assert checked([whole(root, task)])[0].digest != before.digest


def test_a_part_is_taken_from_all_over_a_split(root: Path) -> None:
    split = whole(sets.image_folder(root, splits=("",)))
    assert {item.label for item in spread(split, 3).items if isinstance(item, Labelled)} == {0, 1, 2}
    assert spread(split, 99) == split
    assert spread(replace(split, items=()), 5).items == ()


def test_the_list_of_suffixes_is_one() -> None:
    assert folders.is_image("a.JFIF")
    assert not folders.is_image(".a.png")
    assert not folders.is_image("a.txt")
