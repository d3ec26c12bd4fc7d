"""A run's folder that is damaged, in use, of another run, or somebody else's: what is refused, and what is never
lost.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from searches import derived, everything, gradient, refused, report, search

from fnatool.cli.main import run
from fnatool.files import model as files
from fnatool.files import runfolder
from fnatool.model.analysed import metadata
from fnatool.search import folder as folders
from fnatool.tasks import table

Capture = pytest.CaptureFixture[str]


def test_a_run_goes_on_only_as_what_it_was(world: Path, capsys: Capture) -> None:
    shutil.copytree(world / "done", "run")
    gradient(world, weights={"lr": 0.5})
    assert search("--budget", "madds=1.1M") == 2
    refused(capsys, "'run' is of another run", "'weights.lr' was 0.001, not 0.5", "--restart")
    document = json.loads(Path("run/run.json").read_text())
    gradient(world)
    Path("run/run.json").write_text(json.dumps({**document, "data": ["0" * 32, document["data"][1]]}))
    assert search("--budget", "madds=1.1M") == 2
    refused(capsys, "'run' is of another run: its data had other names, sizes or labels than now;", "--restart")
    Path("run/run.json").write_text(json.dumps({**document, "version": 9}))
    for command in (["search", "-o", "run", "--budget", "madds=1.1M"], ["derive", "run", "--argmax"]):
        assert run(command) == 2
        refused(capsys, "is a run of version 9, this fnatool reads version 6")
    assert Path("run/checkpoint.pt").read_bytes() == (world / "done/checkpoint.pt").read_bytes()


def test_an_earlier_run_is_lost_no_sooner_than_the_new_one_can_begin(world: Path, capsys: Capture) -> None:
    shutil.copytree(world / "done", "run")
    gradient(world)
    before = everything(Path("run"))
    for arguments, part in (
        (["--restart", "--budget", "madds=1k"], "the smallest member of this space has"),
        (["--restart", "--budget", "nonsense"], "is no budget"),
        (["--restart", "--dry-run"], "removes an earlier run"),
    ):
        assert search(*arguments) == 2
        refused(capsys, part)
    Path("run/derived").mkdir()
    shutil.copy("run/target.onnx", "run/derived/other.onnx")
    before[Path("run/derived/other.onnx")] = before[Path("run/target.onnx")]
    for seed in ("run/target.onnx", "run/derived/other.onnx"):
        assert run(["search", seed, "-o", "run", "--restart"]) == 2
        refused(capsys, f"'{seed}' lies where the run is kept and would be overwritten")
    assert everything(Path("run")) == before
    assert sorted(path.name for path in Path().iterdir()) == ["cache", "run", "search.toml"]
    os.chdir("run")  # the folder of the run may be the working one
    assert run(["search", "--config", "../search.toml", "-o", ".", "--restart", "--budget", "madds=1M"]) == 0
    os.chdir("..")
    assert report("run")["architecture"]["costs"]["madds"] <= 1_000_000


def test_a_folder_of_something_else_is_left_alone(world: Path, capsys: Capture) -> None:
    gradient(world)
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")
    assert search("--restart", folder="mine") == 2
    refused(capsys, "'mine' holds 'thesis.tex'")
    assert Path("mine/thesis.tex").exists()


DAMAGES: Mapping[str, tuple[str, bytes | Callable[[dict[str, object]], object], str]] = {
    "no JSON": ("run.json", b"{", "is not JSON"),
    "not UTF-8": ("run.json", b"\xff{}", "it must be UTF-8 text"),
    "deep": ("run.json", b"[" * 100_000, "is not JSON"),
    "a list": ("run.json", b"[]", "is no run that says its version"),
    "an infinity": ("run.json", b'{"version": 2, "processes": Infinity}', "is not JSON: Infinity is no number"),
    "an infinity in digits": ("run.json", lambda run: {**run, "processes": 1e400}, "is not JSON"),
    "no processes": ("run.json", lambda run: {**run, "processes": 0}, "run.json' is damaged"),
    "samples of words": ("run.json", lambda run: {**run, "samples": ["a", "b"]}, "run.json' is damaged"),
    "three samples": ("run.json", lambda run: {**run, "samples": [1, 2, 3]}, "run.json' is damaged"),
    "a number for a model": ("run.json", lambda run: {**run, "model": 1}, "run.json' is damaged"),
    "no config": ("run.json", lambda run: {**run, "config": None}, "run.json' is damaged"),
    "a config of another": (
        "run.json",
        lambda run: {**run, "config": {"task": "cooking"}},
        "run.json' is damaged: 'task' is 'cooking'",
    ),
    "other knobs": (
        "run.json",
        lambda run: {**run, "knobs": {"stage9.depth": [1, 2]}},
        "of a run with another model, config or data",
    ),
    "knobs of another kind": (
        "run.json",
        lambda run: {**run, "knobs": {"stage0.depth": [1.5]}},
        "run.json' is damaged: 'stage0.depth'",
    ),
    "a model that is a device": ("run.json", lambda run: {**run, "model": "/dev/zero"}, "is no longer there"),
    "no checkpoint": ("checkpoint.pt", b"", "is not a checkpoint of fnatool, or is damaged"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_run_that_is_damaged_is_said_so_in_a_sentence(name: str, world: Path, capsys: Capture) -> None:
    shutil.copytree(world / "done", "run", ignore=shutil.ignore_patterns("events", "finetune"))
    file, change, part = DAMAGES[name]
    path = Path("run", file)
    path.write_bytes(change if isinstance(change, bytes) else json.dumps(change(json.loads(path.read_text()))).encode())
    assert run(["derive", "run", "--budget", "madds=1M", "--images", "0"]) == 2
    refused(capsys, part)


def test_a_choice_and_rows_from_elsewhere_are_refused(world: Path, capsys: Capture) -> None:
    shutil.copytree(world / "done", "run")
    gradient(world)
    rows_before = Path("run/metrics.jsonl").read_bytes()
    Path("run/metrics.jsonl").write_bytes(b"{}\n" + rows_before)
    assert search("--budget", "madds=1.1M") == 2
    refused(capsys, "'run/metrics.jsonl' is damaged in line 1; --restart begins anew")
    Path("run/metrics.jsonl").write_bytes(rows_before)
    choice = json.loads(Path("run/chosen.json").read_text())
    Path("run/chosen.json").write_text(json.dumps({**choice, "member": [99] * len(choice["member"])}))
    assert search("--budget", "madds=1.1M") == 2
    refused(capsys, "'run/chosen.json' is damaged; --restart begins anew", "has no candidate 99")


def test_paths_in_a_run_are_not_followed_out_of_it(world: Path, capsys: Capture) -> None:
    shutil.copytree(world / "done", "run")
    document = json.loads(Path("run/run.json").read_text())
    document["config"]["head"]["classes"] = document["config"]["cost"]["latency"] = "/dev/zero"
    Path("run/run.json").write_text(json.dumps(document))
    state = torch.load("run/checkpoint.pt", weights_only=True)
    torch.save({**state, "key": folders.read(Path("run")).key}, "run/checkpoint.pt")
    (row,) = derived(Path("run"), "--budget", "madds=1M", "--images", "0")
    described = [
        table.description_of(metadata(files.read(path).envelope))
        for path in (Path("out", str(row["model"])), "run/target.onnx")
    ]
    assert described[0].classes == described[1].classes
    Path("run/seed.onnx").unlink()
    os.mkfifo("run/seed.onnx")
    assert run(["derive", "run", "--argmax"]) == 2
    refused(capsys, "'run/seed.onnx' is not a regular file")


def test_a_run_in_use_and_files_of_others_are_left_alone(world: Path, capsys: Capture) -> None:
    gradient(world)
    for name in ("target.onnx", "spec.json", "report.md"):
        Path("mine").mkdir(exist_ok=True)
        Path("mine", name).write_text("years of work")
    for more in ((), ("--restart",), ("--dry-run",)):
        assert search(*more, folder="mine") == 2
        refused(capsys, "'mine' holds 'report.md'")
    assert {path.read_text() for path in Path("mine").iterdir()} == {"years of work"}
    with runfolder.hold_folder(Path("run"), folders.SEARCH):
        assert search() == 2
        refused(capsys, f"'run' is in use by process {os.getpid()}")
