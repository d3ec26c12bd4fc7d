"""The space a command is given: the name of a preset, or the path of a JSON file."""

from __future__ import annotations

from pathlib import Path

from fnatool.documents import read_json
from passes.analysis import Analysis
from passes.errors import UserError
from passes.presets import PRESETS, preset
from passes.space import Space, parse_space


def read_space(name: str, analysis: Analysis) -> Space:
    """The Space of that name or in that file, where a file has the name. Raises UserError where there is none."""
    path = Path(name)
    if not path.is_file():
        if name in PRESETS:
            return preset(name, analysis)
        raise UserError(f"there is no space '{name}'; give {', '.join(PRESETS)} or the path of a JSON file")
    document = read_json(path, "space")
    try:
        return parse_space(document)
    except UserError as error:
        raise UserError(f"'{path}': {error}") from error
