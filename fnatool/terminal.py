"""The one console that tables and messages go to."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console
from rich.progress import Progress

LEAST_WIDTH = 120  # columns: a narrower terminal wraps lines itself, and no name is cut
PIPED_WIDTH = 240  # columns, where no terminal says otherwise: a row is a line, to be searched


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """A reader that leaves early is for the command line to handle, not a failure."""
        raise BrokenPipeError


def console(*, wrap: bool = True) -> Console:
    """Standard output; names are shown as they are, neither as markup of numbers nor as emoji."""
    width = max(shutil.get_terminal_size().columns, LEAST_WIDTH) if sys.stdout.isatty() else PIPED_WIDTH
    return _Console(highlight=False, emoji=False, soft_wrap=wrap, width=width)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error, on a terminal only; every call of what it gives is one of total done."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
