"""The graph for an image of another number of channels.

Of the channels x that there were, the graph is given others, u, with x = A·u:

    to one        every channel is the one: A = (1 … 1)ᵀ, so a grey image counts as it did in all of them
    one to three  the luminance of BT.601: A = (0.299 0.587 0.114)
    more          those that there were, and fresh ones that nobody reads yet: A = (I 0)
    fewer         the first ones; the others are nothing: A = (I 0)ᵀ

and the columns W of the convolutions that read them become W·A. Where that is not the same, as behind a number that is
another one for each channel, one channel is repeated in front of the graph, which then is what it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from passes.colours.following import ColourSpace, Lost, followed_colours
from passes.errors import RefusedModel
from passes.graph.shapes import infer
from passes.graph.tensors import Shape, Shapes
from passes.graph.view import Node, View, build, linked, unique, view

LUMINANCE = (0.299, 0.587, 0.114)  # BT.601: of red, green, blue
NOISE = 1e-5  # times kaiming_uniform, as fresh weights are


@dataclass(frozen=True)
class Recolouring:
    """The input that is an image, the axis of its channels, and how many they are to be. noise: fresh columns are not
    zero, but small.
    """

    image: str
    axis: int
    channels: int
    noise: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Recoloured:
    """A graph for other channels: its nodes in order, the constants that are new or others, and the shapes of all
    tensors.

    `exact`: of an image that has nothing in what is fresh or gone it computes what it did; `repeated`: the one channel
    is repeated.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, gs.Constant]
    shapes: Mapping[str, Shape]
    exact: bool
    repeated: str = ""


def matrix(old: int, new: int) -> np.ndarray:
    """A [old, new]: what each channel there was is, of those there are to be."""
    if new == 1:
        return np.ones((old, 1))
    if (old, new) == (1, len(LUMINANCE)):
        return np.array([LUMINANCE])
    return np.eye(old, new)


def recoloured(seen: View, shapes: Shapes, asked: Recolouring) -> Recoloured:
    """The graph whose image has so many channels. Raises Lost where there is none, naming the node."""
    old = shapes.shapes[asked.image][asked.axis]
    try:
        space = followed_colours(seen, shapes, asked.image, asked.axis)
        unlike = _unlike(space, old, asked.channels)
        if unlike:
            raise Lost(unlike)
    except Lost as why:
        if asked.channels != 1:
            raise
        return _repeated(seen, shapes, asked, str(why))
    constants = _constants(space, matrix(old, asked.channels), asked)
    groups = {node: _mapped(ids, asked.channels).size for node, ids in space.groups.items()}
    nodes = [_changed(node, constants, groups.get(node.name)) for node in seen.nodes]
    made = {constant.name: constant for constant in constants.values()}
    exact = not (asked.noise and asked.channels > old > 1) and not (1 < asked.channels < old and space.offset)
    return _checked(seen, shapes, asked, nodes=nodes, made=made, exact=exact, space=space)


def _unlike(space: ColourSpace, old: int, new: int) -> str:
    """Why other channels would not count as those there were; '' where they do."""
    if new == 1:
        half = next(
            (
                node
                for node in space.columns
                if space.view.values(space.view.by_name[node].inputs[1]).dtype.itemsize < 4
            ),
            None,
        )
        if half is not None and old > 1:
            return f"the columns of '{half}' are of half precision, and so would their sums be"
        odd = next((name for (name, axis) in space.sites if not space.uniform(name, axis)), None)
        return "" if odd is None else f"'{odd}' holds another number for each channel of the image"
    if (old, new) == (1, len(LUMINANCE)) and space.affine:
        return f"{space.affine} makes of the luminance something else than of each colour"
    return ""


def _changed(node: Node, constants: Mapping[tuple[str, int], gs.Constant], groups: int | None) -> Node:
    """The node that reads these constants instead of its own, in so many groups."""
    found = (constants.get((node.name, slot)) for slot in range(len(node.inputs)))
    inputs = tuple(name if own is None else str(own.name) for name, own in zip(node.inputs, found, strict=True))
    return replace(node, inputs=inputs, attrs={**node.attrs, **({} if groups is None else {"group": groups})})


def _constants(space: ColourSpace, a: np.ndarray, asked: Recolouring) -> dict[tuple[str, int], gs.Constant]:
    """(node, slot) → the constant that it reads there instead: columns, numbers for each channel, counts of channels,
    picks.
    """
    seen, found = space.view, dict[tuple[str, int], gs.Constant]()
    old, new = a.shape
    for node, ids in space.columns.items():
        name = seen.by_name[node].inputs[1]
        found[node, 1] = gs.Constant(name, _columns(seen.values(name), ids, a, asked))
    for (name, axis), ids in space.sites.items():
        ((node, slot),) = seen.readers[name]
        found[node, slot] = gs.Constant(name, _numbers(seen.values(name), axis, ids, new))
    for node, order in space.picks.items():
        name = seen.by_name[node].inputs[1]
        rows = [int(i) for i in order if i < new] + list(range(old, new)) if old > 1 else list(range(new))
        found[node, 1] = gs.Constant(_fresh(seen, name), np.array(rows, seen.values(name).dtype))
    for node, slot, position in space.written:
        name = seen.by_name[node].inputs[slot]
        value = space.shapes.values[name]
        if name not in seen.constants or bool(value.free.any()):
            raise Lost(f"'{node}' holds how many channels the image has among numbers that are computed")
        known = found.get((node, slot))
        array = np.array(value.array if known is None else known.values)
        carried = space.carried[seen.by_name[node].inputs[0]]
        array.reshape(-1)[position] = _mapped(carried.ids, new).size
        found[node, slot] = gs.Constant(_fresh(seen, name), array)
    return found


def _fresh(seen: View, name: str) -> str:
    return unique(
        f"{name}_channels", lambda taken: taken in seen.constants or taken in seen.producer or taken in seen.inputs
    )


def _mapped(ids: np.ndarray, new: int) -> np.ndarray:
    """A vector of channels with those that there are to be: fresh ones follow the last of each run."""
    old = int(ids.max()) + 1
    rows: list[int] = []
    for start in range(0, ids.size, old):
        part = ids[start : start + old].tolist()
        rows += [i for i in part if i < new] + list(range(old, new))
    return np.array(rows)


def _columns(weight: np.ndarray, ids: np.ndarray, a: np.ndarray, asked: Recolouring) -> np.ndarray:
    """W·A, for each time that the channels are read; the noise of fresh columns from the seed."""
    old, new = a.shape
    rng = np.random.default_rng(asked.seed)
    bound = np.sqrt(6.0 / max(int(np.prod(weight.shape[2:])) * new, 1))
    parts = []
    for start in range(0, ids.size, old):
        part, order = weight[:, start : start + old].astype(np.float64), ids[start : start + old]
        sorted_ = part[:, np.argsort(order)]
        made = np.einsum("oc...,cn->on...", sorted_, a)
        if asked.noise and new > old and old > 1:
            shape = made[:, old:].shape
            made[:, old:] = NOISE * bound * rng.uniform(-1.0, 1.0, shape)
        places = _mapped(order, new) if new != 1 and old != 1 else np.arange(new)
        parts.append(made[:, places])
    return np.ascontiguousarray(np.concatenate(parts, 1).astype(weight.dtype))


def _numbers(values: np.ndarray, axis: int, ids: np.ndarray, new: int) -> np.ndarray:
    """A number for each channel; of a fresh one the mean of the others."""
    old = int(ids.max()) + 1
    if new == 1 or old == 1:
        return np.ascontiguousarray(np.repeat(values.take([0], axis), new * (ids.size // old), axis))
    parts = []
    for start in range(0, ids.size, old):
        part = values.take(range(start, start + old), axis)
        kept = part.take([k for k, i in enumerate(ids[start : start + old].tolist()) if i < new], axis)
        mean = part.mean(axis, keepdims=True).astype(values.dtype)
        parts += [kept, np.repeat(mean, max(new - old, 0), axis)]
    return np.ascontiguousarray(np.concatenate(parts, axis))


def _repeated(seen: View, shapes: Shapes, asked: Recolouring, why: str) -> Recoloured:
    """The one channel, repeated in front of the graph."""
    old = shapes.shapes[asked.image][asked.axis]
    taken = {*seen.constants, *seen.producer, *seen.inputs, *seen.by_name}
    wide, name = (unique(f"{asked.image}_{word}", taken.__contains__) for word in ("repeated", "Concat"))
    if asked.image in seen.outputs:
        raise Lost(f"output '{asked.image}' is the image itself")
    first = Node(name, "Concat", (asked.image,) * old, (wide,), {"axis": asked.axis})
    nodes = [
        replace(node, inputs=tuple(wide if name == asked.image else name for name in node.inputs))
        for node in seen.nodes
    ]
    return _checked(seen, shapes, asked, nodes=[first, *nodes], made={}, exact=True, repeated=why)


def _checked(
    seen: View,
    shapes: Shapes,
    asked: Recolouring,
    *,
    nodes: Sequence[Node],
    made: Mapping[str, gs.Constant],
    exact: bool,
    repeated: str = "",
    space: ColourSpace | None = None,
) -> Recoloured:
    """The graph, of which nothing has another size but what carries the channels. Raises Lost, naming the first tensor
    that has.
    """
    declared, kind = seen.inputs[asked.image]
    assert declared is not None
    said = tuple(asked.channels if axis == asked.axis else size for axis, size in enumerate(declared))
    after = linked(nodes, {**seen.constants, **made}, replace(seen, inputs={**seen.inputs, asked.image: (said, kind)}))
    sizes = {name: shapes.shapes[name] for name in seen.inputs if name in shapes.shapes and name not in seen.constants}
    own = sizes[asked.image]
    sizes[asked.image] = tuple(asked.channels if axis == asked.axis else size for axis, size in enumerate(own))
    try:
        found = infer(after, sizes).shapes
    except RefusedModel as error:
        raise Lost(str(error)) from error
    carried = set() if space is None else space.carried.keys()
    for name in (
        name for name in shapes.shapes if name != asked.image and name in seen.producer and name not in carried
    ):
        if found.get(name) not in (None, shapes.shapes[name]):
            raise Lost(f"'{name}' would have the shape {list(found[name])} instead of {list(shapes.shapes[name])}")
    return Recoloured(tuple(nodes), made, found, exact, repeated)


def with_channels(graph: gs.Graph, shapes: Shapes, asked: Recolouring) -> gs.Graph:
    """A copy of the graph whose image has so many channels, and says so. Raises Lost where there is none."""
    seen = view(graph)
    made = recoloured(seen, shapes, asked)
    result = build(made.nodes, {**seen.constants, **made.constants}, graph)
    for tensor in result.inputs:
        if tensor.name == asked.image:
            tensor.shape = [asked.channels if axis == asked.axis else size for axis, size in enumerate(tensor.shape)]
    return result
