"""Where samples go, one function per kind of operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from passes.batch.contents import Axes, Content, Mixed, any_samples, counts_samples, size_at, without_samples
from passes.batch.space import BatchSpace, Made, Rule, listed_axes
from passes.graph.operators import OPERATORS, Form
from passes.graph.view import Node


def _mixes(node: Node, how: str) -> Mixed:
    return Mixed(f"'{node.name}' ({node.op}) {how}, so the samples are not computed each by itself")


def _plain(node: Node, space: BatchSpace, slot: int = 0) -> Axes:
    """The axes of an output, none of which counts samples."""
    return without_samples(space.shape(node.outputs[slot]))


def _require_none(node: Node, space: BatchSpace, slots: Sequence[int]) -> None:
    """No samples are in these inputs."""
    found = next((node.input(slot) for slot in slots if space.has_samples(node.input(slot))), None)
    if found is not None:
        raise _mixes(node, f"takes '{found}', which depends on the samples, for all of them")


def _only_front(node: Node, axes: Axes, fronts: int = 1) -> None:
    """Samples are counted on the first axes only."""
    axis = next((axis for axis, content in enumerate(axes) if axis >= fronts and counts_samples(content)), None)
    if axis is not None:
        raise _mixes(node, f"works along axis {axis}, on which the samples are")


# --- element by element -------------------------------------------------------------------------


def same(node: Node, space: BatchSpace) -> Made:
    """What it makes is laid out as what it reads first."""
    return node, [space.of(node.inputs[0])] * len(node.outputs)


def broadcast(node: Node, space: BatchSpace) -> Made:
    """Operands that meet, aligned from the right."""
    return _met(node, space, [slot for slot, name in enumerate(node.inputs) if name])


def _met(node: Node, space: BatchSpace, slots: Sequence[int], upto: int | None = None) -> Made:
    """The same for some inputs; upto: but for so many of their last axes, which are those of the output."""
    rank = len(space.shape(node.outputs[0]))
    last = rank - (upto or 0)
    result: list[Content] = [*[()] * last, *_plain(node, space)[last:]]
    found = {slot: space.of(node.inputs[slot]) for slot in slots}
    for axes in found.values():
        for axis, content in enumerate(axes, rank - len(axes)):
            if axis < last and (counts_samples(content) or not result[axis]):
                if counts_samples(content) and counts_samples(result[axis]) and content != result[axis]:
                    raise _mixes(node, "combines samples with each other")
                result[axis] = content
    inputs: dict[int, str] = {}
    for slot, axes in found.items():
        for axis, content in enumerate(axes, rank - len(axes)):
            if axis < last and content and content != result[axis]:
                if size_at(content, space.old) != size_at(result[axis], space.old):
                    raise _mixes(node, "combines each sample with several entries")
                name = inputs.get(slot, node.inputs[slot])
                inputs[slot] = space.one_of(name, axis - (rank - len(axes)), result[axis])
    return space.rewired(node, inputs), [tuple(result)]


# --- layers -------------------------------------------------------------------------------------


def front(node: Node, space: BatchSpace) -> Made:
    """Samples in front, each of which makes one in front."""
    x = space.of(node.inputs[0])
    _require_none(node, space, range(1, len(node.inputs)))
    _only_front(node, x)
    return node, [(x[0], *_plain(node, space, slot)[1:]) for slot in range(len(node.outputs)) if node.outputs[slot]]


def by_channel(node: Node, space: BatchSpace) -> Made:
    """The same where channels are samples' too: each is computed by itself."""
    x = space.of(node.inputs[0])
    _require_none(node, space, range(1, len(node.inputs)))
    _only_front(node, x, 2)
    return node, [(*x[:2], *_plain(node, space, slot)[2:]) for slot in range(len(node.outputs)) if node.outputs[slot]]


def integer_convolution(node: Node, space: BatchSpace) -> Made:
    """A convolution whose scales and zero points are inputs."""
    return front(node, space)


def normalisation(node: Node, space: BatchSpace) -> Made:
    """By the statistics of channels, of each sample or of the training."""
    if node.int("training_mode", 0) or (
        node.op == "BatchNormalization" and len([name for name in node.outputs if name]) > 1
    ):
        raise _mixes(node, "normalises by the mean over all samples")
    return front(node, space)


def normalised_behind(node: Node, space: BatchSpace) -> Made:
    """By the statistics of the axes from `axis` on."""
    x = space.of(node.inputs[0])
    _require_none(node, space, range(1, len(node.inputs)))
    axis = node.int("axis", -1) % len(x)
    if any_samples(x[axis:]):
        raise _mixes(node, "normalises over the samples")
    return node, [x, *((*x[:axis], *[()] * (len(x) - axis)) for _ in node.outputs[1:])]


def normalised_along(node: Node, space: BatchSpace) -> Made:
    """By the statistics of one axis, or of several."""
    x = space.of(node.inputs[0])
    over = node.ints("axes", (0, 2, 3)) if node.op == "MeanVarianceNormalization" else (node.int("axis", -1),)
    if any(counts_samples(x[axis]) for axis in over):
        raise _mixes(node, "normalises over the samples")
    return node, [x]


def softmax(node: Node, space: BatchSpace) -> Made:
    """Along an axis; before version 13 along all from there on."""
    x = space.of(node.inputs[0])
    new = space.view.opset >= 13
    axis = node.int("axis", -1 if new else 1) % len(x)
    if any_samples(x[axis : axis + 1] if new else x[axis:]):
        raise _mixes(node, "compares the samples")
    return node, [x]


def product(node: Node, space: BatchSpace) -> Made:
    """Matrices, in the last two axes; samples are rows or columns of them, or matrices of their own."""
    return _product(node, space, (0, 1))


def quantised_product(node: Node, space: BatchSpace) -> Made:
    """The same with scales and zero points beside the matrices."""
    slots = [0, 3] if node.op == "QLinearMatMul" else [0, 1]
    _require_none(node, space, [slot for slot in range(len(node.inputs)) if slot not in slots])
    return _product(node, space, slots)


def _product(node: Node, space: BatchSpace, slots: Sequence[int]) -> Made:
    a, b = (space.of(node.inputs[slot]) for slot in slots)
    if len(a) < 2 or len(b) < 2:
        if (len(a) < 2 and any_samples(a)) or (len(b) < 2 and any_samples(b)):
            raise _mixes(node, "adds over the samples")
        return node, [(*a[:-1], *_plain(node, space)[len(a) - 1 :]) if len(b) < 2 else (*b[:-2], b[-1])]
    if counts_samples(a[-1]) or counts_samples(b[-2]):
        raise _mixes(node, "adds over the samples")
    made, (axes,) = _met(node, space, slots, 2)
    return made, [(*axes[:-2], a[-2], b[-1])]


def gemm(node: Node, space: BatchSpace) -> Made:
    """Two matrices and an offset."""
    a, b = (space.of(node.inputs[slot]) for slot in (0, 1))
    a, b = (a[::-1] if node.int("transA", 0) else a), (b[::-1] if node.int("transB", 0) else b)
    if counts_samples(a[1]) or counts_samples(b[0]):
        raise _mixes(node, "adds over the samples")
    result = (a[0], b[1])
    offset = node.input(2)
    if not offset:
        return node, [result]
    own = space.of(offset)
    for axis, content in enumerate(own, 2 - len(own)):
        if content and content != result[axis]:
            offset = space.one_of(offset, axis - (2 - len(own)), result[axis])
    return space.rewired(node, {2: offset} if offset != node.input(2) else {}), [result]


def recurrent(node: Node, space: BatchSpace) -> Made:
    """Samples beside each other in a sequence; what it starts with there is one for each."""
    x = space.of(node.inputs[0])
    front_ = node.int("layout", 0)
    along, across = (1, 0) if front_ else (0, 1)
    if counts_samples(x[along]):
        raise _mixes(node, "runs through the samples as through a sequence")
    if counts_samples(x[2]):
        raise _mixes(node, "adds over the samples")
    _require_none(node, space, (1, 2, 3, 7))
    samples = x[across]
    inputs: dict[int, str] = {}
    for slot in (4, 5, 6):
        name = node.input(slot)
        if name:
            own = space.of(name)
            at = 0 if slot == 4 or front_ else 1
            wanted = tuple(samples if axis == at else content for axis, content in enumerate(own))
            found = space.spread(name, wanted)
            inputs |= {slot: found} if found != name else {}
    made: list[Axes] = []
    for slot, name in enumerate(node.outputs):
        if not name:
            made.append(())
            continue
        axes = list(_plain(node, space, slot))
        axes[0 if front_ else (2 if slot == 0 else 1)] = samples
        made.append(tuple(axes))
    return space.rewired(node, inputs), made


def einsum(node: Node, space: BatchSpace) -> Made:
    """By the letters of the equation."""
    equation = node.attrs.get("equation", "")
    text = (equation.decode() if isinstance(equation, bytes) else str(equation)).replace(" ", "")
    left, _, right = text.partition("->")
    terms = left.split(",")
    if "." in text or not right or len(terms) != len(node.inputs):
        raise Mixed(f"'{node.name}' ({node.op}) has an equation that is not followed: {text}")
    found: dict[str, Content] = {}
    for term, name in zip(terms, node.inputs, strict=True):
        for letter, content in zip(term, space.of(name), strict=True):
            if (
                counts_samples(content)
                and counts_samples(found.get(letter, content))
                and found.get(letter, content) != content
            ):
                raise _mixes(node, "combines samples with each other")
            if counts_samples(content) or letter not in found:
                found[letter] = content
    gone = next((letter for letter, content in found.items() if counts_samples(content) and letter not in right), None)
    if gone is not None:
        raise _mixes(node, "adds over the samples")
    inputs: dict[int, str] = {}
    for slot, (term, name) in enumerate(zip(terms, node.inputs, strict=True)):
        wanted = tuple(found[letter] for letter in term)
        if space.of(name) != wanted:
            inputs[slot] = space.spread(name, wanted)
    return space.rewired(node, inputs), [tuple(found[letter] for letter in right)]


def grid_sample(node: Node, space: BatchSpace) -> Made:
    """A picture and where it is looked at, one for each sample."""
    both = [space.of(name) for name in node.inputs[:2]]
    samples = next(axes[0] for axes in both if any_samples(axes))
    for axes in both:
        _only_front(node, axes)
    inputs = {}
    for slot, axes in enumerate(both):
        if axes[0] != samples:
            inputs[slot] = space.spread(node.inputs[slot], (samples, *axes[1:]))
    return space.rewired(node, inputs), [(samples, *_plain(node, space)[1:])]


# --- over axes ----------------------------------------------------------------------------------


def reduction(node: Node, space: BatchSpace) -> Made:
    """Over axes on which no sample is."""
    x = space.of(node.inputs[0])
    axes = listed_axes(node, space, 1)
    if not axes and node.int("noop_with_empty_axes", 0):
        return node, [x]
    over = {axis % len(x) for axis in axes} or set(range(len(x)))
    if any(counts_samples(x[axis]) for axis in over):
        raise _mixes(node, "reduces over the samples")
    return node, [_reduced(x, over, keeps=bool(node.int("keepdims", 1)))]


def selection(node: Node, space: BatchSpace) -> Made:
    """The position of a number along an axis."""
    x = space.of(node.inputs[0])
    axis = node.int("axis", 0) % len(x)
    if counts_samples(x[axis]):
        raise _mixes(node, "chooses among the samples")
    return node, [_reduced(x, {axis}, keeps=bool(node.int("keepdims", 1)))]


def _reduced(x: Axes, over: set[int], *, keeps: bool) -> Axes:
    return tuple(() if axis in over else content for axis, content in enumerate(x) if keeps or axis not in over)


def largest(node: Node, space: BatchSpace) -> Made:
    """The largest numbers along an axis."""
    x = space.of(node.inputs[0])
    _require_none(node, space, (1,))
    axis = node.int("axis", -1) % len(x)
    if counts_samples(x[axis]):
        raise _mixes(node, "chooses among the samples")
    plain = _plain(node, space)
    return node, [(*x[:axis], plain[axis], *x[axis + 1 :])] * len(node.outputs)


def running_sum(node: Node, space: BatchSpace) -> Made:
    """Along an axis."""
    x, axis = space.of(node.inputs[0]), space.numbers(node, 1)
    if axis is None or counts_samples(x[int(axis.ravel()[0])]):
        raise _mixes(node, "adds over the samples")
    return node, [x]


def one_hot(node: Node, space: BatchSpace) -> Made:
    """A new axis of so many classes."""
    x = space.of(node.inputs[0])
    _require_none(node, space, (1, 2))
    axis = node.int("axis", -1) % (len(x) + 1)
    return node, [(*x[:axis], _plain(node, space)[axis], *x[axis:])]


# --- where nothing can be said ------------------------------------------------------------------


def refuse_chosen(node: Node, space: BatchSpace) -> Made:
    """How many rows a sample gets depends on what is in it."""
    raise Mixed(
        f"how many entries '{node.name}' ({node.op}) makes of a sample depends on its values, and those of all "
        "samples are one list"
    )


def refuse_whole(node: Node, space: BatchSpace) -> Made:
    """One number is taken of all samples."""
    raise _mixes(node, "measures all samples together")


FORMS: Mapping[Form, Rule] = {
    "unary": same,
    "n-ary": broadcast,
    "convolution": front,
    "transposed convolution": front,
    "product": product,
    "pooling": by_channel,
    "global pooling": by_channel,
    "normalisation": normalisation,
    "local response": front,
    "softmax": softmax,
    "reduction": reduction,
    "selection": selection,
    "quantisation": same,
    "recurrent": recurrent,
}
OF_OPERATORS: Mapping[str, Rule] = {
    "Gemm": gemm,
    "LayerNormalization": normalised_behind,
    "RMSNormalization": normalised_behind,
    "LpNormalization": normalised_along,
    "MeanVarianceNormalization": normalised_along,
    "ConvInteger": integer_convolution,
    "QLinearConv": integer_convolution,
    "MatMulInteger": quantised_product,
    "QLinearMatMul": quantised_product,
    "DynamicQuantizeLinear": refuse_whole,
    "Einsum": einsum,
    "GridSample": grid_sample,
    "TopK": largest,
    "CumSum": running_sum,
    "OneHot": one_hot,
    "Trilu": same,
    "NonMaxSuppression": refuse_chosen,
    "NonZero": refuse_chosen,
    "Compress": refuse_chosen,
    "Unique": refuse_chosen,
}
COMPUTING: Mapping[str, Rule] = {
    **{op: FORMS[row.form] for op, row in OPERATORS.items() if row.form in FORMS},
    **OF_OPERATORS,
}
