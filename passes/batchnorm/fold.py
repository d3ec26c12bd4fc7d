"""BatchNormalization folded into the convolution beside it, and put behind convolutions again; the function stays the same.

With f = γ/√(σ²+ε) and s = β − fμ a BatchNormalization is y = fx + s, per channel:

    behind a convolution    f(Wx + b) + s  =  (fW)x + (fb + s)
    before one              W(fx + s) + b  =  (Wf)x + (Ws + b), where no padding puts zeros in the place of s
    put back                Wx + b  =  γ(Wx − μ)/√(σ²+ε) + β  with γ = √(σ²+ε), β = m, μ = m − b: m and σ² are the statistics of Wx + b

Arithmetic is in float64, and what the graph stores is rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from passes.errors import RefusedModel
from passes.graph.normal import Normalised
from passes.graph.normalise import in_normal_form
from passes.graph.operators import CONVOLUTIONS
from passes.graph.tensors import Shape
from passes.graph.view import Node, View, build, in_order, unique

EPSILON = 1e-5  # of a BatchNormalization put in; what frameworks take
MIXED = 15  # the opset since which its parameters may be more precise than its input
PARTS = ("gamma", "beta", "mean", "var")

Array = npt.NDArray[np.generic]
Reals = npt.NDArray[np.float64]
DType = np.dtype[np.generic]


@dataclass(frozen=True)
class Left:
    """A node that stays as it is, and why."""

    node: str
    why: str


@dataclass(frozen=True)
class Folded:
    """The graph after folding: (BatchNormalization, the node it went into) in order, and those that are left."""

    graph: gs.Graph
    folded: tuple[tuple[str, str], ...]
    left: tuple[Left, ...]


# --- folding ----------------------------------------------------------------------------------------------------------------------------


def fold(graph: gs.Graph | Normalised, *, sizes: Mapping[str, Shape] | None = None) -> Folded:
    """Every BatchNormalization that can be is part of the convolution or matrix product beside it.

    The result is in normal form. A tensor that is still there has its name and its values; what a BatchNormalization made is now made by
    the convolution. One that stays is listed with the reason. sizes: shapes for inputs with free dimensions.
    """
    normal = in_normal_form(graph, sizes)
    work = _Folding(normal.seen)
    for node in work.seen.nodes:
        if node.op == "BatchNormalization" and node.name in work.nodes:
            work.fold(node.name)
    return Folded(build(in_order(list(work.nodes.values())), work.constants(), normal.given), tuple(work.folded), tuple(work.left))


@dataclass(frozen=True)
class _Affine:
    """y = factor · x + shift, per channel [C], in float64."""

    factor: Reals
    shift: Reals


class _Unfit(Exception):
    """Why a BatchNormalization cannot be folded here."""


class _Folding:
    """The graph being folded: nodes by name, who reads and who makes each tensor, and the new values in float64."""

    def __init__(self, seen: View) -> None:
        self.seen = seen
        self.nodes = dict(seen.by_name)
        self.producer = dict(seen.producer)
        self.readers = {name: list(uses) for name, uses in seen.readers.items()}
        self.values: dict[str, Reals] = {}
        self.folded: list[tuple[str, str]] = []
        self.left: list[Left] = []

    def constants(self) -> dict[str, gs.Constant]:
        """The constants of the seed, those that changed in their old type."""
        changed = {name: gs.Constant(name, _rounded(values, self._dtype(name))) for name, values in self.values.items()}
        return {**self.seen.constants, **changed}

    def _dtype(self, name: str) -> DType:
        """The type of a constant; a bias that is new has that of its weight."""
        if name not in self.seen.constants:
            reader, _ = self.readers[name][0]
            name = self.nodes[reader].inputs[1]
        return dtype_of(name, self.seen)

    def fold(self, name: str) -> None:
        """The BatchNormalization goes into the node behind it or before it, or is left with the reason."""
        try:
            norm = self._affine(self.nodes[name])
        except _Unfit as error:
            self.left.append(Left(name, str(error)))
            return
        try:
            self._behind(self.nodes[name])
            return
        except _Unfit as error:
            why = str(error)
        reader = self._only_reader(self.nodes[name].outputs[0])
        if reader is not None and self.nodes[reader].op in (*CONVOLUTIONS, "Gemm"):
            try:
                self._before(self.nodes[name], norm, self.nodes[reader])
                return
            except _Unfit as error:
                why = f"{why}; nor can it go into '{reader}', which reads it: {error}"
        self.left.append(Left(name, why))

    def _affine(self, node: Node) -> _Affine:
        """What a BatchNormalization computes. Raises _Unfit where that is not one function per channel."""
        if node.int("training_mode", 0) or (self.seen.opset < 7 and not node.int("is_test", 0)) or any(node.outputs[1:]):
            raise _Unfit("it normalises by the statistics of the batch (training mode)")
        if not node.int("spatial", 1):
            raise _Unfit("it normalises every position by itself (spatial = 0)")
        computed = next((name for name in node.inputs[1:5] if name not in self.seen.constants), None)
        if computed is not None:
            raise _Unfit(f"'{computed}' is computed, not an initializer")
        gamma, beta, mean, variance = (exact_values(name, self.seen) for name in node.inputs[1:5])
        radicand = variance + float(np.float32(node.attrs.get("epsilon", 1e-5)))
        if not bool((radicand > 0).all()):
            raise _Unfit(f"{int((~(radicand > 0)).sum())} of its variances are not above −ε")
        factor = gamma / np.sqrt(radicand)
        shift = beta - factor * mean
        if not bool(np.isfinite(factor).all() and np.isfinite(shift).all()):
            raise _Unfit("its values are not finite")
        return _Affine(factor, shift)

    def _only_reader(self, tensor: str) -> str | None:
        uses = self.readers.get(tensor, [])
        return uses[0][0] if len(uses) == 1 and tensor not in self.seen.outputs else None

    # --- behind a convolution ---

    def _behind(self, norm: Node) -> None:
        """All BatchNormalizations behind the users of one weight go into it, or none."""
        into = self._maker(norm)
        users = self._users(into.inputs[1])
        pairs = [(into, norm)] if len(users) == 1 else [(self.nodes[user], self._norm_behind(user, into.inputs[1])) for user in users]
        affines = [self._affine(other) for _, other in pairs]
        if any(not np.array_equal(affines[0].factor, other.factor) for other in affines):
            raise _Unfit(f"the weight '{into.inputs[1]}' is shared with {_others(users, into.name)}, behind which the scale is another")
        weight = self._scaled(into, into.inputs[1], affines[0].factor, axis=_output_axis(into))
        biases = [self._shifted(conv, affine) for (conv, _), affine in zip(pairs, affines, strict=True)]
        self.values[into.inputs[1]] = weight
        for (conv, other), bias in zip(pairs, biases, strict=True):
            self._absorb(conv, other, bias)

    def _maker(self, norm: Node) -> Node:
        """The convolution or matrix product whose output the BatchNormalization alone reads."""
        tensor = norm.inputs[0]
        if tensor not in self.producer:
            raise _Unfit(f"it stands behind the input '{tensor}'")
        node = self.nodes[self.producer[tensor]]
        if node.op not in (*CONVOLUTIONS, "Gemm"):
            raise _Unfit(f"it stands behind '{node.name}' ({node.op}), which has no weight to take it")
        if self._only_reader(tensor) is None:
            raise _Unfit(f"'{tensor}' before it is also {'an output' if tensor in self.seen.outputs else 'read elsewhere'}")
        self._require_constant(node)
        return node

    def _require_constant(self, node: Node) -> None:
        for tensor in node.inputs[1:3]:
            if tensor and tensor not in self.seen.constants and tensor not in self.values:
                raise _Unfit(f"'{tensor}' of '{node.name}' is computed, not an initializer")

    def _users(self, weight: str) -> list[str]:
        """The nodes that read a weight, all of them as a weight."""
        uses = self.readers[weight]
        other = next((reader for reader, slot in uses if slot != 1 or self.nodes[reader].op not in (*CONVOLUTIONS, "Gemm")), None)
        if other is not None or weight in self.seen.outputs:
            raise _Unfit(f"the weight '{weight}' is also {'an output' if other is None else f'read by {other!r}'}")
        return [reader for reader, _ in uses]

    def _norm_behind(self, user: str, weight: str) -> Node:
        reader = self._only_reader(self.nodes[user].outputs[0])
        if reader is None or self.nodes[reader].op != "BatchNormalization":
            raise _Unfit(f"the weight '{weight}' is shared with '{user}', behind which no BatchNormalization stands alone")
        self._require_constant(self.nodes[user])
        return self.nodes[reader]

    def _scaled(self, node: Node, weight: str, factor: Reals, *, axis: int) -> Reals:
        """The weight with each channel of the axis multiplied; axis 1 of a grouped transposed convolution counts within a group."""
        values = self._value(weight)
        if node.op == "ConvTranspose" and axis == 1:
            groups = node.int("group", 1)
            split = values.reshape(groups, values.shape[0] // groups, *values.shape[1:])
            spread = factor.reshape(groups, 1, values.shape[1], *(1 for _ in values.shape[2:]))
            scaled = (split * spread).reshape(values.shape)
        else:
            scaled = values * factor.reshape(tuple(-1 if k == axis else 1 for k in range(values.ndim)))
        _rounded(scaled, self._dtype(weight))
        return scaled

    def _value(self, name: str) -> Reals:
        return self.values[name] if name in self.values else exact_values(name, self.seen)

    def _shifted(self, conv: Node, affine: _Affine) -> Reals:
        """f·b + s [C]."""
        bias = affine.factor * self._bias(conv, affine.factor.size) + affine.shift
        _rounded(bias, self._dtype(conv.inputs[1]))
        return bias

    def _bias(self, node: Node, channels: int) -> Reals:
        """The bias as it is added [C]; of a Gemm β·C, where that is one row. Raises _Unfit where it differs by row."""
        if not node.input(2):
            return np.zeros(channels)
        values = self._value(node.inputs[2])
        if node.op == "Gemm":
            if values.ndim > 1 and values.shape[0] != 1:
                raise _Unfit(f"'{node.inputs[2]}' of '{node.name}' adds another value to each row")
            values = values.reshape(-1) * float(np.float32(node.attrs.get("beta", 1.0)))
        return np.broadcast_to(values, (channels,))

    def _absorb(self, conv: Node, norm: Node, bias: Reals) -> None:
        """The convolution makes what the BatchNormalization made."""
        self._set_bias(replace(conv, outputs=norm.outputs[:1]), bias)
        self._remove(norm)
        self.producer[norm.outputs[0]] = conv.name
        self.folded.append((norm.name, conv.name))

    def _set_bias(self, node: Node, bias: Reals) -> None:
        name = node.input(2)
        if not name or len(self.readers[name]) > 1 or name in self.seen.outputs or self._value(name).shape != bias.shape:
            name = self._new_bias(node)
        if node.input(2) and name != node.inputs[2]:
            self.readers[node.inputs[2]].remove((node.name, 2))
        self.readers[name] = [(node.name, 2)]
        attrs = {key: value for key, value in node.attrs.items() if not (node.op == "Gemm" and key == "beta")}
        self.nodes[node.name] = replace(node, inputs=(*node.inputs[:2], name), attrs=attrs)
        self.values[name] = bias

    def _new_bias(self, node: Node) -> str:
        """`stem.bias` beside `stem.weight`, else named after the node."""
        stem = node.inputs[1].removesuffix(".weight") if node.inputs[1].endswith(".weight") else node.name
        taken = (self.seen.constants, self.seen.producer, self.seen.inputs, self.values)
        return unique(f"{stem}.bias", lambda name: any(name in names for names in taken))

    def _remove(self, norm: Node) -> None:
        del self.nodes[norm.name]
        for slot, tensor in enumerate(norm.inputs):
            if tensor:
                self.readers[tensor].remove((norm.name, slot))

    # --- before a convolution ---

    def _before(self, norm: Node, affine: _Affine, into: Node) -> None:
        """The BatchNormalization goes into the node that reads it."""
        if self.readers[norm.outputs[0]][0][1] != 0:
            raise _Unfit("it is its weight")
        self._require_constant(into)
        if len(self._users(into.inputs[1])) > 1:
            raise _Unfit(f"its weight '{into.inputs[1]}' is shared")
        if into.op == "ConvTranspose":
            raise _Unfit("at the border of a transposed convolution fewer of its taps see the shift")
        if into.op == "Conv" and _pads(into) and affine.shift.any():
            raise _Unfit("it pads with zeros, which the shift would have to reach")
        weight, bias = self._gemm(into, affine) if into.op == "Gemm" else self._conv(into, affine)
        _rounded(bias, self._dtype(into.inputs[1]))
        self._remove(norm)
        self.readers[norm.inputs[0]].append((into.name, 0))
        self.values[into.inputs[1]] = weight
        node = replace(into, inputs=(norm.inputs[0], *into.inputs[1:]))
        self.nodes[into.name] = node
        if into.input(2) or bias.any():
            self._set_bias(node, bias)
        self.folded.append((norm.name, into.name))

    def _conv(self, into: Node, affine: _Affine) -> tuple[Reals, Reals]:
        """W·f on the input channels of each group, and b + Σ W·s over channels and taps."""
        values = self._value(into.inputs[1])
        rows = np.repeat(np.arange(into.int("group", 1)), values.shape[0] // into.int("group", 1))
        taps = (1,) * (values.ndim - 2)
        factor = affine.factor.reshape(-1, values.shape[1])[rows].reshape(*values.shape[:2], *taps)
        shift = affine.shift.reshape(-1, values.shape[1])[rows].reshape(*values.shape[:2], *taps)
        weight = values * factor
        _rounded(weight, self._dtype(into.inputs[1]))
        return weight, self._bias(into, values.shape[0]) + (values * shift).reshape(values.shape[0], -1).sum(axis=1)

    def _gemm(self, into: Node, affine: _Affine) -> tuple[Reals, Reals]:
        """α·x·W + β·C with x = f·x' + s: W·f on the rows that x meets, and β·C + α·s·W."""
        if into.int("transA", 0):
            raise _Unfit("it transposes what the BatchNormalization makes")
        values = self._value(into.inputs[1])
        inputs_first = values.T if into.int("transB", 0) else values
        weight = self._scaled(into, into.inputs[1], affine.factor, axis=1 if into.int("transB", 0) else 0)
        alpha = float(np.float32(into.attrs.get("alpha", 1.0)))
        return weight, self._bias(into, inputs_first.shape[1]) + alpha * (affine.shift @ inputs_first)


def _output_axis(node: Node) -> int:
    """The axis of a weight that counts output channels (of a grouped ConvTranspose those of one group)."""
    if node.op == "Gemm":
        return 0 if node.int("transB", 0) else 1
    return 1 if node.op == "ConvTranspose" else 0


def _pads(node: Node) -> bool:
    return node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or any(node.ints("pads", ()))


def _others(users: Sequence[str], but: str) -> str:
    others = [user for user in users if user != but]
    return f"'{others[0]}'" + (f" and {len(others) - 1} more" if len(others) > 1 else "")


def exact_values(name: str, seen: View) -> Reals:
    """The values of a constant in double precision."""
    return np.asarray(seen.values(name), np.float64)


def dtype_of(name: str, seen: View) -> DType:
    """The type of a constant."""
    dtype: DType = np.dtype(seen.constants[name].dtype)
    return dtype


def _rounded(values: Reals, dtype: DType) -> Array:
    """The values in the type they are stored in. Raises _Unfit where one is too large for it."""
    with np.errstate(over="ignore"):
        rounded: Array = values.astype(dtype)
    if not np.isfinite(np.asarray(rounded, np.float64)).all():
        raise _Unfit(f"a folded value would not fit into {dtype}")
    return rounded


def output_channels(node: Node, seen: View) -> int:
    """The channels that a convolution makes."""
    shape = seen.constants[node.inputs[1]].shape
    return int(shape[0]) if node.op == "Conv" else int(shape[1]) * node.int("group", 1)


def stored_values(values: Reals, dtype: DType, name: str) -> Array:
    """The values in the type that the graph stores them in. Raises RefusedModel where that is too small for them."""
    try:
        return _rounded(values, dtype)
    except _Unfit as error:
        raise RefusedModel(f"the statistics of '{name}' do not fit into its type, {dtype}; --only leaves it out") from error
