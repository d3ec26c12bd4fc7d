"""Transposes that exporters put around layers, moved past what they do not concern, so that inverse ones meet and are
gone.

A framework that keeps channels last and computes with channels first writes a Transpose before and after every layer.
Between two of them stand operators that do the same in any order of axes: element by element, along axes that are named
(padding, joining, reducing), and sizes. Such an operator reads its operand as it was before the Transpose, with its
axes renamed, and the Transpose moves behind it:

    op(T(x)) = T(op'(x)),   T⁻¹(T(x)) = x

Every value is computed by the same operations from the same numbers (a sum over space may add them in another order).
What is moved together is a group: it is rewritten where fewer Transposes are left, else nothing of it changes. One that
moves axes of one entry only counts little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_graphsurgeon as gs

from passes.graph.operators import NARY, REDUCTIONS, UNARY
from passes.graph.tensors import Shapes
from passes.graph.view import Node, View, unique

Perm = tuple[int, ...]


@dataclass(frozen=True)
class Settled:
    """The nodes and constants after what is worth it has been moved, and how many Transposes went (1 at least)."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, gs.Constant]
    gone: int


def settle(seen: View, shapes: Shapes) -> Settled | None:
    """The same network with fewer Transposes; None where there are none to take away."""
    first = _Moving(seen, shapes, frozenset())
    first.run()
    worse = first.not_worth_it()
    if first.members <= worse:
        return None
    second = _Moving(seen, shapes, worse)
    second.run()
    if sum(second.balance.values()) <= 0:
        return None
    before, after = (sum(node.op == "Transpose" for node in nodes) for nodes in (seen.nodes, second.nodes))
    return Settled(tuple(second.nodes), {**seen.constants, **second.constants}, max(before - after, 1))


@dataclass(frozen=True)
class Late:
    """What a tensor is: Transpose(source, perm), not yet carried out."""

    source: str
    perm: Perm
    group: str  # a node of the group that it belongs to

    @property
    def plain(self) -> bool:
        """Whether the tensor is its source."""
        return self.perm == tuple(range(len(self.perm)))


@dataclass(frozen=True)
class Moved:
    """An operator before the Transpose: what it reads and says there, and the permutation of each output (None: as it
    was).
    """

    inputs: tuple[str, ...]
    attrs: Mapping[str, object]
    perms: tuple[Perm | None, ...]
    op: str = ""  # another operator, where it becomes one


REAL, UNIT = 100, 1  # what a Transpose counts; one that moves axes of one entry is a matter of names


@dataclass
class _Moving:
    """One walk through the graph: what is late, what has been written, and which nodes are moved together."""

    seen: View
    shapes: Shapes
    banned: Set[str]
    late: dict[str, Late] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, gs.Constant] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)  # node → another of its group
    # node → what its Transposes counted before, less what is written for it
    balance: dict[str, int] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.names = set(self.seen.constants) | set(self.seen.producer) | set(self.seen.inputs)
        self.taken = set(self.seen.by_name)

    @property
    def members(self) -> set[str]:
        """All nodes that were moved."""
        return set(self.parents)

    def not_worth_it(self) -> frozenset[str]:
        """The nodes of groups that leave as many Transposes as there were."""
        totals: dict[str, int] = {}
        for name, count in self.balance.items():
            totals[self.root(name)] = totals.get(self.root(name), 0) + count
        return frozenset(name for name in self.parents if totals.get(self.root(name), 0) <= 0)

    def root(self, name: str) -> str:
        while self.parents[name] != name:
            self.parents[name] = self.parents[self.parents[name]]
            name = self.parents[name]
        return name

    def join(self, name: str, others: Sequence[str]) -> None:
        """The node is moved, in one group with the others."""
        self.parents.setdefault(name, name)
        for other in others:
            self.parents[self.root(other)] = self.root(name)

    def run(self) -> None:
        for node in self.seen.nodes:
            if node.name in self.banned or not self.move(node):
                self.nodes.append(replace(node, inputs=tuple(self.plain(name) for name in node.inputs)))
        for name in self.seen.outputs:
            if name in self.late:
                self.write(name, self.late[name])

    def move(self, node: Node) -> bool:
        """Whether the node was moved before what is late; its outputs are late then."""
        if node.op == "Transpose":
            return self.postpone(node)
        found = [self.late[name] for name in node.inputs if name in self.late]
        rule = RULES.get(node.op)
        if not found or rule is None:
            return False
        moved = rule(node, found[0].perm, self)
        if moved is None:
            return False
        self.join(node.name, [late.group for late in found])
        outputs = list(node.outputs)
        for k, (name, perm) in enumerate(zip(node.outputs, moved.perms, strict=False)):
            if name and perm is not None:
                outputs[k] = self.fresh(f"{name}_moved")
                self.late[name] = Late(outputs[k], perm, node.name)
        self.nodes.append(
            replace(node, op=moved.op or node.op, inputs=moved.inputs, outputs=tuple(outputs), attrs=moved.attrs)
        )
        return True

    def postpone(self, node: Node) -> bool:
        """A Transpose is carried out when something needs it."""
        shape = self.shapes.shapes.get(node.inputs[0])
        if shape is None:
            return False
        perm = node.ints("perm", range(len(shape))[::-1])
        before = self.late.get(node.inputs[0])
        source, groups = node.inputs[0], []
        self.join(node.name, [])
        self.balance[node.name] = self.balance.get(node.name, 0) + _weight(shape, perm)
        if before is not None:
            source, groups = before.source, [before.group]
            perm = tuple(before.perm[axis] for axis in perm)
        self.join(node.name, groups)
        self.late[node.outputs[0]] = Late(source, perm, node.name)
        return True

    def plain(self, name: str) -> str:
        """The tensor as a node reads it that was not moved."""
        late = self.late.get(name)
        if late is None:
            return name
        if late.plain:
            return late.source
        self.write(name, late)
        return name

    def write(self, name: str, late: Late) -> None:
        """What is late is carried out, once."""
        if name in self.written:
            return
        self.written.add(name)
        if late.plain:
            self.nodes.append(Node(self.node_name(f"Identity_{name}"), "Identity", (late.source,), (name,), {}))
            return
        shape = self.shapes.shapes.get(name, ())
        inverse = tuple(np.argsort(late.perm).tolist())
        self.balance[late.group] = self.balance.get(late.group, 0) - _weight(
            tuple(shape[i] for i in inverse), late.perm
        )
        own = (
            self.node_name(self.seen.producer[name]) if self.is_transpose(name) else self.node_name(f"Transpose_{name}")
        )
        self.nodes.append(Node(own, "Transpose", (late.source,), (name,), {"perm": list(late.perm)}))

    def is_transpose(self, name: str) -> bool:
        """Whether a Transpose of the file made the tensor: it keeps its name."""
        made = self.seen.producer.get(name)
        if made is None or self.seen.by_name[made].op != "Transpose":
            return False
        self.taken.discard(made)
        return True

    def before(self, name: str, perm: Perm, group: str) -> str | None:
        """The operand as it is before the Transpose of its fellow operands; None where it would have to be transposed
        itself.
        """
        late = self.late.get(name)
        if late is not None:
            return late.source if late.perm == perm else None
        if name in self.seen.constants:
            return self.turned(name, perm)
        shape = self.shapes.shapes.get(name)
        inverse = tuple(np.argsort(perm).tolist())
        if shape is None or (len(shape) == len(perm) and _weight(shape, inverse) != UNIT) or len(shape) > len(perm):
            return None
        if len(shape) < len(perm):
            return name if all(size == 1 for size in shape) else None
        self.join(group, [])
        self.balance[group] = self.balance.get(group, 0) - UNIT
        own = self.fresh(f"{name}_before")
        self.nodes.append(
            Node(self.node_name(f"Transpose_{own}"), "Transpose", (name,), (own,), {"perm": list(inverse)})
        )
        return own

    def turned(self, name: str, perm: Perm) -> str | None:
        """A constant operand with its axes as they are before the Transpose."""
        constant = self.seen.constants[name]
        shape = tuple(int(size) for size in constant.shape)
        if isinstance(constant.dtype, int) or len(shape) > len(perm):
            return None
        if all(size == 1 for size in shape):
            return name
        array = self.seen.values(name).reshape((1,) * (len(perm) - len(shape)) + shape)
        turned = np.ascontiguousarray(array.transpose(np.argsort(perm)))
        while turned.ndim > len(shape) and turned.shape[0] == 1:
            turned = turned[0]
        if turned.shape == shape and turned.tobytes() == self.seen.values(name).tobytes():
            return name
        return self.constant(name, turned)

    def constant(self, like: str, array: np.ndarray) -> str:
        """A new constant; it keeps the name where the node was the only reader of the old one."""
        alone = (
            len(self.seen.readers.get(like, ())) == 1 and like not in self.seen.outputs and like not in self.constants
        )
        own = like if alone and like in self.seen.constants else self.fresh(f"{like}_moved")
        self.constants[own] = gs.Constant(own, array)
        return own

    def numbers(self, name: str) -> list[int] | None:
        """The integers in a constant."""
        return [int(v) for v in self.seen.values(name).ravel()] if name in self.seen.constants else None

    def fresh(self, name: str) -> str:
        own = unique(name, self.names.__contains__)
        self.names.add(own)
        return own

    def node_name(self, name: str) -> str:
        own = unique(name, self.taken.__contains__)
        self.taken.add(own)
        return own


def _weight(shape: Sequence[int], perm: Perm) -> int:
    """What a Transpose of a tensor of this shape counts; the first axis is never taken for one of one entry, it may be
    a free batch.
    """
    if tuple(perm) == tuple(range(len(perm))):
        return 0
    moved = [axis for axis in perm if axis == 0 or shape[axis] > 1]
    return UNIT if moved == sorted(moved) else REAL


# --- operators that may be moved: (node, permutation of its first late input, walk) → what it is before the Transpose,
# None: it stays ---

Rule = Callable[[Node, Perm, _Moving], Moved | None]


def _first(node: Node, perm: Perm, walk: _Moving) -> str | None:
    """The source of the first input, where that alone is late."""
    late = [slot for slot, name in enumerate(node.inputs) if name in walk.late]
    return walk.late[node.inputs[0]].source if late == [0] else None


def unary(node: Node, perm: Perm, walk: _Moving) -> Moved | None:
    """Every element by itself."""
    source = _first(node, perm, walk)
    return None if source is None else Moved((source, *node.inputs[1:]), node.attrs, (perm,) * len(node.outputs))


def scaled(node: Node, perm: Perm, walk: _Moving) -> Moved | None:
    """Every element by itself, where one scale holds for all."""
    sizes = [np.prod(walk.shapes.shapes.get(name, (2,)), dtype=np.int64) for name in node.inputs[1:] if name]
    return unary(node, perm, walk) if all(size == 1 for size in sizes) else None


def operands(node: Node, perm: Perm, walk: _Moving) -> Moved | None:
    """Element by element: all operands are turned alike."""
    shape = walk.shapes.shapes.get(node.outputs[0])
    if (
        shape is None
        or len(shape) != len(perm)
        or "axis" in node.attrs
        or (node.op == "PRelu" and node.inputs[0] not in walk.late)
    ):
        return None
    if not all(_can_turn(name, perm, walk) for name in node.inputs):
        return None
    sources = [walk.before(name, perm, node.name) for name in node.inputs]
    return Moved(tuple(source or "" for source in sources), node.attrs, (perm,))


def _can_turn(name: str, perm: Perm, walk: _Moving) -> bool:
    """Whether an operand is there before the Transpose, or can be with no more than another name for its axes."""
    late = walk.late.get(name)
    if late is not None:
        return late.perm == perm
    if name in walk.seen.constants:
        constant = walk.seen.constants[name]
        return not isinstance(constant.dtype, int) and len(constant.shape) <= len(perm)
    shape = walk.shapes.shapes.get(name)
    if shape is None or len(shape) > len(perm):
        return False
    if len(shape) < len(perm):
        return all(size == 1 for size in shape)
    return _weight(shape, tuple(np.argsort(perm).tolist())) == UNIT


def joined(node: Node, perm: Perm, walk: _Moving) -> Moved | None:
    """Concat along the axis as it is called before."""
    if any(
        len(walk.shapes.shapes.get(name, ())) != len(perm) or not _can_turn(name, perm, walk) for name in node.inputs
    ):
        return None
    sources = [walk.before(name, perm, node.name) for name in node.inputs]
    axis = perm[node.int("axis", 1) % len(perm)]
    return Moved(tuple(source or "" for source in sources), {**node.attrs, "axis": axis}, (perm,))


def along(node: Node, perm: Perm, walk: _Moving) -> Moved | None:
    """An operator along one axis that keeps them all: Softmax, Split."""
    source = _first(node, perm, walk)
    if source is None or (walk.seen.opset < 13 and node.op != "Split"):
        return None
    axis = perm[node.int("axis", 0 if node.op == "Split" else -1) % len(perm)]
    return Moved((source, *node.inputs[1:]), {**node.attrs, "axis": axis}, (perm,) * len(node.outputs))


def selected(node: Node, perm: Perm, walk: _Moving) -> Moved | None:
    """ArgMax and ArgMin."""
    source = _first(node, perm, walk)
    if source is None:
        return None
    axis = node.int("axis", 0) % len(perm)
    kept = perm if node.int("keepdims", 1) else _without(perm, {axis})
    return Moved((source,), {**node.attrs, "axis": perm[axis]}, (kept,))


def _without(perm: Perm, gone: Set[int]) -> Perm:
    """The permutation of the axes that are left."""
    left = [source for axis, source in enumerate(perm) if axis not in gone]
    order = sorted(left)
    return tuple(order.index(source) for source in left)


def _axes(node: Node, slot: int, rank: int, walk: _Moving) -> list[int] | None:
    """The axes of an attribute or a constant input, [] where none are given, None where they are computed."""
    if node.input(slot):
        numbers = walk.numbers(node.input(slot))
        return None if numbers is None else [axis % rank for axis in numbers]
    return [axis % rank for axis in node.ints("axes", ())]


def _renamed(node: Node, slot: int, axes: Sequence[int], walk: _Moving) -> tuple[tuple[str, ...], dict[str, object]]:
    """The node's inputs and attributes with these axes, where it had some."""
    attrs, inputs = dict(node.attrs), list(node.inputs)
    if node.input(slot):
        inputs[slot] = walk.constant(node.input(slot), np.array(axes, walk.seen.values(node.input(slot)).dtype))
    else:
        attrs["axes"] = list(axes)
    return tuple(inputs), attrs


def reduced(node: Node, perm: Perm, walk: _Moving) -> Moved | None:
    """Reductions over the axes as they are called before; over none or all: whatever their order, if their sizes
    stay.
    """
    source, axes = _first(node, perm, walk), _axes(node, 1, len(perm), walk)
    if source is None or not axes:
        return None
    inputs, attrs = _renamed(node, 1, [perm[axis] for axis in axes], walk)
    kept = perm if node.int("keepdims", 1) else _without(perm, set(axes))
    return Moved((source, *inputs[1:]), attrs, (kept,))


def squeezed(node: Node, perm: Perm, walk: _Moving) -> Moved | None:
    """Squeeze of axes that are named."""
    source, axes = _first(node, perm, walk), _axes(node, 1, len(perm), walk)
    if source is None or not axes:
        return None
    inputs, attrs = _renamed(node, 1, [perm[axis] for axis in axes], walk)
    return Moved((source, *inputs[1:]), attrs, (_without(perm, set(axes)),))


def sliced(node: Node, perm: Perm, walk: _Moving) -> Moved | None:
    """Slice along the axes as they are called before."""
    source = _first(node, perm, walk)
    if source is None:
        return None
    if walk.seen.opset < 10:
        axes = [axis % len(perm) for axis in node.ints("axes", range(len(node.ints("starts", ()))))]
        return Moved((source,), {**node.attrs, "axes": [perm[axis] for axis in axes]}, (perm,))
    listed = _axes(node, 3, len(perm), walk) if node.input(3) else list(range(len(walk.numbers(node.inputs[1]) or ())))
    if not listed:
        return None
    like = node.input(3) or f"{node.name}_axes"
    name = walk.constant(like, np.array([perm[axis] for axis in listed], np.int64))
    return Moved((source, node.inputs[1], node.inputs[2], name, *node.inputs[4:]), node.attrs, (perm,))


def padded(node: Node, perm: Perm, walk: _Moving) -> Moved | None:
    """Pad by the same amounts at the same axes."""
    source, rank = _first(node, perm, walk), len(perm)
    if source is None or walk.seen.opset < 2:
        return None
    if node.input(3):
        axes = _axes(node, 3, rank, walk)
        if not axes:
            return None
        inputs, _ = _renamed(node, 3, [perm[axis] for axis in axes], walk)
        return Moved((source, *inputs[1:]), node.attrs, (perm,))
    amounts = walk.numbers(node.inputs[1]) if node.input(1) else list(node.ints("pads", ()))
    if amounts is None or len(amounts) != 2 * rank:
        return None
    turned = [0] * (2 * rank)
    for axis, before in enumerate(perm):
        turned[before], turned[rank + before] = amounts[axis], amounts[rank + axis]
    if not node.input(1):
        return Moved((source,), {**node.attrs, "pads": turned}, (perm,))
    return Moved(
        (source, walk.constant(node.inputs[1], np.array(turned, np.int64)), *node.inputs[2:]), node.attrs, (perm,)
    )


def resized(node: Node, perm: Perm, walk: _Moving) -> Moved | None:
    """Resize by constant factors or to constant sizes, of whole tensors."""
    source = _first(node, perm, walk)
    slots = {1} if walk.seen.opset < 11 else {2, 3}
    roi = node.input(1) if walk.seen.opset >= 11 else ""
    if (
        source is None
        or "axes" in node.attrs
        or (roi and (roi not in walk.seen.constants or walk.seen.values(roi).size))
    ):
        return None
    given = [(slot, walk.seen.constants.get(node.inputs[slot])) for slot in slots if node.input(slot)]
    if not given or any(constant is None or constant.shape[0] not in (0, len(perm)) for _, constant in given):
        return None
    inputs = list(node.inputs)
    for slot, constant in given:
        if constant is not None and constant.shape[0]:
            inputs[slot] = walk.constant(node.inputs[slot], np.asarray(constant.values)[np.argsort(perm)])
    return Moved((source, *inputs[1:]), node.attrs, (perm,))


def measured(node: Node, perm: Perm, walk: _Moving) -> Moved | None:
    """The sizes of a tensor are those from before, in another order."""
    source = _first(node, perm, walk)
    if source is None:
        return None
    span = list(perm)[slice(node.int("start", 0), node.attrs.get("end"))]
    sizes = walk.fresh(f"{node.outputs[0]}_before")
    order = walk.fresh(f"{node.outputs[0]}_order")
    walk.constants[order] = gs.Constant(order, np.array(span, np.int64))
    walk.nodes.append(Node(walk.node_name(f"Shape_{sizes}"), "Shape", (source,), (sizes,), {}))
    return Moved((sizes, order), {"axis": 0}, (None,), "Gather")


def flattened(node: Node, perm: Perm, walk: _Moving) -> Moved | None:
    """A Reshape reads elements in their order, which a Transpose of axes of one entry does not change."""
    source, shape = _first(node, perm, walk), walk.shapes.shapes.get(node.inputs[0])
    if source is None or shape is None or perm[0] != 0:
        return None
    if _weight(tuple(shape[i] for i in np.argsort(perm)), perm) == REAL:
        return None
    if node.op == "Flatten":
        return Moved((source,), node.attrs, (None,)) if node.int("axis", 1) == 1 else None
    target = walk.numbers(node.inputs[1]) if node.input(1) else None
    if target is None or 0 in target[1:]:
        return None
    return Moved((source, *node.inputs[1:]), node.attrs, (None,))


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(NARY, operands),
    **dict.fromkeys(REDUCTIONS, reduced),
    "Concat": joined,
    "Softmax": along,
    "LogSoftmax": along,
    "Split": along,
    "ArgMax": selected,
    "ArgMin": selected,
    "Squeeze": squeezed,
    "Slice": sliced,
    "Pad": padded,
    "Resize": resized,
    "Upsample": resized,
    "Shape": measured,
    "Reshape": flattened,
    "Flatten": flattened,
    "QuantizeLinear": scaled,
    "DequantizeLinear": scaled,
}
"""op → what it is before a Transpose of what it reads."""
