"""Rules of the operators that move elements: reshape, cut, join, pick, pad; and of those that are about sizes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from passes.channels.axes import FIXED, Flow, Ids, Label
from passes.channels.rules.shared import Labels, Rule, axes_of, shape_of
from passes.graph.regrouping import UNBOUNDED, regrouped
from passes.graph.view import Node

MAX_REGROUPED = 1 << 24


def transpose(node: Node, flow: Flow) -> Labels:
    """Axes in another order."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    rank = len(shape_of(flow, node.inputs[0]))
    return x.moved(node.ints("perm", range(rank)[::-1]).index(x.axis))


def reshape(node: Node, flow: Flow) -> Labels:
    """Row-major regrouping; the identity array is regrouped with the data, then reduced to one varying axis."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    source, target = shape_of(flow, node.inputs[0]), shape_of(flow, node.outputs[0])
    group = next((g for g in regrouped(source, target) if x.axis in g[0]), None)
    if group is None or int(np.prod([source[i] for i in group[0]])) > MAX_REGROUPED:
        flow.freeze(x.ids, f"'{node.name}' ({node.op}) regroups its channels with other axes")
        return None
    before, after = group
    ids = x.ids.reshape([-1 if i == x.axis else 1 for i in before])
    array = np.broadcast_to(ids, [source[i] for i in before]).reshape([target[j] for j in after])
    keep, vector = flow.unify(array, f"'{node.name}' ({node.op}) splits channels that are partly fixed")
    axis = after[keep]
    if 0 in before and x.axis != 0 and keep == 0 and source[0] == 1 and flow.free_batch():
        flow.freeze(x.ids, f"'{node.name}' ({node.op}) merges its channels with the batch")
        return None
    if node.op == "Reshape" and node.input(1):
        flow.size(node.input(1), axis, vector)
    elif node.op == "Reshape":
        flow.size_attribute(node, "shape", axis, vector)
    return Label(axis, vector)


def concat(node: Node, flow: Flow) -> Labels:
    """Along the channels their vectors join; along another axis they are the same channels."""
    rank = len(shape_of(flow, node.outputs[0]))
    axis = node.int("axis", 1) % rank
    labels = [flow.label(name) for name in node.inputs]
    found = [label for label in labels if label is not None]
    if not found:
        return None
    if all(label.axis == axis for label in found):
        pieces = [_joined(node, flow, slot, axis) if label is None else label.ids for slot, label in enumerate(labels)]
        flow.borders_at(pieces)
        return Label(axis, np.concatenate(pieces))
    first = found[0]
    if any(label.axis != first.axis for label in found):
        for label in found:
            flow.freeze(label.ids, f"'{node.name}' (Concat) joins channels on different axes")
        return None
    for slot, name in enumerate(node.inputs):
        other = labels[slot]
        if other is None and flow.constant(name):
            flow.carries(node, slot, first.axis, first.ids)
        elif other is None:
            flow.freeze(first.ids, f"'{node.name}' (Concat) joins it with '{name}', whose channels are fixed")
        elif other is not first:
            flow.unite(first.ids, other.ids, f"'{node.name}' (Concat) joins it with fixed channels")
    return first


def _joined(node: Node, flow: Flow, slot: int, axis: int) -> Ids:
    """Channels that no weight makes, joined to others: a constant's or filled ones follow what they are added to;
    others are fixed.
    """
    name = node.inputs[slot]
    size = shape_of(flow, name)[axis]
    if flow.constant(name):
        known = flow.sites.get((name, axis))
        ids = flow.fresh(size) if known is None else known.ids
        flow.carries(node, slot, axis, ids)
        return ids
    written = _filled_shape(flow, name)
    if written is None:
        return np.full(size, FIXED)
    ids = flow.fresh(size)
    flow.places.append(ids)
    flow.size(written, axis, ids)
    flow.lay(node, name, Label(axis, ids))
    return ids


def _filled_shape(flow: Flow, name: str) -> str | None:
    """The numbers that say the shape of a tensor of one value that one node reads; None where it is no such tensor."""
    maker = flow.view.by_name.get(flow.view.producer.get(name, ""))
    if maker is None or name in flow.view.outputs or len(flow.view.readers[name]) != 1:
        return None
    if maker.op == "ConstantOfShape":
        return maker.inputs[0]
    one = (
        maker.op == "Expand"
        and flow.constant(maker.inputs[0])
        and not any(size > 1 for size in shape_of(flow, maker.inputs[0]))
    )
    return maker.inputs[1] if one and len(shape_of(flow, maker.inputs[1])) == 1 else None


def split(node: Node, flow: Flow) -> Labels:
    """The vector is cut where the data is."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    axis = node.int("axis", 0) % len(shape_of(flow, node.inputs[0]))
    if x.axis != axis:
        return (x,) * len(node.outputs)
    if any(flow.shape(name) is None for name in node.outputs):
        flow.freeze(x.ids, f"the sizes of '{node.name}' (Split) are unknown")
        return None
    cuts = np.cumsum([shape_of(flow, name)[axis] for name in node.outputs])[:-1]
    parts = tuple(np.split(x.ids, cuts))
    flow.splits_at(node, parts)
    return tuple(Label(axis, part) for part in parts)


def slice_(node: Node, flow: Flow) -> Labels:
    """A range of the vector, where the channels are sliced in steps of one."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    bounds = _slice_bounds(node, flow, x.axis, len(shape_of(flow, node.inputs[0])))
    if bounds is None:
        flow.freeze(x.ids, f"'{node.name}' (Slice) takes a range of it that is computed")
        return None
    position, start, end, step = bounds
    if position is None:
        return x
    ids = x.ids[start:end:step]
    if step != 1 or ids.size == 0:
        taken = "none of its channels" if ids.size == 0 else f"its channels in steps of {step}"
        flow.freeze(x.ids, f"'{node.name}' (Slice) takes {taken}")
        return Label(x.axis, ids) if ids.size else None
    flow.places.append(ids)
    first, last = slice(start, end).indices(x.ids.size)[:2]
    flow.borders_at((x.ids[:first], ids, x.ids[last:]))
    for slot, bound in ((1, start), (2, end)):
        head = bound >= 0
        part = x.ids[:bound] if head else x.ids[bound:]
        if not (0 < bound < UNBOUNDED if head else -x.ids.size <= bound):
            continue
        beyond = max(bound - x.ids.size, 0)
        if node.input(slot):
            flow.size(node.input(slot), position, part, from_end=not head, beyond=beyond)
        else:
            flow.size_attribute(
                node, "starts" if slot == 1 else "ends", position, part, from_end=not head, beyond=beyond
            )
    return Label(x.axis, ids)


def _slice_bounds(node: Node, flow: Flow, axis: int, rank: int) -> tuple[int | None, int, int, int] | None:
    """(position in the lists, start, end, step) for the axis; position None where it is not sliced; None where bounds
    are computed.
    """
    if node.input(1):
        values = [flow.shapes.values.get(node.input(slot)) if node.input(slot) else None for slot in range(1, 5)]
        if any(v is None and node.input(slot) for slot, v in enumerate(values, 1)):
            return None
        starts, ends, axes, steps = (None if v is None else [int(i) for i in v.array.ravel()] for v in values)
        if starts is None or ends is None:
            return None
    else:
        starts, ends, steps = list(node.ints("starts", ())), list(node.ints("ends", ())), None
        axes = list(node.ints("axes", range(len(starts))))
    listed = [a % rank for a in (range(len(starts)) if axes is None else axes)]
    if axis not in listed:
        return None, 0, 0, 1
    position = listed.index(axis)
    return position, starts[position], ends[position], 1 if steps is None else steps[position]


def gather(node: Node, flow: Flow) -> Labels:
    """Picks along an axis; channels picked by a constant list keep their identities."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    axis = node.int("axis", 0) % len(shape_of(flow, node.inputs[0]))
    picked = shape_of(flow, node.inputs[1])
    if x.axis != axis:
        return x if x.axis < axis else x.moved(x.axis + len(picked) - 1)
    value = flow.shapes.values.get(node.inputs[1])
    long = [k for k, size in enumerate(picked) if size > 1]
    if len(long) != 1 or value is None or not flow.constant(node.inputs[1]):
        computed = value is None or not flow.constant(node.inputs[1])
        how = (
            "channels of it by numbers that are computed"
            if computed
            else "single channels of it"
            if not long
            else "its channels into a grid"
        )
        flow.freeze(x.ids, f"'{node.name}' (Gather) picks {how}")
        return None
    picks = value.array.ravel().astype(np.int64) % x.ids.size
    flow.picks_at(node, x.ids, picks)
    return Label(axis + long[0], x.ids[picks])


def no_channels(node: Node, flow: Flow) -> Labels:
    """The output is about sizes, not channels."""
    return None


def filled(node: Node, flow: Flow) -> Labels:
    """Constants in a shape computed from others: an axis as long as some channels goes with them."""
    return _counted(flow, node.inputs[0])


def _counted(flow: Flow, shape: str) -> Label | None:
    counts = flow.counted.get(shape, {})
    if len(counts) > 1:
        for ids in counts.values():
            flow.freeze(ids, "a shape computed from it counts channels twice")
    return Label(*next(iter(counts.items()))) if len(counts) == 1 else None


def expand(node: Node, flow: Flow) -> Labels:
    """Broadcast to a shape; the entry that counts the channels follows them."""
    x = flow.label(node.inputs[0])
    if x is None:
        return _counted(flow, node.inputs[1])
    target = shape_of(flow, node.outputs[0])
    axis = x.axis + len(target) - len(shape_of(flow, node.inputs[0]))
    value = flow.shapes.values.get(node.inputs[1])
    if value is not None:
        entry = axis - (len(target) - value.array.size)
        if entry >= 0 and int(value.array.ravel()[entry]) != 1:
            flow.size(node.inputs[1], entry, x.ids)
    return x.moved(axis)


def tile(node: Node, flow: Flow) -> Labels:
    """The whole vector again, as often as it says."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    times = shape_of(flow, node.outputs[0])[x.axis] // x.ids.size
    return Label(x.axis, np.tile(x.ids, times))


def pad(node: Node, flow: Flow) -> Labels:
    """Padded channels, all of one value, are channels of their own: as many as the amount says, which follows what they
    are added to.
    """
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    rank = len(shape_of(flow, node.inputs[0]))
    if node.input(1):
        value = flow.shapes.values.get(node.input(1))
        pads = None if value is None else [int(p) for p in value.array.ravel()]
    else:
        pads = list(node.ints("pads", node.ints("paddings", ())))
    axes = axes_of(node, flow, 3) if node.input(3) else tuple(range(rank))
    if pads is None or axes is None:
        if shape_of(flow, node.outputs[0])[x.axis] == x.ids.size:
            return x
        flow.freeze(x.ids, f"'{node.name}' (Pad) pads it by computed amounts")
        return None
    listed = [axis % rank for axis in axes]
    if x.axis not in listed:
        return x
    ends = (listed.index(x.axis), listed.index(x.axis) + len(listed))
    before, after = (pads[end] for end in ends)
    if (before or after) and node.attrs.get("mode", "constant") != "constant":
        flow.freeze(x.ids, f"'{node.name}' (Pad) repeats some of its channels")
        return None
    if before < 0 or after < 0:
        flow.freeze(x.ids, f"'{node.name}' (Pad) cuts its channels")
        return None
    return Label(x.axis, _padded(node, flow, x.ids, ((ends[0], before), (ends[1], after))))


def _padded(node: Node, flow: Flow, ids: Ids, ends: tuple[tuple[int, int], tuple[int, int]]) -> Ids:
    """The vector between fresh ones; each end is the position of its amount in the pads, and the amount."""
    added = [flow.fresh(amount) for _, amount in ends]
    for (index, amount), made in zip(ends, added, strict=True):
        if not amount:
            continue
        flow.places.append(made)
        if node.input(1):
            flow.size(node.input(1), index, made)
        else:
            flow.size_attribute(node, "pads" if "pads" in node.attrs else "paddings", index, made)
    parts = [added[0], ids, added[1]]
    flow.borders_at(parts)
    return np.concatenate(parts)


MOVING: Mapping[str, Rule] = {
    "Transpose": transpose,
    "Reshape": reshape,
    "Flatten": reshape,
    "Squeeze": reshape,
    "Unsqueeze": reshape,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "Expand": expand,
    "Tile": tile,
    "Pad": pad,
    "Shape": no_channels,
    "Size": no_channels,
    "ConstantOfShape": filled,
    "Range": no_channels,
}
