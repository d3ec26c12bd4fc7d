"""The command line's beginning and end: every error is one message and an exit code."""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Sequence

import click

from fnatool.cli import deploying, facts, learning, networks, reports, searching  # noqa: F401 they declare the commands
from fnatool.cli.app import INTERRUPTED, MISUSED, SUCCESS, ReaderLeft, cli
from fnatool.escaping import shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 success, 1 a failed check or a refused model, 2 a mistake in what was asked, 130
    Ctrl-C.
    """
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows a question mark
    # a graph is many small objects that live long: collecting them often takes a third of the time
    gc.set_threshold(200_000, 20, 20)
    sys.exit(run(arguments))


def _open_streams() -> None:
    """Standard input, output and error are open: a closed one leads nowhere, and no file or pipe of ours takes its
    number.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the command; whatever goes wrong is one message on stderr."""
    try:
        result = cli.main(args=arguments, prog_name="fnatool", standalone_mode=False)
        sys.stdout.flush()  # a full disk shows here rather than in a traceback at exit
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        click.echo("\n".join(shown(line.expandtabs(4)) for line in text.getvalue().rstrip("\n").split("\n")), err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):  # click turns the first into the second
        click.echo("fnatool: interrupted", err=True)
        return INTERRUPTED
    except (ReaderLeft, BrokenPipeError):
        # nothing is left to fail when Python flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SUCCESS
    except MemoryError:
        return _say("not enough memory", MISUSED)
    except OSError as error:
        where = f"'{error.filename}': " if error.filename else ""
        return _say(f"{where}{error.strerror or error}", MISUSED)
    return result if isinstance(result, int) else SUCCESS


def _say(message: object, code: int) -> int:
    click.echo(f"fnatool: {shown(str(message))}", err=True)
    return code
