"""Writes a head: nodes and their initializers, node by node, every one named for a reader (`head.aspp1.conv`,
`head.aspp1.conv.weight`).

Random values come from the generator it is given; nothing is read from or written to a graph before `assembled`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from passes.errors import UserError
from passes.graph.tensors import printed
from passes.graph.view import Node, unique
from passes.heads.tap import Tap

EPSILON = 1e-5
MAX_WEIGHT = 1 << 28  # numbers
OLDEST_OPSET = 11  # Clip and Resize with their bounds and sizes as inputs


@dataclass(frozen=True)
class FeatureMap:
    """A tensor [N, channels, h, w]; `space` is (h, w) at the analysed image size."""

    tensor: str
    channels: int
    space: tuple[int, int]


@dataclass(frozen=True)
class Weights:
    """A convolution's initializers: weight [out, in / group, k, k] and bias [out] ('' where there is none)."""

    weight: str
    bias: str
    shape: tuple[int, int, int, int]


class Writer:
    """The head as far as it is written; every method adds to it and returns what the new node computes.

    `computed` says that sizes must be computed when the network runs, as the image may have another; `taken` are the
    names of the seed.
    """

    def __init__(
        self, opset: int, dtype: str, *, rng: np.random.Generator, computed: bool, taken: frozenset[str]
    ) -> None:
        if opset < OLDEST_OPSET:
            raise UserError(
                f"heads are written for opset {OLDEST_OPSET} and newer, this model has {opset}; convert it "
                "first (onnx.version_converter)"
            )
        self.opset = opset
        self.dtype = np.dtype(dtype)
        self.rng = rng
        self.computed = computed
        self.nodes: list[Node] = []
        self.constants: dict[str, npt.NDArray[np.generic]] = {}
        self._names = set(taken)

    # --- names, constants, nodes ---

    def _own(self, name: str) -> str:
        name = unique(f"head.{name}", self._names.__contains__)
        self._names.add(name)
        return name

    def constant(self, name: str, values: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> str:
        """An initializer, of the head's element type unless another is named."""
        name = self._own(name)
        self.constants[name] = np.asarray(values, dtype or self.dtype)
        return name

    def sizes(self, name: str, values: Sequence[int]) -> str:
        """An initializer that holds sizes or positions."""
        return self.constant(name, values, np.int64)

    def node(self, op: str, name: str, inputs: Sequence[str], *, output: str = "", **attributes: object) -> str:
        """Any operator with one output, which has the node's name unless `output` says another."""
        name = self._own(name)
        self.nodes.append(Node(name, op, tuple(inputs), (output or name,), attributes))
        return output or name

    def tapped(self, tap: Tap) -> FeatureMap:
        """The tap as a map with its channels on axis 1."""
        tensor = tap.tensor if tap.axis == 1 else self.node("Transpose", "tap", [tap.tensor], perm=[0, 3, 1, 2])
        return FeatureMap(tensor, tap.channels, tap.space)

    # --- convolutions ---

    def weights(self, name: str, shape: tuple[int, int, int, int], *, std: float, bias: float | None = None) -> Weights:
        """Initial values: weight ~ N(0, std²), the bias constant, none where it is None. Raises UserError for one too
        large.
        """
        if math.prod(shape) > MAX_WEIGHT:
            sizes = printed(shape)
            raise UserError(
                f"'{name}' of this head would be a weight of {sizes} numbers; ask for fewer classes or a smaller width"
            )
        weight = self.constant(f"{name}.weight", std * self.rng.standard_normal(shape))
        return Weights(weight, "" if bias is None else self.constant(f"{name}.bias", np.full(shape[0], bias)), shape)

    def convolve(
        self, x: FeatureMap, weights: Weights, name: str, *, stride: int = 1, dilation: int = 1, output: str = ""
    ) -> FeatureMap:
        """A convolution with these weights, padded so that the extents are divided by the stride, rounding up."""
        out, inner, kernel, _ = weights.shape
        attributes = {
            "kernel_shape": [kernel] * 2,
            "strides": [stride] * 2,
            "pads": [dilation * (kernel // 2)] * 4,
            "dilations": [dilation] * 2,
            "group": x.channels // inner,
        }
        inputs = [x.tensor, weights.weight, *([weights.bias] if weights.bias else [])]
        space = (-(-x.space[0] // stride), -(-x.space[1] // stride))
        return FeatureMap(self.node("Conv", name, inputs, output=output, **attributes), out, space)

    def conv(
        self, x: FeatureMap, name: str, width: int, kernel: int = 1, *, stride: int = 1, bias: bool = False
    ) -> FeatureMap:
        """A convolution that an activation follows, without one: He-initialised, std = √(2 / fan-in)."""
        shape = (width, x.channels, kernel, kernel)
        weights = self.weights(name, shape, std=relu_std(shape), bias=0.0 if bias else None)
        return self.convolve(x, weights, name, stride=stride)

    def depthwise(self, x: FeatureMap, name: str, *, stride: int = 1, dilation: int = 1) -> FeatureMap:
        """A 3×3 convolution, each channel by itself, that an activation follows."""
        shape = (x.channels, 1, 3, 3)
        return self.convolve(x, self.weights(name, shape, std=relu_std(shape)), name, stride=stride, dilation=dilation)

    # --- what follows them ---

    def bn(self, x: FeatureMap, name: str, *, epsilon: float = EPSILON) -> FeatureMap:
        """A BatchNormalization that has seen nothing yet: γ = 1, β = 0, μ = 0, σ² = 1."""
        values = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
        names = [self.constant(f"{name}.{part}", np.full(x.channels, value)) for part, value in values.items()]
        return FeatureMap(
            self.node("BatchNormalization", name, [x.tensor, *names], epsilon=epsilon), x.channels, x.space
        )

    def relu(self, x: FeatureMap, name: str) -> FeatureMap:
        """max(x, 0)."""
        return FeatureMap(self.node("Relu", name, [x.tensor]), x.channels, x.space)

    def relu6(self, x: FeatureMap, name: str) -> FeatureMap:
        """min(max(x, 0), 6)."""
        bounds = [self.constant(f"{name}.{bound}", value) for bound, value in (("min", 0.0), ("max", 6.0))]
        return FeatureMap(self.node("Clip", name, [x.tensor, *bounds]), x.channels, x.space)

    # --- extents ---

    def resized(self, x: FeatureMap, like: FeatureMap, name: str) -> FeatureMap:
        """x [N, c, …] at the extents of another map, by the nearest value.

        By a factor where that is whole and the image fixed; else, and where x is one position, which no factor could
        spread over another image, to the extents that the other map turns out to have.
        """
        factors = (like.space[0] / x.space[0], like.space[1] / x.space[1])
        modes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        nothing = "" if self.opset >= 13 else self.constant(f"{name}.none", np.zeros(0), np.float32)
        if not self.computed and x.space != (1, 1) and all(factor.is_integer() for factor in factors):
            scales = self.constant(f"{name}.scales", [1.0, 1.0, *factors], np.float32)
            made = self.node("Resize", name, [x.tensor, nothing, scales], **modes)
        else:
            own = self._part_of_shape(x, f"{name}.own", 0, 2)
            target = self._part_of_shape(like, f"{name}.like", 2, 4)
            sizes = self.node("Concat", f"{name}.sizes", [own, target], axis=0)
            made = self.node("Resize", name, [x.tensor, nothing, nothing, sizes], **modes)
        return FeatureMap(made, x.channels, like.space)

    def _part_of_shape(self, x: FeatureMap, name: str, start: int, end: int) -> str:
        shape = self.node("Shape", f"{name}_shape", [x.tensor])
        bounds = [
            self.sizes(f"{name}_{word}", [value]) for word, value in (("start", start), ("end", end), ("axis", 0))
        ]
        return self.node("Slice", name, [shape, *bounds])


def relu_std(shape: Sequence[int]) -> float:
    """He et al. 2015, eq. 10: √(2 / fan-in) keeps the variance through a rectifier."""
    return math.sqrt(2 / math.prod(shape[1:]))


def linear_std(shape: Sequence[int]) -> float:
    """√(1 / fan-in) keeps the variance where no rectifier follows."""
    return math.sqrt(1 / math.prod(shape[1:]))


def initializers(constants: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, gs.Constant]:
    """The constants as onnx-graphsurgeon has them."""
    return {name: gs.Constant(name, array) for name, array in constants.items()}
