"""What a search came to, and the architectures derived from one, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from fnatool import terminal
from fnatool.search import folder as folders
from fnatool.search.results import DerivedModel, Found
from fnatool.search.showing import cost_text
from fnatool.training.watching import sentence


def show_found(found: Found) -> None:
    """What the search came to, and where it lies."""
    console = terminal.console()
    if found.tuned is not None:
        console.print(f"fine-tuned, in ONNX Runtime: {sentence(found.tuned.in_runtime)}")
    console.print(f"→ {found.folder / folders.TARGET}, {folders.SPEC}, {folders.PAGE}")
    console.print(f"other budgets from the same search: fnatool derive {found.folder} --budget madds=…")


def show_derived(found: Sequence[DerivedModel]) -> None:
    """A row an architecture."""
    console = terminal.console(wrap=False)
    kinds = list(found[0].emitted.costs)
    figures = [name for name in found[0].score if "/" not in name]
    grid = terminal.table(*map(terminal.right, (*kinds, found[0].words.column, *figures)), terminal.whole("file"))
    for row in found:
        costs = [cost_text(kind, row.emitted.costs[kind]) for kind in kinds]
        grid.add_row(*costs, f"{row.preference:.2f}", *(f"{row.score[name]:.4f}" for name in figures), str(row.emitted.path))
    console.print(grid)
