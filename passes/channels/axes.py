"""What the rules say of axes: labels of tensors, sites of weights, sizes written in the graph; and the record they are
noted in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from passes.errors import RefusedModel
from passes.graph.operators import of
from passes.graph.tensors import Shape, Shapes
from passes.graph.view import Node, View

Ids = np.ndarray
FIXED = -1  # the identity of a channel whose number the graph does not say (an image's colours)


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

    `role` is 'creates' for axes that give channels their values (outputs, biases, per-channel scales), 'consumes' for
    input columns, 'both' for a weight with which one node makes channels and another reads them. `fill` is what a fresh
    entry holds so that a zero channel stays zero and a divisor stays harmless; `repeat` is how many groups share the
    axis; `weight`: the tensor multiplies, as a convolution's does, and is no per-channel scale or offset, whatever its
    rank.
    """

    tensor: str
    axis: int
    ids: Ids
    role: str
    fill: float
    node: str
    dense: bool
    extent: int
    repeat: int = 1
    weight: bool = False

    def along(self, ids: Ids) -> Site:
        """The same axis with these identities along it; a network has so many that dataclasses.replace takes its
        time.
        """
        return Site(
            tensor=self.tensor, axis=self.axis, ids=ids, role=self.role, fill=self.fill, node=self.node,
            dense=self.dense, extent=self.extent, repeat=self.repeat, weight=self.weight,
        )  # fmt: skip


@dataclass(frozen=True)
class Size:
    """A number in the graph that counts channels: after a change it is len(resized(ids)), negative where it counts from
    the end.

    `place` is (constant, index) or (node, attribute, index); `beyond` is how far past the channels the seed's number
    goes (the end of a slice may).
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
    least: list[tuple[Ids, int]] = field(default_factory=list)
    noted: dict[tuple[str, int], set[tuple[str, int]]] = field(default_factory=dict)
    counted: dict[str, dict[int, Ids]] = field(default_factory=dict)
    unions: list[tuple[Ids, Ids, str]] = field(default_factory=list)
    frozen: list[tuple[Ids, str]] = field(default_factory=list)
    drifts: list[tuple[Ids, str]] = field(default_factory=list)
    count: int = 0
    at: str = ""  # the node whose rule is being read

    def shape(self, name: str) -> Shape | None:
        """The tensor's shape under the probe sizes, None where it is unknown."""
        return self.shapes.shapes.get(name)

    def lay(self, node: Node, name: str, label: Label) -> None:
        """The output `name` of node carries these channels. Raises RefusedModel where the tensor has another size
        there.
        """
        shape = self.shape(name)
        if shape is not None and (label.axis >= len(shape) or shape[label.axis] != label.ids.size):
            where = f"'{node.name}' ({node.op}) makes {label.ids.size} channels, '{name}' has the shape {list(shape)}"
            raise RefusedModel(f"{where}; 'fnatool check' lists what is wrong")
        self.labels[name] = label

    def label(self, name: str) -> Label | None:
        """The channels of a tensor, None where it has none that follow a weight."""
        return self.labels.get(name)

    def constant(self, name: str) -> bool:
        """Whether the tensor is an initializer."""
        return name in self.view.constants

    def creates(self, node: Node, slot: int, axis: int, *, groups: int = 1, repeat: int = 1) -> Ids:
        """Fresh identities for a weight axis that makes channels; the j-th of each of its `groups` are one identity.

        `repeat`: the axis is written once for as many groups (a transposed convolution's).
        """
        tensor = node.inputs[slot]
        known = self.sites.get((tensor, axis))
        if known is not None:
            self._site(node, slot, axis, known.ids, role="creates", dense=True, extent=1)
            return known.ids
        size = self.view.constants[tensor].shape[axis]
        ids = self.fresh(size) if groups == 1 else np.tile(self.fresh(size // groups), groups)
        self._site(node, slot, axis, ids, role="creates", dense=True, repeat=repeat, weight=True)
        return ids

    def fresh(self, size: int) -> Ids:
        """Identities of channels that no weight makes; what they are united with says how many there are."""
        self.count += size
        return np.arange(self.count - size, self.count)

    def consumes(self, node: Node, slot: int, axis: int, ids: Ids) -> None:
        """The weight axis multiplies the channels `ids` and sums them up."""
        self._site(node, slot, axis, ids, role="consumes", dense=True, weight=True)

    def carries(self, node: Node, slot: int, axis: int, ids: Ids, *, fill: float = 0.0) -> None:
        """The axis holds one entry per channel of `ids`; it is a weight's where a convolution multiplies with it."""
        self._site(node, slot, axis, ids, role="creates", dense=False, fill=fill, weight=slot in of(node.op).dense)

    def _extent(self, node: Node) -> int:
        out = self.shape(node.outputs[0]) or ()
        return math.prod(out[2:]) if len(out) > 2 else 1

    def _site(
        self,
        node: Node,
        slot: int,
        axis: int,
        ids: Ids,
        *,
        role: str,
        dense: bool,
        fill: float = 0.0,
        extent: int | None = None,
        repeat: int = 1,
        weight: bool = False,
    ) -> None:
        """The axis of what the node reads there has these identities; `extent`: that of what the node makes, unless
        told otherwise.
        """
        extent = self._extent(node) if extent is None else extent
        site = Site(
            tensor=node.inputs[slot], axis=axis, ids=ids, role=role, fill=fill, node=node.name, dense=dense,
            extent=extent, repeat=repeat, weight=weight,
        )  # fmt: skip
        shape = tuple(self.view.constants[site.tensor].shape)
        if not 0 <= axis < len(shape) or shape[axis] != site.ids.size:
            where = f"'{node.name}' ({node.op}) has {site.ids.size} channels on axis {axis} of '{site.tensor}'"
            raise RefusedModel(f"{where}, whose shape is {list(shape)}; 'fnatool check' lists what is wrong")
        key = (site.tensor, axis)
        self.noted.setdefault(key, set()).add((node.name, slot))
        known = self.sites.get(key)
        if known is None:
            self.sites[key] = site
            return
        if known.ids is not site.ids:
            self.unite(known.ids, site.ids, f"'{site.tensor}' is shared by '{known.node}' and '{node.name}'")
        if known.role != site.role:
            self.sites[key] = replace(known, role="both")
            self.drift(
                known.ids, f"'{site.tensor}' both makes these channels and reads them ('{known.node}', '{node.name}')"
            )

    def unite(self, a: Ids, b: Ids, why: str) -> None:
        """Position by position, the two vectors are the same channels; a fixed position freezes its partner."""
        try:
            a, b = np.broadcast_arrays(a, b)
        except ValueError as error:
            raise RefusedModel(f"{a.size} channels meet {b.size} where they should be the same: {why}") from error
        a, b = a.ravel(), b.ravel()
        both = (a != FIXED) & (b != FIXED)
        self.unions.append((a[both], b[both], self.at))
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
        """Element `index` of the tensor counts the channels `ids`; a number that the graph computes follows by
        itself.
        """
        value = self.shapes.values.get(name)
        place = None if value is None else value.source[index]
        if value is None or place is None:
            return
        if int(value.array.ravel()[index]) > 0 or from_end:
            self.sizes.append(Size(place, ids, from_end, beyond))

    def size_attribute(
        self, node: Node, attribute: str, index: int, ids: Ids, *, from_end: bool = False, beyond: int = 0
    ) -> None:
        """The same for an entry of a node's attribute."""
        if from_end or node.ints(attribute, ())[index] > 0:
            self.sizes.append(Size((node.name, attribute, index), ids, from_end, beyond))

    def sizes_of_groups(self, node: Node, ids: Ids) -> None:
        """A depthwise convolution has as many groups as channels."""
        self.sizes.append(Size((node.name, "group", -1), ids))

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

    def free_batch(self) -> bool:
        """Whether axis 0 of some input is free."""
        return any(0 in axes for axes in self.shapes.free_axes.values())

    def unify(self, array: np.ndarray, why: str) -> tuple[int, Ids]:
        """Identities on several axes, reduced to one: the longest varying axis stays (the last of equals), along the
        others they unite.
        """
        varying = [axis for axis in range(array.ndim) if (array != array.take([0], axis)).any()]
        if not varying:
            varying = [axis for axis in range(array.ndim) if array.shape[axis] > 1] or [array.ndim - 1]
            varying = [max(varying, key=lambda axis: (array.shape[axis], axis))]
        keep = max(varying, key=lambda axis: (array.shape[axis], axis))
        for axis in varying:
            if axis != keep:
                self.unite(array.take([0], axis), array, why)
        index = tuple(slice(None) if axis == keep else 0 for axis in range(array.ndim))
        rivals = [array.shape[axis] + (axis > keep) for axis in varying if axis != keep]
        if rivals:
            self.least.append((array[index], max(rivals)))
        return keep, array[index]
