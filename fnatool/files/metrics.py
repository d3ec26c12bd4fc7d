"""The rows of numbers that a run writes down as it goes, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from passes.errors import UserError


def metric_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last one cut short by a kill is left out. Raises UserError where another one is
    none.
    """
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
