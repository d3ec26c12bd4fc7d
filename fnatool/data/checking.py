"""Every file of a data set is looked at before anything is trained on it; what was whole is remembered, by the file's
size and date.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from fnatool.data import images
from fnatool.data.split import NO_VALUES, Fault, Flags, Item, Look, Split, bad_data, usable
from fnatool.files.atomic import replacing
from passes.check.finding import Finding
from passes.errors import UserError

VERSION = 2  # of what is looked at: another one looks again
CHUNK = 32  # images a thread takes at once


@dataclass(frozen=True)
class _Seen:
    """What looking at an image and what belongs to it has found, and a number for the state of the files."""

    look: Look
    key: int


def checked(
    splits: Sequence[Split], *, skip_bad: bool = False, workers: int | None = None, cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Split, ...]:  # fmt: skip
    """The splits, every file of which has been decoded, without faults; or with skip_bad without what is broken. Each
    has its `digest`.

    All faults are found before the first is reported: raises BadData with every one of them. The splits still know what
    they lack (`left_out`, `entries_left_out`, `faults`). Raises UserError too where nothing useful is left. workers:
    threads, by default one a core. cache: the folder that remembers whole files (None: the user's cache folder).
    progress gets (images looked at, images in all).
    """
    seen = list(looked_at(splits, workers=workers, cache=cache, progress=progress))
    if any(one.split.faults for one in seen) and not skip_bad:
        raise bad_data([one.split for one in seen])
    left = tuple(usable(one.split) for one in seen)
    for split, one in zip(left, seen, strict=True):
        require_use(split, one.values)
    contents = [{name: look.content for name, look in one.looks.items()} for one in seen]
    return tuple(replace(split, digest=digest(split, content)) for split, content in zip(left, contents, strict=True))


@dataclass(frozen=True)
class LookedAt:
    """A split with all of its faults, what was found in each image, and the values that its masks hold."""

    split: Split
    looks: Mapping[str, Look]
    values: Flags


def looked_at(
    splits: Sequence[Split],
    *,
    workers: int | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[LookedAt]:
    """Each split, after every file of it has been decoded. The arguments are those of `checked`."""
    groups = [_by_image(split) for split in splits]
    total, done = sum(map(len, groups)), 0
    for split, group in zip(splits, groups, strict=True):
        memory = _Memory.of(split, cache or _cache_folder())
        values = NO_VALUES.copy()
        faults = list(split.faults)
        looks: dict[str, Look] = {}
        for name, seen in _looks(split, group, memory, workers or os.cpu_count() or 1):
            look = seen.look
            faults += [Fault(finding, tuple(group[name])) for finding in look.findings]
            values |= look.values
            looks[name] = look
            if not look.findings:
                memory.remember(seen)
            done += 1
            if progress is not None:
                progress(done, total)
        memory.save()
        yield LookedAt(replace(split, faults=tuple(faults)), looks, values)


def digest(split: Split, contents: Mapping[str, int]) -> str:
    """The same for data that teaches and measures the same: names and sizes of its files in their order, classes,
    labels and boxes.

    contents: by image, a number for the values of its mask.
    """
    told = blake2b(repr((split.task, split.classes, split.joints, split.codes)).encode(), digest_size=16)
    for item in split.items:
        sizes = [_bytes(split.path(file)) for file in item.files]
        facts: list[object] = [*item.files, *sizes, contents.get(item.image, 0), *item.facts()]
        told.update(repr(facts).encode())  # repr writes what is no text in plain letters
        for array in item.arrays():
            told.update(array.tobytes())
    return told.hexdigest()


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _by_image(split: Split) -> dict[str, list[int]]:
    """The indices of the items of each image."""
    found: dict[str, list[int]] = {}
    for index, item in enumerate(split.items):
        found.setdefault(item.image, []).append(index)
    return found


def _looks(split: Split, groups: Mapping[str, list[int]], memory: _Memory, workers: int) -> Iterator[tuple[str, _Seen]]:
    """A look at every image of the split, in order."""
    names = list(groups)
    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]

    def look(chunk: Sequence[str]) -> list[tuple[str, _Seen]]:
        return [(name, _look(split, split.items[groups[name][0]], memory)) for name in chunk]

    pool = ThreadPoolExecutor(workers)  # Pillow does not hold Python's lock while it decodes
    try:
        for part in pool.map(look, chunks):
            yield from part
    finally:
        pool.shutdown(cancel_futures=True)


def _look(split: Split, item: Item, memory: _Memory) -> _Seen:
    key = _key(split, item)
    known = memory.recalled(key)
    if known is not None:
        return _Seen(known, key)
    try:
        found = images.rgb(split.path(item.image))
    except images.Unreadable as error:
        return _Seen(Look((Finding("error", "image", item.site, str(error)),)), key)
    return _Seen(item.look(split, (found.height, found.width)), key)


def require_use(split: Split, values: Flags) -> None:
    """Something can be learnt from the split, as far as counting tells. Raises UserError."""
    if not split.items:
        first = f"; the first of {len(split.faults)} faults: {_first(split)}" if split.faults else ""
        raise UserError(f"nothing is left of the {split.found:,} samples in '{split.root}' ({split.name}){first}")
    type(split.items[0]).require_use(split, values)


def _first(split: Split) -> str:
    return f"{split.faults[0].finding.where}: {split.faults[0].finding.message}"


# --- what was whole the last time ---


@dataclass
class _Memory:
    """The images of a split that were found whole, by the state of their files, and the values of their masks."""

    path: Path
    before: dict[int, Look]
    now: dict[int, Look]

    @classmethod
    def of(cls, split: Split, folder: Path) -> _Memory:
        name = blake2b(os.fsencode(f"{split.root.resolve()}\n{split.task}\n{split.name}"), digest_size=16).hexdigest()
        path = folder / f"{name}.npy"
        return cls(path, _load(path), {})

    def recalled(self, key: int) -> Look | None:
        return self.before.get(key)

    def remember(self, seen: _Seen) -> None:
        self.now[seen.key] = seen.look

    def save(self) -> None:
        """Forget nothing of this run; where the cache cannot be written, the next check looks again, that is all."""
        rows = np.zeros(len(self.now), ROW)
        for index, (key, look) in enumerate(self.now.items()):
            rows[index] = (key, np.packbits(look.values), look.content)
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as (file,):
                np.lib.format.write_array(file, rows, allow_pickle=False)


ROW = np.dtype([("key", np.uint64), ("values", np.uint8, (32,)), ("content", np.uint64)])


def _load(path: Path) -> dict[int, Look]:
    try:
        with path.open("rb") as file:
            rows = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return {}
    if rows.dtype != ROW:
        return {}
    values = np.unpackbits(rows["values"], axis=1).astype(bool) if rows["values"].any() else [NO_VALUES] * len(rows)
    looks = zip(rows["key"].tolist(), values, rows["content"].tolist(), strict=True)
    return {key: Look((), flags, content) for key, flags, content in looks}


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fnatool" / "checked"


def _key(split: Split, item: Item) -> int:
    """A number for what the files are, how large, and when they were last written, and for what is expected of them."""
    facts: list[object] = [VERSION, split.codes, *([split.colours] if split.colours else [])]
    facts += [item.stated] if item.stated is not None else []
    for file in item.files:
        path = split.path(file)
        try:
            status = path.stat()
        except OSError:
            facts += [str(path)]
        else:
            facts += [str(path), status.st_size, status.st_mtime_ns]
    return int.from_bytes(blake2b(repr(facts).encode(), digest_size=8).digest(), "big")
