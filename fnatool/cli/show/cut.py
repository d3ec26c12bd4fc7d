"""A cut model on the terminal."""

from __future__ import annotations

from fnatool import terminal
from fnatool.files.interface import shape_text
from fnatool.model.cut import CutModel


def show_cut(made: CutModel, where: str) -> None:
    """Where it begins and ends, what was brought to inference, what went, and what was verified."""
    if made.changed:
        more = f" and {len(made.changed) - 1} more" if len(made.changed) > 1 else ""
        terminal.say(f"  brought to inference: {made.changed[0]}{more}")
    for word, tensors in (("takes", made.model.graph.inputs), ("gives", made.model.graph.outputs)):
        for tensor in tensors:
            terminal.say(f"  {word} {tensor.name} {shape_text(tensor.shape)}")
    terminal.say(f"{made.left} of {made.whole} nodes")
    for note in made.notes:
        terminal.say(f"note: {note}")
    verdict = "what it gives is the whole's, bit for bit, in ONNX Runtime; the result runs and passes 'fnatool check'"
    terminal.say(verdict if made.verified else "not verified")
    terminal.say(f"→ {where}")
