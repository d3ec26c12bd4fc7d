"""BatchNormalization folded into the convolution beside it, and put behind convolutions again; the function stays the
same.

With f = γ/√(σ²+ε) and s = β − fμ a BatchNormalization is y = fx + s, per channel:

    behind a convolution    f(Wx + b) + s  =  (fW)x + (fb + s)
    before one              W(fx + s) + b  =  (Wf)x + (Ws + b), where no padding puts zeros in the place of s
    put back                Wx + b  =  γ(Wx − μ)/√(σ²+ε) + β  with γ = √(σ²+ε), β = m, μ = m − b:
                            m and σ² are the statistics of Wx + b

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


# --- folding ------------------------------------------------------------------------------------


def fold(graph: gs.Graph | Normalised, *, sizes: Mapping[str, Shape] | None = None) -> Folded:
    """Every BatchNormalization that can be is part of the convolution or matrix product beside it.

    The result is in normal form. A tensor that is still there has its name and its values; what a BatchNormalization
    made is now made by the convolution. One that stays is listed with the reason. sizes: shapes for inputs with free
    dimensions.
    """
    normal = in_normal_form(graph, sizes)
    work = _begun(normal.seen)
    for node in work.seen.nodes:
        if node.op == "BatchNormalization" and node.name in work.nodes:
            _fold(work, node.name)
    return Folded(
        build(in_order(list(work.nodes.values())), _constants(work), normal.given), tuple(work.folded), tuple(work.left)
    )


@dataclass(frozen=True)
class _Affine:
    """y = factor · x + shift, per channel [C], in float64."""

    factor: Reals
    shift: Reals


class _Unfit(Exception):
    """Why a BatchNormalization cannot be folded here."""


@dataclass(frozen=True)
class _Folding:
    """The graph being folded, which changes: nodes by name, who reads and who makes each tensor, and the new values in
    float64.
    """

    seen: View
    nodes: dict[str, Node]
    producer: dict[str, str]
    readers: dict[str, list[tuple[str, int]]]
    values: dict[str, Reals]
    folded: list[tuple[str, str]]
    left: list[Left]


def _begun(seen: View) -> _Folding:
    readers = {name: list(uses) for name, uses in seen.readers.items()}
    return _Folding(seen, dict(seen.by_name), dict(seen.producer), readers, values={}, folded=[], left=[])


def _constants(work: _Folding) -> dict[str, gs.Constant]:
    """The constants of the seed, those that changed in their old type."""
    changed = {
        name: gs.Constant(name, _rounded(values, _stored_type(work, name))) for name, values in work.values.items()
    }
    return {**work.seen.constants, **changed}


def _stored_type(work: _Folding, name: str) -> DType:
    """The type of a constant; a bias that is new has that of its weight."""
    if name not in work.seen.constants:
        reader, _ = work.readers[name][0]
        name = work.nodes[reader].inputs[1]
    return dtype_of(name, work.seen)


def _fold(work: _Folding, name: str) -> None:
    """The BatchNormalization goes into the node behind it or before it, or is left with the reason."""
    try:
        norm = _affine_of(work, work.nodes[name])
    except _Unfit as error:
        work.left.append(Left(name, str(error)))
        return
    try:
        _behind(work, work.nodes[name])
        return
    except _Unfit as error:
        why = str(error)
    reader = _only_reader(work, work.nodes[name].outputs[0])
    if reader is not None and work.nodes[reader].op in (*CONVOLUTIONS, "Gemm"):
        try:
            _before(work, work.nodes[name], norm, work.nodes[reader])
            return
        except _Unfit as error:
            why = f"{why}; nor can it go into '{reader}', which reads it: {error}"
    work.left.append(Left(name, why))


def _affine_of(work: _Folding, node: Node) -> _Affine:
    """What a BatchNormalization computes. Raises _Unfit where that is not one function per channel."""
    if node.int("training_mode", 0) or (work.seen.opset < 7 and not node.int("is_test", 0)) or any(node.outputs[1:]):
        raise _Unfit("it normalises by the statistics of the batch (training mode)")
    if not node.int("spatial", 1):
        raise _Unfit("it normalises every position by itself (spatial = 0)")
    computed = next((name for name in node.inputs[1:5] if name not in work.seen.constants), None)
    if computed is not None:
        raise _Unfit(f"'{computed}' is computed, not an initializer")
    gamma, beta, mean, variance = (exact_values(name, work.seen) for name in node.inputs[1:5])
    radicand = variance + float(np.float32(node.attrs.get("epsilon", 1e-5)))
    if not bool((radicand > 0).all()):
        raise _Unfit(f"{int((~(radicand > 0)).sum())} of its variances are not above −ε")
    factor = gamma / np.sqrt(radicand)
    shift = beta - factor * mean
    if not bool(np.isfinite(factor).all() and np.isfinite(shift).all()):
        raise _Unfit("its values are not finite")
    return _Affine(factor, shift)


def _only_reader(work: _Folding, tensor: str) -> str | None:
    uses = work.readers.get(tensor, [])
    return uses[0][0] if len(uses) == 1 and tensor not in work.seen.outputs else None


# --- behind a convolution ---


def _behind(work: _Folding, norm: Node) -> None:
    """All BatchNormalizations behind the users of one weight go into it, or none."""
    into = _maker_of(work, norm)
    users = _users_of(work, into.inputs[1])
    pairs = (
        [(into, norm)]
        if len(users) == 1
        else [(work.nodes[user], _norm_behind(work, user, into.inputs[1])) for user in users]
    )
    affines = [_affine_of(work, other) for _, other in pairs]
    if any(not np.array_equal(affines[0].factor, other.factor) for other in affines):
        raise _Unfit(
            f"the weight '{into.inputs[1]}' is shared with {_others(users, into.name)}, behind which the scale "
            "is another"
        )
    weight = _scaled(work, into, into.inputs[1], affines[0].factor, axis=_output_axis(into))
    biases = [_shifted(work, conv, affine) for (conv, _), affine in zip(pairs, affines, strict=True)]
    work.values[into.inputs[1]] = weight
    for (conv, other), bias in zip(pairs, biases, strict=True):
        _absorb(work, conv, other, bias)


def _maker_of(work: _Folding, norm: Node) -> Node:
    """The convolution or matrix product whose output the BatchNormalization alone reads."""
    tensor = norm.inputs[0]
    if tensor not in work.producer:
        raise _Unfit(f"it stands behind the input '{tensor}'")
    node = work.nodes[work.producer[tensor]]
    if node.op not in (*CONVOLUTIONS, "Gemm"):
        raise _Unfit(f"it stands behind '{node.name}' ({node.op}), which has no weight to take it")
    if _only_reader(work, tensor) is None:
        raise _Unfit(f"'{tensor}' before it is also {'an output' if tensor in work.seen.outputs else 'read elsewhere'}")
    _require_constant(work, node)
    return node


def _require_constant(work: _Folding, node: Node) -> None:
    for tensor in node.inputs[1:3]:
        if tensor and tensor not in work.seen.constants and tensor not in work.values:
            raise _Unfit(f"'{tensor}' of '{node.name}' is computed, not an initializer")


def _users_of(work: _Folding, weight: str) -> list[str]:
    """The nodes that read a weight, all of them as a weight."""
    uses = work.readers[weight]
    other = next(
        (reader for reader, slot in uses if slot != 1 or work.nodes[reader].op not in (*CONVOLUTIONS, "Gemm")), None
    )
    if other is not None or weight in work.seen.outputs:
        raise _Unfit(f"the weight '{weight}' is also {'an output' if other is None else f'read by {other!r}'}")
    return [reader for reader, _ in uses]


def _norm_behind(work: _Folding, user: str, weight: str) -> Node:
    reader = _only_reader(work, work.nodes[user].outputs[0])
    if reader is None or work.nodes[reader].op != "BatchNormalization":
        raise _Unfit(f"the weight '{weight}' is shared with '{user}', behind which no BatchNormalization stands alone")
    _require_constant(work, work.nodes[user])
    return work.nodes[reader]


def _scaled(work: _Folding, node: Node, weight: str, factor: Reals, *, axis: int) -> Reals:
    """The weight with each channel of the axis multiplied; axis 1 of a grouped transposed convolution counts within a
    group.
    """
    values = _value_of(work, weight)
    if node.op == "ConvTranspose" and axis == 1:
        groups = node.int("group", 1)
        split = values.reshape(groups, values.shape[0] // groups, *values.shape[1:])
        spread = factor.reshape(groups, 1, values.shape[1], *(1 for _ in values.shape[2:]))
        scaled = (split * spread).reshape(values.shape)
    else:
        scaled = values * factor.reshape(tuple(-1 if k == axis else 1 for k in range(values.ndim)))
    _rounded(scaled, _stored_type(work, weight))
    return scaled


def _value_of(work: _Folding, name: str) -> Reals:
    return work.values[name] if name in work.values else exact_values(name, work.seen)


def _shifted(work: _Folding, conv: Node, affine: _Affine) -> Reals:
    """f·b + s [C]."""
    bias = affine.factor * _bias_of(work, conv, affine.factor.size) + affine.shift
    _rounded(bias, _stored_type(work, conv.inputs[1]))
    return bias


def _bias_of(work: _Folding, node: Node, channels: int) -> Reals:
    """The bias as it is added [C]; of a Gemm β·C, where that is one row. Raises _Unfit where it differs by row."""
    if not node.input(2):
        return np.zeros(channels)
    values = _value_of(work, node.inputs[2])
    if node.op == "Gemm":
        if values.ndim > 1 and values.shape[0] != 1:
            raise _Unfit(f"'{node.inputs[2]}' of '{node.name}' adds another value to each row")
        values = values.reshape(-1) * float(np.float32(node.attrs.get("beta", 1.0)))
    return np.broadcast_to(values, (channels,))


def _absorb(work: _Folding, conv: Node, norm: Node, bias: Reals) -> None:
    """The convolution makes what the BatchNormalization made."""
    _set_bias(work, replace(conv, outputs=norm.outputs[:1]), bias)
    _remove(work, norm)
    work.producer[norm.outputs[0]] = conv.name
    work.folded.append((norm.name, conv.name))


def _set_bias(work: _Folding, node: Node, bias: Reals) -> None:
    name = node.input(2)
    if (
        not name
        or len(work.readers[name]) > 1
        or name in work.seen.outputs
        or _value_of(work, name).shape != bias.shape
    ):
        name = _new_bias(work, node)
    if node.input(2) and name != node.inputs[2]:
        work.readers[node.inputs[2]].remove((node.name, 2))
    work.readers[name] = [(node.name, 2)]
    attrs = {key: value for key, value in node.attrs.items() if not (node.op == "Gemm" and key == "beta")}
    work.nodes[node.name] = replace(node, inputs=(*node.inputs[:2], name), attrs=attrs)
    work.values[name] = bias


def _new_bias(work: _Folding, node: Node) -> str:
    """`stem.bias` beside `stem.weight`, else named after the node."""
    stem = node.inputs[1].removesuffix(".weight") if node.inputs[1].endswith(".weight") else node.name
    taken = (work.seen.constants, work.seen.producer, work.seen.inputs, work.values)
    return unique(f"{stem}.bias", lambda name: any(name in names for names in taken))


def _remove(work: _Folding, norm: Node) -> None:
    del work.nodes[norm.name]
    for slot, tensor in enumerate(norm.inputs):
        if tensor:
            work.readers[tensor].remove((norm.name, slot))


# --- before a convolution ---


def _before(work: _Folding, norm: Node, affine: _Affine, into: Node) -> None:
    """The BatchNormalization goes into the node that reads it."""
    if work.readers[norm.outputs[0]][0][1] != 0:
        raise _Unfit("it is its weight")
    _require_constant(work, into)
    if len(_users_of(work, into.inputs[1])) > 1:
        raise _Unfit(f"its weight '{into.inputs[1]}' is shared")
    if into.op == "ConvTranspose":
        raise _Unfit("at the border of a transposed convolution fewer of its taps see the shift")
    if into.op == "Conv" and _pads(into) and affine.shift.any():
        raise _Unfit("it pads with zeros, which the shift would have to reach")
    weight, bias = _into_gemm(work, into, affine) if into.op == "Gemm" else _into_conv(work, into, affine)
    _rounded(bias, _stored_type(work, into.inputs[1]))
    _remove(work, norm)
    work.readers[norm.inputs[0]].append((into.name, 0))
    work.values[into.inputs[1]] = weight
    node = replace(into, inputs=(norm.inputs[0], *into.inputs[1:]))
    work.nodes[into.name] = node
    if into.input(2) or bias.any():
        _set_bias(work, node, bias)
    work.folded.append((norm.name, into.name))


def _into_conv(work: _Folding, into: Node, affine: _Affine) -> tuple[Reals, Reals]:
    """W·f on the input channels of each group, and b + Σ W·s over channels and taps."""
    values = _value_of(work, into.inputs[1])
    rows = np.repeat(np.arange(into.int("group", 1)), values.shape[0] // into.int("group", 1))
    taps = (1,) * (values.ndim - 2)
    factor = affine.factor.reshape(-1, values.shape[1])[rows].reshape(*values.shape[:2], *taps)
    shift = affine.shift.reshape(-1, values.shape[1])[rows].reshape(*values.shape[:2], *taps)
    weight = values * factor
    _rounded(weight, _stored_type(work, into.inputs[1]))
    return weight, _bias_of(work, into, values.shape[0]) + (values * shift).reshape(values.shape[0], -1).sum(axis=1)


def _into_gemm(work: _Folding, into: Node, affine: _Affine) -> tuple[Reals, Reals]:
    """α·x·W + β·C with x = f·x' + s: W·f on the rows that x meets, and β·C + α·s·W."""
    if into.int("transA", 0):
        raise _Unfit("it transposes what the BatchNormalization makes")
    values = _value_of(work, into.inputs[1])
    inputs_first = values.T if into.int("transB", 0) else values
    weight = _scaled(work, into, into.inputs[1], affine.factor, axis=1 if into.int("transB", 0) else 0)
    alpha = float(np.float32(into.attrs.get("alpha", 1.0)))
    return weight, _bias_of(work, into, inputs_first.shape[1]) + alpha * (affine.shift @ inputs_first)


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
        raise RefusedModel(
            f"the statistics of '{name}' do not fit into its type, {dtype}; --only leaves it out"
        ) from error
