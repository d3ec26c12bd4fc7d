"""A search by distance as its user meets it: from a seed to a network within a budget without training, other budgets
from its table.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import Net
from searches import MODULE, TWO, derived, distance, environment, gradient, madds, refused, report, search
from tiny import save
from working import inside

from fnatool.cli.main import run
from fnatool.files import model as files
from fnatool.model.analysed import analyse_model, realises
from fnatool.search import by_distance, purposes
from fnatool.search.config import parse_search
from fnatool.search.preparing import END, exits
from fnatool.training.stepping import dealt
from passes.space.space import Space, choices

Capture = pytest.CaptureFixture[str]
BUDGET = "madds=500k"


@pytest.fixture(scope="module")
def near(scenes: Path) -> Path:
    """The folder of seed and scenes, with a finished search by distance in its folder measured."""
    with inside(scenes):
        distance(scenes, finetune={"enabled": True})
        assert search("--budget", BUDGET, folder="measured") == 0
    return scenes


def table(folder: str | Path) -> object:
    return json.loads((Path(folder) / "distances.json").read_text())["distances"]


# --- from a seed to a target --------------------------------------------------------------------


def test_a_search_ends_with_a_network_of_its_spec_within_the_budget_and_trains_no_super_network(near: Path) -> None:
    done = near / "measured"
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


def test_within_a_budget_that_the_seed_keeps_it_is_the_seed_and_nothing_else_is_measured(
    near: Path, capsys: Capture
) -> None:
    distance(near)
    assert search("--budget", "madds=1M") == 0
    assert "the budget allows the seed's own architecture" in capsys.readouterr().out
    found = report("run")
    assert found["architecture"]["costs"] == found["seed"]["costs"]
    assert found["measured"] < report(near / "measured")["measured"]


def test_nothing_grows(near: Path) -> None:
    found = report(near / "measured")
    assert all("kernel 5" not in row for row in found["architecture"]["blocks"].values())
    assert "stage0.block2" not in found["architecture"]["blocks"]
    assert found["space"]["costs"]["madds"]["largest"] == found["seed"]["costs"]["madds"]


def test_labels_are_not_read(near: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pictures_alone(*of: Any, **how: Any) -> Iterator[dict[str, torch.Tensor]]:
        for batch in dealt(*of, **how):
            yield {"images": batch["images"]}

    monkeypatch.setattr(purposes, "dealt", pictures_alone)
    distance(near)
    assert search("--budget", BUDGET) == 0
    assert table("run") == table(near / "measured")


def test_the_same_seed_finds_the_same_bits_and_another_one_looks_at_other_images(near: Path) -> None:
    distance(near, finetune={"enabled": True})
    assert search("--budget", BUDGET) == 0
    assert Path("run/distances.json").read_text() == (near / "measured/distances.json").read_text()
    assert Path("run/target.onnx").read_bytes() == (near / "measured/target.onnx").read_bytes()
    distance(near, run={"seed": 1})
    assert search("--budget", BUDGET, folder="other") == 0
    assert table("other") != table("run")


def test_a_detector_is_searched_by_the_maps_that_its_head_reads(near: Path) -> None:
    distance(
        near,
        "detection",
        head={"style": "ssdlite", "taps": ["stage3.block0.hidden", "last.n.r"]},
        distance={"places": "features"},
    )
    assert search("--budget", "params=1G") == 0
    found = report("run")
    assert run(["check", "run/target.onnx"]) == 0
    assert any("the head reads" in why for why in found["not_searched"].values())


def test_members_keep_the_selected_channels_while_they_are_compared(near: Path) -> None:
    distance(near, distance={"select": "first"})
    assert search("--budget", BUDGET, folder="first") == 0
    assert table("first") != table(near / "measured")


@pytest.mark.parametrize("select", [None, "l1"])
def test_the_network_that_is_written_keeps_the_channels_asked_for_or_the_first_ones(
    select: str | None, near: Path
) -> None:
    distance(near, search={} if select is None else {"select": select})
    assert search("--budget", BUDGET) == 0
    for name in ("l1", "first"):
        assert (
            run(["remap", str(near / "seed.onnx"), "--spec", "run/spec.json", "--select", name, "-o", f"{name}.onnx"])
            == 0
        )
    weights = {
        name: {
            tensor.name: tensor.values
            for tensor in files.read(path).graph.tensors().values()
            if hasattr(tensor, "values")
        }
        for name, path in (("l1", "l1.onnx"), ("first", "first.onnx"), ("found", "run/remapped.onnx"))
    }
    shared = [name for name in weights["found"] if name.startswith("s") and name in weights["l1"]]
    other = {"l1": "first", "first": "l1"}[select or "first"]
    assert shared
    assert all((weights["found"][name] == weights[select or "first"][name]).all() for name in shared)
    assert any((weights["found"][name] != weights[other][name]).any() for name in shared)


def test_places_are_the_exits_of_stages_for_a_task_unless_they_are_said(near: Path) -> None:
    distance(near, distance={"places": "stages"})
    assert search("--budget", BUDGET) == 0
    assert table("run") == table(near / "measured")
    distance(near, distance={"places": "features"})
    assert search("--budget", BUDGET, folder="features") == 0
    assert table("features") != table("run")


def test_widths_are_held_to_a_multiple_in_what_is_written(near: Path) -> None:
    distance(near, space={"choices": "auto"}, search={"multiple": 8})
    assert search("--budget", BUDGET) == 0
    widths = [
        int(part.split()[1])
        for row in report("run")["architecture"]["blocks"].values()
        for part in row.split(", ")
        if "hidden" in part
    ]
    assert widths
    assert all(width % 8 == 0 for width in widths)


def test_a_dry_run_measures_nothing(near: Path, capsys: Capture) -> None:
    distance(near)
    assert search("--budget", BUDGET, "--dry-run") == 0
    assert "architectures; with the head" in capsys.readouterr().out
    assert not Path("run/distances.json").exists()


# --- interrupted, and on several processes ------------------------------------------------------


def test_a_run_that_is_killed_goes_on_to_the_same_bits(near: Path) -> None:
    distance(near)
    process = subprocess.Popen(
        [*MODULE, "search", "-o", "run", "--budget", BUDGET], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 240
    while not Path("run/distances.json").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not Path("run/target.onnx").exists()
    assert search("--budget", BUDGET) == 0
    assert table("run") == table(near / "measured")
    assert Path("run/remapped.onnx").read_bytes() == (near / "measured/remapped.onnx").read_bytes()


def test_two_processes_measure_the_same_bits(near: Path) -> None:
    distance(near)
    done = subprocess.run(
        [*TWO, "search", "-o", "two", "--budget", BUDGET],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(table("two")) == sorted(table(near / "measured"))
    assert report("two")["architecture"] == report(near / "measured")["architecture"]


# --- derive -------------------------------------------------------------------------------------


def test_any_budget_and_a_front_come_from_the_table_without_data(
    near: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(by_distance, "meters_of", lambda *_: pytest.fail("something is measured"))
    (row,) = derived(near / "measured", "--budget", "madds=400k", "--images", "0")
    assert row["costs"]["madds"] == madds(Path("out", str(row["model"]))) <= 400_000
    assert row["predicted_distance"] > 0
    front = derived(near / "measured", "--pareto", "4", "--images", "0")
    assert [row["costs"]["madds"] for row in front] == sorted({row["costs"]["madds"] for row in front})
    predicted = [row["predicted_distance"] for row in front]
    assert predicted == sorted(predicted, reverse=True)
    assert "Σ Δ" in capsys.readouterr().out


def test_with_images_the_derived_member_is_measured_whole_and_is_the_searched_one_at_its_budget(near: Path) -> None:
    (row,) = derived(near / "measured", "--budget", BUDGET)
    found = report(near / "measured")["architecture"]
    assert row["distances"] == {"distance": found["distance"]}
    assert row["costs"] == found["costs"]


# --- widths outside blocks ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrowed(scenes: Path) -> Path:
    """The folder of seed and scenes, with a search in its folder narrow whose budget no choice inside blocks keeps."""
    with inside(scenes):
        distance(scenes, space={"choices": str(scenes / "trunks.json")})
        assert search("--budget", NARROW, folder="narrow") == 0
    return scenes


NARROW = "madds=0.65x"


def test_where_no_block_is_small_enough_the_widths_outside_blocks_shrink_together(narrowed: Path) -> None:
    found = report(narrowed / "narrow")
    own, trunks, chosen = found["seed"]["costs"]["madds"], found["trunks"], found["architecture"]["trunk"]
    assert found["architecture"]["costs"]["madds"] == madds(narrowed / "narrow/target.onnx") <= 0.65 * own
    assert realises(files.read(narrowed / "narrow/target.onnx"), narrowed / "narrow/spec.json") == []
    assert trunks[0]["smallest"] > 0.65 * own
    assert trunks[0]["within"] is None
    assert [row["share"] for row in trunks] == sorted((row["share"] for row in trunks), reverse=True)
    assert trunks[0]["distance"] == pytest.approx(0, abs=1e-9)
    assert (
        0
        < trunks[chosen["number"]]["distance"]
        <= trunks[chosen["number"]]["within"]
        == found["architecture"]["distance"]
    )
    assert chosen["widths"]["node:last.width"] == {1: 18, 2: 12}[chosen["number"]]
    assert chosen["widths"].items() <= json.loads((narrowed / "narrow/spec.json").read_text())["knobs"].items()
    assert found["space"]["costs"]["madds"]["smallest"] == trunks[-1]["smallest"]
    assert (
        f"Widths outside blocks are ×{chosen['share']:.3g} of the seed's" in (narrowed / "narrow/report.md").read_text()
    )


def test_other_budgets_take_other_widths_from_the_same_table(narrowed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (same,) = derived(narrowed / "narrow", "--budget", NARROW)
    assert same["distances"] == {"distance": report(narrowed / "narrow")["architecture"]["distance"]}
    monkeypatch.setattr(by_distance, "meters_of", lambda *_: pytest.fail("something is measured"))
    widths = []
    for budget in ("madds=0.9x", "madds=0.6x"):
        (row,) = derived(narrowed / "narrow", "--budget", budget, "--images", "0")
        widths.append(
            json.loads(Path("out", str(row["model"])).with_suffix(".json").read_text())["knobs"].get(
                "node:last.width", 24
            )
        )
    assert widths[0] == 24
    assert widths[1] < 24
    front = derived(narrowed / "narrow", "--pareto", "5", "--images", "0")
    costs, predicted = [row["costs"]["madds"] for row in front], [row["predicted_distance"] for row in front]
    assert costs == sorted(set(costs))
    assert predicted == sorted(predicted, reverse=True)
    assert costs[0] < report(narrowed / "narrow")["trunks"][0]["smallest"] < costs[-1]


def test_a_search_with_several_trunks_that_is_interrupted_goes_on_to_the_same_bits(narrowed: Path) -> None:
    done = narrowed / "narrow"
    distance(narrowed, space={"choices": str(narrowed / "trunks.json")})
    shutil.copytree(done, "run")
    document = json.loads(Path("run/distances.json").read_text())
    of_trunk = [row for row in document["distances"] if row[0][0]]
    assert of_trunk
    kept = document["distances"][: document["distances"].index(of_trunk[1])]
    Path("run/distances.json").write_text(json.dumps({**document, "distances": kept}))
    for name in ("remapped.onnx", "target.onnx", "spec.json", "report.json", "report.md"):
        Path("run", name).unlink()
    assert search("--budget", NARROW) == 0
    assert table("run") == table(done)
    assert Path("run/remapped.onnx").read_bytes() == (done / "remapped.onnx").read_bytes()


def test_the_smallest_member_over_all_widths_is_said_and_a_super_network_has_those_of_the_seed(
    narrowed: Path, capsys: Capture
) -> None:
    least = report(narrowed / "narrow")["trunks"][-1]["smallest"]
    distance(narrowed, space={"choices": str(narrowed / "trunks.json")})
    assert search("--budget", f"madds={least - 1}") == 2
    refused(capsys, f"the smallest member of this space has {least:,} madds")
    gradient(narrowed, space={"choices": str(narrowed / "trunks.json")})
    assert search("--dry-run", folder="gradient") == 0
    assert "widths outside blocks" not in capsys.readouterr().out


def test_a_network_without_blocks_comes_to_a_budget_by_its_widths(narrowed: Path, capsys: Capture) -> None:
    net = Net(size=32)
    y = net.op("MaxPool", "p", net.conv_bn_relu("x", "a", 16, 3), kernel_shape=[2, 2], strides=[2, 2])
    net.classifier(net.conv_bn_relu(y, "b", 24, 3))
    save(net.model(batch="N"), Path("plain.onnx"))
    sections = {
        "finetune": "enabled = false",
        "distance": "images = 8\nbatch = 4",
        "run": "threads = 1",
        "head": "mean = [128]\nscale = [64]",
    }
    Path("own.toml").write_text("\n".join(['task = "none"', *(f"[{name}]\n{rows}" for name, rows in sections.items())]))
    how = [
        "search",
        "plain.onnx",
        "--images",
        str(narrowed / "classification" / "train"),
        "--config",
        "own.toml",
        "-o",
        "run",
    ]
    assert run([*how, "--budget", "madds=0.5x"]) == 0
    found = report("run")
    assert madds(Path("run/target.onnx")) <= found["seed"]["costs"]["madds"] // 2
    assert found["architecture"]["blocks"] == {}
    assert set(found["architecture"]["trunk"]["widths"]) == {"node:a.width", "node:b.width"}
    net = Net(size=32)
    net.classifier(net.conv_bn_relu("x", "a", 4, 3))
    save(net.model(batch="N"), Path("plain.onnx"))
    assert run([*how, "--budget", "madds=0.5x", "--restart"]) == 2
    refused(capsys, "there is nothing to search: this network has no blocks with anything to choose")
    proto = net.model(batch="N")
    for dimension in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.dim_param = "side"
    save(proto, Path("plain.onnx"))
    assert run([*how, "--budget", "madds=0.5x", "--restart"]) == 2
    refused(capsys, "'plain.onnx' leaves a size of its input open", '"input.size": [320, 320]')


# --- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sections", "parts"),
    [
        ([], {}, ["without a budget nothing is nearer to the seed than the seed itself", 'search.method = "gradient"']),
        (["--budget", "madds=1k"], {}, ["the smallest member of this space has"]),
        (
            ["--budget", "madds=1M"],
            {"space": {"choices": "grown.json"}},
            ["nothing to search by distance, which never grows"],
        ),
        (["--budget", "madds=1M"], {"search": {"multiple": 7}}, ["has no widths that are multiples of 7"]),
        (["--budget", "madds=1M"], {"search": {"select": "last"}}, ["'search.select'"]),
        (["--budget", "madds=1M"], {"distance": {"images": 1}}, ["'distance.images'"]),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_measured(
    arguments: list[str], sections: Mapping[str, Mapping[str, object]], parts: list[str], near: Path, capsys: Capture
) -> None:
    Path("grown.json").write_text(json.dumps({"version": 1, "knobs": {"stage*.*.kernel": [3, 5]}}))
    distance(near, **sections)
    assert search(*arguments) == 2
    refused(capsys, *parts)
    assert not Path("run/distances.json").exists()


def test_derive_refuses_what_distances_do_not_say(near: Path, capsys: Capture) -> None:
    assert run(["derive", str(near / "measured"), "-o", "out", "--argmax"]) == 2
    refused(capsys, "is the seed's own, as distances go")
    shutil.copytree(near / "measured", "run")
    document = json.loads(Path("run/distances.json").read_text())
    Path("run/distances.json").write_text(json.dumps({**document, "distances": document["distances"][:3]}))
    assert run(["derive", "run", "-o", "out", "--budget", "madds=1M"]) == 2
    refused(capsys, "has not measured all single changes yet")


@pytest.mark.parametrize(
    ("document", "select", "by_stages"),
    [
        ({}, "first", True),
        ({"search": {"select": "bn"}, "distance": {"places": "features"}}, "bn", False),
        ({"task": "none"}, "l1", False),
        ({"task": "none", "search": {"select": "first"}, "distance": {"places": "stages"}}, "first", True),
    ],
)
def test_channels_and_places_are_those_of_the_task_unless_they_are_said(
    document: Mapping[str, Any], select: str, by_stages: bool
) -> None:
    found = parse_search(document)
    assert (found.select, found.by_stages) == (select, by_stages)


@pytest.mark.parametrize(
    ("distances", "cost"),
    [
        ((0.9, 0.2, 0.1, 0.0), 2.0),
        ((0.9, 0.8, 0.1, 0.0), 3.0),
        ((0.9, 0.6, 0.3, 0.0), None),
        ((0.9, 0.8, 0.7, 0.0), None),
        ((0.5,), None),
        ((9.0, 3.0, 0.2, 0.0), 3.0),
    ],
)
def test_the_knee_of_a_front_is_where_it_bends_most(distances: tuple[float, ...], cost: float | None) -> None:
    rows = [{"cost": float(k), "distance": value, "share": None} for k, value in enumerate(distances, 1)]
    found = by_distance.knee(rows)
    assert (None if found is None else found["cost"]) == cost


def test_the_last_exit_counts_less_than_the_others(near: Path) -> None:
    analysis = analyse_model(files.read(near / "seed.onnx"))
    found = choices(analysis, Space({"stage1.block0.hidden": ("x0.5", "x1"), "stage2.*.hidden": ("x0.5", "x1")}))
    assert exits(analysis, found) == {analysis.stages[1].blocks[-1].exit: 1.0, analysis.stages[2].blocks[-1].exit: END}
    alone = choices(analysis, Space({"stage2.*.hidden": ("x0.5", "x1")}))
    assert exits(analysis, alone) == {analysis.stages[2].blocks[-1].exit: 1.0}
