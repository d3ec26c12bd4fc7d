"""Native code on untrusted input runs in a child process, with a limit on time and memory; its death is an answer, not the end of us."""

from __future__ import annotations

import faulthandler
import os
import pickle
import resource
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

from fnatool.parent import die_with

T = TypeVar("T")

GIB = 2**30


class Died(Exception):
    """The child gave no answer: why."""


class TimedOut(Died):
    """It took longer than it may."""


def run(function: Callable[..., T], *arguments: object, seconds: float = 120, memory: int = 8 * GIB) -> T:
    """What function(*arguments) returns in a child process that may take `seconds` and `memory` bytes of address space beyond ours.

    An exception of function is raised here too. Raises Died where the child was killed: by a signal, by its time or by its memory.
    The child never outlives the call, nor this process; what it prints is discarded. The result travels pickled.
    """
    reader, writer = os.pipe()
    child = 0
    try:
        with _interrupts_held(), warnings.catch_warnings():
            # Python 3.12 warns of forking with threads: the child starts its own, and never returns to this program
            warnings.simplefilter("ignore", DeprecationWarning)
            parent = os.getpid()
            child = os.fork()
            if child == 0:
                os.close(reader)
                _answer(writer, lambda: function(*arguments), (parent, seconds, memory))
            os.close(writer)
        answer = _read(reader, time.monotonic() + seconds)
    finally:  # also on Ctrl-C: nothing is left running, no zombie stays
        os.close(reader)
        if child:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
    if answer is None:
        raise _timed_out(seconds)
    if not answer:
        raise _death(status, seconds)
    value, error = pickle.loads(answer)
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C within comes at the end: by then it is known which child there is to end."""
    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held and callable(before):
            before(*held[0])


def _read(reader: int, deadline: float) -> bytes | None:
    """Everything that comes through the pipe; None: the time is over before its end."""
    chunks: list[bytes] = []
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return None
        chunk = os.read(reader, 1 << 20)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)


def _answer(writer: int, function: Callable[[], object], limits: tuple[int, float, int]) -> NoReturn:
    """The life of the child: its answer, (value, None) or (None, error), is in the pipe. limits: its parent, its time, its memory."""
    try:
        _limit(*limits)
        try:
            answer = pickle.dumps((function(), None))
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except BaseException as error:  # noqa: BLE001 - the boundary of a process: whatever it is, the parent raises it
            answer = _pickled(error)
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)
    finally:  # never back into the program that was forked
        os._exit(FAILED)


OUT_OF_MEMORY, FAILED = 100, 101
LONGEST = 1e7  # seconds that a timer can be set to everywhere


def _limit(parent: int, seconds: float, memory: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    die_with(parent)
    signal.setitimer(signal.ITIMER_REAL, min(seconds + 1, LONGEST))  # for the case that the parent is stopped and cannot do it
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    faulthandler.disable()  # a crash is reported by the parent, in one line
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = Path("/proc/self/statm")
    if pages.exists():  # Linux; elsewhere the limit on address space is not kept anyway
        size = int(pages.read_text().split()[0]) * resource.getpagesize() + memory
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = size if hard == resource.RLIM_INFINITY else min(size, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _pickled(error: BaseException) -> bytes:
    """(None, error); where error cannot be rebuilt from its pickle, a RuntimeError that quotes it."""
    try:
        answer = pickle.dumps((None, error))
        pickle.loads(answer)
    except (pickle.PicklingError, TypeError, AttributeError, ValueError):
        return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))
    return answer


def _timed_out(seconds: float) -> TimedOut:
    return TimedOut(f"it took more than {seconds:g} seconds")


def _death(status: int, seconds: float) -> Died:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGALRM:
            return _timed_out(seconds)
        return Died(f"it was killed by signal {signal.Signals(number).name}" + (" (out of memory?)" if number == signal.SIGKILL else ""))
    if os.WEXITSTATUS(status) == OUT_OF_MEMORY:
        return Died("it needed more memory than allowed")
    return Died(f"it ended without an answer (exit status {os.WEXITSTATUS(status)})")
