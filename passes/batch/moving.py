"""Where samples go in operators that move elements, and the sizes that are written for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from passes.batch.contents import (
    SAMPLES,
    Axes,
    Content,
    Factor,
    Mixed,
    any_samples,
    counts_samples,
    number,
    scaled,
    size_at,
    without_samples,
)
from passes.batch.space import BatchSpace, Made, Rule, listed_axes
from passes.graph.regrouping import UNBOUNDED, regrouped
from passes.graph.tensors import Shape
from passes.graph.view import Node

INT64_MAX = (1 << 63) - 1


def transpose(node: Node, space: BatchSpace) -> Made:
    """Axes in another order."""
    x = space.of(node.inputs[0])
    return node, [tuple(x[axis] for axis in node.ints("perm", range(len(x))[::-1]))]


# --- reshaping ----------------------------------------------------------------------------------


def reshape(node: Node, space: BatchSpace) -> Made:
    """Row-major regrouping: samples stay whole, numbers may be cut; what is written for the output follows."""
    x, target = space.of(node.inputs[0]), space.shape(node.outputs[0])
    result = _regrouped(node, space, x, target)
    if node.op == "Flatten":
        axis = node.int("axis", 1)
        return _flat(node, space, result, len(x) + axis if axis < 0 else axis)
    if not node.input(1):
        return _by_attribute(node, space, x, result)
    before, after = space.numbers(node, 1), space.numbers_after(node, 1)
    if before is None or after is None:
        raise Mixed(f"'{node.name}' ({node.op}) takes a shape that is computed of values")
    return _written(node, space, (x, result), _Numbers(before.ravel(), after.ravel(), space.computed(node, 1)))


def _regrouped(node: Node, space: BatchSpace, x: Axes, target: Shape) -> Axes:
    """What the axes of these sizes count."""
    source = space.shape(node.inputs[0])
    result: list[Content] = [number(size) for size in target]
    for before, after in regrouped(source, target):
        factors = [factor for axis in before for factor in x[axis]]
        dealt = _dealt(node, space, factors, [target[axis] for axis in after])
        for axis, content in zip(after, dealt, strict=True):
            result[axis] = content
    return tuple(result)


def _dealt(node: Node, space: BatchSpace, factors: Sequence[Factor], sizes: Sequence[int]) -> list[Content]:
    """The factors dealt out to axes of these sizes."""
    if SAMPLES not in factors:
        return [number(size) for size in sizes]
    queue = list(factors)[::-1]
    result: list[list[Factor]] = []
    for size in sizes:
        taken: list[Factor] = []
        left = size
        while left > 1 or (size == 1 and not taken and queue and size_at((queue[-1],), space.old) == 1):
            if not queue:
                raise Mixed(f"'{node.name}' ({node.op}) regroups the samples in an unknown way")
            factor = queue.pop()
            whole = size_at((factor,), space.old)
            if left % whole == 0:
                taken.append(factor)
                left //= whole
            elif factor != SAMPLES and whole % left == 0:
                taken.append(left)
                queue.append(whole // left)
                left = 1
            else:
                raise Mixed(
                    f"'{node.name}' ({node.op}) cuts the {space.old} samples into parts of a size that is "
                    "written in the file"
                )
        result.append(taken)
    if result:
        result[-1] += queue[::-1]
    elif queue:
        raise Mixed(f"'{node.name}' ({node.op}) makes one number of all samples")
    return [tuple(taken) for taken in result]


def _flat(node: Node, space: BatchSpace, result: Axes, axis: int) -> Made:
    """Two axes, the product of those before and of those from there on: what they are follows by itself."""
    x = space.of(node.inputs[0])
    before, after = (tuple(factor for content in part for factor in content) for part in (x[:axis], x[axis:]))
    return node, [(before, after)]


class _Numbers:
    """Numbers that a node reads: before, with other samples as the graph computes them, and which of them follow a free
    size.
    """

    def __init__(self, before: np.ndarray, after: np.ndarray, free: np.ndarray) -> None:
        self.before = [int(value) for value in before]
        self.after = [int(value) for value in after]
        self.free = [bool(value) for value in free]

    def moves(self, k: int) -> bool:
        """Whether the graph computes this one from how many samples there are."""
        return self.before[k] != self.after[k]

    @property
    def written(self) -> bool:
        """Whether all of them stand in the file."""
        return not any(self.free)


def _written(node: Node, space: BatchSpace, axes: tuple[Axes, Axes], numbers: _Numbers) -> Made:
    """The Reshape with the shape that its output has with other samples. axes: those of what it reads and makes."""
    x, result = axes
    copies = not node.int("allowzero", 0)
    wrong = [k for k, content in enumerate(result) if not _fits(k, content, x, (numbers, space, copies))]
    if not wrong:
        return node, [result]
    if space.free:
        made = _loose(x, result, numbers, wrong=wrong, copies=copies, open_=space.is_open())
        if made is not None and numbers.written:
            return space.rewired(node, {1: space.constant(node.inputs[1], made)}), [result]
    shape = _vector(space, node.inputs[1], result, numbers, wrong=wrong)
    return space.rewired(node, {1: shape}), [result]


def _fits(k: int, content: Content, x: Axes, how: tuple[_Numbers, BatchSpace, bool]) -> bool:
    """Whether a number of a shape is what it must be with other samples."""
    numbers, space, copies = how
    wanted, value = size_at(content, space.new), numbers.after[k]
    if value == -1:
        return True
    if value == 0 and copies:
        return size_at(x[k], space.new) == wanted if k < len(x) else False
    return value == wanted and (not counts_samples(content) or numbers.moves(k) or not space.free)


def _loose(
    x: Axes, result: Axes, numbers: _Numbers, *, wrong: Sequence[int], copies: bool, open_: bool
) -> list[int] | None:
    """A shape of plain numbers that holds for any samples; None where there is none."""
    made = list(numbers.before)
    left = []
    for k in wrong:
        if copies and k < len(x) and x[k] == result[k]:
            made[k] = 0
        else:
            left.append(k)
    if not left:
        return made
    if len(left) > 1 or not counts_samples(result[left[0]]):
        return None
    if -1 in made:
        other = made.index(-1)
        if open_ or counts_samples(result[other]):
            return None
        made[other] = size_at(result[other], 1)
    made[left[0]] = -1
    return made


def _vector(space: BatchSpace, name: str, result: Axes, numbers: _Numbers, *, wrong: Sequence[int]) -> str:
    """A list of sizes of which those that are wrong are put right, and the others stay."""
    parts = list[str]()
    k = 0
    while k < len(result):
        if k in wrong:
            if numbers.free[k] and not counts_samples(result[k]):
                raise Mixed(f"a size in '{name}' depends on how many samples there are, and should not")
            parts.append(space.size(result[k]))
            k += 1
            continue
        end = next((j for j in range(k, len(result)) if j in wrong), len(result))
        if not any(numbers.free[k:end]):
            parts.append(space.constant(name, numbers.before[k:end]))
        else:
            parts.append(
                space.node("Slice", [name, space.constant("sizes_from", [k]), space.constant("sizes_to", [end])])
            )
        k = end
    if not space.free and numbers.written:
        row = [size_at(content, space.new) if j in wrong else numbers.before[j] for j, content in enumerate(result)]
        return space.constant(name, row)
    return parts[0] if len(parts) == 1 else space.node("Concat", parts, axis=0)


def _by_attribute(node: Node, space: BatchSpace, x: Axes, result: Axes) -> Made:
    """The same where the shape is an attribute, as in version 1."""
    shape = node.ints("shape", ())
    numbers = _Numbers(np.array(shape), np.array(shape), np.zeros(len(shape), bool))
    wrong = [k for k, content in enumerate(result) if not _fits(k, content, x, (numbers, space, True))]
    if not wrong:
        return node, [result]
    made = _loose(x, result, numbers, wrong=wrong, copies=True, open_=space.is_open())
    if not space.free:
        made = [size_at(content, space.new) if k in wrong else shape[k] for k, content in enumerate(result)]
    if made is None:
        raise Mixed(f"'{node.name}' ({node.op}) holds a shape that no free number of samples can stand in")
    space.changed()
    return replace(node, attrs={**node.attrs, "shape": made}), [result]


def squeeze(node: Node, space: BatchSpace) -> Made:
    """Axes of one entry go."""
    x = space.of(node.inputs[0])
    axes = listed_axes(node, space, 1)
    gone = {axis % len(x) for axis in axes} or {
        axis for axis, content in enumerate(x) if size_at(content, space.old) == 1
    }
    if any(counts_samples(x[axis]) for axis in gone):
        raise Mixed(f"'{node.name}' (Squeeze) takes away the axis of the samples")
    if not axes and not any(size_at(content, space.new) == 1 for content in x if counts_samples(content)):
        return node, [tuple(content for axis, content in enumerate(x) if axis not in gone)]
    if not axes:
        raise Mixed(f"'{node.name}' (Squeeze) takes away all axes of one entry, that of a single sample too")
    return node, [tuple(content for axis, content in enumerate(x) if axis not in gone)]


def unsqueeze(node: Node, space: BatchSpace) -> Made:
    """New axes of one entry."""
    x = list(space.of(node.inputs[0]))
    axes = listed_axes(node, space, 1)
    for axis in sorted(axis % (len(x) + len(axes)) for axis in axes):
        x.insert(axis, ())
    return node, [tuple(x)]


# --- joining and cutting ------------------------------------------------------------------------


def concat(node: Node, space: BatchSpace) -> Made:
    """Along another axis all parts have the samples; along theirs they are laid end to end."""
    rank = len(space.shape(node.outputs[0]))
    axis = node.int("axis", 1) % rank
    parts = [space.of(name) for name in node.inputs]
    samples: list[Content] = [()] * rank
    for axes in parts:
        for k, content in enumerate(axes):
            if k != axis and counts_samples(content):
                if counts_samples(samples[k]) and samples[k] != content:
                    raise Mixed(f"'{node.name}' (Concat) joins what has samples with what has others")
                samples[k] = content
    plain = without_samples(space.shape(node.outputs[0]))
    inputs: dict[int, str] = {}
    for slot, (name, axes) in enumerate(zip(node.inputs, parts, strict=True)):
        wanted = tuple(samples[k] if samples[k] and k != axis else content for k, content in enumerate(axes))
        found = space.spread(name, wanted)
        inputs |= {slot: found} if found != name else {}
    along = _end_to_end(node, [part[axis] for part in parts])
    result = tuple(along if k == axis else samples[k] or plain[k] for k in range(rank))
    return space.rewired(node, inputs), [result]


def _end_to_end(node: Node, parts: Sequence[Content]) -> Content:
    """What an axis counts on which these lie one after the other."""
    if not any(map(counts_samples, parts)):
        return number(sum(size_at(part, 1) for part in parts))
    behind = {part[part.index(SAMPLES) :] for part in parts if SAMPLES in part}
    if len(behind) != 1 or not all(map(counts_samples, parts)):
        raise Mixed(f"'{node.name}' (Concat) lays samples beside what is no sample")
    (tail,) = behind
    return (*number(sum(size_at(part[: part.index(SAMPLES)], 1) for part in parts)), *tail)


def split(node: Node, space: BatchSpace) -> Made:
    """Another axis is cut; of samples only whole groups of all of them."""
    x = space.of(node.inputs[0])
    axis = node.int("axis", 0) % len(x)
    plain = [without_samples(space.shape(name))[axis] for name in node.outputs]
    if not counts_samples(x[axis]):
        return node, [(*x[:axis], part, *x[axis + 1 :]) for part in plain]
    sizes = [space.shape(name)[axis] for name in node.outputs]
    outer, tail = x[axis][: x[axis].index(SAMPLES)], x[axis][x[axis].index(SAMPLES) :]
    whole = size_at(tail, space.old)
    if not outer or any(size % whole for size in sizes):
        raise _parts(node)
    parts = [(*number(size // whole), *tail) for size in sizes]
    made = [(*x[:axis], part, *x[axis + 1 :]) for part in parts]
    if not (node.input(1) or "split" in node.attrs):
        return node, made
    if not space.free:
        after = [size_at(part, space.new) for part in parts]
        if node.input(1):
            return space.rewired(node, {1: space.constant(node.inputs[1], after)}), made
        space.changed()
        return replace(node, attrs={**node.attrs, "split": after}), made
    if len(set(sizes)) > 1:
        raise _parts(node)
    space.changed()
    attrs = {name: value for name, value in node.attrs.items() if name != "split"}
    attrs |= {"num_outputs": len(sizes)} if space.view.opset >= 18 else {}
    return replace(node, inputs=node.inputs[:1], attrs=attrs), made


def _parts(node: Node) -> Mixed:
    return Mixed(f"'{node.name}' ({node.op}) takes some of the samples, by numbers that are written in the file")


def slice_(node: Node, space: BatchSpace) -> Made:
    """A range of another axis; of samples only all of them."""
    x, out = list(space.of(node.inputs[0])), without_samples(space.shape(node.outputs[0]))
    by_input = bool(node.input(1))
    bounds = _bounds(node, space)
    axes = (listed_axes(node, space, 3) if by_input else node.ints("axes", ())) or tuple(range(len(out)))
    inputs: dict[int, str] = {}
    attrs = dict(node.attrs)
    if bounds is None:
        if any(counts_samples(x[axis]) for axis in axes):
            raise Mixed(f"'{node.name}' (Slice) takes samples by numbers that are computed of values")
        return node, [tuple(content if counts_samples(content) else out[axis] for axis, content in enumerate(x))]
    starts, ends, steps, ends_before = bounds
    open_ends = list(ends)
    for k, axis in enumerate(axis % len(x) for axis in axes[: len(starts)]):
        content = x[axis]
        if not counts_samples(content):
            x[axis] = out[axis]
            continue
        old, new = size_at(content, space.old), size_at(content, space.new)
        if size_at(out[axis], 1) != old or starts[k] != 0 or steps[k] != 1:
            raise _parts(node)
        if ends[k] >= UNBOUNDED or (ends[k] >= new and ends[k] != ends_before[k]):
            continue
        open_ends[k] = INT64_MAX
    if open_ends == list(ends):
        return node, [tuple(x)]
    if by_input and not any(space.computed(node, 2)):
        inputs[2] = space.constant(
            node.inputs[2], np.array(open_ends, np.int64).astype(space.shapes.values[node.inputs[2]].array.dtype)
        )
        if space.shapes.values[node.inputs[2]].array.dtype != np.int64:
            limit = np.iinfo(space.shapes.values[node.inputs[2]].array.dtype).max
            inputs[2] = space.constant(node.inputs[2], np.minimum(open_ends, limit).astype(np.int32))
    elif by_input:
        raise Mixed(f"'{node.name}' (Slice) takes samples up to a number that is computed in part")
    else:
        space.changed()
        attrs["ends"] = open_ends
        return replace(node, attrs=attrs), [tuple(x)]
    return space.rewired(node, inputs), [tuple(x)]


def _bounds(node: Node, space: BatchSpace) -> tuple[list[int], list[int], list[int], list[int]] | None:
    """Starts, ends and steps with other samples, and the ends before; None where they are computed of values."""
    if not node.input(1):
        starts, ends = list(node.ints("starts", ())), list(node.ints("ends", ()))
        return starts, ends, [1] * len(starts), ends
    starts_, ends_, before = space.numbers_after(node, 1), space.numbers_after(node, 2), space.numbers(node, 2)
    steps_ = space.numbers_after(node, 4) if node.input(4) else None
    if starts_ is None or ends_ is None or before is None or (node.input(4) and steps_ is None):
        return None
    starts = [int(v) for v in starts_.ravel()]
    steps = [1] * len(starts) if steps_ is None else [int(v) for v in steps_.ravel()]
    return starts, [int(v) for v in ends_.ravel()], steps, [int(v) for v in before.ravel()]


def gather(node: Node, space: BatchSpace) -> Made:
    """Picks along an axis on which no sample is."""
    x, picked = space.of(node.inputs[0]), space.of(node.inputs[1])
    axis = node.int("axis", 0) % len(x)
    if counts_samples(x[axis]):
        raise _parts(node)
    if any_samples(x) and any_samples(picked):
        raise Mixed(f"'{node.name}' (Gather) picks by the positions of all samples from each of them")
    return node, [(*x[:axis], *picked, *x[axis + 1 :])]


def gather_elements(node: Node, space: BatchSpace) -> Made:
    """Picks along an axis, at positions for every place."""
    x, picked = space.of(node.inputs[0]), space.of(node.inputs[1])
    axis = node.int("axis", 0) % len(x)
    if counts_samples(x[axis]) or counts_samples(picked[axis]):
        raise _parts(node)
    samples = [a if counts_samples(a) else b for a, b in zip(x, picked, strict=True)]
    inputs = _with_samples(node, space, samples, (0, 1))
    return space.rewired(node, inputs), [_filled(picked, samples)]


def _with_samples(node: Node, space: BatchSpace, samples: Sequence[Content], slots: Sequence[int]) -> dict[int, str]:
    """Those inputs among these that get samples on the axes where others have them."""
    inputs: dict[int, str] = {}
    for slot in slots:
        name = node.inputs[slot]
        found = space.spread(name, _filled(space.of(name), samples))
        inputs |= {slot: found} if found != name else {}
    return inputs


def _filled(axes: Axes, samples: Sequence[Content]) -> Axes:
    return tuple(other if counts_samples(other) else content for content, other in zip(axes, samples, strict=True))


def scatter_elements(node: Node, space: BatchSpace) -> Made:
    """Writes along an axis, at positions for every place."""
    x, places, updates = (space.of(name) for name in node.inputs[:3])
    axis = node.int("axis", 0) % len(x)
    samples = [next((c for c in row if counts_samples(c)), ()) for row in zip(x, places, updates, strict=True)]
    if counts_samples(samples[axis]):
        raise _parts(node)
    inputs = _with_samples(node, space, samples, (0, 1, 2))
    return space.rewired(node, inputs), [_filled(x, samples)]


def gather_nd(node: Node, space: BatchSpace) -> Made:
    """Picks by positions on several axes; samples are among those that go side by side."""
    x, picked = space.of(node.inputs[0]), space.of(node.inputs[1])
    beside = node.int("batch_dims", 0)
    depth = space.shape(node.inputs[1])[-1]
    if any_samples(x[beside : beside + depth]) or counts_samples(picked[-1]):
        raise _parts(node)
    if any_samples(x[:beside]) != any_samples(picked[:beside]) or (
        any_samples(x[beside:]) and any_samples(picked[beside:])
    ):
        raise Mixed(f"'{node.name}' (GatherND) picks by the positions of all samples from each of them")
    return node, [(*picked[:-1], *x[beside + depth :])]


# --- repeating ----------------------------------------------------------------------------------


def expand(node: Node, space: BatchSpace) -> Made:
    """Spread to a shape, in which a size of 1 leaves what there is."""
    x, out = space.of(node.inputs[0]), space.shape(node.outputs[0])
    x = (*((),) * (len(out) - len(x)), *x)
    before, after = space.numbers(node, 1), space.numbers_after(node, 1)
    if before is None or after is None:
        raise Mixed(f"'{node.name}' (Expand) spreads to a shape that is computed of values")
    numbers = _Numbers(before.ravel(), after.ravel(), space.computed(node, 1))
    offset = len(out) - len(numbers.before)
    result, wrong = list[Content](), list[int]()
    for axis, content in enumerate(x):
        k = axis - offset
        if counts_samples(content):
            if size_at(content, space.old) != out[axis]:
                raise Mixed(f"'{node.name}' (Expand) makes {out[axis]} of each sample on the axis of the samples")
            if (
                k >= 0
                and numbers.before[k] != 1
                and not (numbers.moves(k) and numbers.after[k] == size_at(content, space.new))
            ):
                wrong.append(k)
            result.append(content)
        elif k >= 0 and numbers.moves(k):
            result.append(scaled(out[axis], numbers.after[k], (space.old, space.new)))
        else:
            result.append(number(out[axis]))
    if not wrong:
        return node, [tuple(result)]
    if numbers.written:
        made = [1 if k in wrong else value for k, value in enumerate(numbers.before)]
        return space.rewired(node, {1: space.constant(node.inputs[1], made)}), [tuple(result)]
    ones: Axes = tuple(() if k in wrong else result[k + offset] for k in range(len(numbers.before)))
    return space.rewired(node, {1: _vector(space, node.inputs[1], ones, numbers, wrong=wrong)}), [tuple(result)]


def tile(node: Node, space: BatchSpace) -> Made:
    """The whole again, as often as it says."""
    x, out = space.of(node.inputs[0]), space.shape(node.outputs[0])
    before, after = space.numbers(node, 1), space.numbers_after(node, 1)
    if before is None or after is None or len(before.ravel()) != len(x):
        raise Mixed(f"'{node.name}' (Tile) repeats as often as is computed of values")
    result = list[Content]()
    for axis, content in enumerate(x):
        was, is_ = int(before.ravel()[axis]), int(after.ravel()[axis])
        if was == is_:
            result.append((*number(was), *content) if counts_samples(content) else number(out[axis]))
        elif content:
            raise Mixed(f"'{node.name}' (Tile) repeats as often as there are samples")
        else:
            result.append(scaled(was, is_, (space.old, space.new)))
    return node, [tuple(result)]


def made_of_sizes(node: Node, space: BatchSpace) -> Made:
    """A tensor as large as numbers say."""
    before, after = space.numbers(node, 0), space.numbers_after(node, 0)
    if before is None or after is None:
        raise Mixed(f"'{node.name}' ({node.op}) makes a tensor of a shape that is computed of values")
    pairs = zip(before.ravel().tolist(), after.ravel().tolist(), strict=True)
    return node, [tuple(scaled(was, is_, (space.old, space.new)) for was, is_ in pairs)]


def pad(node: Node, space: BatchSpace) -> Made:
    """A border along other axes."""
    x, out = space.of(node.inputs[0]), space.shape(node.outputs[0])
    if any(counts_samples(content) and size_at(content, space.old) != out[axis] for axis, content in enumerate(x)):
        raise Mixed(f"'{node.name}' (Pad) puts something beside the samples")
    return node, [tuple(content if counts_samples(content) else number(out[axis]) for axis, content in enumerate(x))]


def blocks(node: Node, space: BatchSpace) -> Made:
    """Channels and positions are traded, within each sample."""
    x = space.of(node.inputs[0])
    if any_samples(x[1:]):
        raise Mixed(f"'{node.name}' ({node.op}) moves samples into positions")
    return node, [(x[0], *without_samples(space.shape(node.outputs[0]))[1:])]


def resize(node: Node, space: BatchSpace) -> Made:
    """Other axes are resampled; a size that is written for the samples follows them."""
    x, out = space.of(node.inputs[0]), space.shape(node.outputs[0])
    for axis, content in enumerate(x):
        if counts_samples(content) and size_at(content, space.old) != out[axis]:
            raise Mixed(f"'{node.name}' ({node.op}) resamples the samples")
    result = tuple(content if counts_samples(content) else number(out[axis]) for axis, content in enumerate(x))
    slot = 3 if node.op == "Resize" and space.view.opset >= 11 else -1
    if slot < 0 or not node.input(slot):
        return node, [result]
    return _of_size(node, space, slot, tuple(result[axis % len(x)] for axis in node.ints("axes", range(len(x))))), [
        result
    ]


def unpool(node: Node, space: BatchSpace) -> Made:
    """Values and their positions, which count through all samples; a size that is written for the samples follows
    them.
    """
    x, positions = (space.of(name) for name in node.inputs[:2])
    if any_samples(x[1:]) or x[:1] != positions[:1]:
        raise Mixed(f"'{node.name}' ({node.op}) takes positions in other samples than its values are of")
    result = (x[0], *without_samples(space.shape(node.outputs[0]))[1:])
    return (_of_size(node, space, 2, result) if node.input(2) else node), [result]


def _of_size(node: Node, space: BatchSpace, slot: int, axes: Axes) -> Node:
    """The node, the sizes at `slot` being those of these axes."""
    before, after = space.numbers(node, slot), space.numbers_after(node, slot)
    if before is None or after is None:
        raise Mixed(f"'{node.name}' ({node.op}) resamples to a size that is computed of values")
    numbers = _Numbers(before.ravel(), after.ravel(), space.computed(node, slot))
    wrong = [
        k for k, content in enumerate(axes)
        if counts_samples(content) and not (numbers.moves(k) and numbers.after[k] == size_at(content, space.new))
    ]  # fmt: skip
    return space.rewired(node, {slot: _vector(space, node.inputs[slot], axes, numbers, wrong=wrong)}) if wrong else node


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
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ScatterElements": scatter_elements,
    "Expand": expand,
    "Tile": tile,
    "ConstantOfShape": made_of_sizes,
    "Pad": pad,
    "DepthToSpace": blocks,
    "SpaceToDepth": blocks,
    "Resize": resize,
    "Upsample": resize,
    "MaxUnpool": unpool,
}
