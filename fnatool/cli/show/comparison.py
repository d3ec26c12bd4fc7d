"""In what two models differ, on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from fnatool import terminal
from fnatool.model.diff import Compared, Comparison, Difference, Named, NodeChange, TensorChange, printable_value

SHOWN = 6  # lines of a section; --all shows the others


def show_comparison(found: Comparison, *, everything: bool) -> None:
    """What differs, in short; of each kind the first lines, or all."""
    console = terminal.console()
    verdict = ("equal", "bold green") if found.equal else ("different", "bold yellow")
    console.print(terminal.styled(str(found.a.path), " → ", str(found.b.path), ": ", verdict))
    for side in (found.a, found.b):
        if side.refused is not None:
            console.print(f"'{side.path}' has no knobs to compare: {side.refused}", style="dim")
    for title, lines in _sections(found):
        console.print(title, style="bold")
        for line in lines if everything else lines[:SHOWN]:
            console.print(f"  {line}")
        if len(lines) > SHOWN and not everything:
            console.print(f"  … and {len(lines) - SHOWN} more (--all)", style="dim")
    console.print(f"equal: {found.nodes.equal} nodes, {found.tensors.equal} tensors")


def _sections(found: Comparison) -> Iterator[tuple[str, list[str]]]:
    """A title and its lines for everything that differs."""
    if found.model:
        yield "file", [_line(row) for row in found.model]
    if cost := list(_costs(found)):
        yield "cost", cost
    for title, rows, line in (
        ("inputs", found.inputs, _line),
        ("outputs", found.outputs, _line),
        ("stages", found.stages, _row_line),
        ("knobs", found.knobs, _line),
        ("blocks", found.blocks, _row_line),
    ):
        if rows:
            yield f"{title}: {_counts(rows)}", [line(row) for row in rows]
    if found.nodes.differs:
        changed = [
            f"~ {n.op} '{n.name}': {'; '.join(_line(row) for row in n.differences)}" for n in found.nodes.changed
        ]
        yield _title("nodes", found.nodes), changed + _only(found.nodes, lambda node: f"{node.what} '{node.name}'")
    if found.tensors.differs:
        changed = [f"~ {_tensor_line(tensor)}" for tensor in found.tensors.changed]
        yield (
            _title("tensors", found.tensors),
            changed + _only(found.tensors, lambda tensor: f"{tensor.name}: {tensor.what}"),
        )


def _costs(found: Comparison) -> Iterator[str]:
    a, b = found.a.facts, found.b.facts
    if a is None or b is None:
        return
    if a.params != b.params:
        yield f"parameters {a.params:,} → {b.params:,}"
    if a.macs is not None and b.macs is not None and a.macs != b.macs:
        yield f"MAdds {a.macs:,} → {b.macs:,}"


def _counts(rows: Sequence[Difference]) -> str:
    only_b, only_a = sum(row.a is None for row in rows), sum(row.b is None for row in rows)
    counts = ((len(rows) - only_a - only_b, "changed"), (only_b, "only in B"), (only_a, "only in A"))
    return ", ".join(f"{count} {what}" for count, what in counts if count)


def _title(what: str, compared: Compared[NodeChange] | Compared[TensorChange]) -> str:
    counts = ((compared.changed, "changed"), (compared.added, "only in B"), (compared.removed, "only in A"))
    return f"{what}: {', '.join(f'{len(rows)} {kind}' for rows, kind in counts if rows)}"


def _only(compared: Compared[NodeChange] | Compared[TensorChange], word: Callable[[Named], str]) -> list[str]:
    return [*(f"+ {word(named)}" for named in compared.added), *(f"- {word(named)}" for named in compared.removed)]


def _line(row: Difference) -> str:
    return f"{row.name}: {_short(row.a)} → {_short(row.b)}"


def _row_line(row: Difference) -> str:
    """A stage or a block: the columns that differ."""
    if not isinstance(row.a, Mapping) or not isinstance(row.b, Mapping):
        only, kept = ("B", row.b) if row.a is None else ("A", row.a)
        return f"{row.name}: only in {only} ({', '.join(f'{key} {_short(value)}' for key, value in _items(kept))})"
    columns = [f"{key} {_short(value)} → {_short(row.b[key])}" for key, value in row.a.items() if value != row.b[key]]
    return f"{row.name}: {', '.join(columns)}"


def _items(row: object) -> list[tuple[str, object]]:
    return [(key, value) for key, value in row.items() if value is not None] if isinstance(row, Mapping) else []


def _tensor_line(tensor: TensorChange) -> str:
    if tensor.largest is None or tensor.relative is None:
        return (
            f"{tensor.name}: {tensor.a} → {tensor.b}"
            if tensor.a != tensor.b
            else f"{tensor.name}: other values ({tensor.a})"
        )
    kinds = tensor.a if tensor.a == tensor.b else f"{tensor.a} → {tensor.b}"
    return f"{tensor.name}: values by up to {tensor.largest:.3g}, {tensor.relative:.1e} of their spread ({kinds})"


def _short(value: object, most: int = 60) -> str:
    """A value in a line: sizes with ×, other lists with commas, long text cut."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(printable_value(value))
    text = f"[{text}]" if isinstance(value, list) else text
    return text if len(text) <= most else f"{text[:most]} …"
