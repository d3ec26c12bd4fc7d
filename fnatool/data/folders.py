"""Walking the folders of a data set: each real folder once, wherever links lead, and nothing of what tools put beside
data.

Without Pillow and torch, so that whatever reads images can use it; the one list of the names that images have.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from passes.errors import UserError

SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".avif"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".tga", ".mpo"),
    }
)

# What file managers, network drives and notebooks leave behind, in lower case; hidden names (".git", ".DS_Store") are
# not needed here
TOOLS = frozenset(
    {
        *(
            "__macosx",
            "__pycache__",
            "@eadir",
            "@recycle",
            "@recently-snapshot",
            "@__thumb",
            "#recycle",
            "#snapshot",
            "$recycle.bin",
        ),
        *("system volume information", "lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini"),
    }
)

KINDS = {  # of files that are no data, however they are called
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}

Identity = tuple[int, int]  # of a real folder: its device and its number on it


def is_aside(name: str) -> bool:
    """The name is hidden, or one that tools use for themselves."""
    return name.startswith(".") or name.lower() in TOOLS


def is_image(name: str) -> bool:
    """The file name ends like that of an image, and is not aside."""
    return Path(name).suffix.lower() in SUFFIXES and not is_aside(name)


def kinds() -> str:
    """The suffixes in words."""
    return ", ".join(sorted(SUFFIXES))


def special(path: Path) -> str | None:
    """What there is instead of a file at path, in words: opening it might never end. None for a file, and where there
    is nothing.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    return KINDS.get(stat.S_IFMT(mode), "no file") if not stat.S_ISREG(mode) else None


def subfolders(folder: Path) -> list[str]:
    """The names of the folders in folder, sorted, without those aside. Raises UserError where it cannot be read."""
    return [entry.name for entry in _entries(folder) if _is_folder(entry)]


def listed(folder: Path) -> list[Path]:
    """What is in a folder, sorted by name, without what is aside; nothing where it is none. Raises UserError where it
    cannot be read.
    """
    return [folder / entry.name for entry in _entries(folder)]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The same with what the disk says of each without being asked again."""
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry in found if not is_aside(entry.name)), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"'{folder}' cannot be read: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()  # noqa: PTH112 — no error for links in a circle


def below(tops: Sequence[Path]) -> list[list[Path]]:
    """The files in and below each of the folders, sorted, without what is aside.

    Links to folders are followed, and every real folder is read once: where it lies, if that is in one of the tops,
    else behind the first link that leads there. One that a top lies in is never read: the link would lead in a circle.
    Raises UserError where one cannot be read.
    """
    files: list[list[Path]] = [[] for _ in tops]
    around = {folder for top in tops for folder in Path(os.path.realpath(top)).parents}
    seen = {identity for folder in around if (identity := _identity(folder)) is not None}
    # the sort is stable: what is no link comes first
    pending = sorted(enumerate(tops), key=lambda row: row[1].is_symlink())
    while pending:
        links: list[tuple[int, Path]] = []
        for index, top in pending:
            stack = [top]
            while stack:
                folder = stack.pop()
                identity = _identity(folder)
                if identity is None or identity in seen:
                    continue
                seen.add(identity)
                for entry in _entries(folder):
                    path = folder / entry.name
                    if not _is_folder(entry):
                        files[index].append(path)
                    elif entry.is_symlink():
                        links.append((index, path))
                    else:
                        stack.append(path)
        pending = links
    return [sorted(found) for found in files]


def _identity(folder: Path) -> Identity | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def left_out(root: Path, files: Iterable[Path]) -> tuple[str, ...]:
    """A note on files that are not read because of their names, with how many of which kind; none where there are
    none.
    """
    others = list(files)
    if not others:
        return ()
    counts = Counter(path.suffix.lower() or "without suffix" for path in others).most_common()
    said = [f"{count:,} {suffix}" for suffix, count in counts[:4]]
    said += [f"{sum(count for _, count in counts[4:]):,} others"] if len(counts) > 4 else []
    first = others[0].relative_to(root).as_posix()
    return (f"{len(others):,} file(s) of kinds that are not read ({', '.join(said)}), as '{first}'",)
