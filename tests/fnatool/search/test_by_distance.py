"""A search by distance as its user meets it: from a seed to a network within a budget without training, other budgets from its table."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from seeds_of_heads import mobile
from tiny import save

from fnatool.cli.main import run
from fnatool.files import model as files
from fnatool.model import profile as profiling
from fnatool.model.analysed import realises
from fnatool.search import by_distance
from fnatool.search.config import parse_search
from fnatool.tasks import scenes as writing
from fnatool.training.stepping import dealt

Capture = pytest.CaptureFixture[str]
SIZE = 64
SPACE = {"stage0.depth": [1, 2, 3], "stage2.depth": [1, 2], "stage*.*.kernel": [3, 5], "stage*.*.hidden": ["x0.5", "x0.75", "x1"]}
BUDGET = "madds=500k"
MODULE = [sys.executable, "-m", "fnatool"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fnatool"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a seed, scenes, a space, and a finished search."""
    root = tmp_path_factory.mktemp("world")
    save(mobile(SIZE).model(batch="N"), root / "seed.onnx")
    (root / "space.json").write_text(json.dumps({"version": 1, "knobs": SPACE}))
    for task in ("classification", "detection"):
        writing.write_scenes(root / task, writing.SceneOptions(task, SIZE, 24, 8, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        config(root, finetune={"enabled": True})
        threads = torch.get_num_threads()
        assert search("--budget", BUDGET, folder="done") == 0
        torch.set_num_threads(threads)
    return root


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def config(world: Path, task: str = "classification", **sections: Mapping[str, object]) -> None:
    """A search by distance on few images as search.toml in the working directory, its last phase left out."""
    usual: dict[str, dict[str, object]] = {
        "data": {"path": str(world / task), "workers": 0},
        "head": {"levels": 3} if task == "detection" else {},
        "space": {"choices": str(world / "space.json")},
        "search": {"method": "distance"},
        "distance": {"images": 12, "batch": 6, "members": 6},
        "run": {"threads": 1},
        "finetune": {"enabled": False},
        "finetune.run": {"batch": 4, "steps": 2},
    }
    lines = [f'task = "{task}"', f'model = "{world / "seed.onnx"}"']
    for name in {**usual, **sections}:
        rows = {**usual.get(name, {}), **sections.get(name, {})}
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in rows.items())]
    Path("search.toml").write_text("\n".join(lines), encoding="utf-8")


def search(*more: str, folder: str = "run") -> int:
    return run(["search", "-o", folder, *more])


def report(folder: str | Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((Path(folder) / "report.json").read_text())
    return found


def table(folder: str | Path) -> object:
    return json.loads((Path(folder) / "distances.json").read_text())["distances"]


def madds(path: Path) -> int:
    return profiling.profile_model(files.read(path)).whole.macs


def refused(capsys: Capture, *parts: str) -> None:
    captured = capsys.readouterr()
    assert captured.err.startswith("fnatool: ")
    assert "Traceback" not in captured.err
    for part in parts:
        assert part in captured.err


# --- from a seed to a target ------------------------------------------------------------------------------------------------------------


def test_a_search_ends_with_a_network_of_its_spec_within_the_budget_and_trains_no_super_network(world: Path) -> None:
    done = world / "done"
    found = report(done)
    assert found["method"] == "distance"
    assert found["architecture"]["costs"]["madds"] == madds(done / "target.onnx") <= 500_000
    assert found["architecture"]["distance"] > 0
    assert found["images"] == 12
    assert found["measured"] == len(table(done))
    assert found["finetuned"]["step"] == 2
    assert realises(files.read(done / "target.onnx"), done / "spec.json") == []
    assert not (done / "checkpoint.pt").exists()
    page = (done / "report.md").read_text()
    assert "Before any training its features are" in page
    assert "entropy" not in page
    predicted = [row["distance"] for row in found["predicted"]]
    assert predicted == sorted(predicted, reverse=True)
    assert predicted[-1] == pytest.approx(0, abs=1e-6)


def test_within_a_budget_that_the_seed_keeps_it_is_the_seed_and_nothing_else_is_measured(world: Path, capsys: Capture) -> None:
    config(world)
    assert search("--budget", "madds=1M") == 0
    assert "the budget allows the seed's own architecture" in capsys.readouterr().out
    found = report("run")
    assert found["architecture"]["costs"] == found["seed"]["costs"]
    assert found["measured"] < report(world / "done")["measured"]


def test_nothing_grows(world: Path) -> None:
    found = report(world / "done")
    assert all("kernel 5" not in row for row in found["architecture"]["blocks"].values())
    assert "stage0.block2" not in found["architecture"]["blocks"]
    assert found["space"]["costs"]["madds"]["largest"] == found["seed"]["costs"]["madds"]


def test_labels_are_not_read(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pictures_alone(*of: Any, **how: Any) -> Iterator[dict[str, torch.Tensor]]:
        for batch in dealt(*of, **how):
            yield {"images": batch["images"]}

    monkeypatch.setattr(by_distance, "dealt", pictures_alone)
    config(world)
    assert search("--budget", BUDGET) == 0
    assert table("run") == table(world / "done")


def test_the_same_seed_finds_the_same_bits_and_another_one_looks_at_other_images(world: Path) -> None:
    config(world, finetune={"enabled": True})
    assert search("--budget", BUDGET) == 0
    assert Path("run/distances.json").read_text() == (world / "done/distances.json").read_text()
    assert Path("run/target.onnx").read_bytes() == (world / "done/target.onnx").read_bytes()
    config(world, run={"seed": 1})
    assert search("--budget", BUDGET, folder="other") == 0
    assert table("other") != table("run")


def test_a_detector_is_searched_by_the_maps_that_its_head_reads(world: Path) -> None:
    config(world, "detection", head={"style": "ssdlite", "taps": ["stage3.block0.hidden", "last.n.r"]})
    assert search("--budget", "params=1G") == 0
    found = report("run")
    assert run(["check", "run/target.onnx"]) == 0
    assert any("the head reads" in why for why in found["not_searched"].values())


def test_the_selection_reaches_distances_and_the_network_that_is_written(world: Path) -> None:
    config(world, search={"select": "first"})
    assert search("--budget", BUDGET, folder="first") == 0
    assert table("first") != table(world / "done")
    spec = json.loads((world / "done/spec.json").read_text())
    Path("spec.json").write_text(json.dumps(spec))
    for select in ("l1", "first"):
        assert run(["remap", str(world / "seed.onnx"), "--spec", "spec.json", "--select", select, "-o", f"{select}.onnx"]) == 0
    weights = {
        name: {tensor.name: tensor.values for tensor in files.read(path).graph.tensors().values() if hasattr(tensor, "values")}
        for name, path in (("l1", "l1.onnx"), ("first", "first.onnx"), ("found", world / "done/remapped.onnx"))
    }
    shared = [name for name in weights["found"] if name.startswith("s") and name in weights["l1"]]
    assert shared
    assert all((weights["found"][name] == weights["l1"][name]).all() for name in shared)
    assert any((weights["found"][name] != weights["first"][name]).any() for name in shared)


def test_widths_are_held_to_a_multiple_in_what_is_written(world: Path) -> None:
    config(world, space={"choices": "auto"}, search={"multiple": 8})
    assert search("--budget", BUDGET) == 0
    widths = [
        int(part.split()[1]) for row in report("run")["architecture"]["blocks"].values() for part in row.split(", ") if "hidden" in part
    ]
    assert widths
    assert all(width % 8 == 0 for width in widths)


def test_a_dry_run_measures_nothing(world: Path, capsys: Capture) -> None:
    config(world)
    assert search("--budget", BUDGET, "--dry-run") == 0
    assert "architectures; with the head" in capsys.readouterr().out
    assert not Path("run/distances.json").exists()


# --- interrupted, and on several processes ----------------------------------------------------------------------------------------------


def test_a_run_that_is_killed_goes_on_to_the_same_bits(world: Path) -> None:
    config(world)
    process = subprocess.Popen([*MODULE, "search", "-o", "run", "--budget", BUDGET], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 240
    while not Path("run/distances.json").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not Path("run/target.onnx").exists()
    assert search("--budget", BUDGET) == 0
    assert table("run") == table(world / "done")
    assert Path("run/remapped.onnx").read_bytes() == (world / "done/remapped.onnx").read_bytes()


def test_two_processes_measure_the_same_bits(world: Path) -> None:
    config(world)
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*TWO, "search", "-o", "two", "--budget", BUDGET], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(table("two")) == sorted(table(world / "done"))
    assert report("two")["architecture"] == report(world / "done")["architecture"]


# --- derive -----------------------------------------------------------------------------------------------------------------------------


def derived(folder: Path, *more: str) -> list[dict[str, object]]:
    assert run(["derive", str(folder), "-o", "out", "--force", *more]) == 0
    found: list[dict[str, object]] = json.loads(Path("out/derived.json").read_text())["architectures"]
    return found


def test_any_budget_and_a_front_come_from_the_table_without_data(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(by_distance, "meter_of", lambda *_: pytest.fail("something is measured"))
    (row,) = derived(world / "done", "--budget", "madds=400k", "--images", "0")
    assert row["costs"]["madds"] == madds(Path("out", str(row["model"]))) <= 400_000
    assert row["predicted_distance"] > 0
    front = derived(world / "done", "--pareto", "4", "--images", "0")
    assert [row["costs"]["madds"] for row in front] == sorted({row["costs"]["madds"] for row in front})
    predicted = [row["predicted_distance"] for row in front]
    assert predicted == sorted(predicted, reverse=True)
    assert "Σ Δ" in capsys.readouterr().out


def test_with_images_the_derived_member_is_measured_whole_and_is_the_searched_one_at_its_budget(world: Path) -> None:
    (row,) = derived(world / "done", "--budget", BUDGET)
    found = report(world / "done")["architecture"]
    assert row["distances"] == {"distance": found["distance"]}
    assert row["costs"] == found["costs"]


# --- what goes wrong --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sections", "parts"),
    [
        ([], {}, ["without a budget nothing is nearer to the seed than the seed itself", 'search.method = "gradient"']),
        (["--budget", "madds=1k"], {}, ["the smallest member of this space has"]),
        (["--budget", "madds=1M"], {"space": {"choices": "grown.json"}}, ["nothing to search by distance, which never grows"]),
        (["--budget", "madds=1M"], {"search": {"multiple": 7}}, ["has no widths that are multiples of 7"]),
        (["--budget", "madds=1M"], {"search": {"select": "last"}}, ["'search.select'"]),
        (["--budget", "madds=1M"], {"distance": {"images": 1}}, ["'distance.images'"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_before_anything_is_measured(
    arguments: list[str], sections: Mapping[str, Mapping[str, object]], parts: list[str], world: Path, capsys: Capture
) -> None:
    Path("grown.json").write_text(json.dumps({"version": 1, "knobs": {"stage*.*.kernel": [3, 5]}}))
    config(world, **sections)
    assert search(*arguments) == 2
    refused(capsys, *parts)
    assert not Path("run/distances.json").exists()


def test_derive_refuses_what_distances_do_not_say(world: Path, capsys: Capture) -> None:
    assert run(["derive", str(world / "done"), "-o", "out", "--argmax"]) == 2
    refused(capsys, "is the seed's own, as distances go")
    shutil.copytree(world / "done", "run")
    document = json.loads(Path("run/distances.json").read_text())
    Path("run/distances.json").write_text(json.dumps({**document, "distances": document["distances"][:3]}))
    assert run(["derive", "run", "-o", "out", "--budget", "madds=1M"]) == 2
    refused(capsys, "has not measured all single changes yet")


def test_the_selection_is_that_of_the_method_unless_it_is_said() -> None:
    assert parse_search({"search": {"method": "distance"}}).select == "l1"
    assert parse_search({"search": {"method": "gradient"}}).select == "first"
    assert parse_search({"search": {"method": "distance", "select": "bn"}}).select == "bn"
    assert parse_search({"search": {"relaxation": "paths"}}).search.method == "gradient"
