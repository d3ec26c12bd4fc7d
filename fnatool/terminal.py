"""The one console that tables and messages go to, and how tables write columns and numbers."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.progress import Progress

if TYPE_CHECKING:
    from rich.table import Column

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


def whole(header: str) -> Column:
    """A column of names, none of which is wrapped."""
    from rich.table import Column

    return Column(header, no_wrap=True)


def right(header: str) -> Column:
    """A column of numbers."""
    from rich.table import Column

    return Column(header, justify="right")


def count(value: int) -> str:
    """A number in short: 1.473K, 2.248M, 19.040B."""
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if value >= unit:
            return f"{value / unit:.3f}{name}"
    return str(value)


def size(value: int) -> str:
    """A number of bytes in short, in powers of ten: 1.638 MB."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if value >= unit:
            return f"{value / unit:.3f} {name}"
    return f"{value} B"


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error, on a terminal only; every call of what it gives is one of total done."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
