"""One command of fnatool in a process of its own, under limits: how it ended, how long it took, how much memory, and
what it said.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import re
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from fnatool.cli.app import FAILED, MISUSED, SUCCESS
from fnatool.cli.main import run

CRASHED = 70  # the exit code that stands for a traceback here; fnatool itself has 0, 1, 2 and 130
KEPT = 1 << 22  # bytes of a stream that are kept
GIB = 2**30


@dataclass(frozen=True)
class Attempt:
    """A command and its end. `code` is None where it was killed, `death` then says by what; `peak` is in bytes."""

    command: tuple[str, ...]
    code: int | None
    death: str
    seconds: float
    peak: int
    out: str
    err: str

    @property
    def bad(self) -> str:
        """What must not happen and did, in a few words; empty: done, or refused with a message."""
        if self.code is None:
            return self.death
        if self.code == CRASHED or "Traceback (most recent call last)" in self.err:
            where = re.findall(r"(?<!tests/)(?:passes|fnatool)/(?:\w+/)*(\w+\.py)\", line (\d+)", self.err)[-1:]
            return f"traceback: {self.err.strip().splitlines()[-1][:200]} {':'.join(*where) if where else ''}".strip()
        if self.code not in (SUCCESS, FAILED, MISUSED):
            return f"exit code {self.code}"
        if noise := [line for line in self.err.splitlines() if re.search(r"\b\w*Warning: ", line)]:
            return f"warning: {noise[0][:200]}"
        if self.code == MISUSED and not self.err.strip():
            return "exit code 2 without a message"
        if self.code == FAILED and not self.err.strip() and not self.out.strip():
            return "exit code 1 without a message"
        return ""


def attempt(command: Sequence[str], *, seconds: float = 60, memory: int = 6 * GIB, fresh: bool = False) -> Attempt:
    """`fnatool command` in a fork of this process, which should have imported what it needs, or in a fresh Python;
    killed after `seconds`.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forking with threads
            child = os.fork()
        if child == 0:
            _run(command, (out, err), memory, fresh=fresh)
        code, death, peak = ended(child, seconds)
        return Attempt(tuple(command), code, death, round(time.monotonic() - start, 3), peak, _shown(out), _shown(err))


def ended(child: int, seconds: float) -> tuple[int | None, str, int]:
    """Exit code, what it died of, and the peak in bytes of the largest of a child, which leads a group of its own, and
    its children.
    """
    handle = os.pidfd_open(child)
    in_time = bool(select.select([handle], [], [], seconds)[0])
    os.close(handle)
    if not in_time:
        os.killpg(child, signal.SIGKILL)  # and the children it has
    _, status, usage = os.wait4(child, 0)
    peak = usage.ru_maxrss * 1024
    if not in_time:
        return None, f"hang: killed after {seconds:g} s", peak
    if os.WIFSIGNALED(status):
        return None, f"crash: {signal.Signals(os.WTERMSIG(status)).name}", peak
    return os.WEXITSTATUS(status), "", peak


def _run(command: Sequence[str], streams: tuple[BinaryIO, BinaryIO], memory: int, *, fresh: bool) -> NoReturn:
    """In the child: the command as `fnatool` runs it, but for the imports, and the end of the process."""
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, stream in enumerate(streams, 1):
            os.dup2(stream.fileno(), number)
        streams_by_number = [
            os.fdopen(number, mode, errors="replace") for number, mode in ((0, "r"), (1, "w"), (2, "w"))
        ]
        sys.stdin, sys.stdout, sys.stderr = streams_by_number
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        if fresh:
            os.execv(sys.executable, [sys.executable, "-m", "fnatool", *command])
        warnings.resetwarnings()
        gc.set_threshold(200_000, 20, 20)
        try:
            code = run(list(command))
        except BaseException:  # noqa: BLE001 - whatever it is, it is the finding
            traceback.print_exc()
            code = CRASHED
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    finally:
        os._exit(CRASHED)


def _shown(file: BinaryIO) -> str:
    """The beginning of a stream."""
    file.seek(0)
    return file.read(KEPT).decode(errors="replace")
