"""Rows of the operators that move elements: reshape, cut, join, pick, pad.

Sizes written in a graph hold for the batch and the widths it was exported with. Here they follow the tensors of the
run, so that the same steps serve any batch, and weights with other widths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fnatool.nn.site import Given, NodeSite, Row, Step, on, torch_type
from passes.graph.regrouping import UNBOUNDED, regrouped
from passes.graph.view import element_type

# --- shape ---------------------------------------------------------------------------------------


def reshape(site: NodeSite) -> Step:
    """Row-major regrouping. Each group of axes that the probe shows to belong together keeps what it holds in this
    run.
    """
    follow = _Follow(site)
    name = site.node.inputs[0]
    if site.has(1):
        return Step(follow.reshape, (name, site.numbers(1), Given.BATCH))
    asked = list(site.node.ints("shape", ()))
    return Step(lambda x, batch: follow.reshape(x, asked, batch), (name, Given.BATCH))


class _Follow:
    """A Reshape whose written sizes follow the tensor."""

    def __init__(self, site: NodeSite) -> None:
        target, source = site.facts.shapes.get(site.node.outputs[0]), site.shape(0)
        self.name = site.node.name
        self.zero_is_zero = bool(site.node.int("allowzero", 0))
        self.batch = site.facts.batch
        self.target = target or ()
        self.groups = regrouped(source, target) if source is not None and target is not None else []

    def reshape(self, x: Tensor, asked: Sequence[int], batch: int) -> Tensor:
        sizes = [x.shape[axis] if size == 0 and not self.zero_is_zero else size for axis, size in enumerate(asked)]
        for before, after in self.groups:
            self.fit(sizes, after, _count([x.shape[axis] for axis in before]), batch)
        return x.reshape(sizes)

    def fit(self, sizes: list[int], after: Sequence[int], total: int, batch: int) -> None:
        """sizes[after] multiply to total. One entry gives way: the -1, the batch in front, or else the largest."""
        written, giving_way = 1, -1
        for axis in after:
            if sizes[axis] == -1:
                giving_way = axis
            else:
                written = written * sizes[axis]
        if giving_way < 0 and written == total:
            return
        if giving_way < 0 and after[0] == 0 and batch != self.batch and sizes[0] % self.batch == 0:
            written = written // sizes[0] * (sizes[0] // self.batch * batch)
            sizes[0] = sizes[0] // self.batch * batch
        if giving_way < 0:
            giving_way = self.largest(after)
            written = written // max(sizes[giving_way], 1)
        if written == 0 or total % written:
            raise ValueError(
                f"node '{self.name}' (Reshape) was exported for {self.target}; {total} elements do not divide "
                f"by {written}"
            )
        sizes[giving_way] = total // written

    def largest(self, after: Sequence[int]) -> int:
        found = after[0]
        for axis in after:
            if self.target[axis] > self.target[found]:
                found = axis
        return found


def flatten(site: NodeSite) -> Step:
    """Two axes: those before `axis`, those from it on."""
    axis, rank = site.axis(1) if site.node.int("axis", 1) != site.rank(0) else site.rank(0), site.rank(0)
    if axis == 1 and rank > 1:
        return on(site, lambda x: x.flatten(1), 0)
    return on(site, lambda x: x.reshape(_count(x.shape[:axis]), _count(x.shape[axis:])), 0)


def _count(shape: Sequence[int]) -> int:
    """The elements of a shape; a loop, which torch.compile follows."""
    count = 1
    for size in shape:
        count = count * size
    return count


def squeeze(site: NodeSite) -> Step:
    """The axes named go; where none are, those of size one in the graph."""
    axes = site.integers(1, "axes")
    if axes is None:
        shape = site.shape(0)
        if shape is None:
            raise site.refuse("it names no axes, and the sizes of its input are unknown")
        axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return on(site, lambda x: x.squeeze(axes), 0)


def unsqueeze(site: NodeSite) -> Step:
    """New axes of size one, at positions of the result."""
    axes = site.integers(1, "axes") or ()
    rank = site.rank(0) + len(axes)
    places = sorted(axis % rank for axis in axes)

    def run(x: Tensor) -> Tensor:
        for place in places:
            x = x.unsqueeze(place)
        return x

    return on(site, run, 0)


def transpose(site: NodeSite) -> Step:
    """Axes in another order."""
    order = site.node.ints("perm", range(site.rank(0))[::-1])
    return on(site, lambda x: x.permute(order), 0)


def expand(site: NodeSite) -> Step:
    """Broadcast to a shape; an axis that already has its size keeps the size it has in the run."""
    sizes = site.numbers(1)
    source, target = site.shape(0), site.facts.shapes.get(site.node.outputs[0])
    if source is None or target is None:
        raise site.refuse("its sizes are unknown")
    missing = len(target) - len(source)
    kept = [axis >= missing and source[axis - missing] == target[axis] for axis in range(len(target))]

    def run(x: Tensor, asked: Sequence[int]) -> Tensor:
        wanted = [1] * (len(kept) - len(asked)) + list(asked)
        for axis, keep in enumerate(kept):
            if keep and (axis > 0 or wanted[axis] == 1):
                wanted[axis] = -1
        return x.expand(wanted)

    return Step(run, (site.node.inputs[0], sizes))


def tile(site: NodeSite) -> Step:
    """The whole again, so often along each axis."""
    return Step(lambda x, times: x.tile(tuple(times)), (site.node.inputs[0], site.numbers(1)))


# --- cut and join -------------------------------------------------------------------------------


def concat(site: NodeSite) -> Step:
    """One behind the other along an axis; what does not depend on the input, with a batch of one, is repeated for every
    sample.
    """
    axis = site.axis(1)
    rank = site.rank(0)
    fixed = [name not in site.facts.data for name in site.node.inputs]
    if axis == 0 or rank < 2 or not any(fixed) or all(fixed):
        return on(site, lambda *parts: torch.cat(parts, axis), *range(len(fixed)))

    def run(*parts: Tensor) -> Tensor:
        batch = max(part.shape[0] for part, constant in zip(parts, fixed, strict=True) if not constant)
        whole = [
            part.expand(batch, *part.shape[1:]) if constant else part
            for part, constant in zip(parts, fixed, strict=True)
        ]
        return torch.cat(whole, axis)

    return on(site, run, *range(len(fixed)))


def split(site: NodeSite) -> Step:
    """Pieces along an axis, of the sizes given or equal ones; at another width in the same proportions."""
    axis, count = site.axis(0), len(site.node.outputs)
    if not site.has(1) and "split" not in site.node.attrs:
        return on(site, lambda x: torch.split(x, _equal(x.shape[axis], count), axis), 0)
    written = site.node.ints("split", ())

    def run(x: Tensor, sizes: Sequence[int] = written) -> Any:
        total, size = sum(sizes), x.shape[axis]
        if total == size:
            return torch.split(x, list(sizes), axis)
        if sum([part * size // total for part in sizes]) != size:
            raise ValueError(
                f"node '{site.node.name}' (Split) cannot cut {size} as it does {total}: into {list(sizes)}"
            )
        return torch.split(x, [part * size // total for part in sizes], axis)

    return Step(run, (site.node.inputs[0], site.numbers(1)) if site.has(1) else (site.node.inputs[0],))


def _equal(size: int, count: int) -> list[int]:
    """Equal parts; the last is smaller where they do not fit."""
    part = -(-size // count)
    return [min(part, size - k * part) for k in range(count)]


def slice_(site: NodeSite) -> Step:
    """A range along each axis named."""
    rank = site.rank(0)
    if site.opset < 10:
        starts, ends = list(site.node.ints("starts", ())), list(site.node.ints("ends", ()))
        axes = [axis % rank for axis in site.node.ints("axes", range(len(starts)))]
        cut = _Cut(site, axes, [1] * len(axes))
        return on(site, lambda x: cut(x, starts, ends), 0)
    count = (site.facts.shapes.get(site.node.inputs[1]) or (1,))[0]
    axes = [axis % rank for axis in (site.integers(3, "") or range(count))]
    cut = _Cut(site, axes, list(site.integers(4, "") or [1] * count))
    return Step(cut, (site.node.inputs[0], site.numbers(1), site.numbers(2)))


class _Cut:
    """A Slice whose bounds within the channels hold only at the width they were written for."""

    def __init__(self, site: NodeSite, axes: list[int], steps: list[int]) -> None:
        self.site, self.axes, self.steps = site, axes, steps
        shape = site.shape(0) or ()
        self.width = shape[1] if len(shape) == 4 and 1 in axes else None

    def __call__(self, x: Tensor, starts: Sequence[int], ends: Sequence[int]) -> Tensor:
        for axis, start, end, step in zip(self.axes, starts, ends, self.steps, strict=True):
            size = x.shape[axis]
            if axis == 1 and self.width not in (None, size) and (start != 0 or end < UNBOUNDED):
                name = self.site.node.name
                raise ValueError(
                    f"node '{name}' (Slice) cuts {self.width} channels at {start} and {end}; it has {size} here"
                )
            forwards = (slice(None),) * axis + (slice(start, end, step),)
            x = x[forwards] if step > 0 else _backwards(x, axis, (start, end, step))
        return x


def _backwards(x: Tensor, axis: int, bounds: tuple[int, int, int]) -> Tensor:
    start, end, step = bounds
    size = x.shape[axis]
    positions = range(*slice(start, None if end < -size else end, step).indices(size))
    return x.index_select(axis, torch.tensor(list(positions), device=x.device, dtype=torch.int64))


def gather(site: NodeSite) -> Step:
    """The entries at given positions along an axis."""
    axis = site.axis(0)
    positions = site.known(1)
    if positions is not None and positions.ndim == 0:
        position = int(positions)
        return on(site, lambda x: x.select(axis, position), 0)
    rank = len(site.shape(1) or ()) if positions is None else positions.ndim

    def run(x: Tensor, where: Tensor) -> Tensor:
        size = x.shape[axis]
        flat = where.reshape(-1).long()
        picked = x.index_select(axis, torch.where(flat < 0, flat + size, flat))
        return picked if rank == 1 else picked.reshape(*x.shape[:axis], *where.shape, *x.shape[axis + 1 :])

    return on(site, run, 0, 1)


def gather_elements(site: NodeSite) -> Step:
    """Each element from the position, along an axis, that stands in its place."""
    axis = site.axis(0)
    return on(site, lambda x, where: x.gather(axis, where.long() % x.shape[axis]), 0, 1)


def scatter_elements(site: NodeSite) -> Step:
    """x with elements replaced, or reduced with others, at the positions that stand in their places."""
    axis, reduce = site.axis(0), site.text("reduction", "none")
    if reduce == "none":
        return on(site, lambda x, where, new: x.scatter(axis, where.long() % x.shape[axis], new), 0, 1, 2)
    kind = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}[reduce]
    return on(site, lambda x, where, new: x.scatter_reduce(axis, where.long() % x.shape[axis], new, kind), 0, 1, 2)


def gather_nd(site: NodeSite) -> Step:
    """Slices at positions along several leading axes."""
    lead = site.node.int("batch_dims", 0)
    depth = (site.shape(1) or (0,))[-1]

    def run(x: Tensor, where: Tensor) -> Tensor:
        flat = x.reshape(_count(x.shape[:lead]), *x.shape[lead:])
        rows = where.reshape(_count(where.shape[:lead]), -1, depth).long()
        index = [torch.arange(flat.shape[0], device=x.device).unsqueeze(1), *rows.unbind(-1)]
        picked = flat[tuple(index)]
        return picked.reshape(*where.shape[:-1], *x.shape[lead + depth :])

    return on(site, run, 0, 1)


# --- pad ----------------------------------------------------------------------------------------


def pad(site: NodeSite) -> Step:
    """More space on any axis, filled with a constant or from the tensor; negative pads cut."""
    mode, rank = site.text("mode", "constant"), site.rank(0)
    axes = [axis % rank for axis in (site.integers(3, "") or range(rank))]
    if not site.has(1):
        pads, value = site.node.ints("pads", ()), site.real("value", 0.0)
        return on(site, lambda x: _padded(x, axes, pads, (mode, value)), 0)
    fill = (mode, site.number(2, 0.0))
    return Step(lambda x, pads: _padded(x, axes, pads, fill), (site.node.inputs[0], site.numbers(1)))


def _padded(x: Tensor, axes: Sequence[int], pads: Sequence[int], fill: tuple[str, float]) -> Tensor:
    before = dict(zip(axes, pads[: len(axes)], strict=True))
    after = dict(zip(axes, pads[len(axes) :], strict=True))
    touched = [axis for axis in axes if before[axis] or after[axis]]
    if not touched:
        return x
    mode, value = fill
    if mode == "constant":
        pairs = [side.get(axis, 0) for axis in range(x.dim() - 1, min(touched) - 1, -1) for side in (before, after)]
        return F.pad(x, pairs, value=value)
    if x.dim() == 4 and min(touched) >= 2 and mode in TORCH_PADS and min(*before.values(), *after.values()) >= 0:
        pairs = [side.get(axis, 0) for axis in (3, 2) for side in (before, after)]
        return F.pad(x, pairs, TORCH_PADS[mode])
    for axis in touched:
        places = _places(x.shape[axis], before[axis], after[axis], mode)
        x = x.index_select(axis, torch.tensor(places, device=x.device, dtype=torch.int64))
    return x


TORCH_PADS = {"reflect": "reflect", "edge": "replicate"}


def _places(size: int, before: int, after: int, mode: str) -> list[int]:
    """Where along an axis each padded element comes from."""
    if mode == "edge":
        return [min(max(i, 0), size - 1) for i in range(-before, size + after)]
    if mode == "wrap":
        return [i % size for i in range(-before, size + after)]
    period = max(2 * (size - 1), 1)
    return [min(i % period, period - i % period) if size > 1 else 0 for i in range(-before, size + after)]


# --- space and depth ----------------------------------------------------------------------------


def depth_to_space(site: NodeSite) -> Step:
    """Blocks of channels become blocks of space; DCR: the block's position is the slow part of the channel, CRD: the
    quick one.
    """
    block, mode = site.node.int("blocksize", 1), site.text("mode", "DCR")
    if mode == "CRD":
        return on(site, lambda x: F.pixel_shuffle(x, block), 0)

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(n, block, block, c // block**2, h, w)
        return parts.permute(0, 3, 4, 1, 5, 2).reshape(n, c // block**2, h * block, w * block)

    return on(site, run, 0)


def space_to_depth(site: NodeSite) -> Step:
    """Blocks of space become channels; DCR: the block's position is the slow part of the channel, CRD: the quick
    one.
    """
    block, mode = site.node.int("blocksize", 1), site.text("mode", "DCR")
    if mode == "CRD":
        return on(site, lambda x: F.pixel_unshuffle(x, block), 0)

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(n, c, h // block, block, w // block, block)
        return parts.permute(0, 3, 5, 1, 2, 4).reshape(n, c * block**2, h // block, w // block)

    return on(site, run, 0)


# --- made from sizes ----------------------------------------------------------------------------


def shape(site: NodeSite) -> Step:
    """The sizes of the first input, as numbers of the run."""
    start, end = site.node.int("start", 0), site.node.attrs.get("end")
    return on(site, lambda x: list(x.shape)[start:end], 0)


def size(site: NodeSite) -> Step:
    """The number of elements of the first input, as a number of the run."""
    return on(site, lambda x: [x.numel()], 0)


def filled(site: NodeSite) -> Step:
    """A tensor of one value in a shape computed in the run."""
    value = site.node.attrs.get("value")
    fill = np.zeros(1, np.float32) if value is None else np.asarray(value.values)
    number = fill.reshape(-1)[0].item()
    dtype = torch_type(element_type(fill.dtype))
    as_weights = element_type(fill.dtype) == site.facts.main_type

    def run(sizes: Sequence[int], like: Tensor) -> Tensor:
        return torch.full(tuple(sizes), number, dtype=like.dtype if as_weights else dtype, device=like.device)

    return Step(run, (site.numbers(0), Given.LIKE))


def range_(site: NodeSite) -> Step:
    """start, start + delta, … below limit."""
    dtype = torch_type(site.facts.types[site.node.inputs[0]])

    def run(start: Sequence[Any], limit: Sequence[Any], delta: Sequence[Any], like: Tensor) -> Tensor:
        return torch.arange(start[0], limit[0], delta[0], dtype=dtype, device=like.device)

    return Step(run, (site.numbers(0), site.numbers(1), site.numbers(2), Given.LIKE))


def one_hot(site: NodeSite) -> Step:
    """on_value at the position along a new axis, off_value elsewhere."""
    axis = site.node.int("axis", -1)
    rank = site.rank(0) + 1

    def run(where: Tensor, depth: Sequence[int], values: Tensor) -> Tensor:
        count, place = int(depth[0]), axis % rank
        positions = torch.arange(count, device=where.device).reshape([-1 if k == place else 1 for k in range(rank)])
        index = where.long().unsqueeze(place)
        hot = torch.where(index < 0, index + count, index) == positions  # what is out of range is nowhere
        return torch.where(hot, values[1], values[0])

    return Step(run, (site.node.inputs[0], site.numbers(1), site.node.inputs[2]))


def eye_like(site: NodeSite) -> Step:
    """Ones on a diagonal, in the shape of the input."""
    k, to = site.node.int("k", 0), site.node.attrs.get("dtype")
    dtype = None if to is None else torch_type(to if isinstance(to, int) else element_type(to))

    def run(x: Tensor) -> Tensor:
        made = torch.ones(x.shape, dtype=dtype or x.dtype, device=x.device)
        return made.triu(k) - made.triu(k + 1)

    return on(site, run, 0)


def triangle(site: NodeSite) -> Step:
    """The elements above or below a diagonal, zeros elsewhere."""
    k = int(site.number(1, 0))
    cut: Callable[[Tensor, int], Tensor] = torch.triu if site.node.int("upper", 1) else torch.tril
    return on(site, lambda x: cut(x, k), 0)


MOVING: Mapping[str, Row] = {
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Expand": expand,
    "Tile": tile,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ScatterElements": scatter_elements,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Shape": shape,
    "Size": size,
    "ConstantOfShape": filled,
    "Range": range_,
    "OneHot": one_hot,
    "EyeLike": eye_like,
    "Trilu": triangle,
}
