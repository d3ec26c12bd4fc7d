"""A deployed folder, on the terminal."""

from __future__ import annotations

from pathlib import Path

from fnatool import terminal
from fnatool.deploy.document import Document, GraphValue


def show_deployed(document: Document, folder: Path) -> None:
    """What the graph takes and gives, what it costs, and how it was compared with the model."""
    for note in document.notes:
        terminal.say(f"note: {note}")
    terminal.say(f"takes {', '.join(map(_value, document.inputs))}")
    terminal.say(f"gives {', '.join(map(_value, document.outputs))}")
    before, after = (document.costs[when] for when in ("before", "after"))
    params = " → ".join(terminal.count(cost["params"]) for cost in (before, after))
    terminal.say(f"{document.precision}; {terminal.count(after['macs'])} multiply-adds, {params} parameters")
    if document.verified is not None and "pictures" in document.verified:
        apart, count = document.verified["apart"], document.verified["pictures"]
        terminal.say(f"answers as the model does: at most {apart:.2%} of an answer differs, on {count} pictures")
    elif document.verified is not None:
        terminal.say(
            f"computes what the model does: outputs differ by {document.verified['apart']:.1e} of their spread at most"
        )
    else:
        terminal.say("not compared with the model")
    for when, figures in (document.figures or {}).items():
        terminal.say(
            f"{when}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items() if "/" not in name)
        )
    if document.quantised is not None:
        terminal.say(f"8 bits: {document.quantised['scheme']}; values looked at on {document.quantised['of']}")
        if not document.quantised["instructions"]:
            terminal.say(
                "note: this processor has no instructions for int8, so that one that has them is faster and more exact"
            )
    if document.kept_in_fp32:
        terminal.say(f"stay in fp32, as they are hurt most: {', '.join(document.kept_in_fp32)}")
    if document.trtexec is not None:
        terminal.say(f"in that folder: {document.trtexec}")
    terminal.say(f"→ {folder}")


def _value(value: GraphValue) -> str:
    return f"{value.name} {value.type} {'×'.join(map(str, value.shape)) or 'scalar'}"
