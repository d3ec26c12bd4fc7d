"""Rows of the operators that quantised networks, detectors and transformers use beside the common ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fnatool.nn.site import NodeSite, Read, Row, Step, on, torch_type

# --- quantisation --------------------------------------------------------------------------------


def quantize(site: NodeSite) -> Step:
    """Whole numbers for real ones: x / scale rounded to even, plus the zero point, within the range of the type."""
    kind = site.facts.types.get(site.node.outputs[0], 0)
    dtype = torch_type(kind)
    if dtype is None or dtype.is_floating_point:
        raise site.refuse("torch quantises to whole numbers of 8, 16 or 32 bits with a sign, or 8 without")
    spread = _spread(site)
    low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        y = (x / spread(scale, x)).round()
        y = y if zero is None else y + spread(zero, x)
        return y.clamp(low, high).to(dtype)

    return on(site, run, 0, 1, 2)


def dequantize(site: NodeSite) -> Step:
    """(x − zero point) · scale."""
    spread = _spread(site)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        wide = x.to(scale.dtype) if zero is None else x.to(scale.dtype) - spread(zero, x).to(scale.dtype)
        return wide * spread(scale, x)

    return on(site, run, 0, 1, 2)


def _spread(site: NodeSite) -> Callable[[Tensor, Tensor], Tensor]:
    """A scale or zero point in the shape that broadcasts with x: one for all, one per entry of an axis, or one per
    block of it.
    """
    rank, block = site.rank(0), site.node.int("block_size", 0)
    axis = site.node.int("axis", 1)

    def spread(value: Tensor, x: Tensor) -> Tensor:
        if value.dim() == 0 or (value.dim() == 1 and value.shape[0] == 1 and not block):
            return value
        if block:
            return value.repeat_interleave(block, axis).narrow(axis % rank, 0, x.shape[axis])
        return value.reshape([-1 if k == axis % rank else 1 for k in range(rank)])

    return spread


# --- attention ----------------------------------------------------------------------------------


def attention(site: NodeSite) -> Step:
    """softmax(Q Kᵀ · scale + mask) V by heads, as ONNX's own definition; outputs are also the keys and values with
    those of the past.
    """
    node = site.node
    if site.has(6) or node.int("left_window_size", -1) >= 0 or node.int("right_window_size", -1) >= 0:
        raise site.refuse("neither lengths of a static cache nor sliding windows are supported")
    heads = (node.int("q_num_heads", 0), node.int("kv_num_heads", 0))
    scale, cap = site.real("scale", 0.0), site.real("softcap", 0.0)
    causal, mode = bool(node.int("is_causal", 0)), node.int("qk_matmul_output_mode", 0)
    if 3 in site.read_outputs and (mode not in (0, 2, 3) or site.opset < 24):
        raise site.refuse("its fourth output is supported from version 24 on, and for modes 0, 2 and 3")
    present = [slot for slot in range(3, 6) if site.has(slot)]

    def run(q: Tensor, k: Tensor, v: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(present, others, strict=True))
        flat = q.dim() == 3
        if flat:
            q, k, v = (
                x.reshape(*x.shape[:2], count, x.shape[2] // count).transpose(1, 2)
                for x, count in ((q, heads[0]), (k, heads[1]), (v, heads[1]))
            )
        past = given[4].shape[2] if 4 in given else 0
        k = torch.cat([given[4], k], 2) if 4 in given else k
        v = torch.cat([given[5], v], 2) if 5 in given else v
        keys, values = k, v
        if q.shape[1] != k.shape[1]:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        factor = math.sqrt(scale or 1 / math.sqrt(q.shape[3]))
        scores = (q * factor) @ (k * factor).transpose(2, 3)
        scores = torch.tanh(scores / cap) * cap if cap > 0 else scores
        bias = _bias(scores, given.get(3), past if causal else None)
        masked = scores if bias is None else scores + bias
        shares = masked.softmax(-1)
        if bias is not None:
            # nothing to look at
            shares = torch.where((bias == -math.inf).all(-1, keepdim=True), torch.zeros_like(shares), shares)
        y = shares @ v
        y = y.transpose(1, 2).flatten(2) if flat else y
        return (y, keys, values, {0: scores, 2: masked, 3: shares}.get(mode, scores))[: len(node.outputs)]

    return on(site, run, 0, 1, 2, *present)


def _bias(scores: Tensor, mask: Tensor | None, past: int | None) -> Tensor | None:
    """What is added to the scores: a mask, of truths or numbers, short ones padded; with a past, nothing after the
    query is seen.
    """
    bias = None
    if mask is not None:
        missing = scores.shape[-1] - mask.shape[-1]
        if mask.dtype == torch.bool:
            bias = torch.zeros(mask.shape, dtype=scores.dtype, device=scores.device).masked_fill(~mask, -math.inf)
        else:
            bias = mask
        bias = F.pad(bias, (0, missing), value=-math.inf) if missing > 0 else bias
    if past is not None:
        rows, columns = scores.shape[-2:]
        seen = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).tril(past)
        later = torch.zeros(rows, columns, dtype=scores.dtype, device=scores.device).masked_fill(~seen, -math.inf)
        bias = later if bias is None else bias + later
    return bias


# --- places -------------------------------------------------------------------------------------


def scatter_nd(site: NodeSite) -> Step:
    """x with slices replaced, or reduced with others, at positions along its leading axes."""
    depth = (site.shape(1) or (0,))[-1]
    reduce = {"none": "", "add": "sum", "mul": "prod", "max": "amax", "min": "amin"}[site.text("reduction", "none")]

    def run(x: Tensor, where: Tensor, new: Tensor) -> Tensor:
        index = tuple(
            torch.where(part < 0, part + size, part)
            for part, size in zip(where.long().unbind(-1), x.shape[:depth], strict=True)
        )
        if not reduce:
            return x.index_put(index, new)
        place = torch.zeros_like(index[0])
        for part, size in zip(index, x.shape[:depth], strict=True):
            place = place * size + part
        rows = x.reshape(math.prod(x.shape[:depth]), -1)
        updates = new.reshape(place.numel(), -1)
        places = place.reshape(-1, 1).expand_as(updates)
        return rows.scatter_reduce(0, places, updates, reduce).reshape(x.shape)

    return on(site, run, 0, 1, 2)


def roi_align(site: NodeSite) -> Step:
    """The mean of samples in each cell of a grid over each region."""
    if site.text("mode", "avg") != "avg":
        raise site.refuse("only the mean of its samples is supported, not the largest")
    size = (site.node.int("output_height", 1), site.node.int("output_width", 1))
    scale, ratio = site.real("spatial_scale", 1.0), site.node.int("sampling_ratio", 0) or -1
    aligned = site.opset >= 16 and site.text("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    from torchvision.ops import roi_align as aligned_regions

    def run(x: Tensor, regions: Tensor, batch: Tensor) -> Tensor:
        rows = torch.cat([batch.to(regions.dtype).unsqueeze(1), regions], 1)
        pooled: Tensor = aligned_regions(x, rows, size, scale, ratio, aligned)
        return pooled

    return on(site, run, 0, 1, 2)


def affine_grid(site: NodeSite) -> Step:
    """The places that an affine map sends a regular grid to."""
    aligned = bool(site.node.int("align_corners", 0))
    return Step(
        lambda theta, size: F.affine_grid(theta, [int(n) for n in size], aligned),
        (site.node.inputs[0], site.numbers(1)),
    )


def col2im(site: NodeSite) -> Step:
    """Columns of patches summed back into an image of two axes."""
    reads: tuple[Read, ...] = (site.node.inputs[0], site.numbers(1), site.numbers(2))
    if (site.shape(2) or (2,)) != (2,):
        raise site.refuse("only images of two axes are supported")
    strides, dilations = site.node.ints("strides", (1, 1)), site.node.ints("dilations", (1, 1))
    top, left, bottom, right = site.node.ints("pads", (0, 0, 0, 0))

    def run(x: Tensor, image: Sequence[int], block: Sequence[int]) -> Tensor:
        height, width = image
        whole = F.fold(x, (height + top + bottom, width + left + right), tuple(block), dilations, 0, strides)
        return whole[:, :, top : top + height, left : left + width]

    return Step(run, reads)


def center_crop_pad(site: NodeSite) -> Step:
    """The middle of each axis, or zeros around it, so that it has the size asked for; the odd one is behind."""
    rank = site.rank(0)
    axes = [axis % rank for axis in site.node.ints("axes", range(rank))]

    def run(x: Tensor, sizes: Sequence[int]) -> Tensor:
        for axis, size in zip(axes, sizes, strict=True):
            have = x.shape[axis]
            if size < have:
                x = x.narrow(axis, (have - size) // 2, size)
            elif size > have:
                before = (size - have) // 2
                x = F.pad(x, (0, 0) * (rank - 1 - axis) + (before, size - have - before))
        return x

    return Step(run, (site.node.inputs[0], site.numbers(1)))


# --- boxes --------------------------------------------------------------------------------------


def non_max_suppression(site: NodeSite) -> Step:
    """The boxes kept, [kept, 3]: sample, class, box; by falling score, those that overlap a better one of their class
    left out.
    """
    most = int(site.number(2, 0))
    overlap, least = site.number(3, 0.0), site.number(4, -math.inf)
    centred = bool(site.node.int("center_point_box", 0))

    def run(boxes: Tensor, scores: Tensor) -> Tensor:
        if boxes.device.type == "meta":  # how many are kept depends on values
            return torch.empty((0, 3), dtype=torch.int64, device="meta")
        kept = [
            torch.tensor([[sample, label, box]], device=boxes.device)
            for sample in range(scores.shape[0])
            for label in range(scores.shape[1])
            for box in _kept(
                _corners(boxes[sample], centred=centred), scores[sample, label], most=most, overlap=overlap, least=least
            )
        ]
        return torch.cat(kept) if kept else torch.empty((0, 3), dtype=torch.int64, device=boxes.device)

    return on(site, run, 0, 1)


def _corners(boxes: Tensor, *, centred: bool) -> Tensor:
    """[n, 4]: the lower corner, then the upper one."""
    if centred:
        return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    return torch.cat([torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:])], 1)


def _kept(corners: Tensor, scores: Tensor, *, most: int, overlap: float, least: float) -> list[int]:
    order = torch.sort(scores, stable=True, descending=True).indices
    left = order[scores[order] > least]
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    kept: list[int] = []
    while left.numel() and len(kept) < most:
        best, left = left[0], left[1:]
        kept.append(int(best))
        sides = torch.minimum(corners[best, 2:], corners[left, 2:]) - torch.maximum(
            corners[best, :2], corners[left, :2]
        )
        shared = sides.clamp(min=0).prod(1)
        united = areas[best] + areas[left] - shared
        left = left[~((shared > 0) & (shared > overlap * united))]
    return kept


SCORING: Mapping[str, Row] = {
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "Attention": attention,
    "ScatterND": scatter_nd,
    "RoiAlign": roi_align,
    "AffineGrid": affine_grid,
    "Col2Im": col2im,
    "CenterCropPad": center_crop_pad,
    "NonMaxSuppression": non_max_suppression,
}
