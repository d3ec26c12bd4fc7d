"""What fine-tuning came to, and figures of an evaluation, on the terminal."""

from __future__ import annotations

import math
from pathlib import Path

from fnatool import terminal
from fnatool.imitation.evaluate import LikenessReport
from fnatool.training.evaluate import Evaluated
from fnatool.training.said import Tuned
from fnatool.training.watching import sentence

MOST = 40  # classes whose figures are told
SAME = 5e-3  # how far the figures of torch and of ONNX Runtime may be apart: rounding turns a few decisions


def show_tuned(tuned: Tuned, out: Path) -> None:
    """What the written file reaches."""
    terminal.say(f"after step {tuned.step:,}: {sentence(tuned.figures)}")
    terminal.say(f"the written file in ONNX Runtime: {sentence(tuned.in_runtime)}")
    if math.fabs(tuned.figures[tuned.metric] - tuned.in_runtime[tuned.metric]) > SAME:
        terminal.say(
            f"these are further apart than {SAME}: mixed precision, or a fault; please report it if you train "
            "without 'run.amp'"
        )
    terminal.say(f"→ {out}")


def show_evaluated(found: Evaluated) -> None:
    """The figures in a line; those of single classes below, where they are many the worst, and which have none."""
    terminal.say(sentence(found.figures))
    known = [(name, value) for name, value in found.each.items() if value is not None]
    few = known if len(known) <= MOST else sorted(known, key=lambda row: row[1])[:MOST]
    for name, value in few:
        terminal.say(f"  {name} {value:.4f}")
    if len(few) < len(known):
        terminal.say(f"  … and {len(known) - len(few)} that are no worse; --json has all")
    without = [name for name, value in found.each.items() if value is None]
    for name in without[:MOST]:
        terminal.say(f"  {name} – (no ground truth)")
    if len(without) > MOST:
        terminal.say(f"  … and {len(without) - MOST} more without ground truth")


def show_compared(found: LikenessReport) -> None:
    """How like the outputs are: a line, one for each output where there are several, what differs most, and what was
    left out.
    """
    console = terminal.console()
    for note in found.notes:
        console.print(note, markup=False)
    console.print(sentence(found.figures))
    if len(found.likeness.outputs) > 1:
        for name, one in found.likeness.outputs.items():
            agreed = "" if one.agreement is None else f", agreement {one.agreement:.4f}"
            console.print(f"  {name}: distance {one.distance:.4f}{agreed}", markup=False)
    console.print(f"  the farthest: {found.worst}, {found.likeness.samples[found.likeness.worst]:.4f}", markup=False)
    for name, why in found.left_out.items():
        console.print(f"  not compared: {name}: {why}", markup=False)
