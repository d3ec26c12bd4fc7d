"""`fnatool report`: one HTML file that says what a run came to, or what one network became in another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jinja2

from fnatool.files.atomic import require_writable, write_text
from fnatool.files.runfolder import SHOWN
from fnatool.model.source import Source, open_model
from fnatool.report.page import html
from fnatool.report.runs import GatheredRun, gather_pair, gather_run, require_run
from passes.errors import RefusedModel, UserError


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """`data`: the data set that pictures are made of (None: the one of the run, if it is still what it was);
    pictures=False: none.

    `model`: what a fine-tuning wrote (None: the file of the folder's name, with .onnx).
    """

    data: Path | str | None = None
    model: Path | str | None = None
    pictures: bool = True
    force: bool = False


def report(run: Path | str, out: Path | str | None = None, *, options: ReportOptions | None = None) -> Path:
    """The page about a run of `search` or `finetune` is at `out` (None: report.html in its folder), whose path is
    returned.

    Raises UserError where the folder holds no run, or a damaged or unfinished one.
    """
    options, folder = options or ReportOptions(), Path(run)
    path = folder / SHOWN if out is None else Path(out)
    require_run(folder)
    require_writable(path, force=options.force or out is None)
    found = gather_run(folder, None if options.model is None else Path(options.model))
    pictures, why = _gallery(found, options)
    try:
        page = html(found.document, found.networks, pictures, why)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, jinja2.UndefinedError) as error:
        raise UserError(f"'{folder}' is damaged: its files do not say what fnatool writes there ({error})") from error
    write_text(path, page, force=options.force or out is None)
    return path


def report_pair(before: Source, after: Source, out: Path | str, *, options: ReportOptions | None = None) -> Path:
    """The page about what one network became in another is at `out`. Raises UserError and RefusedModel where one cannot
    be read.
    """
    options, path = options or ReportOptions(), Path(out)
    require_writable(path, force=options.force)
    (first, _), (second, _) = (open_model(model, None) for model in (before, after))
    found = gather_pair(first, second)
    write_text(path, html(found.document, found.networks), force=options.force)
    return path


def _gallery(found: GatheredRun, options: ReportOptions) -> tuple[object, str]:
    """Pictures, or why there are none; nothing is said where there is no task that has pictures."""
    data = found.data if options.data is None else Path(options.data)
    if not options.pictures or found.model is None:
        return None, ""
    if data is None:
        return None, "give the data set with --data" if found.document["kind"] == "finetune" else ""
    from fnatool.report.pictures import gallery

    try:
        digest = found.digest if options.data is None else None
        return gallery(found.model, data, digest=digest, options=found.reading), ""
    except (UserError, RefusedModel) as error:
        if options.data is not None:
            raise
        return None, str(error)
