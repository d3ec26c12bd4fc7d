"""Channel identity: which dimensions must change together.

Every weight axis that creates channels gives each channel an identity. Identities flow through the graph as the data does (rules.py, one
row per operator); a merge unites them. Closing the unions gives classes; classes that always appear in the same places form one atom,
one width that can be changed on its own. What has no rule freezes what it touches, with the reason.

After closing, each tensor has at most one axis of channels, with one class per position. A new size of an atom is then a change of that
vector alone (see `resized`), for every weight axis and every size written in the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from passes.shapes import Shape, Shapes
from passes.view import Node, View

Ids = np.ndarray
FIXED = -1  # the identity of a channel that no weight creates (an image's colours, padding)


@dataclass(frozen=True)
class Label:
    """The axis of a tensor that carries channels, and the identity at each of its positions."""

    axis: int
    ids: Ids

    def moved(self, axis: int) -> Label:
        """The same channels on another axis."""
        return Label(axis, self.ids)


@dataclass(frozen=True)
class Site:
    """A weight's axis and the identities along it.

    `role` is 'creates' for axes that give channels their values (outputs, biases, per-channel scales), 'consumes' for input columns;
    `fill` is what a fresh entry holds so that a zero channel stays zero and a divisor stays harmless.
    """

    tensor: str
    axis: int
    ids: Ids
    role: str
    fill: float
    node: str
    dense: bool
    extent: int


@dataclass(frozen=True)
class Size:
    """A number in the graph that counts channels: after a change it is len(resized(ids)), negative where it counts from the end.

    `place` is (constant, index) or ('@' + node, attribute, index); `beyond` is how far past the channels the seed's number goes (the end of
    a slice may).
    """

    place: tuple[str, int] | tuple[str, str, int]
    ids: Ids
    from_end: bool = False
    beyond: int = 0


@dataclass(frozen=True)
class SplitSizes:
    """The sizes of a Split along its channel axis, one vector of identities per output."""

    node: str
    parts: tuple[Ids, ...]


@dataclass(frozen=True)
class Picks:
    """A Gather of channels by constant indices: the vector picked from, and the positions picked."""

    node: str
    ids: Ids
    picks: np.ndarray


@dataclass
class Flow:
    """What the rules know and record while identities flow forward."""

    view: View
    shapes: Shapes
    labels: dict[str, Label] = field(default_factory=dict)
    sites: dict[tuple[str, int], Site] = field(default_factory=dict)
    sizes: list[Size] = field(default_factory=list)
    splits: list[SplitSizes] = field(default_factory=list)
    picks: list[Picks] = field(default_factory=list)
    places: list[Ids] = field(default_factory=list)
    borders: list[Ids] = field(default_factory=list)
    unions: list[tuple[Ids, Ids]] = field(default_factory=list)
    frozen: list[tuple[Ids, str]] = field(default_factory=list)
    drifts: list[tuple[Ids, str]] = field(default_factory=list)
    count: int = 0

    def shape(self, name: str) -> Shape | None:
        """The tensor's shape under the probe sizes, None where it is unknown."""
        return self.shapes.shapes.get(name)

    def label(self, name: str) -> Label | None:
        """The channels of a tensor, None where it has none that follow a weight."""
        return self.labels.get(name)

    def constant(self, name: str) -> bool:
        """Whether the tensor is an initializer."""
        return name in self.view.constants

    def creates(self, node: Node, slot: int, axis: int, repeat: int = 1) -> Ids:
        """Fresh identities for a weight axis that makes channels; the axis holds `repeat` groups whose j-th channels are one identity."""
        tensor = node.inputs[slot]
        known = self.sites.get((tensor, axis))
        if known is not None:
            return known.ids
        size = self.view.constants[tensor].shape[axis]
        ids = np.tile(np.arange(self.count, self.count + size // repeat), repeat)
        self.count += size // repeat
        self._site(node, slot, axis, ids, "creates", 0.0, dense=True)
        return ids

    def consumes(self, node: Node, slot: int, axis: int, ids: Ids) -> None:
        """The weight axis multiplies the channels `ids` and sums them up."""
        self._site(node, slot, axis, ids, "consumes", 0.0, dense=True)

    def carries(self, node: Node, slot: int, axis: int, ids: Ids, fill: float = 0.0) -> None:
        """The weight axis holds one entry per channel of `ids`."""
        self._site(node, slot, axis, ids, "creates", fill, dense=False)

    def _site(self, node: Node, slot: int, axis: int, ids: Ids, role: str, fill: float, *, dense: bool) -> None:
        tensor = node.inputs[slot]
        known = self.sites.get((tensor, axis))
        if known is not None:
            self.unite(known.ids, ids, f"'{tensor}' is shared by '{known.node}' and '{node.name}'")
            return
        out = self.shape(node.outputs[0]) or ()
        extent = int(np.prod(out[2:], dtype=np.int64)) if len(out) > 2 else 1
        self.sites[tensor, axis] = Site(tensor, axis, ids, role, fill, node.name, dense, extent)

    def unite(self, a: Ids, b: Ids, why: str) -> None:
        """Position by position, the two vectors are the same channels; a fixed position freezes its partner."""
        a, b = np.broadcast_arrays(a, b)
        a, b = a.ravel(), b.ravel()
        both = (a != FIXED) & (b != FIXED)
        self.unions.append((a[both], b[both]))
        lone = np.concatenate([a[(b == FIXED) & (a != FIXED)], b[(a == FIXED) & (b != FIXED)]])
        if lone.size:
            self.freeze(lone, why)

    def freeze(self, ids: Ids, why: str) -> None:
        """These channels keep their number, for the reason given."""
        self.frozen.append((ids[ids != FIXED], why))

    def drift(self, ids: Ids, why: str) -> None:
        """Adding to these channels changes the function even when the new ones are not read, for the reason given."""
        self.drifts.append((ids[ids != FIXED], why))

    def size(self, name: str, index: int, ids: Ids, *, from_end: bool = False, beyond: int = 0) -> None:
        """Element `index` of the tensor counts the channels `ids`; a number that the graph computes follows by itself."""
        value = self.shapes.values.get(name)
        place = None if value is None else value.source[index]
        if value is None or place is None:
            return
        if int(value.array.ravel()[index]) > 0 or from_end:
            self.sizes.append(Size(place, ids, from_end, beyond))

    def size_attribute(self, node: Node, attribute: str, index: int, ids: Ids, *, from_end: bool = False, beyond: int = 0) -> None:
        """The same for an entry of a node's attribute."""
        if from_end or node.ints(attribute, ())[index] > 0:
            self.sizes.append(Size(("@" + node.name, attribute, index), ids, from_end, beyond))

    def sizes_of_groups(self, node: Node, ids: Ids) -> None:
        """A depthwise convolution has as many groups as channels."""
        self.sizes.append(Size(("@" + node.name, "group", -1), ids))

    def splits_at(self, node: Node, parts: tuple[Ids, ...]) -> None:
        """The node cuts its channels into these parts; a channel's part is one of its places."""
        self.places.extend(parts)
        self.borders_at(parts)
        self.splits.append(SplitSizes(node.name, parts))

    def borders_at(self, parts: Sequence[Ids]) -> None:
        """Channels are cut or joined between these parts: identities on both sides of a border are recorded."""
        for before, after in pairwise(parts):
            if before.size and after.size:
                self.borders.append(np.array([before[-1], after[0]]))

    def picks_at(self, node: Node, ids: Ids, picks: np.ndarray) -> None:
        """The node picks these positions of the vector."""
        self.places.append(ids[picks])
        self.picks.append(Picks(node.name, ids, picks))

    def batch_axes(self, name: str) -> tuple[int, ...]:
        """Axis 0 where some input's batch is free, else nothing."""
        return (0,) if any(0 in axes for axes in self.shapes.free_axes.values()) else ()

    def unify(self, array: np.ndarray, why: str) -> tuple[int, Ids]:
        """Identities on several axes, reduced to one: the longest varying axis stays (the last of equals), along the others they unite."""
        varying = [axis for axis in range(array.ndim) if (array != array.take([0], axis)).any()]
        if not varying:
            varying = [axis for axis in range(array.ndim) if array.shape[axis] > 1] or [array.ndim - 1]
            varying = [max(varying, key=lambda axis: (array.shape[axis], axis))]
        keep = max(varying, key=lambda axis: (array.shape[axis], axis))
        for axis in varying:
            if axis != keep:
                self.unite(array.take([0], axis), array, why)
        index = tuple(slice(None) if axis == keep else 0 for axis in range(array.ndim))
        return keep, array[index]


@dataclass(frozen=True)
class Atom:
    """Channels that always change together, and only together.

    `classes` in the order of the first axis that creates them; `value` counts the channels of that axis, `multiple` those of one class.
    `parent` is the class after which fresh ones are born: the last whose runs no cut or join of channels touches, −1 where there is none.
    """

    classes: np.ndarray
    parent: int
    value: int
    multiple: int
    first: Site
    sites: tuple[Site, ...]
    frozen: str | None
    drift: str | None


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
    extents: Mapping[str, int]  # tensor → number of elements per batch entry


def flow_identities(view: View, shapes: Shapes) -> Identities:
    """Channel identities of the whole graph (design: channel identity)."""
    from passes.rules import RULES

    flow = Flow(view, shapes)
    for node in view.nodes:
        rule = RULES.get(node.op)
        labels: Sequence[Label | None]
        if rule is None:
            _freeze_inputs(flow, node, f"operator {node.op} ('{node.name}') has no rule")
            continue
        if any(name and flow.shape(name) is None for name in (*node.inputs, node.outputs[0])):
            _freeze_inputs(flow, node, f"the sizes around '{node.name}' ({node.op}) are unknown")
            continue
        found = rule(node, flow)
        labels = found if isinstance(found, tuple) else (found,)
        for name, label in zip(node.outputs, labels, strict=False):
            if label is not None and name and label.ids.size > 1:
                flow.labels[name] = label
    for name in view.outputs:
        label = flow.labels.get(name)
        if label is not None:
            flow.freeze(label.ids, f"graph output '{name}'")
    return _close(flow)


def _freeze_inputs(flow: Flow, node: Node, why: str) -> None:
    for name in node.inputs:
        label = flow.label(name)
        if label is not None:
            flow.freeze(label.ids, why)


def _close(flow: Flow) -> Identities:
    classes, count = _components(flow)

    def closed(ids: Ids) -> Ids:
        return np.asarray(np.where(ids == FIXED, FIXED, classes[ids])) if flow.count else ids

    def closed_site(site: Site) -> Site:
        return Site(site.tensor, site.axis, closed(site.ids), site.role, site.fill, site.node, site.dense, site.extent)

    sites = {key: closed_site(site) for key, site in flow.sites.items()}
    frozen = _reasons(flow.frozen, closed)
    drift = _reasons(flow.drifts, closed)
    borders = closed(np.array(flow.borders, np.int64).reshape(-1, 2))
    touched = frozenset(borders[(borders[:, 0] == borders[:, 1]) & (borders[:, 0] != FIXED), 0].tolist())
    atoms, atom_of = _atoms(sites, [closed(ids) for ids in flow.places], (frozen, drift), touched, count)
    return Identities(
        labels={name: Label(label.axis, closed(label.ids)) for name, label in flow.labels.items()},
        sites=sites,
        sizes=tuple(replace(size, ids=closed(size.ids)) for size in flow.sizes),
        splits=tuple(SplitSizes(s.node, tuple(closed(part) for part in s.parts)) for s in flow.splits),
        picks=tuple(Picks(p.node, closed(p.ids), p.picks) for p in flow.picks),
        atoms=atoms,
        atom_of=atom_of,
        count=count,
        extents={name: int(np.prod(shape, dtype=object)) for name, shape in flow.shapes.shapes.items()},
    )


def _components(flow: Flow) -> tuple[np.ndarray, int]:
    """Union-find: identity → class, and the number of classes."""
    if not flow.count:
        return np.zeros(0, np.int64), 0
    a = np.concatenate([pair[0] for pair in flow.unions] or [np.zeros(0, np.int64)])
    b = np.concatenate([pair[1] for pair in flow.unions] or [np.zeros(0, np.int64)])
    graph = coo_array((np.ones(a.size, np.int8), (a, b)), shape=(flow.count, flow.count))
    count, classes = connected_components(graph, directed=False)
    return classes.astype(np.int64), int(count)


def _reasons(entries: Sequence[tuple[Ids, str]], closed: object) -> dict[int, str]:
    """Class → the first reason given for it."""
    reasons: dict[int, str] = {}
    for ids, why in entries:
        for c in np.unique(closed(ids)):  # type: ignore[operator]
            reasons.setdefault(int(c), why)
    return reasons


def _atoms(
    sites: Mapping[tuple[str, int], Site],
    places: Sequence[Ids],
    reasons: tuple[Mapping[int, str], Mapping[int, str]],
    touched: frozenset[int],
    count: int,
) -> tuple[tuple[Atom, ...], np.ndarray]:
    """Group classes by where they appear, how often, and whether they are frozen: each group is one atom."""
    frozen, drift = reasons
    rng = np.random.Generator(np.random.PCG64(0))  # fixed: only to hash sets of places
    signature = np.zeros(count, np.uint64)
    for ids in [site.ids for site in sites.values()] + list(places):
        found, times = np.unique(ids[ids != FIXED], return_counts=True)
        signature[found] += rng.integers(1, 1 << 63, dtype=np.uint64) * times.astype(np.uint64)
    mark = rng.integers(1, 1 << 63, dtype=np.uint64)
    signature[np.array(sorted(frozen), np.int64)] += mark
    atom_of = np.full(count, -1, np.int64)
    firsts: list[tuple[np.ndarray, Site, int]] = []
    for site in sites.values():
        if site.role != "creates" or not site.dense:
            continue
        new = site.ids[(site.ids != FIXED)]
        new = new[atom_of[new] < 0]
        seen, position, times = np.unique(new, return_index=True, return_counts=True)
        for key in dict.fromkeys(signature[new[np.sort(position)]].tolist()):
            members = signature[seen] == np.uint64(key)
            order = np.argsort(position[members])
            classes = seen[members][order]
            atom_of[classes] = len(firsts)
            firsts.append((classes, site, int(times[members][0])))
    touching: list[list[Site]] = [[] for _ in firsts]
    for site in sites.values():
        for index in np.unique(atom_of[site.ids[site.ids != FIXED]]):
            if index >= 0:
                touching[index].append(site)
    atoms = tuple(
        Atom(
            classes,
            next((int(c) for c in classes[::-1] if int(c) not in touched), -1),
            classes.size * times,
            times,
            site,
            tuple(touching[k]),
            next((frozen[int(c)] for c in classes if int(c) in frozen), None),
            next((drift[int(c)] for c in classes if int(c) in drift), None),
        )
        for k, (classes, site, times) in enumerate(firsts)
    )
    return atoms, atom_of


@dataclass(frozen=True)
class Change:
    """What happens to each class: `keep` (bool per class), and `grow`, the number of fresh classes born after it (mostly 0).

    `models` says, for a class after which others are born, which class each of these takes after; without it they take after that class.
    """

    keep: np.ndarray
    grow: np.ndarray
    models: dict[int, np.ndarray] = field(default_factory=dict)

    @staticmethod
    def none(count: int) -> Change:
        """Every class stays, none is added."""
        return Change(np.ones(count, bool), np.zeros(count, np.int64))


@dataclass(frozen=True)
class Positions:
    """A resized axis: per new position the old one it stands for, and the number of the fresh copy of it (0: the old one itself)."""

    old: np.ndarray
    copy: np.ndarray

    @property
    def index(self) -> np.ndarray:
        """Old position per new one, −1 where fresh."""
        return np.asarray(np.where(self.copy == 0, self.old, -1))

    def __len__(self) -> int:
        return int(self.old.size)


def modelled(ids: Ids, positions: Positions, models: Mapping[int, np.ndarray]) -> np.ndarray:
    """Per new position the old one whose entries it has or may copy: its own, or for a fresh one the same occurrence of its model."""
    where = positions.old.copy()
    for parent, sources in models.items():
        occurrences = np.flatnonzero(ids == parent)
        fresh = np.flatnonzero((positions.copy > 0) & (ids[positions.old] == parent))
        if not fresh.size:
            continue
        rank = np.searchsorted(occurrences, positions.old[fresh])
        for source in np.unique(sources):
            mine = sources[positions.copy[fresh] - 1] == source
            where[fresh[mine]] = np.flatnonzero(ids == source)[rank[mine]]
    return where


def resized(ids: Ids, change: Change) -> Positions:
    """The vector after the change: dropped classes vanish, fresh ones follow each run of their parent, run by run.

    Run-wise insertion commutes with what graphs do to channels: tiling (groups), repeating (flattening, interleaving), and cutting and
    joining between different classes (see `Atom.parent`).
    """
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
