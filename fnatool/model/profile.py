"""`fnatool profile`: multiply-adds, parameters and activation memory of a network, by part and by node, as tables or as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fnatool import terminal
from fnatool.files import model as files
from fnatool.model.analysed import stored_stages
from passes.graph.tensors import Shape, printed
from passes.network.profile import CONVENTIONS, Profile, ProfilePart, profile

if TYPE_CHECKING:
    from rich.console import Console


Json = dict[str, object]

MEANING = {
    "params": "weights, biases and scales, a shared one once; running statistics are none",
    "activations": "bytes of all tensors that the nodes compute, each once, in their own memory",
    "peak_activations": "bytes of the inputs and computed tensors that exist at once while the nodes run one by one, at the most",
}


def profile_model(model: files.Model, inputs: Mapping[str, Shape] | None = None, *, convention: str = "conv") -> Profile:
    """The profile of a model read from a file, with the stages its metadata stores."""
    return profile(model.graph, sizes=inputs, table=stored_stages(model.envelope), convention=convention)


def as_json(found: Profile, model: str, convention: str) -> Json:
    """The whole, its parts and its nodes; macs and activations are None where a free image size leaves them open."""
    return {
        "model": model,
        "convention": convention,
        "inputs": {name: list(shape) for name, shape in found.inputs.items()},
        **_numbers(found.whole, found),
        "meaning": {"macs": CONVENTIONS[convention], **MEANING},
        "stem": _numbers(found.stem, found),
        "stages": [{"name": part.name, **_numbers(part, found)} for part in found.stages],
        "head": _numbers(found.head, found),
        "nodes": [
            {
                "name": row.name,
                "op": row.op,
                "stage": row.part,
                "shape": None if row.shape is None or not found.sized else list(row.shape),
                "params": row.params,
                "macs": row.macs if found.sized else None,
                "activations": row.activations if found.sized else None,
            }
            for row in found.rows
        ],
        "notes": list(found.notes),
    }


def _numbers(part: ProfilePart, found: Profile) -> Json:
    return {
        "params": part.params,
        "macs": part.macs if found.sized else None,
        "activations": part.activations if found.sized else None,
        "peak_activations": part.peak if found.sized else None,
    }


def show(found: Profile, title: str, convention: str, *, nodes: bool) -> None:
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
    console.print("activations: all tensors the nodes compute; at once: those alive together, the input among them", style="dim")


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
            sizes = ("?" if row.shape is None else _shape(row.shape), terminal.count(row.macs), terminal.size(row.activations))
        else:
            sizes = ("?", "?", "?")
        table.add_row(row.name, row.op, row.part, sizes[0], terminal.count(row.params), *sizes[1:])
    console.print(table)


def _shape(shape: Shape) -> str:
    return printed(shape) or "scalar"
