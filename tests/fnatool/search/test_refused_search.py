"""What does not fit is said before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from searches import SIZE, Sections, gradient, refused, search
from seeds_of_heads import plain
from tiny import save

from fnatool.cli.main import run

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "sections", "parts"),
    [
        (["--budget", "madds=100k"], {}, ["the smallest member of this space has", "the budget allows 100,000"]),
        (["--budget", "madds=much"], {}, ["'much' is no number"]),
        (["--budget", "latency=3ms"], {}, ["there is no 'cost.latency'", "fnatool latency-table run/seed.onnx"]),
        ([], {"space": {"choices": "nowhere.json"}}, ["there is no space", "fna-detection", "auto"]),
        # before the data, which takes long
        ([], {"space": {"choices": "search.toml"}, "data": {"path": "nowhere"}}, ["is not JSON"]),
        ([], {"space": {"choices": "fna-detection"}}, ["is for stages of width 16, 24", "use 'auto'"]),
        ([], {"data": {"path": "nowhere"}}, ["nowhere", "does not exist"]),
        ([], {"search": {"stepps": 3}}, ["'search.stepps' is no key", "search.steps"]),
        ([], {"finetune.run": {"epoch": 3}}, ["'finetune.run.epoch' is no key", "finetune.run.epochs"]),
        ([], {"run": {"batch": 500}}, ["samples do not fill a batch of 500"]),
        ([], {"head": {"classes": "7"}}, ["has 11 classes, the model 7"]),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_trained(
    arguments: list[str], sections: Sections, parts: list[str], world: Path, capsys: Capture
) -> None:
    gradient(world, **sections)
    assert search(*arguments) == 2
    refused(capsys, *parts)
    assert not Path("run/checkpoint.pt").exists()


def test_a_budget_that_is_none_is_refused_before_a_folder_is_made(world: Path, capsys: Capture) -> None:
    gradient(world)
    assert search("--budget", "nonsense") == 2
    refused(capsys, "'nonsense' is no budget", "madds=200M")
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("knobs", "part"),
    [
        ({"stage0.*.kernal": [3, 5]}, "'stage0.*.kernal'"),
        ({"stage0.*.kernel": [3]}, "nothing to search"),
        ({"stage0.width": [6, 8]}, "a super network chooses what is local to a block"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(
    knobs: dict[str, object], part: str, world: Path, capsys: Capture
) -> None:
    Path("space.json").write_text(json.dumps({"version": 1, "knobs": knobs}))
    gradient(world, space={"choices": "space.json"})
    assert search() == 2
    refused(capsys, part)


def test_a_seed_without_blocks_has_nothing_to_search(world: Path, capsys: Capture) -> None:
    save(plain(SIZE).model(), Path("plain.onnx"))
    gradient(world, space={"choices": "auto"})
    assert run(["search", "plain.onnx", "-o", "run"]) == 2
    refused(
        capsys, "leaves nothing to search by gradient", "'search.method' distance narrows widths outside blocks too"
    )


def test_a_budget_is_held_against_what_the_strategy_leaves(world: Path, capsys: Capture) -> None:
    gradient(world, search={"strategy": "preserve"})
    assert search("--budget", "madds=542k") == 2
    refused(capsys, "the smallest member of this space has")
    assert not Path("run/checkpoint.pt").exists()
