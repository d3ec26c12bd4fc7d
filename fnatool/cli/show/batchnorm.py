"""BatchNorms folded or put back, on the terminal."""

from __future__ import annotations

from fnatool import terminal
from fnatool.model.fold import BatchNormResult


def show_folding(made: BatchNormResult, words: tuple[str, str], where: str) -> None:
    """How many BatchNorms went or came (words: folded into, or put behind), what is left and why, and what verification
    found.
    """
    for note in made.notes:
        terminal.say(f"note: {note}")
    reasons: dict[str, list[str]] = {}
    for left in made.left:
        reasons.setdefault(left.why, []).append(left.node)
    for why, nodes in reasons.items():
        more = (
            f", {nodes[1]} and {len(nodes) - 2} more"
            if len(nodes) > 2
            else f" and {nodes[1]}"
            if len(nodes) > 1
            else ""
        )
        terminal.say(f"  left: {nodes[0] + more}: {why}")
    if not made.changed:
        terminal.say(f"nothing changes: the result is the model, byte for byte ({where})")
        return
    norm, conv = made.changed[0]
    terminal.say(
        f"{len(made.changed)} BatchNorms {words[0]}: {norm} {words[1]} {conv}" + (" …" if len(made.changed) > 1 else "")
    )
    verified = made.verified
    if verified is None:
        terminal.say("not verified")
    else:
        terminal.say(
            f"exact: {verified.compared} inner tensors compared in ONNX Runtime, worst drift "
            f"{verified.worst:.1e} of the spread"
        )
    terminal.say(f"→ {where}")
