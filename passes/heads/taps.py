"""Where heads tap a network: names like knobs, resolved to tensors, and what each kind of head taps when nobody says.

A tap is `stageI.exit`, `stageI.blockJ.exit`, `stageI.blockJ.hidden` (the channels inside a block, after their activation) or the name of a
node or tensor. The defaults follow from running strides and the trunk (what every path from the image to the output passes) alone.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from onnx import TensorProto

from passes.analysis import Analysis, blocks_named
from passes.errors import UserError
from passes.maps import Axes, one_side, sides
from passes.resolution import followed
from passes.view import Node, View

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
FLOATS: Mapping[int, str] = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.DOUBLE: "float64"}
COARSE = 8  # pixels: the finest map a detector looks at, in RetinaNet (P3) as in SSD
FPN_TAPS = 3  # C3, C4, C5

Stride = tuple[Fraction, Fraction]


@dataclass(frozen=True)
class Tap:
    """A map of the seed: its name, its tensor, its extent at the analysed size, and image pixels per position.

    `axis` is that of the channels: 1, or 3 in [N, h, w, channels].
    """

    name: str
    tensor: str
    channels: int
    space: tuple[int, int]
    stride: Stride
    dtype: str
    axis: int = 1


@dataclass(frozen=True)
class Lie:
    """How a map lies in the image: pixels per position, down and across, and the axis of its channels."""

    stride: Stride
    axis: int


@dataclass(frozen=True)
class Chart:
    """The maps of a network: how they lie, the trunk in order, and the tensors by the names that a user may give."""

    analysis: Analysis
    lies: Mapping[str, Lie]
    trunk: tuple[str, ...]
    names: Mapping[str, str]

    def tap(self, name: str) -> Tap:
        """The tap of that name. Raises UserError where there is none, or it is no map of numbers with its channels on axis 1 or 3."""
        tensor = self._tensor(name)
        shape = self.analysis.shapes.shapes.get(tensor)
        lie = self.lies.get(tensor)
        dtype = FLOATS.get(self.analysis.shapes.types.get(tensor, 0))
        if tensor in self.analysis.view.inputs:
            raise UserError(f"tap '{name}' is the input itself; tap what the network makes of it")
        if shape is None or lie is None:
            seen = "unknown" if shape is None else list(shape)
            raise UserError(f"tap '{name}' is no map [N, channels, h, w] of the image (its shape is {seen}); {self._suggestion()}")
        if dtype is None:
            raise UserError(f"tap '{name}' does not hold 16-, 32- or 64-bit floats, which a head is made of; {self._suggestion()}")
        space = (shape[2], shape[3]) if lie.axis == 1 else (shape[1], shape[2])
        return Tap(name, tensor, shape[lie.axis], space, lie.stride, dtype, lie.axis)

    def _tensor(self, name: str) -> str:
        seen = self.analysis.view
        if name in self.names:
            return self.names[name]
        if name in seen.by_name:
            return seen.by_name[name].outputs[0]
        if name in seen.producer or name in seen.inputs:
            return name
        near = difflib.get_close_matches(name, [*self.names, *seen.by_name], 1, 0.6)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise UserError(f"'{name}' is no tap of this model; {hint}A tap is {FORMS}; {self._suggestion()}")

    def _suggestion(self) -> str:
        known = [name for name in self.names if re.fullmatch(r"stage\d+\.exit", name)]
        named = known or [self.name_of(tensor) for tensor in self.maps()][-3:]
        return f"this model has {', '.join(map(repr, named))}" if named else "this model has no map to tap"

    def name_of(self, tensor: str) -> str:
        """The name of a tensor's tap: of its stage or block where it is one's exit or hidden map, else of its node where that makes one."""
        seen = self.analysis.view
        node = seen.by_name.get(seen.producer.get(tensor, ""))
        own = node.name if node is not None and node.outputs[0] == tensor else tensor
        return next((name for name, other in self.names.items() if other == tensor), own)

    def is_map(self, tensor: str) -> bool:
        """Whether a head can tap the tensor."""
        return tensor in self.lies and tensor not in self.analysis.view.inputs and self.analysis.shapes.types.get(tensor) in FLOATS

    def maps(self) -> list[str]:
        """The maps of the trunk, in order. Raises UserError where there is none."""
        found = [tensor for tensor in self.trunk if self.is_map(tensor)]
        if not found:
            raise UserError("no map [N, channels, h, w] lies on every path of this model: name the tensors to tap with --taps")
        return found

    def exits(self) -> list[str]:
        """The exits of the stages that lie on the trunk, in order."""
        last = [stage.blocks[-1].exit for stage in self.analysis.stages]
        return [tensor for tensor in self.maps() if tensor in last]


FORMS = "stageI.exit, stageI.blockJ.exit, stageI.blockJ.hidden, or the name of a node"


def chart(analysis: Analysis, features: str | None = None) -> Chart:
    """The chart of an analysed network; features: what its own classifier reads, behind which the trunk is not looked at."""
    names: dict[str, str] = {}
    for i, stage in enumerate(analysis.stages):
        names[f"stage{i}.exit"] = stage.blocks[-1].exit
    for name, block in blocks_named(analysis):
        names[f"{name}.exit"] = block.exit
    for name in analysis.atoms:
        found = re.fullmatch(r"stage(\d+)\.block(\d+)\.hidden\d*", name)
        if found is not None:
            block = analysis.stages[int(found[1])].blocks[int(found[2])]
            names[name] = _activated(analysis, name, block.nodes)
    way = trunk(analysis.view)
    before = way[: way.index(features) + 1] if features in way else way
    return Chart(analysis, _lies(analysis), before, names)


def _lies(analysis: Analysis) -> dict[str, Lie]:
    """Every tensor [N, channels, h, w] or [N, h, w, channels] of the image, by how it lies there."""
    found = {}
    for tensor, known in followed(analysis).maps.items():
        down, across = (_along(known.axes, axis) for axis in analysis.image.axes)
        label = analysis.identities.labels.get(tensor)
        if len(known.axes) != 4 or down is None or across is None or (down[0], across[0]) not in ((2, 3), (1, 2)):
            continue
        axis = 1 if down[0] == 2 else 3
        if label is None or label.axis == axis:
            found[tensor] = Lie((down[1], across[1]), axis)
    return found


def _along(axes: Axes, image_axis: int) -> tuple[int, Fraction] | None:
    """Which axis of a tensor counts positions along that axis of the image, and every how many pixels; None where that is not one axis."""
    places = [k for k, content in enumerate(axes) if any(side.axis[1] == image_axis for side in sides(content))]
    side = one_side(axes[places[0]]) if len(places) == 1 else None
    return None if side is None or side.stride is None else (places[0], side.stride)


def _activated(analysis: Analysis, atom: str, block: Sequence[str]) -> str:
    """The hidden map as the next convolution reads it: normalised, activated, gated."""
    seen, shapes, labels = analysis.view, analysis.shapes.shapes, analysis.identities.labels
    classes = analysis.atoms[atom].classes
    creator = seen.by_name[analysis.atoms[atom].first.node]
    space = shapes[creator.outputs[0]][2:]
    for name in block[block.index(creator.name) + 1 :]:
        node = seen.by_name[name]
        tensor = _whole(node.inputs[0], seen)
        label = labels.get(tensor)
        if node.op in WEIGHTED and label is not None and shapes[tensor][2:] == space and np.isin(classes, label.ids).all():
            return tensor
    return creator.outputs[0]


def _whole(tensor: str, seen: View) -> str:
    """What a tensor was before it was padded or split."""
    node = seen.by_name.get(seen.producer.get(tensor, ""))
    return tensor if node is None or node.op not in ("Pad", "Split") else _whole(node.inputs[0], seen)


# --- the trunk --------------------------------------------------------------------------------------------------------------------------


def trunk(seen: View) -> tuple[str, ...]:
    """The tensors that every path from the input to the first output passes, in order: while one is made, no other waits to be read."""
    nodes = _on_the_way(seen)
    waiting: dict[str, int] = {seen.outputs[0]: 1}
    for node in nodes:
        for name in _data(node):
            waiting[name] = waiting.get(name, 0) + 1
    alive: set[str] = set()
    found: list[str] = []
    for node in nodes:
        for name in _data(node):
            waiting[name] -= 1
            if not waiting[name]:
                alive.discard(name)
        alive.update(name for name in node.outputs if waiting.get(name))
        if len(alive) == 1 and alive <= set(node.outputs):
            found.extend(alive)
    return tuple(found)


def _data(node: Node) -> tuple[str, ...]:
    """What flows through a node; a shape is read, it does not flow."""
    return () if node.op in ("Shape", "Size") else tuple(name for name in node.inputs if name)


def _on_the_way(seen: View) -> list[Node]:
    """The nodes between the inputs and the first output, in order; their other inputs (constants, sizes) are left out."""
    wanted = {seen.outputs[0]}
    for node in reversed(seen.nodes):
        if any(name in wanted for name in node.outputs):
            wanted.update(_data(node))
    flowing = {name for name in seen.inputs if name not in seen.constants}
    found = []
    for node in seen.nodes:
        inputs = tuple(name for name in _data(node) if name in flowing)
        if inputs and any(name in wanted for name in node.outputs):
            flowing.update(node.outputs)
            found.append(Node(node.name, node.op, inputs, node.outputs, {}))
    return found


# --- what a head taps when nobody says --------------------------------------------------------------------------------------------------


def last_exit(found: Chart) -> list[str]:
    """The exit of the last stage where it is as coarse as the last map of the trunk, else that map."""
    last = found.maps()[-1]
    exits = [tensor for tensor in found.exits() if found.lies[tensor].stride == found.lies[last].stride]
    return [(exits or [last])[-1]]


def last_map(found: Chart) -> list[str]:
    """The last map of the trunk, before it is pooled."""
    return [found.maps()[-1]]


def pyramid(found: Chart) -> list[str]:
    """Up to three maps of the trunk from stride 8 on, finest first: of each stride the last stage's exit, else the last map.

    A network that stays finer than 8 is tapped at its last three strides.
    """
    last: dict[Stride, str] = {}
    for tensor in (*found.maps(), *found.exits()):  # an exit takes the place of a map
        last[found.lies[tensor].stride] = tensor
    strides = sorted(last)
    coarse = [stride for stride in strides if min(stride) >= COARSE][:FPN_TAPS]
    return [last[stride] for stride in coarse or strides[-FPN_TAPS:]]


def before_last_stride(found: Chart) -> list[str]:
    """SSD's two: the widest map that the last reduction of the trunk reads (SSDLite on MobileNetV2: an expansion), and the last map."""
    seen = found.analysis.view
    last = found.maps()[-1]
    strides = {tensor: lie.stride for tensor, lie in found.lies.items()}
    finer = [strides[tensor] for tensor in found.maps() if strides[tensor] < strides[last]]
    if not finer:
        return [last]
    read = []
    for node in seen.nodes:
        if strides.get(node.outputs[0]) == strides[last]:
            read += [tensor for name in node.inputs if strides.get(tensor := _whole(name, seen)) == max(finer)]
    shapes = found.analysis.shapes.shapes
    maps = [tensor for tensor in read if found.is_map(tensor)]
    if not maps:
        return [last]
    return [max(reversed(maps), key=lambda tensor: shapes[tensor][1]), last]
