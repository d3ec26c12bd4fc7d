"""Every task is one record that everything else reads, and answers can be drawn."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from sources import ROOT, SOURCES

from fnatool.tasks import NAMES
from fnatool.tasks.classification import Classification, Classified
from fnatool.tasks.detection import Detected, Detection
from fnatool.tasks.drawing import colour
from fnatool.tasks.joints import limbs_of
from fnatool.tasks.pose import Jointed, Pose
from fnatool.tasks.segmentation import UNDECIDED, Segmentation, Segmented
from fnatool.tasks.table import TASKS
from fnatool.training.config import template
from passes.heads import STYLES

# a record for each task; a row for each format, by the tasks it is for
TABLES = ("fnatool/tasks/", "fnatool/data/formats.py")
SHELL = sorted(name for name in SOURCES if name.startswith("fnatool/") and not name.startswith(TABLES))
LEVELS = ({"stride": (8, 8), "sizes": (8.0,), "ratios": (1.0,)},)
GREY = Image.new("RGB", (80, 60), (128, 128, 128))


def decisions(tree: ast.Module) -> Iterator[str]:
    """The names of tasks that something is compared with, or looked up by."""
    for node in ast.walk(tree):
        asked: list[ast.expr | None] = []
        if isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Dict):
            asked = [*node.keys]
        elif isinstance(node, ast.Subscript):
            asked = [node.slice]
        yield from (
            one.value
            for one in asked
            if isinstance(one, ast.Constant) and isinstance(one.value, str) and one.value in NAMES
        )


def test_a_decision_by_the_name_of_a_task_is_noticed() -> None:
    source = "x = {'pose': 1}\ny = task == 'detection'\nz = TABLE['segmentation']\nw = Split('classification')"
    assert sorted(decisions(ast.parse(source))) == ["detection", "pose", "segmentation"]


@pytest.mark.parametrize("name", SHELL)
def test_nothing_outside_the_records_decides_by_the_name_of_a_task(name: str) -> None:
    assert not list(decisions(ast.parse((ROOT / name).read_text())))


@pytest.mark.parametrize("name", NAMES)
def test_a_record_goes_by_its_name_and_has_a_head(name: str) -> None:
    task = TASKS[name]
    assert task.name == name
    assert task.description.model_fields["task"].default == name
    assert STYLES[task.head].outputs.keys() == task.outputs.keys()
    assert STYLES[task.head].counts == task.labels
    assert f'task = "{name}"' in template(name)


def changed(before: Image.Image, after: Image.Image) -> np.ndarray:
    """Which pixels of the picture, large enough for words, are others, [h, w]; the first picture is still plain
    grey.
    """
    assert before.getextrema() == ((128, 128),) * 3
    assert after.width == before.width * ZOOM
    return (np.asarray(after)[: before.height * ZOOM] != 128).any(-1)


def rim(there: np.ndarray) -> np.ndarray:
    """One pixel around a region, on the enlarged picture."""
    large = np.kron(there, np.ones((ZOOM, ZOOM), bool))
    near = [np.roll(large, (down, across), (0, 1)) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    return np.asarray(np.logical_or.reduce(near) & ~large)


ZOOM = 6  # of a picture of 80 pixels, until it has 480


def test_a_class_is_told_below_the_picture() -> None:
    answer = Classified(1, 0.875, np.array([0.125, 0.875]), np.zeros(2))
    about = Classification(classes=("cat", "dog"))
    drawn = TASKS["classification"].draw(GREY, answer, about)
    assert not changed(GREY, drawn).any()
    strip = np.asarray(drawn)[60 * ZOOM :].reshape(-1, 3)
    assert (strip == colour(1)).all(1).sum() > 100
    assert (strip == colour(0)).all(1).sum() > 100  # the other one is probable enough to be told
    assert TASKS["classification"].say(answer, about) == {
        "class": "dog",
        "probability": 0.875,
        "most_probable": {"dog": 0.875, "cat": 0.125},
    }


def test_masks_lie_over_their_pixels_but_for_background_and_undecided_ones() -> None:
    classes = np.zeros((60, 80), np.uint8)
    classes[30:50, 40:70], classes[52:58, 10:20] = 2, UNDECIDED
    about = Segmentation(classes=("ground", "cat", "dog"))
    drawn = TASKS["segmentation"].draw(GREY, Segmented(classes), about)
    there = changed(GREY, drawn)
    assert np.array_equal(there, np.kron(classes == 2, np.ones((ZOOM, ZOOM), bool)) | rim(classes == 2))
    assert np.abs(np.asarray(drawn)[40 * ZOOM, 50 * ZOOM] - (np.array(colour(2)) + 128) / 2).max() <= 2
    assert drawn.getpixel((40 * ZOOM, 40 * ZOOM)) == colour(2)  # the edge
    said = TASKS["segmentation"].say(Segmented(classes), about)["shares"]
    assert said == {"ground": 1 - 660 / 4800, "dog": 600 / 4800}


def test_only_sure_objects_have_boxes() -> None:
    boxes = np.array([[20, 30, 60, 55], [1, 1, 79, 59]], np.float32)
    answer = Detected(boxes, np.array([0.9, 0.1], np.float32), np.array([0, 1]))
    about = Detection.model_validate({"classes": ("cat", "dog"), "levels": LEVELS})
    drawn = TASKS["detection"].draw(GREY, answer, about)
    there = changed(GREY, drawn)
    assert drawn.getpixel((60 * ZOOM, 50 * ZOOM)) == drawn.getpixel((40 * ZOOM, 55 * ZOOM)) == colour(0)
    assert not there[58 * ZOOM :].any()
    assert not there[:, : 19 * ZOOM].any()
    objects = TASKS["detection"].say(answer, about)["objects"]
    assert isinstance(objects, list)
    assert [row["class"] for row in objects] == ["cat", "dog"]


def test_joints_have_dots_and_limbs_where_both_ends_are_sure() -> None:
    points = np.array([[10, 10], [10, 50], [70, 50]], np.float32)
    about = Pose(classes=("person",), joints=("left_hip", "left_knee", "left_ankle"), sigmas=(0.1, 0.1, 0.1))
    answer = Jointed(points, np.array([0.9, 0.8, 0.1]), 0.6)
    there = changed(GREY, TASKS["pose"].draw(GREY, answer, about))
    assert there[[10 * ZOOM, 30 * ZOOM, 50 * ZOOM], 10 * ZOOM].all()
    assert not there[:, 40 * ZOOM :].any()
    joints = TASKS["pose"].say(answer, about)["joints"]
    assert isinstance(joints, list)
    assert joints[2] == {"joint": "left_ankle", "x": 70.0, "y": 50.0, "score": 0.1}


def test_limbs_follow_from_the_names_of_joints() -> None:
    names = (
        "nose",
        "left_eye",
        "right_eye",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_hip",
        "right_hip",
    )
    assert sorted(limbs_of(names)) == [(1, 0), (2, 0), (3, 4), (3, 5), (3, 7), (4, 6), (4, 8), (7, 8)]
    assert limbs_of(("collar", "hem", "sleeve")) == ()
