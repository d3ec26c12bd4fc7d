"""A finished search with its page, made once in each process of tests, and a folder of its own for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from searches import distance, make_scenes, search
from working import inside


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search by distance that was refitted and fine-tuned, with the seed's own shape tuned alike."""
    root = make_scenes(tmp_path_factory.mktemp("report"))
    with inside(root):
        distance(root, refit={"enabled": "yes", "samples": 12}, finetune={"enabled": True, "baseline": "seed"})
        assert search("--budget", "madds=500k", folder="done") == 0
    return root / "done"


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path) -> Iterator[None]:
    with inside(tmp_path):
        yield
