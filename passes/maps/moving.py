"""Rules of the operators that move elements: reshape, cut, join, pick, pad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from passes.graph.operators import NARY
from passes.graph.regrouping import UNBOUNDED
from passes.graph.tensors import Shape
from passes.graph.view import Node
from passes.maps import parts
from passes.maps.contents import (
    Axes,
    Content,
    Factor,
    Side,
    before,
    changed,
    count,
    has_space,
    one_side,
    plain,
    sides,
    size_after,
    size_before,
)
from passes.maps.positions import MapSpace, Rule, Stuck, Unfollowed
from passes.maps.shared import axes_of, met


def transpose(node: Node, space: MapSpace) -> Axes:
    """Axes in another order."""
    x = space.axes(node.inputs[0])
    return tuple(x[axis] for axis in node.ints("perm", range(len(x))[::-1]))


def reshape(node: Node, space: MapSpace) -> Axes:
    """Row-major regrouping: numbers may be cut, and a map into parts that become channels; sizes written for the output
    follow.
    """
    target = space.shape(node.outputs[0])
    result = _regrouped(node, space, [factor for content in space.axes(node.inputs[0]) for factor in content], target)
    if node.op == "Reshape":
        written = space.ints(node, 1) if node.input(1) else list(node.ints("shape", ()))
        for axis, number in enumerate(written or ()):
            if number > 0 and size_after(result[axis]) != target[axis]:
                if node.input(1):
                    space.number(node, 1, axis, size_after(result[axis]))
                else:
                    space.edit(
                        node,
                        shape=[
                            size_after(content) if n > 0 else n
                            for n, content in zip(written or (), result, strict=True)
                        ],
                    )
    return result


def _regrouped(node: Node, space: MapSpace, factors: Sequence[Factor], target: Shape) -> Axes:
    """The factors dealt out to axes of these sizes."""
    queue = list(factors)[::-1]
    result: list[list[Factor]] = []
    for size in target:
        taken: list[Factor] = []
        left = size
        while left > 1 or (size == 1 and not taken and queue and before(queue[-1]) == 1):
            if not queue:
                raise Unfollowed(f"'{node.name}' ({node.op}) regroups a map in an unknown way")
            factor = queue.pop()
            whole = before(factor)
            if left % whole == 0:
                taken.append(factor)
                left //= whole
            elif isinstance(factor, int) and factor % left == 0:
                taken.append(left)
                queue.append(factor // left)
                left = 1
            elif isinstance(factor, Side) and factor.old % left == 0 and parts.are_of_channels(node, space):
                taken.append(_parts(node, space, factor, factor.old // left))
                queue.append(factor.old // left)
                left = 1
            else:
                raise Unfollowed(
                    f"'{node.name}' ({node.op}) cuts a map into parts of a size that is written in the file"
                )
        result.append(taken)
    if any(before(factor) != 1 for factor in queue) or not result:
        raise Unfollowed(f"'{node.name}' ({node.op}) regroups a map in an unknown way")
    result[-1] += queue[::-1]
    return tuple(tuple(taken) for taken in result)


def _parts(node: Node, space: MapSpace, side: Side, by: int) -> Side:
    """The side in parts of so many positions each, counted by part, as SpaceToDepth takes it apart."""
    if space.strides_on(side, by, node) or side.rate != 1:
        raise Stuck(
            f"'{node.name}' ({node.op}) strides by cutting a map into parts of {by} positions, which has no dilation"
        )
    if side.new % by:
        raise Stuck(
            f"'{node.name}' ({node.op}) cuts a map into parts of {by} positions, which a map of {side.new} has not"
        )
    return Side(side.axis, None if side.stride is None else side.stride * by, side.old // by, side.new // by)


def squeeze(node: Node, space: MapSpace) -> Axes:
    """Axes of one position go."""
    x = space.axes(node.inputs[0])
    axes = axes_of(node, space, 1)
    gone = {axis % len(x) for axis in axes} or {axis for axis, content in enumerate(x) if size_before(content) == 1}
    grown = next((axis for axis in gone if size_after(x[axis]) != 1), None)
    if grown is not None:
        raise Stuck(f"'{node.name}' (Squeeze) removes an axis of one position, which would have {size_after(x[grown])}")
    return tuple(content for axis, content in enumerate(x) if axis not in gone)


def unsqueeze(node: Node, space: MapSpace) -> Axes:
    """New axes of one position."""
    x = list(space.axes(node.inputs[0]))
    axes = axes_of(node, space, 1)
    rank = len(x) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x.insert(axis, ())
    return tuple(x)


def concat(node: Node, space: MapSpace) -> Axes:
    """Along another axis the maps have the same samples; along space they are laid end to end."""
    rank = len(space.shape(node.outputs[0]))
    axis = node.int("axis", 1) % rank
    parts = [space.axes(name) for name in node.inputs]
    result: list[Content] = [()] * rank
    for name, axes in zip(node.inputs, parts, strict=True):
        for k, content in enumerate(axes):
            result[k] = met(node, result[k], content, name) if k != axis else result[k]
    along = [part[axis] for part in parts]
    result[axis] = _end_to_end(node, along) if any(map(has_space, along)) else count(sum(map(size_before, along)))
    return tuple(result)


def _end_to_end(node: Node, along: Sequence[Content]) -> Content:
    if any(side.rate != 1 for content in along for side in sides(content)):
        raise Stuck(f"'{node.name}' ({node.op}) lays maps end to end")
    first = next((side for content in along for side in sides(content)), None)
    old, new = sum(map(size_before, along)), sum(map(size_after, along))
    return (old,) if first is None else (Side(first.axis, None, old, new),)


def split(node: Node, space: MapSpace) -> list[Axes]:
    """Maps are cut along another axis; what is cut off one is a map with the same strides."""
    x = space.axes(node.inputs[0])
    axis = node.int("axis", 0) % len(x)
    if changed(x[axis]):
        raise Stuck(f"'{node.name}' (Split) cuts a map into parts of a size that is written in the file")
    side = one_side(x[axis])
    if has_space(x[axis]) and side is None:
        raise Unfollowed(f"'{node.name}' (Split) cuts several extents at once")
    sizes = [space.shape(name)[axis] for name in node.outputs]
    parts = [count(size) if side is None else (Side(side.axis, side.stride, size, size),) for size in sizes]
    return [(*x[:axis], part, *x[axis + 1 :]) for part in parts]


def slice_(node: Node, space: MapSpace) -> Axes:
    """A range of positions, or every so many of them."""
    x, out = list(space.axes(node.inputs[0])), space.shape(node.outputs[0])
    by_input = bool(node.input(1))
    starts, ends = (
        space.ints(node, slot) if by_input else list(node.ints(name, ())) for slot, name in ((1, "starts"), (2, "ends"))
    )
    if starts is None or ends is None:
        if any(map(has_space, x)):
            raise Unfollowed(f"'{node.name}' (Slice) takes a range that is computed")
        return plain(out)
    listed = (axes_of(node, space, 3) if by_input else node.ints("axes", ())) or tuple(range(len(starts)))
    steps = (space.ints(node, 4) if node.input(4) else None) or [1] * len(starts)
    for k, axis in enumerate(axis % len(x) for axis in listed):
        content = x[axis]
        if not has_space(content):
            x[axis] = count(out[axis])
        elif (side := one_side(content)) is not None:
            known = {
                slot: space.settled_ints(node, slot)[k]
                for slot in (1, 2)
                if by_input and k in space.settled_ints(node, slot)
            }
            x[axis] = (_sliced(node, space, side, slice(starts[k], ends[k], steps[k]), position=k, known=known),)
        else:
            raise Unfollowed(f"'{node.name}' (Slice) takes a range of several extents at once")
    return tuple(x)


def _sliced(node: Node, space: MapSpace, side: Side, bounds: slice, *, position: int, known: Mapping[int, int]) -> Side:
    """The side in a range, which stands at this position in the lists; `known`: its bounds that are settled (1: start,
    2: end).
    """
    start, end, step = bounds.start, bounds.stop, bounds.step
    if side.rate != 1 or space.strides_on(side, abs(step), node):
        raise Stuck(f"'{node.name}' (Slice) takes positions of a map, which no dilation could do")
    there = _length(bounds, side.old)
    if there < 1:
        raise Unfollowed(f"'{node.name}' (Slice) takes nothing of a map")
    stride = None if side.stride is None else side.stride * abs(step)
    if not side.changed:
        return Side(side.axis, stride, there, there)
    if step < 0:
        raise Stuck(f"'{node.name}' (Slice) takes a map backwards, from a position that is written in the file")
    if known:
        return Side(side.axis, stride, there, _length(slice(known.get(1, start), known.get(2, end), step), side.new))
    if 0 <= end < UNBOUNDED:
        if end < side.old:
            raise Stuck(f"'{node.name}' (Slice) cuts a map at position {end}, which is written in the file")
        if node.input(1):
            space.number(node, 2, position, side.new)
        else:
            ends = space.edits.get(node.name, {}).get("ends", node.ints("ends", ()))
            space.edit(node, ends=[side.new if k == position else e for k, e in enumerate(ends)])  # type: ignore[arg-type, var-annotated]
    return Side(side.axis, stride, there, _length(slice(start, end if end < 0 else UNBOUNDED, step), side.new))


def _length(bounds: slice, size: int) -> int:
    """How many positions a range takes of so many."""
    end = bounds.stop if abs(bounds.stop) < UNBOUNDED else None
    return len(range(*slice(bounds.start, end, bounds.step).indices(size)))


def gather(node: Node, space: MapSpace) -> Axes:
    """Picks along one axis."""
    x, picked = space.axes(node.inputs[0]), space.axes(node.inputs[1])
    axis = node.int("axis", 0) % len(x)
    if changed(x[axis]):
        raise Stuck(f"'{node.name}' (Gather) picks positions of a map by numbers written in the file")
    return (*x[:axis], *picked, *x[axis + 1 :])


def expand(node: Node, space: MapSpace) -> Axes:
    """Broadcast to a shape; sizes of maps written there follow, or are left to the operators that broadcast anyway."""
    x, out = space.axes(node.inputs[0]), space.shape(node.outputs[0])
    x = (*((),) * (len(out) - len(x)), *x)
    written = space.ints(node, 1) or []
    like = _shape_of(node, space, len(out))
    result = list[Content]()
    for axis, content in enumerate(x):
        entry = axis - (len(out) - len(written))
        if size_before(content) == out[axis]:
            result.append(content)
            if changed(content) and entry >= 0 and written[entry] > 1:
                space.number(node, 1, entry, size_after(content))
        elif size_after(content) != 1:
            raise Stuck(f"'{node.name}' (Expand) spreads one position, which would be {size_after(content)}")
        elif like is not None:
            result.append(like[axis])
        elif axis > 0 and _broadcasts(node, space, axis):
            space.number(node, 1, entry, 1)
            result.append(())
        else:
            result.append(count(out[axis]))
    return tuple(result)


def _shape_of(node: Node, space: MapSpace, rank: int) -> Axes | None:
    """The axes of the tensor whose shape the node is given, where it is given one as a whole."""
    maker = space.view.by_name.get(space.view.producer.get(node.inputs[1], ""))
    known = (
        space.maps.get(maker.inputs[0])
        if maker is not None and maker.op == "Shape" and not {"start", "end"} & set(maker.attrs)
        else None
    )
    return known.axes if known is not None and len(known.axes) == rank else None


def _broadcasts(node: Node, space: MapSpace, axis: int) -> bool:
    """Whether a written size can be 1 instead: all that read the result combine it with a map, which has the size
    itself.
    """
    value = space.shapes.values.get(node.inputs[1])
    readers = space.view.readers.get(node.outputs[0], ())
    if value is None or value.source[axis - len(value.array.ravel())] is None or node.outputs[0] in space.view.outputs:
        return False
    return bool(readers) and all(
        _meets_map(space.view.by_name[name], space, node.outputs[0], axis) for name, _ in readers
    )


def _meets_map(reader: Node, space: MapSpace, name: str, axis: int) -> bool:
    others = [space.maps[other].axes for other in reader.inputs if other != name and other in space.maps]
    rank = len(space.shape(name))
    return reader.op in NARY and any(len(axes) == rank and sides(axes[axis]) for axes in others)


def tile(node: Node, space: MapSpace) -> Axes:
    """The whole tensor again, as often as it says."""
    x, out = space.axes(node.inputs[0]), space.shape(node.outputs[0])
    again = [axis for axis, content in enumerate(x) if size_before(content) != out[axis]]
    if any(has_space(x[axis]) for axis in again):
        raise Unfollowed(f"'{node.name}' (Tile) repeats a map")
    return tuple(count(out[axis]) if axis in again else content for axis, content in enumerate(x))


def pad(node: Node, space: MapSpace) -> Axes:
    """A border around the map; zeros as pads of a convolution are."""
    x = list(space.axes(node.inputs[0]))
    amounts = space.ints(node, 1) if node.input(1) else list(node.ints("pads", node.ints("paddings", ())))
    listed = axes_of(node, space, 3) if node.input(3) else tuple(range(len(x)))
    if amounts is None:
        raise Unfollowed(f"'{node.name}' (Pad) pads by computed amounts")
    settled = space.settled_ints(node, 1)
    new = [settled.get(k, amount) for k, amount in enumerate(amounts)]
    for k, axis in enumerate(axis % len(x) for axis in listed):
        both = (k, k + len(listed))
        added, content = sum(amounts[end] for end in both), x[axis]
        if all(amounts[end] == new[end] == 0 for end in both):
            continue
        side = one_side(content)
        if not has_space(content):
            x[axis] = count(size_before(content) + added)
        elif side is None:
            raise Unfollowed(f"'{node.name}' (Pad) pads several extents at once")
        else:
            for end in both:
                new[end] *= side.rate
            x[axis] = (
                Side(side.axis, side.stride, side.old + added, side.new + sum(new[end] for end in both), side.rate),
            )
    if any(amount != new[k] for k, amount in enumerate(amounts) if k not in settled):
        _repad(node, space, amounts, new)
    return tuple(x)


def _repad(node: Node, space: MapSpace, amounts: Sequence[int], new: Sequence[int]) -> None:
    if node.attrs.get("mode", "constant") != "constant":
        raise Stuck(f"'{node.name}' (Pad) repeats the border of a map, which has samples in between")
    if not node.input(1):
        space.edit(node, **{"pads" if "pads" in node.attrs else "paddings": list(new)})
        return
    value = space.shapes.values[node.inputs[1]]
    for k, (was, amount) in enumerate(zip(amounts, new, strict=True)):
        if was != amount and value.source[k] is None:
            raise Stuck(f"'{node.name}' (Pad) pads by computed amounts")
        if was != amount:
            space.number(node, 1, k, amount)


MOVING: Mapping[str, Rule] = {
    "Transpose": transpose,
    "Reshape": reshape,
    "Flatten": reshape,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "Expand": expand,
    "Tile": tile,
    "Pad": pad,
}
