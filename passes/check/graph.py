"""What is wrong with a graph, all of it, by looking only: the mistakes that onnx.checker and shape inference let pass.

`check_proto` reads the file's message (names, order, what is used), `check` the graph (what each operator demands of
its weights). A rule is one function `(node, facts) → findings` and one row in RULES.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from passes.check.finding import Finding, cycle, dangling, dangling_output, duplicate_node
from passes.graph.operators import CONVOLUTIONS, having, of
from passes.graph.order import Order, topological
from passes.graph.tensors import typed
from passes.graph.view import Node, View, records


@dataclass(frozen=True)
class GraphFacts:
    """What is known of tensors: the full shapes given (−1: unknown), the number of channels (axis 1) that the weights
    imply.
    """

    constants: Mapping[str, gs.Constant]
    shapes: Mapping[str, tuple[int, ...]]
    opset: int
    channels: dict[str, int] = field(default_factory=dict)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a constant, or the one given."""
        return tuple(self.constants[name].shape) if name in self.constants else self.shapes.get(name)

    def width(self, name: str) -> int | None:
        """The length of axis 1, None where unknown. Weights are believed before given shapes, so that a mistake is
        reported where it is.
        """
        if name in self.channels:
            return self.channels[name]
        shape = self.shape(name)
        return shape[1] if shape is not None and len(shape) > 1 and shape[1] >= 0 else None


def check(graph: gs.Graph, shapes: Mapping[str, tuple[int, ...]] | None = None) -> tuple[Finding, ...]:
    """All findings of the static rules on graph; shapes adds what is known of its variables (−1 for an unknown
    axis).
    """
    nodes, constants = records(graph)
    facts = GraphFacts(constants, shapes or {}, graph.opset)
    found = topological([node.inputs for node in nodes], [node.outputs for node in nodes])
    return (
        *_by_rules([nodes[index] for index in found.nodes], facts),
        *_graph_names(graph),
        *_graph_cycle(graph, found),
        *_dead(graph, found),
        *not_finite(graph),
        *_zero_sized(graph, facts),
    )


def misfits(seen: View) -> tuple[Finding, ...]:
    """Where the shapes of weights and attributes contradict each other: what no analysis can make sense of."""
    found = _by_rules(seen.nodes, GraphFacts(seen.constants, {}, seen.opset))
    return tuple(f for f in found if f.severity == "error" and f.code != "variance")


def _by_rules(nodes: Iterable[Node], facts: GraphFacts) -> Iterator[Finding]:
    """What the rules find; nodes come in topological order."""
    for node in nodes:
        rule = RULES.get(node.op)
        if rule is not None and _is_complete(node):
            yield from rule(node, facts)
        _note_channels(node, facts)


def _is_complete(node: Node) -> bool:
    """All the inputs a rule relies on are there; onnx.checker reports where not."""
    return len(node.inputs) >= LEAST_INPUTS.get(node.op, 2) and bool(node.outputs)


def _error(code: str, node: Node, message: str, fix: str = "") -> Finding:
    return Finding("error", code, f"{node.op} '{node.name}'", message, fix)


def _int(node: Node, name: str, default: int) -> int:
    """An attribute; the default also where it is no integer, which onnx.checker reports."""
    value = node.attrs.get(name, default)
    return value if isinstance(value, int) else default


def _ints(node: Node, name: str) -> tuple[int, ...] | None:
    value = node.attrs.get(name)
    return tuple(value) if isinstance(value, list | tuple) else None


def _optional(node: Node, index: int) -> str | None:
    return node.input(index) or None


def convolution(node: Node, facts: GraphFacts) -> Iterator[Finding]:
    """W [C_out, C_in/group, *kernel], B [C_out]; group divides both."""
    shape = facts.shape(node.inputs[1])
    if shape is None:
        return
    if len(shape) < 3:
        message = f"its weight has {len(shape)} axes, a convolution's has at least 3"
        yield _error("weight-rank", node, message, "shape it [C_out, C_in / group, *kernel]")
        return
    group = _int(node, "group", 1)
    channels = facts.width(node.inputs[0])
    yield from _groups(node, group, (("C_out", shape[0]), ("C_in", channels)))
    if channels is not None and group > 0 and channels % group == 0 and shape[1] * group != channels:
        expected = (
            f"{shape[1] * group} input channels ({shape[1]} x {group} groups)"
            if group > 1
            else f"{shape[1]} input channels"
        )
        message = f"its weight is for {expected}, '{node.inputs[0]}' has {channels}"
        yield _error(
            "input-channels", node, message, f"resize axis 1 of the weight, or what computes '{node.inputs[0]}'"
        )
    yield from _bias(node, facts, _optional(node, 2), shape[0])
    yield from _window(node, shape[2:])


def transposed_convolution(node: Node, facts: GraphFacts) -> Iterator[Finding]:
    """W [C_in, C_out/group, *kernel], B [C_out]; group divides both."""
    shape = facts.shape(node.inputs[1])
    if shape is None:
        return
    if len(shape) < 3:
        message = f"its weight has {len(shape)} axes, a transposed convolution's has at least 3"
        yield _error("weight-rank", node, message, "shape it [C_in, C_out / group, *kernel]")
        return
    group = _int(node, "group", 1)
    yield from _groups(node, group, (("C_in", shape[0]),))
    channels = facts.width(node.inputs[0])
    if channels is not None and channels != shape[0]:
        message = f"its weight is for {shape[0]} input channels, '{node.inputs[0]}' has {channels}"
        yield _error(
            "input-channels", node, message, f"resize axis 0 of the weight, or what computes '{node.inputs[0]}'"
        )
    yield from _bias(node, facts, _optional(node, 2), shape[1] * group)
    yield from _window(node, shape[2:])


def _groups(node: Node, group: int, axes: tuple[tuple[str, int | None], ...]) -> Iterator[Finding]:
    if group < 1:
        yield _error("group", node, f"its group is {group}", "set a positive one")
        return
    for name, size in axes:
        if size is not None and size % group:
            yield _error(
                "group",
                node,
                f"its group {group} does not divide {name} = {size}",
                "choose a divisor, or resize the weight",
            )


def _bias(node: Node, facts: GraphFacts, bias: str | None, length: int) -> Iterator[Finding]:
    shape = facts.shape(bias) if bias is not None else None
    if bias is not None and shape is not None and shape != (length,):
        message = f"its bias '{bias}' is {typed(shape)}, the weight makes {length} channels"
        yield _error("bias-length", node, message, f"give the bias {length} values")


def _window(node: Node, kernel: tuple[int, ...]) -> Iterator[Finding]:
    """kernel_shape repeats the weight's; strides, dilations and pads have one entry (pads two) per spatial axis."""
    stated = _ints(node, "kernel_shape")
    if stated is not None and stated != kernel:
        yield _error(
            "kernel-shape",
            node,
            f"its kernel_shape {list(stated)} disagrees with the weight's {list(kernel)}",
            "make them equal",
        )
    for name, length in (("strides", len(kernel)), ("dilations", len(kernel)), ("pads", 2 * len(kernel))):
        given = _ints(node, name)
        if given is not None and len(given) != length:
            message = f"its {name} {list(given)} has {len(given)} entries instead of {length}"
            yield _error("attribute-length", node, message, f"give it {length} entries")


def gemm(node: Node, facts: GraphFacts) -> Iterator[Finding]:
    """A [M, K] · B [K, N] + C, where C broadcasts to [M, N]."""
    shape = facts.shape(node.inputs[1])
    if shape is None:
        return
    if len(shape) != 2:
        yield _error(
            "weight-rank",
            node,
            f"its matrix B has {len(shape)} axes instead of 2",
            "reshape it, or multiply with MatMul",
        )
        return
    rows, columns = reversed(shape) if _int(node, "transB", 0) else shape
    width = facts.width(node.inputs[0]) if not _int(node, "transA", 0) else None
    if width is not None and rows >= 0 and width != rows:
        message = f"its matrix takes {rows} features, '{node.inputs[0]}' has {width}"
        yield _error(
            "input-channels", node, message, f"resize the matrix, or what computes '{node.inputs[0]}'; is transB right?"
        )
    bias = _optional(node, 2)
    added = facts.shape(bias) if bias is not None else None
    if bias is not None and added and columns >= 0 and added[-1] not in (1, columns, -1):
        message = f"its bias '{bias}' is {typed(added)}, the matrix makes {columns} features"
        yield _error("bias-length", node, message, f"give the bias {columns} values")


def matmul(node: Node, facts: GraphFacts) -> Iterator[Finding]:
    """The last axis of A is the last but one of B."""
    left, right = facts.shape(node.inputs[0]), facts.shape(node.inputs[1])
    if not left or not right:
        return
    rows = right[-2] if len(right) > 1 else right[0]
    if left[-1] >= 0 and rows >= 0 and left[-1] != rows:
        message = f"it multiplies {typed(left)} by {typed(right)}: {left[-1]} is not {rows}"
        yield _error("input-channels", node, message, "transpose or resize one of them")


def prelu(node: Node, facts: GraphFacts) -> Iterator[Finding]:
    """The slope broadcasts to X from the last axis (from opset 7; before, its length is 1 or C)."""
    slope, shape = facts.shape(node.inputs[1]), facts.shape(node.inputs[0])
    if slope is None:
        return
    channels = facts.width(node.inputs[0])
    name = node.inputs[1]
    if facts.opset < 7:
        if channels is not None and math.prod(slope) not in (1, channels):
            message = f"its slope '{name}' has {math.prod(slope)} values for {channels} channels"
            yield _error("slope", node, message, f"give it 1 value or {channels}")
        return
    if shape is not None:
        fits = len(slope) <= len(shape) and all(
            a in (1, b) or -1 in (a, b) for a, b in zip(slope[::-1], shape[::-1], strict=False)
        )
        if not fits:
            fix = f"shape it {typed((*shape[1:2], *(1 for _ in shape[2:])))}" if len(shape) > 1 else "give it 1 value"
            yield _error(
                "slope", node, f"its slope '{name}' of shape {typed(slope)} does not broadcast to {typed(shape)}", fix
            )
    elif channels is not None and len(slope) == 3 and slope[0] not in (1, channels):
        message = f"its slope '{name}' has {slope[0]} channels, '{node.inputs[0]}' has {channels}"
        yield _error("slope", node, message, f"shape it {channels}x1x1")


def batch_normalization(node: Node, facts: GraphFacts) -> Iterator[Finding]:
    """scale, bias, mean and variance are [C]; variance is not negative."""
    yield from _vectors(node, facts, node.inputs[1:5])
    variance = facts.constants.get(node.inputs[4])
    if variance is not None and _is_real(variance.values) and bool((variance.values < 0).any()):
        yield _error(
            "variance",
            node,
            f"its variance '{node.inputs[4]}' has negative values",
            "variances are squares: export them again",
        )


def instance_normalization(node: Node, facts: GraphFacts) -> Iterator[Finding]:
    """scale and bias are [C]."""
    yield from _vectors(node, facts, node.inputs[1:3])


def group_normalization(node: Node, facts: GraphFacts) -> Iterator[Finding]:
    """num_groups divides C; scale and bias are [C], before opset 21 [num_groups]."""
    channels, groups = facts.width(node.inputs[0]), _int(node, "num_groups", 1)
    yield from _groups(node, groups, (("C", channels),))
    if facts.opset >= 21:
        yield from _vectors(node, facts, node.inputs[1:3])


def _vectors(node: Node, facts: GraphFacts, vectors: Iterable[str]) -> Iterator[Finding]:
    known = [(name, shape) for name in vectors if (shape := facts.shape(name)) is not None]
    channels = facts.width(node.inputs[0])
    if channels is None and known:  # nothing said so far: they must agree among themselves
        channels = Counter(math.prod(shape) for _, shape in known).most_common(1)[0][0]
    for name, shape in known:
        if shape != (channels,) and -1 not in shape:
            yield _error(
                "vector-length",
                node,
                f"its '{name}' is {typed(shape)} for {channels} channels",
                f"give it {channels} values",
            )


def layer_normalization(node: Node, facts: GraphFacts) -> Iterator[Finding]:
    """scale and bias broadcast to the axes from `axis` on."""
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return
    axis = _int(node, "axis", -1)
    normalised = shape[axis if axis >= 0 else len(shape) + axis :]
    for tensor in node.inputs[1:3]:
        given = facts.shape(tensor)
        if given is None:
            continue
        fits = all(a in (1, b) or -1 in (a, b) for a, b in zip(given[::-1], normalised[::-1], strict=False))
        if not fits:
            message = f"its '{tensor}' is {typed(given)}, it normalises {typed(normalised)}"
            yield _error("vector-length", node, message, f"give it the shape {typed(normalised)}, or set axis")


def concat(node: Node, facts: GraphFacts) -> Iterator[Finding]:
    """All axes but the concatenated one are equal."""
    shapes = [shape for name in node.inputs if (shape := facts.shape(name))]
    if len({len(shape) for shape in shapes}) != 1:
        return
    axis = _int(node, "axis", 1) % len(shapes[0])
    for other in range(len(shapes[0])):
        sizes = {shape[other] for shape in shapes if shape[other] >= 0}
        if other != axis and len(sizes) > 1:
            message = f"it joins axis {axis}, but axis {other} differs: {' and '.join(map(typed, shapes))}"
            yield _error("shape", node, message, f"make axis {other} equal in all of them, or join another axis")


def broadcast(node: Node, facts: GraphFacts) -> Iterator[Finding]:
    """Two operands have equal axes, counted from the last, where neither is 1; their channels by the weights are
    equal.
    """
    if facts.opset < 7:  # explicit `axis` and `broadcast` attributes
        return
    left, right = node.inputs[:2]
    one, two = facts.shape(left), facts.shape(right)
    if one is not None and two is not None:
        fits = all(1 in (a, b) or -1 in (a, b) or a == b for a, b in zip(one[::-1], two[::-1], strict=False))
        if not fits:
            message = f"'{left}' is {typed(one)}, '{right}' is {typed(two)}: they do not broadcast"
            yield _error("shape", node, message, "make their axes equal, counted from the last, or 1 in one of them")
            return
    a, b = facts.channels.get(left), facts.channels.get(right)
    if a is not None and b is not None and a != b and 1 not in (a, b):
        message = f"'{left}' has {a} channels, '{right}' has {b}"
        yield _error("shape", node, message, "resize the layers that compute them to the same number of channels")


Rule = Callable[[Node, GraphFacts], Iterator[Finding]]

RULES: Mapping[str, Rule] = {
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Gemm": gemm,
    "MatMul": matmul,
    "PRelu": prelu,
    "BatchNormalization": batch_normalization,
    "InstanceNormalization": instance_normalization,
    "GroupNormalization": group_normalization,
    "LayerNormalization": layer_normalization,
    "Concat": concat,
    **dict.fromkeys(having(lambda row: row.affine), broadcast),
}
LEAST_INPUTS = {"BatchNormalization": 5, "InstanceNormalization": 3, "GroupNormalization": 3, "Concat": 1}
LEARNED = having(lambda row: bool(row.weights)) | {"Mul"}  # what is added may mask, and be infinite


# --- the channels that weights imply ---


def _note_channels(node: Node, facts: GraphFacts) -> None:
    channels = _channels(node, facts)
    if channels is not None and node.outputs:
        facts.channels[node.outputs[0]] = channels


def _channels(node: Node, facts: GraphFacts) -> int | None:
    """The channels of node's output where weights imply them; elsewhere None, and the given shapes speak."""
    op = node.op.rpartition("::")[2]  # another domain's operator of the same name keeps channels as ONNX's does
    if op in CONVOLUTIONS and len(node.inputs) > 1:
        shape = facts.shape(node.inputs[1])
        if shape is None or len(shape) < 3:
            return None
        return shape[0] if op == "Conv" else shape[1] * _int(node, "group", 1)
    known = [facts.channels.get(name) for name in node.inputs]
    row = of(op)
    if row.keeps_channels and known:
        return known[0]
    if row.affine and known and None not in known:
        return max(size for size in known if size is not None)
    if op == "Concat" and _int(node, "axis", 1) == 1 and known and None not in known:
        return sum(size for size in known if size is not None)
    return None


# --- the graph as a whole ---


def _graph_names(graph: gs.Graph) -> Iterator[Finding]:
    inputs = {tensor.name for tensor in graph.inputs}
    made = Counter(tensor.name for node in graph.nodes for tensor in node.outputs if tensor.name)
    for name, count in made.items():
        if count + (name in inputs) > 1:
            yield Finding(
                "error", "duplicate-tensor", f"tensor '{name}'", "several sources define it", "give each its own name"
            )
    for name, count in Counter(node.name for node in graph.nodes if node.name).items():
        if count > 1:
            yield duplicate_node(name, count)
    for node in graph.nodes:
        for tensor in node.inputs:
            if tensor.name and not _is_defined(tensor, made, inputs):
                yield dangling(f"{node.op} '{node.name}'", tensor.name)
    for tensor in graph.outputs:
        if not _is_defined(tensor, made, inputs):
            yield dangling_output(tensor.name)


def _is_defined(tensor: gs.Tensor, made: Mapping[str, int], inputs: set[str]) -> bool:
    return isinstance(tensor, gs.Constant) or tensor.name in made or tensor.name in inputs


def _graph_cycle(graph: gs.Graph, found: Order) -> Iterator[Finding]:
    if found.stuck:
        yield cycle([f"{graph.nodes[i].op} '{graph.nodes[i].name}'" for i in found.stuck])


def _dead(graph: gs.Graph, found: Order) -> Iterator[Finding]:
    """Nodes from which no path leads to an output."""
    if found.stuck:
        return
    alive = {tensor.name for tensor in graph.outputs}
    dead: list[gs.Node] = []
    for index in reversed(found.nodes):
        node = graph.nodes[index]
        if any(tensor.name in alive for tensor in node.outputs if tensor.name):
            alive.update(tensor.name for tensor in node.inputs)
            alive.update(
                tensor.name
                for body in node.subgraphs(recursive=True)
                for inner in body.nodes
                for tensor in inner.inputs
            )
        else:
            dead.append(node)
    for node in reversed(dead):
        yield Finding(
            "warning", "unused-node", f"{node.op} '{node.name}'", "nothing it computes reaches an output", "remove it"
        )


def _constants(graph: gs.Graph) -> dict[str, tuple[gs.Constant, set[str]]]:
    """Every constant by name, with the operators that read it."""
    found: dict[str, tuple[gs.Constant, set[str]]] = {}
    for node in graph.nodes:
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant):
                found.setdefault(tensor.name, (tensor, set()))[1].add(node.op)
    return found


def not_finite(graph: gs.Graph) -> Iterator[Finding]:
    """NaN is wrong anywhere; an infinity is a limit or a mask (Clip, Where, Pad) unless it is a weight."""
    for name, (constant, ops) in _constants(graph).items():
        values = constant.values
        if not _is_real(values) or bool(np.isfinite(values).all()):
            continue
        nans = int(np.isnan(values).sum())
        bad = int(values.size - np.isfinite(values).sum())
        if nans or ops & LEARNED:
            message = f"{bad} of its {values.size} values are not finite ({nans} NaN)"
            yield Finding(
                "error",
                "not-finite",
                f"initializer '{name}'",
                message,
                "the training diverged: use an earlier checkpoint",
            )


def _is_real(values: npt.NDArray[np.generic]) -> bool:
    # the latter are ml_dtypes'
    return values.dtype.kind in "fc" or values.dtype.name.startswith(("bfloat16", "float8"))


def _zero_sized(graph: gs.Graph, facts: GraphFacts) -> Iterator[Finding]:
    for name, (constant, ops) in _constants(graph).items():
        if 0 in constant.shape and ops & LEARNED:
            message = f"its shape {typed(tuple(constant.shape))} has no elements"
            yield Finding("error", "zero-sized", f"initializer '{name}'", message, "give every axis at least one entry")
    for kind, tensors in (("input", graph.inputs), ("output", graph.outputs)):
        for tensor in tensors:
            shape = facts.shape(tensor.name) or tuple(tensor.shape or ())
            if 0 in shape:
                yield Finding(
                    "error",
                    "zero-sized",
                    f"{kind} '{tensor.name}'",
                    f"its shape {typed(shape)} has no elements",
                    "the input is too small",
                )
