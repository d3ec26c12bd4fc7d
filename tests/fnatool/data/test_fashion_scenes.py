"""`fnatool data fashion-scenes`: real garments in labelled scenes, in the formats people have."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fnatool.cli.main import run
from fnatool.data.fashion import CLASSES, FILE, SIDE, garments, silhouette
from fnatool.data.fashion.scenes import HIDDEN, IN_SIGHT, LEAST_VISIBLE, OUTSIDE, POINTS, Scene, compose
from fnatool.tasks import NAMES
from fnatool.tasks.scenes import MARK, SceneOptions, scenes
from fnatool.tasks.table import TASKS

Capture = pytest.CaptureFixture[str]


def write(folder: Path, task: str, *arguments: str) -> int:
    return run(["data", "fashion-scenes", str(folder), "--task", task, "--train", "12", "--val", "4", *arguments])


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def some(task: str, count: int = 40, size: int = 96) -> list[Scene]:
    return [scene for _, scene in scenes(SceneOptions(task, size, count), "train")]


# --- the garments ---


def test_the_bundled_garments_are_the_ones_of_the_readme() -> None:
    assert (
        hashlib.sha256(FILE.read_bytes()).hexdigest()
        == "8461d8b9bde6f2956a7169769812a5122f90e62596561e78004225539f8bbae6"
    )
    assert garments("train").shape == (10, 1000, SIDE, SIDE)
    assert garments("val").shape == (10, 200, SIDE, SIDE)
    assert len(CLASSES) == 10


def test_no_garment_to_train_on_is_one_to_validate_on() -> None:
    train, val = (
        {garment.tobytes() for garment in garments(split).reshape(-1, SIDE, SIDE)} for split in ("train", "val")
    )
    assert not train & val


def test_a_silhouette_holds_dark_prints_and_neither_specks_nor_the_gap_in_a_handle() -> None:
    garment = np.zeros((SIDE, SIDE), np.uint8)
    garment[4:24, 6:22] = 200
    expected = garment > 0
    garment[10:12, 10:12] = 0  # a dark print
    garment[15:20, 10:18] = 6  # a large one, not quite black
    garment[0, 0] = 200  # a speck
    handle = np.zeros_like(garment)
    handle[4:24, 6:22], handle[10:20, 10:18] = 200, 0
    assert np.array_equal(silhouette(garment), expected)
    assert np.array_equal(silhouette(handle), handle > 0)


# --- the labels fit ---


@pytest.mark.parametrize("task", NAMES)
def test_boxes_and_areas_are_those_of_the_pixels_that_show(task: str) -> None:
    for scene in some(task):
        for garment in scene.garments:
            left, top, right, bottom = garment.box
            inside = scene.classes[top:bottom, left:right] == garment.label + 1
            assert inside.sum() >= garment.area > 0
            assert 0 <= left < right <= 96
            assert 0 <= top < bottom <= 96
        assert {int(value) for value in np.unique(scene.classes)} - {0} == {
            garment.label + 1 for garment in scene.garments
        }


def test_a_scene_with_one_garment_shows_it_in_other_colours_than_the_ground_around_it() -> None:
    """The mask separates two colours: pixels just within it differ from those just outside it, along nearly all of its
    edge.
    """
    seen = []
    for scene in some("classification", 60):
        inside = scene.classes > 0
        across = inside[:, 1:] != inside[:, :-1]
        image = scene.image.astype(float)
        step = np.abs(image[:, 1:] - image[:, :-1]).sum(-1)
        seen.append(step[across].mean() / step[~across].mean())
    assert np.median(seen) > 1.5
    shifted = [np.roll(scene.classes, 9, 1) > 0 for scene in some("classification", 60)]
    wrong = []
    for scene, inside in zip(some("classification", 60), shifted, strict=True):
        across = inside[:, 1:] != inside[:, :-1]
        step = np.abs(scene.image.astype(float)[:, 1:] - scene.image.astype(float)[:, :-1]).sum(-1)
        wrong.append(step[across].mean() / step[~across].mean())
    assert np.median(wrong) < 1.3


def test_points_lie_where_their_names_say() -> None:
    collar, hem, left, right = range(4)
    assert POINTS == ("collar", "hem", "left", "right", "centre")
    counted = {IN_SIGHT: 0, HIDDEN: 0, OUTSIDE: 0}
    for scene in some("pose", 80):
        for garment in scene.garments:
            points = garment.points
            assert points[collar, 1] < points[hem, 1]  # nothing is turned by more than 40 degrees
            assert points[left, 0] < points[right, 0]
            for point, seen in zip(points, garment.seen, strict=True):
                counted[seen] += 1
                within = bool(((point >= 0) & (point < 96)).all())
                assert within == (seen != OUTSIDE)
                # in its box, but for a pixel of rounding and gaps such as that between trouser legs
                if seen == IN_SIGHT:
                    assert garment.box[0] - 2 <= point[0] <= garment.box[2] + 2
    assert counted[IN_SIGHT] > 4 * (counted[HIDDEN] + counted[OUTSIDE])
    assert counted[HIDDEN] > 0
    assert counted[OUTSIDE] > 0


def test_every_garment_shows_at_least_half_of_itself() -> None:
    pool = garments("train")
    for number in range(60):
        rng = np.random.default_rng(number)
        # bags are compact: the box tells the area
        scene = compose(rng, pool, [8, 8, 8], style=TASKS["detection"].scenes().style, size=96)
        for garment in scene.garments:
            left, top, right, bottom = garment.box
            assert garment.area >= 0.15 * (right - left) * (bottom - top)
            assert garment.area >= LEAST_VISIBLE * 0.15 * (0.35 * 96) ** 2


# --- what is written ---


@pytest.mark.parametrize("task", NAMES)
def test_the_same_seed_gives_the_same_bytes_and_another_one_others(task: str, tmp_path: Path) -> None:
    assert write(tmp_path / "a", task) == 0
    assert write(tmp_path / "b", task) == 0
    assert write(tmp_path / "c", task, "--seed", "1") == 0
    first = content(tmp_path / "a")
    assert len([name for name in first if name.endswith(".jpg")]) == 16
    assert first == content(tmp_path / "b")
    other = content(tmp_path / "c")
    assert not [name for name in first.keys() & other.keys() if name.endswith(".jpg") and first[name] == other[name]]


def test_a_scene_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    assert write(tmp_path / "a", "detection") == 0
    assert (
        run(["data", "fashion-scenes", str(tmp_path / "b"), "--task", "detection", "--train", "3", "--val", "1"]) == 0
    )
    few, many = content(tmp_path / "b"), content(tmp_path / "a")
    assert few["train/00002.jpg"] == many["train/00002.jpg"]


def test_segmentation_and_detection_label_the_same_scenes(tmp_path: Path) -> None:
    assert write(tmp_path / "s", "segmentation") == 0
    assert write(tmp_path / "d", "detection") == 0
    assert (tmp_path / "s/JPEGImages/train_00003.jpg").read_bytes() == (tmp_path / "d/train/00003.jpg").read_bytes()
    mask = pixels(tmp_path / "s/SegmentationClass/train_00003.png")
    document = json.loads((tmp_path / "d/annotations/instances_train.json").read_text())
    boxes = [a for a in document["annotations"] if a["image_id"] == 4]
    assert {a["category_id"] for a in boxes} == {int(value) for value in np.unique(mask)} - {0}
    assert sum(a["area"] for a in boxes) == (mask > 0).sum()


def test_every_folder_says_how_it_was_made(tmp_path: Path, capsys: Capture) -> None:
    assert write(tmp_path / "a", "pose", "--size", "64", "--seed", "7") == 0
    assert capsys.readouterr() == (f"12 scenes to train on and 4 to validate, 64×64 → {tmp_path / 'a'}\n", "")
    mark = json.loads((tmp_path / "a" / MARK).read_text())
    assert {key: mark[key] for key in ("task", "size", "train", "val", "seed")} == {
        "task": "pose", "size": 64, "train": 12, "val": 4, "seed": 7,
    }  # fmt: skip
    assert pixels(tmp_path / "a/train/00000.jpg").shape == (64, 64, 3)


# --- nothing is lost, nothing is half there ---


def refused(capsys: Capture) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fnatool: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_an_existing_folder_is_replaced_with_force_only(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "a"
    folder.mkdir()  # an empty one is no loss
    assert write(folder, "pose") == 0
    before = content(folder)
    capsys.readouterr()
    assert write(folder, "pose", "--seed", "1") == 2
    assert "exists; choose another folder or pass --force to replace it" in refused(capsys)
    assert content(folder) == before
    assert write(folder, "classification", "--seed", "1", "--force") == 0
    assert content(folder).keys().isdisjoint(before.keys() - {MARK})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("years of work")
    assert write(tmp_path / "a", "pose", "--force") == 2
    assert "holds files that 'fnatool data fashion-scenes' has not written" in refused(capsys)
    assert write(tmp_path / "a" / "thesis.txt", "pose", "--force") == 2
    assert "is not a folder" in refused(capsys)
    assert write(tmp_path / "no" / "a", "pose") == 2
    assert "create it first" in refused(capsys)
    assert content(tmp_path) == {"a/thesis.txt": b"years of work"}


def test_too_few_scenes_for_the_classes_are_refused(tmp_path: Path, capsys: Capture) -> None:
    assert run(["data", "fashion-scenes", str(tmp_path / "a"), "--task", "classification", "--train", "9"]) == 2
    assert "too few" in refused(capsys)
    assert run(["data", "fashion-scenes", str(tmp_path / "a"), "--task", "pose", "--size", "16"]) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_folder_whose_writing_is_interrupted_never_appears(end: signal.Signals, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "fnatool", "data", "fashion-scenes", "a", "--task", "pose", "--train", "100000"]
    path = os.pathsep.join([str(Path(__file__).parent.parent.parent.parent), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        line, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        deadline = time.monotonic() + 30
        while not list(tmp_path.rglob("*.jpg")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(end)
        assert process.stderr is not None
        message = process.stderr.read()
    assert not (tmp_path / "a").exists()
    if end == signal.SIGINT:
        assert (process.returncode, message.strip()) == (130, "fnatool: interrupted")
        assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_what_brings_it(tmp_path: Path) -> None:
    script = "import sys; sys.modules['PIL'] = None; from fnatool.cli.main import main; main()"
    line = [sys.executable, "-c", script, "data", "fashion-scenes", "a", "--task", "pose"]
    done = subprocess.run(
        line,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert (done.returncode, done.stderr) == (
        2,
        "fnatool: this needs PIL, which is not installed; pip install 'fnatool[search]' brings it\n",
    )


def test_help_of_the_group_lists_its_commands(capsys: Capture) -> None:
    assert run(["data", "--help"]) == 0
    assert "fashion-scenes" in capsys.readouterr().out
