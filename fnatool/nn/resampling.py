"""Rows of the operators that resample space: Resize, Upsample, GridSample.

Where torch's interpolate means the same, it is used. All else is done axis by axis, as the standard defines it: every
position of the output has a coordinate x in the input, and takes Σ_k w(x − k) · input[k] over the neighbours k of x.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fnatool.nn.site import NodeSite, Read, Row, Step, on


@dataclass(frozen=True)
class Resampling:
    """The attributes of a Resize; `axes` are those it works on."""

    axes: tuple[int, ...]
    mode: str
    coordinates: str
    nearest: str
    cubic: float
    exclude_outside: bool
    extrapolated: float
    antialias: bool
    policy: str
    region: tuple[float, ...]  # starts, then ends, one per axis; empty where not cropped


@dataclass(frozen=True)
class Axis:
    """One axis of a run: sizes, output size / input size as written, and the cropped region."""

    axis: int
    size: int
    out: int
    scale: float
    start: float = 0.0
    end: float = 1.0


def resize(site: NodeSite) -> Step:
    """Resize from opset 10 on; Upsample before."""
    rank = site.rank(0)
    if site.is_whole(0) and site.text("mode", "nearest") != "nearest":
        raise site.refuse(
            "whole numbers between others are rounded differently everywhere; only 'nearest' resamples them"
        )
    axes = tuple(axis % rank for axis in site.node.ints("axes", range(rank)))
    scales, sizes = (1, None) if site.opset < 11 else (2, 3)
    cropped = site.text("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    how = Resampling(
        axes=axes,
        mode=site.text("mode", "nearest"),
        coordinates="asymmetric" if site.opset < 11 else site.text("coordinate_transformation_mode", "half_pixel"),
        nearest="legacy" if site.opset < 11 else site.text("nearest_mode", "round_prefer_floor"),
        cubic=site.real("cubic_coeff_a", -0.75),
        exclude_outside=bool(site.node.int("exclude_outside", 0)),
        extrapolated=site.real("extrapolation_value", 0.0),
        antialias=bool(site.node.int("antialias", 0)),
        policy=site.text("keep_aspect_ratio_policy", "stretch"),
        region=tuple(float(v) for v in site.require(1).reshape(-1)) if cropped else (),
    )
    reads: tuple[Read, ...]
    if sizes is not None and site.has(sizes):
        reads = (site.node.inputs[0], site.numbers(sizes))
        return Step(lambda x, wanted: resampled(x, how, to_sizes(x, how, wanted)), reads)

    def run(x: Tensor, wanted: Sequence[float]) -> Tensor:
        found = by_scales(x, how, wanted)
        if how.coordinates == "align_corners" and any(
            abs(a.size * a.scale - a.out) > WHOLE_SIZE * a.out for a in found
        ):
            raise site.refuse(
                "a factor that makes no whole size aligns its corners in different ways; give the sizes, not "
                "the factors"
            )
        return resampled(x, how, found)

    written = site.reals("scales", ()) if site.opset < 9 else ()
    if written:
        return on(site, lambda x: run(x, written), 0)
    reads = (site.node.inputs[0], site.numbers(scales))
    return Step(run, reads)


WHOLE_SIZE = 1e-3  # relative: nearer to a whole size than this, a factor stands for it


def by_scales(x: Tensor, how: Resampling, scales: Sequence[float]) -> list[Axis]:
    """The axes for factors: out = ⌊size · factor⌋ (of the region where cropped)."""
    found = []
    for k, (axis, scale) in enumerate(zip(how.axes, scales, strict=True)):
        start, end = _region(how, k)
        found.append(
            Axis(
                axis=axis,
                size=x.shape[axis],
                out=math.floor(x.shape[axis] * (end - start) * scale),
                scale=float(scale),
                start=start,
                end=end,
            )
        )
    return found


def to_sizes(x: Tensor, how: Resampling, sizes: Sequence[int]) -> list[Axis]:
    """The axes for sizes; with a policy all axes get one factor, so that none is larger (or smaller) than asked."""
    wanted = [int(size) for size in sizes]
    if how.policy != "stretch":
        factors = [size / x.shape[axis] for axis, size in zip(how.axes, wanted, strict=True)]
        factor = min(factors) if how.policy == "not_larger" else max(factors)
        outs = [math.floor(x.shape[axis] * factor + 0.5) for axis in how.axes]
        return [Axis(axis, x.shape[axis], out, factor) for axis, out in zip(how.axes, outs, strict=True)]
    found = []
    for k, (axis, out) in enumerate(zip(how.axes, wanted, strict=True)):
        if axis < 2 and how.axes[:2] == (0, 1):
            out = x.shape[axis]  # batch and channels are written in the sizes, and are not resampled
        start, end = _region(how, k)
        found.append(Axis(axis=axis, size=x.shape[axis], out=out, scale=out / x.shape[axis], start=start, end=end))
    return found


def _region(how: Resampling, k: int) -> tuple[float, float]:
    return (how.region[k], how.region[len(how.axes) + k]) if how.region else (0.0, 1.0)


def resampled(x: Tensor, how: Resampling, axes: Sequence[Axis]) -> Tensor:
    """x resampled along axes."""
    moving = [a for a in axes if a.out != a.size or a.scale != 1 or how.region]
    if not moving:
        return x
    quick = _torch_mode(x, how, moving)
    if quick is not None:
        out = [next((a.out for a in moving if a.axis == axis), x.shape[axis]) for axis in range(2, x.dim())]
        return F.interpolate(x, out, **quick)
    for a in moving:
        x = _along(x, how, a)
    return x


def _torch_mode(x: Tensor, how: Resampling, axes: Sequence[Axis]) -> dict[str, Any] | None:
    """The options with which torch's interpolate computes the same, None where there are none."""
    fits = all(a.axis >= 2 and a.out == a.size * a.scale for a in axes)
    smoothed = how.antialias and any(a.out < a.size for a in axes)
    if (
        x.dim() not in (3, 4, 5)
        or not x.is_floating_point()
        or not fits
        or how.region
        or how.exclude_outside != smoothed
    ):
        return None
    if how.mode == "nearest":
        whole = all(a.out % a.size == 0 for a in axes)
        same = (how.coordinates, how.nearest) in NEAREST
        return {"mode": "nearest"} if whole and same else None
    if how.mode == "cubic" and (x.dim() != 4 or how.cubic != -0.75):
        return None
    aligned = how.coordinates == "align_corners"
    halved = how.coordinates == "half_pixel" or (
        how.coordinates == "pytorch_half_pixel" and all(a.out > 1 for a in axes)
    )
    if not (aligned or halved) or (smoothed and (x.dim() != 4 or how.mode == "cubic" or aligned)):
        return None  # torch's antialiasing leaves out what is outside, and has another cubic
    mode = {"linear": {3: "linear", 4: "bilinear", 5: "trilinear"}[x.dim()], "cubic": "bicubic"}[how.mode]
    return {"mode": mode, "align_corners": aligned, "antialias": smoothed}


NEAREST = {
    ("asymmetric", "floor"),
    ("asymmetric", "legacy"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
}
"""What, for whole factors, repeats every element as often as the factor says. (The middle of an element is never
between two.)
"""


def _along(x: Tensor, how: Resampling, a: Axis) -> Tensor:
    """x resampled along one axis, as the standard defines it."""
    at = _coordinates(how.coordinates, a, x.device)
    near = how.mode == "nearest"
    # as runtimes read Resize-10
    rounding = how.nearest if how.nearest != "legacy" else "ceil" if a.scale < 1 else "floor"
    y = x.index_select(a.axis, ROUND[rounding](at).clamp(0, a.size - 1).long()) if near else _weighted(x, a, at, how)
    if how.coordinates != "tf_crop_and_resize":
        return y
    outside = ((at < 0) | (at > a.size - 1)).reshape([-1 if axis == a.axis else 1 for axis in range(x.dim())])
    return y.masked_fill(outside, how.extrapolated)


def _coordinates(mode: str, a: Axis, device: torch.device) -> Tensor:
    """Where in the input each position of the output lies [out]."""
    # as runtimes do: where two positions are equally near, rounding decides
    i = torch.arange(a.out, device=device, dtype=torch.float32)
    if mode == "asymmetric":
        return i / a.scale
    if mode == "align_corners":
        return i * ((a.size - 1) / (a.out - 1)) if a.out > 1 else i * 0
    if mode == "pytorch_half_pixel" and a.out == 1:
        return i * 0
    if mode == "half_pixel_symmetric":
        adjustment = a.out / (a.size * a.scale)
        return a.size / 2 * (1 - adjustment) + (i + 0.5) / a.scale - 0.5
    if mode == "tf_half_pixel_for_nn":
        return (i + 0.5) / a.scale
    if mode == "tf_crop_and_resize":
        if a.out == 1:
            return i * 0 + 0.5 * (a.start + a.end) * (a.size - 1)
        return a.start * (a.size - 1) + i * ((a.end - a.start) * (a.size - 1) / (a.out - 1))
    return (i + 0.5) / a.scale - 0.5


ROUND: Mapping[str, Callable[[Tensor], Tensor]] = {
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
}


def _weighted(x: Tensor, a: Axis, at: Tensor, how: Resampling) -> Tensor:
    """Σ_k w · x[neighbour k of each position]. Antialiasing widens w by the factor of shrinking."""
    wide = max(1.0, 1 / a.scale) if how.antialias else 1.0
    reach = (2 if how.mode == "cubic" else 1) * wide
    low = torch.floor(at - reach).long() + 1
    taps = low.unsqueeze(1) + torch.arange(math.ceil(2 * reach) + (wide > 1), device=x.device)  # [out, taps]
    distance = (at.unsqueeze(1) - taps).abs() / wide
    weight = _cubic(distance, how.cubic) if how.mode == "cubic" else (1 - distance).clamp(min=0)
    if how.exclude_outside:
        weight = torch.where((taps < 0) | (taps >= a.size), torch.zeros_like(weight), weight)
    if how.exclude_outside or wide > 1:
        weight = weight / weight.sum(1, keepdim=True)
    taps = taps.clamp(0, a.size - 1)
    picked = x.index_select(a.axis, taps.reshape(-1)).reshape(*x.shape[: a.axis], *taps.shape, *x.shape[a.axis + 1 :])
    shape = [1] * a.axis + list(weight.shape) + [1] * (x.dim() - a.axis - 1)
    summed: Tensor = (picked * weight.to(x.dtype).reshape(shape)).sum(a.axis + 1)
    return summed


def _cubic(d: Tensor, a: float) -> Tensor:
    """Keys' kernel: (a+2)|d|³ − (a+3)|d|² + 1 below 1, a|d|³ − 5a|d|² + 8a|d| − 4a below 2."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def grid_sample(site: NodeSite) -> Step:
    """The values at the places that a grid names."""
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(site.text("mode", "linear"), site.text("mode", "linear"))
    padding, aligned = site.text("padding_mode", "zeros"), bool(site.node.int("align_corners", 0))
    return on(site, lambda x, grid: F.grid_sample(x, grid, mode, padding, aligned), 0, 1)


RESAMPLING: Mapping[str, Row] = {"Resize": resize, "Upsample": resize, "GridSample": grid_sample}
