"""A new head that goes on from the one that the network has: of the same style on the same taps, with other classes.

What depends on the classes is seen by building the head for one class more. Such a weight has A · (B + K) entries on
its first axis, B of them before the classes: a location's anchors one after the other, each with a background, where
there is one, and its classes. So of the old head's [A, B + K, …] the background's stay, and the rows of classes that
are kept become the first ones. All other weights stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from passes.errors import UserError

Array = npt.NDArray[np.generic]
Keep = tuple[int, ...] | Literal["all"]  # rows of classes, in the order of the new ones


@dataclass(frozen=True)
class OwnHead:
    """The head that a network has, as it was asked for: its style, the tensors it taps, and its options."""

    style: str
    taps: tuple[str, ...]
    width: int | None = None
    levels: int | None = None


def missing(fresh: Mapping[str, Array], wider: Mapping[str, Array], seed: Mapping[str, gs.Constant]) -> str:
    """The first weight of the head that the seed does not have as this head would; '' where it has all.

    fresh: the weights of the new head; wider: those for one class more; seed: the seed's own, by name.
    """
    for name, array in fresh.items():
        if array.dtype.kind != "f":
            continue
        own = seed.get(name)
        whole = array.shape == wider[name].shape
        if own is None or tuple(own.shape[0 if whole else 1 :]) != array.shape[0 if whole else 1 :]:
            return name
        if not whole and int(own.shape[0]) % _per_class(array, wider[name]):
            return name
    return ""


def inherited(
    fresh: Mapping[str, Array], wider: Mapping[str, Array], seed: Mapping[str, gs.Constant], *, keep: Keep, count: int
) -> dict[str, Array]:
    """The weights of the new head for `count` classes, as far as the seed's head has them. Raises UserError for rows
    that it has not.
    """
    made: dict[str, Array] = {}
    for name, array in fresh.items():
        if array.dtype.kind != "f":
            made[name] = array
        elif array.shape == wider[name].shape:
            made[name] = np.asarray(seed[name].values).astype(array.dtype, copy=False)
        else:
            made[name] = _rows(
                array, np.asarray(seed[name].values), _per_class(array, wider[name]), keep=keep, count=count
            )
    return made


def _per_class(array: Array, wider: Array) -> int:
    """A: how many entries a class has."""
    return len(wider) - len(array)


def _rows(fresh: Array, old: Array, each: int, *, keep: Keep, count: int) -> Array:
    """The fresh weight with what it has in common with the old one."""
    before = len(fresh) // each - count
    known = len(old) // each - before
    rows = keep_rows(keep, known, count)
    made, source = (np.array(array).reshape(each, -1, *array.shape[1:]) for array in (fresh, old))
    made[:, :before] = source[:, :before]
    made[:, before : before + len(rows)] = source[:, [before + row for row in rows]]
    return made.reshape(fresh.shape)


def keep_rows(keep: Keep, known: int, count: int) -> Sequence[int]:
    """The rows to keep of `known` ones, for `count` classes. Raises UserError for those that are not there, or more
    than classes.
    """
    rows = range(known) if keep == "all" else keep
    wrong = [row for row in rows if not 0 <= row < known]
    if wrong:
        raise UserError(f"the seed has no class {wrong[0]}: its {known} classes are counted from 0")
    if len(rows) > count:
        raise UserError(f"{len(rows)} rows to keep are more than the {count} classes asked for")
    return rows
