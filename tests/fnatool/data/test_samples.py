"""Training samples: image and labels change together, by chance that is a function of (seed, epoch, index) and of
nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sets
import torch
from levels import retinanet_levels
from PIL import Image
from torchvision.transforms import v2

from fnatool.data.placement import Placement
from fnatool.data.split import IGNORE, Boxed, Labelled, Masked, Posed, Split
from fnatool.tasks import NAMES, augment, detection
from fnatool.tasks.augment import NEITHER, NO_LABEL
from fnatool.tasks.classification import Classification
from fnatool.tasks.description import Description, Input
from fnatool.tasks.detection import Detection
from fnatool.tasks.pose import Pose
from fnatool.tasks.reading import Holdout, read
from fnatool.tasks.segmentation import Segmentation
from fnatool.tasks.table import TASKS
from fnatool.tasks.task import PLAIN, Augment
from fnatool.training import samples
from fnatool.training.order import EvaluationOrder, TrainOrder
from fnatool.training.samples import Evaluation, Training, drawn, evaluation_batches, training_batches
from passes.errors import UserError

BLACK = Input(mean=(0.0, 0.0, 0.0))  # so that padding is black
SIZE = (48, 64)  # of the input: height, width


def on_input(placement: Placement, box: np.ndarray) -> np.ndarray:
    """[1, 4] A box of the image, in the input."""
    return np.asarray(box.reshape(2, 2) * placement.scale[::-1] + placement.shift[::-1], np.float32).reshape(1, 4)


def save(path: Path, pixels: np.ndarray) -> str:
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path.name


def split_of(task: str, root: Path, items: list, classes: tuple[str, ...] = ("a", "b")) -> Split:
    return Split(
        task=task,
        name="train",
        root=root,
        layout="test",
        classes=classes,
        items=tuple(items),
        found=len(items),
        codes=bytes([0, 1, *[254] * 253, 255]),
    )


# --- image and labels change together ---


def test_mask_and_image_stay_on_each_other(tmp_path: Path) -> None:
    """A bright blob, labelled: after any scale, crop and flip the bright pixels are the labelled ones, and padding is
    ignored.
    """
    mask = np.zeros((80, 100), np.uint8)
    mask[20:50, 10:60] = 1
    split = split_of(
        "segmentation",
        tmp_path,
        [Masked(save(tmp_path / "i.png", np.stack([mask * 200 + 55] * 3, -1)), save(tmp_path / "m.png", mask))],
    )
    training = Training(
        split, Segmentation(classes=("a", "b"), input=BLACK), SIZE, Augment(scale=(0.5, 2.0), colour=0), 0
    )
    flipped, padded = 0, 0
    for epoch in range(30):
        sample = training[epoch, 0]
        image, found = sample["image"].float().mean(0), sample["mask"]
        assert found.dtype == torch.uint8
        assert found.shape == image.shape == SIZE
        assert set(found.unique().tolist()) <= {0, 1, IGNORE}
        assert torch.equal(found == IGNORE, image < 20)
        wrong = ((image > 155) != (found == 1)) & (found != IGNORE)
        assert wrong.float().mean() < 0.03
        padded += bool((found == IGNORE).any())
        flipped += bool((found == 1).float().mean(0).nonzero().float().mean() > SIZE[1] / 2)
    assert padded > 3
    assert 3 < flipped < 27
    shifted = torch.roll(sample["mask"], 5, 1)
    assert ((image > 155) != (shifted == 1)).float().mean() > 0.05


def white_box(image: torch.Tensor) -> list[float]:
    rows, columns = torch.nonzero(image.float().mean(0) > 127, as_tuple=True)
    return [float(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


def test_boxes_stay_around_their_objects(tmp_path: Path) -> None:
    pixels = np.full((90, 120, 3), 40)
    pixels[30:60, 50:80] = 255
    item = Boxed(
        save(tmp_path / "i.png", pixels),
        (90, 120),
        np.array([[50, 30, 80, 60]], np.float32),
        np.array([1]),
        np.array([False]),
        np.ones(1),
    )
    training = Training(
        split_of("detection", tmp_path, [item]), detector(), SIZE, Augment(scale=(0.7, 1.6), colour=0), 0
    )  # fmt: skip
    cut = 0
    for epoch in range(40):
        sample = training[epoch, 0]
        (box,), (label,) = sample["boxes"].tolist(), sample["labels"].tolist()
        if label == NEITHER:
            cut += 1
            continue
        assert label == 1
        assert np.abs(np.array(white_box(sample["image"])) - box).max() <= 1.01
    assert cut < 20
    with pytest.raises(AssertionError):  # the check itself notices a mirrored image whose box was not
        assert np.abs(np.array(white_box(sample["image"].flip(2))) - box).max() <= 1.01


def test_objects_that_are_mostly_cut_away_and_crowds_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    boxes = np.array([[0, 0, 20, 90], [0, 0, 120, 90]], np.float32)
    item = Boxed(
        save(tmp_path / "i.png", np.zeros((90, 120, 3))),
        (90, 120),
        boxes,
        np.array([0, 1]),
        np.array([False, True]),
        np.ones(2),
    )
    training = Training(
        split_of("detection", tmp_path, [item]), detector(), SIZE, Augment(scale=(1.5, 1.5), colour=0), 0
    )
    labels = [tuple(training[epoch, 0]["labels"].tolist()) for epoch in range(20)]
    assert set(labels) == {(0, NEITHER), (NEITHER, NEITHER)}


def detector() -> Detection:
    return Detection(classes=("a", "b"), input=BLACK, levels=retinanet_levels((8,)))


def dots(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Three soft dots, a colour each, at points [3, 2] counted from the corner of the first pixel."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    return np.stack([255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18) for x, y in points], -1)


def centres(image: torch.Tensor) -> np.ndarray:
    """Where the dots are, [3, 2]."""
    values = image.double().numpy()
    rows, columns = np.mgrid[: values.shape[1], : values.shape[2]] + 0.5
    return np.array(
        [[(v * columns).sum() / v.sum(), (v * rows).sum() / v.sum()] for v in np.where(values > 20, values, 0)]
    )


POINTS = np.array([[60.5, 50.5], [50.25, 70.0], [78.0, 66.5]], np.float32)


def poser(tmp_path: Path, pairs: tuple[tuple[int, int], ...] = (), how: Augment | None = None) -> Training:
    item = Posed(
        save(tmp_path / "i.png", dots(POINTS, (120, 130))), (120, 130), np.array([35, 35, 95, 90], np.float32), POINTS,
        np.array([2, 1, 2], np.uint8), 900.0,
    )  # fmt: skip
    describe = Pose(classes=("x",), joints=("nose", "left", "right"), sigmas=(0.05,) * 3, flip_pairs=pairs, input=BLACK)
    return Training(
        replace(split_of("pose", tmp_path, [item]), joints=describe.joints),
        describe,
        SIZE,
        how or Augment(scale=(0.75, 1.25), rotate=30, colour=0),
        0,
    )


def test_points_stay_on_their_dots_through_scale_rotation_and_mirror(tmp_path: Path) -> None:
    training = poser(tmp_path)
    mirrored = []
    for epoch in range(40):
        sample = training[epoch, 0]
        assert sample["weights"].tolist() == [1, 1, 1]
        assert np.abs(centres(sample["image"]) - sample["points"].numpy()).max() < 0.35
        points = sample["points"]
        mirrored.append(bool(points[1, 0] > points[2, 0]))
    assert 5 < sum(mirrored) < 35


def test_left_and_right_change_places_in_a_mirror(tmp_path: Path) -> None:
    plain, paired = poser(tmp_path), poser(tmp_path, pairs=((1, 2),))
    for epoch in range(20):
        one, other = plain[epoch, 0], paired[epoch, 0]
        mirrored = bool(one["points"][1, 0] > one["points"][2, 0])
        order = [0, 2, 1] if mirrored else [0, 1, 2]
        assert torch.equal(other["points"], one["points"][order])
        assert other["points"][1, 0] < other["points"][2, 0]  # left is always left


def test_points_that_are_a_pixel_off_in_a_mirror_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = augment.mirrored_points
    monkeypatch.setattr(augment, "mirrored_points", lambda points, width: right(points, width - 1))
    training = poser(tmp_path)
    off = [np.abs(centres(s["image"]) - s["points"].numpy()).max() for s in (training[epoch, 0] for epoch in range(20))]
    assert max(off) > 0.8


def test_points_that_turn_the_other_way_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = augment.turned

    def wrong(
        image: torch.Tensor, points: torch.Tensor, box: torch.Tensor, **how: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return right(image, points, box, **how)[0], right(image, points, box, **{**how, "angle": -how["angle"]})[1]

    monkeypatch.setattr(augment, "turned", wrong)
    training = poser(tmp_path)
    off = [np.abs(centres(s["image"]) - s["points"].numpy()).max() for s in (training[epoch, 0] for epoch in range(5))]
    assert max(off) > 2


def test_an_image_of_which_nothing_is_seen_is_all_ground(tmp_path: Path) -> None:
    image, points = torch.full((3, 20, 20), 9, dtype=torch.uint8), torch.tensor([[105.0, 105.0]])
    box = torch.tensor([100.0, 100.0, 110.0, 110.0])
    picture, placed = augment.turned(image, points, box, size=SIZE, factor=1.0, angle=10.0, fill=(1, 2, 3))
    assert picture.shape == (3, *SIZE)
    assert picture.flatten(1).unique(dim=1).tolist() == [[1], [2], [3]]
    assert placed.tolist() == [[32, 24]]


def test_points_that_leave_the_picture_weigh_nothing(tmp_path: Path) -> None:
    training = poser(tmp_path, how=Augment(scale=(4, 4), colour=0, flip=0))
    sample = training[0, 0]
    inside = ((sample["points"] >= 0) & (sample["points"] < torch.tensor([64, 48]))).all(1)
    assert torch.equal(sample["weights"], inside.float())
    assert sample["weights"].sum() < 3


@pytest.mark.parametrize("task", ["segmentation", "detection", "pose"])
def test_nothing_is_scaled_that_is_not_seen(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = replace(training_of(task, tmp_path), augment=Augment(scale=(3, 3), rotate=20))
    made = []
    resize = augment.F.resize
    monkeypatch.setattr(augment.F, "resize", lambda value, size, **how: made.append(size) or resize(value, size, **how))
    for epoch in range(4):
        assert training[epoch, 1]["image"].shape == (3, 32, 32)
    assert all(height <= 32 and width <= 32 for height, width in made)


def test_classification_sees_parts_of_the_image_in_changing_colours(tmp_path: Path) -> None:
    sets.picture(tmp_path / "i.png", (100, 100))
    training = Training(
        split_of("classification", tmp_path, [Labelled("i.png", 1)]),
        Classification(classes=("a", "b")),
        SIZE,
        TASKS["classification"].augment,
        0,
    )
    images = [training[epoch, 0]["image"] for epoch in range(5)]
    assert all(image.shape == (3, *SIZE) and image.dtype == torch.uint8 for image in images)
    assert not any(torch.equal(one, other) for one, other in pairwise(images))


# --- without chance ---


def test_evaluation_fits_the_whole_image_and_knows_the_way_back(tmp_path: Path) -> None:
    pixels = np.full((45, 120, 3), 40)
    pixels[15:30, 60:90] = 255
    box = np.array([[60, 15, 90, 30]], np.float32)
    item = Boxed(save(tmp_path / "i.png", pixels), (45, 120), box, np.array([1]), np.array([False]), np.ones(1))
    shown = Evaluation(split_of("detection", tmp_path, [item]), detector(), SIZE)[0, 0]
    assert shown.image.shape == (3, *SIZE)
    assert (shown.image[:, 24:] == 0).all()  # padded below: 45 × 64 / 120 = 24 rows
    back = shown.placement.boxes_to_image(np.array([white_box(shown.image)], np.float32))
    assert np.abs(back - box).max() < 1.9  # a pixel of the input is 1.9 of the image
    assert np.allclose(shown.placement.boxes_to_image(on_input(shown.placement, box)), box, atol=1e-4)


def test_evaluation_of_a_pose_maps_its_points_back(tmp_path: Path) -> None:
    training = poser(tmp_path)
    shown = Evaluation(training.split, training.description, SIZE)[0, 0]
    assert np.abs(shown.placement.points_to_image(centres(shown.image)) - POINTS).max() < 0.4
    assert isinstance(shown.truth, Posed)


def test_an_image_of_the_size_of_the_input_is_shown_untouched(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE, 3))
    name = save(tmp_path / "i.png", pixels)
    for task, describe, item in (
        ("classification", Classification(classes=("a", "b"), crop=1.0), Labelled(name, 0)),
        ("segmentation", Segmentation(classes=("a", "b")), Masked(name, save(tmp_path / "m.png", np.zeros(SIZE)))),
    ):
        shown = Evaluation(split_of(task, tmp_path, [item]), describe, SIZE)[0, 0]  # type: ignore[arg-type]
        assert np.array_equal(shown.image.permute(1, 2, 0).numpy(), pixels)
        assert (shown.placement.scale, shown.placement.shift) == ((1, 1), (0, 0))


def test_classification_is_shown_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((100, 200, 3))
    pixels[:, 90:110] = 255
    split = split_of("classification", tmp_path, [Labelled(save(tmp_path / "i.png", pixels), 0)])
    shown = Evaluation(split, Classification(classes=("a", "b"), crop=0.5), (50, 50))[0, 0]
    assert shown.placement.scale == (1, 1)
    assert white_box(shown.image) == [15, 0, 35, 50]


def test_no_chance_leaves_the_image_as_it_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE, 3))
    split = split_of(
        "segmentation", tmp_path, [Masked(save(tmp_path / "i.png", pixels), save(tmp_path / "m.png", np.ones(SIZE)))]
    )
    sample = Training(split, Segmentation(classes=("a", "b")), SIZE, PLAIN, 0)[0, 0]
    assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), pixels)


# --- chance ---


def training_of(task: str, root: Path) -> Training:
    make: dict[str, Callable[[Path], Path]] = {
        "classification": sets.image_folder, "segmentation": sets.mask_folders, "detection": sets.boxes,
        "pose": sets.people,
    }  # fmt: skip
    split = read(make[task](root), task=task, holdout=Holdout(0))
    descriptions: dict[str, Description] = {
        "classification": Classification(classes=split.classes),
        "segmentation": Segmentation(classes=split.classes),
        "detection": Detection(classes=split.classes, levels=retinanet_levels((8,))),
        "pose": Pose(classes=split.classes, joints=sets.JOINTS, sigmas=(0.05,) * 3, flip_pairs=((1, 2),)),
    }
    return Training(split, descriptions[task], (32, 32), TASKS[task].augment, seed=7)


def batches(
    training: Training, *, workers: int, start: int = 0, steps: int = 5, **parallel: int
) -> list[dict[str, torch.Tensor]]:
    order = TrainOrder(len(training), 2, steps, seed=training.seed, start=start, **parallel)
    return list(training_batches(training, order, workers=workers))


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("task", NAMES)
def test_neither_workers_nor_a_restart_in_mid_epoch_changes_a_batch(task: str, tmp_path: Path) -> None:
    training = training_of(task, tmp_path)
    alone = batches(training, workers=0)
    assert len(alone) == 5
    assert all(equal(*pair) for pair in zip(alone, batches(training, workers=2), strict=True))
    resumed = batches(training, workers=0, start=3)
    assert all(equal(*pair) for pair in zip(alone[3:], resumed, strict=True))
    other = batches(replace(training, seed=8), workers=0)
    assert not any(equal(*pair) for pair in zip(alone, other, strict=True))


@pytest.mark.parametrize("task", NAMES)
def test_colours_that_are_changed_on_the_batch_are_those_of_the_sample(task: str, tmp_path: Path) -> None:
    training = training_of(task, tmp_path)
    now, later = (batches(replace(training, colours_later=how), workers=0, steps=2) for how in (False, True))
    for one, other in zip(now, later, strict=True):
        drawn_for = other.pop("colours")
        assert len(set(map(tuple, drawn_for.tolist()))) == len(drawn_for)
        assert not torch.equal(one["images"], other["images"])
        found = augment.coloured(other["images"], drawn_for)
        assert found.dtype == torch.uint8
        apart = (found.int() - one.pop("images").int()).abs()
        assert apart.max() <= 1  # a rounding
        assert (apart > 0).float().mean() < 0.01
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_colours_without_a_change_stay() -> None:
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(augment.coloured(images, torch.ones(3, 3)), images)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_colours_change_as_torchvisions_do_in_any_order(order: tuple[int, ...]) -> None:
    """Far from black and white, where torchvision cuts off after each change."""
    image = torch.randint(90, 160, (3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    factors = (1.2, 0.85, 1.15)
    changes = (v2.functional.adjust_brightness, v2.functional.adjust_contrast, v2.functional.adjust_saturation)
    wanted = image
    for number in order:
        wanted = changes[number](wanted, factors[number])
    found = augment.coloured(image[None], torch.tensor([factors]))[0]
    assert (found.int() - wanted.int()).abs().max() <= 3  # it rounds down after each change


@pytest.mark.parametrize("task", NAMES)
def test_what_was_drawn_before_changes_nothing_and_nothing_leaks_out(task: str, tmp_path: Path) -> None:
    training = training_of(task, tmp_path)
    torch.manual_seed(1)
    first = training[2, 1]
    torch.manual_seed(2), np.random.seed(2), random.seed(2)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[union-attr]  # noqa: NPY002
    second = training[2, 1]
    batches(training, workers=0, steps=1)
    batches(training, workers=1, steps=1)
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # type: ignore[union-attr]  # noqa: NPY002
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert before[2] == after[2]
    assert not torch.equal(first["image"], training[3, 1]["image"])


def test_a_sample_that_drew_from_the_global_generator_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import nullcontext

    training = training_of("classification", tmp_path)
    monkeypatch.setattr(samples, "drawn", lambda *_: nullcontext())
    torch.manual_seed(1)
    first = training[2, 1]["image"]
    torch.manual_seed(2)
    assert not torch.equal(first, training[2, 1]["image"])


def test_draws_do_not_depend_on_each_other_even_after_an_error() -> None:
    def draw(*key: int) -> float:
        with drawn(*key):
            return float(torch.rand(()))

    state = torch.get_rng_state()
    with pytest.raises(KeyError), drawn(1, 2, 3):
        {}[torch.rand(3)]
    assert torch.equal(state, torch.get_rng_state())
    values = [draw(seed, epoch, index) for seed in range(3) for epoch in range(3) for index in range(3)]
    assert len(set(values)) == 27
    assert values[5] == draw(0, 1, 2)


# --- the order ---


def test_an_epoch_shows_every_sample_once_and_drops_what_fills_no_batch() -> None:
    order = TrainOrder(10, 3, 6, seed=0)
    assert order.steps_per_epoch == 3
    keys = [key for step in order for key in step]
    first, second = keys[:9], keys[9:]
    assert {epoch for epoch, _ in first} == {0}
    assert {epoch for epoch, _ in second} == {1}
    assert len({index for _, index in first}) == len({index for _, index in second}) == 9
    assert [index for _, index in first] != [index for _, index in second]
    assert len(order) == 6


def test_two_processes_share_the_batch_of_one() -> None:
    whole = list(TrainOrder(23, 4, 9, seed=5))
    ranks = [list(TrainOrder(23, 2, 9, seed=5, rank=rank, world=2)) for rank in range(2)]
    assert [one + other for one, other in zip(*ranks, strict=True)] == whole


def test_an_order_that_starts_later_is_the_end_of_the_whole() -> None:
    assert list(TrainOrder(23, 4, 12, seed=5, start=7)) == list(TrainOrder(23, 4, 12, seed=5))[7:]


def test_too_few_samples_for_a_batch_are_said() -> None:
    with pytest.raises(
        UserError, match=r"7 samples do not fill a batch of 4 × 2 process\(es\); make the batch smaller"
    ):
        TrainOrder(7, 4, 1, seed=0, world=2)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_every_sample_once_over_all_processes(world: int) -> None:
    orders = [EvaluationOrder(10, 3, rank, world) for rank in range(world)]
    seen = [index for order in orders for batch in order for _, index in batch]
    assert sorted(seen) == list(range(10))
    assert [len(list(order)) for order in orders] == [len(order) for order in orders]


# --- batches ---


def test_a_batch_of_boxes_is_padded_with_boxes_without_label() -> None:
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    many = {"image": image, "boxes": torch.ones(2, 4), "labels": torch.tensor([0, 1])}
    none = {"image": image, "boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    batch = detection.batch([many, none])
    assert batch["images"].shape == (2, 3, 4, 4)
    assert batch["boxes"].shape == (2, 2, 4)
    assert batch["labels"].tolist() == [[0, 1], [NO_LABEL, NO_LABEL]]
    assert detection.batch([none, none])["boxes"].shape == (2, 0, 4)


def test_an_image_without_objects_is_a_sample(tmp_path: Path) -> None:
    empty = np.zeros((0, 4), np.float32)
    item = Boxed(
        save(tmp_path / "i.png", np.zeros((90, 120, 3))),
        (90, 120),
        empty,
        np.zeros(0, np.int64),
        np.zeros(0, bool),
        np.zeros(0, np.float32),
    )
    sample = Training(split_of("detection", tmp_path, [item]), detector(), SIZE, TASKS["detection"].augment, 0)[0, 0]
    assert (tuple(sample["boxes"].shape), tuple(sample["labels"].shape)) == ((0, 4), (0,))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_batches_bring_truth_and_placement(workers: int, tmp_path: Path) -> None:
    training = training_of("segmentation", tmp_path)
    evaluation = Evaluation(training.split, training.description, (32, 32))
    found = list(evaluation_batches(evaluation, EvaluationOrder(len(evaluation), 3), workers=workers))
    assert [batch.indices for batch in found] == [(0, 1, 2), (3,)]
    assert [batch.images.shape[0] for batch in found] == [3, 1]
    assert all(truth.shape == (20, 30) for batch in found for truth in batch.truths)  # type: ignore[union-attr]
    assert found[0].placements[0].image == (20, 30)


def test_a_file_that_has_gone_since_the_check_is_named(tmp_path: Path) -> None:
    training = training_of("classification", tmp_path)
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    for workers in (0, 1):
        with pytest.raises(
            UserError,
            match=r"^'.*png' was whole when it was checked, and now there is no such file; has it been changed\?$",
        ):
            batches(training, workers=workers)


def test_data_that_does_not_fit_the_model_is_refused(tmp_path: Path) -> None:
    split = training_of("classification", tmp_path / "c").split
    with pytest.raises(UserError, match="is for classification, the model for segmentation"):
        Evaluation(split, Segmentation(classes=split.classes), SIZE)
    with pytest.raises(
        UserError, match="has 3 classes, the model 3; number 1 is 'dog' in the data and 'fox' in the model"
    ):
        Evaluation(split, Classification(classes=("cat", "fox", "owl")), SIZE)
    with pytest.raises(
        UserError, match="has 3 classes, the model 4; number 3 is 'nothing' in the data and 'ape' in the model"
    ):
        Training(split, Classification(classes=("cat", "dog", "owl", "ape")), SIZE, PLAIN, 0)
    posed = training_of("pose", tmp_path / "p")
    with pytest.raises(UserError, match="has 3 joints, the model 1; number 1 is 'left_eye' in the data and 'nothing'"):
        Evaluation(posed.split, Pose(classes=("other",), joints=("nose",), sigmas=(0.1,)), SIZE)
