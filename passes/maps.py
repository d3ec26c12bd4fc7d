"""Where maps lie in the image, one row per operator, and what becomes of them when the image or the strides change.

One walk in the order of the graph gives every tensor, axis by axis, its extents in space (`Side`): how many pixels of the image lie between
two samples, how many samples there are, before and after. Numbers and attributes that count samples follow; what cannot follow is `Stuck`,
with the reason.

Strides that become dilations. Let X' be X sampled more finely: X'[d·i] = X[i] for 0 ≤ i < L, and d(L−1)+1 ≤ L' ≤ d·L. A window of k taps
with stride s, dilation δ and pads p, q gets stride 1, dilation d·δ and pads d·p, d·q. Then Y'[d·s·i] reads X' at d·(s·i + δ·j − p), that is
X[s·i + δ·j − p], or padding where that lies outside of X: to the left because the sign is the same, to the right because d·L ≥ L'. So
Y'[r·i] = Y[i] with r = d·s. With N = L + p + q − δ(k−1), the positions at stride 1, there are L_out = ⌈N/s⌉ samples before and
L'_out = d·N − (d·L − L') after, and r(L_out−1)+1 ≤ d(N−1)+1 ≤ L'_out ≤ d·N ≤ r·L_out: the same bounds hold for Y'.

More padding behind changes nothing as long as L'_out ≤ r·L_out. It is added where a window that kept ⌈L/s⌉ samples of a known L would leave
fewer than it reads (Keras' pads [0,0,1,1] at stride 2 become [0,0,2,2] at stride 1), and where rounding up made room for a last window:
d(s−1) more is enough for every L, and not too much, as long as a last window always starts inside (q + s − 1 ≤ δ(k−1)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from passes.rules import NARY, REDUCTIONS, UNARY
from passes.shapes import Shape, Shapes
from passes.view import Node, View

UNBOUNDED = 1 << 30  # a slice's end from here on means: to the end, whatever the size


@dataclass(frozen=True, slots=True)
class Side:
    """One extent of a map in space, before and after the change.

    `axis`: the input and its axis that it comes from; `stride`: pixels of the image from one sample to the next, afterwards (None: no one
    number); `old`, `new`: how many samples; `rate`: samples afterwards per sample before.
    """

    axis: tuple[str, int]
    stride: Fraction | None
    old: int
    new: int
    rate: int = 1

    @property
    def changed(self) -> bool:
        """Whether it has other samples than before."""
        return self.new != self.old or self.rate != 1


@dataclass(frozen=True, slots=True)
class Pooled:
    """What a window as large as the map leaves of an extent: one sample. Its node stays global when the map grows.

    Where a map of one position is combined with it, or a window, a resampling or another pooling runs over it, it was a window after all.
    """

    node: str


Factor = int | Side | Pooled
Content = tuple[Factor, ...]
"""What an axis counts, row-major; () is one, and no factor is the number 1."""
Axes = tuple[Content, ...]


@dataclass(frozen=True)
class Map:
    """The axes of a tensor that comes from the image; `averaged`: the first node on the way here that looked at a whole finer map."""

    axes: Axes
    averaged: str = ""


@dataclass(frozen=True)
class Sampling:
    """The samples of a finer tensor that the coarser one had: split into `sizes`, every `steps`-th of each, joined to `shape`."""

    sizes: Shape
    steps: Shape
    shape: Shape

    def of(self, array: np.ndarray) -> np.ndarray:
        """The sampled tensor."""
        return array.reshape(self.sizes)[tuple(slice(None, None, step) for step in self.steps)].reshape(self.shape)


class Stuck(Exception):
    """The change cannot be carried on, for the reason given; nothing has been decided then."""


class NotGlobal(Exception):
    """The window of the node named, which covers its map, is no global pooling."""


class Unfollowed(Stuck):
    """A map is not followed beyond a node, which matters only if it has changed there."""


Rule = Callable[[Node, "Space"], Axes | list[Axes]]


@dataclass
class Space:
    """The maps of a network, and what has to be edited for the change.

    `limit` caps the running stride (None: strides stay). `edits`: node → attributes; `numbers`: constant → its new value; `settled`:
    constants that already hold what they must; `local`: nodes whose window covers their map by chance; `lost`: tensor → why it is not
    followed; `averages`: the nodes that look at whole finer maps for others to use; `cropped`: pools that leave smaller maps than they
    should; `notes`: what a reader of the plan may want to know.
    """

    view: View
    shapes: Shapes
    limit: int | None = None
    maps: dict[str, Map] = field(default_factory=dict)
    edits: dict[str, dict[str, object]] = field(default_factory=dict)
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    settled: Mapping[str, np.ndarray] = field(default_factory=dict)
    local: frozenset[str] = frozenset()
    lost: dict[str, str] = field(default_factory=dict)
    averages: list[str] = field(default_factory=list)
    cropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written: dict[tuple[str, int], int] = field(default_factory=dict)
    averaged: str = ""

    # --- what rules ask ---

    def shape(self, name: str) -> Shape:
        """The tensor's shape before the change."""
        shape = self.shapes.shapes.get(name)
        if shape is None:
            raise Unfollowed(f"the size of '{name}' is unknown")
        return shape

    def axes(self, name: str) -> Axes:
        """What the tensor's axes count; plain numbers where it is no map."""
        known = self.maps.get(name)
        return plain(self.shape(name)) if known is None else known.axes

    def ints(self, node: Node, slot: int) -> list[int] | None:
        """The integers of an input, None where it is absent or unknown."""
        value = self.shapes.values.get(node.input(slot)) if node.input(slot) else None
        return None if value is None else [int(v) for v in value.array.ravel()]

    def settled_ints(self, node: Node, slot: int) -> dict[int, int]:
        """Those integers of an input that already are what they must be after the change."""
        value = self.shapes.values.get(node.input(slot))
        places = enumerate(() if value is None else value.source)
        known = {index: place for index, place in places if place is not None and place[0] in self.settled}
        return {index: int(self.settled[name].ravel()[at]) for index, (name, at) in known.items()}

    def number(self, node: Node, slot: int, index: int, new: int) -> None:
        """Element `index` of an input of the node becomes `new`; one that the graph computes follows by itself."""
        value = self.shapes.values.get(node.input(slot))
        place = None if value is None else value.source[index]
        if place is None or place[0] in self.settled:
            return
        name, position = place
        if self.written.setdefault(place, new) != new:
            raise Stuck(f"'{name}' would have to say {self.written[place]} and {new} at once ('{node.name}')")
        array = self.numbers.get(name)
        if int((self.view.values(name) if array is None else array).ravel()[position]) != new:
            array = self.view.values(name).copy() if array is None else array
            array.reshape(-1)[position] = new
            self.numbers[name] = array

    def edit(self, node: Node, **attributes: object) -> None:
        """The node gets these attributes."""
        self.edits.setdefault(node.name, {}).update(attributes)

    def average(self, node: Node, contents: Sequence[Content]) -> None:
        """The node looks at all samples of these extents: what comes after a finer one is another value."""
        if any(map(finer, contents)):
            self.averaged = self.averaged or node.name

    def is_fixed(self, side: Side) -> bool:
        """Whether the file says the size of the image on this side, so that no other has to be right too."""
        declared = self.view.inputs[side.axis[0]][0]
        return declared is not None and isinstance(declared[side.axis[1]], int)

    def strides_on(self, side: Side, by: int, node: Node) -> bool:
        """Whether a stride on this side has to become a dilation."""
        if by == 1 or self.limit is None:
            return False
        if side.stride is None:
            raise Stuck(f"'{node.name}' ({node.op}) strides over a map whose own stride is not known")
        return side.rate != 1 or side.stride * by > self.limit

    # --- the walk ---

    def visit(self, node: Node) -> None:
        """The outputs of a node are followed, or lost with the reason. Raises Stuck where something that changed cannot be followed."""
        known = [self.maps[name] for name in node.inputs if name in self.maps]
        reason = next((self.lost[name] for name in node.inputs if name in self.lost), None)
        if reason is not None:
            self._lose(node, reason)
            return
        if not known or node.op in ("Shape", "Size"):
            return
        self.averaged = next((known_map.averaged for known_map in known if known_map.averaged), "")
        spatial = any(has_space(content) for known_map in known for content in known_map.axes)
        try:
            found = self._found(node, spatial=spatial)
        except Stuck as why:
            if isinstance(why, Unfollowed) or self.limit is None:
                self._lose(node, str(why))
                return
            hints = self.cropped[-1:] if node.op in NARY or node.op == "Concat" else []
            raise Stuck("; ".join((str(why), *hints))) from why
        for name, axes in zip(node.outputs, found, strict=False):
            if name:
                self.maps[name] = Map(axes, self.averaged)
                if self.averaged and any(map(sides, axes)):
                    self.averages.append(self.averaged)

    def _found(self, node: Node, *, spatial: bool) -> list[Axes]:
        rule = SPACE.get(node.op)
        if rule is None and spatial:
            raise Unfollowed(f"operator {node.op} ('{node.name}') has no rule for space")
        if any(name and name not in self.shapes.shapes for name in (*node.inputs, node.outputs[0])):
            raise Unfollowed(f"the sizes around '{node.name}' ({node.op}) are unknown")
        if any(0 in self.shapes.shapes[name] for name in (*node.inputs, node.outputs[0]) if name):
            raise Unfollowed(f"there is nothing in the tensors around '{node.name}' ({node.op})")
        if rule is None or not (spatial or node.op in SPREADING):
            return [plain(self.shapes.shapes.get(name, ())) for name in node.outputs]
        found = rule(node, self)
        return found if isinstance(found, list) else [found]

    def _lose(self, node: Node, reason: str) -> None:
        reached = [self.maps[name] for name in node.inputs if name in self.maps]
        if any(changed(content) for known in reached for content in known.axes) or any(known.averaged for known in reached):
            raise Stuck(reason)
        if self.limit is not None and node.op in WINDOWS and max(node.ints("strides", (1,))) > 1:
            raise Stuck(reason)
        self.lost.update((name, reason) for name in node.outputs if name)

    # --- what was found ---

    def strides(self) -> frozenset[int]:
        """The whole strides of all maps; the image itself has 1."""
        found = {factor.stride for known in self.maps.values() for content in known.axes for factor in content if isinstance(factor, Side)}
        return frozenset(int(stride) for stride in found if stride is not None and stride.denominator == 1)

    def sampling(self, name: str) -> Sampling | None:
        """How to sample the tensor to get what it was before. Raises KeyError for one that was not followed."""
        axes = self.maps[name].axes
        factors = [factor for content in axes for factor in content]
        steps = tuple(factor.rate if isinstance(factor, Side) else 1 for factor in factors)
        if all(step == 1 for step in steps):
            return None
        return Sampling(tuple(map(after, factors)), steps, tuple(math.prod(map(before, content)) for content in axes))


def follow(
    view: View, shapes: Shapes, maps: Mapping[str, Map], *, limit: int | None = None, settled: Mapping[str, np.ndarray] | None = None
) -> Space:
    """All maps that come from the inputs given as maps. Raises Stuck where the change that they or the limit ask for is not possible."""
    local: frozenset[str] = frozenset()
    while True:
        space = Space(view, shapes, limit, dict(maps), settled=settled or {}, local=local)
        try:
            for node in view.nodes:
                space.visit(node)
            return space
        except NotGlobal as found:
            local |= {str(found)}


def convolved_axes(view: View, shapes: Shapes, name: str) -> tuple[int, ...] | None:
    """The axes of an input over which the first convolution that it reaches slides, in that order; None where it reaches none."""
    sides = tuple((Side((name, axis), Fraction(1), size, size),) for axis, size in enumerate(shapes.shapes[name]))
    space = Space(view, shapes, maps={name: Map(sides)}, local=frozenset(view.by_name))
    for node in view.nodes:
        known = space.maps.get(node.input(0)) if node.op == "Conv" else None
        if known is not None and any(has_space(content) for content in known.axes[2:]):
            slides = [content[0].axis[1] for content in known.axes[2:] if len(content) == 1 and isinstance(content[0], Side)]
            return tuple(slides) if len(slides) == len(known.axes) - 2 else None
        space.visit(node)
    return None


# --- contents of an axis ----------------------------------------------------------------------------------------------------------------


def plain(shape: Shape) -> Axes:
    """Axes that count nothing in space."""
    return tuple(map(count, shape))


def count(number: int) -> Content:
    """An axis of so many entries that are no positions."""
    return () if number == 1 else (number,)


def before(factor: Factor) -> int:
    """The factor's size before the change."""
    return factor if isinstance(factor, int) else factor.old if isinstance(factor, Side) else 1


def after(factor: Factor) -> int:
    """The factor's size after the change."""
    return factor if isinstance(factor, int) else factor.new if isinstance(factor, Side) else 1


def size_before(content: Content) -> int:
    """The axis' size before the change."""
    return math.prod(map(before, content))


def size_after(content: Content) -> int:
    """The axis' size after the change."""
    return math.prod(map(after, content))


def sides(content: Content) -> list[Side]:
    """The extents of maps in an axis."""
    return [factor for factor in content if isinstance(factor, Side)]


def has_space(content: Content) -> bool:
    """Whether the axis counts positions, or what a window over all of them left."""
    return any(not isinstance(factor, int) for factor in content)


def changed(content: Content) -> bool:
    """Whether the axis has other samples than before."""
    return any(side.changed for side in sides(content))


def finer(content: Content) -> bool:
    """Whether the axis has samples between those it had."""
    return any(side.rate != 1 and side.new != side.old for side in sides(content))


def one_side(content: Content) -> Side | None:
    """The extent that is all the axis counts."""
    return content[0] if len(content) == 1 and isinstance(content[0], Side) else None


# --- element-wise -----------------------------------------------------------------------------------------------------------------------


def same(node: Node, space: Space) -> list[Axes]:
    """Every position by itself."""
    return [space.axes(node.inputs[0])] * len(node.outputs)


def elementwise(node: Node, space: Space) -> Axes:
    """Broadcast from the right; maps that meet have the same samples."""
    return _broadcast(node, space, [name for name in node.inputs if name])


def _broadcast(node: Node, space: Space, names: Sequence[str]) -> Axes:
    found = [(name, space.axes(name)) for name in names]
    rank = max(len(axes) for _, axes in found)
    result: list[Content] = [()] * rank
    for name, axes in found:
        for axis, content in enumerate(axes, rank - len(axes)):
            result[axis] = _met(node, result[axis], content, name)
    return tuple(result)


def _met(node: Node, a: Content, b: Content, name: str) -> Content:
    """What the axis counts where both meet; `name` is the tensor of b."""
    if a == b or not b:
        return a
    if not a:
        return b
    for one, other in ((a, b), (b, a)):
        if isinstance(one[0], Pooled):
            if any(side.old == 1 for side in sides(other)):
                raise NotGlobal(one[0].node)
            return other
    if size_before(a) != size_before(b):
        small, large = (a, b) if size_before(a) == 1 else (b, a)
        if size_before(small) != 1:
            raise Unfollowed(f"'{node.name}' ({node.op}) joins {size_before(a)} positions with {size_before(b)} of '{name}'")
        if size_after(small) != 1:
            raise Stuck(f"'{node.name}' ({node.op}) spreads one position over many, and of the one there would be {size_after(small)}")
        return large
    if not changed(a) and not changed(b):
        return a if any(side.stride is not None for side in sides(a)) else b
    if not sides(a) or not sides(b):
        written = f"'{name}'" if not sides(b) else "a tensor"
        raise Stuck(f"'{node.name}' ({node.op}) joins the map with {written}, which has {size_before(a)} positions whatever the image")
    if list(map(_samples, a)) != list(map(_samples, b)):
        raise Stuck(f"'{node.name}' ({node.op}) joins maps {_of(a)} and {_of(b)}")
    return a if all(side.stride is not None for side in sides(a)) else b


def _samples(factor: Factor) -> tuple[int, int, int]:
    return before(factor), after(factor), factor.rate if isinstance(factor, Side) else 1


def _of(content: Content) -> str:
    rate = math.prod(side.rate for side in sides(content))
    return f"of {size_after(content)} samples" + (f" ({rate} for each there was)" if rate != 1 else "")


# --- windows ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """A window along one axis: taps, stride, dilation, and the padding before and behind (`same`: chosen at run time)."""

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
        """Whether the last window starts inside however it is rounded up; otherwise ONNX's versions and its runtimes disagree."""
        return self.behind + self.stride - 1 <= self.reach

    def positions(self, size: int) -> int:
        """How many windows there are over so many samples (ONNX's definition)."""
        if self.same:
            return -(-size // self.stride)
        last = size + self.before + self.behind - self.reach - 1
        return (-(-last // self.stride) if self.up else last // self.stride) + 1


DILATED_FROM = {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}
"""pooling → the version of the standard from which it has dilations."""


def windows(node: Node, space: Space) -> list[Window]:
    """The windows of a convolution or pooling, axis by axis."""
    extents = node.ints("kernel_shape", space.shape(node.inputs[1])[2:] if node.op in ("Conv", "ConvTranspose") else ())
    count = len(extents)
    pads = node.ints("pads", (0,) * (2 * count))
    mode = node.attrs.get("auto_pad", "NOTSET")
    pads = pads if mode == "NOTSET" else (0,) * (2 * count)
    strides, dilations = node.ints("strides", (1,) * count), node.ints("dilations", (1,) * count)
    up = bool(node.int("ceil_mode", 0))
    return [
        Window(extents[a], strides[a], dilations[a], pads[a], pads[a + count], mode not in ("NOTSET", "VALID"), up) for a in range(count)
    ]


def slides(node: Node, space: Space) -> list[Axes]:
    """A convolution or pooling over axes 2 and on: strides beyond the limit become dilations; a window over the whole map stays one."""
    x, out = space.axes(node.inputs[0]), space.shape(node.outputs[0])
    old = windows(node, space)
    if len(old) != len(x) - 2 or (node.op == "Conv" and has_space(x[1])):
        raise Unfollowed(f"'{node.name}' ({node.op}) slides over something else than a map")
    known = all(space.is_fixed(side) for content in x[2:] for side in sides(content))
    if node.op != "Conv" and node.name not in space.local and known and _covers(x[2:], old, out[2:]):
        return [(x[0], x[1], *_pooled_whole(node, space, x[2:]))]
    new, result = list(old), list[Content]()
    for axis, window in enumerate(old):
        content, there = x[2 + axis], out[2 + axis]
        side = one_side(content)
        if window.trivial:
            result.append(content)
        elif not sides(content):
            _require_map(content)
            result.append(count(there))
        elif side is None:
            raise Unfollowed(f"'{node.name}' ({node.op}) slides over several extents at once")
        else:
            slid, new[axis] = _slid(node, space, (side, there), window)
            result.append((slid,))
    if new != old:
        _rewrite(node, space, old, new)
    channels = x[1] if node.op != "Conv" else count(out[1])
    return [(x[0], channels, *result)] * len(node.outputs)


def _require_map(content: Content) -> None:
    for factor in content:
        if isinstance(factor, Pooled):
            raise NotGlobal(factor.node)


def _covers(x: Axes, over: Sequence[Window], out: Shape) -> bool:
    """Whether one window without pads is all there is."""
    pairs = zip(over, x, strict=True)
    whole = all(w.taps == size_before(c) and w.before == w.behind == 0 and w.dilation == 1 and not w.same for w, c in pairs)
    return whole and any(map(sides, x)) and all(size == 1 for size in out) and max(w.taps for w in over) > 1


def _pooled_whole(node: Node, space: Space, x: Axes) -> Axes:
    if node.op == "LpPool" and any(map(finer, x)):
        raise Stuck(f"'{node.name}' ({node.op}) sums over a map, which would have more samples")
    space.average(node, x)
    if any(map(changed, x)):
        extents = [size_after(content) for content in x]
        space.edit(node, kernel_shape=extents)
        space.notes.append(f"'{node.name}' ({node.op}) covers the whole map and stays global")
    return ((Pooled(node.name),),) * len(x)


def _slid(node: Node, space: Space, found: tuple[Side, int], window: Window) -> tuple[Side, Window]:
    """The side after the window, and the window that makes it; `found` is the side before it and how many samples there were behind."""
    side, there = found
    dilates = space.strides_on(side, window.stride, node)
    stride = None if side.stride is None else side.stride * (1 if dilates else window.stride)
    if not dilates and not side.changed:
        return Side(side.axis, stride, there, there), window
    if window.up and window.stride > 1 and not window.always_inside:
        raise Stuck(f"'{node.name}' ({node.op}) rounds up to windows that may lie beyond its map, on which runtimes disagree")
    if not dilates and side.rate == 1:
        new = window.positions(side.new)
        if new < 1:
            raise Stuck(f"'{node.name}' ({node.op}) has a window of {window.reach + 1} on a map of {side.new}")
        return Side(side.axis, stride, there, new), window
    finer_window = _dilated(node, space, found, window)
    return Side(side.axis, stride, there, finer_window.positions(side.new), side.rate * window.stride), finer_window


def _dilated(node: Node, space: Space, found: tuple[Side, int], window: Window) -> Window:
    """The window at stride 1 whose every rate·stride-th result is what there was (see the equations above)."""
    side, there = found
    d, s = side.rate, window.stride
    if window.same:
        if s > 1 or window.reach % 2:
            raise Stuck(
                f"the pads of '{node.name}' ({node.op}) depend on the image size, which is free; give it one first, in a remap of its own"
            )
        return replace(window, dilation=d * window.dilation)
    dilation = d * window.dilation if window.taps > 1 else window.dilation
    new = Window(window.taps, 1, dilation, d * window.before, d * window.behind, False, False)
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
        raise Stuck(f"'{node.name}' ({node.op}) leaves {natural + room} samples, from which the {there} it left cannot be taken")
    return replace(new, behind=new.behind + room)


def _room(node: Node, space: Space, window: Window, rooms: Sequence[int]) -> int:
    """The first room behind for which ONNX Runtime can run the pool: it wants fewer pads than taps."""
    pads = [max(window.before, window.behind + room) for room in rooms]
    reasons = [f"'{node.name}' ({node.op}) would need {pad} pads on a window of {window.taps}" for pad in pads]
    fitting = next((k for k, pad in enumerate(pads) if pad < window.taps), None)
    if fitting is None:
        raise Stuck(f"{reasons[-1]}, and ONNX Runtime wants fewer than that")
    if rooms[fitting] != rooms[0]:
        space.cropped.append(f"{reasons[0]} to keep its map, and ONNX Runtime wants fewer than that")
    return rooms[fitting]


def _rewrite(node: Node, space: Space, old: Sequence[Window], new: Sequence[Window]) -> None:
    if node.op == "MaxPool" and any(name in space.view.readers or name in space.view.outputs for name in node.outputs[1:] if name):
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


def transposed(node: Node, space: Space) -> Axes:
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
        _only_seeds_samples(node, side)
        if side.changed and "output_shape" in node.attrs:
            raise Stuck(f"the output size of '{node.name}' ({node.op}) is written in the file")
        stride = None if side.stride is None else side.stride / window.stride
        pads = window.before + window.behind
        grown = side.new * window.stride if window.same else (side.new - 1) * window.stride + window.reach + 1 + more[axis] - pads
        result.append((Side(side.axis, stride, there, grown if side.changed else there),))
    return (x[0], count(out[1]), *result)


def _only_seeds_samples(node: Node, side: Side) -> None:
    if side.rate != 1:
        raise Stuck(f"'{node.name}' ({node.op}) resamples a map, which has no dilation")


def whole_map(node: Node, space: Space) -> Axes:
    """All of space, channel by channel."""
    x = space.axes(node.inputs[0])
    if node.op == "GlobalLpPool" and any(map(finer, x[2:])):
        raise Stuck(f"'{node.name}' ({node.op}) sums over a map, which would have more samples")
    for content in x[2:]:
        _require_map(content)
    space.average(node, x[2:])
    return (*x[:2], *((),) * (len(x) - 2))


MEANS = frozenset({"ReduceMean", "ReduceMax", "ReduceMin"})


def reduction(node: Node, space: Space) -> Axes:
    """Over `axes` (attribute or input; none: all)."""
    x = space.axes(node.inputs[0])
    axes = _axes_of(node, space, 1)
    reduced = {axis % len(x) for axis in axes} or set(() if node.int("noop_with_empty_axes", 0) else range(len(x)))
    return _reduced(node, space, reduced, keep=bool(node.int("keepdims", 1)))


def selection(node: Node, space: Space) -> Axes:
    """ArgMax and ArgMin."""
    return _reduced(node, space, {node.int("axis", 0) % len(space.axes(node.inputs[0]))}, keep=bool(node.int("keepdims", 1)))


def _reduced(node: Node, space: Space, reduced: set[int], *, keep: bool) -> Axes:
    x = space.axes(node.inputs[0])
    if node.op not in MEANS and any(finer(x[axis]) for axis in reduced):
        raise Stuck(f"'{node.name}' ({node.op}) sums over a map or counts in it, which would have more samples")
    for axis in reduced:
        _require_map(x[axis])
    space.average(node, [x[axis] for axis in reduced])
    return tuple(() if axis in reduced else content for axis, content in enumerate(x) if keep or axis not in reduced)


def _axes_of(node: Node, space: Space, slot: int) -> tuple[int, ...]:
    if node.input(slot):
        found = space.ints(node, slot)
        if found is None:
            raise Unfollowed(f"the axes of '{node.name}' ({node.op}) are computed")
        return tuple(found)
    return node.ints("axes", ())


# --- normalisation ----------------------------------------------------------------------------------------------------------------------


def per_channel(node: Node, space: Space) -> Axes:
    """Statistics of the training data, or over channels alone."""
    return space.axes(node.inputs[0])


def over_space(node: Node, space: Space) -> Axes:
    """Statistics of the map itself (axes 2 and on)."""
    x = space.axes(node.inputs[0])
    space.average(node, x[1:])
    return x


def layer_normalization(node: Node, space: Space) -> Axes:
    """Over the axes from `axis` on, with a scale and an offset for each of their positions."""
    x = space.axes(node.inputs[0])
    space.average(node, x[node.int("axis", -1) % len(x) :])
    return _broadcast(node, space, [node.inputs[0], *(name for name in node.inputs[1:3] if name)])


def along_axis(node: Node, space: Space) -> Axes:
    """Softmax and its like; before opset 13 over all axes from `axis` on."""
    x = space.axes(node.inputs[0])
    flat = space.view.opset < 13 and node.op != "LpNormalization"
    axis = node.int("axis", 1 if flat else -1) % len(x)
    space.average(node, x[axis:] if flat else [x[axis]])
    return x


def mean_variance(node: Node, space: Space) -> Axes:
    """MeanVarianceNormalization over `axes`."""
    x = space.axes(node.inputs[0])
    axes = node.ints("axes", (0, 2, 3))
    space.average(node, [content for axis, content in enumerate(x) if axis in axes or axis - len(x) in axes])
    return x


# --- products ---------------------------------------------------------------------------------------------------------------------------


def gemm(node: Node, space: Space) -> Axes:
    """Y = A·B + C: what is summed has a weight for each position."""
    a, b = (space.axes(name) for name in node.inputs[:2])
    rows, inner = a[::-1] if node.int("transA", 0) else a
    other, columns = b[::-1] if node.int("transB", 0) else b
    _summed(node, inner, other)
    return rows, columns


def matmul(node: Node, space: Space) -> Axes:
    """The last axis of A meets the last but one of B; axes before them broadcast."""
    a, b = (space.axes(name) for name in node.inputs[:2])
    if len(a) < 2 or len(b) < 2:
        raise Unfollowed(f"'{node.name}' (MatMul) multiplies a vector")
    _summed(node, a[-1], b[-2])
    rank = max(len(a), len(b))
    result: list[Content] = [()] * (rank - 2)
    for axes, name in ((a, node.inputs[0]), (b, node.inputs[1])):
        for axis, content in enumerate(axes[:-2], rank - len(axes)):
            result[axis] = _met(node, result[axis], content, name)
    return (*result, a[-2], b[-1])


def _summed(node: Node, a: Content, b: Content) -> None:
    if not changed(a) and not changed(b):
        return
    if not sides(a) or not sides(b):
        raise Stuck(f"'{node.name}' ({node.op}) has a weight for each position of the map")
    if finer(a) or finer(b):
        raise Stuck(f"'{node.name}' ({node.op}) sums over a map, which would have more samples")
    _met(node, a, b, node.inputs[1])


# --- moving axes ------------------------------------------------------------------------------------------------------------------------


def transpose(node: Node, space: Space) -> Axes:
    """Axes in another order."""
    x = space.axes(node.inputs[0])
    return tuple(x[axis] for axis in node.ints("perm", range(len(x))[::-1]))


def reshape(node: Node, space: Space) -> Axes:
    """Row-major regrouping: factors stay whole, numbers may be cut; sizes written for the output follow."""
    target = space.shape(node.outputs[0])
    result = _regrouped(node, [factor for content in space.axes(node.inputs[0]) for factor in content], target)
    if node.op == "Reshape":
        written = space.ints(node, 1) if node.input(1) else list(node.ints("shape", ()))
        for axis, number in enumerate(written or ()):
            if number > 0 and size_after(result[axis]) != target[axis]:
                if node.input(1):
                    space.number(node, 1, axis, size_after(result[axis]))
                else:
                    space.edit(node, shape=[size_after(content) if n > 0 else n for n, content in zip(written or (), result, strict=True)])
    return result


def _regrouped(node: Node, factors: Sequence[Factor], target: Shape) -> Axes:
    """The factors dealt out to axes of these sizes."""
    queue = list(factors)[::-1]
    result: list[list[Factor]] = []
    for size in target:
        taken: list[Factor] = []
        left = size
        while left > 1 or (size == 1 and not taken and queue and before(queue[-1]) == 1):
            if not queue:
                raise Unfollowed(f"'{node.name}' ({node.op}) regroups a map in an unknown way")
            factor = queue.pop()
            whole = before(factor)
            if left % whole == 0:
                taken.append(factor)
                left //= whole
            elif isinstance(factor, int) and factor % left == 0:
                taken.append(left)
                queue.append(factor // left)
                left = 1
            else:
                raise Unfollowed(f"'{node.name}' ({node.op}) cuts a map into parts of a size that is written in the file")
        result.append(taken)
    if any(before(factor) != 1 for factor in queue) or not result:
        raise Unfollowed(f"'{node.name}' ({node.op}) regroups a map in an unknown way")
    result[-1] += queue[::-1]
    return tuple(tuple(taken) for taken in result)


def squeeze(node: Node, space: Space) -> Axes:
    """Axes of one position go."""
    x = space.axes(node.inputs[0])
    axes = _axes_of(node, space, 1)
    gone = {axis % len(x) for axis in axes} or {axis for axis, content in enumerate(x) if size_before(content) == 1}
    grown = next((axis for axis in gone if size_after(x[axis]) != 1), None)
    if grown is not None:
        raise Stuck(f"'{node.name}' (Squeeze) removes an axis of one position, which would have {size_after(x[grown])}")
    return tuple(content for axis, content in enumerate(x) if axis not in gone)


def unsqueeze(node: Node, space: Space) -> Axes:
    """New axes of one position."""
    x = list(space.axes(node.inputs[0]))
    axes = _axes_of(node, space, 1)
    rank = len(x) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x.insert(axis, ())
    return tuple(x)


def concat(node: Node, space: Space) -> Axes:
    """Along another axis the maps have the same samples; along space they are laid end to end."""
    rank = len(space.shape(node.outputs[0]))
    axis = node.int("axis", 1) % rank
    parts = [space.axes(name) for name in node.inputs]
    result: list[Content] = [()] * rank
    for name, axes in zip(node.inputs, parts, strict=True):
        for k, content in enumerate(axes):
            result[k] = _met(node, result[k], content, name) if k != axis else result[k]
    along = [part[axis] for part in parts]
    result[axis] = _end_to_end(node, along) if any(map(has_space, along)) else count(sum(map(size_before, along)))
    return tuple(result)


def _end_to_end(node: Node, along: Sequence[Content]) -> Content:
    if any(side.rate != 1 for content in along for side in sides(content)):
        raise Stuck(f"'{node.name}' ({node.op}) lays maps end to end")
    first = next((side for content in along for side in sides(content)), None)
    old, new = sum(map(size_before, along)), sum(map(size_after, along))
    return (old,) if first is None else (Side(first.axis, None, old, new),)


def split(node: Node, space: Space) -> list[Axes]:
    """Maps are cut along another axis; what is cut off one is a map with the same strides."""
    x = space.axes(node.inputs[0])
    axis = node.int("axis", 0) % len(x)
    if changed(x[axis]):
        raise Stuck(f"'{node.name}' (Split) cuts a map into parts of a size that is written in the file")
    side = one_side(x[axis])
    if has_space(x[axis]) and side is None:
        raise Unfollowed(f"'{node.name}' (Split) cuts several extents at once")
    sizes = [space.shape(name)[axis] for name in node.outputs]
    parts = [count(size) if side is None else (Side(side.axis, side.stride, size, size),) for size in sizes]
    return [(*x[:axis], part, *x[axis + 1 :]) for part in parts]


def slice_(node: Node, space: Space) -> Axes:
    """A range of positions, or every so many of them."""
    x, out = list(space.axes(node.inputs[0])), space.shape(node.outputs[0])
    by_input = bool(node.input(1))
    starts, ends = (space.ints(node, slot) if by_input else list(node.ints(name, ())) for slot, name in ((1, "starts"), (2, "ends")))
    if starts is None or ends is None:
        if any(map(has_space, x)):
            raise Unfollowed(f"'{node.name}' (Slice) takes a range that is computed")
        return plain(out)
    listed = (_axes_of(node, space, 3) if by_input else node.ints("axes", ())) or tuple(range(len(starts)))
    steps = (space.ints(node, 4) if node.input(4) else None) or [1] * len(starts)
    for k, axis in enumerate(axis % len(x) for axis in listed):
        content = x[axis]
        if not has_space(content):
            x[axis] = count(out[axis])
        elif (side := one_side(content)) is not None:
            known = {slot: space.settled_ints(node, slot)[k] for slot in (1, 2) if by_input and k in space.settled_ints(node, slot)}
            x[axis] = (_sliced(node, space, side, (k, slice(starts[k], ends[k], steps[k]), known)),)
        else:
            raise Unfollowed(f"'{node.name}' (Slice) takes a range of several extents at once")
    return tuple(x)


def _sliced(node: Node, space: Space, side: Side, how: tuple[int, slice, Mapping[int, int]]) -> Side:
    """The side in a range; `how` is the range's position in the lists, the range, and its bounds that are settled (1: start, 2: end)."""
    position, bounds, known = how
    start, end, step = bounds.start, bounds.stop, bounds.step
    if side.rate != 1 or space.strides_on(side, abs(step), node):
        raise Stuck(f"'{node.name}' (Slice) takes positions of a map, which no dilation could do")
    there = _length(bounds, side.old)
    if there < 1:
        raise Unfollowed(f"'{node.name}' (Slice) takes nothing of a map")
    stride = None if side.stride is None else side.stride * abs(step)
    if not side.changed:
        return Side(side.axis, stride, there, there)
    if step < 0:
        raise Stuck(f"'{node.name}' (Slice) takes a map backwards, from a position that is written in the file")
    if known:
        return Side(side.axis, stride, there, _length(slice(known.get(1, start), known.get(2, end), step), side.new))
    if 0 <= end < UNBOUNDED:
        if end < side.old:
            raise Stuck(f"'{node.name}' (Slice) cuts a map at position {end}, which is written in the file")
        if node.input(1):
            space.number(node, 2, position, side.new)
        else:
            ends = space.edits.get(node.name, {}).get("ends", node.ints("ends", ()))
            space.edit(node, ends=[side.new if k == position else e for k, e in enumerate(ends)])  # type: ignore[arg-type, var-annotated]
    return Side(side.axis, stride, there, _length(slice(start, end if end < 0 else UNBOUNDED, step), side.new))


def _length(bounds: slice, size: int) -> int:
    """How many positions a range takes of so many."""
    end = bounds.stop if abs(bounds.stop) < UNBOUNDED else None
    return len(range(*slice(bounds.start, end, bounds.step).indices(size)))


def gather(node: Node, space: Space) -> Axes:
    """Picks along one axis."""
    x, picked = space.axes(node.inputs[0]), space.axes(node.inputs[1])
    axis = node.int("axis", 0) % len(x)
    if changed(x[axis]):
        raise Stuck(f"'{node.name}' (Gather) picks positions of a map by numbers written in the file")
    return (*x[:axis], *picked, *x[axis + 1 :])


def expand(node: Node, space: Space) -> Axes:
    """Broadcast to a shape; sizes of maps written there follow, or are left to the operators that broadcast anyway."""
    x, out = space.axes(node.inputs[0]), space.shape(node.outputs[0])
    x = (*((),) * (len(out) - len(x)), *x)
    written = space.ints(node, 1) or []
    like = _shape_of(node, space, len(out))
    result = list[Content]()
    for axis, content in enumerate(x):
        entry = axis - (len(out) - len(written))
        if size_before(content) == out[axis]:
            result.append(content)
            if changed(content) and entry >= 0 and written[entry] > 1:
                space.number(node, 1, entry, size_after(content))
        elif size_after(content) != 1:
            raise Stuck(f"'{node.name}' (Expand) spreads one position, which would be {size_after(content)}")
        elif like is not None:
            result.append(like[axis])
        elif axis > 0 and _broadcasts(node, space, axis):
            space.number(node, 1, entry, 1)
            result.append(())
        else:
            result.append(count(out[axis]))
    return tuple(result)


def _shape_of(node: Node, space: Space, rank: int) -> Axes | None:
    """The axes of the tensor whose shape the node is given, where it is given one as a whole."""
    maker = space.view.by_name.get(space.view.producer.get(node.inputs[1], ""))
    known = (
        space.maps.get(maker.inputs[0]) if maker is not None and maker.op == "Shape" and not {"start", "end"} & set(maker.attrs) else None
    )
    return known.axes if known is not None and len(known.axes) == rank else None


def _broadcasts(node: Node, space: Space, axis: int) -> bool:
    """Whether a written size can be 1 instead: all that read the result combine it with a map, which has the size itself."""
    value = space.shapes.values.get(node.inputs[1])
    readers = space.view.readers.get(node.outputs[0], ())
    if value is None or value.source[axis - len(value.array.ravel())] is None or node.outputs[0] in space.view.outputs:
        return False
    return bool(readers) and all(_meets_map(space.view.by_name[name], space, node.outputs[0], axis) for name, _ in readers)


def _meets_map(reader: Node, space: Space, name: str, axis: int) -> bool:
    others = [space.maps[other].axes for other in reader.inputs if other != name and other in space.maps]
    rank = len(space.shape(name))
    return reader.op in NARY and any(len(axes) == rank and sides(axes[axis]) for axes in others)


def tile(node: Node, space: Space) -> Axes:
    """The whole tensor again, as often as it says."""
    x, out = space.axes(node.inputs[0]), space.shape(node.outputs[0])
    again = [axis for axis, content in enumerate(x) if size_before(content) != out[axis]]
    if any(has_space(x[axis]) for axis in again):
        raise Unfollowed(f"'{node.name}' (Tile) repeats a map")
    return tuple(count(out[axis]) if axis in again else content for axis, content in enumerate(x))


def pad(node: Node, space: Space) -> Axes:
    """A border around the map; zeros as pads of a convolution are."""
    x = list(space.axes(node.inputs[0]))
    amounts = space.ints(node, 1) if node.input(1) else list(node.ints("pads", node.ints("paddings", ())))
    listed = _axes_of(node, space, 3) if node.input(3) else tuple(range(len(x)))
    if amounts is None:
        raise Unfollowed(f"'{node.name}' (Pad) pads by computed amounts")
    settled = space.settled_ints(node, 1)
    new = [settled.get(k, amount) for k, amount in enumerate(amounts)]
    for k, axis in enumerate(axis % len(x) for axis in listed):
        both = (k, k + len(listed))
        added, content = sum(amounts[end] for end in both), x[axis]
        if all(amounts[end] == new[end] == 0 for end in both):
            continue
        side = one_side(content)
        if not has_space(content):
            x[axis] = count(size_before(content) + added)
        elif side is None:
            raise Unfollowed(f"'{node.name}' (Pad) pads several extents at once")
        else:
            for end in both:
                new[end] *= side.rate
            x[axis] = (Side(side.axis, side.stride, side.old + added, side.new + sum(new[end] for end in both), side.rate),)
    if any(amount != new[k] for k, amount in enumerate(amounts) if k not in settled):
        _repad(node, space, amounts, new)
    return tuple(x)


def _repad(node: Node, space: Space, amounts: Sequence[int], new: Sequence[int]) -> None:
    if node.attrs.get("mode", "constant") != "constant":
        raise Stuck(f"'{node.name}' (Pad) repeats the border of a map, which has samples in between")
    if not node.input(1):
        space.edit(node, **{"pads" if "pads" in node.attrs else "paddings": list(new)})
        return
    value = space.shapes.values[node.inputs[1]]
    for k, (was, amount) in enumerate(zip(amounts, new, strict=True)):
        if was != amount and value.source[k] is None:
            raise Stuck(f"'{node.name}' (Pad) pads by computed amounts")
        if was != amount:
            space.number(node, 1, k, amount)


# --- resampling -------------------------------------------------------------------------------------------------------------------------


def resize(node: Node, space: Space) -> Axes:
    """The map gets other samples, by a factor or to a size; a size that is written follows where it is a whole multiple of its map."""
    x, out = space.axes(node.inputs[0]), space.shape(node.outputs[0])
    if node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unfollowed(f"'{node.name}' ({node.op}) chooses its size by itself")
    factors, settled = _scales(node, space, len(x)), _settled_sizes(node, space, len(x))
    spread = [axis for axis, content in enumerate(x) if size_before(content) == 1 and out[axis] > 1 and not sides(content)]
    result = list[Content]()
    for axis, content in enumerate(x):
        _require_map(content if size_before(content) != out[axis] else ())
        if axis in spread:
            result.append(_spread(node, space, (spread.index(axis), len(spread)), (out[axis], settled.get(axis))))
        elif not sides(content):
            result.append(count(out[axis]))
        elif size_before(content) == out[axis] and not changed(content):
            result.append(content)
        elif (side := one_side(content)) is None:
            raise Unfollowed(f"'{node.name}' ({node.op}) resamples several extents at once")
        else:
            _only_seeds_samples(node, side)
            new = settled.get(axis) if factors is None else math.floor(side.new * factors[axis])
            result.append((_resampled(node, space, side, (out[axis], new)),))
    if factors is None:
        _write_sizes(node, space, result)
    elif any(changed(result[axis]) for axis in spread):
        raise Stuck(f"'{node.name}' ({node.op}) spreads one position over a map by a factor that is written in the file")
    return tuple(result)


def _scales(node: Node, space: Space, rank: int) -> list[float] | None:
    """The factor of every axis, None where sizes are given instead."""
    if node.op == "Upsample" and "scales" in node.attrs:
        return [float(v) for v in node.attrs["scales"]]
    slot = 1 if node.op == "Upsample" or space.view.opset < 11 else 2
    value = space.shapes.values.get(node.input(slot)) if node.input(slot) else None
    if value is None or not value.array.size:
        return None
    if not np.isfinite(value.array).all():
        raise Unfollowed(f"the factors of '{node.name}' ({node.op}) are no numbers")
    given = dict(zip((axis % rank for axis in node.ints("axes", range(rank))), value.array.ravel().tolist(), strict=True))
    return [float(given.get(axis, 1.0)) for axis in range(rank)]


def _settled_sizes(node: Node, space: Space, rank: int) -> dict[int, int]:
    """axis → the size that input 3 of a Resize gives it, where the number already is what it must be."""
    listed = [axis % rank for axis in node.ints("axes", range(rank))]
    return {listed[index]: size for index, size in space.settled_ints(node, 3).items()}


def _resampled(node: Node, space: Space, side: Side, how: tuple[int, int | None]) -> Side:
    """The side resampled to as many as is known; or in proportion to itself, where that is in proportion to the image too."""
    there, known = how
    even = there % side.old == 0 or side.old % there == 0
    stride = side.stride * side.old / there if side.stride is not None and even else None
    if not side.changed or known is not None:
        return Side(side.axis, stride, there, there if known is None or not side.changed else known)
    image, new = _image(space, side.axis), Fraction(side.new * there, side.old)
    if not even or new.denominator != 1 or new * image.old != there * image.new:
        of = f"{there} positions of {side.old}, a size that is written in the file"
        raise Stuck(f"'{node.name}' ({node.op}) makes {of}: it is not clear what it makes of {side.new}, in an image of {image.new}")
    return Side(side.axis, stride, there, int(new))


def _image(space: Space, axis: tuple[str, int]) -> Side:
    return sides(space.maps[axis[0]].axes[axis[1]])[0]


def _spread(node: Node, space: Space, which: tuple[int, int], how: tuple[int, int | None]) -> Content:
    """One position spread over a map: as many samples as is known, or in proportion to the image."""
    (position, axes), (there, known) = which, how
    images = [side for name in space.view.inputs if name in space.maps for content in space.maps[name].axes for side in sides(content)]
    if len(images) != axes or len({side.axis[0] for side in images}) != 1:
        return count(there)
    image = images[position]
    new = Fraction(there * image.new, image.old) if known is None else Fraction(known)
    if new.denominator != 1:
        raise Stuck(f"'{node.name}' ({node.op}) spreads one position over {there}, a size that is written in the file")
    return (Side(image.axis, Fraction(image.old, there) if image.old % there == 0 else None, there, int(new)),)


def _write_sizes(node: Node, space: Space, result: Sequence[Content]) -> None:
    """The sizes in input 3 of a Resize say what its axes are."""
    value = space.shapes.values.get(node.input(3))
    listed = [axis % len(result) for axis in node.ints("axes", range(len(result)))]
    for axis, content in enumerate(result):
        if changed(content):
            if value is None or value.source[listed.index(axis)] is None:
                raise Stuck(f"'{node.name}' ({node.op}) resizes to a size that is computed")
            space.number(node, 3, listed.index(axis), size_after(content))


def depth_to_space(node: Node, space: Space) -> Axes:
    """Channels become positions: the map is finer by the block size."""
    return _blocks(node, space, Fraction(node.int("blocksize", 1)))


def space_to_depth(node: Node, space: Space) -> Axes:
    """Positions become channels: the map is coarser by the block size."""
    return _blocks(node, space, Fraction(1, node.int("blocksize", 1)))


def _blocks(node: Node, space: Space, factor: Fraction) -> Axes:
    x, out = space.axes(node.inputs[0]), space.shape(node.outputs[0])
    result = list[Content]()
    for axis in (2, 3):
        side = one_side(x[axis])
        if not sides(x[axis]):
            result.append(count(out[axis]))
            continue
        if side is None:
            raise Unfollowed(f"'{node.name}' ({node.op}) moves positions of several extents at once")
        _only_seeds_samples(node, side)
        if factor < 1 and space.strides_on(side, int(1 / factor), node):
            raise Stuck(f"'{node.name}' ({node.op}) strides by moving positions into channels, which has no dilation")
        new = side.new * factor
        if new.denominator != 1:
            raise Stuck(f"'{node.name}' ({node.op}) moves blocks of {int(1 / factor)} positions, which a map of {side.new} has not")
        result.append((Side(side.axis, None if side.stride is None else side.stride / factor, out[axis], int(new)),))
    return (x[0], count(out[1]), *result)


WINDOWS = frozenset({"Conv", "MaxPool", "AveragePool", "LpPool"})
SPREADING = frozenset({"Resize", "Upsample", "Expand"})  # they may make a map of one position

SPACE: Mapping[str, Rule] = {
    **dict.fromkeys(UNARY, same),
    **dict.fromkeys(NARY, elementwise),
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(WINDOWS, slides),
    "QuantizeLinear": per_channel,
    "DequantizeLinear": per_channel,
    "ConvTranspose": transposed,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": per_channel,
    "LRN": per_channel,
    "InstanceNormalization": over_space,
    "GroupNormalization": over_space,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": layer_normalization,
    "LpNormalization": along_axis,
    "MeanVarianceNormalization": mean_variance,
    "Softmax": along_axis,
    "LogSoftmax": along_axis,
    "Hardmax": along_axis,
    "GlobalAveragePool": whole_map,
    "GlobalMaxPool": whole_map,
    "GlobalLpPool": whole_map,
    "ArgMax": selection,
    "ArgMin": selection,
    "Transpose": transpose,
    "Reshape": reshape,
    "Flatten": reshape,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "Expand": expand,
    "Tile": tile,
    "Pad": pad,
    "Resize": resize,
    "Upsample": resize,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
}
