"""How each operator's axes relate: one row per operator.

A rule gets the node and the flow, and returns the label of its output (or a tuple, one per output): which axis carries channels, and which
channels. Weights it meets are recorded as sites, sizes as sizes. `None` means: no axis of the output follows a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from passes.axes import FIXED, Flow, Ids, Label
from passes.errors import RefusedModel
from passes.shapes import Shape
from passes.view import Node

Labels = Label | None | tuple[Label | None, ...]
Rule = Callable[[Node, Flow], Labels]


def _shape(flow: Flow, name: str) -> Shape:
    shape = flow.shape(name)
    if shape is None:
        raise KeyError(name)  # flow_identities lets no node through whose sizes are unknown
    return shape


def _rows(node: Node, ids: Ids, groups: int) -> Ids:
    """The channels as [groups, channels of a group]. Raises RefusedModel where they do not come out even."""
    if groups < 1 or ids.size % groups:
        raise RefusedModel(f"'{node.name}' ({node.op}) takes {ids.size} channels in {groups} groups; 'fnatool check' lists what is wrong")
    return ids.reshape(groups, -1)


def _freeze(flow: Flow, label: Label | None, why: str) -> None:
    if label is not None:
        flow.freeze(label.ids, why)


# --- element-wise -----------------------------------------------------------------------------------------------------------------------


def same_axes(node: Node, flow: Flow) -> Labels:
    """Every element by itself: channels stay where they are, in every output (a mask too)."""
    return (flow.label(node.inputs[0]),) * len(node.outputs)


def no_channels(node: Node, flow: Flow) -> Labels:
    """The output is about sizes, not channels."""
    return None


ALL_INPUTS = frozenset(
    {"MatMul", "Concat"}
)  # and the n-ary ones: their rules look at every input; others give a meaning to the first alone

FILLS = {("Mul", 0): 1.0, ("Mul", 1): 1.0, ("Div", 1): 1.0, ("Pow", 1): 1.0, ("PRelu", 1): 0.25}


def elementwise(node: Node, flow: Flow) -> Labels:
    """Broadcast from the right; channels on both sides are the same channels, a constant of that length has one entry per channel."""
    rank = len(_shape(flow, node.outputs[0]))
    placed = {}
    for slot, name in enumerate(node.inputs):
        label = flow.label(name) if name else None
        if label is not None:
            placed[slot] = label.moved(rank - len(_shape(flow, name)) + label.axis)
    if not placed:
        return None
    result = next(iter(placed.values()))
    if any(label.axis != result.axis for label in placed.values()):
        for label in placed.values():
            flow.freeze(label.ids, f"'{node.name}' ({node.op}) combines channels on different axes")
        return None
    for label in placed.values():
        if label is not result:
            flow.unite(result.ids, label.ids, f"'{node.name}' ({node.op}) merges it with channels that are fixed")
    for slot, name in enumerate(node.inputs):
        if not name or slot in placed:
            continue
        shape = _shape(flow, name)
        axis = result.axis - (rank - len(shape))
        if axis < 0 or shape[axis] == 1:
            continue
        if flow.constant(name):
            flow.carries(node, slot, axis, result.ids, FILLS.get((node.op, slot), 0.0))
        else:
            flow.freeze(result.ids, f"'{node.name}' ({node.op}) merges it with '{name}', whose channels are fixed")
    return result


# --- weights ----------------------------------------------------------------------------------------------------------------------------


def convolution(node: Node, flow: Flow) -> Labels:
    """Weight [C_out, C_in/g, …]: creates axis 0, consumes axis 1; depthwise passes channels on; groups unite their j-th channels."""
    return _convolution(node, flow, out_axis=0, in_axis=1)


def transposed_convolution(node: Node, flow: Flow) -> Labels:
    """Weight [C_in, C_out/g, …]: consumes axis 0, creates axis 1."""
    return _convolution(node, flow, out_axis=1, in_axis=0)


def _convolution(node: Node, flow: Flow, out_axis: int, in_axis: int) -> Labels:
    x = flow.label(node.inputs[0])
    if x is not None and x.axis != 1:
        return _slides_over(node, flow, x)
    if not flow.constant(node.inputs[1]):
        _freeze(flow, x, f"the weight of '{node.name}' is computed, not an initializer")
        return None
    groups = node.int("group", 1)
    channels = _shape(flow, node.inputs[0])[1]
    weight = _shape(flow, node.inputs[1])
    if groups > 1 and groups == channels:
        return _depthwise(node, flow, x, out_axis, weight)
    if groups == 1:
        ids = flow.creates(node, 1, out_axis)
        if x is not None:
            flow.consumes(node, 1, in_axis, x.ids)
        return _with_bias(node, flow, ids)
    return _grouped(node, flow, x, (out_axis, in_axis, groups))


def _grouped(node: Node, flow: Flow, x: Label | None, axes: tuple[int, int, int]) -> Labels:
    """Channel j of every group is one identity, on both sides: groups keep equal shapes."""
    out_axis, in_axis, groups = axes
    if x is not None:
        rows = _rows(node, x.ids, groups)
        flow.unite(rows[:1], rows, f"'{node.name}' reads it in groups that are partly fixed")
        flow.least.append((rows[0], 2))  # one channel a group would read as depthwise
        flow.consumes(node, 1, in_axis, x.ids if in_axis == 0 else rows[0])
    if out_axis == 0:
        return _with_bias(node, flow, flow.creates(node, 1, 0, groups=groups))
    return _with_bias(node, flow, np.tile(flow.creates(node, 1, 1, repeat=groups), groups))


def _depthwise(node: Node, flow: Flow, x: Label | None, out_axis: int, weight: Shape) -> Labels:
    """Each input channel makes `multiplier` outputs of its own identity."""
    if x is None:
        return None
    flow.sizes_of_groups(node, x.ids)
    if out_axis == 1:  # transposed: weight [C_in, multiplier, …]
        flow.carries(node, 1, 0, x.ids)
        return _with_bias(node, flow, np.repeat(x.ids, weight[1]))
    ids = np.repeat(x.ids, weight[0] // x.ids.size)
    flow.carries(node, 1, 0, ids)
    return _with_bias(node, flow, ids)


def _with_bias(node: Node, flow: Flow, ids: Ids) -> Label:
    if node.input(2):
        if flow.constant(node.input(2)):
            flow.carries(node, 2, 0, ids)
        else:
            flow.freeze(ids, f"the bias of '{node.name}' is computed, not an initializer")
    return Label(1, ids)


def _slides_over(node: Node, flow: Flow, x: Label) -> Labels:
    """A window that slides along the channels themselves (efficient channel attention): any number will do, but neighbours matter."""
    if _shape(flow, node.outputs[0])[x.axis] == x.ids.size and x.axis > 1:
        flow.drift(x.ids, f"'{node.name}' ({node.op}) slides over its channels")
        return x
    flow.freeze(x.ids, f"'{node.name}' ({node.op}) slides over its channels")
    return None


def gemm(node: Node, flow: Flow) -> Labels:
    """Y = A·B + C with A [M,K], B [K,N], either transposed."""
    x = flow.label(node.inputs[0])
    if node.int("transA", 0) or not flow.constant(node.inputs[1]) or (x is not None and x.axis != 1):
        _freeze(flow, x, f"'{node.name}' (Gemm) multiplies it in an order without a rule")
        _freeze(flow, flow.label(node.inputs[1]), f"'{node.name}' (Gemm) uses it as a weight")
        return None
    transposed = node.int("transB", 0)
    ids = flow.creates(node, 1, 0 if transposed else 1)
    if x is not None:
        flow.consumes(node, 1, 1 if transposed else 0, x.ids)
    bias = node.input(2)
    if bias and _shape(flow, bias)[-1:] == (ids.size,):
        if flow.constant(bias):
            flow.carries(node, 2, len(_shape(flow, bias)) - 1, ids)
        else:
            flow.freeze(ids, f"the bias of '{node.name}' is computed, not an initializer")
    return Label(1, ids)


def matmul(node: Node, flow: Flow) -> Labels:
    """The last axis of A meets the last but one of B."""
    a_name, b_name = node.inputs[:2]
    a, b = flow.label(a_name), flow.label(b_name)
    a_shape, b_shape = _shape(flow, a_name), _shape(flow, b_name)
    out_rank = len(_shape(flow, node.outputs[0]))
    if flow.constant(b_name) and len(b_shape) == 2:
        last = len(a_shape) - 1
        if a is not None and a.axis != last:
            return a
        ids = flow.creates(node, 1, 1)
        if a is not None:
            flow.consumes(node, 1, 0, a.ids)
        return Label(out_rank - 1, ids)
    if flow.constant(a_name) and len(a_shape) == 2 and len(b_shape) >= 2:
        row = len(b_shape) - 2
        if b is not None and b.axis != row:
            return b
        ids = flow.creates(node, 0, 0)
        if b is not None:
            flow.consumes(node, 0, 1, b.ids)
        return Label(out_rank - 2, ids)
    return _product(node, flow, (a, b), out_rank)


def _product(node: Node, flow: Flow, labels: tuple[Label | None, Label | None], out_rank: int) -> Labels:
    """Two activations: the summed axes are the same channels; at most one side may carry channels into the result."""
    result: list[Label] = []
    summed: list[Label | None] = []
    for side, (label, name) in enumerate(zip(labels, node.inputs, strict=False)):
        rank = len(_shape(flow, name))
        inner = rank - 1 if side == 0 or rank == 1 else rank - 2
        summed.append(label if label is not None and label.axis == inner else None)
        if label is not None and label.axis != inner:
            result.append(label.moved(label.axis + out_rank - rank))
    first, second = summed
    if first is not None and second is not None:
        flow.unite(first.ids, second.ids, f"'{node.name}' multiplies it with fixed channels")
        flow.drift(first.ids, f"'{node.name}' (MatMul) sums products over its channels")
    else:
        for label in summed:
            _freeze(flow, label, f"'{node.name}' (MatMul) sums it against an axis that is fixed")
    if len(result) == 2 and result[0].axis == result[1].axis:
        flow.unite(result[0].ids, result[1].ids, f"'{node.name}' multiplies it with fixed channels")
    elif len(result) == 2:
        for label in result:
            flow.freeze(label.ids, f"'{node.name}' (MatMul) makes a matrix of channels by channels")
        return None
    return result[0] if result else None


# --- normalisation ----------------------------------------------------------------------------------------------------------------------


def batch_normalization(node: Node, flow: Flow) -> Labels:
    """Per channel: scale, bias, mean, variance."""
    x = flow.label(node.inputs[0])
    if x is None or x.axis != 1:
        return x
    if not all(flow.constant(name) for name in node.inputs[1:5]):
        flow.freeze(x.ids, f"'{node.name}' (BatchNormalization) has computed statistics")
        return x
    for slot, fill in ((1, 1.0), (2, 0.0), (3, 0.0), (4, 1.0)):
        flow.carries(node, slot, 0, x.ids, fill)
    return (x, *(Label(0, x.ids) for _ in node.outputs[1:]))


def instance_normalization(node: Node, flow: Flow) -> Labels:
    """Per channel over space; a channel axis inside the space is mixed."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    if x.axis != 1:
        flow.drift(x.ids, f"'{node.name}' (InstanceNormalization) normalises over its channels")
        return x
    _carry_affine(node, flow, x.ids, 0)
    return x


def group_normalization(node: Node, flow: Flow) -> Labels:
    """Groups keep equal shapes: channel j of every group is one identity."""
    x = flow.label(node.inputs[0])
    if x is None or x.axis != 1:
        _freeze(flow, x, f"'{node.name}' (GroupNormalization) mixes it")
        return x
    rows = _rows(node, x.ids, node.int("num_groups", 1))
    flow.unite(rows[:1], rows, f"'{node.name}' (GroupNormalization) reads it in groups that are partly fixed")
    flow.drift(x.ids, f"'{node.name}' (GroupNormalization) normalises over its channels")
    if _shape(flow, node.inputs[1]) == (x.ids.size,):
        _carry_affine(node, flow, x.ids, 0)
    return x


def layer_normalization(node: Node, flow: Flow) -> Labels:
    """Over the axes from `axis` on; scale and bias have those axes."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    rank = len(_shape(flow, node.inputs[0]))
    axis = node.int("axis", -1) % rank
    if x.axis >= axis:
        flow.drift(x.ids, f"'{node.name}' ({node.op}) normalises over its channels")
    _carry_affine(node, flow, x.ids, x.axis - rank)
    statistics = x if x.axis < axis else None
    return (x, *(statistics for _ in node.outputs[1:]))


def _carry_affine(node: Node, flow: Flow, ids: Ids, axis: int) -> None:
    """Scale (slot 1) and bias (slot 2) where they have an entry per channel on `axis` (negative: from the end)."""
    for slot, fill in ((1, 1.0), (2, 0.0)):
        name = node.input(slot)
        if not name:
            continue
        shape = _shape(flow, name)
        position = axis if axis >= 0 else axis + len(shape)
        if position < 0 or position >= len(shape) or shape[position] != ids.size:
            continue
        if flow.constant(name):
            flow.carries(node, slot, position, ids, fill)
        else:
            flow.freeze(ids, f"'{node.name}' ({node.op}) has a computed scale")


def local_response(node: Node, flow: Flow) -> Labels:
    """Each channel is divided by its neighbours."""
    x = flow.label(node.inputs[0])
    if x is not None and x.axis == 1:
        flow.drift(x.ids, f"'{node.name}' ({node.op}) looks at neighbouring channels")
    return x


def along_axis(node: Node, flow: Flow) -> Labels:
    """Softmax and its like: harmless along other axes, not neutral over channels."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    rank = len(_shape(flow, node.inputs[0]))
    flat = flow.view.opset < 13 and node.op != "LpNormalization"
    axis = node.int("axis", 1 if flat else -1) % rank
    if x.axis == axis or (flat and x.axis > axis):
        flow.drift(x.ids, f"'{node.name}' ({node.op}) normalises over its channels")
    return x


def over_axes(node: Node, flow: Flow) -> Labels:
    """MeanVarianceNormalization over `axes`."""
    x = flow.label(node.inputs[0])
    if x is not None and x.axis in node.ints("axes", (0, 2, 3)):
        flow.drift(x.ids, f"'{node.name}' ({node.op}) normalises over its channels")
    return x


# --- pooling and reductions -------------------------------------------------------------------------------------------------------------


def pooling(node: Node, flow: Flow) -> Labels:
    """A window over space, channel by channel."""
    x = flow.label(node.inputs[0])
    if x is not None and x.axis != 1:
        return _slides_over(node, flow, x)
    return (x, x)


def global_pooling(node: Node, flow: Flow) -> Labels:
    """All of space, channel by channel."""
    x = flow.label(node.inputs[0])
    if x is not None and x.axis > 1:
        flow.drift(x.ids, f"'{node.name}' ({node.op}) reduces over its channels")
        return None
    return x


def reduction(node: Node, flow: Flow) -> Labels:
    """Over `axes` (attribute or input; none: all)."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    rank = len(_shape(flow, node.inputs[0]))
    axes = _axes_of(node, flow, 1)
    if axes is None:
        flow.freeze(x.ids, f"'{node.name}' ({node.op}) reduces over axes that are computed")
        return None
    reduced = {axis % rank for axis in axes} or set(() if node.int("noop_with_empty_axes", 0) else range(rank))
    if x.axis in reduced:
        flow.drift(x.ids, f"'{node.name}' ({node.op}) reduces over its channels")
        return None
    if node.int("keepdims", 1):
        return x
    return x.moved(x.axis - sum(axis < x.axis for axis in reduced))


def selection(node: Node, flow: Flow) -> Labels:
    """ArgMax and ArgMin: over channels the result is a channel's number, which must keep its meaning."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    axis = node.int("axis", 0) % len(_shape(flow, node.inputs[0]))
    if x.axis == axis:
        flow.freeze(x.ids, f"'{node.name}' ({node.op}) returns positions among its channels")
        return None
    return x if node.int("keepdims", 1) else x.moved(x.axis - (axis < x.axis))


def _axes_of(node: Node, flow: Flow, slot: int) -> tuple[int, ...] | None:
    """The axes from input `slot` or the attribute, () where neither is given, None where they are computed."""
    if node.input(slot):
        value = flow.shapes.values.get(node.input(slot))
        return None if value is None else tuple(int(a) for a in value.array.ravel())
    return node.ints("axes", ())


# --- moving channels --------------------------------------------------------------------------------------------------------------------


def transpose(node: Node, flow: Flow) -> Labels:
    """Axes in another order."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    rank = len(_shape(flow, node.inputs[0]))
    return x.moved(node.ints("perm", range(rank)[::-1]).index(x.axis))


def reshape(node: Node, flow: Flow) -> Labels:
    """Row-major regrouping; the identity array is regrouped with the data, then reduced to one varying axis."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    source, target = _shape(flow, node.inputs[0]), _shape(flow, node.outputs[0])
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


MAX_REGROUPED = 1 << 24


def regrouped(source: Shape, target: Shape) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The finest groups of consecutive axes with equal products: (2,6,5) → (4,3,5) is [((0,1),(0,1)), ((2,),(2,))]."""
    groups: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    i = j = 0
    while i < len(source) and j < len(target):
        i0, j0, a, b = i, j, source[i], target[j]
        i, j = i + 1, j + 1
        while a != b:
            if a < b and i < len(source):
                a, i = a * source[i], i + 1
            elif b < a and j < len(target):
                b, j = b * target[j], j + 1
            else:
                return groups
        groups.append((tuple(range(i0, i)), tuple(range(j0, j))))
    if groups and (i < len(source) or j < len(target)):
        before, after = groups[-1]
        groups[-1] = (before + tuple(range(i, len(source))), after + tuple(range(j, len(target))))
    return groups


def concat(node: Node, flow: Flow) -> Labels:
    """Along the channels their vectors join; along another axis they are the same channels."""
    rank = len(_shape(flow, node.outputs[0]))
    axis = node.int("axis", 1) % rank
    labels = [flow.label(name) for name in node.inputs]
    found = [label for label in labels if label is not None]
    if not found:
        return None
    if all(label.axis == axis for label in found):
        pieces = [
            np.full(_shape(flow, name)[axis], FIXED) if label is None else label.ids
            for name, label in zip(node.inputs, labels, strict=True)
        ]
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


def split(node: Node, flow: Flow) -> Labels:
    """The vector is cut where the data is."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    axis = node.int("axis", 0) % len(_shape(flow, node.inputs[0]))
    if x.axis != axis:
        return (x,) * len(node.outputs)
    if any(flow.shape(name) is None for name in node.outputs):
        flow.freeze(x.ids, f"the sizes of '{node.name}' (Split) are unknown")
        return None
    cuts = np.cumsum([_shape(flow, name)[axis] for name in node.outputs])[:-1]
    parts = tuple(np.split(x.ids, cuts))
    flow.splits_at(node, parts)
    return tuple(Label(axis, part) for part in parts)


UNBOUNDED = 1 << 30  # a slice's end from here on means: to the end, whatever the size


def slice_(node: Node, flow: Flow) -> Labels:
    """A range of the vector, where the channels are sliced in steps of one."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    bounds = _slice_bounds(node, flow, x.axis, len(_shape(flow, node.inputs[0])))
    if bounds is None:
        flow.freeze(x.ids, f"'{node.name}' (Slice) takes a range of it that is computed")
        return None
    position, start, end, step = bounds
    if position is None:
        return x
    ids = x.ids[start:end:step]
    if step != 1 or ids.size == 0:
        flow.freeze(x.ids, f"'{node.name}' (Slice) takes every {step}th of its channels")
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
            flow.size_attribute(node, "starts" if slot == 1 else "ends", position, part, from_end=not head, beyond=beyond)
    return Label(x.axis, ids)


def _slice_bounds(node: Node, flow: Flow, axis: int, rank: int) -> tuple[int | None, int, int, int] | None:
    """(position in the lists, start, end, step) for the axis; position None where it is not sliced; None where bounds are computed."""
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
    axis = node.int("axis", 0) % len(_shape(flow, node.inputs[0]))
    picked = _shape(flow, node.inputs[1])
    if x.axis != axis:
        return x if x.axis < axis else x.moved(x.axis + len(picked) - 1)
    value = flow.shapes.values.get(node.inputs[1])
    long = [k for k, size in enumerate(picked) if size > 1]
    if len(long) != 1 or value is None or not flow.constant(node.inputs[1]):
        flow.freeze(x.ids, f"'{node.name}' (Gather) picks single channels of it")
        return None
    picks = value.array.ravel().astype(np.int64) % x.ids.size
    flow.picks_at(node, x.ids, picks)
    return Label(axis + long[0], x.ids[picks])


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
    target = _shape(flow, node.outputs[0])
    axis = x.axis + len(target) - len(_shape(flow, node.inputs[0]))
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
    times = _shape(flow, node.outputs[0])[x.axis] // x.ids.size
    return Label(x.axis, np.tile(x.ids, times))


def pad(node: Node, flow: Flow) -> Labels:
    """Padded channels are fixed ones."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    rank = len(_shape(flow, node.inputs[0]))
    if node.input(1):
        value = flow.shapes.values.get(node.input(1))
        pads = None if value is None else [int(p) for p in value.array.ravel()]
    else:
        pads = list(node.ints("pads", node.ints("paddings", ())))
    axes = _axes_of(node, flow, 3) if node.input(3) else tuple(range(rank))
    if pads is None or axes is None:
        if _shape(flow, node.outputs[0])[x.axis] == x.ids.size:
            return x
        flow.freeze(x.ids, f"'{node.name}' (Pad) pads it by computed amounts")
        return None
    listed = [axis % rank for axis in axes]
    if x.axis not in listed:
        return x
    padded = pads[listed.index(x.axis)] or pads[listed.index(x.axis) + len(listed)]
    if padded and node.attrs.get("mode", "constant") != "constant":
        flow.freeze(x.ids, f"'{node.name}' (Pad) repeats some of its channels")
        return None
    before, after = pads[listed.index(x.axis)], pads[listed.index(x.axis) + len(listed)]
    if before < 0 or after < 0:
        flow.freeze(x.ids, f"'{node.name}' (Pad) cuts its channels")
        return None
    return Label(x.axis, np.concatenate([np.full(before, FIXED), x.ids, np.full(after, FIXED)]))


def resize(node: Node, flow: Flow) -> Labels:
    """Space is resampled; an output size written for the channel axis follows it."""
    x = flow.label(node.inputs[0])
    if x is None:
        return None
    if _shape(flow, node.outputs[0])[x.axis] != x.ids.size:
        flow.freeze(x.ids, f"'{node.name}' ({node.op}) resamples its channels")
        return None
    if node.input(3):
        axes = list(node.ints("axes", range(len(_shape(flow, node.inputs[0])))))
        if x.axis in axes:
            flow.size(node.input(3), axes.index(x.axis), x.ids)
    return x


def depth_to_space(node: Node, flow: Flow) -> Labels:
    """The b·b channels that make one output channel become one identity."""
    x = flow.label(node.inputs[0])
    if x is None or x.axis != 1:
        _freeze(flow, x, f"'{node.name}' (DepthToSpace) mixes it with space")
        return None
    block = node.int("blocksize", 1)
    columns_last = node.attrs.get("mode", "DCR") == "CRD"
    array = _rows(node, x.ids, block * block)
    array = array.reshape(-1, block * block) if columns_last else array
    kept = array[:, :1] if columns_last else array[:1]
    flow.unite(kept, array, f"'{node.name}' (DepthToSpace) merges it with fixed channels")
    return Label(1, kept.ravel())


def space_to_depth(node: Node, flow: Flow) -> Labels:
    """Each channel comes back once per position of the block."""
    x = flow.label(node.inputs[0])
    if x is None or x.axis != 1:
        _freeze(flow, x, f"'{node.name}' (SpaceToDepth) mixes it with space")
        return None
    return Label(1, np.tile(x.ids, node.int("blocksize", 1) ** 2))


UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Cosh",
    "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish",
    "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt",
    "Swish", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
NARY = (
    "Add", "And", "BitwiseAnd", "BitwiseOr", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min",
    "Mod", "Mul", "Or", "Pow", "PRelu", "Sub", "Sum", "Where", "Xor",
)  # fmt: skip
REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare",
)  # fmt: skip

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(UNARY, same_axes),
    **dict.fromkeys(NARY, elementwise),
    **dict.fromkeys(REDUCTIONS, reduction),
    "Shape": no_channels,
    "Size": no_channels,
    "ConstantOfShape": filled,
    "Range": no_channels,
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_normalization,
    "InstanceNormalization": instance_normalization,
    "GroupNormalization": group_normalization,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": layer_normalization,
    "LRN": local_response,
    "LpNormalization": along_axis,
    "MeanVarianceNormalization": over_axes,
    "Softmax": along_axis,
    "LogSoftmax": along_axis,
    "Hardmax": along_axis,
    "MaxPool": pooling,
    "AveragePool": pooling,
    "LpPool": pooling,
    "GlobalAveragePool": global_pooling,
    "GlobalMaxPool": global_pooling,
    "GlobalLpPool": global_pooling,
    "ArgMax": selection,
    "ArgMin": selection,
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
    "Resize": resize,
    "Upsample": resize,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
}
