"""The page that a run ends with."""

from __future__ import annotations

from pathlib import Path

from fnatool import terminal
from passes.errors import RefusedModel, UserError


def written_page(folder: Path, *, model: Path | None = None) -> Path | None:
    """The page of a finished run is in its folder; where it cannot be written, which harms nothing else, that is
    said.
    """
    from fnatool import ReportOptions, report

    try:
        path = report(folder, options=ReportOptions(model=model))
    except (UserError, RefusedModel, OSError) as error:
        terminal.console().print(f"there is no report.html: {error}", markup=False)
        return None
    if model is not None:
        terminal.console().print(f"→ {path}", markup=False)
    return path
