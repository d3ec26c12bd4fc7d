"""The analysis of a network: what can change, from where to where, and what keeps it from changing.

Everything here is derived anew from the graph; nothing is patched. A Knob is one number a user can set; knobs name
atoms, stages and kernels in words that stay the same when the network is remapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from passes.channels.atoms import Atom, Identities
from passes.channels.axes import Site
from passes.channels.groups import Grouping
from passes.graph.normal import Normalised
from passes.graph.tensors import Shapes
from passes.graph.view import View
from passes.network.colours import Colours, read_colours
from passes.network.cost import Cost
from passes.network.images import Image, Resolution, Strides
from passes.network.knobs import Knob, block_name
from passes.network.samples import Batching, read_batching
from passes.network.stages import Block, Silence, Stage


@dataclass(frozen=True)
class Kernel:
    """A kernel knob's weight [out, in, k…], the nodes that use it, and the extents that move together."""

    weight: str
    nodes: tuple[str, ...]
    extents: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """All facts about a graph in normal form: by name, but for the constants of the view and the graph that an image
    was read from.

    `normal` is that graph, where it was a graph that was analysed.
    """

    view: View
    shapes: Shapes
    identities: Identities
    stages: tuple[Stage, ...]
    knobs: Mapping[str, Knob]
    atoms: Mapping[str, Atom]
    kernels: Mapping[str, Kernel]
    groups: Mapping[str, Grouping]
    silences: Mapping[tuple[int, int], Silence]
    cost: Cost
    notes: tuple[str, ...]
    resolution: Resolution
    normal: Normalised | None = None

    @property
    def image(self) -> Image:
        """The input that is an image."""
        return self.resolution.image

    @cached_property
    def colours(self) -> Colours:
        """How many channels the image has, and whether that can change."""
        return read_colours(self.image, self.view, self.shapes)

    @cached_property
    def batching(self) -> Batching:
        """How many samples it takes at once, and whether that can change."""
        return read_batching(self.view, self.shapes)

    @property
    def strides(self) -> Strides:
        """The output stride, and what it can become."""
        return self.resolution.strides


# --- names --------------------------------------------------------------------------------------


# --- knobs --------------------------------------------------------------------------------------


def group_of(analysis: Analysis, knob: str) -> list[dict[str, object]]:
    """Every weight axis that moves with a width knob: initializer, axis, positions along it, and whether it creates or
    consumes them.
    """
    atom = analysis.atoms[knob]
    index = next(k for k, other in enumerate(analysis.identities.atoms) if other is atom)
    rows: list[dict[str, object]] = []
    for site in atom.sites:
        rows.append(
            {
                "initializer": site.tensor,
                "axis": site.axis,
                "indices": _positions(site, analysis.identities, index),
                "role": site.role,
            }
        )
    return rows


def _positions(site: Site, identities: Identities, index: int) -> list[int]:
    known = site.ids >= 0
    return [
        p
        for p, (c, k) in enumerate(zip(site.ids.tolist(), known.tolist(), strict=True))
        if k and identities.atom_of[c] == index
    ]


def blocks_named(analysis: Analysis) -> list[tuple[str, Block]]:
    """(stageI.blockJ, block) for all blocks."""
    return [
        (block_name(i, j), block) for i, stage in enumerate(analysis.stages) for j, block in enumerate(stage.blocks)
    ]
