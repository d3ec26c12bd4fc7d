"""What holds for all tests."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

LONGEST = (
    "test_interrupted_search.py",
    "test_tutorial.py",
    "test_representative.py",
    "test_export.py",
    "test_by_distance.py",
    "test_search_study.py",
    "test_gradient_search.py",
    "test_gpu_benchmark.py",
    "test_heads.py",
    "test_profile_torch.py",
    "test_head_remap.py",
)
"""Files that take more than twenty seconds of a core, the longest first."""

WHOLE_COMMANDS = ("cli", "deploy", "export", "latency", "model", "nn", "search", "supernet", "training")
"""Folders of tests/fnatool whose tests run whole commands, or train."""


def pytest_configure() -> None:
    """Ctrl-C ends the commands that tests start, also where the tests themselves run in the background, with it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long is marked; the files that take longest begin first, so that no process waits for the other in the end."""
    for item in items:
        if is_slow(item.path):
            item.add_marker("slow")
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def is_slow(path: Path) -> bool:
    """Whether `make test-quick` leaves a file of tests out."""
    folders = path.relative_to(Path(__file__).parent).parts
    return path.name in LONGEST or (folders[0] == "fnatool" and folders[1] in WHOLE_COMMANDS)
