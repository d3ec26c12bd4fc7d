"""The first module that runs, of the command `fnatool` and of `python -m fnatool`.

From here on Ctrl-C is one message and exit code 130, also while everything else is being imported.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

INTERRUPTED = 130
AGAIN = 0.05  # seconds
SAID = b"fnatool: interrupted\n"

_process = os.getpid()
_running = False  # so that there is someone who catches a KeyboardInterrupt


def main() -> None:
    """The command line; see fnatool.cli."""
    global _running
    from fnatool.cli.main import main as run

    try:
        _running = True
        run()
    except KeyboardInterrupt:  # before or after all that has its own way to stop
        _end()
    except SystemExit as end:
        # the interpreter would end by the signal itself where it hit code made of text, as a dataclass is
        if end.code == INTERRUPTED:
            _leave()
        raise
    finally:
        _running = False


def _stop(number: int, frame: FrameType | None) -> None:
    """A KeyboardInterrupt; but where that would surprise (native code that is being imported, the interpreter's end, a
    child), the end.
    """
    if os.getpid() != _process:
        os._exit(0)  # any other code is a fault to who waits for it, and hides the interrupt
    if not _running:
        _end()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _end()
        if frame.f_code.co_name == "__del__":  # out of which no error comes
            threading.Timer(AGAIN, os.kill, (_process, number)).start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def _end() -> None:
    with suppress(OSError):  # standard error may be closed
        os.write(2, SAID)
    _leave()


def _leave() -> None:
    with suppress(OSError, ValueError, RuntimeError, AttributeError):  # RuntimeError: it was interrupted while it wrote
        sys.stdout.flush()
    os._exit(INTERRUPTED)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # otherwise whoever started us wants it ignored
    signal.signal(signal.SIGINT, _stop)


if __name__ == "__main__":
    main()
