"""One normal form, so that every later reading sees weights as initializers and sizes as numbers.

Guaranteed afterwards: no Constant nodes; nothing is computed from initializers alone (quantisation excepted, and what would be larger than
what it is computed from: a broadcast tensor is no weight); static shape arithmetic is folded; no operand is broadcast before an operator
that broadcasts by itself, and zeros that are joined to a tensor are padded; a 1-D or uniform tensor of several elements belongs to one node
(exporters deduplicate equal tensors); weights of two or more axes shared by several nodes stay shared, as one parameter, with their bias; a
Split says its sizes, and `auto_pad` is explicit, wherever sizes are known. The function is unchanged, and a graph in normal form is
its own normal form, node by node and tensor by tensor.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from passes.errors import RefusedModel
from passes.graph.macs import macs_of
from passes.graph.normal import Normalised
from passes.graph.operators import NARY, SIZES, SLIDING, having, of
from passes.graph.shapes import SMALL, constant_value, infer, node_proto, open_axes
from passes.graph.tensors import Shape, Shapes
from passes.graph.transposes import settle
from passes.graph.view import CORE_DOMAINS, Node, View, build, linked, live, nodes_of, unique, view

FOLD_BYTES = 1 << 30  # that all folded tensors of a graph may take together
FOLD_MACS = 1 << 33  # that a folded matrix product may take
FOLDED = having(lambda row: row.folds)
"""Operators that weights are made with, and whose evaluation takes no more time and memory than its result suggests."""


def normalise(graph: gs.Graph, sizes: Mapping[str, Shape] | None = None) -> Normalised:
    """A copy of the graph in normal form (arrays are shared with the original). Raises RefusedModel for cycles and control flow.

    sizes: shapes for inputs with free dimensions, which stay free: no size becomes a number that the file leaves open.
    """
    work = _copied(graph, sizes or {})
    counts = dict.fromkeys(STEPS, 0)
    while sum(found := [_done(step, work) for step in STEPS]):  # one makes work for another: sizes that are folded leave constants
        for step, count in zip(STEPS, found, strict=True):
            counts[step] += count
    notes = tuple(f"{step.__name__.replace('_', ' ')}: {count}" for step, count in counts.items() if count)
    return Normalised(work.seen, notes, any(counts[step] for step in OF_SIZES), graph)


def in_normal_form(graph: gs.Graph | Normalised, sizes: Mapping[str, Shape] | None = None) -> Normalised:
    """What is in normal form already, or the graph brought into it. Raises RefusedModel as normalise does."""
    return graph if isinstance(graph, Normalised) else normalise(graph, sizes)


def _copied(graph: gs.Graph, sizes: Mapping[str, Shape]) -> _Work:
    """A copy to work on, every node with a name of its own."""
    refuse_control_flow(graph)
    seen = view(graph)
    nodes = named(seen.nodes)
    return _Work(graph, sizes, linked(nodes, seen.constants, seen))


def _done(step: Callable[[_Work], int], work: _Work) -> int:
    """The step, carried out: how many places it changed."""
    count = step(work)
    if count:
        work.forget()
    return count


def with_sizes_open(graph: gs.Graph, sizes: Mapping[str, Shape] | None = None) -> gs.Graph:
    """A copy as near to normal form as it comes without the size of any tensor: each number is an initializer, and one node's.

    With `sizes` (of inputs) what is broadcast to written sizes is left to who reads it, and written zeros that are joined are pads, where
    that is the same at these sizes.
    """
    work = _copied(graph, sizes or {})
    for step in (*OF_NO_SIZES, *((joined_zeros_made_pads, written_operands_left_to_broadcast) if sizes else ())):
        if step(work):
            work.forget()
    return work.graph


def written_operands_left_to_broadcast(work: _Work) -> int:
    """The same as with sizes that are known, of what is broadcast to sizes that are written: at others it would stay as it is, and fail."""
    written = [node for node in _broadcasts(work.seen) if _is_written(node, work.seen)]
    return _leave_to_broadcast(work, infer(work.seen, work.sizes), written) if written else 0


def _is_written(node: Node, seen: View) -> bool:
    return all(name in seen.constants for name in (node.inputs if node.op == "ConstantOfShape" else node.inputs[1:]))


def named(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, each with a name of its own: `<Op>_<k>` in topological order where it has none."""
    taken = {node.name for node in nodes if node.name}
    used: set[str] = set()
    named = []
    for k, node in enumerate(nodes):
        name = node.name
        if not name or name in used:
            name = unique(name or f"{node.op.rpartition('::')[2]}_{k}", lambda other: other in taken or other in used)
        used.add(name)
        named.append(node if name == node.name else replace(node, name=name))
    return named


@dataclass
class _Work:
    """A copy of the graph given that is being changed, and its View as long as it holds."""

    given: gs.Graph
    sizes: Mapping[str, Shape]
    _seen: View | None = None
    _shapes: Shapes | None = None
    _graph: gs.Graph | None = None  # until a step has something to change, its View says all

    @property
    def graph(self) -> gs.Graph:
        """The graph as it is now, to be changed."""
        if self._graph is None:
            self._graph = build(self.seen.nodes, self.seen.constants, self.given)
        return self._graph

    @property
    def seen(self) -> View:
        """The View of the graph as it is now."""
        if self._seen is None:
            self._seen = view(self.graph)
        return self._seen

    def has(self, *ops: str) -> bool:
        """Whether a node is of one of these operators."""
        return any(node.op in ops for node in self.seen.nodes)

    @property
    def shapes(self) -> Shapes:
        """The Shapes of the graph as it is now."""
        if self._shapes is None:
            self._shapes = replace(infer(self.seen, self.sizes), free_axes=open_axes(self.seen))
        return self._shapes

    def forget(self) -> None:
        """The graph has changed."""
        self._seen = self._shapes = None

    def become(self, graph: gs.Graph) -> None:
        """This is the graph now."""
        self._graph = graph
        self.forget()

    def replace_by_constants(self, values: dict[str, np.ndarray]) -> None:
        """The tensors named become initializers; nodes left without a used output go."""
        constants = {name: gs.Constant(name, np.asarray(array, order="C")) for name, array in values.items()}
        outputs = {tensor.name for tensor in self.graph.outputs}
        kept = []
        for node in self.graph.nodes:
            if all(t.name in values for t in node.outputs if t.name) and not any(t.name in outputs for t in node.outputs):
                node.inputs.clear()
                continue
            kept.append(node)
            for slot, tensor in enumerate(node.inputs):
                if tensor.name in constants:
                    node.inputs[slot] = constants[tensor.name]
        self.graph.nodes[:] = kept

    def drop_unread(self) -> None:
        """Nodes none of whose outputs is read or is a graph output go, from the end."""
        wanted = {tensor.name for tensor in self.graph.outputs}
        kept = []
        self.forget()
        order = {node.name: i for i, node in enumerate(self.seen.nodes)}
        for node in sorted(self.graph.nodes, key=lambda n: -order[n.name]):
            if any(t.name in wanted for t in node.outputs):
                kept.append(node)
                wanted.update(t.name for t in node.inputs)
            else:
                node.inputs.clear()
        names = {node.name for node in kept}
        self.graph.nodes[:] = [node for node in self.graph.nodes if node.name in names]


def refuse_control_flow(graph: gs.Graph) -> None:
    """Graphs inside nodes are not rewritten: their tensors could not follow a change outside."""
    for node in nodes_of(graph):
        if any(isinstance(value, gs.Graph) for value in node.attrs.values()):
            raise RefusedModel(f"node '{node.name}' ({node.op}) has a graph inside; export the model without control flow")


def constants_made_initializers(work: _Work) -> int:
    """Constant nodes become initializers of their output's name."""
    if not work.has("Constant"):
        return 0
    values = {}
    for node in work.graph.nodes:
        if node.op == "Constant" and node.domain in CORE_DOMAINS:
            values[node.outputs[0].name] = constant_value(node)
    if values:
        work.replace_by_constants(values)
    return len(values)


def identities_of_weights_bypassed(work: _Work) -> int:
    """A node that reads an initializer through Identity reads it directly."""
    if not work.has("Identity"):
        return 0
    source: dict[str, gs.Tensor] = {}
    outputs = {tensor.name for tensor in work.graph.outputs}
    nodes = {node.name: node for node in work.graph.nodes}
    for record in work.seen.nodes:
        node = nodes[record.name]
        if record.op == "Identity" and record.outputs[0] not in outputs:
            tensor = source.get(record.inputs[0], node.inputs[0])
            if isinstance(tensor, gs.Constant):
                source[record.outputs[0]] = tensor
    if source:
        for node in work.graph.nodes:
            for slot, tensor in enumerate(node.inputs):
                if tensor.name in source:
                    node.inputs[slot] = source[tensor.name]
        work.drop_unread()
    return len(source)


def constant_expressions_folded(work: _Work) -> int:
    """What is computed from initializers alone (weight standardisation, a transposed or cast weight) becomes an initializer."""
    seen = work.seen
    found = _constant_expressions(seen)
    if not found:
        return 0
    shapes = work.shapes
    results = _worth_folding(found, seen, shapes)
    folded = live(found, results)
    _require_modest(folded, shapes)
    values: dict[str, np.ndarray] = {}
    for node in folded:
        known = shapes.values.get(node.outputs[0])
        if known is not None:
            values[node.outputs[0]] = known.array
        elif node.op == "CastLike":
            dtype = onnx.helper.tensor_dtype_to_np_dtype(shapes.types[node.inputs[1]])
            values[node.outputs[0]] = (values[node.inputs[0]] if node.inputs[0] in values else seen.values(node.inputs[0])).astype(dtype)
        else:
            values.update(_evaluate(node, seen, values))
    if results:
        work.replace_by_constants({name: values[name] for name in results if name in values})
        work.drop_unread()
    return len(folded)


def _worth_folding(nodes: Sequence[Node], seen: View, shapes: Shapes) -> list[str]:
    """The results of these constant expressions that are to be initializers; of one larger than its sources, what it reads."""
    expressions = {name: node for node in nodes for name in node.outputs if name}
    names = {node.name for node in nodes}
    wanted = {name for node in seen.nodes if node.name not in names for name in node.inputs}
    results: list[str] = []
    for node in reversed(nodes):
        read = [name for name in node.outputs if name in wanted]
        if read and all(_is_worth_keeping(name, expressions, seen, shapes) for name in read):
            results += read
        elif read:
            wanted.update(node.inputs)
    return results


NUMBERS = 64  # elements that are a node's numbers (scales, pads, a position) rather than a tensor, whatever makes them


def _is_worth_keeping(name: str, expressions: Mapping[str, Node], seen: View, shapes: Shapes) -> bool:
    """Whether a computed constant is a layer's weight, or a few numbers, or no larger than the constants that it is made of."""
    shape = shapes.shapes.get(name)
    if shape is None or any(slot in of(seen.by_name[reader].op).weights for reader, slot in seen.readers.get(name, ())):
        return True  # an unknown size is refused by name when it comes to memory
    size = math.prod(shape)
    small = SMALL if _is_whole(shapes.types[name]) else NUMBERS
    if size <= small:
        return True
    waiting, met = [name], {name}
    while waiting and len(met) < MOST_SOURCES:
        node = expressions[waiting.pop()]
        for source in node.inputs:
            if source in met or not source:
                continue
            met.add(source)
            if source in expressions:
                waiting.append(source)
            elif source in seen.constants:
                size -= math.prod(shapes.shapes[source])
                if size <= 0:
                    return True
    return False


MOST_SOURCES = 4096  # tensors that are looked through for what a constant is made of


def _is_whole(kind: int) -> bool:
    """Whether it is an integer's or a truth value's type, as sizes and positions have."""
    return kind != onnx.TensorProto.STRING and np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).kind in "iub"


def _require_modest(nodes: Sequence[Node], shapes: Shapes) -> None:
    """Refuse before memory is taken."""
    total = 0
    for node in nodes:
        known = [name for name in node.outputs if name in shapes.shapes]
        total += sum(math.prod(shapes.shapes[name]) * _item_bytes(shapes.types[name]) for name in known)
        if not known or total > FOLD_BYTES or sum(macs_of([node], shapes.shapes).values()) > FOLD_MACS:
            raise RefusedModel(f"node '{node.name}' ({node.op}) computes a constant of unknown or enormous size")


def _item_bytes(kind: int) -> int:
    """Of an element in memory; a string's by estimate."""
    if kind in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return 128
    return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)


def _constant_expressions(seen: View) -> list[Node]:
    constant = set(seen.constants)
    found = []
    for node in seen.nodes:
        bound = [name for name in (node.inputs[:1] if node.op == "CastLike" else node.inputs) if name]
        if node.op not in FOLDED or not all(name in constant for name in bound) or not bound:
            continue
        if any(name in seen.outputs for name in node.outputs):
            continue
        constant.update(name for name in node.outputs if name)
        found.append(node)
    return found


def _evaluate(node: Node, seen: View, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    feeds = {name: values[name] if name in values else seen.values(name) for name in node.inputs if name}
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in seen.domains.items()]
    read = [name if name in seen.readers else "" for name in node.outputs]
    while read and not read[-1]:
        read.pop()  # what a training mode would return, and nobody reads
    node = replace(node, outputs=tuple(read))
    proto = node_proto(node)
    inputs = [onnx.helper.make_tensor_value_info(k, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in feeds.items()]
    outputs = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in node.outputs if name]
    model = onnx.helper.make_model(onnx.helper.make_graph([proto], "fold", inputs, outputs), opset_imports=imports)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # the mean of nothing, say
            results = ReferenceEvaluator(model).run(None, feeds)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RuntimeWarning) as error:
        raise RefusedModel(f"node '{node.name}' ({node.op}) cannot be evaluated on its constant inputs: {error}") from error
    return {info.name: np.asarray(array) for info, array in zip(outputs, results, strict=True)}


def static_sizes_folded(work: _Work) -> int:
    """Numbers that are computed from static sizes only become initializers."""
    seen = work.seen
    if not any(node.op in SIZES for node in seen.nodes):
        return 0
    shapes = work.shapes
    values = {
        name: value.array
        for name, value in shapes.values.items()
        if name not in seen.constants and not value.free.any() and name not in seen.outputs and _is_number(value.array)
    }
    if values:
        work.replace_by_constants(values)
        work.drop_unread()
    return len(values)


def _is_number(array: np.ndarray) -> bool:
    return array.size <= (SMALL if array.dtype.kind in "iub" else NUMBERS)


def operands_left_to_broadcast(work: _Work) -> int:
    """An operator that broadcasts by itself reads an operand as it was before Expand or Tile, or a constant of a shape as one number."""
    wide = _broadcasts(work.seen)
    if not wide or work.shapes.free_space:
        return 0  # an operand of the probe's size may be broadcast at another
    return _leave_to_broadcast(work, work.shapes, wide)


def _broadcasts(seen: View) -> list[Node]:
    """The nodes that do nothing but broadcast, where no output of the graph is theirs."""
    return [node for node in seen.nodes if node.op in BROADCASTS and node.outputs[0] not in seen.outputs]


def _leave_to_broadcast(work: _Work, shapes: Shapes, wide: Sequence[Node]) -> int:
    """Who reads the result of these nodes reads what they broadcast, where that makes no difference; the number of these places."""
    seen = work.seen
    nodes = {node.name: node for node in work.graph.nodes}
    taken = set(seen.constants) | set(seen.producer) | set(seen.inputs)
    read = dict(shapes.shapes)  # (a reader's slot, as a name) → the shape it reads now
    count = 0
    for node in wide:
        narrow = _narrow(node, nodes[node.name], shapes)
        if narrow is None:
            continue
        shape, tensor = narrow
        if node.op == "ConstantOfShape":
            tensor.name = unique(f"{node.name}_value", taken.__contains__)
            taken.add(tensor.name)
        for reader, slot in seen.readers.get(node.outputs[0], ()):
            own = f"{reader}\0{slot}"
            if _broadcasts_to_the_same(seen.by_name[reader], slot, shape, read):
                nodes[reader].inputs[slot] = tensor
                read[own] = shape
                count += 1
    if count:
        work.drop_unread()
    return count


def _narrow(node: Node, made: gs.Node, shapes: Shapes) -> tuple[tuple[int, ...], gs.Tensor] | None:
    """What the node broadcasts, and its shape; None where its sizes are not known or it repeats more than one entry."""
    wide = shapes.shapes.get(node.outputs[0])
    if wide is None:
        return None
    if node.op == "ConstantOfShape":
        value = node.attrs.get("value")
        array = np.zeros(1, np.float32) if value is None else np.asarray(value.values)
        return (1,) * len(wide), gs.Constant(node.outputs[0], array.reshape((1,) * len(wide)))
    shape = shapes.shapes.get(node.inputs[0])
    if shape is None or any(size not in (1, full) for size, full in zip(shape[::-1], wide[::-1], strict=False)):
        return None
    return shape, made.inputs[0]


def _broadcasts_to_the_same(node: Node, slot: int, shape: tuple[int, ...], read: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the result keeps its shape if the operand has this one."""
    if node.op not in NARY or (node.op == "PRelu" and slot != 1):
        return False
    operands = [shape if k == slot else read.get(f"{node.name}\0{k}", read.get(name)) for k, name in enumerate(node.inputs)]
    known = [operand for operand in operands if operand is not None]
    return len(known) == len(operands) and np.broadcast_shapes(*known) == read.get(node.outputs[0])


BROADCASTS = having(lambda row: row.repeats)


def joined_zeros_made_pads(work: _Work) -> int:
    """A Concat of one tensor with zeros is a Pad with them."""
    seen = work.seen
    if not work.has("Concat"):
        return 0
    joins = [node for node in work.graph.nodes if node.op == "Concat" and node.domain in CORE_DOMAINS and len(node.inputs) > 1]
    if not joins or seen.opset < 2:
        return 0
    shapes = work.shapes
    taken = set(seen.constants) | set(seen.producer) | set(seen.inputs)
    count = 0
    for node in joins:
        kept = [k for k, tensor in enumerate(node.inputs) if not _is_zeros(seen, tensor.name)]
        known = [shapes.shapes.get(tensor.name, ()) for tensor in node.inputs]
        kind = shapes.types.get(node.outputs[0].name, 0)
        if len(kept) != 1 or kind not in PADDED or any(len(shape) < 3 for shape in known):
            continue
        axis, rank = node.attrs.get("axis", 1) % len(known[0]), len(known[0])
        pads = np.zeros(2 * rank, np.int64)
        pads[axis] = sum(shape[axis] for shape in known[: kept[0]])
        pads[rank + axis] = sum(shape[axis] for shape in known[kept[0] + 1 :])
        name = unique(f"{node.name}_pads", taken.__contains__)
        taken.add(name)
        node.op = "Pad"
        node.inputs = [node.inputs[kept[0]]] + ([] if seen.opset < 11 else [gs.Constant(name, pads)])
        node.attrs = {"mode": "constant", **({"pads": pads.tolist()} if seen.opset < 11 else {})}
        count += 1
    if count:
        work.drop_unread()
    return count


PADDED = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16})


def _is_zeros(seen: View, name: str) -> bool:
    """Whether the tensor is a constant of several zeros (no negative ones), or made of the number 0 by a shape."""
    if name in seen.producer:
        node = seen.by_name[seen.producer[name]]
        if node.op == "ConstantOfShape":
            value = node.attrs.get("value")
            return node.inputs[0] in seen.constants and (value is None or not np.asarray(value.values).tobytes().strip(b"\0"))
        return node.op in ("Expand", "Tile") and node.inputs[1] in seen.constants and _is_zeros(seen, node.inputs[0])
    constant = seen.constants.get(name)
    if constant is None or isinstance(constant.dtype, int) or np.dtype(constant.dtype).kind != "f":
        return False
    values = seen.values(name)
    return not values.any() and not np.signbit(values).any()


def small_tensors_unshared(work: _Work) -> int:
    """Each use of a 1-D or uniform tensor of several elements gets its own, a layer used several times one; the first keeps the name."""
    seen = work.seen
    taken = set(seen.constants) | set(seen.producer) | set(seen.inputs)
    shared = [
        (name, owned)
        for name, uses in seen.readers.items()
        if len(uses) > 1 and name in seen.constants and name not in seen.outputs
        if _is_deduplicated(seen, name) or _is_size(seen, name, uses)
        for owned in _owners(seen, uses)[1:]
    ]
    nodes = {node.name: node for node in work.graph.nodes} if shared else {}
    for name, owned in shared:
        copy = unique(f"{name}_{owned[0][0]}", taken.__contains__)
        taken.add(copy)
        for reader, slot in owned:
            nodes[reader].inputs[slot] = gs.Constant(copy, seen.values(name))
    return len(shared)


def _is_deduplicated(seen: View, name: str) -> bool:
    constant = seen.constants[name]
    size = math.prod(constant.shape)
    if size <= 1 or isinstance(constant.dtype, int):
        return False
    if len(constant.shape) == 1 or max(constant.shape) == size:
        return True
    values = seen.values(name)
    return bool((values == values.flat[0]).all())


def _owners(seen: View, uses: Sequence[tuple[str, int]]) -> list[list[tuple[str, int]]]:
    """The uses of a deduplicated tensor by whose it is: nodes that share a weight are one layer, as in a detector's towers."""
    owners: dict[object, list[tuple[str, int]]] = {}
    for reader, slot in uses:
        node = seen.by_name[reader]
        row = of(node.op)
        weight = node.input(row.dense[-1]) if row.dense else ""
        layer = slot == row.bias and weight in seen.constants
        shared = layer and not _is_deduplicated(seen, weight)
        owners.setdefault(weight if shared else (reader, slot), []).append((reader, slot))
    return list(owners.values())


def _is_size(seen: View, name: str, uses: Sequence[tuple[str, int]]) -> bool:
    """A number that may count channels: each operator that reads it may need another."""
    dtype = seen.constants[name].dtype
    return (
        not isinstance(dtype, int) and np.dtype(dtype).kind in "iu" and any(seen.by_name[reader].op in SIZE_READERS for reader, _ in uses)
    )


SIZE_READERS = having(lambda row: row.counts)


def auto_pads_made_explicit(work: _Work) -> int:
    """SAME_UPPER, SAME_LOWER and VALID become the pads they stand for, where the sizes are static."""
    if all(node.attrs.get("auto_pad", "NOTSET") == "NOTSET" for node in work.seen.nodes):
        return 0
    named = [node for node in work.graph.nodes if node.attrs.get("auto_pad", "NOTSET") != "NOTSET" and node.domain in CORE_DOMAINS]
    if not named:
        return 0
    shapes = work.shapes
    count = 0
    for node in named:
        if node.op not in SLIDING:
            continue
        pads = _explicit_pads(node, shapes)
        if pads is not None:
            del node.attrs["auto_pad"]
            node.attrs["pads"] = pads
            count += 1
    return count


def _explicit_pads(node: gs.Node, shapes: Shapes) -> list[int] | None:
    """ONNX's definition: SAME gives ceil(size / stride) positions; the odd one goes behind (UPPER) or before (LOWER)."""
    shape = shapes.shapes.get(node.inputs[0].name)
    if shape is None:
        return None
    spatial = len(shape) - 2
    mode = node.attrs["auto_pad"]
    if mode == "VALID":
        return [0] * (2 * spatial)
    if shapes.free_space:
        return None
    kernel = list(node.attrs.get("kernel_shape") or shapes.shapes[node.inputs[1].name][2:])
    strides = list(node.attrs.get("strides", [1] * spatial))
    dilations = list(node.attrs.get("dilations", [1] * spatial))
    before, after = [], []
    for size, k, stride, dilation in zip(shape[2:], kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        small = total // 2
        before.append(small if mode == "SAME_UPPER" else total - small)
        after.append(total - small if mode == "SAME_UPPER" else small)
    return before + after


def equal_splits_made_explicit(work: _Work) -> int:
    """A Split without sizes gets them: its parts may not stay equal."""
    if not work.has("Split"):
        return 0
    named = [node for node in work.graph.nodes if node.op == "Split" and node.domain in CORE_DOMAINS]
    named = [node for node in named if len(node.inputs) < 2 and "split" not in node.attrs]
    if not named:
        return 0
    seen = work.seen
    shapes = work.shapes
    taken = set(seen.constants) | set(seen.producer) | set(seen.inputs)
    count = 0
    for node in named:
        known = [shapes.shapes.get(tensor.name) for tensor in node.outputs]
        source = shapes.shapes.get(node.inputs[0].name, ())
        axis = node.attrs.get("axis", 0) % max(len(source), 1)
        if not source or any(shape is None for shape in known) or (shapes.free_space and axis != 1):
            continue
        count += 1
        sizes = [shape[axis] for shape in known if shape is not None]
        if seen.opset < 13:
            node.attrs["split"] = sizes
            continue
        name = unique(f"{node.name}_sizes", taken.__contains__)
        taken.add(name)
        node.inputs.append(gs.Constant(name, np.array(sizes, np.int64)))
        node.attrs.pop("num_outputs", None)
    return count


def casts_to_their_own_type_bypassed(work: _Work) -> int:
    """What is cast to the type that it has is read directly; another CastLike says its type."""
    seen = work.seen
    if not work.has("Cast", "CastLike"):
        return 0
    types = work.shapes.types
    nodes = {node.name: node for node in work.graph.nodes}
    outputs = set(seen.outputs)
    count = 0
    for record in seen.nodes:
        if record.op not in ("Cast", "CastLike"):
            continue
        node, source, made = nodes[record.name], record.inputs[0], record.outputs[0]
        if source in types and types[source] == types.get(made) and made not in outputs:
            for reader, slot in seen.readers.get(made, ()):
                nodes[reader].inputs[slot] = node.inputs[0]
                count += 1
        elif record.op == "CastLike" and made in types and seen.opset < 19:  # from then on it says how to saturate, too
            node.op, node.attrs, node.inputs = "Cast", {"to": types[made]}, [node.inputs[0]]
            count += 1
    if count:
        work.drop_unread()
    return count


def turned_images_transposed(work: _Work) -> int:
    """A Reshape that moves an axis of one entry past the others of a map (grey images from channels last) is the Transpose it means."""
    if not work.has("Reshape"):
        return 0
    seen = work.seen
    named = [node for node in work.graph.nodes if node.op == "Reshape" and node.domain in CORE_DOMAINS]
    count = 0
    for node in named:
        before, after = (work.shapes.shapes.get(tensor.name, ()) for tensor in (node.inputs[0], node.outputs[0]))
        found = [perm for perm, moved in TURNS if len(before) == 4 and before[moved] == 1 and tuple(before[axis] for axis in perm) == after]
        if not found or before[1:].count(1) != 1 or node.inputs[0].name in seen.constants or work.shapes.free_space:
            continue
        perm = found[0]
        node.op, node.attrs, node.inputs = "Transpose", {"perm": list(perm)}, [node.inputs[0]]
        count += 1
    if count:
        work.drop_unread()
    return count


TURNS = (((0, 3, 1, 2), 3), ((0, 2, 3, 1), 1))  # channels first, channels last; and which axis moves


def transposes_met(work: _Work) -> int:
    """Transposes move past what they do not concern, and inverse ones that meet are gone (transposes.py)."""
    found = settle(work.seen, work.shapes) if sum(node.op == "Transpose" for node in work.seen.nodes) > 1 else None
    if found is None:
        return 0
    work.become(build(found.nodes, found.constants, work.graph))
    work.drop_unread()
    return found.gone


STEPS: Sequence[Callable[[_Work], int]] = (
    constants_made_initializers,
    identities_of_weights_bypassed,
    operands_left_to_broadcast,
    joined_zeros_made_pads,
    constant_expressions_folded,
    static_sizes_folded,
    casts_to_their_own_type_bypassed,
    turned_images_transposed,
    transposes_met,
    equal_splits_made_explicit,
    small_tensors_unshared,
    auto_pads_made_explicit,
)
"""The pipeline, in order. Each step changes the work in place and returns how many places it changed."""

OF_SIZES = (static_sizes_folded, auto_pads_made_explicit)

OF_NO_SIZES = (constants_made_initializers, identities_of_weights_bypassed, small_tensors_unshared)
