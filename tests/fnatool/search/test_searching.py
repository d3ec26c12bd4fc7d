"""A search as its user meets it: one command from a seed to a network within a budget, other budgets from it, and what goes wrong."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import supers
import torch
from seeds_of_heads import mobile, plain
from tiny import save

import fnatool
from fnatool import terminal
from fnatool.cli.main import run
from fnatool.data.split import Labelled, Split
from fnatool.files import model as files
from fnatool.files import runfolder
from fnatool.latency import measure as making
from fnatool.latency import table as latencies
from fnatool.latency.fitting import Fit
from fnatool.model.analysed import metadata, realises
from fnatool.search import folder as folders
from fnatool.search.config import parse_search, read_search, template
from fnatool.search.loop import AlphaSchedule
from fnatool.search.preparing import halves
from fnatool.search.searcher import Searcher
from fnatool.supernet.network import build
from fnatool.tasks import NAMES, table
from fnatool.tasks import scenes as writing
from fnatool.training import journal
from fnatool.training.processes import World
from passes.space.costs import Table, cost_tables

Capture = pytest.CaptureFixture[str]
Sections = Mapping[str, Mapping[str, object]]
SIZE = 64
SPACE = {"stage0.depth": [1, 2, 3], "stage2.depth": [1, 2], "stage*.*.kernel": [3, 5], "stage1.*.hidden": ["x0.5", "x1"]}
MODULE = [sys.executable, "-m", "fnatool"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fnatool"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a seed, scenes, a space, and a finished search."""
    root = tmp_path_factory.mktemp("world")
    save(mobile(SIZE).model(batch="N"), root / "seed.onnx")
    (root / "space.json").write_text(json.dumps({"version": 1, "knobs": SPACE}))
    for task in ("segmentation", "detection"):
        writing.write_scenes(root / task, writing.SceneOptions(task, SIZE, 24, 8, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        config(root)
        threads = torch.get_num_threads()
        assert search("--budget", "madds=1.1M", folder="done") == 0
        torch.set_num_threads(threads)
    return root


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def config(world: Path, task: str = "segmentation", **sections: Mapping[str, object]) -> None:
    """A search of few steps as search.toml in the working directory."""
    usual: dict[str, dict[str, object]] = {
        "data": {"path": str(world / task), "workers": 0},
        "head": {"width": 8, **({"levels": 3} if task == "detection" else {})},
        "space": {"choices": str(world / "space.json")},
        "search": {"steps": 6, "alpha_from": 0.34},
        "alpha": {"lr": 0.1},
        "run": {"batch": 4, "checkpoint": 2, "threads": 1},
        "score": {"images": 8, "calibration": 8},
        "finetune.run": {"batch": 4, "steps": 2},
    }
    lines = [f'task = "{task}"', f'model = "{world / "seed.onnx"}"']
    for name in {**usual, **sections}:
        rows = {**usual.get(name, {}), **sections.get(name, {})}
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in rows.items())]
    Path("search.toml").write_text("\n".join(lines), encoding="utf-8")


def search(*more: str, folder: str = "run") -> int:
    return run(["search", "-o", folder, *more])


def rows(kind: str, folder: str | Path = "run") -> list[dict[str, float]]:
    return [row for row in journal.rows(Path(folder) / "metrics.jsonl") if row["kind"] == kind]


def report(folder: str | Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((Path(folder) / "report.json").read_text())
    return found


def everything(folder: Path) -> dict[Path, bytes]:
    """All files in a folder, but for the mark, which says who opened it last."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != runfolder.MARK}


def madds(path: Path) -> int:
    return fnatool.profile(path).profile.whole.macs


# --- from a seed to a target ------------------------------------------------------------------------------------------------------------


def test_a_search_ends_with_a_network_of_its_spec_within_the_budget(world: Path, capsys: Capture) -> None:
    done = world / "done"
    expected = {
        runfolder.MARK,
        "run.json",
        "space.json",
        "costs.json",
        "seed.onnx",
        "checkpoint.pt",
        "metrics.jsonl",
        "events",
        "spec.json",
        "chosen.json",
    }
    assert expected | {"remapped.onnx", "target.onnx", "finetune", "report.json", "report.md"} == {path.name for path in done.iterdir()}
    found = report(done)
    assert found["architecture"]["costs"]["madds"] == madds(done / "target.onnx") <= 1_100_000
    assert found["finetuned"]["step"] == 2
    assert all({"mIoU", "pixels"} <= figures.keys() for figures in (found["architecture"]["supernet_score"], found["finetuned"]["figures"]))
    assert realises(files.read(done / "target.onnx"), done / "spec.json") == []
    assert table.description_of(metadata(files.read(done / "target.onnx").envelope)).classes[1] == "t-shirt"
    onnx.checker.check_model(done / "target.onnx", full_check=True)
    assert run(["check", str(done / "target.onnx"), "--max-macs", "1100000"]) == 0
    assert "| stage1.block0 | kernel" in (done / "report.md").read_text()


def test_weights_warm_up_before_alpha_moves_and_cost_is_what_alpha_expects(world: Path) -> None:
    weights, alphas = rows("weights", world / "done"), rows("alpha", world / "done")
    assert [row["step"] for row in weights] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in alphas] == [3, 4, 5, 6]
    assert all(0 < row["entropy"] <= 1 and row["cost"] > 0 and row["charged"] >= 0 for row in alphas)
    assert [row["floor"] for row in alphas] == sorted((row["floor"] for row in alphas), reverse=True)


def test_the_same_seed_finds_the_same_network_and_another_seed_draws_others(world: Path) -> None:
    config(world)
    assert search("--budget", "madds=1.1M", folder="again") == 0
    assert Path("again/target.onnx").read_bytes() == (world / "done/target.onnx").read_bytes()
    assert rows("alpha", "again") == rows("alpha", world / "done")
    config(world, run={"seed": 1}, finetune={"enabled": False})
    assert search(folder="other") == 0
    assert rows("weights", "other")[0]["loss"] != rows("weights", "again")[0]["loss"]


def test_paths_frozen_statistics_and_the_other_strategy_find_a_detector(world: Path) -> None:
    how: Sections = {"search": {"relaxation": "paths", "strategy": "preserve", "steps": 3, "freeze_batchnorm": "yes", "alpha_every": 2}}
    config(world, "detection", **how, finetune={"enabled": False})
    assert search("--budget", "params=1G", "--budget", "madds=1G") == 0
    assert [row["step"] for row in rows("alpha")] == [2]
    assert run(["check", "run/target.onnx"]) == 0
    assert report("run")["finetuned"] is None


def test_a_seed_of_another_size_is_brought_to_that_of_the_data(world: Path) -> None:
    save(mobile(96).model(batch=1), Path("large.onnx"))
    config(world, data={"size": [64, 64]}, space={"output_stride": 16}, search={"steps": 2}, finetune={"enabled": False})
    assert run(["search", "large.onnx", "-o", "run"]) == 0
    assert [tensor.shape[2:] for tensor in files.read("run/target.onnx").graph.inputs] == [[64, 64]]
    spec = json.loads(Path("run/spec.json").read_text())["knobs"]
    assert (spec["input.size"], spec["output_stride"]) == ([64, 64], 16)
    assert realises(files.read("run/target.onnx"), Path("run/spec.json")) == []


def test_a_seed_that_takes_bytes_is_given_bytes(world: Path) -> None:
    model = mobile(SIZE).model(batch="N")
    for node in model.graph.node:
        node.input[:] = ["pixels" if name == "x" else name for name in node.input]
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["x"], ["pixels"], to=onnx.TensorProto.FLOAT))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    save(model, Path("bytes.onnx"))
    config(world, search={"steps": 3})
    assert run(["search", "bytes.onnx", "-o", "run"]) == 0
    assert onnx.load("run/target.onnx").graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_latency_is_a_cost_like_any_other(world: Path) -> None:
    """A table whose nanoseconds are 10 for each multiply-add."""
    config(world)
    assert search("--dry-run", folder="run") == 0
    model = files.read("run/seed.onnx")
    of = making.subject(model, "run/space.json")
    counted = cost_tables(of.analysis, of.found)["madds"]
    timed = Table(10 * counted.base, tuple(tuple(10 * cost for cost in row) for row in counted.blocks))
    fit = Fit(0.0, 1.0, 0.0, 0.0)
    latencies.write(latencies.LatencyTable(of.about, "cpu", "here", "wall", 1, timed, timed, fit, (), (0.0, 0.0)), Path("latency.json"))
    config(world, cost={"kind": "latency", "latency": "latency.json"}, finetune={"enabled": False})
    assert search("--budget", "latency=8ms") == 0
    found = report("run")["architecture"]["costs"]
    assert found["latency"] == 10 * madds(Path("run/target.onnx")) <= 8_000_000
    seed = json.loads(Path("run/report.json").read_text())["seed"]["costs"]
    assert seed["latency"] == 10 * seed["madds"]
    assert "| seed | – |" not in Path("run/report.md").read_text()
    Path("latency.json").unlink()  # the run has its own
    (row,) = derived(Path("run"), "--budget", "latency=7ms", "--budget", "params=1M", "--images", "0")
    assert row["costs"]["latency"] <= 7_000_000


def test_a_dry_run_shows_the_space_and_trains_nothing(world: Path, capsys: Capture) -> None:
    config(world)
    assert search("--dry-run") == 0
    said = capsys.readouterr().out
    assert "kernel 3|5" in said
    assert "madds: the smallest" in said
    assert json.loads(Path("run/space.json").read_text())["knobs"] == SPACE
    assert not Path("run/checkpoint.pt").exists()


def test_a_budget_may_be_a_share_of_what_the_seed_costs(world: Path, capsys: Capture) -> None:
    own = madds(world / "done" / "seed.onnx")
    config(world, cost={"budget": ["madds=90%"]})
    assert search("--dry-run") == 0
    assert f"the budget is 90%, which is {terminal.count(int(own * 0.9))}" in capsys.readouterr().out
    assert search("--dry-run", "--budget", "madds=0.01x") == 2
    refused(capsys, "the smallest member of this space has", f"the budget allows {int(own * 0.01):,}")
    (row,) = derived(world / "done", "--budget", "madds=0.9x", "--images", "0")
    assert isinstance(row["costs"], dict)
    assert row["costs"]["madds"] <= 0.9 * own


def test_without_a_config_the_embedded_default_runs_and_says_so(capsys: Capture) -> None:
    assert run(["search", "-o", "run", "--dry-run", "--budget", "madds=40M"]) == 0
    said = capsys.readouterr().out
    assert "no config is given and there is no search.toml here: the embedded default runs" in said
    assert "the budget is 40M" in said
    assert Path("run/scenes/train").is_dir()


# --- interrupted, and on several processes --------------------------------------------------------------------------------------------


def killed_at(command: list[str], reached: Callable[[], bool]) -> None:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_run_that_is_killed_goes_on_to_the_same_bits(world: Path) -> None:
    config(world)
    command = [*MODULE, "search", "-o", "run", "--budget", "madds=1.1M"]
    killed_at(command, lambda: len(rows("weights")) >= 3)  # after a step on α, between checkpoints
    assert not Path("run/target.onnx").exists()
    killed_at(command, Path("run/finetune/metrics.jsonl").exists)
    assert search("--budget", "madds=1.1M") == 0
    for name in ("target.onnx", "remapped.onnx", "spec.json", "report.json", "report.md"):
        assert Path("run", name).read_bytes() == (world / "done" / name).read_bytes(), name
    assert rows("weights") == rows("weights", world / "done")
    assert rows("alpha") == rows("alpha", world / "done")


def test_two_processes_lose_what_one_does(world: Path) -> None:
    config(world, search={"freeze_batchnorm": "yes", "steps": 4}, finetune={"enabled": False})
    assert search(folder="one") == 0
    done = subprocess.run([*TWO, "search", "-o", "two"], capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    for kind in ("weights", "alpha"):
        one, two = rows(kind, "one"), rows(kind, "two")
        assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-5)
        assert len({row["loss"] for row in one}) == len(one)
    assert report("two")["architecture"]["spec"] == report("one")["architecture"]["spec"]


def test_when_a_process_dies_nothing_is_lost_and_the_run_goes_on(world: Path) -> None:
    config(world, search={"freeze_batchnorm": "yes", "steps": 8}, run={"checkpoint": 1}, finetune={"enabled": False})
    command = [*TWO, "search", "-o", "run"]
    assert subprocess.run([*command[:-1], "whole"], capture_output=True, env=environment(), timeout=300).returncode == 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
    deadline = time.monotonic() + 120
    while not Path("run/checkpoint.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(worker(process.pid, rank=1), signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1  # of torchrun, which ends the others and says which one died
    assert "Signal 9 (SIGKILL)" in said
    again = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300)
    assert again.returncode == 0, again.stderr[-2000:]
    for kind in ("weights", "alpha"):
        assert [row["loss"] for row in rows(kind)] == pytest.approx([row["loss"] for row in rows(kind, "whole")], rel=1e-6)


def environment() -> dict[str, str]:
    return {**os.environ, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}


def worker(launcher: int, *, rank: int) -> int:
    """The id of the process of that rank which torchrun has started."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and f"\0RANK={rank}\0" in (path / "environ").read_text():
                return int(path.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    raise AssertionError(f"torchrun has no process of rank {rank}")


def test_when_to_step_on_alpha_is_known_at_every_step() -> None:
    plan = AlphaSchedule(20, 7, 3)
    steps = [step for step in range(20) if plan.has_alpha(step)]
    assert steps == [7, 10, 13, 16, 19]
    assert [plan.alphas_before(step) for step in range(21)] == [sum(s < step for s in steps) for step in range(21)]


@pytest.mark.parametrize(("given", "steps", "rate"), [({}, 5000, 0.001), ({}, 100, 0.05), ({"lr": 3e-4}, 100, 3e-4)])
def test_alpha_can_move_as_far_in_few_steps_as_in_many_unless_its_rate_is_given(given: dict[str, float], steps: int, rate: float) -> None:
    graph, analysis, found = supers.seed("residual")
    made = parse_search({"task": "classification", "alpha": given})
    searcher = Searcher(build(graph, analysis, found), made, World(0, 1, torch.device("cpu")), alpha_steps=steps)
    assert [group["lr"] for group in searcher.alphas.optimiser.param_groups] == [pytest.approx(rate)]


def test_weights_and_alpha_learn_from_disjoint_halves() -> None:
    split = Split("classification", "train", Path(), "", ("a",), tuple(Labelled(str(k), 0) for k in range(11)))
    first, second = ({item.image for item in part.items} for part in halves(split, 0.5, 3))
    assert not first & second
    assert (len(first), len(second)) == (5, 6)
    assert halves(split, 0.5, 4) != halves(split, 0.5, 3)


# --- derive -----------------------------------------------------------------------------------------------------------------------------


def derived(folder: Path, *more: str) -> list[dict[str, object]]:
    assert run(["derive", str(folder), "-o", "out", "--force", *more]) == 0
    found: list[dict[str, object]] = json.loads(Path("out/derived.json").read_text())["architectures"]
    return found


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


# --- what goes wrong --------------------------------------------------------------------------------------------------------------------


def refused(capsys: Capture, *parts: str) -> None:
    captured = capsys.readouterr()
    assert captured.err.startswith("fnatool: ")
    assert "Traceback" not in captured.err
    for part in parts:
        assert part in captured.err


@pytest.mark.parametrize(
    ("arguments", "sections", "parts"),
    [
        (["--budget", "madds=100k"], {}, ["the smallest member of this space has", "the budget allows 100,000"]),
        (["--budget", "madds=much"], {}, ["'much' is no number"]),
        (["--budget", "latency=3ms"], {}, ["there is no 'cost.latency'", "fnatool latency-table run/seed.onnx"]),
        ([], {"space": {"choices": "nowhere.json"}}, ["there is no space", "fna-detection", "auto"]),
        ([], {"space": {"choices": "search.toml"}, "data": {"path": "nowhere"}}, ["is not JSON"]),  # before the data, which takes long
        ([], {"space": {"choices": "fna-detection"}}, ["is for stages of width 16, 24", "use 'auto'"]),
        ([], {"data": {"path": "nowhere"}}, ["nowhere", "does not exist"]),
        ([], {"search": {"stepps": 3}}, ["'search.stepps' is no key", "search.steps"]),
        ([], {"finetune.run": {"epoch": 3}}, ["'finetune.run.epoch' is no key", "finetune.run.epochs"]),
        ([], {"run": {"batch": 500}}, ["samples do not fill a batch of 500"]),
        ([], {"head": {"classes": "7"}}, ["has 11 classes, the model 7"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_before_anything_is_trained(
    arguments: list[str], sections: Sections, parts: list[str], world: Path, capsys: Capture
) -> None:
    config(world, **sections)
    assert search(*arguments) == 2
    refused(capsys, *parts)
    assert not Path("run/checkpoint.pt").exists()


def test_a_budget_that_is_none_is_refused_before_a_folder_is_made(world: Path, capsys: Capture) -> None:
    config(world)
    assert search("--budget", "nonsense") == 2
    refused(capsys, "'nonsense' is no budget", "madds=200M")
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("knobs", "part"),
    [
        ({"stage0.*.kernal": [3, 5]}, "'stage0.*.kernal'"),
        ({"stage0.*.kernel": [3]}, "nothing to search"),
        ({"stage0.width": [6, 8]}, "give it one"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(knobs: dict[str, object], part: str, world: Path, capsys: Capture) -> None:
    Path("space.json").write_text(json.dumps({"version": 1, "knobs": knobs}))
    config(world, space={"choices": "space.json"})
    assert search() == 2
    refused(capsys, part)


def test_a_seed_without_blocks_has_nothing_to_search(world: Path, capsys: Capture) -> None:
    save(plain(SIZE).model(), Path("plain.onnx"))
    config(world, space={"choices": "auto"})
    assert run(["search", "plain.onnx", "-o", "run"]) == 2
    refused(capsys, "there is nothing to search")


def test_a_run_goes_on_only_as_what_it_was(world: Path, capsys: Capture) -> None:
    shutil.copytree(world / "done", "run")
    config(world, weights={"lr": 0.5})
    assert search("--budget", "madds=1.1M") == 2
    refused(capsys, "'run' is of another run", "'weights.lr' was 0.001, not 0.5", "--restart")
    document = json.loads(Path("run/run.json").read_text())
    config(world)
    Path("run/run.json").write_text(json.dumps({**document, "data": ["0" * 32, document["data"][1]]}))
    assert search("--budget", "madds=1.1M") == 2
    refused(capsys, "'run' is of another run: its data had other names, sizes or labels than now;", "--restart")
    Path("run/run.json").write_text(json.dumps({**document, "version": 9}))
    for command in (["search", "-o", "run", "--budget", "madds=1.1M"], ["derive", "run", "--argmax"]):
        assert run(command) == 2
        refused(capsys, "is a run of version 9, this fnatool reads version 4")
    assert Path("run/checkpoint.pt").read_bytes() == (world / "done/checkpoint.pt").read_bytes()


def test_an_earlier_run_is_lost_no_sooner_than_the_new_one_can_begin(world: Path, capsys: Capture) -> None:
    shutil.copytree(world / "done", "run")
    config(world)
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


def test_a_budget_is_held_against_what_the_strategy_leaves(world: Path, capsys: Capture) -> None:
    config(world, search={"strategy": "preserve"})
    assert search("--budget", "madds=542k") == 2
    refused(capsys, "the smallest member of this space has")
    assert not Path("run/checkpoint.pt").exists()


def test_paths_are_searched_as_published_unless_said_otherwise() -> None:
    made = parse_search({"task": "detection", "search": {"relaxation": "paths"}, "weights": {"momentum": 0.5}})
    assert (made.alpha.own, made.alpha.lr, made.search.finalists) == (0.0, 3e-4, 1)
    assert (made.weights.name, made.weights.lr, made.weights.momentum) == ("sgd", 0.02, 0.5)
    assert parse_search({"task": "detection"}).weights.name == "adamw"


def test_a_folder_of_something_else_is_left_alone(world: Path, capsys: Capture) -> None:
    config(world)
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")
    assert search("--restart", folder="mine") == 2
    refused(capsys, "'mine' holds 'thesis.tex'")
    assert Path("mine/thesis.tex").exists()


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
    "a config of another": ("run.json", lambda run: {**run, "config": {"task": "cooking"}}, "run.json' is damaged: 'task' is 'cooking'"),
    "other knobs": ("run.json", lambda run: {**run, "knobs": {"stage9.depth": [1, 2]}}, "of a run with another model, config or data"),
    "knobs of another kind": ("run.json", lambda run: {**run, "knobs": {"stage0.depth": [1.5]}}, "run.json' is damaged: 'stage0.depth'"),
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
    config(world)
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
    described = [table.description_of(metadata(files.read(path).envelope)) for path in (Path("out", str(row["model"])), "run/target.onnx")]
    assert described[0].classes == described[1].classes
    Path("run/seed.onnx").unlink()
    os.mkfifo("run/seed.onnx")
    assert run(["derive", "run", "--argmax"]) == 2
    refused(capsys, "'run/seed.onnx' is not a regular file")


def test_a_run_in_use_and_files_of_others_are_left_alone(world: Path, capsys: Capture) -> None:
    config(world)
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


def test_more_images_than_there_are_are_all_of_them(world: Path) -> None:
    (row,) = derived(world / "done", "--budget", "madds=1M", "--images", str(10**9))
    assert row == derived(world / "done", "--budget", "madds=1M", "--images", "8")[0]


def test_a_full_disk_stops_the_run_and_loses_nothing(world: Path, capsys: Capture) -> None:
    config(world, finetune={"enabled": False})
    assert search("--dry-run", "--budget", "madds=1.1M") == 0
    capsys.readouterr()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((world / "done/checkpoint.pt").stat().st_size - 1, before[1]))
    try:
        assert search("--budget", "madds=1.1M") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    refused(capsys, "there is no room left for", "run/checkpoint.pt", "make room")
    assert [path.name for path in Path("run").iterdir() if path.suffix == ".tmp"] == []
    assert search("--budget", "madds=1.1M") == 0
    assert rows("alpha") == rows("alpha", world / "done")


def test_a_loss_that_is_no_number_stops_the_run(world: Path, capsys: Capture) -> None:
    wild = {"name": "sgd", "lr": 100.0, "clip": 0.0, "warmup": 0, "momentum": 0.99}
    config(world, search={"steps": 30}, weights=wild, run={"checkpoint": 1})
    assert search() == 2
    refused(capsys, "of the search went wrong", "is not finite", "lower 'weights.lr'")
    state = torch.load("run/checkpoint.pt", weights_only=True)["state"]["network"]
    assert all(np.isfinite(value.numpy()).all() for value in state.values())


# --- the config -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", NAMES)
def test_the_config_that_is_written_says_what_is_the_default(task: str) -> None:
    Path("some.toml").write_text(template(task))
    read = read_search(Path("some.toml"))
    assert read.model_copy(update={"data": parse_search({"task": task}).data}) == parse_search({"task": task})
    assert run(["config", "more.toml", "--task", task, "--search"]) == 0
    assert Path("more.toml").read_text() == template(task)
