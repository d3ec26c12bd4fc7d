"""One normal form, so that every later reading sees weights as initializers and sizes as numbers.

Guaranteed afterwards: no Constant nodes; nothing is computed from initializers alone (quantisation excepted); static shape arithmetic is
folded; a 1-D or uniform tensor of several elements belongs to one node (exporters deduplicate equal tensors); weights of two or more axes
shared by several nodes stay shared, as one parameter, with their bias; a Split says its sizes, and `auto_pad` is explicit, wherever sizes
are known. The function is unchanged.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from passes.cost import macs_of
from passes.errors import RefusedModel
from passes.shapes import Shapes, infer, node_proto
from passes.view import CORE_DOMAINS, Node, View, build, unique, view

FOLD_BYTES = 1 << 30  # that all folded tensors of a graph may take together
FOLD_MACS = 1 << 33  # that a folded matrix product may take
FOLDED = frozenset(
    {"Abs", "Add", "And", "BatchNormalization", "Cast", "CastLike", "Ceil", "Clip", "Concat", "ConstantOfShape", "Cos", "DepthToSpace",
     "Div", "Equal", "Exp", "Expand", "Flatten", "Floor", "Gather", "Gemm", "Greater", "GreaterOrEqual", "Identity",
     "InstanceNormalization", "LayerNormalization", "Less", "LessOrEqual", "Log", "LpNormalization", "MatMul", "Max", "Mean",
     "MeanVarianceNormalization", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pad", "Pow", "Range", "Reciprocal", "ReduceL1", "ReduceL2",
     "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu",
     "Reshape", "Round", "Shape", "Sigmoid", "Sign", "Sin", "Size", "Slice", "Softmax", "Softplus", "SpaceToDepth", "Split", "Sqrt",
     "Squeeze", "Sub", "Sum", "Tanh", "Tile", "Transpose", "Unsqueeze", "Where", "Xor"}
)  # fmt: skip
"""Operators that weights are made with, and whose evaluation takes no more time and memory than its result suggests."""


@dataclass(frozen=True)
class Normalised:
    """The graph in normal form, a sentence for each kind of change, and whether one of them made numbers of static sizes."""

    graph: gs.Graph
    notes: tuple[str, ...]
    sized: bool


def normalise(graph: gs.Graph) -> Normalised:
    """A copy of the graph in normal form (arrays are shared with the original). Raises RefusedModel for cycles and control flow."""
    refuse_control_flow(graph)
    seen = view(graph)
    work = _Work(build(named(seen.nodes), seen.constants, graph))
    sized = False
    for step in STEPS:
        count = step(work)
        if count:
            sized |= step in OF_SIZES
            work.forget()
            work.notes.append(f"{step.__name__.replace('_', ' ')}: {count}")
    return Normalised(work.graph, tuple(work.notes), sized)


def with_sizes_open(graph: gs.Graph) -> gs.Graph:
    """A copy as near to normal form as it comes without the size of any tensor: each number is an initializer, and one node's."""
    refuse_control_flow(graph)
    seen = view(graph)
    work = _Work(build(named(seen.nodes), seen.constants, graph))
    for step in OF_NO_SIZES:
        if step(work):
            work.forget()
    return work.graph


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
    """The graph being changed, and its View as long as it holds."""

    graph: gs.Graph
    notes: list[str] = field(default_factory=list)
    _seen: View | None = None

    @property
    def seen(self) -> View:
        """The View of the graph as it is now."""
        if self._seen is None:
            self._seen = view(self.graph)
        return self._seen

    def forget(self) -> None:
        """The graph has changed."""
        self._seen = None

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
    for node in graph.nodes:
        if any(isinstance(value, gs.Graph) for value in node.attrs.values()):
            raise RefusedModel(f"node '{node.name}' ({node.op}) has a graph inside; export the model without control flow")


def constants_made_initializers(work: _Work) -> int:
    """Constant nodes become initializers of their output's name."""
    values = {}
    for node in work.graph.nodes:
        if node.op == "Constant" and node.domain in CORE_DOMAINS:
            values[node.outputs[0].name] = _constant_value(node)
    if values:
        work.replace_by_constants(values)
    return len(values)


def _constant_value(node: gs.Node) -> np.ndarray:
    for key, dtype in (("value_int", np.int64), ("value_ints", np.int64), ("value_float", np.float32), ("value_floats", np.float32)):
        if key in node.attrs:
            return np.array(node.attrs[key], dtype)
    if isinstance(node.attrs.get("value"), gs.Tensor):
        return np.asarray(node.attrs["value"].values)
    raise RefusedModel(f"Constant node '{node.name}' holds neither a dense tensor nor numbers")


def identities_of_weights_bypassed(work: _Work) -> int:
    """A node that reads an initializer through Identity reads it directly."""
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
    foldable = _constant_expressions(seen)
    if not foldable:
        return 0
    shapes = infer(seen)
    _require_modest(foldable, shapes)
    values: dict[str, np.ndarray] = {}
    for node in foldable:
        if node.op == "CastLike":
            dtype = onnx.helper.tensor_dtype_to_np_dtype(shapes.types[node.inputs[1]])
            values[node.outputs[0]] = (values[node.inputs[0]] if node.inputs[0] in values else seen.values(node.inputs[0])).astype(dtype)
            continue
        values.update(_evaluate(node, seen, values))
    work.replace_by_constants(values)
    work.drop_unread()
    return len(foldable)


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
    if not any(node.op in ("Shape", "Size") for node in seen.nodes):
        return 0
    shapes = infer(seen)
    values = {
        name: value.array
        for name, value in shapes.values.items()
        if name not in seen.constants and not value.free.any() and name not in seen.outputs
    }
    if values:
        work.replace_by_constants(values)
        work.drop_unread()
    return len(values)


def small_tensors_unshared(work: _Work) -> int:
    """Each use of a 1-D or uniform tensor of several elements gets its own, a layer used several times one; the first keeps the name."""
    seen = work.seen
    taken = set(seen.constants) | set(seen.producer) | set(seen.inputs)
    nodes = {node.name: node for node in work.graph.nodes}
    count = 0
    for name, uses in seen.readers.items():
        if len(uses) < 2 or name not in seen.constants or name in seen.outputs:
            continue
        if not _is_deduplicated(seen, name) and not _is_size(seen, name, uses):
            continue
        for owned in _owners(seen, uses)[1:]:
            copy = unique(f"{name}_{owned[0][0]}", taken.__contains__)
            taken.add(copy)
            for reader, slot in owned:
                nodes[reader].inputs[slot] = gs.Constant(copy, seen.values(name))
            count += 1
    return count


def _is_deduplicated(seen: View, name: str) -> bool:
    constant = seen.constants[name]
    size = int(np.prod(constant.shape, dtype=np.int64))
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
        weight = node.input(1)
        layer = node.op in ("Conv", "ConvTranspose", "Gemm") and slot == 2 and weight in seen.constants
        shared = layer and not _is_deduplicated(seen, weight)
        owners.setdefault(weight if shared else (reader, slot), []).append((reader, slot))
    return list(owners.values())


def _is_size(seen: View, name: str, uses: Sequence[tuple[str, int]]) -> bool:
    """A number that may count channels: each operator that reads it may need another."""
    dtype = seen.constants[name].dtype
    return (
        not isinstance(dtype, int) and np.dtype(dtype).kind in "iu" and any(seen.by_name[reader].op in SIZE_READERS for reader, _ in uses)
    )


SIZE_READERS = frozenset({"Concat", "Reshape", "Expand", "Slice", "Split", "Resize", "Gather"})


def auto_pads_made_explicit(work: _Work) -> int:
    """SAME_UPPER, SAME_LOWER and VALID become the pads they stand for, where the sizes are static."""
    named = [node for node in work.graph.nodes if node.attrs.get("auto_pad", "NOTSET") != "NOTSET" and node.domain in CORE_DOMAINS]
    if not named:
        return 0
    shapes = infer(work.seen)
    count = 0
    for node in named:
        if node.op not in ("Conv", "MaxPool", "AveragePool", "LpPool"):
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
    named = [node for node in work.graph.nodes if node.op == "Split" and node.domain in CORE_DOMAINS]
    named = [node for node in named if len(node.inputs) < 2 and "split" not in node.attrs]
    if not named:
        return 0
    seen = work.seen
    shapes = infer(seen)
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


STEPS: Sequence[Callable[[_Work], int]] = (
    constants_made_initializers,
    identities_of_weights_bypassed,
    constant_expressions_folded,
    static_sizes_folded,
    equal_splits_made_explicit,
    small_tensors_unshared,
    auto_pads_made_explicit,
)
"""The pipeline, in order. Each step changes the work in place and returns how many places it changed."""

OF_SIZES = (static_sizes_folded, auto_pads_made_explicit)

OF_NO_SIZES = (constants_made_initializers, identities_of_weights_bypassed, small_tensors_unshared)
