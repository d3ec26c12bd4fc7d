"""Groups: which convolutions can be cut into groups, and what becomes of their weight.

A weight of g groups is [A, B/g, …]: row a sees the b of its own group alone (a convolution's A are outputs, a
transposed one's inputs). As a dense weight D it is block-diagonal:

    D[a, j·B/g + b] = W[a, b]  where j = a // (A/g) is the group of row a;  all other entries are zero

Fewer groups, where they divide the seed's, keep the function exactly: the new entries are these zeros. More groups take
the diagonal blocks (FNA++: "group j takes output rows j and input slice j of the dense kernel") and lose what crossed
between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from passes.graph.operators import CONVOLUTIONS
from passes.graph.tensors import Shape, Shapes
from passes.graph.view import Node, View

WHY = "more groups drop the weights that cross between them (fewer, where they divide the seed's, keep the function)"
SMALLEST = 2  # input channels a group: with one it would be read as depthwise


@dataclass(frozen=True)
class Grouping:
    """A groups knob's weight, the nodes that use it, its groups, and its dense extents: axis 0, axis 1, and the input
    channels.
    """

    weight: str
    nodes: tuple[str, ...]
    groups: int
    rows: int
    columns: int
    inputs: int


@dataclass(frozen=True)
class Regroup:
    """A weight's way from `seed` to `target` groups, as a knob says; its axes are resized in between, while it has
    `ground` groups.
    """

    knob: str
    seed: int
    ground: int
    target: int


def groupings(view: View, shapes: Shapes) -> list[Grouping]:
    """One per weight that only convolutions of one kind and one number of groups use, depthwise ones apart; in the
    order of the graph.
    """
    found: dict[str, Grouping] = {}
    for node in view.nodes:
        if node.op not in CONVOLUTIONS or node.input(1) not in view.constants or node.inputs[1] in found:
            continue
        users = [view.by_name[reader] for reader, slot in view.readers[node.inputs[1]] if slot == 1]
        groups = node.int("group", 1)
        alike = all(user.op == node.op and user.int("group", 1) == groups for user in users)
        inputs = _inputs(node, shapes)
        if len(users) != len(view.readers[node.inputs[1]]) or not alike or inputs is None or groups == inputs:
            continue
        rows, columns = shapes.shapes[node.inputs[1]][:2]
        found[node.inputs[1]] = Grouping(
            weight=node.inputs[1],
            nodes=tuple(user.name for user in users),
            groups=groups,
            rows=rows,
            columns=columns * groups,
            inputs=inputs,
        )
    return list(found.values())


def _inputs(node: Node, shapes: Shapes) -> int | None:
    """The input channels of a convolution, None where its sizes are unknown."""
    shape = shapes.shapes.get(node.inputs[0])
    return None if shape is None or len(shape) < 2 else shape[1]


def possible(rows: int, columns: int, inputs: int) -> list[int]:
    """The numbers of groups that divide both axes of a dense weight and leave each group two inputs."""
    common = math.gcd(rows, columns)
    return [g for g in range(1, common + 1) if common % g == 0 and (inputs // g >= SMALLEST or g == 1)]


def keeps_function(seed: int, target: int) -> bool:
    """Whether every weight that is not zero stays: each new group is made of whole old ones."""
    return seed % target == 0


def regrouped(weight: np.ndarray, seed: int, target: int) -> np.ndarray:
    """The weight [A, B/seed, …] as [A, B/target, …]: whole groups merge first, with zeros between them, then blocks are
    cut out.
    """
    merged = math.gcd(seed, target)
    return _cut(_merge(weight, seed, merged), merged, target)


def _merge(weight: np.ndarray, seed: int, target: int) -> np.ndarray:
    times = seed // target
    if times == 1:
        return weight
    rows, columns, *taps = weight.shape
    each = np.arange(times)
    new = np.zeros((target, times, rows // seed, times, columns, *taps), weight.dtype)
    # axes (new group, old group, row, old group, column): the diagonal of the two middle ones
    new[:, each, :, each] = np.moveaxis(weight.reshape(target, times, rows // seed, columns, *taps), 1, 0)
    return new.reshape(rows, times * columns, *taps)


def _cut(weight: np.ndarray, seed: int, target: int) -> np.ndarray:
    times = target // seed
    if times == 1:
        return weight
    rows, columns, *taps = weight.shape
    each = np.arange(times)
    blocks = weight.reshape(seed, times, rows // target, times, columns // times, *taps)[:, each, :, each]
    return np.ascontiguousarray(np.moveaxis(blocks, 0, 1)).reshape(rows, columns // times, *taps)


def regrouped_shape(shape: Shape, seed: int, target: int) -> Shape:
    """The shape of the same."""
    return (shape[0], shape[1] * seed // target, *shape[2:])
