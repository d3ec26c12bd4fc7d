"""A child process can crash, hang or eat memory; the caller learns why and nothing is left running."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fnatool.runtime import isolate

MIB = 2**20


def test_the_result_of_the_function_comes_back() -> None:
    assert isolate.run(divmod, 17, 5) == (3, 2)
    assert isolate.run(bytes, 3 * MIB) == bytes(3 * MIB)


def test_an_exception_of_the_function_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError, match="division"):
        isolate.run(divmod, 1, 0)


class Unpicklable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("both")


def fail_oddly() -> None:
    raise Unpicklable(1, 2)


def test_an_exception_that_cannot_travel_is_quoted() -> None:
    with pytest.raises(RuntimeError, match="Unpicklable: both"):
        isolate.run(fail_oddly)


def test_an_exit_is_not_mistaken_for_an_answer() -> None:
    with pytest.raises(isolate.Died, match="exit status 3"):
        isolate.run(os._exit, 3)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def test_a_crash_is_reported_with_its_signal() -> None:
    with pytest.raises(isolate.Died, match="SIGSEGV"):
        isolate.run(crash)


def compute() -> None:
    while True:
        pass


def test_an_endless_computation_ends_with_its_processor_time() -> None:
    start = time.monotonic()
    with pytest.raises(isolate.TimedOut, match=r"more than 0\.3 seconds of processor time"):
        isolate.run(compute, seconds=0.3)
    assert time.monotonic() - start < 0.3 * isolate.PATIENCE


def test_a_child_that_waits_for_nothing_ends_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "PATIENCE", 3)
    start = time.monotonic()
    with pytest.raises(isolate.TimedOut, match=r"more than 0\.6 seconds by the clock"):
        isolate.run(time.sleep, 30, seconds=0.2)
    assert time.monotonic() - start < 5


def test_a_child_that_others_keep_from_the_processor_has_its_time() -> None:
    assert isolate.run(time.sleep, 0.7, seconds=0.2) is None


def test_what_its_threads_take_together_is_limited_by_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the parent cannot see what a child takes."""
    monkeypatch.setattr(isolate, "_processor_seconds", lambda process: 0.0)
    monkeypatch.setattr(isolate, "PATIENCE", 60)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with pytest.raises(isolate.TimedOut, match=r"more than 0\.9 seconds of processor time"):
        isolate.run(compute, seconds=0.9)


def test_without_limits_of_the_system_a_child_answers_and_a_hang_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "resource", None)
    assert isolate.run(divmod, 17, 5) == (3, 2)
    with pytest.raises(isolate.TimedOut):
        isolate.run(compute, seconds=0.2)


def test_too_much_memory_is_reported() -> None:
    with pytest.raises(isolate.Died, match="more memory than allowed"):
        isolate.run(np.ones, 512 * MIB, memory=256 * MIB)


def test_what_the_child_prints_is_discarded(capfd: pytest.CaptureFixture[str]) -> None:
    isolate.run(os.write, 1, b"noise")
    assert capfd.readouterr().out == ""


def test_ctrl_c_kills_the_child_and_leaves_no_zombie() -> None:
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        isolate.run(time.sleep, 30)
    timer.join()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_ctrl_c_right_after_the_fork_leaves_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment when the child is there and nobody would end it."""
    children: list[int] = []

    def fork() -> int:
        child = fork_before()
        if child:
            children.append(child)
            os.kill(os.getpid(), signal.SIGINT)
        return child

    fork_before = os.fork
    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(KeyboardInterrupt):
        isolate.run(time.sleep, 60)
    with pytest.raises(ProcessLookupError):
        os.kill(children[0], 0)


def test_the_child_does_not_outlive_a_parent_that_is_killed() -> None:
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        isolate.run(tell_and_wait, writer)
        os._exit(0)
    child = int(os.read(reader, 20))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    deadline = time.monotonic() + 5
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(child)


def tell_and_wait(writer: int) -> None:
    os.write(writer, str(os.getpid()).encode())
    time.sleep(60)


def alive(process: int) -> bool:
    """It is there, and no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_where_the_kernel_does_not_tell_a_thread_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fnatool.runtime.parent._libc", None)
    monkeypatch.setattr("fnatool.runtime.parent.SECONDS", 0.05)
    test_the_child_does_not_outlive_a_parent_that_is_killed()
