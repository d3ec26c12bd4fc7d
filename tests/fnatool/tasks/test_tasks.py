"""Descriptions, anchors, box codes and losses: what they say is what torchvision and the papers say."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
import torch.nn.functional as F
from levels import retinanet_levels, ssd_levels
from torchvision.models.detection import _utils as torchvision_detection
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from fnatool.files.interface import TASK_KEY
from fnatool.tasks import classification, detection, pose, segmentation
from fnatool.tasks.anchors import Level, anchors, counts
from fnatool.tasks.boxes import IGNORED, NEGATIVE, assign, decode, encode
from fnatool.tasks.classification import Classification
from fnatool.tasks.description import Description, Input, to_json
from fnatool.tasks.detection import Detection
from fnatool.tasks.joints import pairs, sigmas
from fnatool.tasks.parts import Part, Parts, means, total
from fnatool.tasks.pixels import fill, to_array, to_input
from fnatool.tasks.pose import Pose
from fnatool.tasks.segmentation import Segmentation
from fnatool.tasks.table import description_of, parse_description
from passes.errors import RefusedModel, UserError

LEVELS = retinanet_levels((8, 16, 32))
DESCRIPTIONS: list[Description] = [
    Classification(classes=("a", "b"), crop=1.0),
    Segmentation(classes=("a", "b"), input=Input(layout="NHWC", channels="BGR", size=(64, 96))),
    Detection(classes=("a", "b", "c"), levels=LEVELS, box_weights=(10.0, 10.0, 5.0, 5.0), scores="softmax"),
    Pose(classes=("x",), joints=("nose", "left_eye", "right_eye"), sigmas=(0.026, 0.025, 0.025), flip_pairs=((1, 2),)),
]


def random_boxes(count: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * torch.tensor([size[1] * 0.7, size[0] * 0.7])
    return torch.cat([corners, corners + 8 + torch.rand(count, 2, generator=generator) * size[0] * 0.3], 1)


# --- descriptions ---


@pytest.mark.parametrize("description", DESCRIPTIONS, ids=lambda d: d.task)
def test_a_description_survives_the_metadata(description: Description) -> None:
    text = to_json(description)
    assert parse_description(text) == description
    assert description_of({TASK_KEY: text}) == description
    assert json.loads(text)["task"] == description.task
    assert hash(parse_description(text)) == hash(description)


def changed(index: int, **values: object) -> str:
    return json.dumps({**json.loads(to_json(DESCRIPTIONS[index])), **values})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Invalid JSON"),
        ("[1, 2]", "does not describe a task"),
        ("{}", "Unable to extract tag using discriminator 'task'"),
        (changed(0, task="dance"), "'dance'"),
        (changed(0, version=2), "version"),
        (changed(0, colour="red"), "classification.colour: Extra inputs are not permitted"),
        (changed(0, classes=[]), "classification.classes"),
        (changed(0, classes=["a", "a"]), "two classes have the same name"),
        (changed(0, classes=["a", 1]), "classification.classes.1: Input should be a valid string"),
        (changed(0, crop=float("nan")), "crop"),
        (changed(0, crop=0), "crop"),
        (changed(0, input={"mean": [1, 2]}), "input.mean"),
        (changed(0, input={"scale": [1, 0, 1]}), "a scale of 0 would divide by zero"),
        (changed(0, input={"size": [64, 10**9]}), "input.size"),
        (changed(0, input={"layout": "HWC"}), "input.layout"),
        (changed(2, levels=[]), "levels"),
        (changed(2, levels=[{"stride": [8, 8], "sizes": [1, 2], "ratios": [1]}]), "there are 2 sizes and 1 ratios"),
        (changed(2, levels=[{"stride": [8, 0], "sizes": [1], "ratios": [1]}]), "stride"),
        (changed(2, levels=[{"stride": [8, 8], "sizes": [-1], "ratios": [1]}]), "sizes"),
        (changed(2, box_weights=[1, 1, 1]), "box_weights"),
        (changed(2, box_weights=[1, 1, 1, 0]), "box_weights"),
        (changed(3, sigmas=[0.1]), "3 joints need as many different names and sigmas"),
        (changed(3, flip_pairs=[[1, 3]]), "flip_pairs are numbers of different joints, 0 … 2"),
        (changed(3, flip_pairs=[[1, 1]]), "flip_pairs are numbers of different joints"),
        ("x" * 5_000_000, "has 5,000,000 characters"),
        ("[" * 100_000, "does not describe a task"),
    ],
)
def test_nonsense_in_the_metadata_is_one_message(text: str, message: str) -> None:
    with pytest.raises(UserError, match=r"'fnatool\.task' of this model") as raised:
        parse_description(text)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_model_without_description_is_told_apart() -> None:
    with pytest.raises(UserError, match="does not say what it is for"):
        description_of({"fnatool.stages": "[]"})


def test_pixels_become_what_the_model_takes_and_the_same_for_both_runtimes() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    plain = to_input(images, Input())
    assert torch.allclose(plain, images / 127.5 - 1, atol=1e-6)
    other = Input(layout="NHWC", channels="BGR", mean=(103.0, 116.0, 123.0), scale=(10.0, 5.0, 2.0))
    found = to_input(images, other)
    assert found.shape == (2, 4, 5, 3)
    assert torch.allclose(found[..., 0], (images[:, 2] - 103.0) / 10)
    assert fill(other) == (123, 116, 103)
    assert np.array_equal(to_array(images.numpy(), other), found.numpy())


def test_joints_of_the_left_and_right_are_found_by_their_names() -> None:
    coco = ("nose", "left_eye", "right_eye", "left_shoulder", "right_shoulder")
    assert pairs(coco) == ((1, 2), (3, 4))
    assert pairs(("kneeRight", "kneeLeft", "L-hip", "R-hip", "left", "right", "lid")) == ((1, 0), (2, 3), (4, 5))
    assert sigmas(coco) == (0.026, 0.025, 0.025, 0.079, 0.079)
    assert sigmas(("collar",)) == (0.05,)


# --- anchors ---


def test_anchors_are_torchvisions_moved_to_the_middle_of_their_cells() -> None:
    """AnchorGenerator centres its first anchor on the corner of the image and rounds; ours are on the middle of the
    first cell.
    """
    size, strides = (64, 96), (8, 16, 32)
    sizes = tuple(tuple(4 * s * 2 ** (k / 3) for k in range(3)) for s in strides)
    generator = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 3)
    maps = [torch.zeros(1, 1, math.ceil(size[0] / s), math.ceil(size[1] / s)) for s in strides]
    (theirs,) = generator(ImageList(torch.zeros(1, 3, *size), [size]), maps)
    ours = torch.from_numpy(anchors(LEVELS, size))
    assert ours.shape == theirs.shape == (sum(counts(LEVELS, size)), 4)
    shift = torch.cat([torch.full((n,), s / 2) for n, s in zip(counts(LEVELS, size), strides, strict=True)])
    assert (ours - shift[:, None] - theirs).abs().max() <= 0.501


def test_ssd_anchors_are_torchvisions() -> None:
    strides = (16, 32, 64, 106, 160, 320)
    generator = DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.2, max_ratio=0.95, clip=False)
    maps = [torch.zeros(1, 1, math.ceil(320 / s), math.ceil(320 / s)) for s in strides]
    (theirs,) = generator(ImageList(torch.zeros(1, 3, 320, 320), [(320, 320)]), maps)
    levels = ssd_levels(strides, (320, 320))
    ours = torch.from_numpy(anchors(levels, (320, 320)))
    assert ours.shape == theirs.shape
    even = torch.cat([torch.full((n,), 320 % s == 0) for n, s in zip(counts(levels, (320, 320)), strides, strict=True)])
    assert torch.allclose(ours[even], theirs[even], atol=1e-3)


def test_levels_that_do_not_divide_the_input_are_rounded_up() -> None:
    level = Level(stride=(8, 8), sizes=(10.0,), ratios=(4.0,))
    assert counts((level,), (20, 9)) == (6,)
    first, second = anchors((level,), (20, 9))[:2]
    assert first.tolist() == [4 - 2.5, 4 - 10, 4 + 2.5, 4 + 10]  # ratio 4: four times as high as wide, the area stays
    assert (second - first).tolist() == [8, 0, 8, 0]


# --- codes and matching ---


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_codes_are_those_of_torchvisions_box_coder(weights: tuple[float, float, float, float]) -> None:
    coder = torchvision_detection.BoxCoder(weights)
    boxes, at = random_boxes(50, (64, 96), 1), random_boxes(50, (64, 96), 2)
    codes = encode(boxes, at, weights)
    assert torch.allclose(codes, coder.encode_single(boxes, at), atol=1e-5)
    assert torch.allclose(decode(codes, at, weights), boxes, atol=1e-3)
    wild = torch.randn(50, 4) * 40
    assert torch.allclose(decode(wild, at, weights), coder.decode_single(wild, at), rtol=1e-4, atol=1e-2)
    assert not torch.allclose(encode(boxes, at, (1.0, 2.0, 1.0, 1.0)), coder.encode_single(boxes, at), atol=1e-2)


@pytest.mark.parametrize("seed", range(5))
def test_anchors_answer_for_boxes_as_in_torchvisions_matchers(seed: int) -> None:
    at, boxes = torch.from_numpy(anchors(LEVELS, (64, 96))), random_boxes(6, (64, 96), seed)
    overlap = box_iou(boxes, at)
    labels = torch.zeros(6, dtype=torch.int64)
    focal = torchvision_detection.Matcher(0.5, 0.4, allow_low_quality_matches=True)
    assert torch.equal(assign(at, boxes, labels, least=(0.5, 0.4)), focal(overlap))
    multibox = torchvision_detection.SSDMatcher(0.5)
    assert torch.equal(assign(at, boxes, labels, least=(0.5, 0.5), own_anchor=True), multibox(overlap))
    assert not torch.equal(assign(at, boxes, labels, least=(0.3, 0.2)), focal(overlap))


def test_padding_is_no_box_and_doubtful_regions_silence_their_anchors() -> None:
    at, boxes = torch.from_numpy(anchors(LEVELS, (64, 96))), random_boxes(3, (64, 96))
    whole = torch.tensor([[0.0, 0, 96, 64]])
    alone = assign(at, boxes, torch.tensor([0, 1, 2]), least=(0.5, 0.4))
    padded = assign(at, torch.cat([whole, boxes, whole]), torch.tensor([-1, 0, 1, 2, -1]), least=(0.5, 0.4))
    assert torch.equal(torch.where(alone >= 0, alone + 1, alone), padded)
    unclear = assign(at, torch.cat([whole, boxes]), torch.tensor([-2, 0, 1, 2]), least=(0.5, 0.4))
    assert torch.equal(unclear >= 0, alone >= 0)
    inside = ((at[:, :2] >= 0) & (at[:, 2:] <= torch.tensor([96, 64]))).all(1)
    assert (unclear[inside & (alone == NEGATIVE)] == IGNORED).all()
    assert (assign(at, boxes, torch.full((3,), -1), least=(0.5, 0.4)) == NEGATIVE).all()


# --- losses ---


def detection_batch(count: int, size: tuple[int, int] = (64, 96)) -> dict[str, torch.Tensor]:
    boxes = torch.stack([random_boxes(4, size, seed) for seed in range(count)])
    labels = torch.tensor([[0, 1, 2, 0], [2, 1, -1, -1]])[:count]
    return {"images": torch.zeros(count, 3, *size, dtype=torch.uint8), "boxes": boxes, "labels": labels}


def test_the_focal_loss_is_torchvisions() -> None:
    """RetinaNetHead.compute_loss divides image by image; ours by the anchors of the batch: equal for one image."""
    batch = detection_batch(1)
    at = torch.from_numpy(anchors(LEVELS, (64, 96)))
    torch.manual_seed(0)
    outputs = {"cls_logits": torch.randn(1, len(at), 3), "boxes": torch.randn(1, len(at), 4)}
    parts = detection.loss(outputs, batch, Detection(classes=("a", "b", "c"), levels=LEVELS))
    matched = [assign(at, batch["boxes"][0], batch["labels"][0], least=(0.5, 0.4))]
    targets = [{"boxes": batch["boxes"][0], "labels": batch["labels"][0]}]
    head = RetinaNetHead(8, 9, 3)
    head.regression_head._loss_type = "smooth_l1"
    theirs = head.compute_loss(
        targets, {"cls_logits": outputs["cls_logits"], "bbox_regression": outputs["boxes"]}, [at], matched
    )
    ours = means(parts)
    assert torch.allclose(ours["class"], theirs["classification"], rtol=1e-5)
    assert parts["box"].count == (matched[0] >= 0).sum()
    wrong = {**outputs, "cls_logits": outputs["cls_logits"].roll(1, 1)}
    assert not torch.allclose(
        means(detection.loss(wrong, batch, Detection(classes=("a", "b", "c"), levels=LEVELS)))["class"], ours["class"]
    )


def test_the_multibox_loss_is_torchvisions() -> None:
    batch = detection_batch(2)
    levels = ssd_levels((8, 16, 32), (64, 96))
    at = torch.from_numpy(anchors(levels, (64, 96)))
    weights = (10.0, 10.0, 5.0, 5.0)
    describe = Detection(classes=("a", "b", "c"), levels=levels, scores="softmax", box_weights=weights)
    torch.manual_seed(0)
    outputs = {"cls_logits": torch.randn(2, len(at), 4), "boxes": torch.randn(2, len(at), 4)}
    real = batch["labels"] >= 0
    targets = [{"boxes": batch["boxes"][i][real[i]], "labels": batch["labels"][i][real[i]] + 1} for i in range(2)]
    matched = [assign(at, t["boxes"], t["labels"], least=(0.5, 0.5), own_anchor=True) for t in targets]

    class Bare:
        box_coder = torchvision_detection.BoxCoder(weights)
        neg_to_pos_ratio = 3

    theirs = SSD.compute_loss(
        Bare(), targets, {"bbox_regression": outputs["boxes"], "cls_logits": outputs["cls_logits"]}, [at, at], matched
    )  # type: ignore[arg-type]
    ours = means(detection.loss(outputs, batch, describe))
    assert torch.allclose(ours["class"], theirs["classification"], rtol=1e-5)
    assert torch.allclose(ours["box"], theirs["bbox_regression"], rtol=1e-5)


@pytest.mark.parametrize("scores", ["sigmoid", "softmax"])
def test_a_batch_without_any_box_has_a_finite_loss_with_gradients(scores: Any) -> None:
    describe = Detection(classes=("a", "b", "c"), levels=LEVELS, scores=scores)
    count = sum(counts(LEVELS, (64, 96)))
    logits, boxes = (
        torch.zeros(1, count, describe.columns, requires_grad=True),
        torch.zeros(1, count, 4, requires_grad=True),
    )
    batch = {
        "images": torch.zeros(1, 3, 64, 96),
        "boxes": torch.zeros(1, 0, 4),
        "labels": torch.zeros(1, 0, dtype=torch.int64),
    }
    value = total(detection.loss({"cls_logits": logits, "boxes": boxes}, batch, describe))
    value.backward()
    assert math.isfinite(value.item())
    assert logits.grad is not None
    assert boxes.grad is not None
    assert float(boxes.grad.abs().max()) == 0


def test_a_model_with_other_anchors_than_it_says_is_refused() -> None:
    outputs = {"cls_logits": torch.zeros(2, 10, 3), "boxes": torch.zeros(2, 10, 4)}
    with pytest.raises(RefusedModel, match=r"answers for 10 anchors, but its description has .* on an input of 64×96"):
        detection.loss(outputs, detection_batch(2), Detection(classes=("a", "b", "c"), levels=LEVELS))


def test_the_segmentation_loss_is_the_cross_entropy_of_the_pixels_that_count() -> None:
    masks = torch.randint(0, 3, (2, 16, 24), dtype=torch.uint8)
    masks[:, :4] = 255
    logits = torch.randn(2, 3, 16, 24)
    describe = Segmentation(classes=("a", "b", "c"))
    value = total(segmentation.loss({"mask_logits": logits}, {"masks": masks}, describe))
    assert torch.allclose(value, F.cross_entropy(logits, masks.long(), ignore_index=255))
    torch.use_deterministic_algorithms(True)  # by kernels that exist on cuda too
    try:
        again = total(segmentation.loss({"mask_logits": logits}, {"masks": masks}, describe))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.allclose(value, again)
    changed = logits.clone()
    changed[:, :, :4] += torch.randn(3, 4, 24)
    assert torch.equal(value, total(segmentation.loss({"mask_logits": changed}, {"masks": masks}, describe)))
    small = F.avg_pool2d(logits, 2)
    resized = F.interpolate(small, (16, 24), mode="bilinear")
    assert torch.allclose(
        total(segmentation.loss({"mask_logits": small}, {"masks": masks}, describe)),
        F.cross_entropy(resized, masks.long(), ignore_index=255),
    )
    nothing = torch.full_like(masks, 255)
    assert float(total(segmentation.loss({"mask_logits": logits}, {"masks": nothing}, describe))) == 0


def test_the_classification_loss_is_the_smoothed_cross_entropy() -> None:
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 1])
    found = total(classification.loss({"logits": logits}, {"labels": labels}, Classification(classes=("a", "b", "c"))))
    assert torch.allclose(found, F.cross_entropy(logits, labels, label_smoothing=0.1))


def test_the_pose_loss_is_1_for_nothing_0_for_the_truth_and_blind_to_joints_without_weight() -> None:
    describe = DESCRIPTIONS[3]
    assert isinstance(describe, Pose)
    points = torch.tensor([[[30.0, 40.0], [60.0, 30.0], [90.0, 70.0]]])
    batch = {"images": torch.zeros(1, 3, 128, 128), "points": points, "weights": torch.tensor([[1.0, 1.0, 0.0]])}
    right = pose.peaks(points, (128, 128), (32, 32), 1.0)
    nothing = torch.zeros_like(right)

    def loss(maps: torch.Tensor) -> float:
        return float(total(pose.loss({"heatmaps": maps}, batch, describe)))

    assert loss(right) == 0
    assert loss(nothing) == pytest.approx(1, abs=0.02)
    blind = right.clone()
    blind[:, 2] = 7
    assert loss(blind) == 0
    assert loss(right.roll(1, 3)) > 0.1
    assert right[0, 0].argmax() == 9 * 32 + 7  # (30, 40) is in cell (7, 9)


# --- several processes ---


def test_a_part_is_divided_by_what_all_processes_have(tmp_path: Any) -> None:
    with warnings.catch_warnings():
        # Python 3.12 warns of forking; spawning would import torch twice more
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.multiprocessing.start_processes(
            _one_of_two, (str(tmp_path / "meet"), str(tmp_path)), nprocs=2, start_method="fork"
        )
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    # 2 + 6 over 1 + 3: the mean of what the processes have is the mean over all four
    assert torch.allclose((found[0] + found[1]) / 2, torch.tensor(2.0))


def _one_of_two(rank: int, meeting: str, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    parts: Parts = {"x": Part(torch.tensor(2.0 + 4 * rank), torch.tensor(1 + 2 * rank))}
    torch.save(total(parts), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
