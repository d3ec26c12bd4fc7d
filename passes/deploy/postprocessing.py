"""From what a network's outputs say to an answer in pixels of the image: what a task's decoder computes, as a graph.

Every function returns the ends of the graph, which the names, types and shapes of `End` declare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from passes.deploy.preprocessing import Placed, Size
from passes.deploy.steps import Steps

Axis = int | str


@dataclass(frozen=True)
class Ending:
    """How a graph ends: the size of the network's input, where the image lies in it (None: answers are in pixels of the
    input), how many images there are (a number, or the name of the axis), and whether it is for an engine, which has no
    bytes and no NonMaxSuppression."""

    size: Size
    placed: Placed | None
    batch: Axis
    engine: bool = False

    @property
    def image(self) -> tuple[Axis, Axis]:
        """Height and width that answers are in."""
        return self.size if self.placed is None else ("height", "width")


@dataclass(frozen=True)
class End:
    """An output of the whole graph: its name, the tensor that it is so far, its type and its axes."""

    name: str
    tensor: str
    dtype: npt.DTypeLike
    shape: tuple[Axis, ...]


@dataclass(frozen=True)
class BoxReading:
    """How a detector's outputs are read: anchors [A, 4] (left, top, right, bottom) level after level, how many each
    level has, the coder's weights, the largest code of a growth, the classes, whether scores are shares with a
    background in front; and which boxes are kept: see `fnatool.tasks.detection.Suppression`."""

    anchors: npt.NDArray[np.float32]
    counts: tuple[int, ...]
    weights: tuple[float, float, float, float]
    largest: float
    classes: int
    shares: bool
    least: float
    per_level: int
    overlap: float
    per_image: int


def classified(steps: Steps, logits: str, classes: int, ending: Ending) -> list[End]:
    """probabilities [N, K], and of the most probable class its number and its probability, [N]."""
    shares = steps.node("Softmax", steps.cast(logits, np.float32), axis=1)
    label = steps.node("ArgMax", shares, axis=1, keepdims=0)
    score = steps.node("Squeeze", steps.largest(shares, 1), steps.ints(1))
    return [
        End("label", label, np.int64, (ending.batch,)),
        End("score", score, np.float32, (ending.batch,)),
        End("probabilities", shares, np.float32, (ending.batch, classes)),
    ]


def segmented(steps: Steps, logits: str, undecided: int, ending: Ending) -> list[End]:
    """mask [N, h, w], uint8, of an engine int32: the best class of every pixel; `undecided` where several are equally
    good.
    """
    on_input = _interpolated(steps, steps.cast(logits, np.float32), [steps.whole(side) for side in ending.size])
    if ending.placed is not None:
        shown = steps.node("Slice", on_input, steps.ints(0, 0), steps.listed(*ending.placed.resized), steps.ints(2, 3))
        on_input = _interpolated(steps, shown, ending.placed.image)
    label = steps.node("ArgMax", on_input, axis=1, keepdims=0)
    if ending.engine:
        ties = steps.sum(steps.cast(steps.node("Equal", on_input, steps.largest(on_input, 1)), np.float32), 1)
        alone = steps.node("Equal", steps.cast(ties, np.int32), steps.constant(1, np.int32))
    else:  # the first of the best is the last of them
        alone = steps.node("Equal", label, steps.node("ArgMax", on_input, axis=1, keepdims=0, select_last_index=1))
    label = steps.cast(label, np.int32)
    mask = steps.node("Where", alone, label, steps.constant(undecided, np.int32))
    dtype = np.int32 if ending.engine else np.uint8
    return [End("mask", steps.cast(mask, dtype), dtype, (ending.batch, *ending.image))]


def _interpolated(steps: Steps, maps: str, size: Sequence[str]) -> str:
    """[N, K, h, w] at another size, bilinearly, pixels being squares."""
    front = steps.node("Slice", steps.node("Shape", maps), steps.ints(0), steps.ints(2))
    sizes = steps.joined(front, steps.listed(*size))
    return steps.node("Resize", maps, "", "", sizes, mode="linear", coordinate_transformation_mode="half_pixel")


def posed(steps: Steps, heatmaps: str, cells: Size, ending: Ending) -> list[End]:
    """points [N, J, 2], x and y of the peak of each heatmap [N, J, *cells], moved a quarter of a cell to the higher
    side; scores [N, J].
    """
    height, width = cells
    maps = steps.cast(heatmaps, np.float32)
    flat = steps.node("Reshape", maps, steps.ints(0, 0, height * width))
    peaks = steps.node("Squeeze", steps.largest(flat, 2), steps.ints(2))
    places = steps.node("ArgMax", flat, axis=2, keepdims=0)
    row = steps.div(places, steps.whole(width))
    column = steps.sub(places, steps.mul(row, steps.whole(width)))

    def moved(place: str, extent: int, step: int) -> str:
        return steps.least(steps.most(steps.add(place, steps.whole(step)), steps.whole(0)), steps.whole(extent - 1))

    def value(at: tuple[str, str]) -> str:
        index = steps.with_axes(steps.add(steps.mul(at[0], steps.whole(width)), at[1]), 2)
        return steps.node("Squeeze", steps.node("GatherElements", flat, index, axis=2), steps.ints(2))

    down = _quarter(steps, row, height, [value((moved(row, height, step), column)) for step in (1, -1)])
    along = _quarter(steps, column, width, [value((row, moved(column, width, step))) for step in (1, -1)])
    half = steps.constant(0.5, np.float32)
    axes = [
        steps.mul(
            steps.add(steps.add(steps.cast(place, np.float32), by), half), steps.constant(side / cell, np.float32)
        )
        for place, by, side, cell in ((column, along, ending.size[1], width), (row, down, ending.size[0], height))
    ]
    points = steps.joined(*(steps.with_axes(axis, 2) for axis in axes), axis=2)
    joints = "joints"
    return [
        End("points", _on_image(steps, points, ending), np.float32, (ending.batch, joints, 2)),
        End("scores", peaks, np.float32, (ending.batch, joints)),
    ]


def _quarter(steps: Steps, place: str, extent: int, beside: Sequence[str]) -> str:
    """A quarter of a cell towards the higher neighbour, nothing at the border. beside: the values behind and before."""
    step = steps.node("Sign", steps.sub(beside[0], beside[1]))
    inside = steps.node(
        "And", steps.node("Greater", place, steps.whole(0)), steps.node("Less", place, steps.whole(extent - 1))
    )
    return steps.mul(steps.mul(step, steps.constant(0.25, np.float32)), steps.cast(inside, np.float32))


def _on_image(steps: Steps, points: str, ending: Ending) -> str:
    """[…, 2] x, y in the input → in the image."""
    placed = ending.placed
    if placed is None:
        return points
    shift, scale = (steps.listed(*pair[::-1]) for pair in (placed.shift, placed.scale))
    return steps.cast(steps.div(steps.sub(steps.as_real(points), shift), scale), np.float32)


# --- boxes --------------------------------------------------------------------------------------


def detected(steps: Steps, outputs: tuple[str, str], how: BoxReading, ending: Ending) -> list[End]:
    """Objects of cls_logits [N, A, K] and codes [N, A, 4]: boxes, scores and labels.

    Where the runtime suppresses: [M, 4], [M] and [M] for the M objects of all images, the surest first, and `image`
    [M], which one each is in, unless there is one. Elsewhere those of the candidates, [N, C, 4], [N, C] and [N, C], of
    which the overlapping are left out later.
    """
    scores, codes = (steps.cast(name, np.float32) for name in outputs)
    if how.shares:
        shares = steps.node("Softmax", scores, axis=2)
        scores = steps.node("Slice", shares, steps.ints(1), steps.ints(1 + how.classes), steps.ints(2))
    else:
        scores = steps.node("Sigmoid", scores)
    rows = [_best_of_level(steps, (scores, codes), how, place) for place in _places(how.counts)]
    boxes, best, labels = (steps.joined(*parts, axis=1) for parts in zip(*rows, strict=True))
    boxes = _clipped(steps, boxes, [steps.constant(side, np.float32) for side in (ending.size[1], ending.size[0])])
    if not ending.engine:
        return _suppressed(steps, (boxes, best, labels), how, ending)
    axes: tuple[Axis, Axis] = (ending.batch, sum(min(how.per_level, count * how.classes) for count in how.counts))
    return [
        End("boxes", _boxes_on_image(steps, boxes, ending, cut=False), np.float32, (*axes, 4)),
        End("scores", best, np.float32, axes),
        End("labels", steps.cast(labels, np.int64), np.int64, axes),
    ]


def _places(counts: Sequence[int]) -> list[tuple[int, int]]:
    """The first of each level, and the first after it."""
    ends = np.cumsum(counts).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _best_of_level(
    steps: Steps, outputs: tuple[str, str], how: BoxReading, place: tuple[int, int]
) -> tuple[str, str, str]:  # fmt: skip
    """Boxes, scores and labels of the best (anchor, class) of a level."""
    start, end = place
    scores, codes = (steps.node("Slice", x, steps.ints(start), steps.ints(end), steps.ints(1)) for x in outputs)
    flat = steps.node("Reshape", scores, steps.ints(0, (end - start) * how.classes))
    most = min(how.per_level, (end - start) * how.classes)
    best, index = steps.several("TopK", 2, flat, steps.ints(most), axis=1)
    row = steps.div(index, steps.whole(how.classes))
    label = steps.sub(index, steps.mul(row, steps.whole(how.classes)))
    wide = steps.node("Tile", steps.with_axes(row, 2), steps.ints(1, 1, 4))
    code = steps.node("GatherElements", codes, wide, axis=1)
    left, top, right, bottom = how.anchors[start:end].T
    centres = np.stack([(left + right) / 2, (top + bottom) / 2], 1)
    extents = np.stack([right - left, bottom - top], 1)
    centre, extent = (steps.node("Gather", steps.constant(x, np.float32), row, axis=0) for x in (centres, extents))
    plain = steps.div(code, steps.constant(how.weights, np.float32))
    shift, growth = steps.several("Split", 2, plain, steps.ints(2, 2), axis=2)
    middle = steps.add(centre, steps.mul(shift, extent))
    grown = steps.node("Exp", steps.least(growth, steps.constant(how.largest, np.float32)))
    half = steps.mul(steps.mul(extent, grown), steps.constant(0.5, np.float32))
    return steps.joined(steps.sub(middle, half), steps.add(middle, half), axis=2), best, label


def _clipped(steps: Steps, boxes: str, sides: Sequence[str]) -> str:
    """Boxes […, 4] cut to what is between 0 and the sides (across, down), which have no axes."""
    ends = steps.listed(sides[0], sides[1], sides[0], sides[1])
    return steps.least(steps.most(boxes, steps.constant(0.0, np.float32)), ends)


def _boxes_on_image(steps: Steps, boxes: str, ending: Ending, *, cut: bool = True) -> str:
    """Boxes […, 4] of the input → in the image, cut to it unless others are to be compared with them."""
    if ending.placed is None:
        return boxes
    placed = ending.placed
    shift, scale = (steps.listed(*pair[::-1], *pair[::-1]) for pair in (placed.shift, placed.scale))
    moved = steps.cast(steps.div(steps.sub(steps.as_real(boxes), shift), scale), np.float32)
    if not cut:
        return moved
    return _clipped(steps, moved, [steps.cast(extent, np.float32) for extent in placed.image[::-1]])


def _suppressed(steps: Steps, rows: tuple[str, str, str], how: BoxReading, ending: Ending) -> list[End]:
    """The surest of each class that overlap no surer one, of each image the `per_image` best."""
    boxes, best, labels = rows
    numbers = steps.constant(np.arange(how.classes).reshape(1, -1, 1), np.int64)
    own = steps.node("Equal", steps.with_axes(labels, 1), numbers)  # [N, K, C]
    by_class = steps.node("Where", own, steps.with_axes(best, 1), steps.constant(0.0, np.float32))
    limits = (
        steps.ints(how.per_image),
        steps.constant([how.overlap], np.float32),
        steps.constant([how.least], np.float32),
    )
    found = steps.node("NonMaxSuppression", boxes, by_class, *limits)  # [M, 3] image, class, box
    image, label, box = (steps.node("Gather", found, steps.whole(k), axis=1) for k in range(3))
    score = steps.node("GatherND", best, steps.joined(steps.with_axes(image, 1), steps.with_axes(box, 1), axis=1))
    score, order = steps.several("TopK", 2, score, steps.node("Shape", score), axis=0)
    if ending.batch == 1:
        first, last, axis = steps.ints(0), steps.ints(how.per_image), steps.ints(0)
        score, order = (steps.node("Slice", x, first, last, axis) for x in (score, order))
    else:  # the rank of each in its own image
        there = steps.node(
            "Equal", steps.with_axes(steps.node("Gather", image, order), 1), steps.with_axes(_images(steps, best), 0)
        )
        rank = steps.node("CumSum", steps.cast(there, np.int32), steps.constant(0, np.int32))
        rank = steps.sum(steps.mul(rank, steps.cast(there, np.int32)), 1)
        kept = steps.node("LessOrEqual", rank, steps.constant(how.per_image, np.int32))
        score, order = (steps.node("Compress", x, kept, axis=0) for x in (score, order))
    image, label, box = (steps.node("Gather", x, order) for x in (image, label, box))
    chosen = steps.node("GatherND", boxes, steps.joined(steps.with_axes(image, 1), steps.with_axes(box, 1), axis=1))
    ends = [
        End("boxes", _boxes_on_image(steps, chosen, ending), np.float32, ("objects", 4)),
        End("scores", score, np.float32, ("objects",)),
        End("labels", label, np.int64, ("objects",)),
    ]
    return ends if ending.batch == 1 else [*ends, End("image_of", image, np.int64, ("objects",))]


def _images(steps: Steps, best: str) -> str:
    """0 … N − 1 for values [N, C]."""
    return steps.range(steps.extent(best, 0))
