"""The space a command is given: the name of a preset, or the path of a JSON file."""

from __future__ import annotations

from pathlib import Path

from fnatool.files.documents import read_json
from passes.errors import UserError
from passes.nearest import nearest
from passes.network.analysis import Analysis
from passes.space.presets import PRESETS, preset
from passes.space.space import Space, parse_space


def read_space(name: str, analysis: Analysis, multiple: int = 1) -> Space:
    """The Space of that name or in that file, where a file has the name; widths of `auto` and `coarse` are multiples.

    Raises UserError where there is none.
    """
    return preset(name, analysis, multiple) if _is_preset(name) else _of_file(Path(name))


def require_readable(name: str) -> None:
    """There is a Space of that name or in that file, whatever the network. Raises UserError."""
    if not _is_preset(name):
        _of_file(Path(name))


def _is_preset(name: str) -> bool:
    return name in PRESETS and not Path(name).is_file()


def _of_file(path: Path) -> Space:
    if not path.is_file():
        meant = nearest(str(path), list(PRESETS))
        fix = f"did you mean '{meant}'?" if meant else f"give {', '.join(PRESETS)} or the path of a JSON file"
        raise UserError(f"there is no space '{path}'; {fix}")
    document = read_json(path, "space")
    try:
        return parse_space(document)
    except UserError as error:
        raise UserError(f"'{path}': {error}") from error
