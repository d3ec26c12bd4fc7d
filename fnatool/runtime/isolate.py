"""Native code on untrusted input runs in a child process, with a limit on time and memory; its death is an answer, not
the end of us.
"""

from __future__ import annotations

import faulthandler
import math
import os
import pickle
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

from fnatool.runtime.parent import Died as Died
from fnatool.runtime.parent import die_with

try:
    import resource
except ImportError:  # not every system has limits on processes
    resource = None  # type: ignore[assignment]

T = TypeVar("T")

GIB = 2**30
# by the clock a child may take so many times what it may take of the processor: another may have it meanwhile
PATIENCE = 10
POLL = 0.2  # seconds between looks at what a child has taken


class TimedOut(Died):
    """It took longer than it may: of the processor, or by the clock."""


def run(function: Callable[..., T], *arguments: object, seconds: float = 120, memory: int = 8 * GIB) -> T:
    """What function(*arguments) returns in a child process that may take `seconds` and `memory` bytes of address space
    beyond ours.

    The seconds are those that the processor spends on its main thread, so that an answer does not depend on what else
    the machine does; by the clock it may take PATIENCE times as many, for a child that waits for what never comes. An
    exception of function is raised here too. Raises Died where the child was killed: by a signal, by its time or by its
    memory. The child never outlives the call, nor this process; what it prints is discarded. The result travels
    pickled.
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
        answer = _read(reader, child, seconds)
    finally:  # also on Ctrl-C: nothing is left running, no zombie stays
        os.close(reader)
        if child:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
    if isinstance(answer, TimedOut):
        raise answer
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


def _read(reader: int, child: int, seconds: float) -> bytes | TimedOut:
    """Everything that comes through the pipe, or which of its limits was over before the end."""
    chunks: list[bytes] = []
    end = time.monotonic() + PATIENCE * seconds
    while True:
        left = end - time.monotonic()
        if left <= 0:
            return _by_the_clock(seconds)
        if not select.select([reader], [], [], min(left, POLL))[0]:
            if _processor_seconds(child) > seconds:
                return _of_the_processor(seconds)
            continue
        chunk = os.read(reader, 1 << 20)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)


def _processor_seconds(process: int) -> float:
    """What the main thread of a process has taken of the processor so far; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{process}/task/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _answer(writer: int, function: Callable[[], object], limits: tuple[int, float, int]) -> NoReturn:
    """The life of the child: its answer, (value, None) or (None, error), is in the pipe. limits: its parent, its time,
    its memory.
    """
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
    # for the case that the parent is stopped and cannot do it
    signal.setitimer(signal.ITIMER_REAL, min(PATIENCE * seconds + 1, LONGEST))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    faulthandler.disable()  # a crash is reported by the parent, in one line
    if resource is None:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    processor = math.ceil(min(seconds, LONGEST) * (os.cpu_count() or 1))  # of all its threads
    _lower(resource.RLIMIT_CPU, processor)
    pages = Path("/proc/self/statm")
    if pages.exists():  # Linux; elsewhere the limit on address space is not kept anyway
        size = int(pages.read_text().split()[0]) * resource.getpagesize() + memory
        _lower(resource.RLIMIT_AS, size)


def _lower(kind: int, limit: int) -> None:
    """The limit of that kind is this one, or the lowest that there was."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _pickled(error: BaseException) -> bytes:
    """(None, error); where error cannot be rebuilt from its pickle, a RuntimeError that quotes it."""
    try:
        answer = pickle.dumps((None, error))
        pickle.loads(answer)
    except (pickle.PicklingError, TypeError, AttributeError, ValueError):
        return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))
    return answer


def _of_the_processor(seconds: float) -> TimedOut:
    return TimedOut(f"it took more than {seconds:g} seconds of processor time")


def _by_the_clock(seconds: float) -> TimedOut:
    return TimedOut(
        f"it took more than {PATIENCE * seconds:g} seconds by the clock ({seconds:g} of processor time are allowed)"
    )


def _death(status: int, seconds: float) -> Died:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGALRM:
            return _by_the_clock(seconds)
        if number == signal.SIGXCPU:
            return _of_the_processor(seconds)
        return Died(
            f"it was killed by signal {signal.Signals(number).name}"
            + (" (out of memory?)" if number == signal.SIGKILL else "")
        )
    if os.WEXITSTATUS(status) == OUT_OF_MEMORY:
        return Died("it needed more memory than allowed")
    return Died(f"it ended without an answer (exit status {os.WEXITSTATUS(status)})")
