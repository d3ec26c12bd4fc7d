"""What the user sees of a search: a bar with phase, losses, cost, entropy and time left on a terminal, lines
elsewhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fnatool import terminal
from fnatool.search.loop import Figures, SearchWatch
from fnatool.search.solver import Budget
from fnatool.search.words import cost_text
from fnatool.training.watching import SILENCE


def silent() -> SearchWatch:
    """Nothing is shown: for all processes but the first."""
    return SearchWatch(lambda start, total: None, lambda phase, step, values: None)


@contextmanager
def shown(kind: str, budget: Budget | None) -> Iterator[SearchWatch]:
    """A bar on standard error with what a sentence says and the time left; seldom a line on standard output."""
    console = terminal.console()
    with terminal.learning("{task.description}  {task.fields[words]}") as bar:
        task = bar.add_task("warm up", words="", total=None)
        began = spoken = time.monotonic()
        first = total = 0
        last = ""
        seen: dict[str, Figures] = {}

        def started(start: int, steps: int) -> None:
            nonlocal first, total
            first, total = start, steps
            bar.reset(task, total=steps, completed=start, words="")
            if start:
                console.print(f"going on after step {start:,} of {steps:,}")

        def stepped(phase: str, step: int, rows: Mapping[str, Figures]) -> None:
            nonlocal spoken, last
            seen.update(rows)
            words = sentence(seen, kind, budget)
            bar.update(task, completed=step, description=phase, words=words)
            now = time.monotonic()
            if phase != last or step == total or (not sys.stderr.isatty() and now - spoken > SILENCE):
                left = (now - began) / max(step - first, 1) * (total - step)
                wait = f"; {left / 60:.0f} min left" if left >= 60 and step > first + 1 else ""
                console.print(f"{phase}, step {step:,} of {total:,}: {words}{wait}")
                spoken, last = now, phase

        yield SearchWatch(started, stepped)


def sentence(rows: Mapping[str, Figures], kind: str, budget: Budget | None) -> str:
    """'loss 2.031, of all candidates 2.114, madds 61.203M of 80.000M, entropy 0.97'"""
    text = f"loss {rows['weights']['loss']:.3f}"
    if "alpha" not in rows:
        return text
    values = rows["alpha"]
    limit = "" if budget is None else f" of {cost_text(kind, budget.limit)}"
    cost = cost_text(kind, values["cost"])
    return f"{text}, of all candidates {values['loss']:.3f}, {kind} {cost}{limit}, entropy {values['entropy']:.2f}"
