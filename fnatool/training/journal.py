"""What a run writes down as it goes: metrics.jsonl and TensorBoard events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from fnatool.atomic import write_text


class Journal:
    """Rows of numbers, each at the number of steps done. One that goes on at a step forgets later rows, so that nothing stands twice."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "metrics.jsonl"
        kept = [row for row in rows(self.path) if row["step"] <= step]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept), force=True)
        self.events = SummaryWriter(str(folder / "events"), purge_step=step + 1)

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """One row: {"step", "kind", name: value …}."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        for name, value in values.items():
            self.events.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Events are on the disk."""
        self.events.close()


def rows(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.jsonl; a last one cut short by a kill, and what follows, is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            break
        found.append(row)
    return found
