"""What the cells say together: a table per task, what ranks them before they are trained, and all of it as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from benchmarks.study.cells import Found, read
from benchmarks.study.rows import ROWS

DASH = "–"
BEGIN, END = "<!-- the study: generated -->", "<!-- the study: end -->"
LEAST = 4  # figures that a rank correlation is of


def finished(folder: Path) -> list[Found]:
    """All cells that are there, in the order of the rows."""
    order = list(ROWS)
    known = [found for path in sorted((folder / "cells").rglob("*.json")) if (found := read(path))["row"] in order]
    return sorted(
        known, key=lambda one: (one["task"], one["steps"], order.index(one["row"]), -one["budget"], one["seed"])
    )


def tables(cells: Sequence[Found]) -> str:
    """As Markdown, one for each task and number of steps, the best of each budget in bold."""
    return "\n\n".join(_table(list(group)) for _, group in groupby(cells, key=lambda one: (one["task"], one["steps"])))


def _table(cells: Sequence[Found]) -> str:
    first, budgets = cells[0], sorted({one["budget"] for one in cells if not ROWS[one["row"]].whole}, reverse=True)
    title = (
        f"**{first['task']}**, {first['steps']} steps: {first['metric']}, "
        f"{'more' if first['better'] > 0 else 'less'} is better"
    )
    lines = [f"| | {' | '.join(f'{budget} %' for budget in budgets)} |", "|---" * (1 + len(budgets)) + "|"]
    means = {(row, budget): _mean(_at(cells, row, budget)) for row in ROWS for budget in budgets}
    for row in ROWS.values():
        own = [one for one in cells if one["row"] == row.name]
        if not own:
            continue
        if row.whole:
            title += f"; {row.said}: {_said(own)}"
            continue
        lines.append(
            f"| {row.said} | "
            f"{' | '.join(_bold(_at(cells, row.name, b), _best(means, b, first['better'])) for b in budgets)} |"
        )
        if row.name == "random":
            best = [_extreme(_at(cells, row.name, budget), first["better"]) for budget in budgets]
            lines.append(f"| … the best of them | {' | '.join(best)} |")
    return "\n".join([title, "", *lines])


def _at(cells: Iterable[Found], row: str, budget: int) -> list[Found]:
    return [one for one in cells if one["row"] == row and one["budget"] == budget]


def _numbers(cells: Iterable[Found]) -> list[float]:
    return [one["figure"] for one in cells if "figure" in one]


def _mean(cells: Sequence[Found]) -> float | None:
    figures = _numbers(cells)
    return statistics.mean(figures) if figures else None


def _best(means: Mapping[tuple[str, int], float | None], budget: int, better: int) -> float | None:
    known = [value for (_, at), value in means.items() if at == budget and value is not None]
    return max(known, key=lambda value: better * value) if known else None


def _bold(cells: Sequence[Found], best: float | None) -> str:
    mean = _mean(cells)
    return f"**{_said(cells)}**" if mean is not None and mean == best else _said(cells)


def _said(cells: Sequence[Found]) -> str:
    """'0.490 ± 0.012 (3)'"""
    figures = _numbers(cells)
    if not figures:
        return "impossible" if cells else DASH
    spread = f" ± {statistics.stdev(figures):.3f}" if len(figures) > 1 else ""
    return f"{statistics.mean(figures):.3f}{spread} ({len(figures)})"


def _extreme(cells: Sequence[Found], better: int) -> str:
    figures = _numbers(cells)
    return f"{max(figures, key=lambda value: better * value):.3f}" if figures else DASH


# --- what is known before training --------------------------------------------------------------


def ranks(cells: Sequence[Found]) -> dict[str, dict[str, float]]:
    """Spearman's rank correlation of what is known of a network before it is trained (less is better) with its figure.

    Per task and budget, over all cells whose last phase is the same, those of the seed's own cost left out.
    """
    found: dict[str, dict[str, float]] = {}
    same = [one for one in cells if "figure" in one and not ROWS[one["row"]].whole and ROWS[one["row"]].more is None]
    for (task, steps, budget), group in groupby(sorted(same, key=_place), key=_place):
        rows = list(group)
        for name in dict.fromkeys(name for one in rows for name in one["before"]):
            if name == "agreement":
                continue
            pairs = [(-one["before"][name], one["better"] * one["figure"]) for one in rows if name in one["before"]]
            if len(pairs) >= LEAST and all(len(set(values)) > 1 for values in zip(*pairs, strict=True)):
                place = found.setdefault(f"{task}, {steps} steps, {budget} %", {})
                place[name] = round(float(spearmanr(*zip(*pairs, strict=True)).statistic), 3)
    return found


_place: Callable[[Found], tuple[Any, ...]] = lambda one: (one["task"], one["steps"], one["budget"])  # noqa: E731


def over_budget(cells: Iterable[Found]) -> list[Found]:
    """Cells whose network costs more than it may."""
    return [one for one in cells if "share" in one and one["share"] > one["budget"] / 100 + 1e-9]


def placed(page: str, text: str) -> str:
    """The page with the text between its two marks. Raises ValueError where it has none."""
    before, found, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (found and end):
        raise ValueError(f"the page has no '{BEGIN}' … '{END}'")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
