"""An analysis on the terminal: stages, and every knob with its range; and the weights that move with one."""

from __future__ import annotations

from collections.abc import Sequence

from fnatool import terminal
from fnatool.model.rows import Json, batch_row, channels_row, cost_of, image_row, stage_rows
from passes.network.analysis import Analysis
from passes.network.colours import Colours
from passes.network.images import Image
from passes.network.knobs import BATCH, CHANNELS, IMAGE, Knob, size_text
from passes.network.samples import Batching
from passes.target.spec import MAX_BATCH, MAX_SIDE


def show_group(rows: Sequence[Json], knob: str) -> None:
    """The weights that move with a knob, on the terminal."""
    table = terminal.table(terminal.whole("initializer"), terminal.right("axis"), "role", "positions")
    for row in rows:
        table.add_row(str(row["initializer"]), str(row["axis"]), str(row["role"]), ranges(row["indices"]))  # type: ignore[arg-type]
    console = terminal.console(wrap=False)
    console.print(terminal.styled((knob, "bold"), f" moves {len(rows)} weight axes together"))
    console.print(table)


def ranges(positions: Sequence[int]) -> str:
    """Positions in short: 0-31, 64-95."""
    parts: list[tuple[int, int]] = []
    for position in positions:
        if parts and position == parts[-1][1] + 1:
            parts[-1] = (parts[-1][0], position)
        else:
            parts.append((position, position))
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def show_analysis(analysis: Analysis, title: str, notes: Sequence[str] = ()) -> None:
    """The tables, on the terminal."""
    console = terminal.console(wrap=False)
    console.print(
        terminal.styled((title, "bold"), f"  {_count(analysis.cost.params)} parameters, {_macs(analysis.cost.macs)}")
    )
    for note in (*notes, *analysis.notes):
        console.print(f"  {note}", style="dim")
    if analysis.stages:
        table = terminal.table(
            "stage",
            *(terminal.right(name) for name in ("depth", "width", "space", "parameters", "MAdds")),
        )
        for row in stage_rows(analysis):
            space = "" if row["space"] is None else "×".join(map(str, row["space"]))  # type: ignore[call-overload]
            table.add_row(
                str(row["name"]),
                str(row["depth"]),
                str(row["width"] or ""),
                space,
                _count(row["params"]),
                _macs(row["macs"], unit=""),
            )
        nodes = {node for stage in analysis.stages for block in stage.blocks for node in block.nodes}
        params, macs = cost_of(analysis, [node.name for node in analysis.view.nodes if node.name not in nodes])
        table.add_row("stem and head", "", "", "", _count(params), _macs(macs, unit=""))
        console.print(table)
    else:
        console.print(
            "no stages: no addition closes a block that could be repeated; every width and kernel has a knob of its own"
        )
    table = terminal.table(
        terminal.whole("knob"),
        *(terminal.right(name) for name in ("value", "min", "max", "multiple")),
        "growth",
        "why",
    )
    table.add_row(*_image_cells(analysis.image))
    table.add_row(*_channels_cells(analysis.colours))
    table.add_row(*_batch_cells(analysis.batching))
    groups = [knob for knob in analysis.knobs.values() if _is_told_together(knob)]
    for knob in analysis.knobs.values():
        if knob not in groups:
            table.add_row(*_cells(knob))
    for why in dict.fromkeys(knob.why for knob in groups):
        table.add_row(*_together([knob for knob in groups if knob.why == why]))
    console.print()
    console.print(table)
    console.print()
    console.print(_verdict(analysis))


def _is_told_together(knob: Knob) -> bool:
    """Nearly every convolution could be cut into groups, for one reason and with one effect: that is said once."""
    return knob.kind == "groups" and knob.growth != "frozen"


def _together(knobs: Sequence[Knob]) -> Sequence[str]:
    """One row for several groups knobs."""
    values = sorted({knob.value for knob in knobs})
    value = str(values[0]) if len(values) == 1 else f"{values[0]}…{values[-1]}"
    names = knobs[0].name if len(knobs) == 1 else f"{len(knobs)} × .groups"
    most = sorted({knob.max for knob in knobs})
    high = str(most[0]) if len(most) == 1 else f"{most[0]}…{most[-1]}"
    each = "" if len(knobs) == 1 else "; --spec and --json list each"
    return (
        names,
        value,
        str(min(knob.min for knob in knobs)),
        high,
        "",
        knobs[0].growth,
        f"{knobs[0].why or ''}{each}",
    )


def _cells(knob: Knob) -> Sequence[str]:
    frozen = knob.growth == "frozen"
    numbers = (
        str(knob.value),
        "" if frozen else str(knob.min),
        "" if frozen else str(knob.max),
        str(knob.multiple) if knob.multiple > 1 else "",
    )
    return (knob.name, *numbers, knob.growth, knob.why or "")


def _image_cells(image: Image) -> Sequence[str]:
    row = image_row(image)
    value = "free" if image.free else "" if image.size is None else size_text(image.size)
    low, high = ("", "") if image.why is not None else ("1", str(MAX_SIDE))
    why = "any size runs already; one given becomes the only one" if image.free else image.why or ""
    return (IMAGE, value, low, high, "", str(row["growth"]), why)


def _channels_cells(colours: Colours) -> Sequence[str]:
    row = channels_row(colours)
    value = "" if row["value"] is None else str(row["value"])
    low, high = ("", "") if row["min"] == row["max"] else (str(row["min"]), str(row["max"]))
    return (CHANNELS, value, low, high, "", str(row["growth"]), str(row["why"] or ""))


def _batch_cells(batching: Batching) -> Sequence[str]:
    row = batch_row(batching)
    value = "" if row["value"] is None else str(row["value"])
    low, high = ("", "") if batching.why is not None else ("1", str(MAX_BATCH))
    return (BATCH, value, low, high, "", str(row["growth"]), batching.why or "")


def _verdict(analysis: Analysis) -> str:
    knobs = list(analysis.knobs.values())
    sized = [
        *(
            str(row["growth"])
            for row in (image_row(analysis.image), channels_row(analysis.colours), batch_row(analysis.batching))
        ),
        *(knob.growth for knob in knobs if knob.kind not in ("from", "groups")),
    ]
    kinds = (
        f"{sized.count('exact')} grow exactly, {sized.count('approximate')} approximately, "
        f"{sized.count('frozen')} are frozen"
    )
    blocks, groups = (sum(knob.kind == kind for knob in knobs) for kind in ("from", "groups"))
    return f"{len(knobs) + 3} knobs: {kinds}; {blocks} choose a block, {groups} set groups"


def _count(value: object) -> str:
    return terminal.count(int(value))  # type: ignore[call-overload]


def _macs(value: object, unit: str = " MAdds") -> str:
    if value is not None:
        return f"{_count(value)}{unit}"
    return "MAdds unknown: the image size is free, give one with --input" if unit else "?"
