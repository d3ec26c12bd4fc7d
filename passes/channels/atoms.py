"""The closed identities of a graph: which channels change together, and where they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from passes.channels.axes import Label, Picks, Site, Size, SplitSizes


@dataclass(frozen=True, kw_only=True)
class Atom:
    """Channels that always change together, and only together.

    `classes` in the order of the first axis that creates them; `value` counts the channels of that axis, `multiple`
    those of one class. `fewest` classes have to stay for the graph to be read the same way; `parent` is the class after
    which fresh ones are born: the last whose runs no cut or join of channels touches, −1 where there is none.
    """

    classes: np.ndarray
    parent: int
    fewest: int
    value: int
    multiple: int
    first: Site
    sites: tuple[Site, ...]
    frozen: str | None
    drift: str | None
    one: str | None = None  # of a single class: why it is no more


@dataclass(frozen=True)
class Identities:
    """The closed flow: labels, sites and sizes in classes, and the atoms (in the order of the graph)."""

    labels: Mapping[str, Label]
    sites: Mapping[tuple[str, int], Site]
    sizes: tuple[Size, ...]
    splits: tuple[SplitSizes, ...]
    picks: tuple[Picks, ...]
    atoms: tuple[Atom, ...]
    atom_of: np.ndarray  # class → index into atoms
    count: int
    extents: Mapping[str, int]  # tensor → number of elements
