"""The console of the library that draws tables and bars, on which every text comes out escaped."""

from __future__ import annotations

from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from fnatool.escaping import shown


class Escaped(Console):
    """Every text that it is given, also in the cells of a table, comes out as `shown` makes it."""

    def on_broken_pipe(self) -> NoReturn:
        """A reader that leaves early is for the command line to handle, not a failure."""
        raise BrokenPipeError

    def render_str(self, text: str, **options: Any) -> Text:  # every str that is printed or measured comes by here
        return super().render_str(shown(text), **{**options, "markup": False, "emoji": False})
