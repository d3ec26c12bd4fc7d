"""What a search came to, and the architectures derived from one, on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fnatool import terminal
from fnatool.files.documents import read_json
from fnatool.files.runfolder import REPORT
from fnatool.search import folder as folders
from fnatool.search.results import DerivedModel, Found
from fnatool.search.words import BASELINES, cost_text
from fnatool.training.watching import sentence


def show_found(found: Found, page: Path | None) -> None:
    """What decides, in five lines: what was found, how near it is, how good it is, where it lies, and what to do
    next.
    """
    console = terminal.console()
    report = read_json(found.folder / REPORT, "report of a search", pipes=False)
    assert isinstance(report, dict)
    for line in (_cost(report), _distance(report), _figures(report)):
        if line:
            console.print(line, markup=False)
    written = [folders.TARGET, folders.SPEC, folders.PAGE, *([] if page is None else [page.name])]
    console.print(f"→ {found.folder / written[0]}, {', '.join(written[1:])}", markup=False)
    console.print(
        f"next: fnatool derive {found.folder} --budget {report.get('kind', 'madds')}=… for other budgets", markup=False
    )


def _cost(report: Mapping[str, Any]) -> str:
    """'found: madds 44.994M, 81.8% of the seed (budget madds=45M); params …'"""
    found, seed, budgets = report["architecture"]["costs"], report["seed"]["costs"], report["budgets"]
    told = []
    for kind, value in found.items():
        share = f", {value / seed[kind]:.1%} of the seed's" if seed.get(kind) else ""
        asked = [text.partition("=")[2] for text in budgets if text.partition("=")[0].strip() == kind]
        told.append(f"{kind} {cost_text(kind, value)}{share}" + (f" (budget {', '.join(asked)})" if asked else ""))
    return f"found: {'; '.join(told)}"


def _distance(report: Mapping[str, Any]) -> str:
    """How far it is from the seed, and where that grows faster; nothing for a method that does not say it."""
    found = report["architecture"].get("distance")
    if found is None:
        return ""
    knee = report.get("knee")
    bend = "" if knee is None else f"; the knee is at {cost_text(report['kind'], knee['cost'])}"
    return f"distance from the seed before training: {found:.3f} (0 is the same, 1 as far as from the mean){bend}"


def _figures(report: Mapping[str, Any]) -> str:
    """The figures of what was fine-tuned, and of what was tuned beside it."""
    if report["finetuned"] is None:
        return ""
    metric = report["finetuned"]["metric"]
    others = [f"{BASELINES[name]} {row['in_runtime'][metric]:.4f}" for name, row in report["baselines"].items()]
    beside = f"; {metric} of others tuned alike: {', '.join(others)}" if others else ""
    return f"fine-tuned, in ONNX Runtime: {sentence(report['finetuned']['in_runtime'])}{beside}"


def show_derived(found: Sequence[DerivedModel]) -> None:
    """A row an architecture."""
    console = terminal.console(wrap=False)
    kinds = list(found[0].emitted.costs)
    figures = [name for name in found[0].score if "/" not in name]
    grid = terminal.table(*map(terminal.right, (*kinds, found[0].words.column, *figures)), terminal.whole("file"))
    for row in found:
        costs = [cost_text(kind, row.emitted.costs[kind]) for kind in kinds]
        grid.add_row(
            *costs, f"{row.preference:.2f}", *(f"{row.score[name]:.4f}" for name in figures), str(row.emitted.path)
        )
    console.print(grid)
