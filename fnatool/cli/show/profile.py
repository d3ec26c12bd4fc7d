"""A profile on the terminal: by part and, where asked for, by node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fnatool import terminal
from passes.graph.tensors import Shape, printed
from passes.network.profile import CONVENTIONS, Profile, ProfilePart

if TYPE_CHECKING:
    from fnatool.terminal import Console


def show_profile(found: Profile, title: str, convention: str, *, nodes: bool) -> None:
    """The tables, on the terminal: the parts and, where asked for, every node."""
    console = terminal.console(wrap=False)
    whole = found.whole
    if found.sized:
        sizes = ", ".join(f"{name} {_shape(shape)}" for name, shape in found.inputs.items())
        cost = f"{terminal.count(whole.params)} parameters, {terminal.count(whole.macs)} MAdds for {sizes}"
        console.print(terminal.styled((title, "bold"), f"  {cost}"))
    else:
        free = "MAdds and activations unknown: the image size is free, give one with --input"
        console.print(terminal.styled((title, "bold"), f"  {terminal.count(whole.params)} parameters, {free}"))
    for note in found.notes:
        console.print(f"  {note}", style="dim")
    _show_parts(found, console)
    if nodes:
        console.print()
        _show_nodes(found, console)
    console.print()
    console.print(f"MAdds: {CONVENTIONS[convention]}", style="dim")
    console.print(
        "activations: all tensors the nodes compute; at once: those alive together, the input among them", style="dim"
    )


def _show_parts(found: Profile, console: Console) -> None:
    columns = ("parameters", "MAdds", "share", "activations", "at once")
    table = terminal.table("part", terminal.right("nodes"), *map(terminal.right, columns))
    for part in (*found.parts, found.whole):
        count = sum(row.part == part.name for row in found.rows) if part is not found.whole else len(found.rows)
        table.add_row(part.name or "all", str(count), terminal.count(part.params), *_measures(part, found))
    console.print(table)


def _measures(part: ProfilePart, found: Profile) -> tuple[str, ...]:
    if not found.sized:
        return ("?",) * 4
    share = f"{part.macs / found.whole.macs:.1%}" if found.whole.macs else ""
    return (terminal.count(part.macs), share, terminal.size(part.activations), terminal.size(part.peak))


def _show_nodes(found: Profile, console: Console) -> None:
    columns = ("output", "parameters", "MAdds", "activations")
    table = terminal.table(terminal.whole("node"), terminal.whole("op"), "part", *map(terminal.right, columns))
    for row in found.rows:
        if found.sized:
            sizes = (
                "?" if row.shape is None else _shape(row.shape),
                terminal.count(row.macs),
                terminal.size(row.activations),
            )
        else:
            sizes = ("?", "?", "?")
        table.add_row(row.name, row.op, row.part, sizes[0], terminal.count(row.params), *sizes[1:])
    console.print(table)


def _shape(shape: Shape) -> str:
    return printed(shape) or "scalar"
