"""The first module that runs: from here on Ctrl-C is one message and exit code 130, also while everything else is being imported."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

INTERRUPTED = 130
SAID = b"fnatool: interrupted\n"

_process = os.getpid()
_leaving = False


def main() -> None:
    """The command line; see fnatool.cli."""
    global _leaving
    try:
        from fnatool.cli import main as run

        run()
    except KeyboardInterrupt:  # before or after all that has its own way to stop
        os.write(2, SAID)
        os._exit(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # the interpreter would end by the signal itself where it hit code made of text, as a dataclass is
            with suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(INTERRUPTED)
        raise
    finally:
        _leaving = True


def _stop(number: int, frame: FrameType | None) -> None:
    """A KeyboardInterrupt; but where that would surprise (native code that is being imported, the interpreter's end, a child), the end."""
    if _leaving or os.getpid() != _process:
        os._exit(INTERRUPTED)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, SAID)
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # otherwise whoever started us wants it ignored
    signal.signal(signal.SIGINT, _stop)
