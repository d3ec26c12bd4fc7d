"""The one console that tables and messages go to, and how tables write columns and numbers.

Nothing else writes to a terminal: what comes here is shown escaped (see fnatool.escaping), one line a call, and never
read as markup. It is heard within `heard` only, as in the command line: the same functions called from Python are
silent.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from fnatool import escaping
from fnatool.escaping import shown

if TYPE_CHECKING:
    from rich.console import Console as Console
    from rich.progress import Progress
    from rich.table import Column, Table
    from rich.text import Text


LEAST_WIDTH = 120  # columns: a narrower terminal wraps lines itself, and no name is cut
PIPED_WIDTH = 240  # columns, where no terminal says otherwise: a row is a line, to be searched


_is_heard = ContextVar("is_heard", default=False)
_is_aside = ContextVar("is_aside", default=False)


@contextmanager
def heard() -> Iterator[None]:
    """Within it, tables, messages and bars reach the terminal."""
    before = _is_heard.set(True)
    try:
        yield
    finally:
        _is_heard.reset(before)


@contextmanager
def aside() -> Iterator[None]:
    """Within it, tables and messages go to standard error: standard output is for a document alone."""
    before = _is_aside.set(True)
    try:
        yield
    finally:
        _is_aside.reset(before)


def say(line: str) -> None:
    """A line without style on standard output (`aside`: standard error): what needs no more waits for no library that
    draws tables.
    """
    if _is_heard.get():
        (sys.stderr if _is_aside.get() else sys.stdout).write(f"{shown(line)}\n")


def console(*, wrap: bool = True) -> Console:
    """Standard output (`aside`: standard error): text is neither markup nor emoji, and numbers in it have no colour."""
    from fnatool.terminal.escaped import Escaped

    away = _is_aside.get()
    stream = sys.stderr if away else sys.stdout
    width = max(shutil.get_terminal_size().columns, LEAST_WIDTH) if stream.isatty() else PIPED_WIDTH
    return Escaped(
        stderr=away, highlight=False, emoji=False, markup=False, soft_wrap=wrap, width=width, quiet=not _is_heard.get()
    )


def document(text: str) -> None:
    """A JSON document for programs on standard output, exact."""
    sys.stdout.write(f"{escaping.document(text)}\n")


def styled(*parts: str | tuple[str, str]) -> Text:
    """A line for the console of texts, some with a style: ("failed", "bold red")."""
    from rich.text import Text

    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((shown(text), style) for text, style in pairs))


def table(*columns: Column | str) -> Table:
    """A table for the console, without lines; its cells are texts."""
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False)


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
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, on a terminal only; what it gives is called with how many more of total are done."""
    if not (_is_heard.get() and sys.stderr.isatty()):
        yield lambda count: None
        return
    from rich.progress import Progress

    from fnatool.terminal.escaped import Escaped

    with Progress(console=Escaped(stderr=True), transient=True) as bar:
        task = bar.add_task(shown(what), total=total)
        yield lambda count: bar.advance(task, count)


def learning(words: str) -> Progress:
    """A bar on standard error for what takes steps, on a terminal only; words, of a task's fields, stand before it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fnatool.terminal.escaped import Escaped

    columns = (TextColumn(words, markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(
        *columns, console=Escaped(stderr=True), transient=True, disable=not (_is_heard.get() and sys.stderr.isatty())
    )
