"""What a refused command looks like."""

from __future__ import annotations

import pytest

Capture = pytest.CaptureFixture[str]


def refused(capsys: Capture) -> str:
    """The one message, in which nothing looks like an accident."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert captured.err.startswith("fnatool: ")
    assert captured.err.count("\n") == 1
    return captured.err
