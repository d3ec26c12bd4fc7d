"""A folder to work in: what is cached is cached there, and torch has the threads after it that it had before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Within it this process works in the folder."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield
    torch.set_num_threads(threads)
