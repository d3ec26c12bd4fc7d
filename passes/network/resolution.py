"""The size of the image and the output stride: what the analysis says of them, and what they contribute to a plan.

Both come last: they edit the nodes that depth, width and kernels have left. Another image size leaves every weight as
it is; sizes written in the graph follow the maps (maps/). The output stride is the largest number of image pixels
between two samples of a map; a smaller one turns the strides beyond it into dilations, so that the new map, sampled at
every 2nd, 4th … position, is the old one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import TypeVar

import numpy as np
import onnx_graphsurgeon as gs

from passes.errors import RefusedModel
from passes.graph.normalise import normalise, with_sizes_open
from passes.graph.shapes import SMALL, infer, why_unknown
from passes.graph.tensors import Shape, Shapes
from passes.graph.view import View, build, view
from passes.maps.contents import Map, Side, plain, sides, size_after
from passes.maps.following import convolved_axes, follow
from passes.maps.positions import MapSpace, Stuck
from passes.network.images import Image, Resolution, Strides
from passes.network.knobs import Size, size_text

Axes = Mapping[str, tuple[int, ...]]  # input → its axes in space
Edits = Mapping[str, Mapping[str, object]]  # node → attributes
Declared = Mapping[str, Mapping[int, int]]  # input → axis → its size in the file
S = TypeVar("S")
T = TypeVar("T")


# --- analysis -----------------------------------------------------------------------------------


def read_resolution(graph: gs.Graph | None, seen: View, shapes: Shapes) -> Resolution:
    """The image and the strides of a network, from the view and the shapes of its normal form.

    graph: the network as it was given, where numbers in its normal form are made of sizes.
    """
    axes = image_axes(seen, shapes)
    space = follow(seen, shapes, image_maps(shapes, axes))
    known = {node.name: space.maps[node.outputs[0]] for node in seen.nodes if node.outputs[0] in space.maps}
    makes_map = {name: any(sides(content) for content in made.axes) for name, made in known.items()}
    return Resolution(_read_image(graph, seen, shapes, axes), _read_strides(space, axes), makes_map)


def image_axes(seen: View, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Every input over which a convolution slides, with the axes it slides over."""
    names = [name for name in seen.inputs if name not in seen.constants and len(shapes.shapes.get(name, ())) >= 3]
    found = {name: convolved_axes(seen, shapes, name) for name in names}
    return {name: axes for name, axes in found.items() if axes is not None}


def image_maps(shapes: Shapes, axes: Axes, sizes: Sequence[int] | None = None) -> dict[str, Map]:
    """The images as maps, of the sizes given."""
    maps = {}
    for name, slid in axes.items():
        contents = list(plain(shapes.shapes[name]))
        for k, axis in enumerate(slid):
            old = shapes.shapes[name][axis]
            contents[axis] = (Side((name, axis), Fraction(1), old, old if sizes is None else sizes[k]),)
        maps[name] = Map(tuple(contents))
    return maps


def _read_image(graph: gs.Graph | None, seen: View, shapes: Shapes, axes: Axes) -> Image:
    if len(axes) != 1:
        unknown = None if axes else why_unknown(seen, shapes)
        if unknown is not None:
            return Image("", (), None, refusal=unknown)
        inputs = f"{len(axes)} inputs ({', '.join(axes)})" if axes else "no input"
        return Image(
            "", (), None, refusal=f"convolutions slide over {inputs}, and the image is the one they slide over"
        )
    name, slid = next(iter(axes.items()))
    shape, declared = shapes.shapes[name], seen.inputs[name][0]
    if len(shape) != 4 or len(slid) != 2:
        why = f"'{name}' has {len(shape)} axes, {len(slid)} of them in space; an image has 4, 2 of them in space"
        return Image(name, slid, None, refusal=why)
    size = (shape[slid[0]], shape[slid[1]])
    if declared is None or any(not isinstance(declared[axis], int) for axis in slid):
        return Image(name, slid, size, free=True)
    image = Image(name, slid, size, graph=graph)
    return replace(image, tried=partial(_why_fixed, image, size, seen, shapes))


def _why_fixed(image: Image, size: Size, seen: View, shapes: Shapes) -> str | None:
    """Why an image of twice this size is not possible; None where it is."""
    start = SizedView(seen, shapes, {name: shapes.shapes[name] for name in seen.inputs if name in shapes.shapes})
    try:
        at_size(start, (image, (2 * size[0], 2 * size[1])), seen, {node.name: node.name for node in seen.nodes})
    except Stuck as why:
        return str(why)
    return None


def _read_strides(space: MapSpace, axes: Axes) -> Strides:
    """The largest stride of a map, and what would become of each smaller one on the way to it."""
    found = sorted(space.strides(), reverse=True)
    if not found:
        unknown = None if axes else why_unknown(space.view, space.shapes)
        return Strides(1, (1,), "frozen", unknown or "no convolution slides over an input, so no map is known")
    values, reasons, averages = [found[0]], list[tuple[int, str]](), list[str]()
    for limit in found[1:]:
        try:
            averages += follow(space.view, space.shapes, image_maps(space.shapes, axes), limit=limit).averages
            values.append(limit)
        except Stuck as stuck:
            reasons.append((limit, str(stuck)))
    if len(values) == 1:
        return Strides(
            values[0], (values[0],), "frozen", reasons[0][1] if reasons else "no map of this network has a stride"
        )
    why = [f"'{name}' averages over the finer map" for name in averages[:1]] + [
        f"not {limit}: {reason}" for limit, reason in reasons[:1]
    ]
    return Strides(values[0], tuple(sorted(values)), "approximate" if averages else "exact", "; ".join(why) or None)


@dataclass(frozen=True)
class SizedView:
    """The target as far as it is known: its nodes and constants, the sizes of its inputs and tensors, the numbers that
    changed.
    """

    view: View
    shapes: Shapes
    inputs: Mapping[str, Shape]
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def edited(self, space: MapSpace, declared: Declared) -> SizedView:
        """The same after what the space says, at these input sizes. Raises Stuck where its tensors would not fit
        together.
        """
        numbers = {**space.settled, **space.numbers}
        seen = _edited(self.view, space.edits, numbers, declared)
        inputs = {name: _declare(shape, declared.get(name, {})) for name, shape in self.inputs.items()}
        try:
            shapes = infer(seen, inputs)
        except RefusedModel as error:
            raise Stuck(str(error)) from error
        for name, made in space.maps.items():
            predicted, actual = tuple(map(size_after, made.axes)), shapes.shapes.get(name)
            if actual is not None and actual != predicted and name not in inputs:
                raise Stuck(
                    f"'{name}' would have shape {list(actual)} instead of {list(predicted)}: a size that the "
                    "graph computes stays"
                )
        return SizedView(seen, shapes, inputs, {**self.numbers, **numbers}, (*self.notes, *space.notes))


def _edited(seen: View, edits: Edits, numbers: Mapping[str, np.ndarray], declared: Declared | None = None) -> View:
    nodes = [
        replace(node, attrs={**node.attrs, **edits[node.name]}) if node.name in edits else node for node in seen.nodes
    ]
    inputs = dict(seen.inputs)
    for name, sizes in (declared or {}).items():
        shape, dtype = inputs[name]
        inputs[name] = (None if shape is None else _declare(shape, sizes), dtype)
    constants = {**seen.constants, **{name: gs.Constant(name, array) for name, array in numbers.items()}}
    return replace(
        seen, nodes=tuple(nodes), by_name={node.name: node for node in nodes}, constants=constants, inputs=inputs
    )


def _declare(shape: tuple[T, ...], sizes: Mapping[int, S]) -> tuple[T | S, ...]:
    return tuple(sizes.get(axis, size) for axis, size in enumerate(shape))


def at_size(target: SizedView, wanted: tuple[Image, Size], seed: View, origin: Mapping[str, str]) -> SizedView:
    """The target for images of another size; `origin` says for each of its nodes which of the seed's it comes from.
    Raises Stuck.
    """
    image, size = wanted
    declared = {image.input: dict(zip(image.axes, size, strict=True))}
    if image.free:
        made = target.edited(MapSpace(target.view, target.shapes), declared)
    else:
        pads, settled = (
            ({}, {}) if image.graph is None else _folded(target, (seed, _read_at(image.graph, image, size)), origin)
        )
        start = replace(target, view=_edited(target.view, pads, {}))
        space = follow(
            start.view, start.shapes, image_maps(target.shapes, {image.input: image.axes}, size), settled=settled
        )
        factors = [name for name, array in settled.items() if array.dtype.kind == "f"]
        space.notes += [
            f"'{name}', which the graph computes from the image's size, is what it is at {size_text(size)}"
            for name in factors
        ]
        made = start.edited(space, declared)
    for name in target.view.outputs:
        old, new = (t.shapes.shapes.get(name, ()) for t in (target, made))
        if old and new and image.input != name and old[0] != new[0]:
            raise Stuck(
                f"output '{name}' would have {new[0]} entries on axis 0 instead of {old[0]}: positions of the "
                "map become images"
            )
    return made


def _read_at(graph: gs.Graph, image: Image, size: Size) -> View:
    """The normal form of the graph as it was given, with an image of this size. Raises Stuck where it has none."""
    try:
        return normalise(_sized_graph(graph, image, size)).seen
    except RefusedModel:  # sizes that are written stand beside those that are computed
        pass
    try:
        return normalise(_sized_graph(_written_at(graph, image, size), image, size)).seen
    except RefusedModel as why:
        raise Stuck(f"at another size {why}") from why


def _written_at(graph: gs.Graph, image: Image, size: Size) -> gs.Graph:
    """The graph with the sizes that are written in it as they are for an image of this size; what it computes, it
    computes still.
    """
    free = _sized_graph(graph, image, (None, None))
    declared = next(tuple(tensor.shape or ()) for tensor in free.inputs if tensor.name == image.input)
    batch = tuple(extent if isinstance(extent, int) else 1 for extent in declared)
    sizes = {image.input: _declare(batch, dict(zip(image.axes, image.size or size, strict=True)))}
    loose = with_sizes_open(free, sizes)
    seen = view(loose)
    shapes = infer(seen, sizes)
    space = follow(seen, shapes, image_maps(shapes, {image.input: image.axes}, size))
    factors = _computed_factors(seen, shapes)
    edited = _edited(seen, space.edits, {**space.numbers, **factors})
    return build([node for node in edited.nodes if factors.keys().isdisjoint(node.outputs)], edited.constants, loose)


def _computed_factors(seen: View, shapes: Shapes) -> dict[str, np.ndarray]:
    """Factors of resampling that are computed from sizes, at the size there is: a written size over that of its map
    stays what it is.
    """
    slots = {"Upsample": 1, "Resize": 1 if seen.opset < 11 else 2}
    names = [node.input(slots[node.op]) for node in seen.nodes if node.op in slots]
    known = {name: shapes.values[name] for name in names if name in shapes.values}
    return {name: value.array for name, value in known.items() if value.free.any() and value.array.dtype.kind == "f"}


def _sized_graph(graph: gs.Graph, image: Image, size: tuple[int | None, int | None]) -> gs.Graph:
    """A copy of the graph whose image is said to have this size; None leaves a side free."""
    seen = view(graph)
    copy = build(seen.nodes, seen.constants, graph)
    for tensor in copy.inputs:
        if tensor.name == image.input:
            tensor.shape = list(_declare(tuple(tensor.shape), dict(zip(image.axes, size, strict=True))))
    return copy


def _other_nodes(old: View, new: View) -> str:
    for more, fewer, when in ((new, old, "at that size"), (old, new, "at this size")):
        node = next((node for node in more.nodes if node.name not in fewer.by_name), None)
        if node is not None:
            return f"'{node.name}' ({node.op}) does something {when} only, so the graph is another one"
    return "the graph computes other things from that size, beyond numbers"


def _folded(
    target: SizedView, read: tuple[View, View], origin: Mapping[str, str]
) -> tuple[Edits, dict[str, np.ndarray]]:
    """Pads and numbers that the graph computes from the size of its image: node → attributes, constant → value.

    read: the seed at its size and at the new one.
    """
    old, new = read
    if [node.name for node in old.nodes] != [
        node.name for node in new.nodes
    ] or old.constants.keys() != new.constants.keys():
        raise Stuck(_other_nodes(old, new))
    pads: dict[str, dict[str, object]] = {}
    settled: dict[str, np.ndarray] = {}
    for node in target.view.nodes:
        before, after = (seen.by_name[origin[node.name]] for seen in read)
        moved = [b - a for a, b in zip(before.ints("pads", ()), after.ints("pads", ()), strict=True)]
        if any(moved):
            pads[node.name] = {"pads": [pad + by for pad, by in zip(node.ints("pads", ()), moved, strict=True)]}
        for name, source in zip(node.inputs, before.inputs, strict=True):
            if source in old.constants and name not in settled and _computed_anew(old, new, source):
                settled[name] = _merged(target.view.values(name), old.values(source), new.values(source))
    return pads, settled


def _computed_anew(old: View, new: View, name: str) -> bool:
    shapes = [tuple(seen.constants[name].shape) for seen in (old, new)]
    if max(int(np.prod(shape, dtype=np.int64)) for shape in shapes) > SMALL:
        return False
    return shapes[0] != shapes[1] or not np.array_equal(old.values(name), new.values(name))


def _merged(target: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The target's numbers, with those that changed with the size."""
    if target.shape == old.shape == new.shape:
        return np.where(old != new, new, target)
    if np.array_equal(target, old):
        return new
    raise Stuck("a number that the graph computes from its size is resized for other reasons too")
