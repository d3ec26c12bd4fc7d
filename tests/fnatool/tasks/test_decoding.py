"""The one decoder: outputs that say the truth become the truth in the image's own pixels, and the metrics notice when
they do not.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from levels import retinanet_levels, ssd_levels
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.ops import box_iou

from fnatool.data.placement import Placement
from fnatool.data.split import IGNORE, Boxed, Posed
from fnatool.tasks import coco, detection, pose
from fnatool.tasks.anchors import anchors
from fnatool.tasks.boxes import encode
from fnatool.tasks.classification import Classification, Classified
from fnatool.tasks.decode import decode
from fnatool.tasks.description import Description
from fnatool.tasks.detection import Detected, Detection, Suppression
from fnatool.tasks.finite import NotFinite
from fnatool.tasks.pose import Jointed, Pose
from fnatool.tasks.segmentation import Segmentation, Segmented
from fnatool.tasks.table import TASKS, evaluate
from passes.errors import RefusedModel

SIZE = (64, 96)
CLASSES = ("a", "b", "c")
# An image of 32 × 40, shown twice as large in the upper left corner of the input
PLACED = Placement((32, 40), (2.0, 2.0), (0.0, 0.0))
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
FOCAL = Detection(classes=CLASSES, levels=retinanet_levels((8, 16), scale=2))
MULTIBOX = Detection(classes=CLASSES, levels=ssd_levels((8, 16, 32), SIZE), scores="softmax", box_weights=WEIGHTS)

BOXES = np.array([[2, 3, 14, 15], [20, 10, 38, 30], [2, 3, 14, 16]], np.float32)  # in the image
LABELS = np.array([0, 2, 1])


def truth(boxes: np.ndarray = BOXES, labels: np.ndarray = LABELS, crowd: tuple[bool, ...] | None = None) -> Boxed:
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return Boxed(
        "i.png",
        (32, 40),
        boxes.astype(np.float32),
        labels,
        np.array(crowd or [False] * len(boxes)),
        areas.astype(np.float32),
    )


def head(description: Detection, sure: float = 8.0) -> dict[str, np.ndarray]:
    """What a perfect head says of truth(): for each box its best anchor, and every anchor that overlaps it by half,
    less surely.
    """
    at = torch.from_numpy(anchors(description.levels, SIZE))
    boxes = torch.from_numpy(BOXES * 2)
    overlap = box_iou(boxes, at)
    most, which = overlap.max(0)
    logits = torch.full((len(at), description.columns), -sure)
    if description.scores == "softmax":
        logits[:, 0] = sure
    codes = encode(boxes[which], at, description.box_weights)
    offset = description.columns - len(CLASSES)
    for index, label in enumerate(LABELS):
        best = int(overlap[index].argmax())
        for anchor in [best, *torch.nonzero((which == index) & (most > 0.5)).flatten().tolist()]:
            logits[anchor] = -sure
            logits[anchor, offset + label] = sure + float(anchor == best)
            codes[anchor] = encode(boxes[[index]], at[[anchor]], description.box_weights)[0]
    return {"cls_logits": logits[None].numpy(), "boxes": codes[None].numpy()}


def on_input(points: np.ndarray) -> np.ndarray:
    """Where points of the image are in the input, by PLACED."""
    return np.asarray(points * np.float32(2), np.float32)


def decoded(outputs: dict[str, np.ndarray], description: Detection) -> Detected:
    (found,) = decode(outputs, description, [PLACED], size=SIZE)
    assert isinstance(found, Detected)
    return found


def suppressed(outputs: dict[str, np.ndarray], placement: Placement, keep: Suppression) -> Detected:
    rows = [torch.from_numpy(outputs[name][0]) for name in ("cls_logits", "boxes")]
    return detection.decode(placement, rows, FOCAL, SIZE, keep=keep)


# --- detection ---


@pytest.mark.parametrize("description", [FOCAL, MULTIBOX], ids=["focal", "multibox"])
def test_a_perfect_head_finds_every_box_once_and_scores_1(description: Detection) -> None:
    found = decoded(head(description), description)
    order = np.lexsort((found.boxes[:, 3], found.boxes[:, 0]))
    assert np.allclose(found.boxes[order], BOXES[[0, 2, 1]], atol=1e-3)
    assert found.labels[order].tolist() == [0, 1, 2]
    assert (found.scores > 0.99).all()
    assert evaluate([found], [truth()], description) == pytest.approx(
        dict.fromkeys(("mAP", "AP50", "AP75", "AP_small", "AP/a", "AP/b", "AP/c"), 1)
    )


@pytest.mark.parametrize("description", [FOCAL, MULTIBOX], ids=["focal", "multibox"])
def test_outputs_whose_anchors_are_in_another_order_find_nothing(description: Detection) -> None:
    """The planted error: anchors before rows, as a head that forgot to transpose would have them."""
    outputs = head(description)
    wrong = {name: np.roll(values, 5, axis=1) for name, values in outputs.items()}
    assert evaluate([decoded(wrong, description)], [truth()], description)["mAP"] < 0.2


def test_the_detector_is_decoded_as_torchvisions_retinanet_does() -> None:
    rng = np.random.default_rng(0)
    at = torch.from_numpy(anchors(FOCAL.levels, SIZE))
    outputs = {
        "cls_logits": rng.normal(-1, 2, (1, len(at), 3)).astype(np.float32),
        "boxes": rng.normal(0, 0.3, (1, len(at), 4)).astype(np.float32),
    }
    whole = Placement(SIZE, (1.0, 1.0), (0.0, 0.0))
    keep = Suppression(least=0.2, per_level=50, overlap=0.5, per_image=30)
    ours = suppressed(outputs, whole, keep)
    counts = [8 * 12 * 9, 4 * 6 * 9]

    class Bare:
        score_thresh, topk_candidates, nms_thresh, detections_per_img = 0.2, 50, 0.5, 30
        from torchvision.models.detection._utils import BoxCoder

        box_coder = BoxCoder((1.0, 1.0, 1.0, 1.0))

    split = {
        "cls_logits": list(torch.from_numpy(outputs["cls_logits"]).split(counts, 1)),
        "bbox_regression": list(torch.from_numpy(outputs["boxes"]).split(counts, 1)),
    }
    (theirs,) = RetinaNet.postprocess_detections(Bare(), split, [list(at.split(counts))], [SIZE])  # type: ignore[arg-type]
    assert len(ours.boxes) == 30
    assert np.allclose(ours.scores, theirs["scores"].numpy(), atol=1e-6)
    assert np.allclose(ours.boxes, theirs["boxes"].numpy(), atol=1e-3)
    assert np.array_equal(ours.labels, theirs["labels"].numpy())


def test_nothing_sure_enough_is_no_box() -> None:
    outputs = head(FOCAL)
    found = decoded({**outputs, "cls_logits": np.full_like(outputs["cls_logits"], -9)}, FOCAL)
    assert (found.boxes.shape, found.scores.shape, found.labels.shape) == ((0, 4), (0,), (0,))
    assert evaluate([found], [truth()], FOCAL) == dict.fromkeys(("mAP", "AP50", "AP75", "AP/a", "AP/b", "AP/c"), 0.0)


def test_limits_on_the_number_of_boxes_are_kept() -> None:
    noisy = {name: np.zeros_like(values) for name, values in head(FOCAL).items()}  # every anchor is a box
    assert len(suppressed(noisy, PLACED, Suppression(per_image=7)).boxes) == 7
    assert len(suppressed(noisy, PLACED, Suppression(per_level=2, overlap=1.0)).boxes) == 4


def test_torch_tensors_are_decoded_as_numpy_arrays_are() -> None:
    arrays = head(MULTIBOX)
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    (other,) = decode(tensors, MULTIBOX, [PLACED], size=SIZE)
    assert isinstance(other, Detected)
    assert np.array_equal(decoded(arrays, MULTIBOX).boxes, other.boxes)


@pytest.mark.parametrize(
    ("description", "outputs", "message"),
    [
        (FOCAL, {"cls_logits": (1, 10, 3)}, "has no output 'boxes', which detection needs; it has cls_logits"),
        (FOCAL, {"cls_logits": (1, 10, 3), "boxes": (1, 10, 4)}, "answers for 10 anchors, but its description has"),
        (FOCAL, {"cls_logits": (1, 10, 4), "boxes": (1, 10, 4)}, "it should be 1×?×3"),
        (
            Classification(classes=CLASSES),
            {"logits": (1, 9)},
            "'logits' is 1×9, but by its description 'classification' it should be 1×3",
        ),
        (Segmentation(classes=CLASSES), {"mask_logits": (1, 3, 8)}, "output 'mask_logits' is 1×3×8, but"),
        (Segmentation(classes=CLASSES), {"mask_logits": (2, 3, 8, 8)}, "output 'mask_logits' is 2×3×8×8, but"),
    ],
)
def test_outputs_that_are_not_those_of_the_description_are_refused(
    description: Detection, outputs: dict, message: str
) -> None:
    with pytest.raises(RefusedModel) as raised:
        decode({name: np.zeros(shape, np.float32) for name, shape in outputs.items()}, description, [PLACED], size=SIZE)
    assert message in str(raised.value)


# --- COCO's figures on a case known by hand ---


def found(boxes: np.ndarray, labels: np.ndarray, scores: list[float] | None = None) -> Detected:
    return Detected(boxes.astype(np.float32), np.array(scores or [0.9] * len(boxes), np.float32), labels)


def test_average_precision_of_known_cases() -> None:
    def figures(prediction: Detected) -> dict[str, float]:
        return coco.box_precision([(prediction, truth())], CLASSES)

    assert figures(found(BOXES, LABELS))["mAP"] == pytest.approx(1)
    # one class of three is not found
    assert figures(found(BOXES[:2], LABELS[:2]))["mAP"] == pytest.approx(2 / 3)
    # two classes are confused
    assert figures(found(BOXES, np.array([0, 2, 2])))["mAP"] < 0.7
    # a surer false alarm halves the precision of its class
    more = np.concatenate([BOXES, [[30, 0, 36, 6]]])
    assert figures(found(more, np.array([0, 2, 1, 0]), [0.5, 0.5, 0.5, 0.9]))["mAP"] == pytest.approx(
        (2 + 0.5) / 3, abs=0.01
    )
    assert figures(found(more, np.array([0, 2, 1, 0]), [0.9, 0.9, 0.9, 0.5]))["mAP"] == pytest.approx(1)
    # moved by 3 of 12 pixels: IoU = 9 · 12 / (2 · 144 − 108) = .6, right for .50, .55 and .60
    moved = BOXES + np.array([3, 0, 3, 0])
    assert coco.box_precision([(found(moved[:1], LABELS[:1]), truth(BOXES[:1], LABELS[:1]))], CLASSES) == pytest.approx(
        {"mAP": 0.3, "AP50": 1, "AP75": 0, "AP_small": 0.3, "AP/a": 0.3}, abs=0.01
    )
    # what lies in a crowd is no false alarm
    crowd = truth(np.concatenate([BOXES, [[28, 0, 40, 8]]]), np.array([0, 2, 1, 0]), (False, False, False, True))
    assert coco.box_precision([(found(more, np.array([0, 2, 1, 0]), [0.5, 0.5, 0.5, 0.9]), crowd)], CLASSES)[
        "mAP"
    ] == pytest.approx(1)


def test_every_class_that_the_truth_has_objects_of_has_its_average_precision() -> None:
    # of b a crowd alone
    two = truth(np.concatenate([BOXES[:2], [[28, 0, 40, 8]]]), np.array([0, 2, 1]), (False, False, True))
    figures = coco.box_precision([(found(BOXES[[0, 0]], np.array([0, 1])), two)], CLASSES)
    each = {name: value for name, value in figures.items() if "/" in name}
    assert each == pytest.approx({"AP/a": 1, "AP/c": 0})
    assert figures["mAP"] == pytest.approx(np.mean(list(each.values())))
    nothing = found(np.zeros((0, 4)), np.zeros(0, np.int64))
    assert coco.box_precision([(nothing, two)], CLASSES) == {"mAP": 0, "AP50": 0, "AP75": 0, "AP/a": 0, "AP/c": 0}
    of_all = TASKS["detection"].of_labels(figures, CLASSES)
    assert list(of_all) == ["AP/a", "AP/b", "AP/c"]
    assert of_all["AP/b"] is None


def test_images_are_not_mixed_up() -> None:
    empty = truth(np.zeros((0, 4)), np.zeros(0, np.int64))
    nothing = found(np.zeros((0, 4)), np.zeros(0, np.int64))
    right = [(nothing, empty), (found(BOXES, LABELS), truth())]
    swapped = [(found(BOXES, LABELS), empty), (nothing, truth())]
    assert coco.box_precision(right, CLASSES)["mAP"] == pytest.approx(1)
    assert coco.box_precision(swapped, CLASSES)["mAP"] == 0


def test_right_and_wrong_boxes_of_the_same_score_count_as_if_the_wrong_were_surer() -> None:
    empty = truth(np.zeros((0, 4)), np.zeros(0, np.int64))
    right, wrong = (found(BOXES[:1], LABELS[:1]), truth(BOXES[:1], LABELS[:1])), (found(BOXES[:1], LABELS[:1]), empty)
    for order in ([right, wrong], [wrong, right]):
        assert coco.box_precision(order, CLASSES)["mAP"] == pytest.approx(0.5, abs=0.01)
    both = np.concatenate([BOXES[:1], [[30, 0, 36, 6]]])
    for rows in ([0, 1], [1, 0]):  # in one image
        assert coco.box_precision([(found(both[rows], LABELS[[0, 0]]), right[1])], CLASSES)["mAP"] == pytest.approx(
            0.5, abs=0.01
        )


def test_at_every_overlap_another_of_two_equally_sure_boxes_may_be_right() -> None:
    near = BOXES[:1] + np.array([3, 0, 3, 0])  # IoU .6: right for .50, .55 and .60, where the other is a second one
    for order in ([BOXES[:1], near], [near, BOXES[:1]]):
        made = found(np.concatenate(order), LABELS[[0, 0]])
        assert coco.box_precision([(made, truth(BOXES[:1], LABELS[:1]))], CLASSES)["mAP"] == pytest.approx(
            0.5, abs=0.01
        )


def test_scores_that_differ_are_ranked_as_by_coco() -> None:
    images = [(found(BOXES[:2] + k % 3, LABELS[:2], [0.9 - 0.1 * k, 0.85 - 0.1 * k]), truth()) for k in range(4)]
    halves = [(found(made.boxes[::-1], made.labels[::-1], made.scores[::-1].tolist()), true) for made, true in images]
    assert coco.box_precision(images, CLASSES) == coco.box_precision(halves, CLASSES)


# --- classification ---


def test_logits_become_a_class_with_its_probability() -> None:
    (prediction,) = decode(
        {"logits": np.array([[0.0, math.log(3), 0.0]], np.float32)},
        Classification(classes=CLASSES),
        [PLACED],
        size=SIZE,
    )
    assert isinstance(prediction, Classified)
    assert prediction.label == 1
    assert prediction.score == pytest.approx(0.6)
    assert prediction.probabilities.sum() == pytest.approx(1)


def test_top1_and_top5_count_ranks() -> None:
    classes = tuple("abcdefg")
    describe = Classification(classes=classes)
    logits = np.array([[7, 6, 5, 4, 3, 2, 1]] * 4, np.float32)
    predictions = decode({"logits": logits}, describe, [PLACED] * 4, size=SIZE)
    assert _of_all(evaluate(predictions, [0, 1, 4, 6], describe)) == {"top1": 0.25, "top5": 0.75}
    assert set(evaluate(predictions[:1], [0], describe)) == {"top1", "top5", "top1/a"}


def _of_all(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if "/" not in name}


def test_a_class_has_the_share_of_its_own_images() -> None:
    describe = Classification(classes=CLASSES)
    predictions = decode(
        {"logits": np.array([[3, 2, 1]] * 3 + [[1, 2, 3]], np.float32)}, describe, [PLACED] * 4, size=SIZE
    )
    figures = evaluate(predictions, [0, 2, 0, 2], describe)
    assert figures == {"top1": 0.75, "top1/a": 1, "top1/c": 0.5}


def test_who_cannot_tell_classes_apart_has_not_found_the_true_one() -> None:
    describe = Classification(classes=tuple("abcdefg"))
    rows = np.array([[0] * 7, [1, 1, 0, 0, 0, 0, 0], [900, 5, 4, 3, 2, 1, 0]], np.float32)
    predictions = decode({"logits": rows}, describe, [PLACED] * 3, size=SIZE)
    assert evaluate(predictions[:1] * 7, list(range(7)), describe)["top5"] == 0
    assert _of_all(evaluate(predictions[1:2], [0], describe)) == {"top1": 0, "top5": 1}
    assert evaluate(predictions[2:] * 2, [4, 6], describe)["top5"] == 0.5  # their probabilities are all 0


# --- what is no number ---

OUTPUTS: list[tuple[Description, dict[str, tuple[int, ...]]]] = [
    (Classification(classes=CLASSES), {"logits": (2, 3)}),
    (Segmentation(classes=CLASSES), {"mask_logits": (2, 3, 8, 12)}),
    (
        FOCAL,
        {"cls_logits": (2, len(anchors(FOCAL.levels, SIZE)), 3), "boxes": (2, len(anchors(FOCAL.levels, SIZE)), 4)},
    ),
    (Pose(classes=("x",), joints=("nose", "left"), sigmas=(0.05,) * 2), {"heatmaps": (2, 2, 8, 12)}),
]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("description", "shapes"), OUTPUTS, ids=[row[0].task for row in OUTPUTS])
def test_outputs_that_are_no_numbers_are_refused_by_name(
    description: Description, shapes: dict[str, tuple[int, ...]], value: float
) -> None:
    sound = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    assert len(decode(sound, description, [PLACED] * 2, size=SIZE)) == 2
    for name in shapes:
        broken = {other: array.copy() for other, array in sound.items()}
        broken[name].flat[-1] = value
        for outputs in (broken, {other: torch.from_numpy(array) for other, array in broken.items()}):
            with pytest.raises(NotFinite, match=f"output '{name}' is not finite: 1 of its .* values"):
                decode(outputs, description, [PLACED] * 2, size=SIZE)


# --- segmentation ---


def test_a_pixel_of_two_classes_equally_is_of_none() -> None:
    describe = Segmentation(classes=CLASSES)
    true = np.zeros((32, 40), np.uint8)
    true[:, 20:] = 1
    (nothing,) = decode({"mask_logits": np.zeros((1, 3, 64, 96), np.float32)}, describe, [PLACED], size=SIZE)
    assert evaluate([nothing], [true], describe) == {"mIoU": 0, "pixels": 0, "IoU/a": 0, "IoU/b": 0}
    half = np.zeros((1, 3, 64, 96), np.float32)
    half[0, 0, :, :40] = 1
    (left,) = decode({"mask_logits": half}, describe, [PLACED], size=SIZE)
    assert evaluate([left], [true], describe) == {"mIoU": 0.5, "pixels": 0.5, "IoU/a": 1, "IoU/b": 0}


def test_mask_logits_are_read_in_the_image_and_not_in_the_padding() -> None:
    """The input is 64 × 96, the image in it 64 × 80 of a 32 × 40 one; the padding says class 2."""
    wanted = np.zeros((32, 40), np.uint8)
    wanted[:, 20:] = 1
    logits = np.zeros((1, 3, 64, 96), np.float32)
    logits[0, 0, :, :40], logits[0, 1, :, 40:80], logits[0, 2, :, 80:] = 1, 1, 1
    (prediction,) = decode({"mask_logits": logits}, Segmentation(classes=CLASSES), [PLACED], size=SIZE)
    assert isinstance(prediction, Segmented)
    assert np.array_equal(prediction.classes, wanted)
    (shifted,) = decode({"mask_logits": np.roll(logits, 3, 3)}, Segmentation(classes=CLASSES), [PLACED], size=SIZE)
    assert isinstance(shifted, Segmented)
    assert not np.array_equal(shifted.classes, wanted)


def test_small_maps_are_resized_to_the_image_with_pixels_as_squares() -> None:
    logits = np.zeros((1, 2, 4, 6), np.float32)
    logits[0, 0, :, :3], logits[0, 1, :, 3:] = 1, 1
    whole = Placement(SIZE, (1.0, 1.0), (0.0, 0.0))
    (prediction,) = decode({"mask_logits": logits}, Segmentation(classes=("a", "b")), [whole], size=SIZE)
    assert isinstance(prediction, Segmented)
    assert (prediction.classes[:, :48] == 0).all()
    assert (prediction.classes[:, 48:] == 1).all()


def test_iou_of_a_known_case() -> None:
    describe = Segmentation(classes=(*CLASSES, "never"))
    true = np.array([[0, 0, 1, 1], [0, IGNORE, 1, 2]], np.uint8)
    said = np.array([[0, 1, 1, 1], [0, 2, 1, 2]], np.uint8)
    figures = evaluate([Segmented(said)], [true], describe)
    assert figures == pytest.approx(
        {"mIoU": (2 / 3 + 3 / 4 + 1) / 3, "pixels": 6 / 7, "IoU/a": 2 / 3, "IoU/b": 3 / 4, "IoU/c": 1}
    )
    both = evaluate([Segmented(said), Segmented(true * (true < 3))], [true, true], describe)
    assert both["mIoU"] > figures["mIoU"]
    assert evaluate([Segmented(said)], [np.full_like(true, IGNORE)], describe) == {"mIoU": 0, "pixels": 0}


# --- pose ---

POSE = Pose(classes=("x",), joints=("nose", "left", "right"), sigmas=(0.05,) * 3)
POINTS = np.array([[10.25, 5.5], [8.0, 20.25], [30.75, 25.0]], np.float32)


def posed(points: np.ndarray = POINTS, seen: tuple[int, ...] = (2, 1, 2), image: str = "i.png") -> Posed:
    return Posed(
        image,
        (32, 40),
        np.array([4, 2, 36, 30], np.float32),
        points.astype(np.float32),
        np.array(seen, np.uint8),
        800.0,
    )


def jointed(points: np.ndarray, score: float = 0.9) -> Jointed:
    return Jointed(points.astype(np.float32), np.full(3, score, np.float32), score)


def test_heatmaps_of_the_truth_give_the_points_to_a_quarter_of_a_cell() -> None:
    maps = pose.peaks(torch.from_numpy(on_input(POINTS))[None], SIZE, (16, 24), 1.0).numpy()
    (prediction,) = decode({"heatmaps": maps}, POSE, [PLACED], size=SIZE)
    assert isinstance(prediction, Jointed)
    assert np.abs(prediction.points - POINTS).max() <= 0.5 + 1e-4  # a cell is 2 pixels of the image
    assert prediction.scores.min() > 0.8
    assert evaluate([prediction], [posed()], POSE)["OKS_AP"] == pytest.approx(1)
    wrong = np.roll(maps, 2, axis=3)
    assert evaluate(decode({"heatmaps": wrong}, POSE, [PLACED], size=SIZE), [posed()], POSE)["OKS_AP"] < 0.5


def test_a_peak_on_the_border_is_not_moved_out_of_the_map() -> None:
    maps = np.zeros((1, 3, 16, 24), np.float32)
    maps[0, :, 0, 23] = 1
    (prediction,) = decode({"heatmaps": maps}, POSE, [Placement(SIZE, (1.0, 1.0), (0.0, 0.0))], size=SIZE)
    assert isinstance(prediction, Jointed)
    assert prediction.points.tolist() == [[94, 2]] * 3


def test_oks_and_pck_of_known_cases() -> None:
    def figures(points: np.ndarray, seen: tuple[int, ...] = (2, 1, 2)) -> dict[str, float]:
        return evaluate([jointed(points)], [posed(seen=seen)], POSE)

    assert figures(POINTS) == pytest.approx(
        dict.fromkeys(("OKS_AP", "OKS_AP50", "OKS_AP75", "PCK@0.1", *(f"PCK@0.1/{name}" for name in POSE.joints)), 1)
    )
    # e^(−d² / (2 · area · (2σ)²)) = .7 for all joints: right for .50, .55, .60, .65 and .70
    far = math.sqrt(-math.log(0.7) * 2 * 800 * 0.01) + 1e-3 * -1
    moved = figures(POINTS + np.array([far, 0]))
    assert moved["OKS_AP"] == pytest.approx(0.5, abs=0.01)
    assert moved["OKS_AP75"] == 0
    # the box is 32 wide: 3 pixels are near, 4 are not
    assert figures(POINTS + np.array([[3, 0], [4, 0], [0, 3]]))["PCK@0.1"] == pytest.approx(2 / 3)
    assert figures(POINTS + np.array([[3, 0], [4, 0], [0, 3]]), seen=(2, 0, 2))["PCK@0.1"] == 1


def test_every_joint_that_is_labelled_has_its_pck() -> None:
    figures = evaluate(
        [jointed(POINTS + np.array([[3, 0], [4, 0], [0, 3]]))] * 2, [posed(), posed(seen=(2, 2, 0))], POSE
    )
    names = [f"PCK@0.1/{name}" for name in POSE.joints]
    assert [figures[name] for name in names] == [1, 0, 1]
    assert figures["PCK@0.1"] == pytest.approx(3 / 5)
    assert names[2] not in evaluate([jointed(POINTS)], [posed(seen=(2, 2, 0))], POSE)


def test_swapped_joints_and_another_image_are_noticed() -> None:
    assert evaluate([jointed(POINTS[[0, 2, 1]])], [posed()], POSE)["OKS_AP"] == 0
    two = [posed(), posed(POINTS[::-1] + 2, image="j.png")]
    right = [jointed(POINTS), jointed(POINTS[::-1] + 2)]
    assert evaluate(right, two, POSE)["OKS_AP"] == pytest.approx(1)
    assert evaluate(right[::-1], two, POSE)["OKS_AP"] == 0


def test_objects_of_one_image_are_matched_by_their_scores() -> None:
    other = POINTS * 0.5 + np.array([15, 3])
    both = [posed(), posed(other)]
    assert evaluate([jointed(other), jointed(POINTS)], both, POSE)["OKS_AP"] == pytest.approx(1)  # one image: any order
    assert evaluate([jointed(POINTS), jointed(POINTS, 0.5)], both, POSE)["OKS_AP"] == pytest.approx(0.505, abs=0.01)


def test_poses_of_the_same_score_are_ranked_alike_in_any_order() -> None:
    two = [posed(), posed(POINTS[::-1] + 2, image="j.png")]
    made = [jointed(POINTS), jointed(POINTS)]  # the second is wrong
    for order in (slice(None), slice(None, None, -1)):
        assert evaluate(made[order], two[order], POSE)["OKS_AP"] == pytest.approx(0.25, abs=0.01)


def test_every_task_says_which_figure_counts() -> None:
    assert {name: task.metric for name, task in TASKS.items()} == {
        "classification": "top1", "segmentation": "mIoU", "detection": "mAP", "pose": "OKS_AP",
    }  # fmt: skip
