"""What holds for all tests."""

from __future__ import annotations

import ctypes
import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

LONGEST = (
    "test_finetuning.py",
    "test_super_network.py",
    "test_baselines.py",
    "test_engines.py",
    "test_tutorial.py",
    "test_waits.py",
    "test_derive.py",
    "test_by_distance.py",
    "test_interrupted_search.py",
    "test_head_counts.py",
    "test_deploy.py",
    "test_report.py",
    "test_damaged_search.py",
    "test_representative.py",
    "test_real_networks.py",
    "test_inheriting.py",
    "test_browser.py",
    "test_gradient_search.py",
    "test_nn_training.py",
    "test_export.py",
    "test_search_study.py",
    "test_gpu_benchmark.py",
    "test_heads.py",
    "test_profile_torch.py",
    "test_head_remap.py",
)
"""Files that take more than twenty seconds of a core, the longest first."""

TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it

WHOLE_COMMANDS = ("cli", "deploy", "export", "latency", "model", "nn", "search", "supernet", "training")
"""Folders of tests/fnatool whose tests run whole commands, or train."""


def pytest_configure() -> None:
    """Ctrl-C ends the commands that tests start, also where the tests themselves run in the background, with it
    ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long is marked; the files that take longest begin first, so that no process waits for the other in the
    end.
    """
    for item in items:
        if is_slow(item.path):
            item.add_marker("slow")
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """After a file of tests what they took is given back: a process is forked in less time the less it holds."""
    yield
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        if TRIM is not None:
            TRIM(0)


def is_slow(path: Path) -> bool:
    """Whether `make test-quick` leaves a file of tests out."""
    folders = path.relative_to(Path(__file__).parent).parts
    return path.name in LONGEST or (folders[0] == "fnatool" and folders[1] in WHOLE_COMMANDS)
