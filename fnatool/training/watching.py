"""What the user sees of a run: a bar with loss, metric and time left on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fnatool import terminal
from fnatool.training.said import Figures, TrainingWatch

SILENCE = 30.0  # seconds between lines where there is no terminal


def silent() -> TrainingWatch:
    """Nothing is shown: for all processes but the first."""
    return TrainingWatch(lambda start, total: None, lambda step, values: None, lambda step, figures: None)


@contextmanager
def shown(metric: str) -> Iterator[TrainingWatch]:
    """A bar with loss, metric and time left on standard error, and a line on standard output for each evaluation."""
    console = terminal.console()
    with terminal.learning("loss {task.fields[loss]}  {task.fields[metric]}") as bar:
        task = bar.add_task("steps", loss="–", metric="", total=None)
        spoken = time.monotonic()
        steps = 0

        def started(start: int, total: int) -> None:
            nonlocal steps
            steps = total
            bar.reset(task, total=total, completed=start, loss="–", metric="")
            if start:
                console.print(f"going on after step {start:,} of {total:,}")

        def stepped(step: int, values: Figures) -> None:
            nonlocal spoken
            bar.update(task, completed=step, loss=f"{values['loss']:.3f}")
            if not sys.stderr.isatty() and time.monotonic() - spoken > SILENCE:
                console.print(f"step {step:,} of {steps:,}: loss {values['loss']:.3f}")
                spoken = time.monotonic()

        def evaluated(step: int, figures: Figures) -> None:
            nonlocal spoken
            bar.update(task, metric=f"{metric} {figures[metric]:.3f}")
            console.print(f"step {step:,} of {steps:,}: {sentence(figures)}")
            spoken = time.monotonic()

        yield TrainingWatch(started, stepped, evaluated)


def sentence(figures: Figures) -> str:
    """'mIoU 0.534, pixels 0.921'; figures of single classes are left out."""
    return ", ".join(f"{name} {value:.4f}" for name, value in figures.items() if "/" not in name)
