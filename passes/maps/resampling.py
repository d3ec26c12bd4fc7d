"""Rules of the operators that resample a map, or trade its positions for channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from passes.graph.view import Node
from passes.maps.contents import Axes, Content, Side, changed, count, one_side, sides, size_after, size_before
from passes.maps.positions import MapSpace, Rule, Stuck, Unfollowed
from passes.maps.shared import only_seeds_samples, require_map


def resize(node: Node, space: MapSpace) -> Axes:
    """The map gets other samples, by a factor or to a size; a size that is written follows where it is a whole multiple
    of its map.
    """
    x, out = space.axes(node.inputs[0]), space.shape(node.outputs[0])
    if node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unfollowed(f"'{node.name}' ({node.op}) chooses its size by itself")
    factors, settled = _scales(node, space, len(x)), _settled_sizes(node, space, len(x))
    spread = [
        axis for axis, content in enumerate(x) if size_before(content) == 1 and out[axis] > 1 and not sides(content)
    ]
    result = list[Content]()
    for axis, content in enumerate(x):
        require_map(content if size_before(content) != out[axis] else ())
        if axis in spread:
            result.append(
                _spread(node, space, spread.index(axis), axes=len(spread), there=out[axis], known=settled.get(axis))
            )
        elif not sides(content):
            result.append(count(out[axis]))
        elif size_before(content) == out[axis] and not changed(content):
            result.append(content)
        elif (side := one_side(content)) is None:
            raise Unfollowed(f"'{node.name}' ({node.op}) resamples several extents at once")
        else:
            only_seeds_samples(node, side)
            new = settled.get(axis) if factors is None else math.floor(side.new * factors[axis])
            result.append((_resampled(node, space, side, there=out[axis], known=new),))
    if factors is None:
        _write_sizes(node, space, result)
    elif any(changed(result[axis]) for axis in spread):
        raise Stuck(
            f"'{node.name}' ({node.op}) spreads one position over a map by a factor that is written in the file"
        )
    return tuple(result)


def _scales(node: Node, space: MapSpace, rank: int) -> list[float] | None:
    """The factor of every axis, None where sizes are given instead."""
    if node.op == "Upsample" and "scales" in node.attrs:
        return [float(v) for v in node.attrs["scales"]]
    slot = 1 if node.op == "Upsample" or space.view.opset < 11 else 2
    value = space.shapes.values.get(node.input(slot)) if node.input(slot) else None
    if value is None or not value.array.size:
        return None
    if not np.isfinite(value.array).all():
        raise Unfollowed(f"the factors of '{node.name}' ({node.op}) are no numbers")
    given = dict(
        zip((axis % rank for axis in node.ints("axes", range(rank))), value.array.ravel().tolist(), strict=True)
    )
    return [float(given.get(axis, 1.0)) for axis in range(rank)]


def _settled_sizes(node: Node, space: MapSpace, rank: int) -> dict[int, int]:
    """axis → the size that input 3 of a Resize gives it, where the number already is what it must be."""
    listed = [axis % rank for axis in node.ints("axes", range(rank))]
    return {listed[index]: size for index, size in space.settled_ints(node, 3).items()}


def _resampled(node: Node, space: MapSpace, side: Side, *, there: int, known: int | None) -> Side:
    """The side resampled to as many as is known; or in proportion to itself, where that is in proportion to the image
    too.
    """
    even = there % side.old == 0 or side.old % there == 0
    stride = side.stride * side.old / there if side.stride is not None and even else None
    if not side.changed or known is not None:
        return Side(side.axis, stride, there, there if known is None or not side.changed else known)
    image, new = _image(space, side.axis), Fraction(side.new * there, side.old)
    if not even or new.denominator != 1 or new * image.old != there * image.new:
        of = f"{there} positions of {side.old}, a size that is written in the file"
        raise Stuck(
            f"'{node.name}' ({node.op}) makes {of}: it is not clear what it makes of {side.new}, in an image of "
            f"{image.new}"
        )
    return Side(side.axis, stride, there, int(new))


def _image(space: MapSpace, axis: tuple[str, int]) -> Side:
    return sides(space.maps[axis[0]].axes[axis[1]])[0]


def _spread(node: Node, space: MapSpace, position: int, *, axes: int, there: int, known: int | None) -> Content:
    """One position spread over a map: as many samples as is known, or in proportion to the image."""
    images = [
        side
        for name in space.view.inputs
        if name in space.maps
        for content in space.maps[name].axes
        for side in sides(content)
    ]
    if len(images) != axes or len({side.axis[0] for side in images}) != 1:
        return count(there)
    image = images[position]
    new = Fraction(there * image.new, image.old) if known is None else Fraction(known)
    if new.denominator != 1:
        raise Stuck(f"'{node.name}' ({node.op}) spreads one position over {there}, a size that is written in the file")
    return (Side(image.axis, Fraction(image.old, there) if image.old % there == 0 else None, there, int(new)),)


def _write_sizes(node: Node, space: MapSpace, result: Sequence[Content]) -> None:
    """The sizes in input 3 of a Resize say what its axes are; one that is computed from a free size follows by
    itself.
    """
    value = space.shapes.values.get(node.input(3))
    listed = [axis % len(result) for axis in node.ints("axes", range(len(result)))]
    for axis, content in enumerate(result):
        if changed(content):
            place = listed.index(axis)
            if value is None or (value.source[place] is None and not value.free.ravel()[place]):
                raise Stuck(f"'{node.name}' ({node.op}) resizes to a size that is computed")
            space.number(node, 3, place, size_after(content))


def depth_to_space(node: Node, space: MapSpace) -> Axes:
    """Channels become positions: the map is finer by the block size."""
    return _blocks(node, space, Fraction(node.int("blocksize", 1)))


def space_to_depth(node: Node, space: MapSpace) -> Axes:
    """Positions become channels: the map is coarser by the block size."""
    return _blocks(node, space, Fraction(1, node.int("blocksize", 1)))


def _blocks(node: Node, space: MapSpace, factor: Fraction) -> Axes:
    x, out = space.axes(node.inputs[0]), space.shape(node.outputs[0])
    result = list[Content]()
    for axis in (2, 3):
        side = one_side(x[axis])
        if not sides(x[axis]):
            result.append(count(out[axis]))
            continue
        if side is None:
            raise Unfollowed(f"'{node.name}' ({node.op}) moves positions of several extents at once")
        only_seeds_samples(node, side)
        if factor < 1 and space.strides_on(side, int(1 / factor), node):
            raise Stuck(f"'{node.name}' ({node.op}) strides by moving positions into channels, which has no dilation")
        new = side.new * factor
        if new.denominator != 1:
            raise Stuck(
                f"'{node.name}' ({node.op}) moves blocks of {int(1 / factor)} positions, which a map of "
                f"{side.new} has not"
            )
        result.append((Side(side.axis, None if side.stride is None else side.stride / factor, out[axis], int(new)),))
    return (x[0], count(out[1]), *result)


RESAMPLING: Mapping[str, Rule] = {
    "Resize": resize,
    "Upsample": resize,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
}
