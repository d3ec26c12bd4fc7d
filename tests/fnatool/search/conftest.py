"""What searches begin from, made once in each process of tests, and a folder of its own for every test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from searches import SIZE, gradient, search
from seeds_of_heads import mobile
from tiny import save

from fnatool.tasks import scenes as writing

KNOBS = {"stage0.depth": [1, 2, 3], "stage2.depth": [1, 2], "stage*.*.kernel": [3, 5]}
SPACES = {
    "space": {**KNOBS, "stage1.*.hidden": ["x0.5", "x1"]},
    "widths": {**KNOBS, "stage*.*.hidden": ["x0.5", "x0.75", "x1"]},
    "trunks": {"stage*.*.hidden": ["x0.75", "x1"], "**.width": ["x1", "x0.75", "x0.5"]},
}


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a seed, scenes for three tasks, and three spaces."""
    root = tmp_path_factory.mktemp("scenes")
    save(mobile(SIZE).model(batch="N"), root / "seed.onnx")
    for name, knobs in SPACES.items():
        (root / f"{name}.json").write_text(json.dumps({"version": 1, "knobs": knobs}))
    for task in ("segmentation", "classification", "detection"):
        writing.write_scenes(root / task, writing.SceneOptions(task, SIZE, 24, 8, 0))
    return root


@pytest.fixture(scope="session")
def world(scenes: Path) -> Path:
    """The same with a finished search by gradient in its folder done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(scenes)
        patch.setenv("XDG_CACHE_HOME", str(scenes / "cache"))
        gradient(scenes)
        threads = torch.get_num_threads()
        assert search("--budget", "madds=1.1M", folder="done") == 0
        torch.set_num_threads(threads)
    return scenes


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
