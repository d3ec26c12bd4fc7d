"""The channels of the image on their way to the layers that read them: one function per kind of operator.

A tensor on that way has its channels on one axis, at each position one of the image's. What works channel by channel
passes them on; a convolution reads them, and its columns are what another image changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from passes.graph.operators import OPERATORS, SIZES
from passes.graph.tensors import Shape, Shapes
from passes.graph.view import Node, View


class Lost(Exception):
    """The channels of the image are not followed beyond a node: the reason."""


@dataclass(frozen=True)
class Carried:
    """The axis of a tensor on which the image's channels are, and which of them is at each position."""

    axis: int
    ids: np.ndarray


@dataclass
class ColourSpace:
    """What is known of the way.

    `carried`: tensor → its channels; `columns`: node → the channels that the columns of its weight read; `sites`:
    (constant, axis) → the channels that it has a number for; `written`: (node, slot, position) of sizes that count
    them; `picks`: nodes that pick them by numbers; `groups`: nodes that look at each of them by itself; `affine`:
    whether all that happens to them on the way is a·x + b, and `offset` whether any b is there.
    """

    view: View
    shapes: Shapes
    carried: dict[str, Carried]
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    sites: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    written: list[tuple[str, int, int]] = field(default_factory=list)
    picks: dict[str, np.ndarray] = field(default_factory=dict)
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    affine: str = ""
    offset: bool = False

    def shape(self, name: str) -> Shape:
        """Raises Lost where it is unknown."""
        shape = self.shapes.shapes.get(name)
        if shape is None:
            raise Lost(f"the size of '{name}' is unknown")
        return shape

    def uniform(self, name: str, axis: int) -> bool:
        """Whether a constant holds the same for every channel."""
        values = self.view.values(name)
        return bool(np.array_equal(np.broadcast_to(values.take([0], axis), values.shape), values))


ColourRule = Callable[[Node, ColourSpace], Carried | None]


def followed_colours(view: View, shapes: Shapes, image: str, axis: int) -> ColourSpace:
    """The way of the image's channels, which are on that axis. Raises Lost, naming the node, where it does not end in
    convolutions.
    """
    space = ColourSpace(view, shapes, {image: Carried(axis, np.arange(shapes.shapes[image][axis]))})
    for node in view.nodes:
        if node.op in SIZES or not any(name in space.carried for name in node.inputs):
            continue
        rule = COLOUR_RULES.get(node.op)
        if rule is None:
            raise Lost(f"'{node.name}' ({node.op}) reads the image, and its channels are not followed there")
        found = rule(node, space)
        if found is not None:
            space.carried[node.outputs[0]] = found
    ended = next((name for name in view.outputs if name in space.carried), None)
    if ended is not None:
        raise Lost(f"output '{ended}' has the channels of the image")
    if not space.columns:
        raise Lost("no convolution reads the image")
    return space


def _first(node: Node, space: ColourSpace) -> Carried:
    """The channels of the first input, which are the only ones."""
    found = space.carried.get(node.inputs[0])
    if found is None or any(name in space.carried for name in node.inputs[1:]):
        raise Lost(f"'{node.name}' ({node.op}) takes the image as a weight or a size")
    return found


def _passed(node: Node, space: ColourSpace) -> Carried:
    """Channel by channel, by a·x + b or without any change."""
    return _first(node, space)


def _bent(node: Node, space: ColourSpace) -> Carried:
    """Channel by channel, by what is no a·x + b."""
    space.affine = space.affine or f"'{node.name}' ({node.op})"
    return _first(node, space)


def _spatial(node: Node, space: ColourSpace) -> Carried:
    """Over the other axes."""
    found = _first(node, space)
    if space.shape(node.outputs[0])[found.axis] != found.ids.size:
        raise Lost(f"'{node.name}' ({node.op}) works along the channels of the image")
    slot = 3 if node.op == "Resize" and space.view.opset >= 11 else -1
    if slot > 0 and node.input(slot):
        rank = len(space.shape(node.inputs[0]))
        listed = [axis % rank for axis in node.ints("axes", range(rank))]
        if found.axis in listed:
            space.written.append((node.name, slot, listed.index(found.axis)))
    return found


def _pooled(node: Node, space: ColourSpace) -> Carried:
    """Over windows of each channel."""
    found = _first(node, space)
    if found.axis != 1:
        raise Lost(f"'{node.name}' ({node.op}) slides over the channels of the image")
    return _bent(node, space) if node.op != "AveragePool" else found


def _combined(node: Node, space: ColourSpace) -> Carried:
    """With numbers, one for all channels or one for each, or with the same channels."""
    carrying = [name for name in node.inputs if name in space.carried]
    found = space.carried[carrying[0]]
    rank = len(space.shape(node.outputs[0]))
    own = found.axis + rank - len(space.shape(carrying[0]))
    for name in dict.fromkeys(node.inputs):
        if not name:
            continue
        axis = own - (rank - len(space.shape(name)))
        other = space.carried.get(name)
        if other is not None:
            if other.axis != axis or not np.array_equal(other.ids, found.ids):
                raise Lost(f"'{node.name}' ({node.op}) combines channels of the image with others")
        elif name not in space.view.constants:
            raise Lost(f"'{node.name}' ({node.op}) combines the image with '{name}', which the network computes")
        elif axis >= 0 and space.shape(name)[axis] > 1:
            if len(space.view.readers[name]) > 1:
                raise Lost(f"'{name}', which has a number for each channel of the image, is read elsewhere too")
            space.sites[name, axis] = found.ids
    if (
        node.op not in ("Add", "Sub", "Mul", "Div")
        or len(carrying) > 1
        or (node.op == "Div" and node.inputs[0] not in space.carried)
    ):
        space.affine = space.affine or f"'{node.name}' ({node.op})"
    space.offset |= node.op in ("Add", "Sub")
    return Carried(own, found.ids)


def _normalised(node: Node, space: ColourSpace) -> Carried:
    """By numbers for each channel."""
    found = _first(node, space)
    if found.axis != 1 or len([name for name in node.outputs if name]) > 1:
        raise Lost(f"'{node.name}' ({node.op}) does not work channel by channel of the image")
    for name in node.inputs[1:]:
        if name not in space.view.constants or len(space.view.readers[name]) > 1:
            raise Lost(f"'{node.name}' ({node.op}) has numbers for each channel of the image that others have too")
        space.sites[name, 0] = found.ids
    space.offset = True
    if node.op != "BatchNormalization":
        space.affine = space.affine or f"'{node.name}' ({node.op})"
    return found


def _turned(node: Node, space: ColourSpace) -> Carried:
    found = _first(node, space)
    rank = len(space.shape(node.inputs[0]))
    return Carried(list(node.ints("perm", range(rank)[::-1])).index(found.axis), found.ids)


def _joined(node: Node, space: ColourSpace) -> Carried:
    """Side by side along the channels, or all the same along another axis."""
    rank = len(space.shape(node.outputs[0]))
    axis = node.int("axis", 1) % rank
    if not all(name in space.carried for name in node.inputs):
        raise Lost(f"'{node.name}' (Concat) joins the image with what is no part of it")
    parts = [space.carried[name] for name in node.inputs]
    if axis == parts[0].axis:
        return Carried(axis, np.concatenate([part.ids for part in parts]))
    if not all(np.array_equal(part.ids, parts[0].ids) for part in parts):
        raise Lost(f"'{node.name}' (Concat) joins channels of the image with others")
    return parts[0]


def _cut(node: Node, space: ColourSpace) -> Carried:
    """Along another axis."""
    found = _first(node, space)
    if space.shape(node.outputs[0])[found.axis] != found.ids.size:
        raise Lost(f"'{node.name}' ({node.op}) takes some of the channels of the image")
    starts, axes, steps = (space.shapes.values.get(node.input(slot)) for slot in (1, 3, 4))
    if node.input(4) and steps is not None and axes is not None:
        for axis, step in zip(axes.array.ravel().tolist(), steps.array.ravel().tolist(), strict=True):
            if axis % len(space.shape(node.inputs[0])) == found.axis and step != 1:
                raise Lost(f"'{node.name}' ({node.op}) turns the channels of the image round")
    ends = space.shapes.values.get(node.input(2))
    if starts is not None and ends is not None:
        listed = range(starts.array.size) if axes is None else axes.array.ravel().tolist()
        rank = len(space.shape(node.inputs[0]))
        for position, axis in enumerate(listed):
            if axis % rank == found.axis and int(ends.array.ravel()[position]) <= found.ids.size:
                space.written.append((node.name, 2, position))
    return found


def _picked(node: Node, space: ColourSpace) -> Carried:
    """In another order."""
    found = _first(node, space)
    axis = node.int("axis", 0) % len(space.shape(node.inputs[0]))
    picks = space.shapes.values.get(node.input(1))
    if axis != found.axis:
        raise Lost(f"'{node.name}' (Gather) picks positions of the image")
    if picks is None or node.inputs[1] not in space.view.constants or picks.array.ndim != 1:
        raise Lost(f"'{node.name}' (Gather) takes some of the channels of the image")
    order = picks.array % found.ids.size
    if not np.array_equal(np.sort(order), np.arange(found.ids.size)):
        raise Lost(f"'{node.name}' (Gather) takes some of the channels of the image")
    space.picks[node.name] = order
    return Carried(axis, found.ids[order])


def _read(node: Node, space: ColourSpace) -> Carried | None:
    """A convolution reads them by the columns of its weight; one of a group for each of them passes them on."""
    found = _first(node, space)
    if found.axis != 1:
        raise Lost(f"'{node.name}' ({node.op}) slides over the channels of the image")
    if node.input(1) not in space.view.constants:
        raise Lost(f"the weight of '{node.name}' ({node.op}) is computed")
    if len(space.view.readers[node.inputs[1]]) > 1:
        raise Lost(f"the weight of '{node.name}' ({node.op}) is read elsewhere too")
    if node.int("group", 1) == 1:
        space.columns[node.name] = found.ids
        return None
    if space.shape(node.inputs[1])[:2] != (found.ids.size, 1):
        raise Lost(
            f"'{node.name}' ({node.op}) makes several channels of each of the image's, or of some of them together"
        )
    for name in (name for name in node.inputs[1:] if name):
        if name not in space.view.constants or len(space.view.readers[name]) > 1:
            raise Lost(f"'{name}', which has a number for each channel of the image, is read elsewhere too")
        space.sites[name, 0] = found.ids
    space.groups[node.name] = found.ids
    space.offset |= bool(node.input(2))
    return found


LINES = frozenset({"Cast", "Identity", "Neg", "Dropout", "CastLike"})
COLOUR_RULES: Mapping[str, ColourRule] = {
    **{op: _passed if op in LINES else _bent for op, row in OPERATORS.items() if row.form == "unary"},
    **{op: _combined for op, row in OPERATORS.items() if row.form == "n-ary"},
    "AveragePool": _pooled,
    "MaxPool": _pooled,
    "BatchNormalization": _normalised,
    "InstanceNormalization": _normalised,
    "Transpose": _turned,
    "Concat": _joined,
    "Slice": _cut,
    "Gather": _picked,
    "Pad": _spatial,
    "Resize": _spatial,
    "Upsample": _spatial,
    "Conv": _read,
}
