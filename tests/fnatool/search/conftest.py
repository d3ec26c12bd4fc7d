"""What searches begin from, made once in each process of tests, and a folder of its own for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from searches import gradient, make_scenes, search


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a seed, scenes for three tasks, and three spaces."""
    return make_scenes(tmp_path_factory.mktemp("scenes"))


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
