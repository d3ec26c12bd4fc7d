"""What a run writes down as it goes: metrics.jsonl and TensorBoard events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from fnatool.files.atomic import write_text
from fnatool.files.metrics import metric_rows
from fnatool.files.runfolder import EVENTS, METRICS

RESULT = "result"  # the kind of the last row


class Journal:
    """Rows of numbers, each at the number of steps done.

    One that goes on at a step forgets later rows, and the result that it will come to, so that nothing stands twice.
    """

    def __init__(self, folder: Path, step: int) -> None:
        """Raises UserError where the rows that are there are damaged."""
        self.path = folder / METRICS
        kept = [row for row in metric_rows(self.path) if row["step"] <= step and row["kind"] != RESULT] if step else []
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
