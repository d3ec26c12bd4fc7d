"""A BatchNorm behind convolutions that have none, the function unchanged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
import onnx_graphsurgeon as gs

from passes.batchnorm.fold import (
    EPSILON,
    MIXED,
    PARTS,
    Array,
    Left,
    Reals,
    dtype_of,
    exact_values,
    output_channels,
    stored_values,
)
from passes.errors import RefusedModel, UserError
from passes.graph.learnt import dense_weights
from passes.graph.normal import Normalised
from passes.graph.normalise import in_normal_form
from passes.graph.operators import CONSTANTS, CONVOLUTIONS, having, of
from passes.graph.shapes import infer
from passes.graph.tensors import Shape, Shapes
from passes.graph.view import Node, View, build, unique


@dataclass(frozen=True)
class Unfolded:
    """The graph after unfolding: (BatchNormalization, the convolution before it) in order."""

    graph: gs.Graph
    added: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Moments:
    """Mean and (population) variance [C] of each channel of a convolution's output, its bias included."""

    mean: Reals
    variance: Reals


@dataclass(frozen=True)
class UnfoldPlaces:
    """Convolutions that can have a BatchNormalization behind them, each with the tensor to measure; and the others,
    with the reason.
    """

    tensors: Mapping[str, str]
    left: tuple[Left, ...]


# --- unfolding ----------------------------------------------------------------------------------

PASSING = having(
    lambda row: row.adds or row.keeps_values or (row.form == "pooling" and CONSTANTS in row.has)
)  # fmt: skip
"""What a normalisation behind makes up for as if it stood before: sums, elements in another order, the mean or largest
of neighbours.
"""


def places(
    graph: gs.Graph | Normalised, *, only: Sequence[str] = (), sizes: Mapping[str, Shape] | None = None
) -> UnfoldPlaces:
    """The convolutions behind which a BatchNormalization makes sense, in order; `only` patterns (* is any text) choose
    among them.

    Left alone: one whose output is normalised anyway; the last ones (no convolution or matrix product comes after them:
    classifiers, box and mask heads); one that works on pooled values (squeeze-excite: a batch gives it few values to
    normalise by); one of a single channel; one whose weight is shared (each use would get statistics of its own, and
    could not be folded again) or computed. Raises UserError where a pattern matches no convolution.
    """
    seen = in_normal_form(graph, sizes).seen
    names = [node.name for node in seen.nodes if node.op in CONVOLUTIONS]
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"--only '{pattern}' matches none of the {len(names)} convolutions; 'fnatool inspect' shows their names"
            )
    reader = _Placing(seen, infer(seen, sizes))
    tensors: dict[str, str] = {}
    left: list[Left] = []
    for name in names:
        if only and not any(fnmatchcase(name, pattern) for pattern in only):
            continue
        why = reader.why_not(seen.by_name[name])
        if why is None:
            tensors[name] = seen.by_name[name].outputs[0]
        else:
            left.append(Left(name, why))
    return UnfoldPlaces(tensors, tuple(left))


class _Placing:
    """Questions about what is around a convolution."""

    def __init__(self, seen: View, shapes: Shapes) -> None:
        self.seen = seen
        self.shapes = shapes
        self.weighted = self._weighted_after()
        self.normalised: dict[str, bool] = {}
        for node in reversed(seen.nodes):
            for tensor in node.outputs:
                self.normalised[tensor] = self._is_normalised(tensor)

    def why_not(self, node: Node) -> str | None:
        """Why no BatchNormalization belongs behind a convolution; None where one does."""
        seen, output = self.seen, node.outputs[0]
        computed = next((name for name in node.inputs[1:3] if name and name not in seen.constants), None)
        if computed is not None:
            return f"'{computed}' is computed, not an initializer"
        if len(seen.readers[node.inputs[1]]) > 1:
            return f"its weight '{node.inputs[1]}' is shared: each use would have statistics of its own"
        if self.normalised[output]:
            return "a normalisation follows"
        if output not in self.weighted:
            return "it is a last one: no convolution or matrix product comes after it"
        if output_channels(node, seen) == 1:
            return "it has a single output channel"
        if self._pooled(node):
            return "it works on pooled values, one a channel"
        return None

    def _is_normalised(self, tensor: str) -> bool:
        """Whether every way onwards meets a normalisation before anything else of effect."""
        uses = self.seen.readers.get(tensor, ())
        if not uses or tensor in self.seen.outputs:
            return False
        for name, slot in uses:
            node = self.seen.by_name[name]
            if of(node.op).form == "normalisation" and slot == 0:
                continue
            if node.op not in PASSING or not all(self.normalised[output] for output in node.outputs if output):
                return False
        return True

    def _weighted_after(self) -> set[str]:
        """Tensors behind which some convolution or matrix product with a weight comes."""
        found: set[str] = set()
        for node in reversed(self.seen.nodes):
            if dense_weights(node, self.seen) or any(name in found for name in node.outputs):
                found.update(name for name in node.inputs if name)
        return found

    def _pooled(self, node: Node) -> bool:
        """Whether the output has no extent in space because a pooling took it, not a stride."""
        while self._extent(node.outputs[0]) == 1:
            source = next((name for name in node.inputs if name in self.seen.producer), None)
            if source is None:
                return False
            if self._extent(source) != 1 and of(node.op).form != "layout":
                return node.op not in CONVOLUTIONS
            node = self.seen.by_name[self.seen.producer[source]]
        return False

    def _extent(self, tensor: str) -> int | None:
        """How many positions of space a tensor [N, C, …] has; None where that is unknown."""
        shape = self.shapes.shapes.get(tensor)
        return None if shape is None or len(shape) < 2 else math.prod(shape[2:])


def unfold(
    graph: gs.Graph | Normalised, statistics: Mapping[str, Moments], *, sizes: Mapping[str, Shape] | None = None
) -> Unfolded:
    """Every convolution that statistics names has a BatchNormalization behind it, and the function is what it was.

    The result is in normal form; every tensor keeps its name and its values, for the BatchNormalization makes what the
    convolution made. The convolution's bias is gone: it is part of the mean. A channel that never varies has γ = √ε and
    passes on as it was. Raises UserError where a name is no convolution, RefusedModel where statistics are not finite
    or do not fit.
    """
    normal = in_normal_form(graph, sizes)
    seen = normal.seen
    _require_convolutions(statistics, seen)
    taken = {*seen.constants, *seen.producer, *seen.inputs, *seen.by_name}
    nodes: list[Node] = []
    constants = dict(seen.constants)
    added: list[tuple[str, str]] = []
    for node in seen.nodes:
        if node.name not in statistics:
            nodes.append(node)
            continue
        name = _free_name(node.name, taken)
        values = _parameters(node, statistics[node.name], seen)
        constants |= {
            f"{name}.{part}": gs.Constant(f"{name}.{part}", array) for part, array in zip(PARTS, values, strict=True)
        }
        before = f"{name}/in"
        parts = tuple(f"{name}.{part}" for part in PARTS)
        nodes.append(replace(node, inputs=node.inputs[:2], outputs=(before,)))
        nodes.append(Node(name, "BatchNormalization", (before, *parts), node.outputs, {"epsilon": EPSILON}))
        taken |= {name, before, *parts}
        added.append((name, node.name))
    return Unfolded(build(nodes, constants, normal.given), tuple(added))


def _require_convolutions(statistics: Mapping[str, Moments], seen: View) -> None:
    for name, moments in statistics.items():
        node = seen.by_name.get(name)
        if node is None or node.op not in CONVOLUTIONS:
            raise UserError(f"there are statistics for '{name}', which is no convolution of this graph")
        if any(tensor and tensor not in seen.constants for tensor in node.inputs[1:3]):
            raise UserError(f"there are statistics for '{name}', whose weight or bias is computed")
        channels = output_channels(node, seen)
        if moments.mean.shape != (channels,) or moments.variance.shape != (channels,):
            raise RefusedModel(f"the statistics of '{name}' are for {moments.mean.shape} channels, it has {channels}")
        if not (
            np.isfinite(moments.mean).all() and np.isfinite(moments.variance).all() and (moments.variance >= 0).all()
        ):
            raise RefusedModel(
                f"the output of '{name}' has no finite mean and variance on this data; is the data what the "
                "network takes?"
            )


def _free_name(conv: str, taken: set[str]) -> str:
    """`<conv>.bn`, such that its tensors' names are free too."""
    tails = ("", "/in", *(f".{part}" for part in PARTS))
    return unique(f"{conv}.bn", lambda name: any(f"{name}{tail}" in taken for tail in tails))


def _parameters(node: Node, moments: Moments, seen: View) -> tuple[Array, ...]:
    """γ, β, μ and σ², in the type of the weight, or in float32 beside float16 weights where the opset has
    BatchNormalization so.

    γ and β are computed from what the stored μ and σ² are, so that their rounding is not the function's.
    """
    dtype = dtype_of(node.inputs[1], seen)
    if dtype == np.float16 and seen.opset >= MIXED:
        dtype = np.dtype(np.float32)
    bias = exact_values(node.inputs[2], seen) if node.input(2) else np.zeros(moments.mean.shape)
    mean = stored_values(moments.mean - bias, dtype, node.name)
    variance = stored_values(moments.variance, dtype, node.name)
    gamma = stored_values(np.sqrt(variance.astype(np.float64) + float(np.float32(EPSILON))), dtype, node.name)
    beta = stored_values(mean.astype(np.float64) + bias, dtype, node.name)
    return gamma, beta, mean, variance
