"""Places to tap and to cut, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from fnatool import terminal
from fnatool.model.places import Json
from passes.graph.tensors import printed


def show_places(rows: Sequence[Json], title: str) -> None:
    """One row per place, the stage said once."""
    table = terminal.table(
        "stage", terminal.whole("place"), terminal.right("shape"), terminal.right("stride"), terminal.whole("tensor")
    )
    before: object = None
    for row in rows:
        stage = row["stage"]
        shape = "?" if row["shape"] is None else printed(row["shape"])  # type: ignore[arg-type]
        steps: Sequence[float] = row["stride"] or ()  # type: ignore[assignment]
        stride = printed(dict.fromkeys(f"{step:g}" for step in steps)) if row["tap"] and steps else ""
        table.add_row(str(stage or "") if stage != before else "", str(row["name"]), shape, stride, str(row["tensor"]))
        before = stage
    console = terminal.console(wrap=False)
    taps = sum(bool(row["tap"]) for row in rows)
    console.print(
        terminal.styled(
            (title, "bold"), f"  {len(rows)} places to cut at, of which a head can tap the {taps} with a stride"
        )
    )
    console.print(table)
