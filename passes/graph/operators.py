"""What every operator is: one row each, and every set of operators elsewhere is asked of these rows.

A row says the *form* (how axes relate: element by element, a reduction, a product, …), which inputs are weights, and
what holds of the function that the operator computes from its first input, all others and the attributes being given:

    ZERO         f(0) = 0
    SLOPE        at 0 it rises, or falls, on both sides: a gradient passes there (not so for Relu, |x| and √x)
    HOMOGENEOUS  f(s·x) = s·f(x) for s ≥ 0
    IDEMPOTENT   f(f(x)) = f(x)
    CONSTANTS    a tensor of one value becomes one of the same value: f(c) = c

A row names what holds (`has`) and what depends on attributes and other inputs, or is not known (`depends`); what it
does not name does not hold. Tests show both by numbers. An operator without a row is `UNKNOWN`: nothing is known to
hold of it. To round is no change of a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Flag, auto
from functools import cached_property
from typing import Literal

Form = Literal[
    "unary",  # element by element
    "n-ary",  # element by element, of operands that broadcast against each other
    "convolution",  # weight [C_out, C_in / group, …]
    "transposed convolution",  # weight [C_in, C_out / group, …]
    "product",  # of matrices
    "pooling",  # a window that slides over space
    "global pooling",
    "normalisation",  # by statistics
    "local response",  # by neighbouring channels
    "softmax",  # along an axis, or its like
    "reduction",  # over axes, to a number that all of them make
    "selection",  # over axes, to the position of a number
    "layout",  # the same elements in other axes
    "moving",  # elements picked, repeated, cut and joined
    "resampling",
    "measuring",  # numbers of how large a tensor is
    "filling",  # a tensor made of numbers that say its size
    "quantisation",
    "recurrent",
    "other",  # no rule says how its axes relate
]


class Trait(Flag):
    """What may hold of the function that an operator computes (see the equations above)."""

    ZERO = auto()
    SLOPE = auto()
    HOMOGENEOUS = auto()
    IDEMPOTENT = auto()
    CONSTANTS = auto()


ZERO, SLOPE, HOMOGENEOUS, IDEMPOTENT, CONSTANTS = Trait
NONE = Trait(0)
ALL = ~NONE
LINEAR = ZERO | SLOPE | HOMOGENEOUS


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One row. Inputs are given as slots.

    `dense`: the inputs of which one has to be a weight for the operator to be a layer, which mixes channels by what it
    learnt; `bias`: its offset; `scales`: scales and offsets, one a channel; `integers`: its weights are integers.
    `every_input`: its channel rule looks at all inputs. `activation`: networks use it as one. `affine`: it scales or
    shifts its first operand by the others; `adds`: it is their sum. `joins`: any of its inputs may be data, or a tensor
    that is learnt and added, multiplied, chosen or put beside it. `aligned`: the second operand could, before version
    7, be laid along an axis of the first. `repeats`: it makes copies of elements that an operator which broadcasts
    would make by itself. `counts`: it reads numbers that may count channels. `folds`: weights are made with it, and
    evaluating it takes no more time and memory than its result suggests.
    """

    form: Form
    has: Trait
    depends: Trait = NONE
    dense: tuple[int, ...] = ()
    bias: int | None = None
    scales: tuple[int, ...] = ()
    integers: bool = False
    every_input: bool = False
    activation: bool = False
    affine: bool = False
    adds: bool = False
    joins: bool = False
    aligned: bool = False
    repeats: bool = False
    counts: bool = False
    folds: bool = False

    @cached_property
    def weights(self) -> frozenset[int]:
        """The inputs that are its weights, biases and scales."""
        return frozenset((*self.dense, *self.scales, *(() if self.bias is None else (self.bias,))))

    @property
    def elementwise(self) -> bool:
        """Whether it works element by element."""
        return self.form in ("unary", "n-ary")

    @property
    def keeps_values(self) -> bool:
        """Whether its elements are those that it reads, whatever their order becomes."""
        return self.form in ("layout", "moving") or (self.form == "unary" and CONSTANTS in self.has)

    @property
    def keeps_channels(self) -> bool:
        """Whether axis 1 of what it makes has the length, and the channels, of axis 1 of what it reads first."""
        return self.form in KEEPING or (self.form == "n-ary" and bool(self.scales))


KEEPING = ("unary", "pooling", "global pooling", "normalisation", "local response", "softmax")
UNKNOWN = Operator(form="other", has=NONE, depends=ALL)


def _unary(has: Trait, *, depends: Trait = NONE, folds: bool = False, every_input: bool = False) -> Operator:
    return Operator(form="unary", has=has, depends=depends, folds=folds, every_input=every_input)


def _activation(has: Trait, *, depends: Trait = NONE, folds: bool = False) -> Operator:
    return Operator(form="unary", has=has, depends=depends, folds=folds, activation=True)


def _logic(*, folds: bool = False) -> Operator:
    """Of bits or truth values, or to them: what holds of real functions says nothing."""
    return Operator(form="unary", has=NONE, depends=ALL, folds=folds)


def _nary(
    *, affine: bool = False, adds: bool = False, joins: bool = False, aligned: bool = False, folds: bool = True
) -> Operator:
    """What holds depends on the other operands."""
    return Operator(
        form="n-ary",
        has=NONE,
        depends=ALL,
        every_input=True,
        affine=affine,
        adds=adds,
        joins=joins or affine,
        aligned=aligned,
        folds=folds,
    )


def _reduction(has: Trait) -> Operator:
    return Operator(form="reduction", has=has, folds=True)


def _layout() -> Operator:
    return Operator(form="layout", has=LINEAR | CONSTANTS, depends=IDEMPOTENT, folds=True)


def _moving(*, repeats: bool = False, counts: bool = False) -> Operator:
    return Operator(
        form="moving", has=LINEAR | CONSTANTS, depends=IDEMPOTENT, repeats=repeats, counts=counts, folds=True
    )


def _normalisation(*, scales: tuple[int, ...], folds: bool = False) -> Operator:
    return Operator(form="normalisation", has=NONE, depends=ALL, scales=scales, folds=folds)


def _other(*, dense: tuple[int, ...] = (), bias: int | None = None, integers: bool = False) -> Operator:
    return Operator(form="other", has=NONE, depends=ALL, dense=dense, bias=bias, integers=integers)


OPERATORS: Mapping[str, Operator] = {
    # activations
    "Celu": _activation(ZERO | SLOPE),
    "Clip": _activation(IDEMPOTENT, depends=ZERO | SLOPE | HOMOGENEOUS | CONSTANTS, folds=True),
    "Elu": _activation(ZERO | SLOPE),
    "Gelu": _activation(ZERO | SLOPE),
    "HardSigmoid": _activation(NONE),
    "HardSwish": _activation(ZERO | SLOPE),
    "LeakyRelu": _activation(ZERO | SLOPE | HOMOGENEOUS),
    "Mish": _activation(ZERO | SLOPE),
    "Relu": _activation(ZERO | HOMOGENEOUS | IDEMPOTENT, folds=True),
    "Selu": _activation(ZERO | SLOPE),
    "Shrink": _activation(ZERO, depends=HOMOGENEOUS | IDEMPOTENT),
    "Sigmoid": _activation(NONE, folds=True),
    "Softplus": _activation(NONE, folds=True),
    "Softsign": _activation(ZERO | SLOPE),
    "Swish": _activation(ZERO | SLOPE),
    "Tanh": _activation(ZERO | SLOPE, folds=True),
    "ThresholdedRelu": _activation(ZERO | IDEMPOTENT, depends=HOMOGENEOUS),
    # other functions of one number
    "Abs": _unary(ZERO | HOMOGENEOUS | IDEMPOTENT, folds=True),
    "Acos": _unary(NONE),
    "Acosh": _unary(NONE),
    "Asin": _unary(ZERO | SLOPE),
    "Asinh": _unary(ZERO | SLOPE),
    "Atan": _unary(ZERO | SLOPE),
    "Atanh": _unary(ZERO | SLOPE),
    "BitwiseNot": _logic(),
    "Cast": _unary(ALL, folds=True),
    "CastLike": _unary(ALL, folds=True, every_input=True),  # of the other input no more than the type is taken
    "Ceil": _unary(ZERO | IDEMPOTENT, folds=True),
    "Cos": _unary(NONE, folds=True),
    "Cosh": _unary(NONE),
    "Dropout": _unary(ALL),
    "Erf": _unary(ZERO | SLOPE),
    "Exp": _unary(NONE, folds=True),
    "Floor": _unary(ZERO | IDEMPOTENT, folds=True),
    "Identity": _unary(ALL, folds=True),
    "IsInf": _logic(),
    "IsNaN": _logic(),
    "Log": _unary(NONE, folds=True),
    "Neg": _unary(LINEAR, folds=True),
    "Not": _logic(folds=True),
    "Reciprocal": _unary(NONE, folds=True),
    "Round": _unary(ZERO | IDEMPOTENT, folds=True),
    "Sign": _unary(ZERO | IDEMPOTENT, folds=True),
    "Sin": _unary(ZERO | SLOPE, folds=True),
    "Sinh": _unary(ZERO | SLOPE),
    "Sqrt": _unary(ZERO, folds=True),
    "Tan": _unary(ZERO | SLOPE),
    # functions of several numbers
    "Add": _nary(affine=True, adds=True, aligned=True),
    "And": _nary(aligned=True),
    "BitwiseAnd": _nary(folds=False),
    "BitwiseOr": _nary(folds=False),
    "Div": _nary(affine=True, aligned=True),
    "Equal": _nary(aligned=True),
    "Greater": _nary(aligned=True),
    "GreaterOrEqual": _nary(),
    "Less": _nary(aligned=True),
    "LessOrEqual": _nary(),
    "Max": _nary(),
    "Mean": _nary(affine=True),
    "Min": _nary(),
    "Mod": _nary(),
    "Mul": _nary(affine=True, aligned=True),
    "Or": _nary(aligned=True),
    "PRelu": Operator(
        form="n-ary", has=LINEAR, depends=IDEMPOTENT | CONSTANTS, scales=(1,), every_input=True, activation=True
    ),
    "Pow": _nary(aligned=True),
    "Sub": _nary(affine=True, aligned=True),
    "Sum": _nary(affine=True, adds=True),
    "Where": _nary(joins=True),
    "Xor": _nary(aligned=True),
    # layers with weights
    "Conv": Operator(form="convolution", has=NONE, depends=ALL, dense=(1,), bias=2),
    "ConvTranspose": Operator(form="transposed convolution", has=NONE, depends=ALL, dense=(1,), bias=2),
    "Gemm": Operator(form="product", has=NONE, depends=ALL, dense=(0, 1), bias=2, folds=True),
    "MatMul": Operator(form="product", has=NONE, depends=ALL, dense=(0, 1), every_input=True, folds=True),
    "ConvInteger": _other(dense=(1,), integers=True),
    "DeformConv": _other(dense=(1,), bias=3),
    "Einsum": _other(dense=tuple(range(8))),
    "MatMulInteger": _other(dense=(0, 1), integers=True),
    "QLinearConv": _other(dense=(3,), bias=8, integers=True),
    "QLinearMatMul": _other(dense=(0, 3), integers=True),
    "Attention": _other(),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), Operator(form="recurrent", has=NONE, depends=ALL)),
    # windows over space
    "AveragePool": Operator(form="pooling", has=LINEAR | CONSTANTS),
    "LpPool": Operator(form="pooling", has=ZERO | HOMOGENEOUS),
    "MaxPool": Operator(form="pooling", has=LINEAR | CONSTANTS),
    "GlobalAveragePool": Operator(form="global pooling", has=ALL),
    "GlobalLpPool": Operator(form="global pooling", has=ZERO | HOMOGENEOUS | IDEMPOTENT),
    "GlobalMaxPool": Operator(form="global pooling", has=ALL),
    # normalisation
    "BatchNormalization": _normalisation(scales=(1, 2), folds=True),
    "GroupNormalization": _normalisation(scales=(1, 2)),
    "InstanceNormalization": _normalisation(scales=(1, 2), folds=True),
    "LayerNormalization": _normalisation(scales=(1, 2), folds=True),
    "LpNormalization": Operator(form="normalisation", has=IDEMPOTENT, depends=ZERO | SLOPE, folds=True),
    "MeanVarianceNormalization": Operator(form="normalisation", has=ZERO, depends=SLOPE | IDEMPOTENT, folds=True),
    "RMSNormalization": _normalisation(scales=(1,)),
    "LRN": Operator(form="local response", has=ZERO | SLOPE),
    "Hardmax": Operator(form="softmax", has=IDEMPOTENT),
    "LogSoftmax": Operator(form="softmax", has=IDEMPOTENT),
    "Softmax": Operator(form="softmax", has=NONE, folds=True),
    # over axes
    "ReduceL1": _reduction(ZERO | HOMOGENEOUS | IDEMPOTENT),
    "ReduceL2": _reduction(ZERO | HOMOGENEOUS | IDEMPOTENT),
    "ReduceLogSum": _reduction(NONE),
    "ReduceLogSumExp": _reduction(IDEMPOTENT),
    "ReduceMax": _reduction(ALL),
    "ReduceMean": _reduction(ALL),
    "ReduceMin": _reduction(ALL),
    "ReduceProd": _reduction(ZERO | IDEMPOTENT),
    "ReduceSum": _reduction(LINEAR | IDEMPOTENT),
    "ReduceSumSquare": _reduction(ZERO),
    "ArgMax": Operator(form="selection", has=NONE, depends=ALL),
    "ArgMin": Operator(form="selection", has=NONE, depends=ALL),
    # elements moved
    "Flatten": _layout(),
    "Reshape": Operator(form="layout", has=LINEAR | CONSTANTS, depends=IDEMPOTENT, counts=True, folds=True),
    "Squeeze": _layout(),
    "Transpose": _layout(),
    "Unsqueeze": _layout(),
    "Concat": Operator(form="moving", has=NONE, depends=ALL, every_input=True, joins=True, counts=True, folds=True),
    "DepthToSpace": _moving(),
    "MaxUnpool": Operator(form="moving", has=ZERO | HOMOGENEOUS, depends=SLOPE | IDEMPOTENT, every_input=True),
    "Expand": _moving(repeats=True, counts=True),
    "Gather": _moving(counts=True),
    "Pad": Operator(form="moving", has=NONE, depends=ALL, folds=True),
    "Slice": _moving(counts=True),
    "SpaceToDepth": _moving(),
    "Split": _moving(counts=True),
    "Tile": _moving(repeats=True),
    "Resize": Operator(form="resampling", has=LINEAR | CONSTANTS, depends=IDEMPOTENT, counts=True),
    "Upsample": Operator(form="resampling", has=LINEAR | CONSTANTS, depends=IDEMPOTENT),
    # sizes and numbers
    "ConstantOfShape": Operator(form="filling", has=NONE, depends=ALL, repeats=True, folds=True),
    "Range": Operator(form="filling", has=NONE, depends=ALL, folds=True),
    "Shape": Operator(form="measuring", has=NONE, depends=ALL, folds=True),
    "Size": Operator(form="measuring", has=NONE, depends=ALL, folds=True),
    "DequantizeLinear": Operator(form="quantisation", has=NONE, depends=ALL, scales=(0,), integers=True),
    "QuantizeLinear": Operator(form="quantisation", has=NONE, depends=ALL, scales=(0,)),
}  # fmt: skip


def of(op: str) -> Operator:
    """The row of an operator, UNKNOWN where it has none."""
    return OPERATORS.get(op, UNKNOWN)


def having(holds: Callable[[Operator], bool]) -> frozenset[str]:
    """The operators of whose row that holds."""
    return frozenset(op for op, row in OPERATORS.items() if holds(row))


def of_form(*forms: Form) -> frozenset[str]:
    """The operators of these forms."""
    return having(lambda row: row.form in forms)


UNARY = of_form("unary")
NARY = of_form("n-ary")
REDUCTIONS = of_form("reduction")
SIZES = of_form("measuring")
POOLS = of_form("pooling")
CONVOLUTIONS = of_form("convolution", "transposed convolution")
SLIDING = of_form("convolution", "pooling")
ALIGNED = having(lambda row: row.aligned)
ACTIVATIONS = having(lambda row: row.activation)
MERGES = having(lambda row: row.adds)
WEIGHTED = having(lambda row: bool(row.dense) and not row.integers)
"""Operators with a dense weight of real numbers, which make channels from others."""
