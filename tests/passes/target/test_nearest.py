"""What may have been meant by a name that is none of those there are."""

from __future__ import annotations

import pytest

from passes.nearest import nearest

KEYS = ["task", "run.steps", "run.batch", "optimiser.name", "optimiser.lr", "optimiser.fresh_lr", "optimiser.final_lr",
        "optimiser.weight_decay", "alpha.lr", "weights.lr", "imitate.features"]  # fmt: skip
KNOBS = [
    "input.size",
    "output_stride",
    "stage2.block0.kernel",
    "stage2.block1.kernel",
    "stage3.width",
    "node:features.0.width",
]


@pytest.mark.parametrize(
    ("wanted", "names", "meant"),
    [
        ("optimiser.learning_rate", KEYS, "optimiser.lr"),
        ("learning_rate", KEYS, "alpha.lr"),
        ("alpha.learning_rate", KEYS, "alpha.lr"),
        ("lr", ["optimiser.learning_rate"], "optimiser.learning_rate"),
        ("steps", KEYS, "run.steps"),
        ("optimiser.wd", KEYS, "optimiser.weight_decay"),
        ("optimizer.lr", KEYS, "optimiser.lr"),
        ("Optimiser.LR", KEYS, "optimiser.lr"),
        ("mobilenetv2", ["mobilenetv2_bn"], "mobilenetv2_bn"),
        ("mobilenet-v2-bn", ["mobilenetv2_bn"], "mobilenetv2_bn"),
        ("stage2.kernal", KNOBS, "stage2.block0.kernel"),
        ("stage2.block1.kernels", KNOBS, "stage2.block1.kernel"),
        ("stage9.width", KNOBS, "stage3.width"),
        ("stage9.exit", ["stage0.exit", "stage1.exit", "stage3.exit"], "stage3.exit"),
        ("output-stride", KNOBS, "output_stride"),
        ("resnet50", ["mobilenetv2_bn"], None),
        ("", KNOBS, None),
        ("x" * 100_000, KNOBS, None),
    ],
)
def test_the_likeliest_name_is_found(wanted: str, names: list[str], meant: str | None) -> None:
    assert nearest(wanted, names) == meant
