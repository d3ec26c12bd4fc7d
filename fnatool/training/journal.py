"""What a run writes down as it goes: metrics.jsonl and TensorBoard events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from fnatool.files.atomic import write_text
from fnatool.files.runfolder import EVENTS, METRICS
from passes.errors import UserError

RESULT = "result"  # the kind of the last row


class Journal:
    """Rows of numbers, each at the number of steps done.

    One that goes on at a step forgets later rows, and the result that it will come to, so that nothing stands twice.
    """

    def __init__(self, folder: Path, step: int) -> None:
        """Raises UserError where the rows that are there are damaged."""
        self.path = folder / METRICS
        kept = [row for row in rows(self.path) if row["step"] <= step and row["kind"] != RESULT] if step else []
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept), force=True)
        self.events = SummaryWriter(str(folder / EVENTS), purge_step=step + 1)

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """One row: {"step", "kind", name: value …}."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        for name, value in values.items():
            self.events.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Events are on the disk."""
        self.events.close()


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last one cut short by a kill is left out. Raises UserError where another one is none."""
    if not path.exists():
        return []
    lines = _lines(path)
    found = []
    for number, line in enumerate(lines, 1):
        row = _row(line)
        if row is None and number < len(lines):
            raise UserError(f"'{path}' is damaged in line {number}; --restart begins anew")
        if row is not None:
            found.append(row)
    return found


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"'{path}' is not a regular file; --restart begins anew")
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is damaged: it is not UTF-8 text; --restart begins anew") from error


def _row(line: str) -> dict[str, Any] | None:
    """The row that a line holds; None where it holds none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int) or not isinstance(row.get("kind"), str):
        return None
    return row if all(isinstance(value, int | float) for name, value in row.items() if name != "kind") else None
