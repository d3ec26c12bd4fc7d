"""Windows that slide over space: their geometry, and the rows of the pooling operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fnatool.nn.site import NodeSite, Row, Step, first, on

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """A window of `kernel` taps that moves in `strides` over space padded by `before` and `after`; all one entry per
    spatial axis.

    `auto` is VALID, SAME_UPPER or SAME_LOWER where the pads follow from the size of the input, else NOTSET.
    """

    kernel: Sizes
    strides: Sizes
    dilations: Sizes
    before: Sizes
    after: Sizes
    auto: str
    ceil: bool

    @property
    def extent(self) -> Sizes:
        """How much space the window covers."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def is_same(self) -> bool:
        """Whether the pads follow from the size of the input."""
        return self.auto.startswith("SAME")

    @property
    def is_even(self) -> bool:
        """Whether both sides of every axis are padded alike, by numbers known at load."""
        return not self.is_same and self.before == self.after

    def pads(self, space: Sequence[int]) -> tuple[list[int], list[int]]:
        """The pads before and after for an input of this size: the explicit ones, or so many that there are ⌈size /
        stride⌉ positions.
        """
        if not self.is_same:
            return list(self.before), list(self.after)
        before, after = [], []
        for size, extent, stride in zip(space, self.extent, self.strides, strict=True):
            total = max((-(-size // stride) - 1) * stride + extent - size, 0)
            small = total // 2
            before.append(small if self.auto == "SAME_UPPER" else total - small)
            after.append(total - small if self.auto == "SAME_UPPER" else small)
        return before, after

    def overhang(self, space: Sequence[int], before: Sequence[int], after: Sequence[int]) -> list[int]:
        """How far the last window reaches beyond the padding where positions are rounded up; one that starts there does
        not exist.
        """
        beyond = []
        for size, extent, stride, front, back in zip(space, self.extent, self.strides, before, after, strict=True):
            padded = size + front + back
            last = -(-(padded - extent) // stride)
            last -= last * stride >= size + front
            beyond.append(last * stride + extent - padded if self.ceil else 0)
        return beyond


def window(site: NodeSite, kernel: Sequence[int]) -> Window:
    """The window of a convolution or pooling node with this kernel."""
    axes = len(kernel)
    auto = site.text("auto_pad", "NOTSET")
    pads = site.node.ints("pads", [0] * (2 * axes)) if auto == "NOTSET" else (0,) * (2 * axes)
    return Window(
        kernel=tuple(kernel),
        strides=site.node.ints("strides", [1] * axes),
        dilations=site.node.ints("dilations", [1] * axes),
        before=pads[:axes],
        after=pads[axes:],
        auto=auto,
        ceil=bool(site.node.int("ceil_mode", 0)),
    )


def padded(x: Tensor, before: Sequence[int], after: Sequence[int], value: float) -> Tensor:
    """x with its last axes padded; negative pads cut."""
    if not any(before) and not any(after):
        return x
    pairs = [pad for front, back in zip(reversed(before), reversed(after), strict=True) for pad in (front, back)]
    return F.pad(x, pairs, value=value)


def max_pool(site: NodeSite) -> Step:
    """The largest value in each window; the second output is its position in the whole input, flattened."""
    view = window(site, site.node.ints("kernel_shape", ()))
    axes = len(view.kernel)
    with_index = 1 in site.read_outputs
    pool: Callable[..., Any] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1]
    small = all(2 * pad <= k for pad, k in zip(view.before, view.kernel, strict=True))
    if view.is_even and small:
        options = (view.kernel, view.strides, view.before, view.dilations, view.ceil)
        if not with_index:
            return on(site, lambda x: pool(x, *options), 0)
        columns_first = bool(site.node.int("storage_order", 0))

        def with_positions(x: Tensor) -> tuple[Tensor, Tensor]:
            pooled, positions = pool(x, *options, return_indices=True)
            return pooled, _in_whole(positions, x.shape, columns_first=columns_first)

        return on(site, with_positions, 0)
    if with_index:
        raise site.refuse("positions of a pooling with uneven or wide pads")

    def run(x: Tensor) -> Tensor:
        before, after = view.pads(x.shape[2:])
        beyond = view.overhang(x.shape[2:], before, after)
        x = padded(x, before, [a + b for a, b in zip(after, beyond, strict=True)], _lowest(x.dtype))
        pooled: Tensor = pool(x, view.kernel, view.strides, 0, view.dilations)
        return pooled

    return on(site, run, 0)


def _lowest(dtype: torch.dtype) -> float:
    return -math.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def _in_whole(positions: Tensor, shape: Sequence[int], *, columns_first: bool) -> Tensor:
    """torch counts positions within a map, ONNX in the whole tensor."""
    space = shape[2:]
    if columns_first and len(space) == 2:
        positions = positions % space[1] * space[0] + positions // space[1]
    maps = torch.arange(shape[0] * shape[1], device=positions.device).reshape(shape[0], shape[1], *[1] * len(space))
    return positions + maps * math.prod(space)


def max_unpool(site: NodeSite) -> Step:
    """The values back at the positions they had in a tensor of the size given or implied, zeros elsewhere."""
    view = window(site, site.node.ints("kernel_shape", ()))
    implied = [k - b - a for k, b, a in zip(view.kernel, view.before, view.after, strict=True)]
    asked = tuple(int(v) for v in site.require(2)) if site.has(2) else None

    def run(x: Tensor, positions: Tensor) -> Tensor:
        space = [
            (size - 1) * stride + rest for size, stride, rest in zip(x.shape[2:], view.strides, implied, strict=True)
        ]
        flat = x.new_zeros(x.shape[0] * x.shape[1] * math.prod(space)).scatter(0, positions.flatten(), x.flatten())
        small = flat.reshape(x.shape[0], x.shape[1], *space)
        if asked is None:
            return small
        return padded(small, [0] * len(space), [want - have for want, have in zip(asked[2:], space, strict=True)], 0.0)

    return on(site, run, 0, 1)


def average_pool(site: NodeSite) -> Step:
    """The mean of each window: of what it covers of the input, or also of the padding."""
    view = window(site, site.node.ints("kernel_shape", ()))
    axes = len(view.kernel)
    with_pads = bool(site.node.int("count_include_pad", 0))
    pool: Callable[..., Any] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
    small = all(2 * pad <= k for pad, k in zip(view.before, view.kernel, strict=True))
    if view.is_even and small and set(view.dilations) == {1}:
        options = (view.kernel, view.strides, view.before, view.ceil, with_pads)
        return on(site, lambda x: pool(x, *options), 0)

    def run(x: Tensor) -> Tensor:
        before, after = view.pads(x.shape[2:])
        beyond = view.overhang(x.shape[2:], before, after)
        ones = padded(x.new_ones(1, 1, *x.shape[2:]), before, after, float(with_pads))
        nothing = [0] * axes
        count = _sum(padded(ones, nothing, beyond, 0.0), view)
        return _sum(padded(x, before, [a + b for a, b in zip(after, beyond, strict=True)], 0.0), view) / count

    return on(site, run, 0)


def _sum(x: Tensor, view: Window) -> Tensor:
    """The sum of each window of a padded tensor: a convolution with ones, map by map."""
    convolve: Callable[..., Any] = (F.conv1d, F.conv2d, F.conv3d)[len(view.kernel) - 1]
    maps = x.reshape(x.shape[0] * x.shape[1], 1, *x.shape[2:])
    sums: Tensor = convolve(maps, x.new_ones(1, 1, *view.kernel), None, view.strides, 0, view.dilations)
    return sums.reshape(x.shape[0], x.shape[1], *sums.shape[2:])


def lp_pool(site: NodeSite) -> Step:
    """(Σ |x|^p)^(1/p) of each window."""
    view = window(site, site.node.ints("kernel_shape", ()))
    p = site.real("p", 2)

    def run(x: Tensor) -> Tensor:
        before, after = view.pads(x.shape[2:])
        beyond = view.overhang(x.shape[2:], before, after)
        x = padded(x.abs() ** p, before, [a + b for a, b in zip(after, beyond, strict=True)], 0.0)
        return _sum(x, view) ** (1 / p)

    return on(site, run, 0)


def _space(x: Tensor) -> list[int]:
    return list(range(2, x.dim()))


def global_lp_pool(site: NodeSite) -> Step:
    """(Σ |x|^p)^(1/p) over all of space."""
    p = site.real("p", 2)
    return on(site, lambda x: torch.linalg.vector_norm(x, p, _space(x), keepdim=True), 0)


POOLING: Mapping[str, Row] = {
    "MaxPool": max_pool,
    "MaxUnpool": max_unpool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "GlobalAveragePool": first(lambda x: x.mean(_space(x), keepdim=True)),
    "GlobalMaxPool": first(lambda x: x.amax(_space(x), keepdim=True)),
    "GlobalLpPool": global_lp_pool,
}
