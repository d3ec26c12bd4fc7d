"""Every file of a data set is looked at before anything is trained on it; what was whole is remembered, by the file's size and date."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fnatool.data import images
from fnatool.data.split import UNKNOWN, Boxed, Fault, Item, Labelled, Masked, Posed, Size, Split, bad_data, usable
from fnatool.files.atomic import replacing
from passes.check.finding import Finding
from passes.errors import UserError

VERSION = 2  # of what is looked at: another one looks again
CHUNK = 32  # images a thread takes at once

Flags = npt.NDArray[np.bool_]  # [256]: which values a mask holds
NO_VALUES = np.zeros(256, bool)


@dataclass(frozen=True)
class _Look:
    """What looking at an image and what belongs to it has found."""

    findings: tuple[Finding, ...]
    values: Flags
    key: int  # of the state of the files
    content: int = 0  # a number for the values of the mask


def checked(
    splits: Sequence[Split], *, skip_bad: bool = False, workers: int | None = None, cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Split, ...]:  # fmt: skip
    """The splits, every file of which has been decoded, without faults; or with skip_bad without what is broken. Each has its `digest`.

    All faults are found before the first is reported: raises BadData with every one of them. The splits still know what they lack
    (`left_out`, `entries_left_out`, `faults`). Raises UserError too where nothing useful is left. workers: threads, by default one a
    core. cache: the folder that remembers whole files (None: the user's cache folder). progress gets (images looked at, images in all).
    """
    groups = [_by_image(split) for split in splits]
    total, done = sum(map(len, groups)), 0
    looked: list[Split] = []
    values: list[Flags] = []
    contents: list[dict[str, int]] = []
    for split, group in zip(splits, groups, strict=True):
        memory = _Memory.of(split, cache or _cache_folder())
        found = NO_VALUES.copy()
        faults = list(split.faults)
        contents.append({})
        for name, look in _looks(split, group, memory, workers or os.cpu_count() or 1):
            faults += [Fault(finding, tuple(group[name])) for finding in look.findings]
            found |= look.values
            contents[-1][name] = look.content
            if not look.findings:
                memory.remember(look)
            done += 1
            if progress is not None:
                progress(done, total)
        memory.save()
        looked.append(replace(split, faults=tuple(faults)))
        values.append(found)
    if any(split.faults for split in looked) and not skip_bad:
        raise bad_data(looked)
    left = tuple(usable(split) for split in looked)
    for split, found in zip(left, values, strict=True):
        _require_use(split, found)
    return tuple(replace(split, digest=digest(split, content)) for split, content in zip(left, contents, strict=True))


def digest(split: Split, contents: Mapping[str, int]) -> str:
    """The same for data that teaches and measures the same: names and sizes of its files in their order, classes, labels and boxes.

    contents: by image, a number for the values of its mask.
    """
    told = blake2b(repr((split.task, split.classes, split.joints, split.codes)).encode(), digest_size=16)
    for item in split.items:
        files = [item.image, item.mask] if isinstance(item, Masked) else [item.image]
        facts: list[object] = [*files, *(_bytes(split.path(file)) for file in files), contents.get(item.image, 0)]
        if isinstance(item, Labelled):
            facts.append(item.label)
        told.update(repr(facts).encode())  # repr writes what is no text in plain letters
        for array in _arrays(item):
            told.update(array.tobytes())
    return told.hexdigest()


def _arrays(item: Item) -> tuple[npt.NDArray[np.generic], ...]:
    if isinstance(item, Boxed):
        return item.boxes, item.labels, item.crowd, item.areas
    return (item.box, item.points, item.seen, np.array([item.area])) if isinstance(item, Posed) else ()


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


def _looks(split: Split, groups: Mapping[str, list[int]], memory: _Memory, workers: int) -> Iterator[tuple[str, _Look]]:
    """A look at every image of the split, in order."""
    names = list(groups)
    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]

    def look(chunk: Sequence[str]) -> list[tuple[str, _Look]]:
        return [(name, _look(split, split.items[groups[name][0]], memory)) for name in chunk]

    pool = ThreadPoolExecutor(workers)  # Pillow does not hold Python's lock while it decodes
    try:
        for part in pool.map(look, chunks):
            yield from part
    finally:
        pool.shutdown(cancel_futures=True)


def _look(split: Split, item: Item, memory: _Memory) -> _Look:
    key = _key(split, item)
    known = memory.recalled(key)
    if known is not None:
        return known
    try:
        found = images.rgb(split.path(item.image))
    except images.Unreadable as error:
        return _Look((Finding("error", "image", _where(item), str(error)),), NO_VALUES, key)
    size = (found.height, found.width)
    if isinstance(item, Masked):
        findings, values, content = _look_at_mask(split, item, size)
        return _Look(tuple(findings), values, key, content)
    return _Look(tuple(_look_at_size(item, size)), NO_VALUES, key)


def _look_at_mask(split: Split, item: Masked, size: Size) -> tuple[list[Finding], Flags, int]:
    try:
        mask = images.mask(split.path(item.mask))
    except images.Unreadable as error:
        return [Finding("error", "mask", item.mask, str(error))], NO_VALUES, 0
    values = np.bincount(mask.ravel(), minlength=256) > 0
    findings = []
    if mask.shape != size:
        message = f"it is {_extent(mask.shape)}, its image {item.image} {_extent(size)}"
        findings.append(Finding("error", "mask-size", item.mask, message))
    unknown = np.flatnonzero(values & (np.frombuffer(split.codes, np.uint8) == UNKNOWN))
    if unknown.size:
        some = ", ".join(map(str, unknown[:5])) + (" …" if unknown.size > 5 else "")
        message = f"it holds the value{'s' if unknown.size > 1 else ''} {some}, but {_known(split)}"
        findings.append(Finding("error", "mask-value", item.mask, message))
    content = int.from_bytes(blake2b(mask.tobytes(), digest_size=8).digest(), "big")
    return findings, values, content


def _known(split: Split) -> str:
    numbers = [value for value, code in enumerate(split.codes) if code < UNKNOWN]
    return f"the {len(split.classes)} classes are {numbers[0]} … {numbers[-1]} (255: to be ignored)"


def _look_at_size(item: Item, size: Size) -> list[Finding]:
    if isinstance(item, Labelled | Masked) or item.size == size:
        return []
    message = f"it is {_extent(size)}, but the annotations say {_extent(item.size)}"
    if item.size == size[::-1]:
        message += "; if they were made before its EXIF tag turned it, save it without that tag"
    return [Finding("error", "image-size", _where(item), message)]


def _where(item: Item) -> str:
    """The image, and the entry that names it."""
    return f"{item.where} ('{item.image}')" if isinstance(item, Boxed | Posed) and item.where else item.image


def _extent(size: Sequence[int]) -> str:
    return f"{size[1]}×{size[0]}"


def _require_use(split: Split, values: Flags) -> None:
    """Something can be learnt from the split, as far as counting tells. Raises UserError."""
    where = f"'{split.root}' ({split.name})"
    if not split.items:
        first = f"; the first of {len(split.faults)} faults: {_first(split)}" if split.faults else ""
        raise UserError(f"nothing is left of the {split.found:,} samples in {where}{first}")
    if isinstance(split.items[0], Boxed):
        require_boxes(split)
    if split.task == "segmentation":
        classes = {split.codes[value] for value in np.flatnonzero(values)} & set(range(len(split.classes)))
        if len(classes) < (2 if split.name == "train" else 1):
            only = f"only '{split.classes[classes.pop()]}'" if classes else "no class"
            lost = "so there is nothing to tell apart" if split.name == "train" else "so there is nothing to measure"
            hint = "; 255 means a pixel to ignore: if it stands for a class, save that class as its number" if values[255] else ""
            raise UserError(f"the masks in {where} hold {only}, {lost}{hint}")


def require_boxes(split: Split) -> None:
    """There is an object to find in the split. Raises UserError."""
    boxed = [item for item in split.items if isinstance(item, Boxed)]
    if not any((~item.crowd).any() for item in boxed):
        images = f"the {len(boxed):,} image{'s' if len(boxed) != 1 else ''} of '{split.root}' ({split.name})"
        only = any(len(item.boxes) for item in boxed)
        what = f"every box in {images} is a crowd (iscrowd)" if only else f"none of {images} has a box"
        raise UserError(f"{what}, so there is nothing to {'learn' if split.name == 'train' else 'measure'}")


def _first(split: Split) -> str:
    return f"{split.faults[0].finding.where}: {split.faults[0].finding.message}"


# --- what was whole the last time ---


@dataclass
class _Memory:
    """The images of a split that were found whole, by the state of their files, and the values of their masks."""

    path: Path
    before: dict[int, _Look]
    now: dict[int, _Look]

    @classmethod
    def of(cls, split: Split, folder: Path) -> _Memory:
        name = blake2b(os.fsencode(f"{split.root.resolve()}\n{split.task}\n{split.name}"), digest_size=16).hexdigest()
        path = folder / f"{name}.npy"
        return cls(path, _load(path), {})

    def recalled(self, key: int) -> _Look | None:
        return self.before.get(key)

    def remember(self, look: _Look) -> None:
        self.now[look.key] = look

    def save(self) -> None:
        """Forget nothing of this run; where the cache cannot be written, the next check looks again, that is all."""
        rows = np.zeros(len(self.now), ROW)
        for index, look in enumerate(self.now.values()):
            rows[index] = (look.key, np.packbits(look.values), look.content)
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as (file,):
                np.lib.format.write_array(file, rows, allow_pickle=False)


ROW = np.dtype([("key", np.uint64), ("values", np.uint8, (32,)), ("content", np.uint64)])


def _load(path: Path) -> dict[int, _Look]:
    try:
        with path.open("rb") as file:
            rows = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return {}
    if rows.dtype != ROW:
        return {}
    values = np.unpackbits(rows["values"], axis=1).astype(bool) if rows["values"].any() else [NO_VALUES] * len(rows)
    looks = zip(rows["key"].tolist(), values, rows["content"].tolist(), strict=True)
    return {key: _Look((), flags, key, content) for key, flags, content in looks}


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fnatool" / "checked"


def _key(split: Split, item: Item) -> int:
    """A number for what the files are, how large, and when they were last written, and for what is expected of them."""
    files = [item.image, item.mask] if isinstance(item, Masked) else [item.image]
    facts: list[object] = [VERSION, split.codes]
    facts += [item.size] if isinstance(item, Boxed | Posed) else []
    for file in files:
        path = split.path(file)
        try:
            status = path.stat()
        except OSError:
            facts += [str(path)]
        else:
            facts += [str(path), status.st_size, status.st_mtime_ns]
    return int.from_bytes(blake2b(repr(facts).encode(), digest_size=8).digest(), "big")
