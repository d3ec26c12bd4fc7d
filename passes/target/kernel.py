"""Kernels: the seed's taps in the centre, zeros around them; or the centre alone. A larger kernel computes what the
smaller did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from passes.graph.view import Node
from passes.network.analysis import Analysis, Kernel
from passes.network.knobs import block_knob, block_of
from passes.target.depth import BlockPlace
from passes.target.resolved import Resolved


@dataclass(frozen=True)
class Taps:
    """A resized kernel: per weight axis (2, 3, …) the seed's tap at each new position, −1 outside; and how far each
    side moved.
    """

    axes: Mapping[int, np.ndarray]
    grown: int


def kernels_at(
    analysis: Analysis, resolved: Resolved, places: Sequence[BlockPlace]
) -> dict[tuple[str, BlockPlace | None], Taps]:
    """(weight in the seed, place) → its taps, for the weights whose kernel changes."""
    found: dict[tuple[str, BlockPlace | None], Taps] = {}
    by_source: dict[tuple[int, int], list[BlockPlace]] = {}
    for place in places:
        by_source.setdefault((place.stage, place.source), []).append(place)
    for name, kernel in analysis.kernels.items():
        block = block_of(name)
        if block is None:
            _add(found, kernel, None, resolved.values[name])
            continue
        for place in by_source.get(block[:2], []):
            _add(found, kernel, place, resolved.values[block_knob(place.stage, place.block, block[2])])
    return found


def _add(
    found: dict[tuple[str, BlockPlace | None], Taps], kernel: Kernel, place: BlockPlace | None, value: int
) -> None:
    grown = (value - max(kernel.extents)) // 2
    if grown:
        axes = {a + 2: taps(extent, extent + 2 * grown) for a, extent in enumerate(kernel.extents) if extent > 1}
        found[kernel.weight, place] = Taps(axes, grown)


def taps(extent: int, new: int) -> np.ndarray:
    """The seed's tap at each of `new` positions, centred; −1 where there is none (FNA++: kernel level)."""
    index = np.arange(new) - (new - extent) // 2
    return np.where((index >= 0) & (index < extent), index, -1)


def attributes(node: Node, kernel: Taps, extents: Sequence[int]) -> dict[str, object]:
    """kernel_shape and pads of a convolution that keeps its output positions: each side moves by the taps added there,
    dilated.
    """
    changed: dict[str, object] = {}
    spatial = len(extents)
    grown = [kernel.grown if extent > 1 else 0 for extent in extents]
    if "kernel_shape" in node.attrs:
        changed["kernel_shape"] = [extent + 2 * by for extent, by in zip(extents, grown, strict=True)]
    if node.attrs.get("auto_pad", "NOTSET") == "NOTSET":
        dilations = node.ints("dilations", (1,) * spatial)
        pads = node.ints("pads", (0,) * (2 * spatial))
        changed["pads"] = [pad + grown[a % spatial] * dilations[a % spatial] for a, pad in enumerate(pads)]
    return changed
