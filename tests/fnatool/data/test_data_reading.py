"""Data as people have it: every layout is read as it means, and whatever is broken is found before training, all of it
at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sets
from PIL import Image

from fnatool.cli.main import run
from fnatool.data import images
from fnatool.data.checking import checked
from fnatool.data.masks import CITYSCAPES, VOC
from fnatool.data.split import IGNORE, BadData, Boxed, Labelled, Masked, Posed, Split, summary
from fnatool.tasks.reading import Holdout, read, read_both
from passes.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fnatool" / "checked"


def labels(split: Split) -> dict[str, int]:
    return {item.image: item.label for item in split.items if isinstance(item, Labelled)}


def pairs(split: Split) -> list[tuple[str, str]]:
    return [(item.image, item.mask) for item in split.items if isinstance(item, Masked)]


# --- classification ---


def test_a_folder_for_each_class_is_read_in_the_order_of_their_names(root: Path) -> None:
    train, val = read_both(sets.image_folder(root), task="classification")
    assert train.classes == ("cat", "dog", "owl")
    assert (len(train.items), len(val.items), train.found) == (9, 9, 9)
    assert labels(train)["train/dog/2.png"] == 1
    assert labels(val)["val/owl/0.png"] == 2
    assert summary(train) == "train: 9 samples"


def test_the_classes_of_a_model_keep_their_numbers(root: Path) -> None:
    sets.image_folder(root)
    split = read(root, task="classification", classes=("owl", "cat", "ape", "dog"))
    assert labels(split)["train/owl/0.png"] == 0
    assert labels(split)["train/dog/0.png"] == 3


def test_a_class_folder_that_is_none_of_the_classes_is_a_fault(root: Path) -> None:
    sets.image_folder(root)
    val = read(root, task="classification", split="val", classes=("cat", "dog"))
    with pytest.raises(BadData, match=r"val/owl/: it is none of the 2 classes .*, so its 3 images have no label"):
        checked([val])
    (left,) = checked([val], skip_bad=True)
    assert summary(left) == "val: 6 of 9 samples (3 left out)"


def test_a_folder_without_splits_is_split_by_a_seed_and_evenly(root: Path) -> None:
    sets.image_folder(root, splits=("",), each=10)
    holdout = Holdout(0.2, seed=3)
    train, val = (read(root, task="classification", split=split, holdout=holdout) for split in ("train", "val"))
    assert sorted([*labels(train), *labels(val)]) == sorted(
        f"{name}/{index}.png" for name in sets.CLASSES for index in range(10)
    )
    assert [list(labels(val).values()).count(label) for label in range(3)] == [2, 2, 2]
    assert labels(val) == labels(read(root, task="classification", split="val", holdout=holdout))
    assert labels(val) != labels(read(root, task="classification", split="val", holdout=Holdout(0.2, seed=4)))


def test_training_data_without_validation_data_gives_some_away(root: Path) -> None:
    sets.image_folder(root, splits=("train/",), each=10)
    train, val = (read(root, task="classification", split=split) for split in ("train", "val"))
    assert (len(train.items), len(val.items)) == (27, 3)
    assert not labels(train).keys() & labels(val).keys()


def test_images_below_a_class_folder_count_and_other_files_do_not(root: Path) -> None:
    sets.image_folder(root)
    sets.picture(root / "train/cat/more/deep.jpeg")
    (root / "train/cat/notes.txt").write_text("cats")
    (root / "train/cat/.hidden.png").write_text("")
    assert len(labels(read(root, task="classification"))) == 10


# --- segmentation ---


def test_images_and_masks_of_equal_stems_belong_together(root: Path) -> None:
    sets.mask_folders(root)
    train, val = (read(root, task="segmentation", split=split) for split in ("train", "val"))
    assert train.classes == ("ground", "thing")
    assert sorted(pairs(train) + pairs(val)) == [(f"images/{index}.jpg", f"masks/{index}.png") for index in range(4)]
    assert len(val.items) == 1
    assert len(checked([train, val])) == 2


@pytest.mark.parametrize(
    "form", ["{split}/images/{name}.jpg {split}/masks/{name}.png", "images/{split}/{name}.jpg masks/{split}/{name}.png"]
)
def test_splits_may_be_above_or_below_the_folders_of_images_and_masks(form: str, root: Path) -> None:
    for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
        image, mask = form.format(split=split, name=name).split()
        sets.picture(root / image)
        sets.mask(root / mask)
    (root / "classes.txt").write_text("ground\nthing\n")
    assert len(read(root, task="segmentation").items) == 2
    assert [Path(image).name for image, _ in pairs(read(root, task="segmentation", split="val"))] == ["c.jpg"]


def test_masks_without_class_names_ask_for_them(root: Path) -> None:
    sets.mask_folders(root)
    (root / "classes.txt").unlink()
    with pytest.raises(
        UserError, match=r"put the class names into '.*classes.txt', one a line from the class of mask value 0 on"
    ):
        read(root, task="segmentation")
    assert read(root, task="segmentation", classes=("a", "b")).classes == ("a", "b")


def test_classes_that_are_not_those_of_the_model_are_refused(root: Path) -> None:
    sets.mask_folders(root)
    with pytest.raises(UserError, match=r"states \(ground, thing\) are not those asked for \(thing, ground\)"):
        read(root, task="segmentation", classes=("thing", "ground"))


def test_pascal_voc_is_read_by_its_lists(root: Path) -> None:
    train = read(sets.pascal(root), task="segmentation")
    assert pairs(train) == [(f"JPEGImages/{index}.jpg", f"SegmentationClass/{index}.png") for index in range(2)]
    assert train.classes == VOC
    assert len(VOC) == 21
    assert pairs(read(root, task="segmentation", split="val")) == [("JPEGImages/2.jpg", "SegmentationClass/2.png")]
    assert train.codes[255] == IGNORE


def test_a_palette_mask_holds_its_indices(root: Path) -> None:
    values = np.array([[0, 15], [255, 3]], np.uint8)
    image = Image.fromarray(values)
    image.putpalette([index // 3 * 7 % 256 for index in range(768)])
    root.mkdir()
    image.save(root / "mask.png")
    assert np.array_equal(images.mask(root / "mask.png"), values)


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_cityscapes_has_19_classes_whichever_of_its_masks_are_there(kind: str, root: Path) -> None:
    sets.streets(root, kind=kind)
    train, val = checked([read(root, task="segmentation"), read(root, task="segmentation", split="val")])
    assert train.classes == tuple(CITYSCAPES)
    assert len(train.classes) == 19
    ((image, mask),) = pairs(val)
    assert image == "leftImg8bit/val/bonn/bonn_0_leftImg8bit.png"
    classes = np.frombuffer(val.codes, np.uint8)[images.mask(root / mask)]
    assert classes[19, 0] == train.classes.index("road")
    assert classes[0, 0] == train.classes.index("car")
    assert classes[5, 0] == IGNORE


def test_every_id_of_cityscapes_has_its_train_id(root: Path) -> None:
    """The published table: 7 8 11 12 13 17 19 … 28 31 32 33 are 0 … 18, and all other ids are ignored."""
    codes = read(sets.streets(root), task="segmentation").codes
    evaluated = [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]
    assert [codes[number] for number in evaluated] == list(range(19))
    assert {codes[number] for number in range(34) if number not in evaluated} == {IGNORE}


# --- detection ---


def test_coco_boxes_become_edges_and_categories_with_gaps_indices(root: Path) -> None:
    split = read(sets.boxes(root), task="detection", holdout=Holdout(0.34))
    whole = read(root / "annotations/instances_train.json", task="detection")
    assert whole.classes == ("cat", "dog", "owl")  # by id: 7, 18, 90
    first, second, _ = whole.items
    assert isinstance(first, Boxed)
    assert isinstance(second, Boxed)
    assert first.boxes.tolist() == [[2, 3, 12, 15]]
    assert second.labels.tolist() == [0, 2]
    assert second.areas.tolist() == [60, 100]
    assert (whole.found, whole.entries, len(split.items)) == (3, 5, 2)
    assert summary(checked([whole])[0]) == "train: 3 samples, 5 boxes"


def test_a_crowd_stays_a_crowd(root: Path) -> None:
    sets.boxes(root)
    sets.write_boxes(root, [sets.box(1, 10, 7, [0, 0, 5, 5], iscrowd=1), sets.box(2, 10, 18, [0, 0, 5, 5])])
    first = read(root / "annotations/instances_train.json", task="detection").items[0]
    assert isinstance(first, Boxed)
    assert first.crowd.tolist() == [True, False]


def test_classes_of_a_model_number_the_categories(root: Path) -> None:
    sets.boxes(root)
    split = read(root / "annotations/instances_train.json", task="detection", classes=("owl", "dog", "cat"))
    second = split.items[1]
    assert isinstance(second, Boxed)
    assert second.labels.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("annotations", "folder"),
    [
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_train2017.json", "images/train2017"),
        ("annotations/train.json", "images/train"),
        ("annotations/instances_train.json", "images"),
        ("train/_annotations.coco.json", "train"),
    ],
)
def test_coco_is_found_where_people_put_it(annotations: str, folder: str, root: Path) -> None:
    sets.boxes(root)
    document = (root / "annotations/instances_train.json").read_text()
    (root / "annotations/instances_train.json").unlink()
    (root / "annotations").rmdir()
    content = {path.name: path.read_bytes() for path in (root / "train").iterdir()}
    for path in (root / "train").iterdir():
        path.unlink()
    (root / "train").rmdir()
    for path, data in {
        annotations: document.encode(),
        **{f"{folder}/{name}": data for name, data in content.items()},
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    (split, val) = checked([read(root, task="detection"), read(root, task="detection", split="val")])
    assert sorted(item.image for item in (*split.items, *val.items)) == [f"{folder}/{index}.jpg" for index in range(3)]


def test_two_files_for_a_split_are_a_question(root: Path) -> None:
    sets.boxes(root)
    (root / "annotations/other_train.json").write_text("{}")  # is none
    assert read(root, task="detection")
    (root / "annotations/other_train.json").write_text(instances(root).read_text())
    with pytest.raises(
        UserError, match=r"several annotation files for train: instances_train.json, other_train.json; give the path"
    ):
        read(root, task="detection")


# --- pose ---


def test_every_person_with_a_keypoint_is_a_sample(root: Path) -> None:
    split = read(sets.people(root) / "annotations/person_keypoints_train.json", task="pose")
    assert split.joints == sets.JOINTS
    first, second, third = split.items
    assert isinstance(first, Posed)
    assert isinstance(second, Posed)
    assert first.points[0].tolist() == [12.5, 5.5]  # COCO counts from the middle of a pixel
    assert first.seen.tolist() == [2, 2, 1]
    assert second.seen.tolist() == [2, 2, 0]
    assert second.box.tolist() == [4, 2, 20, 18]
    assert second.image == third.image
    assert len(checked([split])[0].items) == 3


def test_people_without_keypoints_and_crowds_are_no_samples_and_no_faults(root: Path) -> None:
    none = sets.person(2, 11, [0] * 9, bbox=[0, 0, 0, 0])
    crowd = sets.person(3, 11, [1] * 9, iscrowd=1)
    sets.people(root, [sets.person(1, 10, [12, 5, 2, 10, 4, 2, 14, 4, 1]), none, crowd])
    (split,) = checked([read(root / "annotations/person_keypoints_train.json", task="pose")])
    assert (len(split.items), split.found, split.left_out) == (1, 1, 0)
    assert split.notes == ("2 annotations are crowds or have no keypoint",)


def test_both_splits_have_the_same_keypoints(root: Path) -> None:
    sets.people(root)
    sets.people(root, split="val")
    assert [len(split.items) for split in read_both(root, task="pose")] == [3, 3]
    alter(
        root / "annotations/person_keypoints_val.json",
        lambda d: d["categories"][0].update(keypoints=["nose", "chin", "neck"]),
    )
    with pytest.raises(UserError, match=r"has other keypoints for val \(nose, chin, neck\) than for train"):
        read_both(root, task="pose")


def test_people_of_one_image_stay_in_one_split(root: Path) -> None:
    sets.people(root)
    train, val = (read(root, task="pose", split=split) for split in ("train", "val"))
    assert not {item.image for item in train.items} & {item.image for item in val.items}
    assert len(train.items) + len(val.items) == 3


# --- what is written by fashion-scenes is what the readers read ---


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection", "pose"])
def test_scenes_are_read_without_a_fault(task: str, root: Path) -> None:
    assert run(["data", "fashion-scenes", str(root), "--task", task, "--train", "20", "--val", "10"]) == 0
    train = read(root, task=task)
    val = read(root, task=task, split="val")
    checked([train, val])
    assert len({item.image for item in train.items}) == 20
    assert len({item.image for item in val.items}) == 10
    assert len(train.classes) == {"classification": 10, "segmentation": 11, "detection": 10, "pose": 1}[task]


# --- pictures of all kinds ---


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "CMYK"])
def test_every_number_of_channels_becomes_rgb(mode: str, root: Path) -> None:
    path = sets.picture(root / ("a.tif" if mode == "CMYK" else "a.png"), mode=mode)
    found = images.rgb(path)
    assert (found.mode, found.size) == ("RGB", (30, 20))
    if mode in ("L", "LA"):
        pixels = np.asarray(found)
        assert (pixels[..., 0] == pixels[..., 2]).all()
        assert np.ptp(pixels) > 200


def test_16_bits_become_8_without_clipping(root: Path) -> None:
    root.mkdir()
    values = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    Image.fromarray(values).save(root / "a.png")
    assert np.array_equal(np.asarray(images.rgb(root / "a.png"))[..., 1], values >> 8)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_that_have_no_8_bits_are_said(kind: type, root: Path) -> None:
    root.mkdir()
    Image.fromarray((np.linspace(0, 1, 600).reshape(20, 30) * 10**6).astype(kind)).save(root / "a.tif")
    with pytest.raises(images.Unreadable, match=r"floating-point|32 bits"):
        images.rgb(root / "a.tif")


def test_a_photo_is_turned_as_its_viewer_turns_it(root: Path) -> None:
    path = sets.picture(root / "a.jpg")
    with Image.open(path) as image:
        turned = image.copy()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(root / "b.jpg", exif=exif)
    assert images.rgb(root / "b.jpg").size == (20, 30)
    assert images.size(root / "b.jpg") == (30, 20)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_in_the_head_of_a_file_is_that_of_the_picture_however_it_is_turned(
    suffix: str, orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (6, 4)).save(path, exif=exif)
    assert images.rgb(path).size == ((4, 6) if orientation > 4 else (6, 4))
    assert images.size(path) == images.rgb(path).size[::-1]


# --- what is broken ---


def broken(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def alter(path: Path, change: Callable[[dict], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def first(document: dict) -> dict:
    return document["annotations"][0]


FAULTS: list[tuple[str, str, Callable[[Path], object], str]] = [
    (
        "classification",
        "truncated JPEG",
        lambda r: broken(sets.picture(r / "train/cat/x.jpg", (200, 300))),
        r"train/cat/x.jpg: it cannot be decoded \(.*truncated",
    ),
    (
        "classification",
        "no image",
        lambda r: (r / "train/cat/x.jpg").write_text("hello"),
        "train/cat/x.jpg: it is not an image of a known kind",
    ),
    ("classification", "empty file", lambda r: (r / "train/cat/x.png").touch(), "train/cat/x.png: it is not an image"),
    ("classification", "empty class", lambda r: (r / "train/ape").mkdir(), "train/ape/: this class has no image"),
    (
        "segmentation",
        "no mask",
        lambda r: (r / "masks/2.png").unlink(),
        "images/2.jpg: it has no mask: there is no '2' in masks/",
    ),
    (
        "segmentation",
        "no image",
        lambda r: (r / "images/2.jpg").unlink(),
        "masks/2.png: there is no image '2' in images/",
    ),
    (
        "segmentation",
        "other size",
        lambda r: sets.mask(r / "masks/2.png", size=(20, 31)),
        "masks/2.png: it is 31×20, its image images/2.jpg 30×20",
    ),
    (
        "segmentation",
        "label out of range",
        lambda r: sets.mask(r / "masks/2.png", np.full((20, 30), 2, np.uint8)),
        r"masks/2.png: it holds the value 2, but the 2 classes are 0 … 1 \(255: to be ignored\)",
    ),
    ("segmentation", "colours", lambda r: sets.picture(r / "masks/2.png"), "masks/2.png: it is a picture of mode RGB"),
    (
        "segmentation",
        "16 bits",
        lambda r: sets.mask(r / "masks/2.png", np.full((20, 30), 300, np.uint16)),
        "masks/2.png: it holds the value 300",
    ),
    (
        "segmentation",
        "same name",
        lambda r: sets.picture(r / "images/2.png"),
        "images/2.png: it has the same name as images/2.jpg",
    ),
    (
        "segmentation",
        "truncated mask",
        lambda r: (r / "masks/2.png").write_bytes((r / "masks/2.png").read_bytes()[:50]),
        "masks/2.png: it cannot",
    ),
    (
        "detection",
        "no image",
        lambda r: (r / "train/1.jpg").unlink(),
        r"train.json: images\[1\] \('train/1.jpg'\): there is no such file",
    ),
    (
        "detection",
        "another size",
        lambda r: sets.picture(r / "train/1.jpg", (30, 20)),
        r"images\[1\] \('train/1.jpg'\): it is 20×30, but the annotations say 30×20; .* EXIF",
    ),
    (
        "detection",
        "unknown image",
        lambda r: alter(instances(r), lambda d: first(d).update(image_id=99)),
        r"instances_train.json: annotations\[0\] \(id 1\): its image_id 99 is that of no image",
    ),
    (
        "detection",
        "unknown category",
        lambda r: alter(instances(r), lambda d: first(d).update(category_id=1)),
        r"annotations\[0\] \(id 1, 'train/0.jpg'\): its category_id 1 is that of no category",
    ),
    (
        "detection",
        "no area",
        lambda r: alter(instances(r), lambda d: first(d).update(bbox=[3, 3, 0, 5])),
        r"its bbox \[3, 3, 0, 5\] has no area",
    ),
    (
        "detection",
        "outside",
        lambda r: alter(instances(r), lambda d: first(d).update(bbox=[30, 3, 9, 5])),
        r"its bbox \[30, 3, 9, 5\] is outside the image, which is 30×20",
    ),
    (
        "detection",
        "three numbers",
        lambda r: alter(instances(r), lambda d: first(d).update(bbox=[25, 3, 9])),
        "is not four numbers",
    ),
    (
        "detection",
        "not finite",
        lambda r: alter(instances(r), lambda d: first(d).update(bbox=[25, float("nan"), 9, 1])),
        "is not four numbers",
    ),
    (
        "detection",
        "too large",
        lambda r: alter(instances(r), lambda d: first(d).update(bbox=[25, 10**400, 9, 1])),
        "is not four numbers",
    ),
    (
        "detection",
        "same id",
        lambda r: alter(instances(r), lambda d: d["images"].append(d["images"][0])),
        r"images\[3\] .* its id 10 is that of",
    ),
    (
        "detection",
        "no name",
        lambda r: alter(instances(r), lambda d: d["images"].append({"id": 3})),
        r"images\[3\]: it needs an 'id', a",
    ),
    (
        "pose",
        "too few",
        lambda r: alter(people(r), lambda d: first(d).update(keypoints=[1, 2, 2])),
        "its keypoints are not 3 × x, y, visibility",
    ),
    (
        "pose",
        "outside",
        lambda r: alter(people(r), lambda d: first(d).update(keypoints=[1, 50, 2] * 3)),
        "its keypoint at 1, 50 is outside",
    ),
    (
        "pose",
        "visibility",
        lambda r: alter(people(r), lambda d: first(d).update(keypoints=[1, 5, 3] * 3)),
        "a visibility of its keypoints is not",
    ),
    (
        "pose",
        "text",
        lambda r: alter(people(r), lambda d: first(d).update(keypoints=["1", 5, 3] * 3)),
        "hold something that is no number",
    ),
    (
        "pose",
        "box",
        lambda r: alter(people(r), lambda d: first(d).update(bbox=[1, 1, 1, -4])),
        r"its bbox \[1, 1, 1, -4\] has no area",
    ),
]


def instances(root: Path) -> Path:
    return root / "annotations/instances_train.json"


def people(root: Path) -> Path:
    return root / "annotations/person_keypoints_train.json"


MAKE = {
    "classification": sets.image_folder,
    "segmentation": sets.mask_folders,
    "detection": sets.boxes,
    "pose": sets.people,
}


def opened(task: str, root: Path) -> Split:
    """The training split, all of it."""
    files = {"detection": instances(root), "pose": people(root)}
    return read(files.get(task, root), task=task, holdout=Holdout(0))


@pytest.mark.parametrize(
    ("task", "plant", "message"), [(row[0], *row[2:]) for row in FAULTS], ids=[f"{row[0]}: {row[1]}" for row in FAULTS]
)
def test_what_is_broken_is_named_before_training_and_left_out_on_demand(
    task: str, plant: Callable[[Path], object], message: str, root: Path
) -> None:
    MAKE[task](root)
    whole = opened(task, root)
    (clean,) = checked([whole])
    assert not clean.faults
    assert (clean.left_out, clean.entries_left_out) == (0, 0)
    plant(root)
    split = opened(task, root)
    with pytest.raises(BadData, match=message) as raised:
        checked([split])
    assert len(raised.value.findings) == 1
    assert "has 1 fault in its data" in str(raised.value)
    assert "--skip-bad" in str(raised.value)
    (left,) = checked([split], skip_bad=True)
    assert len(left.items) + left.left_out == left.found
    assert len(left.faults) == 1
    lost = left.left_out + left.entries_left_out
    assert lost == 0 if "this class has no image" in message else lost >= 1


def test_all_faults_are_reported_at_once_and_counted(root: Path) -> None:
    sets.image_folder(root, each=20)
    for index in range(15):
        broken(sets.picture(root / f"train/cat/x{index:02}.jpg", (200, 300)))
    (root / "val/owl/7.png").write_text("hello")
    splits = [read(root, task="classification", split=split) for split in ("train", "val")]
    with pytest.raises(BadData) as raised:
        checked(splits)
    lines = str(raised.value).splitlines()
    assert lines[0] == f"'{root}' has 16 faults in its data (16 of 135 samples cannot be used):"
    assert lines[-2:] == [
        "  and 6 more",
        "mend the data, or go on without what is broken: --skip-bad, or 'skip_bad = true' in the config's [data]",
    ]
    assert len(lines) == 13
    assert [finding.where for finding in raised.value.findings][-1] == "val/owl/7.png"
    train, val = checked(splits, skip_bad=True)
    assert summary(train) == "train: 60 of 75 samples (15 left out)"
    assert summary(val) == "val: 59 of 60 samples (1 left out)"


def test_a_broken_image_takes_its_boxes_along_and_both_are_counted(root: Path) -> None:
    sets.boxes(root)
    (root / "train/1.jpg").unlink()
    (left,) = checked([opened("detection", root)], skip_bad=True)
    assert summary(left) == "train: 2 of 3 samples (1 left out), 3 of 5 boxes (2 left out)"
    with pytest.raises(BadData, match=r"\(1 of 3 samples, 2 of 5 boxes cannot be used\)"):
        checked([opened("detection", root)])


def test_a_broken_image_takes_everybody_in_it_along(root: Path) -> None:
    sets.people(root)
    (root / "train/1.jpg").unlink()
    (left,) = checked([opened("pose", root)], skip_bad=True)
    assert summary(left) == "train: 1 of 3 samples (2 left out)"


def test_a_box_that_rounding_pushed_over_the_edge_is_cut_to_the_image(root: Path) -> None:
    sets.boxes(root)
    alter(instances(root), lambda d: first(d).update(bbox=[-0.4, 3, 30.8, 17.5]))
    item = checked([opened("detection", root)])[0].items[0]
    assert isinstance(item, Boxed)
    assert item.boxes.tolist() == [[0, 3, 30, 20]]


def test_sizes_that_the_json_does_not_state_are_read_from_the_files(root: Path) -> None:
    sets.boxes(root)
    alter(instances(root), lambda d: [image.pop("width") for image in d["images"]])
    assert checked([opened("detection", root)])[0].items[0].size == (20, 30)  # type: ignore[union-attr]


def test_nothing_left_is_an_error_even_when_bad_data_is_skipped(root: Path) -> None:
    sets.people(root)
    for path in (root / "train").iterdir():
        path.write_text("hello")
    with pytest.raises(
        UserError, match=r"nothing is left of the 3 samples in '.*' \(train\); the first of 2 faults: .*images\[0\]"
    ):
        checked([opened("pose", root)], skip_bad=True)


def test_masks_of_0_and_255_are_not_taken_for_two_classes(root: Path) -> None:
    sets.mask_folders(root)
    for path in (root / "masks").iterdir():
        sets.mask(path, images.mask(path) * np.uint8(255))
    with pytest.raises(
        UserError,
        match=r"hold only 'ground', so there is nothing to tell apart; 255 means a pixel to ignore: if it stands for",
    ):
        checked([read(root, task="segmentation")])


def test_lines_of_a_list_are_named(root: Path) -> None:
    sets.pascal(root)
    with (root / "ImageSets/Segmentation/train.txt").open("a") as file:
        file.write("\n0\nnothing 1\n")
    with pytest.raises(BadData, match="2 faults") as raised:
        checked([read(root, task="segmentation")])
    assert [(finding.where, finding.message) for finding in raised.value.findings] == [
        ("ImageSets/Segmentation/train.txt:4", "'0' is listed before"),
        ("ImageSets/Segmentation/train.txt:5", "there is no JPEGImages/nothing and no SegmentationClass/nothing"),
    ]


UNUSABLE = [
    (
        "empty",
        lambda p: p.write_text(""),
        "instances_train.json', line 1, column 1: this is not JSON, or not all of it",
    ),
    ("half", lambda p: p.write_text(p.read_text()[:200]), "this is not JSON, or not all of it"),
    ("list", lambda p: p.write_text("[]"), "it is a list, not an object"),
    ("no images", lambda p: alter(p, lambda d: d.update(images=[])), "the list of 'images' is empty"),
    ("no categories", lambda p: alter(p, lambda d: d.pop("categories")), "'categories' is missing"),
    ("numbers", lambda p: alter(p, lambda d: d.update(annotations=[1])), r"annotations\[0\] is not an object"),
    (
        "same category",
        lambda p: alter(p, lambda d: d["categories"].append(d["categories"][0])),
        r"categories\[3\] has the id of another",
    ),
    ("bytes", lambda p: p.write_bytes(b"\xff\xfe\x00{"), "is not JSON"),
]


@pytest.mark.parametrize(("plant", "message"), [row[1:] for row in UNUSABLE], ids=[row[0] for row in UNUSABLE])
def test_an_annotation_file_of_no_use_is_one_message(plant: Callable[[Path], object], message: str, root: Path) -> None:
    sets.boxes(root)
    plant(instances(root))
    with pytest.raises(UserError, match=message):
        opened("detection", root)


@pytest.mark.parametrize("task", MAKE)
def test_a_folder_of_another_task_is_not_guessed_at(task: str, root: Path) -> None:
    root.mkdir()
    (root / "readme.txt").write_text("")
    with pytest.raises(UserError, match=f"is in no layout of {task} data; what was looked for:\n  "):
        read(root, task=task)
    with pytest.raises(UserError, match="does not exist; give the folder of the data"):
        read(root / "no", task=task)
    sets.image_folder(root, splits=("train/",))
    with pytest.raises(UserError, match="has no test data, only train"):
        read(root, task="classification", split="test")


# --- what was whole is remembered ---


def test_whole_files_are_not_decoded_again_until_they_change(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets.image_folder(root)
    read_files: list[str] = []
    decode = images.rgb

    def counting(path: Path) -> Image.Image:
        read_files.append(path.relative_to(root).as_posix())
        return decode(path)

    monkeypatch.setattr(images, "rgb", counting)
    split = read(root, task="classification")
    checked([split])
    assert len(read_files) == 9
    assert len(list(cache.iterdir())) == 1
    read_files.clear()
    checked([split])
    assert read_files == []
    broken(sets.picture(root / "train/dog/1.png", (200, 300)))
    with pytest.raises(BadData):
        checked([split])
    assert read_files == ["train/dog/1.png"]
    with pytest.raises(BadData):  # what is broken is never remembered as whole
        checked([split])
    next(cache.iterdir()).write_bytes(b"nonsense")
    read_files.clear()
    with pytest.raises(BadData):
        checked([split])
    assert len(read_files) == 9


def test_masks_that_are_remembered_still_know_their_classes(root: Path) -> None:
    sets.mask_folders(root)
    split = read(root, task="segmentation")
    checked([split])
    checked([split])  # from memory: no complaint that there is only one class
    for path in (root / "masks").iterdir():
        sets.mask(path, images.mask(path) * np.uint8(0))
    for _ in range(2):
        with pytest.raises(UserError, match="nothing to tell apart"):
            checked([split])


def test_a_cache_that_cannot_be_written_is_no_obstacle(root: Path, tmp_path: Path) -> None:
    sets.image_folder(root)
    (tmp_path / "file").write_text("")
    assert checked([read(root, task="classification")], cache=tmp_path / "file" / "cache")


def test_progress_reaches_the_number_of_images(root: Path) -> None:
    sets.people(root)
    seen: list[tuple[int, int]] = []
    checked([opened("pose", root)], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
