"""A remap on the terminal: what changed, what it cost, and what verification found."""

from __future__ import annotations

from collections.abc import Sequence

from fnatool import terminal
from fnatool.model.refit_result import Refit
from fnatool.model.remap_report import averages, changes
from fnatool.model.remapped import Remapped
from fnatool.model.verified import Verified
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
    if made.refit is not None:
        _show_refit(made.refit)
    terminal.say(f"→ {where}")


def _show_refit(found: Refit) -> None:
    """The layers that were solved anew, and how far everything is from the seed on the samples kept back."""
    console = terminal.console()
    solved = [row for row in found.layers if row.strength is not None]
    solved_anew = f"then {len(solved)} of {len(found.layers)} layers solved anew with {found.used:,} samples"
    console.print(f"{solved_anew}: no value behind the first of them is claimed exact")
    table = terminal.table(terminal.whole("layer"), "block", *map(terminal.right, ("strength", "before", "after")))
    for row in found.layers:
        strength = "stays" if row.strength is None else f"{row.strength:.1e}"
        table.add_row(row.node, row.block, strength, f"{row.distance.before:.3f}", f"{row.distance.after:.3f}")
    for output in found.outputs:
        table.add_row(output.tensor, "output", "", f"{output.before:.3f}", f"{output.after:.3f}")
    terminal.console(wrap=False).print(table)
    console.print(
        f"before, after: squared distance from the seed on {found.kept:,} samples kept back, of the seed's own "
        "spread there"
    )
    for node, why in found.skipped.items():
        console.print(f"'{node}' stays as it is: {why}")


def _value(value: int | str | Size) -> str:
    return size_text(value) if isinstance(value, tuple) else str(value)


SHOWN = 12  # knobs listed on the terminal; all are in the report


def _verdict(made: Remapped) -> str:
    verified, drifts = made.verified, (*made.plan.drifts, *averages(made))
    if verified is None:
        return "not verified"
    compared = made.plan.compared
    found = [_alone(made, verified.batch)] if verified.batch is not None else []
    found = [_coloured(made, verified.colours), *found] if verified.colours is not None else found
    if found:
        return "; ".join(found if compared is not None and compared.identity else [_compared(verified, drifts), *found])
    if verified.blind:
        more = f" and {len(verified.blind) - 1} more" if len(verified.blind) > 1 else ""
        return (
            f"{_compared(verified, drifts)}; nothing is known of '{verified.blind[0]}'{more}, which is not "
            "finite in the seed on noise"
        )
    return _compared(verified, drifts)


def _alone(made: Remapped, verified: Verified) -> str:
    at_once = (
        "1, 2 and 3 samples at once" if made.plan.resolved.batch is None else f"{made.plan.resolved.batch} at once"
    )
    alone = f"{at_once}, each computed as it was alone: {verified.compared} tensors compared in ONNX Runtime"
    return f"{alone}, worst drift {verified.worst:.1e} of the spread"


def _coloured(made: Remapped, verified: Verified) -> str:
    old, new = made.analysis.colours.value or 0, made.plan.resolved.channels or 0
    meant = (
        "repeated"
        if new == 1
        else "by their luminance"
        if old == 1 and new == 3
        else f"of which {min(old, new)} are the seed's"
    )
    drift = "worst drift" if verified.exact else "the function changes: drift up to"
    compared = f"{verified.compared} tensors compared in ONNX Runtime, {drift} {verified.worst:.1e} of the spread"
    return f"{new} channel{'s' if new > 1 else ''} {meant}: {compared}"


def _compared(verified: Verified, drifts: Sequence[str]) -> str:
    compared = f"{verified.compared} inner tensors compared with the seed in ONNX Runtime"
    if not drifts:
        what = "exact" if verified.whole is None and not verified.blind else "exact on what stays"
        exact = f"{what}: {compared}, worst drift {verified.worst:.1e} of the spread"
        return (
            exact
            if verified.whole is None
            else f"{exact}; without what is dropped the outputs move by up to {verified.whole:.1e} of theirs"
        )
    more = f" and {len(drifts) - 1} more" if len(drifts) > 1 else ""
    return f"the function changes ({drifts[0]}{more}): {compared}, drift up to {verified.worst:.1e} of the spread"
