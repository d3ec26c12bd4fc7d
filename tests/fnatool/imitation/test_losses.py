"""How far a network is from its teacher, as a loss."""

from __future__ import annotations

import pytest
import torch
from levels import retinanet_levels

from fnatool.imitation.losses import apart, features_apart, outputs_apart
from fnatool.tasks.classification import Classification
from fnatool.tasks.detection import Detection
from fnatool.tasks.pose import Pose
from fnatool.tasks.segmentation import Segmentation
from passes.errors import UserError

LOGITS = Classification(classes=("a", "b", "c"))
MASKS = Segmentation(classes=("a", "b"))
BOXES = Detection(classes=("a", "b"), levels=retinanet_levels((8,)))
JOINTS = Pose(classes=("x",), joints=("a", "b"), sigmas=(0.1, 0.1))
OUTPUTS = [
    (LOGITS, {"logits": (4, 3)}),
    (MASKS, {"mask_logits": (2, 2, 5, 6)}),
    (BOXES, {"cls_logits": (2, 9, 2), "boxes": (2, 9, 4)}),
    (BOXES.model_copy(update={"scores": "softmax"}), {"cls_logits": (2, 9, 3), "boxes": (2, 9, 4)}),
    (JOINTS, {"heatmaps": (2, 2, 4, 4)}),
]


@pytest.mark.parametrize(("description", "shapes"), OUTPUTS)
def test_a_student_is_drawn_to_its_teacher(description: object, shapes: dict[str, tuple[int, ...]]) -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    assert float(outputs_apart(teacher, teacher, description, 2.0)) == pytest.approx(0, abs=1e-6)  # type: ignore[arg-type]
    student = {name: torch.randn(shape, generator=generator).requires_grad_() for name, shape in shapes.items()}
    far = outputs_apart(student, teacher, description, 2.0)  # type: ignore[arg-type]
    far.backward()
    for value in student.values():
        assert value.grad is not None
        value.data -= 0.1 * value.grad * value.numel()
    assert outputs_apart(student, teacher, description, 2.0).item() < far.item()  # type: ignore[arg-type]


def test_the_distance_of_logits_is_the_divergence() -> None:
    own, other = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    p, q = (value.div(3).softmax(1) for value in (other, own))
    expected = 9 * float((p * (p / q).log()).sum())
    assert float(outputs_apart({"logits": own}, {"logits": other}, LOGITS, 3.0)) == pytest.approx(expected, rel=1e-5)


def test_a_teacher_of_something_else_is_refused() -> None:
    own = {"logits": torch.zeros(2, 3)}
    with pytest.raises(UserError, match="the teacher has no output 'logits'; it has y"):
        outputs_apart(own, {"y": torch.zeros(2, 3)}, LOGITS, 1.0)
    with pytest.raises(UserError, match="the teacher's 'logits' is 2×4, the model's 2×3"):
        outputs_apart(own, {"logits": torch.zeros(2, 4)}, LOGITS, 1.0)
    maps = {"mask_logits": torch.zeros(1, 2, 4, 4)}
    assert float(outputs_apart(maps, {"mask_logits": torch.zeros(1, 2, 8, 8)}, MASKS, 1.0)) == 0


def test_features_are_as_far_apart_as_their_samples_are_where_the_student_says_the_mean() -> None:
    teacher = torch.randn(8, 3, 4, generator=torch.Generator().manual_seed(0)) + 5
    assert apart(teacher, teacher).item() == 0
    assert apart(teacher.mean(0, keepdim=True).expand_as(teacher), teacher).item() == pytest.approx(1, rel=1e-5)
    assert apart(2 * teacher - teacher.mean(0), teacher).item() == pytest.approx(1, rel=1e-5)
    assert features_apart([teacher, teacher.mean(0).expand_as(teacher)], [teacher, teacher]).item() == pytest.approx(
        0.5, rel=1e-5
    )


def test_one_sample_alone_has_a_distance_that_is_a_number() -> None:
    one = torch.ones(1, 3)
    assert torch.isfinite(apart(torch.zeros(1, 3), one))
    assert apart(torch.zeros(1, 3), torch.zeros(1, 3)).item() == 0


def test_only_the_student_is_drawn() -> None:
    own, other = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    apart(own, other).backward()
    assert own.grad is not None
    assert other.grad is None
