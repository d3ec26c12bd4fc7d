"""Rows of the operators with weights, of normalisation, and of what reduces over axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fnatool.nn.site import Given, NodeSite, Read, Row, Step, on
from fnatool.nn.together import batch_norm_together
from fnatool.nn.windows import Window, padded, window

Norms = Literal["running", "batch", "update", "batch over processes", "update over processes"] | float
"""What BatchNormalization normalises by: its running statistics, those of the batch, or those of the batch, updating
the running ones; the batch may be that of all processes.

A number also updates them: it is the share that is new, whatever the graph says. 1 / n for the n-th batch makes them
the mean of all.
"""

KEEPING = ("running", "batch", "batch over processes")  # of these the running statistics stay as they are
TOGETHER = ("batch over processes", "update over processes")

# --- weights -------------------------------------------------------------------------------------


def convolution(site: NodeSite) -> Step:
    """y = x ∗ w + b with w [C_out, C_in / g, …]; the number of groups is that of the weight."""
    weight = site.shape(1)
    if weight is None:
        raise site.refuse("the shape of its weight is unknown")
    view = window(site, weight[2:])
    convolve: Callable[..., Any] = (F.conv1d, F.conv2d, F.conv3d)[len(weight) - 3]
    strides, dilations = view.strides, view.dilations
    if view.is_even:
        pads = view.before
        return on(
            site, lambda x, w, b=None: convolve(x, w, b, strides, pads, dilations, x.shape[1] // w.shape[1]), 0, 1, 2
        )

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        y: Tensor = convolve(
            padded(x, *view.pads(x.shape[2:]), 0.0), w, b, strides, 0, dilations, x.shape[1] // w.shape[1]
        )
        return y

    return on(site, run, 0, 1, 2)


def transposed_convolution(site: NodeSite) -> Step:
    """The gradient of a convolution as an operator: w [C_in, C_out / g, …]; depthwise stays depthwise at any width."""
    weight = site.shape(1)
    if weight is None:
        raise site.refuse("the shape of its weight is unknown")
    view = window(site, weight[2:])
    groups = site.node.int("group", 1)
    depthwise = groups > 1 and groups == weight[0]
    convolve: Callable[..., Any] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(weight) - 3]
    extra = site.node.ints("output_padding", [0] * len(view.kernel))
    asked = site.node.ints("output_shape", ())
    strides, dilations = view.strides, view.dilations
    if view.is_even and not asked and all(e < max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        pads = view.before

        def direct(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
            y: Tensor = convolve(x, w, b, strides, pads, extra, w.shape[0] if depthwise else groups, dilations)
            return y

        return on(site, direct, 0, 1, 2)

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        whole: Tensor = convolve(x, w, None, strides, 0, 0, w.shape[0] if depthwise else groups, dilations)
        before, after = _cuts(view, x.shape[2:], extra, asked)
        y = padded(whole, [-cut for cut in before], [e - cut for e, cut in zip(extra, after, strict=True)], 0.0)
        return y if b is None else y + b.reshape(-1, *[1] * len(extra))

    return on(site, run, 0, 1, 2)


def _cuts(
    view: Window, space: Sequence[int], extra: Sequence[int], asked: Sequence[int]
) -> tuple[list[int], list[int]]:
    """How much of the whole result is cut before and after: the pads, or what makes it the size asked for (the odd one
    as ONNX says).
    """
    if view.is_same and not asked:
        asked = [size * stride for size, stride in zip(space, view.strides, strict=True)]
    if not asked:
        return list(view.before), list(view.after)
    before, after = [], []
    for size, stride, extent, more, want in zip(
        space, view.strides, view.extent, extra, asked[-len(space) :], strict=True
    ):
        total = (size - 1) * stride + extent + more - want
        total = max(total, 0) if view.is_same else total  # SAME only ever cuts
        small = total // 2
        front = max(small if view.auto == "SAME_UPPER" else total - small, 0)  # more than there is: zeros behind
        before.append(front)
        after.append(total - front)
    return before, after


def gemm(site: NodeSite) -> Step:
    """y = α · A · B + β · C, A and B transposed where it says so."""
    alpha, beta = site.real("alpha", 1.0), site.real("beta", 1.0)
    across, down = bool(site.node.int("transA", 0)), bool(site.node.int("transB", 0))
    bias = site.shape(2)
    if not across and down and alpha == 1 and (not site.has(2) or (beta == 1 and bias is not None and len(bias) == 1)):
        return on(site, F.linear, 0, 1, 2)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a, b = (a.t() if across else a), (b.t() if down else b)
        if c is None:
            return a @ b if alpha == 1 else alpha * (a @ b)
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)

    return on(site, run, 0, 1, 2)


def einsum(site: NodeSite) -> Step:
    """Products summed over the letters that the equation leaves out."""
    equation = site.text("equation", "")
    return on(site, lambda *operands: torch.einsum(equation, *operands), *range(len(site.node.inputs)))


# --- normalisation ------------------------------------------------------------------------------


def batch_normalization(site: NodeSite) -> Step:
    """y = γ (x − μ) / √(σ² + ε) + β. ONNX's momentum is the share that running statistics keep, torch's the share that
    is new.
    """
    epsilon = site.real("epsilon", 1e-5)
    momentum = round(1 - site.real("momentum", 0.9), 6)  # 0.1, where a float32 of 0.9 leaves 0.10000002
    training = site.opset >= 14 and bool(site.node.int("training_mode", 0))
    reads: tuple[Read, ...] = (*site.node.inputs[:5], Given.NORMS)
    computed = not set(site.node.inputs[3:5]) <= {*site.facts.weights, *site.facts.known}
    if training and any(site.read_outputs):
        return Step(_with_statistics(momentum, epsilon, len(site.node.outputs)), reads)
    if any(site.read_outputs):
        raise site.refuse("outputs of its training form are read")
    if training and computed:
        return on(
            site, lambda x, scale, bias: F.batch_norm(x, None, None, scale, bias, True, momentum, epsilon), 0, 1, 2
        )
    if computed:
        return on(site, _by_computed(epsilon), *range(5))

    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, norms: Norms) -> Tensor:
        if norms == "running" and not training:
            return F.batch_norm(x, mean, var, scale, bias, False, momentum, epsilon)
        if norms in TOGETHER:
            kept = (mean, var) if norms == "update over processes" else None
            return batch_norm_together(x, scale, bias, running=kept, momentum=momentum, epsilon=epsilon)
        if norms in KEEPING:
            return F.batch_norm(x, None, None, scale, bias, True, momentum, epsilon)
        return F.batch_norm(x, mean, var, scale, bias, True, norms if isinstance(norms, float) else momentum, epsilon)

    return Step(run, reads)


def _by_computed(epsilon: float) -> Callable[..., Tensor]:
    """By statistics that are computed (of a weight, say): gradients go through them too, which torch's batch_norm would
    not let.
    """

    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        across = [-1 if axis == 1 else 1 for axis in range(x.dim())]
        factor = scale * (var + epsilon).rsqrt()
        return (x - mean.reshape(across)) * factor.reshape(across) + bias.reshape(across)

    return run


def _with_statistics(momentum: float, epsilon: float, outputs: int) -> Callable[..., Any]:
    """The training form whose further outputs are read: what the running statistics become, of the whole variance."""

    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, norms: Norms) -> Any:
        axes = [axis for axis in range(x.dim()) if axis != 1]
        news = (x.mean(axes), x.var(axes, correction=0))
        kept = [(1 - momentum) * old + momentum * new for old, new in zip((mean, var), news, strict=True)]
        share = norms if isinstance(norms, float) else momentum
        update = norms not in KEEPING
        y = F.batch_norm(x, mean if update else None, var if update else None, scale, bias, True, share, epsilon)
        return (y, *kept)[:outputs]

    return run


def instance_normalization(site: NodeSite) -> Step:
    """Each map of each sample by its own mean and variance."""
    epsilon = site.real("epsilon", 1e-5)
    quick = torch.backends.cudnn.enabled
    return on(
        site, lambda x, scale, bias: torch.instance_norm(x, scale, bias, None, None, True, 0.0, epsilon, quick), 0, 1, 2
    )


def group_normalization(site: NodeSite) -> Step:
    """Each group of channels by its own mean and variance; scale and bias have an entry per group before opset 21, per
    channel after.
    """
    groups, epsilon = site.node.int("num_groups", 1), site.real("epsilon", 1e-5)
    per_group = site.opset < 21

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if per_group and groups != x.shape[1]:
            scale, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, bias))
        return torch.group_norm(x, groups, scale, bias, epsilon)

    return on(site, run, 0, 1, 2)


def layer_normalization(site: NodeSite) -> Step:
    """The axes from `axis` on by their mean and variance; the further outputs are the mean and 1 / standard
    deviation.
    """
    axis, rank, epsilon = site.axis(-1), site.rank(0), site.real("epsilon", 1e-5)
    whole = all(not site.has(slot) or site.shape(slot) == (site.shape(0) or ())[axis:] for slot in (1, 2))
    outputs = len(site.node.outputs)

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Any:
        shape = x.shape[axis:]
        if whole:
            y = F.layer_norm(x, shape, scale, bias, epsilon)
        else:
            y = F.layer_norm(x, shape, None, None, epsilon) * scale
            y = y if bias is None else y + bias
        if outputs == 1:
            return y
        axes = list(range(axis, rank))
        mean = x.mean(axes, keepdim=True)
        return (y, mean, (x.var(axes, correction=0, keepdim=True) + epsilon).rsqrt())[:outputs]

    return on(site, run, 0, 1, 2)


def rms_normalization(site: NodeSite) -> Step:
    """The axes from `axis` on by the root of their mean square."""
    axis, rank, epsilon = site.axis(-1), site.rank(0), site.real("epsilon", 1e-5)
    axes = list(range(axis, rank))
    return on(site, lambda x, scale: x * (x.square().mean(axes, keepdim=True) + epsilon).rsqrt() * scale, 0, 1)


def mean_variance_normalization(site: NodeSite) -> Step:
    """(x − μ) / (σ + 1e-9) over `axes`, as ONNX's own definition."""
    axes = list(site.node.ints("axes", (0, 2, 3)))

    def run(x: Tensor) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)

    return on(site, run, 0)


def local_response(site: NodeSite) -> Step:
    """x / (bias + alpha / size · Σ x²)^beta over `size` neighbouring channels, the odd one behind."""
    size, alpha, beta, bias = (
        site.node.int("size", 1),
        site.real("alpha", 1e-4),
        site.real("beta", 0.75),
        site.real("bias", 1.0),
    )

    def run(x: Tensor) -> Tensor:
        squares = x.square().flatten(2).unsqueeze(1)
        around = F.pad(squares, (0, 0, (size - 1) // 2, size // 2))
        mean = F.avg_pool2d(around, (size, 1), 1).squeeze(1).reshape(x.shape)
        return x / (bias + alpha * mean) ** beta

    return on(site, run, 0)


def lp_normalization(site: NodeSite) -> Step:
    """x divided by its p-norm along an axis; nothing stays nothing."""
    axis, p = site.axis(-1), site.node.int("p", 2)

    def run(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
        return x / torch.where(norm == 0, torch.ones_like(norm), norm)

    return on(site, run, 0)


def along_axis(normalise: Callable[[Tensor, int], Tensor]) -> Row:
    """Softmax and its like: along one axis from opset 13 on, over all axes from `axis` on before."""

    def row(site: NodeSite) -> Step:
        rank = site.rank(0)
        axis = site.axis(-1 if site.opset >= 13 else 1)
        if site.opset >= 13 or axis == rank - 1:
            return on(site, lambda x: normalise(x, axis), 0)
        return on(site, lambda x: normalise(x.flatten(axis), axis).reshape(x.shape), 0)

    return row


def _hardmax(x: Tensor, axis: int) -> Tensor:
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


# --- reductions ---------------------------------------------------------------------------------


def reduction(run: Callable[[Tensor, list[int], bool], Tensor]) -> Row:
    """The row of an operator that reduces over `axes` (attribute or input; none: all, or nothing where
    noop_with_empty_axes says so).
    """

    def row(site: NodeSite) -> Step:
        axes = site.integers(1, "axes")
        keep = bool(site.node.int("keepdims", 1))
        if not axes and site.node.int("noop_with_empty_axes", 0):
            return on(site, lambda x: run(x.unsqueeze(-1), [-1], False), 0)  # as over an axis of one
        over = list(axes) if axes else list(range(site.rank(0)))
        if not over:
            return on(site, lambda x: run(x.reshape(1), [0], False), 0)
        return on(site, lambda x: run(x, over, keep), 0)

    return row


def _prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def selection(run: Callable[..., Tensor]) -> Row:
    """ArgMax and ArgMin: the first position, or the last."""

    def row(site: NodeSite) -> Step:
        axis, keep = site.axis(0), bool(site.node.int("keepdims", 1))
        if not site.node.int("select_last_index", 0):
            return on(site, lambda x: run(x, axis, keepdim=keep), 0)
        return on(site, lambda x: x.shape[axis] - 1 - run(x.flip(axis), axis, keepdim=keep), 0)

    return row


def cumulated(site: NodeSite) -> Step:
    """Sums of all elements up to each along an axis; with `exclusive` without it, with `reverse` from the end."""
    axis = int(site.require(1).reshape(-1)[0])
    exclusive, reverse = site.node.int("exclusive", 0), site.node.int("reverse", 0)

    def run(x: Tensor) -> Tensor:
        x = x.flip(axis) if reverse else x
        total = x.cumsum(axis, dtype=x.dtype)
        total = total - x if exclusive else total
        return total.flip(axis) if reverse else total

    return on(site, run, 0)


def top_k(site: NodeSite) -> Step:
    """The k largest or smallest along an axis, sorted, and their positions; of equal values the first."""
    axis, largest = site.axis(-1), bool(site.node.int("largest", 1))

    def run(x: Tensor, k: Sequence[int]) -> tuple[Tensor, Tensor]:
        values, positions = x.sort(stable=True, dim=axis, descending=largest)  # torch.topk takes any of equal values
        return values.narrow(axis, 0, int(k[0])), positions.narrow(axis, 0, int(k[0]))

    if site.opset < 10:
        count = [site.node.int("k", 1)]
        return on(site, lambda x: run(x, count), 0)
    return Step(run, (site.node.inputs[0], site.numbers(1)))


LAYERS: Mapping[str, Row] = {
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Gemm": gemm,
    "MatMul": lambda site: on(site, torch.matmul, 0, 1),
    "Einsum": einsum,
    "BatchNormalization": batch_normalization,
    "InstanceNormalization": instance_normalization,
    "GroupNormalization": group_normalization,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": rms_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
    "LRN": local_response,
    "LpNormalization": lp_normalization,
    "Softmax": along_axis(torch.softmax),
    "LogSoftmax": along_axis(torch.log_softmax),
    "Hardmax": along_axis(_hardmax),
    "ReduceL1": reduction(lambda x, axes, keep: _sum(x.abs(), axes, keep)),
    "ReduceL2": reduction(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keepdim=keep)),
    "ReduceLogSum": reduction(lambda x, axes, keep: _sum(x, axes, keep).log()),
    "ReduceLogSumExp": reduction(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep)),
    "ReduceMax": reduction(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMean": reduction(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceMin": reduction(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceProd": reduction(_prod),
    "ReduceSum": reduction(_sum),
    "ReduceSumSquare": reduction(lambda x, axes, keep: _sum(x.square(), axes, keep)),
    "ArgMax": selection(torch.argmax),
    "ArgMin": selection(torch.argmin),
    "CumSum": cumulated,
    "TopK": top_k,
}
