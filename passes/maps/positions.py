"""The maps of a network and what has to be edited for the change: what the rules ask, and what they write."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from passes.graph.tensors import Shape, Shapes
from passes.graph.view import Node, View
from passes.maps.contents import Axes, Content, Map, Sampling, Side, after, before, finer, plain


class Stuck(Exception):
    """The change cannot be carried on, for the reason given; nothing has been decided then."""


class NotGlobal(Exception):
    """The window of the node named, which covers its map, is no global pooling."""


class Unfollowed(Stuck):
    """A map is not followed beyond a node, which matters only if it has changed there."""


@dataclass
class MapSpace:
    """The maps of a network, and what has to be edited for the change.

    `limit` caps the running stride (None: strides stay). `edits`: node → attributes; `numbers`: constant → its new
    value; `settled`: constants that already hold what they must; `local`: nodes whose window covers their map by
    chance; `lost`: tensor → why it is not followed; `averages`: the nodes that look at whole finer maps for others to
    use; `cropped`: pools that leave smaller maps than they should; `notes`: what a reader of the plan may want to know.
    """

    view: View
    shapes: Shapes
    limit: int | None = None
    maps: dict[str, Map] = field(default_factory=dict)
    edits: dict[str, dict[str, object]] = field(default_factory=dict)
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    settled: Mapping[str, np.ndarray] = field(default_factory=dict)
    local: frozenset[str] = frozenset()
    lost: dict[str, str] = field(default_factory=dict)
    averages: list[str] = field(default_factory=list)
    cropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written: dict[tuple[str, int], int] = field(default_factory=dict)
    averaged: str = ""

    # --- what rules ask ---

    def shape(self, name: str) -> Shape:
        """The tensor's shape before the change."""
        shape = self.shapes.shapes.get(name)
        if shape is None:
            raise Unfollowed(f"the size of '{name}' is unknown")
        return shape

    def axes(self, name: str) -> Axes:
        """What the tensor's axes count; plain numbers where it is no map."""
        known = self.maps.get(name)
        return plain(self.shape(name)) if known is None else known.axes

    def ints(self, node: Node, slot: int) -> list[int] | None:
        """The integers of an input, None where it is absent or unknown."""
        value = self.shapes.values.get(node.input(slot)) if node.input(slot) else None
        return None if value is None else [int(v) for v in value.array.ravel()]

    def settled_ints(self, node: Node, slot: int) -> dict[int, int]:
        """Those integers of an input that already are what they must be after the change."""
        value = self.shapes.values.get(node.input(slot))
        places = enumerate(() if value is None else value.source)
        known = {index: place for index, place in places if place is not None and place[0] in self.settled}
        return {index: int(self.settled[name].ravel()[at]) for index, (name, at) in known.items()}

    def number(self, node: Node, slot: int, index: int, new: int) -> None:
        """Element `index` of an input of the node becomes `new`; one that the graph computes follows by itself."""
        value = self.shapes.values.get(node.input(slot))
        place = None if value is None else value.source[index]
        if place is None or place[0] in self.settled:
            return
        name, position = place
        if self.written.setdefault(place, new) != new:
            raise Stuck(f"'{name}' would have to say {self.written[place]} and {new} at once ('{node.name}')")
        array = self.numbers.get(name)
        if int((self.view.values(name) if array is None else array).ravel()[position]) != new:
            array = self.view.values(name).copy() if array is None else array
            array.reshape(-1)[position] = new
            self.numbers[name] = array

    def edit(self, node: Node, **attributes: object) -> None:
        """The node gets these attributes."""
        self.edits.setdefault(node.name, {}).update(attributes)

    def average(self, node: Node, contents: Sequence[Content]) -> None:
        """The node looks at all samples of these extents: what comes after a finer one is another value."""
        if any(map(finer, contents)):
            self.averaged = self.averaged or node.name

    def is_fixed(self, side: Side) -> bool:
        """Whether the file says the size of the image on this side, so that no other has to be right too."""
        declared = self.view.inputs[side.axis[0]][0]
        return declared is not None and isinstance(declared[side.axis[1]], int)

    def strides_on(self, side: Side, by: int, node: Node) -> bool:
        """Whether a stride on this side has to become a dilation."""
        if by == 1 or self.limit is None:
            return False
        if side.stride is None:
            raise Stuck(f"'{node.name}' ({node.op}) strides over a map whose own stride is not known")
        return side.rate != 1 or side.stride * by > self.limit

    # --- what was found ---

    def strides(self) -> frozenset[int]:
        """The whole strides of all maps; the image itself has 1."""
        found = {
            factor.stride
            for known in self.maps.values()
            for content in known.axes
            for factor in content
            if isinstance(factor, Side)
        }
        return frozenset(int(stride) for stride in found if stride is not None and stride.denominator == 1)

    def sampling(self, name: str) -> Sampling | None:
        """How to sample the tensor to get what it was before. Raises KeyError for one that was not followed."""
        axes = self.maps[name].axes
        factors = [factor for content in axes for factor in content]
        steps = tuple(factor.rate if isinstance(factor, Side) else 1 for factor in factors)
        if all(step == 1 for step in steps):
            return None
        return Sampling(tuple(map(after, factors)), steps, tuple(math.prod(map(before, content)) for content in axes))


Rule = Callable[[Node, MapSpace], Axes | list[Axes]]
