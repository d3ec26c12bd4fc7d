"""A finished search with its page, made once in each process of tests, and a folder of its own for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from searches import distance, make_scenes, search


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search by distance that was refitted and fine-tuned, with the seed's own shape tuned alike."""
    root = make_scenes(tmp_path_factory.mktemp("report"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        distance(root, refit={"enabled": "yes", "samples": 12}, finetune={"enabled": True, "baseline": "seed"})
        threads = torch.get_num_threads()
        assert search("--budget", "madds=500k", folder="done") == 0
        torch.set_num_threads(threads)
    return root / "done"


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
