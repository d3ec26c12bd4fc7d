"""Samples that are arrays: .npy files for a network with one input, .npz files with an array per input for any.

An array is one sample, or has an axis of samples before. Nothing is unpickled.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from fnatool.data import folders
from fnatool.data.inputs import Sample, SampleInput, Unreadable, Values, described

SUFFIXES = (".npy", ".npz")
LARGEST = 1 << 31  # bytes of an array in a .npz file, which is read whole

# What reading such files raises where they are not what they say
DAMAGED: tuple[type[Exception], ...] = (
    *(
        OSError,
        ValueError,
        EOFError,
        KeyError,
        TypeError,
        SyntaxError,
        NotImplementedError,
        RuntimeError,
        OverflowError,
    ),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
# of element types that become each other where the values allow it; any other only its own
KINDS = {"i": "iu", "u": "iu"}


@dataclass(frozen=True)
class Header:
    """What a file says of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


@dataclass(frozen=True)
class Arrays:
    """Samples that are arrays in files, for a network with these inputs."""

    inputs: tuple[SampleInput, ...]

    plural = "samples"
    kinds = ", ".join(SUFFIXES)

    def takes(self, name: str) -> bool:
        """The file name ends like that of arrays."""
        return is_arrays(name)

    def count(self, path: Path) -> int:
        """How many samples the file holds, by its headers. Raises Unreadable where they do not fit the network."""
        with _reading(path):
            return self._count(_headers(path), path)

    def opened(self, path: Path) -> Callable[[int], Sample]:
        """What gives the sample of each row of the file. Raises Unreadable, as does what is returned."""
        with _reading(path):
            self._count(_headers(path), path)
            arrays = _arrays(path, [given.name for given in self.inputs])
            return partial(self._row, arrays)

    def _count(self, found: Mapping[str, Header], path: Path) -> int:
        names = [given.name for given in self.inputs]
        if path.suffix.lower() == ".npy" and len(names) != 1:
            raise Unreadable(
                f"it is one array, but the network has the inputs {_quoted(names)}; save them by their names as .npz"
            )
        if path.suffix.lower() == ".npy":
            found = {names[0]: found[""]}
        if found.keys() != set(names):
            raise Unreadable(
                f"it holds {_quoted(found) or 'nothing'}, but the inputs of the network are {_quoted(names)}"
            )
        counts = {given.name: _rows(given, found[given.name]) for given in self.inputs}
        several = {count for count in counts.values() if count is not None}
        if len(several) > 1:
            raise Unreadable(
                f"its arrays have other numbers of samples: {', '.join(f'{n!r} {c}' for n, c in counts.items() if c)}"
            )
        count = several.pop() if several else 1
        if count < 1:
            raise Unreadable("it holds no sample")
        return count

    def _row(self, arrays: Mapping[str, Values], row: int) -> Sample:
        return {given.name: _value(given, arrays[given.name], row) for given in self.inputs}


def is_arrays(name: str) -> bool:
    """The file name ends like that of arrays, and is not aside."""
    return Path(name).suffix.lower() in SUFFIXES and not folders.is_aside(name)


def _quoted(names: Mapping[str, object] | list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _rows(given: SampleInput, found: Header) -> int | None:
    """How many samples the array is; None where it is one for all. Raises Unreadable where it does not fit."""
    fits = found.dtype.kind in KINDS.get(given.dtype.kind, given.dtype.kind)
    if fits and found.shape == given.shape:
        return 1 if given.batched else None
    if fits and found.shape[1:] == given.shape and len(found.shape) > len(given.shape):
        return found.shape[0]
    said = described(found.dtype, found.shape)
    raise Unreadable(
        f"'{given.name}' is {said}; the network takes {given.said}, with an axis of samples before that or without"
    )


def _value(given: SampleInput, array: Values, row: int) -> Values:
    """The sample of a row in the network's element type. Raises Unreadable for what is not finite, or not in its
    range.
    """
    values = np.ascontiguousarray(array if array.shape == given.shape else array[row])
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise Unreadable(f"'{given.name}' holds what is no finite number")
    with np.errstate(all="ignore"):  # what does not fit is said below
        made = values.astype(given.dtype)
    if values.dtype.kind in "iu" and not np.array_equal(made, values):
        raise Unreadable(f"'{given.name}' holds numbers that {given.dtype} cannot")
    if values.dtype.kind == "f" and not np.isfinite(made).all():
        raise Unreadable(f"'{given.name}' holds numbers beyond {given.dtype}")
    return made.reshape(given.shape)


# --- files --------------------------------------------------------------------------------------


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What is wrong with the file is an Unreadable."""
    kind = folders.special(path)
    if kind is not None:
        raise Unreadable(f"it is {kind}, not a file")
    try:
        yield
    except FileNotFoundError:
        raise Unreadable("there is no such file") from None
    except DAMAGED as error:
        if isinstance(error, OSError) and error.strerror:
            raise Unreadable(f"it cannot be read ({error.strerror})") from error
        text = " ".join(str(error).split()) or type(error).__name__
        raise Unreadable(f"it holds no arrays that can be read ({text})") from error


def _headers(path: Path) -> dict[str, Header]:
    """By name what the arrays are; that of a .npy file has the name ''."""
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            return {"": _header(file)}
    found = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                header = _header(member)
            if math.prod(header.shape) * header.dtype.itemsize > LARGEST:
                raise ValueError(f"'{name}' is larger than {LARGEST >> 30} GiB; save its samples in several files")
            found[name.removesuffix(".npy")] = header
    return found


def _header(file: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version[0]}.{version[1]} of the format")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return Header(tuple(shape), dtype)


def _arrays(path: Path, names: list[str]) -> dict[str, Values]:
    """The arrays by input; those of a .npy file stay on the disk."""
    if path.suffix.lower() == ".npy":
        return {names[0]: np.load(path, mmap_mode="r", allow_pickle=False)}
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in names}
