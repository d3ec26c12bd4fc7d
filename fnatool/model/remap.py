"""A model in the shape that a Spec asks for, with what it knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from fnatool import specs
from fnatool.files.atomic import recover, require_writable, write_text
from fnatool.files.model import data_path
from fnatool.model.analysed import read_spec, spec_of
from fnatool.model.remap_report import report
from fnatool.model.remapped import RemapOptions, Remapped, remap_model
from fnatool.model.source import Source, open_model
from passes.errors import UserError
from passes.target.spec import Spec


def remap(
    seed: Source,
    spec: Spec | Mapping[str, object] | Path | str | None = None,
    out: Path | str | None = None,
    *,
    options: RemapOptions | None = None,
) -> Remapped:
    """The seed in the shape the spec asks for, with what it knows; written to `out` if given, with the report that the
    options name.

    seed: a path, the name of the bundled seed, or a model in memory; spec: a Spec, its JSON document, the path of one,
    or the name of a bundled one; None where the options set all that is asked for. Raises UserError for a wrong spec or
    path, before any work for files that must not be written, and RefusedModel for a model that cannot be remapped
    safely or whose result fails verification.
    """
    options = options or RemapOptions()
    out = None if out is None else Path(out)
    if options.refit is not None:
        # not above: it takes a tenth of a second, and few ask for it
        from fnatool.model.refit_samples import refitted_on, require_data

        require_data(options.refit, options.refit_samples)
    path = None if spec is None or isinstance(spec, (Spec, Mapping)) else specs.find(spec)
    read, _ = open_model(seed, options.inputs)
    _require_places(out, options, forbid=(read.path, *read.data, *([] if path is None else [path])))
    with nullcontext() if path is None else specs.fitting(path):
        made = remap_model(
            read, read_spec(path) if path is not None else spec_of({"version": 1} if spec is None else spec), options
        )
    if options.refit is not None and not made.plan.identity:
        made = refitted_on(made, options)
    texts = {} if options.report is None else {options.report: json.dumps(report(made), indent=1)}
    if out is not None:
        made.write(out, force=options.force, beside=texts)  # all of them or none
    else:
        for place, text in texts.items():
            write_text(place, text, force=options.force)
    return made


def _require_places(out: Path | None, options: RemapOptions, *, forbid: Sequence[Path]) -> None:
    """The result and its report may be written, once what an interrupted command left there has been put in order."""
    places = [path for path in (out, options.report) if path is not None]
    if out is not None:
        recover(*places)
    for path in places:
        require_writable(path, force=options.force, forbid=forbid)
    if (
        out is not None
        and options.report is not None
        and options.report.resolve() in (out.resolve(), data_path(out).resolve())
    ):
        raise UserError(f"'{options.report}' cannot be both part of the result and its report")
