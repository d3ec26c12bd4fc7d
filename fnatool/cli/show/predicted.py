"""Answers for pictures, on the terminal."""

from __future__ import annotations

from fnatool import terminal
from fnatool.deploy.predict import Predictions


def show_predictions(found: Predictions, where: str) -> None:
    """How many pictures were looked at, what was left out, and where it is drawn."""
    for path, why in found.left_out:
        terminal.say(f"left out: {path}: {why}")
    count = len(found.answers)
    terminal.say(f"{found.task}: {count:,} picture{'s' if count > 1 else ''} → {where}")
