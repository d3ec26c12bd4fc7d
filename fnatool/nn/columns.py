"""What linear layers read, as columns: one per position that they make a value for.

    layer(x) at position p, in group g  =  W_g · column_g(p) + b

One row an operator: how x becomes columns [groups, reads, positions], how a weight becomes W [groups, rows, reads], and
back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fnatool.nn.site import NodeSite
from fnatool.nn.windows import Window, padded, window


@dataclass(frozen=True)
class Linear:
    """A layer as a matrix per group: W = `factor` · the weight as `rows`, of which `weight` is the way back.

    `taps`: how many columns an element of x is in at most; `bias`: what the layer's bias is multiplied by.
    """

    groups: int
    columns: Callable[[Tensor], Tensor]
    rows: Callable[[np.ndarray], np.ndarray]
    weight: Callable[[np.ndarray], np.ndarray]
    taps: int = 1
    factor: float = 1.0
    bias: float = 1.0


def convolution(site: NodeSite) -> Linear:
    """A row holds the taps of its group's input channels."""
    shape = site.shape(1)
    assert shape is not None
    groups, view = site.node.int("group", 1), window(site, shape[2:])
    return Linear(
        groups,
        lambda x: _unfolded(x, view, groups),
        lambda w: w.reshape(groups, shape[0] // groups, -1),
        lambda rows: rows.reshape(shape),
        taps=math.prod(shape[2:]),
    )


def _unfolded(x: Tensor, view: Window, groups: int) -> Tensor:
    """[N, C, …] → [groups, C / groups · taps, N · positions]"""
    space = x.shape[2:]
    before, after = view.pads(space)
    x = padded(x, before, after, 0.0)
    counts = [
        (size + b + a - e) // s + 1
        for size, b, a, e, s in zip(space, before, after, view.extent, view.strides, strict=True)
    ]
    taps = []
    for place in np.ndindex(*view.kernel):
        tap = x
        for axis, (p, d, s, n) in enumerate(zip(place, view.dilations, view.strides, counts, strict=True), 2):
            tap = tap.narrow(axis, p * d, (n - 1) * s + 1)[(slice(None),) * axis + (slice(None, None, s),)]
        taps.append(tap)
    stacked = torch.stack(taps, 2)  # [N, C, taps, …]
    batch, channels = stacked.shape[:2]
    flat = stacked.reshape(batch, groups, channels // groups * len(taps), math.prod(counts))
    return flat.permute(1, 2, 0, 3).reshape(groups, flat.shape[2], -1)


def transposed_convolution(site: NodeSite) -> Linear:
    """A convolution of what it reads with zeros between, its taps turned round."""
    shape = site.shape(1)
    assert shape is not None
    groups, view = site.node.int("group", 1), window(site, shape[2:])
    extra = site.node.ints("output_padding", [0] * len(view.kernel))
    reach = [extent - 1 for extent in view.extent]
    before = tuple(most - pad for most, pad in zip(reach, view.before, strict=True))
    after = tuple(most - pad + more for most, pad, more in zip(reach, view.after, extra, strict=True))
    dense = replace(view, strides=(1,) * len(view.kernel), before=before, after=after)
    space = tuple(range(3, 3 + len(view.kernel)))
    inner = (groups, shape[0] // groups, shape[1], *shape[2:])

    def rows(w: np.ndarray) -> np.ndarray:
        return np.flip(w.reshape(inner), space).swapaxes(1, 2).reshape(groups, shape[1], -1)

    def weight(found: np.ndarray) -> np.ndarray:
        turned = found.reshape(groups, shape[1], shape[0] // groups, *shape[2:]).swapaxes(1, 2)
        return np.flip(turned, space).reshape(shape)

    return Linear(
        groups,
        lambda x: _unfolded(_spaced(x, view.strides), dense, groups),
        rows,
        weight,
        taps=math.prod(shape[2:]) * math.prod(view.strides),
    )


def _spaced(x: Tensor, strides: Sequence[int]) -> Tensor:
    """x with zeros between its positions, so that they are this far apart."""
    sizes = [(size - 1) * stride + 1 for size, stride in zip(x.shape[2:], strides, strict=True)]
    made = x.new_zeros(*x.shape[:2], *sizes)
    places = made
    for axis, stride in enumerate(strides, 2):
        places = places[(slice(None),) * axis + (slice(None, None, stride),)]
    places.copy_(x)
    return made


def gemm(site: NodeSite) -> Linear:
    """α · A · B + β · C"""
    down = bool(site.node.int("transB", 0))
    return Linear(
        1,
        lambda x: x.t()[None],
        lambda w: (w if down else w.T)[None],
        lambda rows: rows[0] if down else rows[0].T,
        factor=site.real("alpha", 1.0),
        bias=site.real("beta", 1.0),
    )


def product(site: NodeSite) -> Linear:
    """A · B, A of any number of axes."""
    return Linear(1, lambda x: x.reshape(-1, x.shape[-1]).t()[None], lambda w: w.T[None], lambda rows: rows[0].T)


LINEAR: Mapping[str, Callable[[NodeSite], Linear]] = {
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Gemm": gemm,
    "MatMul": product,
}


def channels_first(values: Tensor, axis: int) -> Tensor:
    """[C, N · positions], in the order of the columns."""
    return values.movedim(axis, 0).flatten(1)
