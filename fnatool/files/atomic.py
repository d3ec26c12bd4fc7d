"""Output files: complete or absent, never half written, never over something the user did not offer.

A file is written as a draft beside its place, `.NAME.TOKEN.tmp`, which is locked as long as its process lives; what a
killed one left is cleared away by the next that writes there. Files that belong together have one token: all take their
places, or none.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fnatool.files import locks
from passes.errors import UserError

TOKEN = "[0-9a-f]{8}"
DRAFT = re.compile(rf"\.(?P<name>.+)\.(?P<token>{TOKEN})\.(?P<kind>tmp|old)", re.DOTALL)
LONGEST = 200  # bytes of a name that a draft's may quote; a file's may have 255
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
WORKPLACE, TEMPORARY = "work", "fnatool-"


def require_writable(path: Path, *, force: bool = False, forbid: Iterable[Path] = ()) -> None:
    """A file may be put at path: its folder exists, it is none of the files in forbid, and it is new unless force.
    Raises UserError.

    What a killed process left of a draft for it is gone.
    """
    if not path.parent.is_dir():
        raise UserError(f"'{path.parent}', the folder for '{path.name}', does not exist; create it first")
    if path.is_dir():
        raise UserError(f"'{path}' is a folder; give the name of a file in it")
    recover(path)
    if not os.path.lexists(path):
        return
    for other in forbid:
        if same_file(path, other):
            raise UserError(
                f"'{path}' is the input '{other}' itself, which is never overwritten; choose another output"
            )
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
def replacing(*paths: Path, force: bool = True) -> Iterator[tuple[BinaryIO, ...]]:
    """Files to write to; at the end they take the places of paths, the last one first. After any failure nothing has
    changed.

    Unless force, nothing is replaced, even if it has appeared meanwhile. Raises UserError then.
    """
    recover(*paths)
    token = secrets.token_hex(4)
    drafts = [_draft(path, token) for path in paths]
    with _naming(paths, drafts), ExitStack() as stack:
        for draft in drafts:
            stack.callback(draft.unlink, missing_ok=True)
        files = tuple(stack.enter_context(_create(draft)) for draft in drafts)
        yield files
        for file in files:  # all on disk before the first takes its place: a full disk shows here
            file.flush()
            os.fsync(file.fileno())
        _put(list(zip(drafts, paths, strict=True)), force=force)


def _put(pairs: Sequence[tuple[Path, Path]], *, force: bool) -> None:
    """Every draft is at its place, or none that was not there before."""
    done: list[Path] = []
    try:
        for draft, path in reversed(pairs):
            if force:
                draft.replace(path)
            else:
                _place(draft, path)
                done.append(path)
    except BaseException:
        for path in done:
            path.unlink(missing_ok=True)
        raise


def _place(draft: Path, path: Path) -> None:
    """The draft is at path too, where nothing was. A rename would replace what has appeared there meanwhile."""
    try:
        try:
            os.link(draft, path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            draft.replace(path)
    except FileExistsError as error:
        raise UserError(
            f"'{path}' has appeared meanwhile; choose another output or pass --force to overwrite it"
        ) from error


def recover(*paths: Path) -> None:
    """No draft for any of the paths is left by a process that is gone; what it had put in one place but not in all is
    taken back.
    """
    groups: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    wanted = {(path.parent, _quoted(path.name)): path for path in paths}
    with ExitStack() as stack:
        for folder in dict.fromkeys(path.parent for path in paths):
            found = [
                (name, match) for name in _names(folder) if (match := DRAFT.fullmatch(name)) and match["kind"] == "tmp"
            ]
            tokens = {match["token"] for _, match in found if (folder, match["name"]) in wanted}
            for name, match in found:
                draft, target = folder / name, wanted.get((folder, match["name"]), folder / match["name"])
                if match["token"] in tokens and draft.is_file() and stack.enter_context(locks.abandoned(draft)):
                    groups[match["token"]].append((draft, target))
        for pairs in groups.values():
            placed = [
                target for draft, target in pairs if target.exists() and draft.exists() and target.samefile(draft)
            ]
            for path in (*(placed if len(placed) < len(pairs) else ()), *(draft for draft, _ in pairs)):
                path.unlink(missing_ok=True)


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def _quoted(name: str) -> str:
    """A name as its draft says it: the longest file name leaves no room."""
    data = os.fsencode(name)
    return name if len(data) <= LONGEST else hashlib.blake2b(data, digest_size=16).hexdigest()


def _draft(path: Path, token: str, kind: str = "tmp") -> Path:
    return path.with_name(f".{_quoted(path.name)}.{token}.{kind}")


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


@contextmanager
def _create(path: Path) -> Iterator[BinaryIO]:
    """A new file to write to, ours until the end."""

    def make(path: Path) -> int:
        # mkstemp would make the result private (0600) whatever the user's umask says
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)

    _, handle = locks.make_locked(lambda: path, make)
    with locks.holding(handle), os.fdopen(handle, "wb", closefd=False) as file:
        yield file


def write_text(path: Path, text: str, *, force: bool = False, forbid: Iterable[Path] = ()) -> None:
    """The file at path holds text, in UTF-8. Raises UserError as require_writable does, and OSError."""
    require_writable(path, force=force, forbid=forbid)
    with replacing(path, force=force) as (file,):
        file.write(text.encode())


# --- folders ------------------------------------------------------------------------------------


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill; at the end it takes the place of path, with all that was in there. After any failure
    nothing has changed.
    """
    _recover_folder(path)
    token = secrets.token_hex(4)
    old = _draft(path, token, "old")
    with _new_folder(_draft(path, token)) as made:
        yield made
        if path.is_dir():
            path.replace(old)
        try:
            made.replace(path)
        except BaseException:
            if old.is_dir():
                old.replace(path)
            raise
        if old.is_dir():
            shutil.rmtree(old)


def _recover_folder(path: Path) -> None:
    """What a killed process left of a draft for the folder is gone, and what it had set aside is back, or gone where
    the new one is.
    """
    for name in sorted(_names(path.parent)):  # what was set aside comes first
        match = DRAFT.fullmatch(name)
        if match is None or match["name"] != _quoted(path.name):
            continue
        left, draft = path.with_name(name), _draft(path, match["token"])
        with locks.abandoned(draft if draft.is_dir() else left) as gone:
            if gone and match["kind"] == "old" and not path.exists():
                left.replace(path)
            elif gone and left.is_dir():
                shutil.rmtree(left)


@contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """A new folder in this one for drafts that are read again; it is gone at the end, or after a kill when the next one
    is made.
    """
    _clear(folder, re.compile(rf"\.{WORKPLACE}\.{TOKEN}\.tmp"))
    with _new_folder(_draft(folder / WORKPLACE, secrets.token_hex(4))) as made:
        yield made


@contextmanager
def temporary() -> Iterator[Path]:
    """The same in the system's place for temporary files."""
    place = _temporary_folder()
    _clear(place, re.compile(f"{TEMPORARY}{TOKEN}"))
    with _new_folder(place / f"{TEMPORARY}{secrets.token_hex(4)}", mode=0o700) as made:
        yield made


def _temporary_folder() -> Path:
    """The system's place for temporary files. Python would try folders by writing a file, which a kill in that moment
    leaves there.
    """
    if tempfile.tempdir is None:
        folders = (*filter(None, map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))), "/tmp", "/var/tmp")
        tempfile.tempdir = next(
            (str(Path(folder).resolve()) for folder in folders if os.access(folder, os.W_OK | os.X_OK)), None
        )
    return Path(tempfile.gettempdir())


def _clear(folder: Path, pattern: re.Pattern[str]) -> None:
    """Folders of ours with such names are gone, if their processes are."""
    for name in _names(folder):
        left = folder / name
        if pattern.fullmatch(name) and left.is_dir() and left.stat().st_uid == os.getuid():
            with locks.abandoned(left) as gone:
                if gone:
                    shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _new_folder(path: Path, mode: int = 0o777) -> Iterator[Path]:
    """A new folder, ours until the end; then it is gone, unless it has been given another name."""

    def make(path: Path) -> int:
        with suppress(FileExistsError):  # the second time: another one took the first for abandoned
            path.mkdir(mode)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    made, handle = locks.make_locked(lambda: path, make)
    with locks.holding(handle):
        try:
            yield made
        finally:
            if made.is_dir():
                shutil.rmtree(made)
