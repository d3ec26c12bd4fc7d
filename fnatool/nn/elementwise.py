"""Rows of the operators that work element by element."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from fnatool.nn.site import Given, NodeSite, Read, Row, Step, first, on, torch_type
from passes.graph.view import element_type

Operand = Tensor | float

# --- activations ---------------------------------------------------------------------------------


def relu(site: NodeSite) -> Step:
    """max(x, 0), in place where nobody else needs x."""
    return on(site, torch.relu_ if 0 in site.own else torch.relu, 0)


def clip(site: NodeSite) -> Step:
    """min(max(x, low), high); bounds are attributes before opset 11, inputs from then on."""
    if site.opset < 11:
        low, high = site.real("min", -math.inf), site.real("max", math.inf)
    elif all(not site.has(slot) or site.known(slot) is not None for slot in (1, 2)):
        low, high = site.number(1, -math.inf), site.number(2, math.inf)
    else:
        return _clip_by_tensors(site)
    if site.is_whole(0):
        whole = [None if math.isinf(bound) else int(bound) for bound in (low, high)]
        return on(site, lambda x: x.clamp(*whole) if whole != [None, None] else x, 0)
    if -math.inf < low < high < math.inf:
        # not in place: for its gradient torch would copy x first
        return on(site, lambda x: F.hardtanh(x, low, high), 0)
    return on(site, lambda x: x.clamp(low, high), 0)


def _clip_by_tensors(site: NodeSite) -> Step:
    low, high = site.has(1), site.has(2)

    def run(x: Tensor, *bounds: Tensor) -> Tensor:
        x = torch.maximum(x, bounds[0]) if low else x
        return torch.minimum(x, bounds[-1]) if high else x

    return on(site, run, 0, 1, 2)


def leaky_relu(site: NodeSite) -> Step:
    """x where it is positive, else alpha · x."""
    alpha, inplace = site.real("alpha", 0.01), 0 in site.own
    return on(site, lambda x: F.leaky_relu(x, alpha, inplace), 0)


def elu(site: NodeSite) -> Step:
    """alpha · (exp(x) − 1) where x is negative."""
    alpha, inplace = site.real("alpha", 1.0), 0 in site.own
    return on(site, lambda x: F.elu(x, alpha, inplace), 0)


def celu(site: NodeSite) -> Step:
    """max(0, x) + min(0, alpha · (exp(x / alpha) − 1))."""
    alpha = site.real("alpha", 1.0)
    return on(site, lambda x: F.celu(x, alpha), 0)


SELU = (1.67326319217681884765625, 1.05070102214813232421875)  # ONNX's defaults, which are torch's constants


def selu(site: NodeSite) -> Step:
    """gamma · (x where positive, else alpha · (exp(x) − 1))."""
    alpha, gamma = site.real("alpha", SELU[0]), site.real("gamma", SELU[1])
    if math.isclose(alpha, SELU[0], rel_tol=1e-6) and math.isclose(gamma, SELU[1], rel_tol=1e-6):
        return on(site, F.selu, 0)
    return on(site, lambda x: gamma * F.elu(x, alpha), 0)


def hard_sigmoid(site: NodeSite) -> Step:
    """min(max(alpha · x + beta, 0), 1)."""
    alpha, beta = site.real("alpha", 0.2), site.real("beta", 0.5)
    if _is_sixth(alpha) and beta == 0.5:
        return on(site, F.hardsigmoid, 0)
    return on(site, lambda x: (alpha * x + beta).clamp(0.0, 1.0), 0)


def _is_sixth(alpha: float) -> bool:
    return math.isclose(alpha, 1 / 6, rel_tol=1e-4)  # exporters round it


def hard_swish(site: NodeSite) -> Step:
    """x · min(max(x / 6 + 1/2, 0), 1)."""
    return on(site, F.hardswish, 0)


def swish(site: NodeSite) -> Step:
    """x · sigmoid(alpha · x)."""
    alpha = site.real("alpha", 1.0)
    return on(site, F.silu if alpha == 1 else lambda x: x * torch.sigmoid(alpha * x), 0)


def gelu(site: NodeSite) -> Step:
    """x · Φ(x), or its tanh approximation."""
    approximate = site.text("approximate", "none")
    return on(site, lambda x: F.gelu(x, approximate=approximate), 0)


def thresholded_relu(site: NodeSite) -> Step:
    """x where it is above alpha, else 0."""
    alpha = site.real("alpha", 1.0)
    return on(site, lambda x: F.threshold(x, alpha, 0.0), 0)


def shrink(site: NodeSite) -> Step:
    """x + bias below −lambd, x − bias above lambd, else 0."""
    lambd, bias = site.real("lambd", 0.5), site.real("bias", 0.0)
    return on(
        site, lambda x: torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, torch.zeros_like(x))), 0
    )


def prelu(site: NodeSite) -> Step:
    """x where it is positive, else slope · x; a slope per channel is torch's own."""
    x, slope = site.shape(0), site.shape(1)
    if x is not None and slope is not None and len(x) > 1:
        channels = tuple(d for d in slope if d != 1)
        position = len(slope) - next((i for i, d in enumerate(slope) if d != 1), len(slope))
        if not channels or (channels == x[1:2] and position == len(x) - 1):
            return on(site, lambda x, slope: torch.prelu(x, slope.reshape(-1)), 0, 1)
    return on(site, lambda x, slope: torch.where(x > 0, x, slope * x), 0, 1)


def dropout(site: NodeSite) -> Step:
    """x in evaluation; in training each element is zero with probability ratio, the others scaled up. The mask says
    which are kept.

    Raises RefusedModel where the graph itself drops (`training_mode`): its values are random, whatever the module's
    mode.
    """
    ratio = site.real("ratio", 0.5) if site.opset < 12 else site.number(1, 0.5)
    if ratio and site.opset >= 12 and site.has(2) and (site.known(2) is None or bool(site.require(2).any())):
        raise site.refuse(f"it drops values at random (training_mode); {IN_EVALUATION}")
    with_mask = 1 in site.read_outputs

    def run(x: Tensor, training: bool) -> Tensor | tuple[Tensor, Tensor]:
        if not with_mask:
            return F.dropout(x, ratio, training)
        keep = torch.rand_like(x) >= ratio if training else torch.ones_like(x, dtype=torch.bool)
        return (x * keep / (1 - ratio) if training else x), keep

    return Step(run, (site.node.inputs[0], Given.TRAINING))


# --- types --------------------------------------------------------------------------------------


def cast(site: NodeSite) -> Step:
    """The values in another type. The weights' own type follows the weights: a module in half precision stays in it."""
    to = site.node.attrs["to"]
    return _cast(site, to if isinstance(to, int) else element_type(to))


def _cast(site: NodeSite, to: int) -> Step:
    if to == site.facts.main_type and torch_type(to) in FLOATS:
        return Step(lambda x, like: x.to(like.dtype), (site.node.inputs[0], Given.LIKE))
    dtype = torch_type(to)
    if dtype is None:
        raise site.refuse(f"torch computes with no element type {onnx.TensorProto.DataType.Name(to)}")
    return on(site, lambda x: x.to(dtype), 0)


IN_EVALUATION = "export the network in evaluation mode, or bring it to inference with 'fnatool cut --inference'"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def cast_like(site: NodeSite) -> Step:
    """The values in the type of the second input."""
    to = site.facts.types.get(site.node.inputs[1])
    if to is None:
        raise site.refuse("the element type of its second input is unknown")
    return _cast(site, to)


def is_inf(site: NodeSite) -> Step:
    """Where x is infinite, of the signs asked for."""
    negative, positive = site.node.int("detect_negative", 1), site.node.int("detect_positive", 1)
    if negative and positive:
        return on(site, torch.isinf, 0)
    if not negative and not positive:
        return on(site, lambda x: torch.zeros_like(x, dtype=torch.bool), 0)
    return on(site, torch.isneginf if negative else torch.isposinf, 0)


# --- two operands and more ----------------------------------------------------------------------


def binary(run: Callable[[Any, Any], Any]) -> Row:
    """The row of an operator on two operands that broadcast."""
    return lambda site: Step(run, site.operands())


def add(site: NodeSite) -> Step:
    """a + b, written into the operand that nobody else needs."""
    reads = site.operands()
    target = next((slot for slot in sorted(site.own) if isinstance(reads[slot], str)), None)
    if target is None:
        return Step(operator.add, reads)
    return Step(_add_into, (reads[target], reads[1 - target]))


def _add_into(target: Tensor, other: Operand) -> Tensor:
    if isinstance(other, Tensor) and (other.shape != target.shape or other.dtype != target.dtype):
        return target + other
    return target.add_(other)


def divide(site: NodeSite) -> Step:
    """a / b; between integers the quotient is cut towards zero."""
    if site.is_whole(0):
        return Step(lambda a, b: torch.div(torch.as_tensor(a), b, rounding_mode="trunc"), site.operands())
    return Step(operator.truediv, site.operands())


def modulo(site: NodeSite) -> Step:
    """The remainder with the sign of b, or of a with fmod."""
    return Step(torch.fmod if site.node.int("fmod", 0) else torch.remainder, tuple(site.node.inputs))


def power(site: NodeSite) -> Step:
    """a ** b in the type of a."""
    exponent = site.known(1)
    if exponent is not None and exponent.size == 1:
        value = exponent.item()
        # x ** 2 and x ** 2.0 have the same gradient, and one is quicker
        value = int(value) if float(value).is_integer() else value
        return on(site, lambda a: a**value, 0)
    return Step(lambda a, b: (a**b).to(a.dtype), tuple(site.node.inputs))


def where(site: NodeSite) -> Step:
    """a where the condition holds, else b."""
    condition, *operands = site.operands()
    if isinstance(condition, str) and any(isinstance(read, str) for read in operands):
        return Step(torch.where, (condition, *operands))
    return Step(torch.where, tuple(site.node.inputs))


def many(run: Callable[[Any, Any], Any], *, mean: bool = False) -> Row:
    """The row of an operator on any number of operands that broadcast, taken two by two."""

    def row(site: NodeSite) -> Step:
        count = len(site.node.inputs)

        def fold(*operands: Any) -> Any:
            total = functools.reduce(run, operands)
            return total / count if mean else total

        return Step(fold, tuple(site.node.inputs))

    return row


def bounded(tensors: Callable[[Tensor, Tensor], Tensor], number: str) -> Row:
    """Max and Min: a constant bound is a clamp."""

    def row(site: NodeSite) -> Step:
        reads = site.operands()
        singles = [k for k, read in enumerate(reads) if not isinstance(read, str)]
        if len(reads) == 2 and len(singles) == 1:
            value = site.known(singles[0])
            if value is not None:
                bound = {number: value.item()}
                return on(site, lambda x: x.clamp(**bound), 1 - singles[0])
        return many(tensors)(site)

    return row


def shift(site: NodeSite) -> Step:
    """The bits of a moved left or right by b."""
    return Step(
        operator.lshift if site.text("direction", "LEFT") == "LEFT" else operator.rshift, tuple(site.node.inputs)
    )


def _tensors(run: Callable[..., Any]) -> Row:
    def row(site: NodeSite) -> Step:
        reads: tuple[Read, ...] = tuple(site.node.inputs)
        return Step(run, reads)

    return row


ELEMENTWISE: Mapping[str, Row] = {
    "Abs": first(torch.abs),
    "Acos": first(torch.acos),
    "Acosh": first(torch.acosh),
    "Asin": first(torch.asin),
    "Asinh": first(torch.asinh),
    "Atan": first(torch.atan),
    "Atanh": first(torch.atanh),
    "BitwiseNot": first(torch.bitwise_not),
    "Cast": cast,
    "CastLike": cast_like,
    "Ceil": first(torch.ceil),
    "Celu": celu,
    "Clip": clip,
    "Cos": first(torch.cos),
    "Cosh": first(torch.cosh),
    "Dropout": dropout,
    "Elu": elu,
    "Erf": first(torch.erf),
    "Exp": first(torch.exp),
    "Floor": first(torch.floor),
    "Gelu": gelu,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "Identity": first(lambda x: x),
    "IsInf": is_inf,
    "IsNaN": first(torch.isnan),
    "LeakyRelu": leaky_relu,
    "Log": first(torch.log),
    "Mish": first(F.mish),
    "Neg": first(torch.neg),
    "Not": first(torch.logical_not),
    "PRelu": prelu,
    "Reciprocal": first(torch.reciprocal),
    "Relu": relu,
    "Round": first(torch.round),
    "Selu": selu,
    "Shrink": shrink,
    "Sigmoid": first(torch.sigmoid),
    "Sign": first(torch.sign),
    "Sin": first(torch.sin),
    "Sinh": first(torch.sinh),
    "Softplus": first(F.softplus),
    "Softsign": first(F.softsign),
    "Sqrt": first(torch.sqrt),
    "Swish": swish,
    "Tan": first(torch.tan),
    "Tanh": first(torch.tanh),
    "ThresholdedRelu": thresholded_relu,
    "Add": add,
    "And": _tensors(torch.logical_and),
    "BitShift": shift,
    "BitwiseAnd": _tensors(torch.bitwise_and),
    "BitwiseOr": _tensors(torch.bitwise_or),
    "BitwiseXor": _tensors(torch.bitwise_xor),
    "Div": divide,
    "Equal": binary(operator.eq),
    "Greater": binary(operator.gt),
    "GreaterOrEqual": binary(operator.ge),
    "Less": binary(operator.lt),
    "LessOrEqual": binary(operator.le),
    "Max": bounded(torch.maximum, "min"),
    "Mean": many(operator.add, mean=True),
    "Min": bounded(torch.minimum, "max"),
    "Mod": modulo,
    "Mul": binary(operator.mul),
    "Or": _tensors(torch.logical_or),
    "Pow": power,
    "Sub": binary(operator.sub),
    "Sum": many(operator.add),
    "Where": where,
    "Xor": _tensors(torch.logical_xor),
}
