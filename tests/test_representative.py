"""Real topologies, end to end: a representative part of the sweep (`make sweep` runs it whole)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import zoo
from benchmarks.sweep import LIGHT_LEFT, MARGIN
from benchmarks.trials import Trial, trial
from fnatool.files import model as files

BASELINE = json.loads((Path(__file__).parents[1] / "benchmarks" / "results" / "torch_pruning.json").read_text())[
    "models"
]
ANALYSE_S = 4.0  # of one thread, on a machine whose cores are shared; `make sweep` holds the narrow bar
STAGES = {
    "timm:resnet18": (2, 2, 2, 2),
    "timm:mobilenetv2_100": (1, 2, 3, 4, 3, 3, 1),
    "timm:mobilenetv3_large_100": (1, 2, 3, 4, 2, 3),
    "timm:regnety_004": (1, 3, 6, 6),
    "timm:densenet121": (),
    "timm:convnext_atto": (2, 2, 6, 2),
    "torchvision:squeezenet1_1": (),
    "torchvision:googlenet": (),
}


@pytest.mark.parametrize("export", zoo.REPRESENTATIVE, ids=lambda export: zoo.place(export).stem)
def test_a_network_halves_widens_and_grows_exactly_and_comes_back(export: zoo.Export) -> None:
    found: Trial = trial(files.read(zoo.cached(export)).graph)
    assert found.problems == ()
    assert found.stages == STAGES.get(export.name, found.stages)
    reference = BASELINE.get(export.name, {}).get("left")
    assert found.left <= (LIGHT_LEFT if reference is None and export.name.startswith("light:") else 1.0)
    assert found.left <= (1.0 if reference is None else reference + MARGIN)
    assert found.analyse_s <= ANALYSE_S
