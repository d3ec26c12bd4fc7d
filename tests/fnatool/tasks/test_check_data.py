"""`fnatool data check`: what a data set holds, every fault, what would be left out, and the sheet of its labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import label_forms
import numpy as np
import pytest
import sets
from PIL import Image

import fnatool
from fnatool.cli.main import run
from fnatool.tasks import drawing
from passes.errors import UserError

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "set"


def checked(root: Path, **how: object) -> fnatool.DataReport:
    return fnatool.check_data(root, options=fnatool.CheckDataOptions(**how))  # type: ignore[arg-type]


SETS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "folders": (sets.image_folder, "classification", "folders"),
    "masks": (sets.mask_folders, "segmentation", "masks"),
    "pascal": (sets.pascal, "segmentation", "voc"),
    "streets": (sets.streets, "segmentation", "cityscapes"),
    "coco": (label_forms.coco, "detection", "coco"),
    "voc": (label_forms.voc, "detection", "voc"),
    "yolo": (label_forms.yolo, "detection", "yolo"),
}


@pytest.mark.parametrize("kind", SETS)
def test_task_and_format_are_told_by_the_layout(kind: str, root: Path) -> None:
    write, task, form = SETS[kind]
    write(root)
    found = checked(root)
    assert (found.task, found.format, found.passed) == (task, form, True)


def test_labels_are_counted_by_class_and_split(root: Path) -> None:
    label_forms.yolo(root)
    wanted = {
        split: {
            name: sum(box[0] == number for scene in many for box in scene)
            for number, name in enumerate(label_forms.NAMES)
        }
        for split, many in label_forms.splits().items()
    }
    assert {one.split.name: dict(one.labels) for one in checked(root).splits} == wanted


def test_what_may_be_for_two_tasks_is_a_question(root: Path, capsys: Capture) -> None:
    sets.people(root)
    assert run(["data", "check", "set"]) == 2
    assert "may be for detection (COCO) or pose (COCO); say with --task which one is meant" in capsys.readouterr().err
    assert run(["data", "check", "set", "--task", "pose"]) == 0
    assert "pose, COCO (--data-format coco), 3 joints" in capsys.readouterr().out


def test_every_fault_is_counted_and_the_first_are_told(root: Path, capsys: Capture) -> None:
    label_forms.yolo(root)
    for number in range(1, 11):
        (root / f"labels/train/{number:03}.txt").write_text("7 .5 .5 .1 .1\n8 .5 .5 .1 .1\n9 .5 .5 .1 .1\n")
    assert run(["data", "check", "set"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert "labels/train/001.txt:1: its class is 7, but there are 3 classes, 0 … 2" in told
    assert "and 10 more; --json has the first 1,000 of each split" in told
    boxes = 30 + len(label_forms.splits()["train"][11])
    assert told[-1] == f"30 faults; --skip-bad leaves out train: 10 of 12 samples, 30 of {boxes} boxes"
    assert run(["data", "check", "set", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is False
    train = document["splits"][0]
    assert (train["faults"], train["faults_by_code"], len(train["first_faults"])) == (30, {"unknown-class": 30}, 30)
    assert train["left_out"] == {"samples": 10, "boxes": 30}


def test_names_of_files_are_shown_escaped(root: Path, capsys: Capture) -> None:
    label_forms.yolo(root)
    (root / "labels/train/::error ::x\x1b[2J.txt").write_text("0 .5 .5 .1 .1\n")
    assert run(["data", "check", "set"]) == 1
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "::error ::" not in told


def test_data_of_which_nothing_can_be_learnt_has_a_fault(root: Path) -> None:
    sets.mask_folders(root, count=1)
    sets.mask(root / "masks/0.png", np.zeros((20, 30), np.uint8))
    (found,) = checked(root).splits
    assert "so there is nothing to tell apart" in found.findings[-1].message


def test_a_folder_of_nothing_known_lists_what_was_looked_for(root: Path, capsys: Capture) -> None:
    root.mkdir()
    (root / "a.txt").write_text("")
    assert run(["data", "check", "set"]) == 2
    told = capsys.readouterr().err
    assert "is in no layout of labelled data" in told
    assert "  detection: YOLO: DIR/data.yaml" in told


def test_a_broken_yaml_is_said_rather_than_taken_for_folders_of_classes(root: Path) -> None:
    label_forms.yolo(root)
    (root / "data.yaml").write_text("names: [cat")
    with pytest.raises(UserError, match="this is not YAML that can be read"):
        checked(root)


def test_a_format_may_be_said(root: Path) -> None:
    label_forms.yolo(root)
    (root / "classes.txt").write_text("a\nb\n")
    assert checked(root, reading=fnatool.DataOptions(format="yolo")).format == "yolo"
    with pytest.raises(UserError, match="is no format of data"):
        checked(root, reading=fnatool.DataOptions(format="abc"))


# --- the sheet ---


@pytest.mark.parametrize("kind", [*SETS, "people"])
def test_a_sheet_shows_labels_and_the_same_seed_draws_the_same(kind: str, root: Path) -> None:
    (sets.people if kind == "people" else SETS[kind][0])(root)
    task = "pose" if kind == "people" else None
    for name in ("one.png", "two.png"):
        checked(root, task=task, sheet=Path(name), seed=3)
    with Image.open("one.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    colours = {drawing.colour(number) for number in range(21)}
    assert colours & set(map(tuple, np.unique(pixels, axis=0).tolist()))


def test_difficult_objects_are_on_the_sheet_as_not_counted(root: Path) -> None:
    from fnatool.tasks import detection
    from fnatool.tasks.reading import read

    sets.boxes(root)
    split = read(root, task="detection")
    picture = Image.new("RGB", (30, 20))
    item = split.items[0]
    described = detection.Detection.model_construct(classes=split.classes)
    plain = detection.mark(picture, item, described)  # type: ignore[arg-type]
    item.crowd[:] = True  # type: ignore[attr-defined]
    assert np.asarray(detection.mark(picture, item, described)).tobytes() != np.asarray(plain).tobytes()  # type: ignore[arg-type]


def test_a_sheet_replaces_nothing_unless_it_may(root: Path, capsys: Capture) -> None:
    label_forms.coco(root)
    Path("old.png").write_text("mine")
    assert run(["data", "check", "set", "--sheet", "old.png"]) == 2
    assert run(["data", "check", "set", "--sheet", "sheet.jpg"]) == 2
    assert "a contact sheet is a picture; give a file that ends in .png" in capsys.readouterr().err
    assert Path("old.png").read_text() == "mine"
    assert run(["data", "check", "set", "--sheet", "old.png", "--force"]) == 0
    assert Path("old.png").read_bytes()[:4] == b"\x89PNG"
