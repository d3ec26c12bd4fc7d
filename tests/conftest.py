"""What holds for all tests."""

from __future__ import annotations

import signal

import pytest

LONGEST = ("test_searching", "test_tutorial", "test_representative", "test_export", "test_by_distance")


def pytest_configure() -> None:
    """Ctrl-C ends the commands that tests start, also where the tests themselves run in the background, with it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest begin first, so that no process waits for the other in the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
