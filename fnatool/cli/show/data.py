"""What a data set holds and what is wrong with it, on the terminal."""

from __future__ import annotations

from fnatool import terminal
from fnatool.data.formats import FORMATS
from fnatool.data.split import said
from fnatool.tasks.check_data import DataReport, SplitReport

FAULTS = 20  # that are told of all
LABELS = 40  # that are told, those that occur the most


def show_data(found: DataReport) -> None:
    """Format, splits, labels, faults, and what would be left out."""
    labels = (
        f"{len(found.joints)} joints"
        if found.joints
        else f"{len(found.classes)} class{'es' if len(found.classes) != 1 else ''}"
    )
    terminal.say(f"{found.root}: {found.task}, {FORMATS[found.format].said} (--data-format {found.format}), {labels}")
    for line in said([one.split for one in found.splits]):
        terminal.say(line)
    _show_labels(found)
    findings = [finding for one in found.splits for finding in one.findings]
    if findings:
        terminal.say("")
    for finding in findings[:FAULTS]:
        terminal.say(f"{finding.where}: {finding.message}")
    if len(findings) > FAULTS:
        terminal.say(
            f"and {len(findings) - FAULTS:,} more"
            + ("; --json has the first 1,000 of each split" if findings[FAULTS:] else "")
        )
    if found.sheet is not None:
        terminal.say(f"labels drawn on a few pictures → {found.sheet}")
    if not findings:
        terminal.say("no fault")
        return
    left = "; ".join(filter(None, map(_left_out, found.splits)))
    terminal.say(
        f"{len(findings):,} fault{'s' if len(findings) > 1 else ''}; --skip-bad leaves out {left or 'nothing'}"
    )


def _left_out(one: SplitReport) -> str:
    parts = [f"{one.samples_left_out:,} of {one.split.found:,} samples"] if one.samples_left_out else []
    parts += [f"{one.entries_left_out:,} of {one.split.entries:,} boxes"] if one.entries_left_out else []
    return f"{one.split.name}: {', '.join(parts)}" if parts else ""


def _show_labels(found: DataReport) -> None:
    names = list(found.splits[0].labels)
    totals = {name: sum(one.labels.get(name, 0) for one in found.splits) for name in names}
    some = sorted(names, key=lambda name: -totals[name])[:LABELS] if len(names) > LABELS else names
    head = "joint" if found.joints else "class"
    columns = [terminal.right(f"{one.split.name}: {one.counted}") for one in found.splits]
    table = terminal.table(terminal.whole(head), *columns)
    for name in some:
        table.add_row(name, *(f"{one.labels.get(name, 0):,}" for one in found.splits))
    terminal.console(wrap=False).print(table)
    if len(names) > len(some):
        terminal.say(f"and {len(names) - len(some):,} more; --json has all")
