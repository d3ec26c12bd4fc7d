"""A model that says what it is for, on the terminal."""

from __future__ import annotations

from fnatool import terminal
from fnatool.files.interface import shape_text
from fnatool.model import pixels
from fnatool.model.task import DescribedModel
from fnatool.tasks.table import TASKS

MOST = 3  # names that are told


def show_described(made: DescribedModel, where: str) -> None:
    """Its task, its labels, which output is what, and how its pixels are scaled."""
    about = made.description
    names = ", ".join(about.labels[:MOST]) + (" …" if len(about.labels) > MOST else "")
    terminal.say(f"{about.task}: {len(about.labels):,} {TASKS[about.task].labels} ({names})")
    for answer in made.answers:
        known = "" if answer.name == answer.tensor else f", its {answer.name}"
        terminal.say(f"  gives {answer.tensor} {shape_text(answer.shape)}{known}")
    terminal.say(f"  {made.pixels.sentence()}")
    if made.pixels.guessed:
        terminal.say(f"warning: {pixels.WARNING}")
    terminal.say("graph and weights are untouched, byte for byte")
    terminal.say(f"→ {where}")
