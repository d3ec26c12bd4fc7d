"""The curve that fine-tuning ends with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fnatool.cli.show.curve import BLOCKS, PLAIN, WIDTH, curve, curves, levels_of, show_curve
from fnatool.terminal import heard

ROWS = [
    *({"step": step, "kind": "train", "loss": 4.0 - step} for step in range(1, 4)),
    *(
        {"step": step, "kind": "val", "mIoU": figure, "IoU/a": 0.0}
        for step, figure in enumerate((0.1, 0.5, 0.8, 0.5), 1)
    ),
]


def test_a_curve_goes_from_the_lowest_level_to_the_highest() -> None:
    assert curve([0, 7, 3, 1, 1], BLOCKS) == "▁█▄▂▂"
    assert curve([2, 2, 2], BLOCKS) == "▁▁▁"
    assert curve([0, 7, 3], PLAIN) == "_#:"


def test_a_long_curve_is_of_means() -> None:
    values = [float(k // 2) for k in range(2 * WIDTH)]
    assert curve(values, BLOCKS) == curve(values[::2], BLOCKS)
    assert len(curve([*values, 1e3], BLOCKS)) == WIDTH


def test_figure_and_loss_are_drawn_and_the_best_evaluation_is_told() -> None:
    assert curves(ROWS, "mIoU", falls=False, levels=BLOCKS) == [
        "mIoU  ▁▅█▅  0.1000 to 0.5000",
        "loss  █▅▁  3.0000 to 1.0000",
        "the best evaluation: mIoU 0.8000 after step 3",
    ]
    assert curves(ROWS, "mIoU", falls=True, levels=BLOCKS)[-1] == "the best evaluation: mIoU 0.1000 after step 1"


def test_a_few_evaluations_make_no_curve() -> None:
    assert curves(ROWS[:5], "mIoU", falls=False, levels=BLOCKS) == []


@pytest.mark.parametrize(
    ("encoding", "levels"), [("utf-8", BLOCKS), ("ascii", PLAIN), ("latin-1", PLAIN), (None, PLAIN), ("?", PLAIN)]
)
def test_a_terminal_without_blocks_gets_plain_characters(encoding: str | None, levels: str) -> None:
    assert levels_of(encoding) == levels


def test_the_curve_is_of_the_rows_that_the_run_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    with heard():
        show_curve(tmp_path, "mIoU", falls=False)
    assert "after step 3" in capsys.readouterr().out
    with heard():
        show_curve(tmp_path / "nothing", "mIoU", falls=False)
    assert capsys.readouterr().out == ""
