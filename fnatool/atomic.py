"""Output files: complete or absent, never half written, never over something the user did not offer."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from passes.errors import UserError


def require_writable(path: Path, *, force: bool = False, forbid: Iterable[Path] = ()) -> None:
    """A file may be put at path: its folder exists, it is none of the files in forbid, and it is new unless force. Raises UserError."""
    if not path.parent.is_dir():
        raise UserError(f"'{path.parent}', the folder for '{path.name}', does not exist; create it first")
    if path.is_dir():
        raise UserError(f"'{path}' is a folder; give the name of a file in it")
    if not os.path.lexists(path):
        return
    for other in forbid:
        if same_file(path, other):
            raise UserError(f"'{path}' is the input '{other}' itself, which is never overwritten; choose another output")
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"'{path}' is not a regular file; choose another output")
    if not force:
        raise UserError(f"'{path}' exists; choose another output or pass --force to overwrite it")


def same_file(one: Path, other: Path) -> bool:
    """Both paths lead to one file, through links or not."""
    if one.exists() and other.exists():
        return one.samefile(other)
    return os.path.realpath(one) == os.path.realpath(other)


@contextmanager
def replacing(*paths: Path) -> Iterator[tuple[BinaryIO, ...]]:
    """Files to write to; at the end they take the places of paths, the last one first. After any failure nothing has changed."""
    temporary = [path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp") for path in paths]
    try:
        with _naming(paths, temporary), ExitStack() as stack:
            files = tuple(stack.enter_context(_create(path)) for path in temporary)
            yield files
            for file in files:  # all on disk before the first takes its place: a full disk shows here
                file.flush()
                os.fsync(file.fileno())
        for source, target in reversed(list(zip(temporary, paths, strict=True))):
            source.replace(target)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)


@contextmanager
def _naming(paths: Sequence[Path], temporary: Sequence[Path]) -> Iterator[None]:
    """A failure names the output that the user knows, not the file that would have become it."""
    known = {str(source): str(target) for source, target in zip(temporary, paths, strict=True)}
    try:
        yield
    except OSError as error:
        if error.filename is None or error.filename in known:
            raise OSError(error.errno, error.strerror, known.get(str(error.filename), str(paths[0]))) from error
        raise


def _create(path: Path) -> BinaryIO:
    # mkstemp would make the result private (0600) whatever the user's umask says
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb")


def write_text(path: Path, text: str, *, force: bool = False, forbid: Iterable[Path] = ()) -> None:
    """The file at path holds text, in UTF-8. Raises UserError as require_writable does, and OSError."""
    require_writable(path, force=force, forbid=forbid)
    with replacing(path) as (file,):
        file.write(text.encode())


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill; at the end it takes the place of path, with all that was in there. After any failure nothing has changed."""
    token = secrets.token_hex(4)
    made, old = (path.with_name(f".{path.name}.{token}.{kind}") for kind in ("tmp", "old"))
    made.mkdir()
    try:
        yield made
        if path.is_dir():
            path.replace(old)
        try:
            made.replace(path)
        except BaseException:
            if old.is_dir():
                old.replace(path)
            raise
    finally:
        for left in (made, old):
            if left.is_dir():
                shutil.rmtree(left)
