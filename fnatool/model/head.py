"""A head for a task on a model."""

from __future__ import annotations

from pathlib import Path

from fnatool.files.atomic import require_writable
from fnatool.model.headed import Headed, HeadOptions, attach_to_model, named_by_data
from fnatool.model.source import Source, open_model


def head(model: Source, out: Path | str | None = None, *, options: HeadOptions) -> Headed:
    """The model (a path, the bundled seed's name, or a model in memory) with the head, its weights fresh; written to
    `out` if given.

    Raises UserError for a head that cannot be or a file that must not be written, before any work; RefusedModel for a
    model that cannot take a head or a result that is not sound.
    """
    read, _ = open_model(model, options.inputs)
    options = named_by_data(options)
    if out is not None:
        named = [Path(str(text)) for text in (options.classes, options.joints) if isinstance(text, str)]
        require_writable(Path(out), force=options.force, forbid=(read.path, *read.data, *named))
    made = attach_to_model(read, options)
    if out is not None:
        made.write(out, force=options.force)
    return made
