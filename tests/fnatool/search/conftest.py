"""What searches begin from, made once in each process of tests, and a folder of its own for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from searches import gradient, make_scenes, search
from working import inside


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a seed, scenes for three tasks, and three spaces."""
    return make_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def world(scenes: Path) -> Path:
    """The same with a finished search by gradient in its folder done."""
    with inside(scenes):
        gradient(scenes)
        assert search("--budget", "madds=1.1M", folder="done") == 0
    return scenes


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path) -> Iterator[None]:
    with inside(tmp_path):
        yield
