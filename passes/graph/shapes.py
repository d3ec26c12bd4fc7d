"""The size of every tensor, and the value of every small one that shape arithmetic decides.

One walk in topological order: ONNX's own inference rule per node, fed with the values known so far. Free dimensions (a
dynamic batch, a dynamic image size) take probe sizes; a value that depends on one is marked, so nothing static is ever
derived from a probe.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper, shape_inference

from passes.errors import RefusedModel, UserError
from passes.graph.operators import ALIGNED, POOLS, REDUCTIONS, SIZES, of, of_form
from passes.graph.tensors import Shape, Shapes, Value
from passes.graph.versions import pooled, require_broadcast
from passes.graph.view import Node, View, element_type

SMALL = 4096  # elements; larger constants are weights, not shape arithmetic
PROBE_IMAGE = 224  # pixels; what a free spatial dimension is taken to be when nobody says otherwise


def require_elements(view: View) -> None:
    """Raises RefusedModel where an input has no elements: then nothing can be said of what the network computes."""
    for name, (shape, _) in view.inputs.items():
        if shape is not None and 0 in shape and name not in view.constants:
            axis = shape.index(0)
            raise RefusedModel(
                f"input '{name}' has a size of 0 on axis {axis}: it runs on no data; export it with a size, or "
                "a free one"
            )


def why_unknown(view: View, shapes: Shapes) -> str | None:
    """Why the sizes of some tensors are not known, naming the first node that makes one; None where all are."""
    for node in view.nodes:
        if any(name and name not in shapes.shapes for name in node.outputs) and all(
            name in shapes.shapes for name in node.inputs if name
        ):
            what = (
                "no rule is known for its operator"
                if _is_foreign(node, view)
                else "they depend on values that it computes"
            )
            return (
                f"the sizes of what '{node.name}' ({node.op}) makes are unknown ({what}), and with them those after it"
            )
    return None


def _is_foreign(node: Node, view: View) -> bool:
    domain, _, op = node.op.rpartition("::")
    return not onnx.defs.has(op, view.domains.get(domain, view.opset), domain)


def infer(view: View, sizes: Mapping[str, Shape] | None = None) -> Shapes:
    """Shapes and values of all tensors; `sizes` gives an input's shape where it is free (its free batch counts as free
    all the same).

    Raises UserError for sizes that name no input or contradict it, RefusedModel where ONNX's rule finds the graph
    inconsistent.
    """
    walk = Walk(view)
    walk.start(dict(sizes or {}))
    found = Shapes(walk.shapes, walk.types, walk.values, walk.free_axes)
    with guessing(found):
        for node in view.nodes:
            walk.visit(node)
    return found


@contextmanager
def guessing(shapes: Shapes) -> Iterator[None]:
    """Within it, a refusal says too where sizes were guessed."""
    try:
        yield
    except RefusedModel as error:
        if not shapes.guess or shapes.guess in str(error):
            raise
        raise RefusedModel(f"{error}; {shapes.guess}") from error


def open_axes(view: View) -> dict[str, tuple[int, ...]]:
    """The free dimensions of the inputs as the file has them, whatever sizes were given for them."""
    return {
        name: tuple(axis for axis, size in enumerate(shape or ()) if not (isinstance(size, int) and size > 0))
        for name, (shape, _) in view.inputs.items()
        if name not in view.constants
    }


Rule = tuple[str, int, str]  # operator, version, domain
Result = tuple[int, Shape | None]  # element type and shape of an output, as far as a rule says


ANSWERS: dict[object, tuple[Result | None, ...]] = {}  # what ONNX's rules said in this process, by all that they read
MOST_ANSWERS = 20_000
LONG = 64  # elements: shapes and sizes are shorter, and longer values would fill the memory


@functools.lru_cache
def _not_free(shape: Shape) -> np.ndarray:
    """The marks of elements none of which depends on a free dimension: weights of one shape share them."""
    marks = np.zeros(shape, bool)
    marks.flags.writeable = False
    return marks


@functools.lru_cache
def _nowhere(size: int) -> tuple[None, ...]:
    """The places of so many elements that are written nowhere as numbers."""
    return (None,) * size


class Walk:
    """The state of one inference walk."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.shapes: dict[str, Shape] = {}
        self.types: dict[str, int] = {}
        self.values: dict[str, Value] = {}
        self.free_axes: dict[str, tuple[int, ...]] = {}
        self.free: dict[str, frozenset[int]] = {}  # axes of each tensor that follow a free dimension
        self.open = False  # whether an input has a free dimension
        self.protos: dict[str, onnx.TensorProto] = {}
        self.domains = tuple(sorted(view.domains.items()))
        self.opsets = [helper.make_opsetid(domain, version) for domain, version in view.domains.items()]

    def start(self, sizes: dict[str, Shape]) -> None:
        for name in sizes:
            if name not in self.view.inputs:
                raise UserError(f"--input names '{name}', but the inputs are: {', '.join(self.view.inputs)}")
        for name, (shape, dtype) in self.view.inputs.items():
            if name in self.view.constants:
                continue
            self.types[name] = dtype
            self.shapes[name], free, self.free_axes[name] = _probe(name, shape, sizes.get(name), self.view)
            self.free[name] = frozenset(free)
            self.open |= bool(free)
        for name, constant in self.view.constants.items():
            self.types[name] = self.view.dtype(name)
            self.shapes[name] = tuple(int(d) for d in constant.shape)
            self.free[name] = frozenset()
            if math.prod(self.shapes[name]) <= SMALL and not isinstance(constant.dtype, int):
                array = self.view.values(name)
                where = (
                    tuple((name, i) for i in range(array.size)) if array.dtype.kind in "iu" else _nowhere(array.size)
                )
                self.values[name] = Value(array, _not_free(array.shape), where)

    def _hold(self, name: str, array: np.ndarray) -> None:
        """The output of a Constant node."""
        self.types[name], self.shapes[name], self.free[name] = (
            int(helper.np_dtype_to_tensor_dtype(array.dtype)),
            array.shape,
            frozenset(),
        )
        if array.size <= SMALL:
            self.values[name] = Value(array, _not_free(array.shape), _nowhere(array.size))

    def visit(self, node: Node) -> None:
        if node.op == "Constant":
            self._hold(node.outputs[0], constant_value(node))
            return
        self._evaluate(node)
        missing = [name for name in node.outputs if name and name not in self.shapes]
        if missing:
            self._infer(node)
        followers = self._followers(node)
        for name in node.outputs:
            if name:
                shape = self.shapes.get(name)
                self.free.setdefault(name, followers if shape is None else followers.intersection(range(len(shape))))

    def _followers(self, node: Node) -> frozenset[int]:
        """Axes of the outputs that may follow a free dimension; where a rule would be long, all of them (never too
        few).
        """
        if not self.open:
            return frozenset()
        return self._of_operands(node) | self._of_values(node)

    def _of_operands(self, node: Node) -> frozenset[int]:
        """Those that follow since an operand's axes do."""
        free: frozenset[int] = frozenset().union(*(self.free.get(name, frozenset()) for name in node.inputs if name))
        if not free:
            return free
        if node.op == "Transpose":
            perm = node.ints("perm", range(len(self.shapes.get(node.input(0), ())))[::-1])
            return frozenset(i for i, axis in enumerate(perm) if axis in free)
        if node.op == "Reshape":
            return self._reshaped_followers(node, free)
        if node.op == "Gather":
            return self._gathered_followers(node)
        if node.op in ("Squeeze", "Unsqueeze"):
            return self._squeezed_followers(node, free)
        if node.op in REDUCED and not node.int("keepdims", 1):
            return self._reduced_followers(node, free)
        if node.op == "Flatten":
            return free if free == {0} and node.int("axis", 1) == 1 else ANY_AXIS
        if node.op == "Einsum" or (node.op == "Gemm" and node.int("transA", 0)):
            return ANY_AXIS
        if of(node.op).form == "n-ary":
            return self._aligned_followers(node)
        return free if self._rank_kept(node) else ANY_AXIS

    def _of_values(self, node: Node) -> frozenset[int]:
        """Those whose sizes are written in a value that follows one."""
        rank, found = len(self.shapes.get(node.outputs[0], ())), set()
        for slot in SIZED_BY.get(node.op, ()):
            value = self.values.get(node.input(slot))
            if value is None or not value.free.any():
                continue
            places = [int(place) for place in np.flatnonzero(value.free)]
            if node.op in SIZED_WHOLE and value.array.size <= rank:  # a size for each of the last axes
                found |= {rank - value.array.size + place for place in places}
            elif node.op == "Pad" and value.array.size == 2 * rank:
                found |= {place % rank for place in places}
            elif node.op == "Slice" and (axes := self.values.get(node.input(3))) is not None and rank:
                found |= {int(axes.array.ravel()[place]) % rank for place in places}
            else:
                return ANY_AXIS
        return frozenset(found)

    def _aligned_followers(self, node: Node) -> frozenset[int]:
        """Of operands that are broadcast, their last axes one upon the other."""
        target, found = self.shapes.get(node.outputs[0]), set()
        for name in node.inputs:
            own = self.shapes.get(name)
            if self.free.get(name) and (own is None or target is None):
                return ANY_AXIS
            if own is not None and target is not None:
                found |= {axis + len(target) - len(own) for axis in self.free.get(name, ())}
        return frozenset(found)

    def _gathered_followers(self, node: Node) -> frozenset[int]:
        """The positions' axes stand in place of the one that is picked from."""
        data, places = (self.shapes.get(node.input(slot)) for slot in (0, 1))
        if data is None or places is None:
            return ANY_AXIS
        axis, free = node.int("axis", 0) % len(data), self.free.get(node.input(0), frozenset())
        behind = {other + len(places) - 1 for other in free if other > axis}
        return frozenset(
            {other for other in free if other < axis} | {axis + k for k in self.free.get(node.input(1), ())} | behind
        )

    def _squeezed_followers(self, node: Node, free: frozenset[int]) -> frozenset[int]:
        """The axes that are not taken out, or those that were there before others were put in, as they are numbered
        then.
        """
        source, target = self.shapes.get(node.input(0)), self.shapes.get(node.outputs[0])
        given = self.values.get(node.input(1))
        axes = node.ints("axes", ()) if given is None else tuple(int(axis) for axis in given.array.ravel())
        longer = target if node.op == "Unsqueeze" else source
        if source is None or target is None or longer is None or not axes:
            return ANY_AXIS
        changed = {axis % len(longer) for axis in axes}
        left = [axis for axis in range(len(longer)) if axis not in changed]
        if node.op == "Unsqueeze":
            return frozenset(left[axis] for axis in free if axis < len(left))
        return frozenset(k for k, axis in enumerate(left) if axis in free)

    def _reduced_followers(self, node: Node, free: frozenset[int]) -> frozenset[int]:
        """The axes that are left, as they are numbered then."""
        source = self.shapes.get(node.input(0))
        axes = (node.int("axis", 0),) if node.op.startswith("Arg") else node.ints("axes", ())
        if node.input(1):
            axes = (
                tuple(int(axis) for axis in value.array.ravel())
                if (value := self.values.get(node.input(1))) is not None
                else ()
            )
        if source is None or not axes:
            return ANY_AXIS
        gone = {axis % len(source) for axis in axes}
        left = [axis for axis in range(len(source)) if axis not in gone]
        return frozenset(k for k, axis in enumerate(left) if axis in free)

    def _rank_kept(self, node: Node) -> bool:
        source, target = self.shapes.get(node.input(0)), self.shapes.get(node.outputs[0])
        return source is not None and target is not None and len(source) == len(target)

    def _reshaped_followers(self, node: Node, free: frozenset[int]) -> frozenset[int]:
        target = self.values.get(node.input(1))
        if target is None:
            return ANY_AXIS
        sizes = [int(size) for size in target.array.ravel()]
        follows = {
            axis for axis, size in enumerate(sizes) if bool(target.free.ravel()[axis]) or (size == 0 and axis in free)
        }
        if -1 in sizes and not self._is_batch_moved(node, free, [sizes[axis] for axis in follows]):
            follows.add(sizes.index(-1))
        return frozenset(follows)

    def _is_batch_moved(self, node: Node, free: frozenset[int], sizes: Sequence[int]) -> bool:
        """The batch is all that is free, is one axis of what is reshaped, and one of the sizes that are written: the
        rest stays.
        """
        source = self.shapes.get(node.input(0))
        if (
            source is None
            or len(free) != 1
            or any(self.free[name] - {0} for name in self.view.inputs if name in self.free)
        ):
            return False
        return [source[axis] for axis in free] == [size or 1 for size in sizes]

    def _evaluate(self, node: Node) -> None:
        if node.op in SIZES:
            self._read_shape(node)
            return
        if (node.op not in ARITHMETIC and node.op != "CastLike") or not node.inputs:
            return
        if node.op == "CastLike" and node.inputs[1] in self.types:  # of the other only the type matters
            node = replace(node, op="Cast", inputs=node.inputs[:1], attrs={"to": self.types[node.inputs[1]]})
        inputs = [self.values.get(name) if name else None for name in node.inputs]
        if any(value is None and name for value, name in zip(inputs, node.inputs, strict=True)) or not any(inputs):
            return
        known = [v for v in inputs if v is not None]
        if sum(v.array.size for v in known) > SMALL:
            return
        function = ARITHMETIC.get(node.op)
        if (
            function is None
            or len(node.outputs) != 1
            or (self.view.opset < 7 and "axis" in node.attrs and node.op in ALIGNED)
        ):
            return
        try:
            with np.errstate(all="ignore"):  # what overflows in the file's arithmetic does so in any runtime
                array = np.asarray(function(node, [None if v is None else v.array for v in inputs], self.view.opset))
        except _TooLarge:
            return
        except (ValueError, LookupError, TypeError, ArithmeticError) as error:
            raise RefusedModel(
                f"node '{node.name}' ({node.op}) cannot be evaluated on its constant inputs: {error}"
            ) from error
        if array.size > SMALL:
            return
        name = node.outputs[0]
        free = np.broadcast_to(np.array(any(bool(v.free.any()) for v in known)), array.shape)
        source: tuple[tuple[str, int] | None, ...] = (None,) * array.size
        if node.op in MOVES:
            free, source = _moved(node, inputs, self.view.opset)
        self.values[name] = Value(array, np.asarray(free), source)
        self.shapes[name] = array.shape
        self.types[name] = int(helper.np_dtype_to_tensor_dtype(array.dtype))

    def _read_shape(self, node: Node) -> None:
        shape = self.shapes.get(node.inputs[0])
        if shape is None:
            return
        follows = self.free.get(node.inputs[0], frozenset())
        free = np.array([axis in follows for axis in range(len(shape))], bool)
        array = np.array(shape, np.int64)
        if node.op == "Size":
            array, free = np.array(array.prod()), np.array(bool(free.any()))
        else:
            span = slice(node.int("start", 0), node.attrs.get("end"))
            array, free = array[span], free[span]
        name = node.outputs[0]
        self.values[name] = Value(array, free, (None,) * array.size)
        self.shapes[name], self.types[name], self.free[name] = array.shape, TensorProto.INT64, frozenset()

    def _infer(self, node: Node) -> None:
        """ONNX's own rule for one node; outputs it cannot decide stay unknown."""
        domain, _, op = node.op.rpartition("::")
        version = self.view.domains.get(domain, self.view.opset)
        if any(name and name not in self.types for name in node.inputs):
            return
        known = onnx.defs.has(op, version, domain)
        if node.op in SHAPE_OF_INPUT or (not known and of(node.op).form == "unary"):
            self.types[node.outputs[0]] = self.types[node.inputs[0]]
            if node.inputs[0] in self.shapes:
                self.shapes[node.outputs[0]] = self.shapes[node.inputs[0]]
            return
        asked = self.values.get(node.input(2)) if node.op == "MaxUnpool" and node.input(2) else None
        if asked is not None:  # ONNX's rule leaves a size that is asked for to the run
            self.types[node.outputs[0]] = self.types[node.inputs[0]]
            self.shapes[node.outputs[0]] = tuple(max(int(size), 0) for size in asked.array.ravel())
            return
        if node.op == "Cast" and isinstance(node.attrs.get("to"), str):  # before opset 6, for which there is no rule
            self.types[node.outputs[0]] = element_type(node.attrs["to"])
            if node.inputs[0] in self.shapes:
                self.shapes[node.outputs[0]] = self.shapes[node.inputs[0]]
            return
        if not known:
            return
        if version < 7:
            require_broadcast(node, [self.shapes.get(name) for name in node.inputs])
        wanted = self.shapes.get(node.input(RANKED[node.op])) if node.op in RANKED else None
        if wanted is not None and math.prod(wanted) > MOST_AXES:
            raise RefusedModel(
                f"node '{node.name}' ({node.op}) makes a tensor of {math.prod(wanted)} axes; at most "
                f"{MOST_AXES} are supported"
            )
        for name, (kind, shape) in self._results(node, (op, version, domain)).items():
            self.types[name] = kind
            if shape is not None:
                self.shapes[name] = shape
                if node.op in POOLS and node.inputs[0] in self.shapes:
                    self.shapes[name] = pooled(node, self.shapes[node.inputs[0]], shape)

    def _results(self, node: Node, rule: Rule) -> dict[str, Result]:
        """What ONNX's rule says of a node's outputs, asked once of all that differ in names alone: networks repeat
        layers.
        """
        key = self._alike(node, rule)
        known = ANSWERS.get(key) if key is not None else None
        if known is None:
            found = self._ask(node, rule)
            if key is not None:
                if len(ANSWERS) >= MOST_ANSWERS:
                    ANSWERS.clear()
                ANSWERS[key] = tuple(found.get(name) for name in node.outputs)
            return found
        return {name: result for name, result in zip(node.outputs, known, strict=True) if result is not None}

    def _alike(self, node: Node, rule: Rule) -> object | None:
        """Equal for nodes of which the rule says the same, of any graph; None where a text cannot stand for what it
        reads.
        """
        attributes = node.attributes
        if attributes is None:
            return None
        read = dict.fromkeys(self._read(node))
        values = [self.values[name].array if name in read else None for name in node.inputs]
        if any(array is not None and (array.dtype.kind == "O" or array.size > LONG) for array in values):
            return None
        inputs = tuple((name and self.types[name], self.shapes.get(name)) for name in node.inputs)
        held = tuple(None if array is None else array.tobytes() for array in values) if read else ()
        return rule, self.domains, attributes, inputs, held, tuple(map(bool, node.outputs))

    def _read(self, node: Node) -> list[str]:
        """The inputs of which the node's rule may read the values."""
        return [] if node.op in VALUELESS else [name for name in node.inputs if name in self.values]

    def _ask(self, node: Node, rule: Rule) -> dict[str, Result]:
        types = {}
        for name in node.inputs:
            if name:
                types[name] = helper.make_tensor_type_proto(self.types[name], self.shapes.get(name))
        data = {name: self._proto(name) for name in self._read(node)}
        try:
            found = shape_inference.infer_node_outputs(
                onnx.defs.get_schema(*rule), node_proto(node), types, data, opset_imports=self.opsets
            )
        except NATIVE as error:
            raise RefusedModel(
                f"node '{node.name}' ({node.op}) does not fit its inputs: {_first_line(error)}"
            ) from error
        tensors = {name: proto.tensor_type for name, proto in found.items()}
        return {  # what is of no known type is a sequence, say
            name: (tensor.elem_type, _known_shape(tensor))
            for name, tensor in tensors.items()
            if tensor.elem_type != TensorProto.UNDEFINED
        }

    def _proto(self, name: str) -> onnx.TensorProto:
        if name not in self.protos:
            self.protos[name] = onnx.numpy_helper.from_array(np.asarray(self.values[name].array, order="C"), name)
        return self.protos[name]


def _known_shape(tensor: onnx.TypeProto.Tensor) -> Shape | None:
    whole = tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim)
    return tuple(d.dim_value for d in tensor.shape.dim) if whole else None


def constant_value(node: Node | gs.Node) -> np.ndarray:
    """What a Constant node holds. Raises RefusedModel where that is neither a dense tensor nor numbers."""
    for key, dtype in (
        ("value_int", np.int64),
        ("value_ints", np.int64),
        ("value_float", np.float32),
        ("value_floats", np.float32),
    ):
        if key in node.attrs:
            return np.array(node.attrs[key], dtype)
    if isinstance(node.attrs.get("value"), gs.Tensor):
        return np.asarray(node.attrs["value"].values)
    raise RefusedModel(f"Constant node '{node.name}' holds neither a dense tensor nor numbers")


def node_proto(node: Node) -> onnx.NodeProto:
    """The node as ONNX writes it."""
    domain, _, op = node.op.rpartition("::")
    proto = helper.make_node(op, list(node.inputs), list(node.outputs), name=node.name, domain=domain)
    for key, value in node.attrs.items():
        if isinstance(value, gs.Tensor):
            proto.attribute.append(
                helper.make_attribute(key, onnx.numpy_helper.from_array(np.asarray(value.values), key))
            )
        elif isinstance(value, (int, float, str, bytes)) or (isinstance(value, list) and value):
            proto.attribute.append(helper.make_attribute(key, value))
        elif isinstance(value, (np.dtype, type)):
            proto.attribute.append(helper.make_attribute(key, int(helper.np_dtype_to_tensor_dtype(np.dtype(value)))))
    return proto


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _probe(
    name: str, shape: tuple[int | str | None, ...] | None, given: Shape | None, view: View
) -> tuple[Shape, list[int], tuple[int, ...]]:
    """An input's probe shape, its free axes, and those among them for which nobody gave a size."""
    if shape is None:
        if given is None:
            raise RefusedModel(f"input '{name}' has no shape; give one with --input {name}=1x3x224x224")
        shape = (None,) * len(given)
    if given is not None and len(given) != len(shape):
        raise UserError(f"--input gives '{name}' {len(given)} dimensions, the model has {len(shape)}")
    probe, free, guessed = [], [], []
    for axis, size in enumerate(shape):
        if isinstance(size, int) and size >= 0:  # of 0 too: such an input has no elements, and takes no others
            if given is not None and given[axis] != size:
                raise UserError(
                    f"--input gives '{name}' size {given[axis]} on axis {axis}, but the model fixes it to {size}"
                )
            probe.append(size)
            continue
        free.append(axis)
        if given is not None:
            probe.append(given[axis])
        else:
            guessed.append(axis)
            probe.append(1 if axis == 0 else _channels(name, view) if axis == 1 else PROBE_IMAGE)
    return tuple(probe), free, tuple(guessed)


def _channels(name: str, view: View) -> int:
    """The channels a first convolution on this input expects, else 3."""
    for reader, slot in view.readers.get(name, ()):
        node = view.by_name[reader]
        if node.op == "Conv" and slot == 0 and node.input(1) in view.constants:
            return int(view.constants[node.input(1)].shape[1]) * node.int("group", 1)
    return 3


# --- shape arithmetic: op → function of (node, arrays, opset) -----------------------------------

Arrays = Sequence[np.ndarray | None]


Evaluate = Callable[[Node, Any, int], Any]


class _TooLarge(Exception):
    """The value has more than SMALL elements, so it is not shape arithmetic; noticed before memory is taken."""


def _admit(size: int) -> None:
    if size > SMALL:
        raise _TooLarge


def _pointwise(function: Callable[..., Any]) -> Evaluate:
    """The function of broadcast arrays as an operator."""

    def evaluate(_: Node, arrays: Any, __: int) -> Any:
        _admit(math.prod(np.broadcast_shapes(*(np.shape(array) for array in arrays))))
        return function(*arrays)

    return evaluate


def _axes(node: Node, arrays: Arrays, slot: int) -> tuple[int, ...] | None:
    """The axes written as an input or an attribute; an empty list of them is none, as in ONNX Runtime."""
    if len(arrays) > slot and arrays[slot] is not None:
        return tuple(int(a) for a in np.ravel(arrays[slot])) or None  # type: ignore[arg-type]
    return tuple(node.attrs["axes"]) if node.attrs.get("axes") else None


def _reduction(function: Callable[..., Any]) -> Evaluate:
    """The function over `axes`; where none are given over all, or with noop_with_empty_axes over none."""

    def evaluate(node: Node, arrays: Any, _: int) -> Any:
        axes = _axes(node, arrays, 1)
        if axes is None and node.int("noop_with_empty_axes", 0):
            return arrays[0]
        return function(arrays[0], axis=axes, keepdims=bool(node.int("keepdims", 1)))

    return evaluate


def _total(function: Callable[..., Any]) -> Callable[..., Any]:
    """A sum or product in the type of its elements: a narrow integer overflows as it does in a runtime."""
    return lambda array, axis, keepdims: function(array, axis=axis, keepdims=keepdims, dtype=array.dtype)


def _slice(node: Node, arrays: Any, opset: int) -> np.ndarray:
    data = arrays[0]
    if opset < 10:
        starts, ends = list(node.ints("starts", ())), list(node.ints("ends", ()))
        axes, steps = list(node.ints("axes", range(len(starts)))), [1] * len(starts)
    else:
        starts, ends = arrays[1].tolist(), arrays[2].tolist()
        axes = arrays[3].tolist() if len(arrays) > 3 and arrays[3] is not None else list(range(len(starts)))
        steps = arrays[4].tolist() if len(arrays) > 4 and arrays[4] is not None else [1] * len(starts)
    index = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = data.shape[axis]
        stop = None if step < 0 and end < -size else end
        # ONNX clamps a start before the first to it
        index[axis] = slice(max(start, -size) if step < 0 else start, stop, step)
    return np.asarray(data[tuple(index)])


def _unsqueeze(node: Node, arrays: Any, _: int) -> np.ndarray:
    return np.expand_dims(arrays[0], _axes(node, arrays, 1) or ())


def _divide(a: Any, b: Any) -> np.ndarray:
    """ONNX divides integers towards zero, in their own type: a quotient of floats would round those beyond 2^53."""
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    _require_divisor(b)
    quotient = a // b
    if a.dtype.kind == "i":
        quotient += ((a % b) != 0) & ((a < 0) != (b < 0))
    return np.asarray(quotient, a.dtype)


def _require_divisor(b: Any) -> None:
    if b.dtype.kind in "iu" and not np.all(b):
        raise ZeroDivisionError("an integer divided by 0")


def _modulo(node: Node, arrays: Any, opset: int) -> Any:
    _require_divisor(arrays[1])
    return _pointwise(np.fmod if node.int("fmod", 0) else np.mod)(node, arrays, opset)


def _power(base: Any, exponent: Any) -> np.ndarray:
    """In the type of the base; an integer to a negative power is a fraction, of which the whole part stays."""
    if base.dtype.kind in "iu" and exponent.dtype.kind in "iu" and np.any(exponent < 0):
        return np.asarray(np.trunc(np.power(base.astype(float), exponent)), base.dtype)
    return np.asarray(np.power(base, exponent), base.dtype)


def _reshape(node: Node, arrays: Any, _: int) -> np.ndarray:
    target = arrays[1] if len(arrays) > 1 else np.array(node.ints("shape", ()))
    data = arrays[0]
    shape = [int(d) if d != 0 or node.int("allowzero", 0) else data.shape[i] for i, d in enumerate(np.ravel(target))]
    return np.reshape(data, shape)


def _clip(node: Node, arrays: Any, opset: int) -> np.ndarray:
    if opset < 11:
        low, high = node.attrs.get("min", -np.inf), node.attrs.get("max", np.inf)
    else:
        low, high = (arrays[slot] if len(arrays) > slot and arrays[slot] is not None else None for slot in (1, 2))
    data = arrays[0]
    _admit(math.prod(np.broadcast_shapes(data.shape, *(np.shape(bound) for bound in (low, high) if bound is not None))))
    data = data if low is None else np.maximum(data, low)
    return np.asarray(data if high is None else np.minimum(data, high), arrays[0].dtype)


def _range(node: Node, arrays: Any, _: int) -> np.ndarray:
    start, limit, delta = (np.asarray(a).item() for a in arrays)
    if delta == 0:
        raise ValueError("a range in steps of 0")
    _admit(math.ceil((limit - start) / delta))
    return np.arange(start, limit, delta, dtype=arrays[0].dtype)


def _filled(node: Node, arrays: Any, _: int) -> np.ndarray:
    shape = [int(d) for d in np.ravel(arrays[0])]
    _admit(math.prod(shape))
    value = node.attrs.get("value")
    fill = np.zeros(1, np.float32) if value is None else np.asarray(value.values)
    return np.full(shape, fill.ravel()[0], fill.dtype)


def _expand(node: Node, arrays: Any, _: int) -> np.ndarray:
    shape = np.broadcast_shapes(arrays[0].shape, tuple(int(d) for d in np.ravel(arrays[1])))
    _admit(math.prod(shape))
    return np.broadcast_to(arrays[0], shape)


def _cast(node: Node, arrays: Any, _: int) -> np.ndarray:
    return np.asarray(arrays[0]).astype(helper.tensor_dtype_to_np_dtype(element_type(node.attrs["to"])))


MOVES: Mapping[str, Evaluate] = {
    "Concat": lambda n, a, _: np.concatenate(a, n.int("axis", 0)),
    "Gather": lambda n, a, _: np.take(a[0], a[1], n.int("axis", 0)),
    "Slice": _slice,
    "Unsqueeze": _unsqueeze,
    "Squeeze": lambda n, a, _: np.squeeze(a[0], _axes(n, a, 1)),
    "Reshape": _reshape,
    "Identity": lambda n, a, _: a[0],
    "Cast": _cast,
}
"""Operators that only move elements: provenance moves with them, by the same function."""

ARITHMETIC: Mapping[str, Evaluate] = {
    **MOVES,
    "Add": _pointwise(np.add),
    "Sub": _pointwise(np.subtract),
    "Mul": _pointwise(np.multiply),
    "Div": _pointwise(_divide),
    "Mod": _modulo,
    "Pow": _pointwise(_power),
    "Neg": _pointwise(np.negative),
    "Abs": _pointwise(np.abs),
    "Sign": _pointwise(np.sign),
    "Reciprocal": _pointwise(lambda x: 1 / x),
    "Clip": _clip,
    "Round": _pointwise(np.round),
    "Floor": _pointwise(np.floor),
    "Ceil": _pointwise(np.ceil),
    "Sqrt": _pointwise(np.sqrt),
    "Min": _pointwise(lambda *arrays: functools.reduce(np.minimum, arrays)),
    "Max": _pointwise(lambda *arrays: functools.reduce(np.maximum, arrays)),
    "Equal": _pointwise(np.equal),
    "Less": _pointwise(np.less),
    "Greater": _pointwise(np.greater),
    "LessOrEqual": _pointwise(np.less_equal),
    "GreaterOrEqual": _pointwise(np.greater_equal),
    "Not": _pointwise(np.logical_not),
    "And": _pointwise(np.logical_and),
    "Or": _pointwise(np.logical_or),
    "Where": _pointwise(np.where),
    "ReduceProd": _reduction(_total(np.prod)),
    "ReduceSum": _reduction(_total(np.sum)),
    "ReduceMax": _reduction(np.max),
    "ReduceMin": _reduction(np.min),
    "Range": _range,
    "ConstantOfShape": _filled,
    "Expand": _expand,
    "Transpose": lambda n, a, _: np.transpose(a[0], n.ints("perm", range(a[0].ndim)[::-1])),
}

ANY_AXIS = frozenset(range(16))
REDUCED = REDUCTIONS | {"ArgMax", "ArgMin"}
SIZED_WHOLE = frozenset({"ConstantOfShape", "Expand", "MaxUnpool", "Reshape", "Resize", "Tile", "Upsample"})
SIZED_BY: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("ConstantOfShape", "EyeLike"), (0,)),
    **dict.fromkeys(("Expand", "Reshape", "Tile", "Upsample", "Pad"), (1,)),
    **dict.fromkeys(("OneHot", "TopK", "Split", "CenterCropPad", "AffineGrid", "Col2Im", "DFT"), (1,)),
    "Slice": (1, 2),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "MaxUnpool": (2,),
}
"""op → the inputs whose values say how large the result is."""
NATIVE: tuple[type[Exception], ...] = (
    *(shape_inference.InferenceError, onnx.checker.ValidationError),
    # as pybind11 translates what C++ throws
    *(RuntimeError, ValueError, TypeError, IndexError, OverflowError, MemoryError),
)
MOST_AXES = 64  # numpy has no more
RANKED = {"Expand": 1, "Reshape": 1, "ConstantOfShape": 0}
"""op → the input whose length is the rank of the output: native inference takes memory for as many axes as a file
claims.
"""

VALUELESS = of_form("unary", "n-ary", "convolution", "transposed convolution", "product", "normalisation")
"""Operators whose results have sizes that no value decides."""

SHAPE_OF_INPUT = frozenset({"Dropout", "GroupNormalization", "MeanVarianceNormalization"})
"""Operators for which some version of the standard has no rule of its own."""


def _moved(
    node: Node, inputs: Sequence[Value | None], opset: int
) -> tuple[np.ndarray, tuple[tuple[str, int] | None, ...]]:
    """Freedom and provenance of a moved value: the same move done on the marks and on a numbering of the elements."""
    function = MOVES[node.op]
    data_slots = range(len(inputs)) if node.op == "Concat" else range(1)
    sources: list[tuple[str, int] | None] = []
    marks: list[np.ndarray | None] = []
    numbers: list[np.ndarray | None] = []
    for slot, value in enumerate(inputs):
        if value is None or slot not in data_slots:
            marks.append(None if value is None else value.array)
            numbers.append(None if value is None else value.array)
            continue
        numbers.append(np.arange(len(sources), len(sources) + value.array.size).reshape(value.array.shape))
        marks.append(value.free)
        sources.extend(value.source)
    if node.op == "Cast":
        return marks[0], tuple(sources)  # type: ignore[return-value]
    order = np.ravel(function(node, numbers, opset))
    return np.asarray(function(node, marks, opset), bool), tuple(sources[i] for i in order)
