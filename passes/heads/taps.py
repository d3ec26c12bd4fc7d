"""Where heads tap a network: names like knobs, resolved to tensors, and what each kind of head taps when nobody says.

A tap is `stageI.exit`, `stageI.blockJ.exit`, `stageI.blockJ.hidden` (the channels inside a block, after their
activation) or the name of a node or tensor. The defaults follow from running strides and the encoder (where the network
grows coarser) alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import TensorProto

from passes.errors import UserError
from passes.graph.operators import WEIGHTED
from passes.graph.view import View
from passes.heads.encoder import ancestors, encoder
from passes.heads.grids import grids_of
from passes.heads.tap import Grid, Stride, Tap
from passes.heads.trunk import trunk
from passes.nearest import nearest
from passes.network.analysis import Analysis, blocks_named
from passes.network.knobs import block_of, kind_of, named, stage_knob

FLOATS: Mapping[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
}
COARSE = 8  # pixels: the finest map a detector looks at, in RetinaNet (P3) as in SSD
FPN_TAPS = 3  # C3, C4, C5
MOST_TAPS = 4  # where a network goes on to stride 64


@dataclass(frozen=True)
class Chart:
    """The maps of a network: how they lie, the way through them in order, and the tensors by the names that a user may
    give.
    """

    analysis: Analysis
    grids: Mapping[str, Grid]
    way: tuple[str, ...]
    names: Mapping[str, str]
    behind: frozenset[str] = frozenset()
    staged: bool = True  # exits of stages come before other maps

    def tap(self, name: str) -> Tap:
        """The tap of that name. Raises UserError where there is none, or it is no map of numbers with its channels on
        axis 1 or 3.
        """
        return self.tap_at(self._tensor(name), name)

    def tap_at(self, tensor: str, name: str) -> Tap:
        """The tap of a tensor, called by that name. Raises UserError as above."""
        shape = self.analysis.shapes.shapes.get(tensor)
        grid = self.grids.get(tensor)
        dtype = FLOATS.get(self.analysis.shapes.types.get(tensor, 0))
        if tensor in self.analysis.view.inputs:
            raise UserError(f"tap '{name}' is the input itself; tap what the network makes of it")
        if shape is None or grid is None:
            seen = "unknown" if shape is None else list(shape)
            raise UserError(
                f"tap '{name}' is no map [N, channels, h, w] of the image (its shape is {seen}); {self._suggestion()}"
            )
        if dtype is None:
            raise UserError(
                f"tap '{name}' does not hold 16-, 32- or 64-bit floats, which a head is made of; {self._suggestion()}"
            )
        space = (shape[2], shape[3]) if grid.axis == 1 else (shape[1], shape[2])
        return Tap(
            name=name,
            tensor=tensor,
            channels=shape[grid.axis],
            space=space,
            stride=grid.stride,
            dtype=dtype,
            axis=grid.axis,
        )

    def _tensor(self, name: str) -> str:
        seen = self.analysis.view
        if name in self.names:
            return self.names[name]
        if name in seen.by_name:
            return seen.by_name[name].outputs[0]
        if name in seen.producer or name in seen.inputs:
            return name
        near = nearest(name, [*self.names, *seen.by_name])
        hint = f"did you mean '{near}'? " if near else ""
        raise UserError(f"'{name}' is no tap of this model; {hint}A tap is {FORMS}; {self._suggestion()}")

    def _suggestion(self) -> str:
        known = [name for name in self.names if (found := named(name)) and found.block is None and found.tail == "exit"]
        suggested = known or [self.name_of(tensor) for tensor in self.maps()][-3:]
        return f"this model has {', '.join(map(repr, suggested))}" if suggested else "this model has no map to tap"

    def name_of(self, tensor: str) -> str:
        """The name of a tensor's tap: of its stage or block where it is one's exit or hidden map, else of its node
        where that makes one.
        """
        seen = self.analysis.view
        node = seen.by_name.get(seen.producer.get(tensor, ""))
        own = node.name if node is not None and node.outputs[0] == tensor else tensor
        return next((name for name, other in self.names.items() if other == tensor), own)

    def is_map(self, tensor: str) -> bool:
        """Whether a head can tap the tensor."""
        return tensor in self.grids and _is_tap(tensor, self.analysis)

    def maps(self) -> list[str]:
        """The maps on the way, in order. Raises UserError where there is none."""
        found = [tensor for tensor in self.way if self.is_map(tensor)]
        if not found:
            raise UserError(
                "no map [N, channels, h, w] lies on every path of this model: name the tensors to tap with --taps"
            )
        return found

    def exits(self) -> list[str]:
        """The exits of the stages that lie on the way, in order."""
        last = [stage.blocks[-1].exit for stage in self.analysis.stages] if self.staged else []
        return [tensor for tensor in self.maps() if tensor in last]


FORMS = "stageI.exit, stageI.blockJ.exit, stageI.blockJ.hidden, or the name of a node"


def _is_tap(tensor: str, analysis: Analysis) -> bool:
    """The network computes it, in floats."""
    return tensor not in analysis.view.inputs and analysis.shapes.types.get(tensor) in FLOATS


def chart(analysis: Analysis, features: str | None = None, tapped: Sequence[str] = ()) -> Chart:
    """The chart of an analysed network, its way through the encoder.

    features: what its own classifier reads; tapped: what a head that it has been given does. No map behind them counts.
    """
    seen, grids = analysis.view, grids_of(analysis)
    behind = _behind(features, seen) | _of_head(tapped, seen)
    way = encoder(analysis, grids, lambda tensor: _is_tap(tensor, analysis), behind)
    return Chart(analysis, grids, way, tap_names(analysis), behind)


def tap_names(analysis: Analysis) -> dict[str, str]:
    """The tensors that have names like knobs: exits of stages and blocks, and the hidden maps of blocks."""
    names: dict[str, str] = {}
    for i, stage in enumerate(analysis.stages):
        names[stage_knob(i, "exit")] = stage.blocks[-1].exit
    for name, block in blocks_named(analysis):
        names[f"{name}.exit"] = block.exit
    for name in analysis.atoms:
        found = block_of(name)
        if found is not None and kind_of(name) == "hidden":
            block = analysis.stages[found[0]].blocks[found[1]]
            names[name] = _activated(analysis, name, block.nodes)
    return names


def wide(found: Chart) -> Chart:
    """The chart with another way: all that every path to the outputs passes, decoders too."""
    seen = found.analysis.view
    return replace(found, way=tuple(tensor for tensor in trunk(seen, seen.outputs) if tensor not in found.behind))


def _behind(features: str | None, seen: View) -> frozenset[str]:
    """All that is computed from a tensor."""
    found = set() if features is None else {features}
    for node in seen.nodes:
        if not found.isdisjoint(node.inputs):
            found.update(node.outputs)
    return frozenset(found - {features})


def _of_head(tapped: Sequence[str], seen: View) -> frozenset[str]:
    """All that is computed from what a head taps, but for what it taps and what that comes from."""
    kept = ancestors(seen, tapped)
    before = {name for node in seen.nodes if node.name in kept for name in node.outputs}
    found = frozenset().union(*(_behind(tensor, seen) for tensor in tapped)) if tapped else frozenset[str]()
    return found - before


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
        if (
            node.op in WEIGHTED
            and label is not None
            and shapes[tensor][2:] == space
            and np.isin(classes, label.ids).all()
        ):
            return tensor
    return creator.outputs[0]


def _whole(tensor: str, seen: View) -> str:
    """What a tensor was before it was padded or split."""
    node = seen.by_name.get(seen.producer.get(tensor, ""))
    return tensor if node is None or node.op not in ("Pad", "Split") else _whole(node.inputs[0], seen)


# --- what a head taps when nobody says ----------------------------------------------------------


def last_exit(found: Chart) -> list[str]:
    """The exit of the last stage where it is as coarse as the last map on the way, else that map."""
    last = found.maps()[-1]
    exits = [tensor for tensor in found.exits() if found.grids[tensor].stride == found.grids[last].stride]
    return [(exits or [last])[-1]]


def last_map(found: Chart) -> list[str]:
    """The last map on the way, before it is pooled."""
    return [found.maps()[-1]]


def pyramid(found: Chart) -> list[str]:
    """Up to four maps on the way from stride 8 on, finest first: of each stride the last stage's exit, else the last
    map.

    A network that stays finer than 8 is tapped at its last three strides.
    """
    last: dict[Stride, str] = {}
    for tensor in (*found.maps(), *found.exits()):  # an exit takes the place of a map
        last[found.grids[tensor].stride] = tensor
    strides = sorted(last)
    coarse = [stride for stride in strides if min(stride) >= COARSE][:MOST_TAPS]
    return [last[stride] for stride in coarse or strides[-FPN_TAPS:]]


def before_last_stride(found: Chart) -> list[str]:
    """SSD's two: the widest map that the last reduction on the way reads (SSDLite on MobileNetV2: an expansion), and
    the last map.
    """
    seen = found.analysis.view
    last = found.maps()[-1]
    strides = {tensor: grid.stride for tensor, grid in found.grids.items()}
    finer = [strides[tensor] for tensor in found.maps() if strides[tensor] < strides[last]]
    if not finer:
        return [last]
    before = ancestors(seen, [last])
    read = []
    for node in seen.nodes:
        if node.name in before and strides.get(node.outputs[0]) == strides[last]:
            read += [tensor for name in node.inputs if strides.get(tensor := _whole(name, seen)) == max(finer)]
    maps = [tensor for tensor in read if found.is_map(tensor)]
    if not maps:
        return [last]
    return [max(reversed(maps), key=lambda tensor: found.tap(found.name_of(tensor)).channels), last]
