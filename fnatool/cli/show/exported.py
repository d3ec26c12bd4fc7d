"""An export on the terminal."""

from __future__ import annotations

from fnatool import terminal
from fnatool.export.torch import Exported


def show_exported(made: Exported, where: str) -> None:
    """How the export was made, what it keeps, and how far it is from the module."""
    console = terminal.console()
    for note in made.notes:
        console.print(f"note: {note}")
    drifts = ", ".join(f"{drift:.1e} at batch {batch}" for batch, drift in made.drifts)
    console.print(f"parameters {made.params:,}, BatchNorms {made.norms} (exporter: {made.exporter})")
    inside = f"; inside, of what {made.compared} parts make, up to {made.inner:.1e}" if made.compared else ""
    console.print(f"computes what the module does in ONNX Runtime: drift of the outputs {drifts}, of their spread{inside}")
    console.print(f"→ {where}")
