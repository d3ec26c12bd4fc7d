"""Rules of the operators that slide windows over a map: convolution and pooling, global pooling too.

Strides that become dilations. Let X' be X sampled more finely: X'[d·i] = X[i] for 0 ≤ i < L, and d(L−1)+1 ≤ L' ≤ d·L. A
window of k taps with stride s, dilation δ and pads p, q gets stride 1, dilation d·δ and pads d·p, d·q. Then Y'[d·s·i]
reads X' at d·(s·i + δ·j − p), that is X[s·i + δ·j − p], or padding where that lies outside of X: to the left because
the sign is the same, to the right because d·L ≥ L'. So Y'[r·i] = Y[i] with r = d·s. With N = L + p + q − δ(k−1), the
positions at stride 1, there are L_out = ⌈N/s⌉ samples before and L'_out = d·N − (d·L − L') after, and r(L_out−1)+1 ≤
d(N−1)+1 ≤ L'_out ≤ d·N ≤ r·L_out: the same bounds hold for Y'.

More padding behind changes nothing as long as L'_out ≤ r·L_out. It is added where a window that kept ⌈L/s⌉ samples of a
known L would leave fewer than it reads (Keras' pads [0,0,1,1] at stride 2 become [0,0,2,2] at stride 1), and where
rounding up made room for a last window: d(s−1) more is enough for every L, and not too much, as long as a last window
always starts inside (q + s − 1 ≤ δ(k−1)).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from passes.graph.operators import CONSTANTS, SLIDING, of, of_form
from passes.graph.tensors import Shape
from passes.graph.view import Node
from passes.maps.contents import (
    Axes,
    Content,
    Pooled,
    Side,
    changed,
    count,
    finer,
    has_space,
    one_side,
    sides,
    size_after,
    size_before,
)
from passes.maps.positions import MapSpace, Rule, Stuck, Unfollowed
from passes.maps.shared import only_seeds_samples, require_map


@dataclass(frozen=True)
class AxisWindow:
    """A window along one axis: taps, stride, dilation, and the padding before and behind (`same`: chosen at run
    time).
    """

    taps: int
    stride: int
    dilation: int
    before: int
    behind: int
    same: bool
    up: bool

    @property
    def trivial(self) -> bool:
        """Whether it reads each position by itself."""
        return self.taps == 1 and self.stride == 1 and self.before == 0 and self.behind == 0

    @property
    def reach(self) -> int:
        """Positions from the first tap to the last."""
        return self.dilation * (self.taps - 1)

    @property
    def always_inside(self) -> bool:
        """Whether the last window starts inside however it is rounded up; otherwise ONNX's versions and its runtimes
        disagree.
        """
        return self.behind + self.stride - 1 <= self.reach

    def positions(self, size: int) -> int:
        """How many windows there are over so many samples (ONNX's definition)."""
        if self.same:
            return -(-size // self.stride)
        last = size + self.before + self.behind - self.reach - 1
        return (-(-last // self.stride) if self.up else last // self.stride) + 1


DILATED_FROM = {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}
"""pooling → the version of the standard from which it has dilations."""


def windows(node: Node, space: MapSpace) -> tuple[AxisWindow, ...]:
    """The windows of a convolution or pooling, axis by axis."""
    dense = of(node.op).dense
    extents = node.ints("kernel_shape", space.shape(node.inputs[dense[-1]])[2:] if dense else ())
    count = len(extents)
    pads = node.ints("pads", (0,) * (2 * count))
    strides, dilations = node.ints("strides", (1,) * count), node.ints("dilations", (1,) * count)
    return _windows(
        extents, pads, strides, dilations, node.attrs.get("auto_pad", "NOTSET"), bool(node.int("ceil_mode", 0))
    )


@functools.lru_cache
def _windows(  # of all layers that are alike
    extents: tuple[int, ...],
    pads: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    mode: str,
    up: bool,
) -> tuple[AxisWindow, ...]:
    count = len(extents)
    pads = pads if mode == "NOTSET" else (0,) * (2 * count)
    return tuple(
        AxisWindow(
            taps=extents[a],
            stride=strides[a],
            dilation=dilations[a],
            before=pads[a],
            behind=pads[a + count],
            same=mode not in ("NOTSET", "VALID"),
            up=up,
        )
        for a in range(count)
    )


def slides(node: Node, space: MapSpace) -> list[Axes]:
    """A convolution or pooling over axes 2 and on: strides beyond the limit become dilations; a window over the whole
    map stays one.
    """
    x, out = space.axes(node.inputs[0]), space.shape(node.outputs[0])
    old = windows(node, space)
    convolves = bool(of(node.op).dense)
    if len(old) != len(x) - 2 or (convolves and has_space(x[1])):
        raise Unfollowed(f"'{node.name}' ({node.op}) slides over something else than a map")
    known = all(space.is_fixed(side) for content in x[2:] for side in sides(content))
    if not convolves and node.name not in space.local and known and _covers(x[2:], old, out[2:]):
        return [(x[0], x[1], *_pooled_whole(node, space, x[2:]))]
    new, result = list(old), list[Content]()
    for axis, window in enumerate(old):
        content, there = x[2 + axis], out[2 + axis]
        side = one_side(content)
        if window.trivial:
            result.append(content)
        elif not sides(content):
            require_map(content)
            result.append(count(there))
        elif side is None:
            raise Unfollowed(f"'{node.name}' ({node.op}) slides over several extents at once")
        else:
            slid, new[axis] = _slid(node, space, side, window, there=there)
            result.append((slid,))
    if new != list(old):
        _rewrite(node, space, old, new)
    channels = count(out[1]) if convolves else x[1]
    return [(x[0], channels, *result)] * len(node.outputs)


def _covers(x: Axes, over: Sequence[AxisWindow], out: Shape) -> bool:
    """Whether one window without pads is all there is."""
    pairs = zip(over, x, strict=True)
    whole = all(
        w.taps == size_before(c) and w.before == w.behind == 0 and w.dilation == 1 and not w.same for w, c in pairs
    )
    return whole and any(map(sides, x)) and all(size == 1 for size in out) and max(w.taps for w in over) > 1


def _pooled_whole(node: Node, space: MapSpace, x: Axes) -> Axes:
    if CONSTANTS not in of(node.op).has and any(map(finer, x)):
        raise Stuck(f"'{node.name}' ({node.op}) sums over a map, which would have more samples")
    space.average(node, x)
    if any(map(changed, x)):
        extents = [size_after(content) for content in x]
        space.edit(node, kernel_shape=extents)
        space.notes.append(f"'{node.name}' ({node.op}) covers the whole map and stays global")
    return ((Pooled(node.name),),) * len(x)


def _slid(node: Node, space: MapSpace, side: Side, window: AxisWindow, *, there: int) -> tuple[Side, AxisWindow]:
    """The side after the window, and the window that makes it; there were `there` samples behind it."""
    dilates = space.strides_on(side, window.stride, node)
    stride = None if side.stride is None else side.stride * (1 if dilates else window.stride)
    if not dilates and not side.changed:
        return Side(side.axis, stride, there, there), window
    if window.up and window.stride > 1 and not window.always_inside:
        raise Stuck(
            f"'{node.name}' ({node.op}) rounds up to windows that may lie beyond its map, on which runtimes disagree"
        )
    if not dilates and side.rate == 1:
        new = window.positions(side.new)
        if new < 1:
            raise Stuck(f"'{node.name}' ({node.op}) has a window of {window.reach + 1} on a map of {side.new}")
        return Side(side.axis, stride, there, new), window
    finer_window = _dilated(node, space, side, window, there=there)
    return Side(side.axis, stride, there, finer_window.positions(side.new), side.rate * window.stride), finer_window


def _dilated(node: Node, space: MapSpace, side: Side, window: AxisWindow, *, there: int) -> AxisWindow:
    """The window at stride 1 whose every rate·stride-th result is what there was (see the equations above)."""
    d, s = side.rate, window.stride
    if window.same:
        if s > 1 or window.reach % 2:
            raise Stuck(
                f"the pads of '{node.name}' ({node.op}) depend on the image size, which is free; give it one "
                "first, in a remap of its own"
            )
        return replace(window, dilation=d * window.dilation)
    dilation = d * window.dilation if window.taps > 1 else window.dilation
    new = AxisWindow(
        taps=window.taps,
        stride=1,
        dilation=dilation,
        before=d * window.before,
        behind=d * window.behind,
        same=False,
        up=False,
    )
    if s > 1 and window.up and node.int("count_include_pad", 0):
        raise Stuck(f"'{node.name}' ({node.op}) rounds up and counts its padding, which cannot be written as pads")
    fixed, natural, needed = space.is_fixed(side), new.positions(side.new), d * s * (there - 1) + 1
    least = d * (s - 1) if window.up else 0  # right for every L; where L is known, what is needed for it will do
    wanted = max(side.new - natural, least) if s > 1 and there == -(-side.old // s) and fixed else least
    rooms = [wanted, least, max(needed - natural, 0) if fixed else least]
    room = rooms[0]
    since = DILATED_FROM.get(node.op)
    if since is not None and since > space.view.opset and new.dilation != window.dilation:
        versions = f"{node.op} has dilations from opset {since} on, this model is opset {space.view.opset}"
        raise Stuck(f"'{node.name}' would need a dilation of {new.dilation}: {versions}; convert it first")
    if since is not None:
        room = _room(node, space, new, rooms)
    if not needed <= natural + room <= d * s * there:
        raise Stuck(
            f"'{node.name}' ({node.op}) leaves {natural + room} samples, from which the {there} it left cannot be taken"
        )
    return replace(new, behind=new.behind + room)


def _room(node: Node, space: MapSpace, window: AxisWindow, rooms: Sequence[int]) -> int:
    """The first room behind for which ONNX Runtime can run the pool: it wants fewer pads than taps."""
    pads = [max(window.before, window.behind + room) for room in rooms]
    reasons = [f"'{node.name}' ({node.op}) would need {pad} pads on a window of {window.taps}" for pad in pads]
    fitting = next((k for k, pad in enumerate(pads) if pad < window.taps), None)
    if fitting is None:
        raise Stuck(f"{reasons[-1]}, and ONNX Runtime wants fewer than that")
    if rooms[fitting] != rooms[0]:
        space.cropped.append(f"{reasons[0]} to keep its map, and ONNX Runtime wants fewer than that")
    return rooms[fitting]


def _rewrite(node: Node, space: MapSpace, old: Sequence[AxisWindow], new: Sequence[AxisWindow]) -> None:
    if node.op == "MaxPool" and any(
        name in space.view.readers or name in space.view.outputs for name in node.outputs[1:] if name
    ):
        raise Stuck(f"the positions that '{node.name}' (MaxPool) gives would be others")
    if any(window.stride != was.stride for window, was in zip(new, old, strict=True)):
        space.edit(node, strides=[window.stride for window in new])
    if any(window.dilation != was.dilation for window, was in zip(new, old, strict=True)):
        space.edit(node, dilations=[window.dilation for window in new])
    if any((window.before, window.behind) != (was.before, was.behind) for window, was in zip(new, old, strict=True)):
        space.edit(node, pads=[*(window.before for window in new), *(window.behind for window in new)])
        if "auto_pad" in node.attrs:
            space.edit(node, auto_pad="NOTSET")
    if any(was.up and not window.up for window, was in zip(new, old, strict=True)):
        space.edit(node, ceil_mode=0)


def transposed(node: Node, space: MapSpace) -> Axes:
    """A transposed convolution makes the map larger by its stride."""
    x, out = space.axes(node.inputs[0]), space.shape(node.outputs[0])
    over = windows(node, space)
    if len(over) != len(x) - 2 or has_space(x[1]):
        raise Unfollowed(f"'{node.name}' ({node.op}) slides over something else than a map")
    more = node.ints("output_padding", (0,) * len(over))
    result = list[Content]()
    for axis, window in enumerate(over):
        content, there = x[2 + axis], out[2 + axis]
        side = one_side(content)
        if not sides(content):
            result.append(count(there))
            continue
        if side is None:
            raise Unfollowed(f"'{node.name}' ({node.op}) slides over several extents at once")
        only_seeds_samples(node, side)
        if side.changed and "output_shape" in node.attrs:
            raise Stuck(f"the output size of '{node.name}' ({node.op}) is written in the file")
        stride = None if side.stride is None else side.stride / window.stride
        pads = window.before + window.behind
        grown = (
            side.new * window.stride
            if window.same
            else (side.new - 1) * window.stride + window.reach + 1 + more[axis] - pads
        )
        result.append((Side(side.axis, stride, there, grown if side.changed else there),))
    return (x[0], count(out[1]), *result)


def unpooled(node: Node, space: MapSpace) -> Axes:
    """The map that a pooling read whose positions are given: they count in it, so it has to be made again as large as
    it is there.
    """
    x, out = space.axes(node.inputs[0]), space.shape(node.outputs[0])
    pool = space.view.by_name.get(space.view.producer.get(node.inputs[1], ""))
    over = windows(node, space)
    if pool is None or pool.op != "MaxPool" or len(over) != len(x) - 2:
        raise Unfollowed(f"'{node.name}' ({node.op}) takes positions that are no pooling's")
    pooled = space.axes(pool.inputs[0])
    if tuple(map(size_before, pooled)) != tuple(out):
        raise Unfollowed(f"'{node.name}' ({node.op}) makes another map than '{pool.name}' (MaxPool) read")
    for axis, window in enumerate(over, 2):
        if not changed(pooled[axis]):
            continue
        size = size_after(pooled[axis])
        if node.input(2):
            space.number(node, 2, axis, size)
        elif (size_after(x[axis]) - 1) * window.stride + window.reach + 1 - window.before - window.behind != size:
            raise Stuck(
                f"'{node.name}' ({node.op}) makes another map than '{pool.name}' (MaxPool) would read, of "
                f"{size} samples"
            )
    return (x[0], x[1], *pooled[2:])


def whole_map(node: Node, space: MapSpace) -> Axes:
    """All of space, channel by channel."""
    x = space.axes(node.inputs[0])
    if CONSTANTS not in of(node.op).has and any(map(finer, x[2:])):
        raise Stuck(f"'{node.name}' ({node.op}) sums over a map, which would have more samples")
    for content in x[2:]:
        require_map(content)
    space.average(node, x[2:])
    return (*x[:2], *((),) * (len(x) - 2))


WINDOWS: Mapping[str, Rule] = {
    **dict.fromkeys(SLIDING, slides),
    **dict.fromkeys(of_form("transposed convolution"), transposed),
    **dict.fromkeys(of_form("global pooling"), whole_map),
    "MaxUnpool": unpooled,
}
