"""What a search is measured against: the seed's own shape and all widths narrowed alike, and layers that are solved
anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from searches import distance, everything, gradient, madds, refused, report, search
from working import inside

from fnatool.files import model as files
from fnatool.model.analysed import realises
from fnatool.search.config import parse_search

Capture = pytest.CaptureFixture[str]
BUDGET = "madds=500k"


@pytest.fixture(scope="module")
def measured(scenes: Path) -> Path:
    """The folder of seed and scenes, with a search in its folder beside that tuned both baselines and solved layers
    anew.
    """
    with inside(scenes):
        distance(scenes, finetune={"enabled": True, "baseline": "both"}, refit={"enabled": "yes", "samples": 12})
        assert search("--budget", BUDGET, folder="beside") == 0
    return scenes


def test_both_baselines_are_tuned_like_what_was_found(measured: Path) -> None:
    found = report(measured / "beside")
    assert set(found["baselines"]) == {"seed", "uniform"}
    own, uniform = found["baselines"]["seed"], found["baselines"]["uniform"]
    assert own["costs"] == found["seed"]["costs"]
    assert own["spec"]["knobs"] == {}
    assert uniform["step"] == own["step"] == found["finetuned"]["step"] == 2
    assert {"top1"} <= set(uniform["in_runtime"])
    for name, row in found["baselines"].items():
        assert row["costs"]["madds"] == madds(measured / f"beside/baseline-{name}/target.onnx")


def test_the_uniform_one_has_the_largest_common_factor_that_keeps_the_budget(measured: Path) -> None:
    found = report(measured / "beside")["baselines"]["uniform"]
    assert found["costs"]["madds"] <= 500_000
    seed = {
        "stage0.block0.hidden": 24,
        "stage1.block0.hidden": 24,
        "stage2.block0.hidden": 32,
        "stage3.block0.hidden": 40,
    }
    shares = [found["spec"]["knobs"][name] / width for name, width in seed.items()]
    assert 0 < min(shares) <= max(shares) < 1
    assert max(shares) - min(shares) < 0.05  # but for rounding
    target = measured / "beside/baseline-uniform/target.onnx"
    Path("spec.json").write_text(json.dumps(found["spec"]))
    assert realises(files.read(target), Path("spec.json")) == []


def test_the_page_shows_them_beside_what_was_found(measured: Path) -> None:
    page = (measured / "beside/report.md").read_text()
    assert "Tuned alike:" in page
    for name in ("found", "the seed's own shape", "all widths narrowed alike"):
        assert f"\n| {name} | " in page


def test_layers_solved_anew_are_nearer_to_the_seed_and_in_the_file_that_is_tuned(measured: Path) -> None:
    found = report(measured / "beside")["architecture"]["refit"]
    assert found["used"] + found["kept_back"] == 12
    solved = [row for row in found["layers"] if row["strength"] is not None]
    assert solved
    assert all(row["after"] < row["before"] for row in found["outputs"])
    assert "solved anew with" in (measured / "beside/report.md").read_text()
    distance(measured)
    assert search("--budget", BUDGET) == 0
    plain, refitted = (
        {
            tensor.name: tensor.values
            for tensor in files.read(path).graph.tensors().values()
            if hasattr(tensor, "values")
        }
        for path in (Path("run/remapped.onnx"), measured / "beside/remapped.onnx")
    )
    assert plain.keys() == refitted.keys()
    changed = [
        name for name in plain if plain[name].shape == refitted[name].shape and (plain[name] != refitted[name]).any()
    ]
    assert len(changed) >= len(solved)


@pytest.mark.parametrize(
    ("document", "refits"),
    [
        ({}, True),
        ({"task": "none"}, True),
        ({"search": {"method": "gradient"}}, False),
        ({"refit": {"enabled": "no"}}, False),
    ],
)
def test_a_search_by_distance_refits_unless_it_is_told_not_to_and_nothing_is_tuned_beside_it(
    document: dict[str, object], refits: bool
) -> None:
    found = parse_search(document)
    assert (found.refits, found.finetune.baseline) == (refits, "none")


def test_a_search_by_gradient_has_them_too(measured: Path) -> None:
    gradient(
        measured,
        finetune={"baseline": "uniform"},
        refit={"enabled": "yes", "samples": 8},
        search={"steps": 2, "alpha_from": 0.5},
    )
    assert search("--budget", "madds=80%") == 0
    assert list(report("run")["baselines"]) == ["uniform"]
    assert report("run")["architecture"]["refit"]["used"] > 0


@pytest.mark.parametrize(
    ("sections", "part"),
    [
        ({"finetune": {"enabled": False, "baseline": "seed"}}, "'finetune.enabled' is false"),
        ({"finetune": {"enabled": True, "baseline": "all"}}, "'finetune.baseline'"),
        ({"refit": {"enabled": "yes", "samples": 1}}, "'refit.samples'"),
        ({"refit": {"enabled": "always"}}, "'refit.enabled'"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_measured(
    sections: dict[str, dict[str, object]], part: str, measured: Path, capsys: Capture
) -> None:
    distance(measured, **sections)
    assert search("--budget", BUDGET) == 2
    refused(capsys, part)
    assert not Path("run/distances.json").exists()


def test_a_baseline_that_cannot_be_loses_no_earlier_run(measured: Path, capsys: Capture) -> None:
    distance(measured)
    assert search("--budget", BUDGET) == 0
    before = everything(Path("run"))
    distance(measured, finetune={"enabled": False, "baseline": "seed"})
    assert search("--budget", BUDGET, "--restart") == 2
    refused(capsys, "'finetune.enabled' is false")
    assert everything(Path("run")) == before


def test_widths_alike_need_a_budget(measured: Path, capsys: Capture) -> None:
    gradient(measured, finetune={"baseline": "uniform"}, search={"steps": 2})
    assert search() == 2
    refused(capsys, "without a budget nothing says how narrow")
    assert not Path("run").exists()
