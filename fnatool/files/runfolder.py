"""The folder of a run, of fine-tuning or of a search: ours by a mark, in use by one process at a time, and emptied of
what we wrote alone.

The mark is a hidden file. Its lock vanishes with the process that holds it, so that after any kill the same command
goes on.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fnatool.files import locks
from fnatool.files.atomic import DRAFT, WORKPLACE
from passes.errors import UserError

MARK = ".fnatool-run"
WIDTH = 80  # bytes of the mark: it is written at once, and never cut short
LINE = re.compile(r"fnatool (?P<kind>[a-z]+) 1, last opened by process (?P<process>\d+)\s*")
# what is prepared, what is set aside, what was and is not wanted
NEW, OLD, GONE = ".fnatool-new", ".fnatool-old", ".fnatool-gone"


@dataclass(frozen=True)
class RunLayout:
    """What a run of a kind writes into its folder: files, folders of files (patterns of their names), and drafts that
    have a name.

    option: what names another folder. first: the file that a run has from when it begins. kept: folders that a run
    which begins anew finds as they were.
    """

    kind: str
    what: str
    option: str
    first: str
    files: frozenset[str]
    folders: Mapping[str, RunLayout | str] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """All of them."""
        return self.files | frozenset(self.folders) | self.kept


CHECKPOINT, BEST, METRICS, EVENTS = "checkpoint.pt", "best.pt", "metrics.jsonl", "events"
CONFIG, REPORT, SHOWN = "config.json", "report.json", "report.html"
OF_EVENTS = r"events\.out\.tfevents\..+"  # TensorBoard's files
TUNING = RunLayout(
    "finetune",
    "run",
    "--work-dir",
    CONFIG,
    frozenset({CHECKPOINT, BEST, METRICS, CONFIG, REPORT, SHOWN}),
    {EVENTS: OF_EVENTS},
)


@contextmanager
def hold_folder(folder: Path, layout: RunLayout) -> Iterator[None]:
    """The folder is there, is a run of this kind or new, and nobody else's until the end; drafts that a killed process
    left are gone.

    Where what is done within it fails before a run begins, a new folder is as it was before: unmarked, or not there.
    Raises UserError where it holds anything else, where another process works in it, and where what it holds cannot be
    one of a run.
    """
    _require_ours(folder, layout)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    before = {path.name for path in folder.iterdir()}
    with locks.holding(_take_mark(folder, layout)) as handle:
        _require_ours(folder, layout)  # it may have become another's before it was locked
        os.pwrite(
            handle,
            f"fnatool {layout.kind} 1, last opened by process {os.getpid()}".ljust(WIDTH - 1).encode() + b"\n",
            0,
        )
        try:
            require_regular(folder, layout)
            _recover(folder, layout)
            yield
        except BaseException:
            if MARK not in before and not os.path.lexists(folder / layout.first):  # it was refused
                _leave(folder, layout, missing)
            raise


def _take_mark(folder: Path, layout: RunLayout) -> int:
    """The open mark of the folder, locked. Raises UserError where another process holds it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(
                folder / MARK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666
            )
        except FileNotFoundError:  # the folder was taken away just now
            continue
        if not locks.take_lock(handle):
            line = LINE.fullmatch(os.pread(handle, WIDTH, 0).decode(errors="replace"))
            os.close(handle)
            who = f"process {line['process']}" if line else "another process"
            raise UserError(
                f"'{folder}' is in use by {who}; wait for its end, or give another folder with {layout.option}"
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), (folder / MARK).lstat()):
                return handle
        locks.let_go(handle)  # who had it left no run, and took the mark away before it let go


def _leave(folder: Path, layout: RunLayout, made: Sequence[Path]) -> None:
    """The folder is as it was before anything was tried there: without a mark, and gone where it was made for that."""
    with suppress(OSError):
        for path in list(written(folder, layout)):
            path.unlink()
        if any((folder / name).is_dir() for name in layout.kept):
            return  # what it holds may be of use to the next one
        (folder / MARK).unlink()
        for path in made:
            path.rmdir()


def _require_ours(folder: Path, layout: RunLayout) -> None:
    """Raises UserError where the folder is none, or holds what no run of this kind has written."""
    if folder.is_symlink() and not folder.exists():
        raise UserError(
            f"'{folder}', where the run is to be kept, is a link to nowhere; give another folder with {layout.option}"
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"'{folder}', where the run is to be kept, is not a folder; give another one with {layout.option}"
        )
    if not folder.is_dir():
        return
    kind = kind_of(folder)
    if kind == layout.kind:
        return
    if kind is not None:
        raise UserError(f"'{folder}' is of a run of 'fnatool {kind}'; give another folder with {layout.option}")
    others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if others:
        raise UserError(
            f"'{folder}' holds '{others[0]}', which is of no {layout.what}: one has fnatool's mark ('{MARK}') "
            "in its folder; "
            f"give another folder with {layout.option}"
        )


def kind_of(folder: Path) -> str | None:
    """What kind of run the folder is of; None: of none. Raises UserError where its mark is not what we write."""
    path = folder / MARK
    try:
        found = path.lstat()
    except OSError:
        return None
    data = b""
    if stat.S_ISREG(found.st_mode) and found.st_size <= WIDTH:
        data = path.read_bytes()
        if not data:  # whoever made it was killed before it could write
            return None
    line = LINE.fullmatch(data.decode(errors="replace"))
    if line is None:
        raise UserError(
            f"'{path}' is not what fnatool writes there; give another folder, or remove it if the folder is of a run"
        )
    return line["kind"]


def require_regular(folder: Path, layout: RunLayout) -> None:
    """Whatever in the folder has the name of a run's file is a file, and of a run's folder a folder. Raises UserError.

    A link may lead to either: events on another disk, say.
    """
    for name in sorted(layout.files):
        path = folder / name
        if path.is_symlink() and not path.exists():
            continue
        if path.exists() and not path.is_file():
            raise UserError(
                f"'{path}' is not a regular file, so '{folder}' is damaged; remove it, or give another folder"
            )
    for name in sorted({*layout.folders, *layout.kept}):
        path = folder / name
        if os.path.lexists(path) and not path.is_dir():
            raise UserError(
                f"'{path}' is no folder, or a link to nowhere, so '{folder}' is damaged; remove it, or give "
                "another folder"
            )
        inner = layout.folders.get(name)
        if path.is_dir() and isinstance(inner, RunLayout):
            require_regular(path, inner)


# --- drafts -------------------------------------------------------------------------------------


def _recover(folder: Path, layout: RunLayout) -> None:
    """What killed processes left that no file's next draft would clear away: nobody else works here."""
    undone = (folder / OLD).is_dir()  # emptying it had not come to its end
    for place, names in _places(folder, layout):
        if undone and (place / OLD).is_dir():
            for path in (place / OLD).iterdir():
                path.replace(place / path.name)
        for left in (NEW, OLD, GONE):
            if (place / left).is_dir() and not (place / left).is_symlink():
                shutil.rmtree(place / left)
        for path in list(place.iterdir()):
            match = DRAFT.fullmatch(path.name)
            if match is not None and match["kind"] == "tmp" and match["name"] in names:
                with locks.abandoned(path) as gone:
                    if gone and path.is_dir():
                        shutil.rmtree(path)
                    elif gone:
                        path.unlink()


def _places(folder: Path, layout: RunLayout) -> Iterator[tuple[Path, frozenset[str]]]:
    """The folders of a run, the inner ones first, and the names of what has drafts there."""
    for name, inner in layout.folders.items():
        if (folder / name).is_dir():
            yield from _places(folder / name, inner) if isinstance(inner, RunLayout) else [(folder / name, frozenset())]
    yield folder, layout.names | {WORKPLACE}


# --- beginning anew -----------------------------------------------------------------------------


def written(folder: Path, layout: RunLayout) -> Iterator[Path]:
    """The files in the folder that have the names of those a run writes."""
    for name in sorted(layout.files):
        if os.path.lexists(folder / name):
            yield folder / name
    for name, inner in layout.folders.items():
        place = folder / name
        if not place.is_dir():
            continue
        if isinstance(inner, RunLayout):
            yield from written(place, inner)
        else:
            yield from sorted(path for path in place.iterdir() if re.fullmatch(inner, path.name) and not path.is_dir())


def empty_folder(folder: Path, layout: RunLayout, arrange: Callable[[], None] = lambda: None) -> None:
    """Nothing is left of an earlier run, and nothing else is touched; arrange puts what is new in its place.

    Every file is set aside first: where one cannot be, or arrange fails, or the process is killed, all are back. Raises
    OSError then.
    """
    aside: list[tuple[Path, Path]] = []
    (folder / OLD).mkdir()
    try:
        for path in written(folder, layout):
            place = path.parent / OLD
            place.mkdir(exist_ok=True)
            path.rename(place / path.name)
            aside.append((path, place / path.name))
        arrange()
        (folder / OLD).rename(folder / GONE)  # from here on the earlier run is no more
    except BaseException:
        for path, other in reversed(aside):
            other.replace(path)
        for place in {folder, *(path.parent for path, _ in aside)}:
            (place / OLD).rmdir()
        raise
    _recover(folder, layout)
    for name in layout.folders:
        with suppress(OSError):  # it is a link, or holds what others have put there
            (folder / name).rmdir()
