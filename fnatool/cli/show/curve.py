"""How a run went, as a small curve of characters."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fnatool import terminal
from fnatool.files.metrics import metric_rows
from fnatool.files.runfolder import METRICS

BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.-:=+*#"  # from low to high
LEAST = 3  # evaluations that make a curve
WIDTH = 60  # characters of a curve, at the most

Rows = Sequence[Mapping[str, Any]]


def show_curve(folder: Path, metric: str, *, falls: bool) -> None:
    """The curves of the run in a folder, if it was evaluated often enough; falls: the less of the figure, the
    better.
    """
    for line in curves(metric_rows(folder / METRICS), metric, falls=falls, levels=levels_of(sys.stdout.encoding)):
        terminal.say(line)


def levels_of(encoding: str | None) -> str:
    """The characters for a terminal of this encoding: blocks, or where it has none, plain ones."""
    try:
        BLOCKS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return BLOCKS


def curves(rows: Rows, metric: str, *, falls: bool, levels: str) -> list[str]:
    """The validation figure over the evaluations, the loss over the steps, and which step was the best; nothing for a
    few evaluations.
    """
    figures = [(row["step"], row[metric]) for row in rows if row["kind"] == "val" and metric in row]
    if len(figures) < LEAST:
        return []
    losses = [row["loss"] for row in rows if row["kind"] == "train" and "loss" in row]
    told = {metric: [figure for _, figure in figures], **({"loss": losses} if len(losses) >= LEAST else {})}
    width = max(map(len, told))
    lines = [
        f"{name:{width}}  {curve(values, levels)}  {values[0]:.4f} to {values[-1]:.4f}" for name, values in told.items()
    ]
    step, best = (min if falls else max)(figures, key=lambda row: row[1])
    return [*lines, f"the best evaluation: {metric} {best:.4f} after step {step:,}"]


def curve(values: Sequence[float], levels: str) -> str:
    """A character a value, or a mean of several where they are more than WIDTH: from the lowest level to the
    highest.
    """
    count = min(len(values), WIDTH)
    parts = [values[k * len(values) // count : (k + 1) * len(values) // count] for k in range(count)]
    means = [sum(part) / len(part) for part in parts]
    low, span = min(means), max(means) - min(means)
    return "".join(levels[round((mean - low) / span * (len(levels) - 1)) if span else 0] for mean in means)
