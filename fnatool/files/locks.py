"""Locks that vanish with their process, however it ends: flock on an open file or folder. A forked child lets go of
them at once.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNKNOWN = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF}
"""What a file system says that has no locks, or none of what is open for reading, as NFS: there nobody is kept out, and
nobody is taken

to be gone.
"""

_held: set[int] = set()  # what a child has to close: while any copy of the open file is open, the lock stays


def take_lock(handle: int) -> bool:
    """The open file is ours until it is let go of; False: another one has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise
    _held.add(handle)
    return True


def let_go(handle: int) -> None:
    """The file is closed, and may be taken by others."""
    if handle in _held:
        _held.discard(handle)
        os.close(handle)


@contextmanager
def abandoned(path: Path) -> Iterator[bool]:
    """Nobody held what is at path, as far as that can be known: whoever did is gone. It is ours until the end, to be
    removed.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


@contextmanager
def holding(handle: int) -> Iterator[int]:
    """The open file, which is ours, is let go of at the end."""
    try:
        yield handle
    finally:
        let_go(handle)


def make_locked(name: Callable[[], Path], make: Callable[[Path], int]) -> tuple[Path, int]:
    """Something new under one of the names, and its open file, which is ours. make creates it at a path and opens
    it.
    """
    while True:
        path = name()
        handle = make(path)
        if take_lock(handle):
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return path, handle
            let_go(handle)  # another one took it for abandoned before it was locked
        else:
            os.close(handle)


def _forget() -> None:
    for handle in _held:
        with suppress(OSError):
            os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_forget)
