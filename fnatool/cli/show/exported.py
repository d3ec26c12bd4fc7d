"""An export on the terminal."""

from __future__ import annotations

from fnatool import terminal
from fnatool.export.torch import Exported


def show_exported(made: Exported, where: str) -> None:
    """How the export was made, what it keeps, and how far it is from the module."""
    for note in made.notes:
        terminal.say(f"note: {note}")
    drifts = ", ".join(f"{drift:.1e} at batch {batch}" for batch, drift in made.drifts)
    terminal.say(f"parameters {made.params:,}, BatchNorms {made.norms} (exporter: {made.exporter})")
    inside = f"; inside, of what {made.compared} parts make, up to {made.inner:.1e}" if made.compared else ""
    terminal.say(
        f"computes what the module does in ONNX Runtime: drift of the outputs {drifts}, of their spread{inside}"
    )
    terminal.say(f"→ {where}")
