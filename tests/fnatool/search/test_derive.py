"""Other budgets from a search that has learnt: what derive writes, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from searches import derived, madds, refused

from fnatool.cli.main import run
from fnatool.files import model as files
from fnatool.model.analysed import realises

Capture = pytest.CaptureFixture[str]


def test_any_budget_is_kept_by_the_network_that_is_written(world: Path, capsys: Capture) -> None:
    for budget in ("madds=0.9M", "madds=1000000"):
        (row,) = derived(world / "done", "--budget", budget, "--images", "4")
        path = Path("out", str(row["model"]))
        assert madds(path) == row["costs"]["madds"] <= 1_000_000
        assert 0 <= row["supernet_score"]["mIoU"] <= 1
        assert realises(files.read(path), path.with_suffix(".json")) == []
    assert "mIoU" in capsys.readouterr().out


def test_a_front_and_the_published_choice_come_from_the_same_run(world: Path) -> None:
    front = derived(world / "done", "--pareto", "4", "--images", "0")
    costs, scores = ([row[key] for row in front] for key in ("costs", "log_probability"))
    assert 3 <= len(front) <= 4
    assert [row["madds"] for row in costs] == sorted({row["madds"] for row in costs})
    assert scores == sorted(scores)
    (best,) = derived(world / "done", "--argmax", "--images", "0")
    assert best["log_probability"] >= scores[-1]


def test_members_are_not_scored_on_other_data_than_the_search_saw(world: Path, capsys: Capture) -> None:
    image = sorted((world / "segmentation").rglob("*.jpg"))[0]
    whole = image.read_bytes()
    image.write_bytes(whole + b"x")
    try:
        assert run(["derive", str(world / "done"), "-o", "out", "--argmax", "--images", "4"]) == 2
    finally:
        image.write_bytes(whole)
    refused(capsys, "is not what it was when this search began: other names, sizes or labels")


def test_what_an_interrupted_search_has_learnt_can_be_derived(world: Path, capsys: Capture) -> None:
    shutil.copytree(world / "done", "half")
    for name in ("remapped.onnx", "target.onnx"):
        Path("half", name).unlink()
    assert derived(Path("half"), "--budget", "madds=1M", "--images", "0")
    assert "the search is not finished" in capsys.readouterr().out


def test_more_images_than_there_are_are_all_of_them(world: Path) -> None:
    (row,) = derived(world / "done", "--budget", "madds=1M", "--images", str(10**9))
    assert row == derived(world / "done", "--budget", "madds=1M", "--images", "8")[0]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nowhere", "--argmax"], "holds no search"),
        (["DONE"], "say which architectures"),
        (["DONE", "--argmax", "--budget", "madds=1M"], "--argmax knows no budget"),
        (["DONE", "--budget", "madds=1k"], "the smallest member of this space has"),
        (["DONE", "--pareto", "3", "--budget", "madds=1M", "--budget", "params=1M"], "one kind of cost"),
    ],
)
def test_derive_refuses_what_it_cannot_answer(arguments: list[str], part: str, world: Path, capsys: Capture) -> None:
    assert run(["derive", *(str(world / "done") if word == "DONE" else word for word in arguments), "-o", "out"]) == 2
    refused(capsys, part)
