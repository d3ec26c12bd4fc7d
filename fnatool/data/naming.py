"""Which file an entry of COCO's json means: its name as annotation tools write it, in the folder where its images turn
out to be.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from fnatool.data.folders import subfolders
from fnatool.data.sources import split_in, split_of

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "data", "jpegimages")  # in any case
LOOKED_AT = 64  # names that tell where all are
LONGEST = 255  # bytes of a name between slashes
DEEPEST = 12  # folders before a name that are looked past
# as Label Studio and clouds say where a file is
SERVED = re.compile(r"/data/(upload|local-files/\?d=)|[a-z][a-z0-9+.-]*://[^/]*", re.I)


@dataclass(frozen=True)
class ImagePlace:
    """A folder of images, and how many folders of the names in the json it stands for. Nothing outside `within` is
    looked at.
    """

    folder: Path
    skipped: int
    within: tuple[Path, ...]

    def has(self, name: str) -> bool:
        """There is a file of that name, which has all the folders that are left off."""
        return (
            any(len(PurePosixPath(form).parts) > self.skipped for form in forms(name)) and self.file(name) is not None
        )

    def file(self, name: str) -> Path | None:
        """The file of that name, if there is one."""
        return next((path for path in self._paths(name) if os.path.isfile(path)), None)  # noqa: PTH113 — no error for a name too long

    def expected(self, name: str) -> Path | None:
        """Where the file would be; None where the name leads out of the data."""
        return next(self._paths(name), None)

    def _paths(self, name: str) -> Iterator[Path]:
        for form in forms(name):
            parts = PurePosixPath(form).parts
            if not is_absolute(form):
                parts = parts[self.skipped :] or parts
                if ".." not in parts:
                    yield self.folder.joinpath(*parts)
                    continue
            elif not form.startswith("/"):
                continue  # on a disk of Windows
            path = os.path.abspath(self.folder.joinpath(*parts))  # noqa: PTH100 — not resolved: links may lead out, names may not
            for folder in self.within:
                inside = os.path.relpath(path, folder)
                if not inside.startswith(".."):
                    yield folder / inside
                    break


def forms(name: str) -> Iterator[str]:
    """The ways of reading a name, the most literal first: backslashes may be separators, characters quoted as in a URL,
    accents apart.
    """
    seen: set[str] = set()
    plain = SERVED.sub("", name, count=1).lstrip("/") if SERVED.match(name) else name
    for form in (plain, plain.replace("\\", "/"), unquote(plain).replace("\\", "/")):
        for kind in (form, unicodedata.normalize("NFC", form), unicodedata.normalize("NFD", form)):
            if kind not in seen and PurePosixPath(kind).name:
                seen.add(kind)
                yield kind


def is_absolute(name: str) -> bool:
    """The name begins at the root of a disk, here or on Windows."""
    return PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()


def is_name(name: object) -> bool:
    """A text that a file can be called."""
    if not isinstance(name, str) or "\0" in name or not PurePosixPath(name).name:
        return False
    try:
        parts = os.fsencode(name).split(b"/")
    except UnicodeEncodeError:
        return False
    return max(map(len, parts)) <= LONGEST


def place(names: Sequence[str], folders: Sequence[Path], within: Sequence[Path]) -> ImagePlace:
    """Where most of the names are found, the same place for all, so that none is looked for in the folder of another
    split.

    Tried are the folders, the likeliest first, with none, one, two … folders of the names left off; of equals the first
    is it.
    """
    some = names[:: max(len(names) // LOOKED_AT, 1)]
    best, most = ImagePlace(folders[0], 0, tuple(within)), 0
    for skipped in range(_deepest(some) + 1):
        for folder in folders:
            tried = ImagePlace(folder, skipped, tuple(within))
            hits = sum(tried.has(name) for name in some)
            if hits > most:
                best, most = tried, hits
            if most == len(some):
                return best
    return best


def _deepest(names: Sequence[str]) -> int:
    return min(max((len(PurePosixPath(form).parts) - 1 for name in names for form in forms(name)), default=0), DEEPEST)


def image_folders(file: Path, root: Path, split: str) -> list[Path]:
    """Where the images of an annotation file may be, the likeliest first: train2017 beside annotations, or what people
    make of it.
    """
    last = file.stem.rpartition("_")[2].lower()
    around = file.parent.parent if file.parent.name.lower() in ("annotations", "labels") else file.parent
    tops = list(dict.fromkeys([around, root, file.parent]))
    inside = [folder for top in tops for folder in (*_named(top, IMAGE_FOLDERS), top)]
    own = [top / name for top in inside for name in _sorted(subfolders(top), last, split)]
    return list(dict.fromkeys([*own, *inside]))


def _named(folder: Path, names: Sequence[str]) -> list[Path]:
    return [folder / name for wanted in names for name in subfolders(folder) if name.lower() == wanted]


def _sorted(names: Sequence[str], last: str, split: str) -> list[str]:
    """The folders of a split: the one that is called like the end of the json's name first."""
    suits = [name for name in names if name.lower() == last or split in (split_of(name), split_in(name))]
    return sorted(suits, key=lambda name: name.lower() != last)
