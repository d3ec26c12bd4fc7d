"""A search by gradient as its user meets it: one command from a seed to a network within a budget."""

from __future__ import annotations

import json
import math
from pathlib import Path

import onnx
import pytest
from pages import look_up, read_page
from searches import SIZE, Sections, derived, gradient, madds, refused, report, rows, search
from seeds_of_heads import mobile
from tiny import save

from fnatool import terminal
from fnatool.cli.main import run
from fnatool.files import model as files
from fnatool.files import runfolder
from fnatool.latency import measure as making
from fnatool.latency import table as latencies
from fnatool.latency.fitting import Fit
from fnatool.model.analysed import metadata, realises
from fnatool.tasks import table
from passes.space.costs import Table, cost_tables

Capture = pytest.CaptureFixture[str]


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
    assert expected | {"remapped.onnx", "target.onnx", "finetune", "report.json", "report.md", "report.html"} == {
        path.name for path in done.iterdir()
    }
    found = report(done)
    assert found["architecture"]["costs"]["madds"] == madds(done / "target.onnx") <= 1_100_000
    assert found["finetuned"]["step"] == 2
    assert all(
        {"mIoU", "pixels"} <= figures.keys()
        for figures in (found["architecture"]["supernet_score"], found["finetuned"]["figures"])
    )
    assert realises(files.read(done / "target.onnx"), done / "spec.json") == []
    assert table.description_of(metadata(files.read(done / "target.onnx").envelope)).classes[1] == "t-shirt"
    onnx.checker.check_model(done / "target.onnx", full_check=True)
    assert run(["check", str(done / "target.onnx"), "--max-macs", "1100000"]) == 0
    assert "| stage1.block0 | kernel" in (done / "report.md").read_text()


def test_the_page_shows_how_likely_every_candidate_is_and_how_the_search_went(world: Path) -> None:
    page = read_page(world / "done/report.html")
    for value, pointer, _ in page.numbers:
        assert value == repr(look_up(page.document, pointer)), pointer
    assert "How likely each candidate is" in page.text
    assert page.classes.count("chosen") == sum(k is not None for k in report(world / "done")["architecture"]["member"])
    assert {row["kind"] for row in page.document["learning"]} >= {"weights", "alpha"}
    found = report(world / "done")
    last = [row for row in page.document["learning"] if row["kind"] == "probabilities"][-1]
    for name, said in found["preferences"].items():
        shares = [last[f"{name}/{k}"] for k in range(len(said["log_probabilities"]))]
        assert shares == pytest.approx([math.exp(value) for value in said["log_probabilities"]], rel=1e-5)
    assert "How likely what was chosen was" in page.text
    assert page.classes.count("curve") > 2


def test_weights_warm_up_before_alpha_moves_and_cost_is_what_alpha_expects(world: Path) -> None:
    weights, alphas = rows("weights", world / "done"), rows("alpha", world / "done")
    assert [row["step"] for row in weights] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in alphas] == [3, 4, 5, 6]
    assert all(0 < row["entropy"] <= 1 and row["cost"] > 0 and row["charged"] >= 0 for row in alphas)
    assert [row["floor"] for row in alphas] == sorted((row["floor"] for row in alphas), reverse=True)


def test_the_same_seed_finds_the_same_network_and_another_seed_draws_others(world: Path) -> None:
    gradient(world)
    assert search("--budget", "madds=1.1M", folder="again") == 0
    assert Path("again/target.onnx").read_bytes() == (world / "done/target.onnx").read_bytes()
    assert rows("alpha", "again") == rows("alpha", world / "done")
    gradient(world, run={"seed": 1}, finetune={"enabled": False})
    assert search(folder="other") == 0
    assert rows("weights", "other")[0]["loss"] != rows("weights", "again")[0]["loss"]


def test_paths_frozen_statistics_and_the_other_strategy_find_a_detector(world: Path) -> None:
    how: Sections = {
        "search": {
            "relaxation": "paths",
            "strategy": "preserve",
            "steps": 3,
            "freeze_batchnorm": "yes",
            "alpha_every": 2,
        }
    }
    gradient(world, "detection", **how, finetune={"enabled": False})
    assert search("--budget", "params=1G", "--budget", "madds=1G") == 0
    assert [row["step"] for row in rows("alpha")] == [2]
    assert run(["check", "run/target.onnx"]) == 0
    assert report("run")["finetuned"] is None


def test_a_seed_of_another_size_is_brought_to_that_of_the_data(world: Path) -> None:
    save(mobile(96).model(batch=1), Path("large.onnx"))
    gradient(
        world, data={"size": [64, 64]}, space={"output_stride": 16}, search={"steps": 2}, finetune={"enabled": False}
    )
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
    gradient(world, search={"steps": 3})
    assert run(["search", "bytes.onnx", "-o", "run"]) == 0
    assert onnx.load("run/target.onnx").graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_latency_is_a_cost_like_any_other(world: Path) -> None:
    """A table whose nanoseconds are 10 for each multiply-add."""
    gradient(world)
    assert search("--dry-run", folder="run") == 0
    model = files.read("run/seed.onnx")
    of = making.subject(model, "run/space.json")
    counted = cost_tables(of.analysis, of.found)["madds"]
    timed = Table(10 * counted.base, tuple(tuple(10 * cost for cost in row) for row in counted.blocks))
    fit = Fit(0.0, 1.0, 0.0, 0.0)
    latencies.write(
        latencies.LatencyTable(
            about=of.about,
            provider="cpu",
            place="here",
            clock="wall",
            rounds=1,
            table=timed,
            parts=timed,
            fit=fit,
            members=(),
            load=(0.0, 0.0),
        ),
        Path("latency.json"),
    )
    gradient(world, cost={"kind": "latency", "latency": "latency.json"}, finetune={"enabled": False})
    assert search("--budget", "latency=8ms") == 0
    found = report("run")["architecture"]["costs"]
    assert found["latency"] == 10 * madds(Path("run/target.onnx")) <= 8_000_000
    seed = json.loads(Path("run/report.json").read_text())["seed"]["costs"]
    assert seed["latency"] == 10 * seed["madds"]
    assert "| seed | – |" not in Path("run/report.md").read_text()
    parts = {part["name"]: part for part in read_page("run/report.html").document["networks"]["parts"]}
    table, chosen = json.loads(Path("run/costs.json").read_text()), report("run")["architecture"]
    at = dict(zip(chosen["blocks"], chosen["member"], strict=True))
    for stage in ("stage0", "stage1", "stage2"):
        rows = {name: row for name, row in table["latency"]["blocks"].items() if name.startswith(f"{stage}.")}
        assert parts[stage]["after"]["latency"] == sum(
            row[at[name]] for name, row in rows.items() if at[name] is not None and at[name] >= 0
        )
        assert parts[stage]["before"]["latency"] == 10 * parts[stage]["before"]["macs"]
    Path("latency.json").unlink()  # the run has its own
    (row,) = derived(Path("run"), "--budget", "latency=7ms", "--budget", "params=1M", "--images", "0")
    assert row["costs"]["latency"] <= 7_000_000


def test_a_dry_run_shows_the_space_and_trains_nothing(world: Path, capsys: Capture) -> None:
    gradient(world)
    assert search("--dry-run") == 0
    said = capsys.readouterr().out
    assert "kernel 3|5" in said
    assert "madds: the smallest" in said
    assert (
        json.loads(Path("run/space.json").read_text())["knobs"]
        == json.loads((world / "space.json").read_text())["knobs"]
    )
    assert not Path("run/checkpoint.pt").exists()


def test_a_budget_may_be_a_share_of_what_the_seed_costs(world: Path, capsys: Capture) -> None:
    own = madds(world / "done" / "seed.onnx")
    gradient(world, cost={"budget": ["madds=90%"]})
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
