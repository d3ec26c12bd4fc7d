"""`fnatool inspect`: what a network is made of and what can change, as tables, as JSON, or as the network's own Spec."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from fnatool import terminal
from passes.errors import UserError
from passes.nearest import closest
from passes.network.analysis import Analysis, blocks_named, group_of
from passes.network.images import Image
from passes.network.knobs import IMAGE, Knob, size_text
from passes.target.resolve import own_spec
from passes.target.spec import MAX_SIDE

Json = dict[str, object]


def as_json(analysis: Analysis) -> Json:
    """params, macs (None where a free image size leaves them open), stages, blocks, knobs, atoms, frozen, and notes on the reading."""
    return {
        "params": analysis.cost.params,
        "macs": analysis.cost.macs,
        "stages": stage_rows(analysis),
        "blocks": block_rows(analysis),
        "knobs": [image_row(analysis.image), *(asdict(knob) for knob in analysis.knobs.values())],
        "atoms": [
            {
                "name": name,
                "channels": atom.value,
                "identities": int(atom.classes.size),
                "first": atom.first.node,
                "weights": len(atom.sites),
            }
            for name, atom in analysis.atoms.items()
        ],
        "frozen": [
            *({"name": IMAGE, "why": analysis.image.why} for _ in range(analysis.image.why is not None)),
            *({"name": knob.name, "why": knob.why} for knob in analysis.knobs.values() if knob.growth == "frozen"),
        ],
        "notes": list(analysis.notes),
    }


def image_row(image: Image) -> Json:
    """The image's size as a knob: its value is [height, width], null where it is free or there is no image."""
    frozen, value = image.why is not None, None if image.free or image.size is None else list(image.size)
    low, high = (value, value) if frozen else ([1, 1], [MAX_SIDE, MAX_SIDE])
    row = {"name": IMAGE, "kind": "size", "value": value, "min": low, "max": high, "multiple": 1}
    return {**row, "growth": "frozen" if frozen else "exact", "why": image.why, "values": []}


def block_rows(analysis: Analysis) -> list[Json]:
    """One row per block: name, kind, entry and exit tensor, nodes, parameters, multiply-adds."""
    rows: list[Json] = []
    for name, block in blocks_named(analysis):
        params, macs = cost_of(analysis, block.nodes)
        rows.append(
            {
                "name": name,
                "kind": block.kind,
                "entry": block.entry,
                "exit": block.exit,
                "nodes": list(block.nodes),
                "params": params,
                "macs": macs,
            }
        )
    return rows


def stage_rows(analysis: Analysis) -> list[Json]:
    """One row per stage: depth, channels and space of its exit, parameters, multiply-adds."""
    rows: list[Json] = []
    for i, stage in enumerate(analysis.stages):
        params, macs = cost_of(analysis, [node for block in stage.blocks for node in block.nodes])
        label = analysis.identities.labels.get(stage.blocks[-1].exit)
        width = None if label is None else int(label.ids.size)
        shape = analysis.shapes.shapes.get(stage.blocks[-1].exit)
        space = None if analysis.shapes.free_space or shape is None else list(shape[2:])
        rows.append({"name": f"stage{i}", "depth": len(stage.blocks), "width": width, "space": space, "params": params, "macs": macs})
    return rows


def cost_of(analysis: Analysis, nodes: Iterable[str]) -> tuple[int, int | None]:
    """Parameters and multiply-adds of some nodes; a shared weight belongs to the first node that reads it."""
    params = macs = 0
    readers = analysis.view.readers
    for node in nodes:
        macs += analysis.cost.node_macs.get(node, 0)
        for name in analysis.view.by_name[node].inputs:
            if name in analysis.cost.tensor_params and readers[name][0][0] == node:
                params += analysis.cost.tensor_params[name]
    return params, None if analysis.cost.macs is None else macs


def group_rows(analysis: Analysis, knob: str) -> list[Json]:
    """Every (initializer, axis, indices, role) that moves with a width or kernel knob. Raises UserError for other knobs."""
    found = analysis.knobs.get(knob)
    if knob == IMAGE:
        raise UserError(f"'{knob}' changes no weight; --group shows the weights of width and kernel knobs")
    if found is None:
        raise UserError(f"'{knob}' is not a knob of this model{closest(knob, [IMAGE, *analysis.knobs])}")
    if knob in analysis.kernels:
        kernel = analysis.kernels[knob]
        return [
            {"initializer": kernel.weight, "axis": axis, "indices": list(range(extent)), "role": "kernel"}
            for axis, extent in enumerate(kernel.extents, 2)
            if extent > 1
        ]
    if knob in analysis.groups:
        raise UserError(f"'{knob}' cuts '{analysis.groups[knob].weight}' into blocks; --group shows the weights of width and kernel knobs")
    if knob not in analysis.atoms:
        what = WHOLE.get(found.kind, "moves no weight axis alone")
        raise UserError(f"'{knob}' {what}; --group shows the weights of width and kernel knobs")
    return group_of(analysis, knob)


WHOLE = {"stride": "changes no weight", "depth": "repeats whole blocks", "from": "chooses a whole block"}


def spec_text(analysis: Analysis, sha256: str) -> str:
    """The network's own Spec as a JSON file."""
    text = json.dumps(own_spec(analysis, f"sha256:{sha256}").to_json(), indent=2)
    return re.sub(r"\[\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2]", text)  # a size on one line


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


def show(analysis: Analysis, title: str, notes: Sequence[str] = ()) -> None:
    """The tables, on the terminal."""

    console = terminal.console(wrap=False)
    console.print(terminal.styled((title, "bold"), f"  {_count(analysis.cost.params)} parameters, {_macs(analysis.cost.macs)}"))
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
                str(row["name"]), str(row["depth"]), str(row["width"] or ""), space, _count(row["params"]), _macs(row["macs"], unit="")
            )
        nodes = {node for stage in analysis.stages for block in stage.blocks for node in block.nodes}
        params, macs = cost_of(analysis, [node.name for node in analysis.view.nodes if node.name not in nodes])
        table.add_row("stem and head", "", "", "", _count(params), _macs(macs, unit=""))
        console.print(table)
    else:
        console.print("no stages: no addition closes a block that could be repeated; every width and kernel has a knob of its own")
    table = terminal.table(
        terminal.whole("knob"),
        *(terminal.right(name) for name in ("value", "min", "max", "multiple")),
        "growth",
        "why",
    )
    table.add_row(*_image_cells(analysis.image))
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
    return (names, value, str(min(knob.min for knob in knobs)), high, "", knobs[0].growth, f"{knobs[0].why or ''}{each}")


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


def _verdict(analysis: Analysis) -> str:
    knobs = list(analysis.knobs.values())
    sized = [str(image_row(analysis.image)["growth"]), *(knob.growth for knob in knobs if knob.kind not in ("from", "groups"))]
    kinds = f"{sized.count('exact')} grow exactly, {sized.count('approximate')} approximately, {sized.count('frozen')} are frozen"
    blocks, groups = (sum(knob.kind == kind for knob in knobs) for kind in ("from", "groups"))
    return f"{len(knobs) + 1} knobs: {kinds}; {blocks} choose a block, {groups} set groups"


def _count(value: object) -> str:
    return terminal.count(int(value))  # type: ignore[call-overload]


def _macs(value: object, unit: str = " MAdds") -> str:
    if value is not None:
        return f"{_count(value)}{unit}"
    return "MAdds unknown: the image size is free, give one with --input" if unit else "?"
