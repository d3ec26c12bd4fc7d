"""Resizing a vector of channels: which old position each new one stands for. Weight axes and written sizes all follow
from this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from passes.channels.axes import FIXED, Ids
from passes.graph.arrays import distinct


@dataclass(frozen=True)
class Change:
    """What happens to each class: `keep` (bool per class), and `grow`, the number of fresh classes born after it
    (mostly 0).

    `models` says, for a class after which others are born, which class each of these takes after; without it they take
    after that class.
    """

    keep: np.ndarray
    grow: np.ndarray
    models: dict[int, np.ndarray] = field(default_factory=dict)

    @cached_property
    def _touched(self) -> np.ndarray:
        """Whether a class goes, or others are born after it; at the end, where FIXED leads to, False."""
        return np.append(~self.keep | (self.grow > 0), False)

    def touches(self, ids: Ids) -> bool:
        """Whether a vector becomes another one."""
        return bool(self._touched[ids].any())

    @staticmethod
    def none(count: int) -> Change:
        """Every class stays, none is added."""
        return Change(np.ones(count, bool), np.zeros(count, np.int64))


@dataclass(frozen=True)
class Positions:
    """A resized axis: per new position the old one it stands for, and the number of the fresh copy of it (0: the old
    one itself).
    """

    old: np.ndarray
    copy: np.ndarray

    @property
    def index(self) -> np.ndarray:
        """Old position per new one, −1 where fresh."""
        return np.asarray(np.where(self.copy == 0, self.old, -1))

    def __len__(self) -> int:
        return int(self.old.size)


def modelled(ids: Ids, positions: Positions, models: Mapping[int, np.ndarray]) -> np.ndarray:
    """Per new position the old one whose entries it has or may copy: its own, or for a fresh one the same occurrence of
    its model.
    """
    where = positions.old.copy()
    born = positions.copy > 0
    for parent in distinct(ids[positions.old[born]]).tolist() if models else ():
        if parent not in models:
            continue
        sources = models[parent]
        occurrences = np.flatnonzero(ids == parent)
        fresh = np.flatnonzero(born & (ids[positions.old] == parent))
        rank = np.searchsorted(occurrences, positions.old[fresh])
        for source in distinct(sources):
            mine = sources[positions.copy[fresh] - 1] == source
            where[fresh[mine]] = np.flatnonzero(ids == source)[rank[mine]]
    return where


def length(ids: Ids, change: Change) -> int:
    """How long the vector is after the change: a class is born as often as each of its positions says."""
    known = ids[ids != FIXED]
    return int(ids.size - np.count_nonzero(~change.keep[known]) + change.grow[known].sum())


def resized(ids: Ids, change: Change) -> Positions:
    """The vector after the change: dropped classes vanish, fresh ones follow each run of their parent, run by run.

    Run-wise insertion commutes with what graphs do to channels: tiling (groups), repeating (flattening, interleaving),
    and cutting and joining between different classes (see `Atom.parent`).
    """
    if not change.touches(ids):
        return Positions(np.arange(ids.size), np.zeros(ids.size, np.int64))
    keep = np.ones(ids.size, bool)
    known = ids != FIXED
    keep[known] = change.keep[ids[known]]
    grow = np.zeros(ids.size, np.int64)
    grow[known] = change.grow[ids[known]]
    if not grow.any():
        old = np.flatnonzero(keep)
        return Positions(old, np.zeros(old.size, np.int64))
    olds, copies, start = [], [], 0
    ends = np.flatnonzero((grow > 0) & np.append(ids[1:] != ids[:-1], True))
    for end in ends.tolist():
        first = end
        while first > 0 and ids[first - 1] == ids[end]:
            first -= 1
        run = np.arange(first, end + 1)
        kept = np.arange(start, end + 1)[keep[start : end + 1]]
        olds += [kept, np.tile(run, grow[end])]
        copies += [np.zeros(kept.size, np.int64), np.repeat(np.arange(1, grow[end] + 1), run.size)]
        start = end + 1
    rest = np.arange(start, ids.size)[keep[start:]]
    return Positions(np.concatenate([*olds, rest]), np.concatenate([*copies, np.zeros(rest.size, np.int64)]))
