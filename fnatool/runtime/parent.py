"""A child process that does not outlive its parent, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1
SECONDS = 1.0  # between looks at the parent where the kernel does not tell

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before any fork


class Died(Exception):
    """A child gave no answer: why."""


def die_with(parent: int) -> None:
    """This process, a child of `parent`, is killed when that ends; at once if it has ended already.

    Linux sees to it, whatever this process is doing; elsewhere a thread looks every second.
    """
    if _libc is not None and _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0:
        if os.getppid() != parent:
            os._exit(1)
        return
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS)
    os._exit(1)
