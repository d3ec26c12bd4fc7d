"""A remap on the terminal: what changed, what it cost, and what verification found."""

from __future__ import annotations

from fnatool import terminal
from fnatool.model.remap_report import averages, changes
from fnatool.model.remapped import Remapped
from passes.network.knobs import Size, size_text


def show_remapped(made: Remapped, where: str) -> None:
    """What changed, what it cost, and what verification found."""
    for note in made.plan.notes:
        terminal.say(f"note: {note}")
    changed = changes(made)
    if made.plan.identity:
        terminal.say(f"nothing changes: the result is the seed, byte for byte ({where})")
        return
    for name, old, new in changed[:SHOWN]:
        terminal.say(f"  {name}: {_value(old)} → {_value(new)}")
    if len(changed) > SHOWN:
        terminal.say(f"  … and {len(changed) - SHOWN} more")
    before, after = made.analysis.cost, made.cost()
    terminal.say(f"parameters {before.params:,} → {after.params:,}")
    if before.macs is not None and after.macs is not None:
        terminal.say(f"MAdds {before.macs:,} → {after.macs:,}")
    terminal.say(_verdict(made))
    terminal.say(f"→ {where}")


def _value(value: int | Size | None) -> str:
    return "free" if value is None else str(value) if isinstance(value, int) else size_text(value)


SHOWN = 12  # knobs listed on the terminal; all are in the report


def _verdict(made: Remapped) -> str:
    verified, drifts = made.verified, (*made.plan.drifts, *averages(made))
    if verified is None:
        return "not verified"
    compared = f"{verified.compared} inner tensors compared with the seed in ONNX Runtime"
    if not drifts:
        what = "exact" if verified.whole is None else "exact on what stays"
        exact = f"{what}: {compared}, worst drift {verified.worst:.1e} of the spread"
        return (
            exact
            if verified.whole is None
            else f"{exact}; without what is dropped the outputs move by up to {verified.whole:.1e} of theirs"
        )
    more = f" and {len(drifts) - 1} more" if len(drifts) > 1 else ""
    return f"the function changes ({drifts[0]}{more}): {compared}, drift up to {verified.worst:.1e} of the spread"
