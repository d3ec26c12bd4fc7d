"""A head on the terminal: what was attached where, what it costs, and what was verified."""

from __future__ import annotations

from fnatool import terminal
from fnatool.model import pixels, upgrading
from fnatool.model.headed import Headed


def show_headed(headed: Headed, where: str) -> None:
    """What was attached where, what it costs, and what was verified."""
    made, before, after = headed.made, headed.before.cost, headed.after.cost
    for note in headed.seed.notes:
        if note.startswith(upgrading.CONVERTED):
            terminal.say(f"note: {note}")
    for tap in made.taps:
        stride = (
            f", stride {'×'.join(dict.fromkeys(f'{float(step):g}' for step in tap.stride))}"
            if tap.space != (1, 1)
            else ""
        )
        terminal.say(f"  taps {tap.name}: {tap.channels} channels{stride}")
    left, whole = made.kept
    terminal.say(f"  keeps {left:,} of the seed's {whole:,} parameters ({left / max(whole, 1):.1%})")
    if made.inherits:
        terminal.say("  goes on from the model's own head: all of its weights but those of classes")
    for tensor in made.graph.outputs:
        terminal.say(f"  gives {tensor.name} [{', '.join(str(extent) for extent in tensor.shape)}]")
    if made.detection is not None:
        levels = [
            f"{'×'.join(dict.fromkeys(map(str, level.stride)))} ({len(level.anchors)})"
            for level in made.detection.levels
        ]
        terminal.say(f"  levels at stride (anchors): {', '.join(levels)}")
    terminal.say(f"  {headed.pixels.sentence()}")
    if headed.pixels.guessed:
        terminal.say(f"warning: {pixels.WARNING}")
    terminal.say(f"parameters {before.params:,} → {after.params:,}")
    if before.macs is not None and after.macs is not None:
        terminal.say(f"MAdds {before.macs:,} → {after.macs:,}")
    verdict = "what it taps is the seed's, bit for bit, in ONNX Runtime; the result runs and passes 'fnatool check'"
    terminal.say(verdict if headed.verified else "not verified")
    terminal.say(f"→ {where}")
