"""The skeleton of a target: the seed with the target's blocks and groups, at the seed's widths and kernels.

Groups decide which channels must change together, so where they change the identities are read anew, on this network:
128 → 144 channels together with 32 → 16 groups is then a width of 16 · 9. A number of groups that does not fit the
seed's widths (but will fit the target's) is put off: the convolution is dense in the skeleton, and its blocks are cut
out at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from passes.channels.groups import Grouping, Regroup, possible, regrouped
from passes.graph.shapes import infer
from passes.graph.view import View, in_order, linked
from passes.network.analyse import read
from passes.network.analysis import Analysis
from passes.network.knobs import block_knob, block_of
from passes.target.depth import BlockPlace, PlacedNode, lay_out
from passes.target.resolved import Skeleton


def skeleton(analysis: Analysis, sources: Mapping[int, Sequence[int]], groups: Mapping[str, int]) -> Skeleton:
    """The network with these blocks (stage → seed blocks) and groups (knob of the target → number)."""
    layout = lay_out(analysis, sources)
    placed_of: dict[str, list[PlacedNode]] = {}
    for placed in layout.nodes:
        placed_of.setdefault(placed.source, []).append(placed)
    regroups: dict[str, Regroup] = {}
    numbers: dict[str, int] = {}
    for name, grouping in analysis.groups.items():
        for node in grouping.nodes:
            for placed in placed_of.get(node, []):
                knob = _target_name(name, placed.place)
                value = groups[knob]
                if value != grouping.groups:
                    change = Regroup(knob, grouping.groups, _fitting(grouping, value), value)
                    regroups[placed.node.inputs[1]] = change
                    numbers[placed.node.name] = change.ground
    nodes = [_with_groups(placed, numbers) for placed in layout.nodes]
    tensors = {
        target: source
        for placed in layout.nodes
        for target, source in zip(placed.node.inputs, analysis.view.by_name[placed.source].inputs, strict=True)
        if source in analysis.view.constants
    }
    tensors |= {name: name for name in analysis.view.outputs if name in analysis.view.constants}
    made = _view(analysis.view, nodes, tensors, regroups)
    sizes = {name: analysis.shapes.shapes[name] for name in made.inputs if name in analysis.shapes.shapes}
    known = analysis.resolution.makes_map
    makes_map = {placed.node.name: known[placed.source] for placed in layout.nodes if placed.source in known}
    resolution = replace(analysis.resolution, makes_map=makes_map)
    shapes = replace(infer(made, sizes), free_axes=analysis.shapes.free_axes)  # what is free stays free
    return Skeleton(read(made, shapes, resolution, table=layout.table), layout, regroups, tensors)


def _target_name(knob: str, place: BlockPlace | None) -> str:
    """The target's name of a seed's knob, for the block that takes its parameters."""
    found = block_of(knob)
    return knob if found is None or place is None else block_knob(place.stage, place.block, found[2])


def _fitting(grouping: Grouping, value: int) -> int:
    return value if value in possible(grouping.rows, grouping.columns, grouping.inputs) else 1


def _with_groups(placed: PlacedNode, numbers: Mapping[str, int]) -> PlacedNode:
    groups = numbers.get(placed.node.name)
    return (
        placed
        if groups is None
        else replace(placed, node=replace(placed.node, attrs={**placed.node.attrs, "group": groups}))
    )


def _view(seed: View, nodes: Sequence[PlacedNode], tensors: Mapping[str, str], regroups: Mapping[str, Regroup]) -> View:
    constants = {}
    for target, source in tensors.items():
        change = regroups.get(target)
        if change is None:
            constants[target] = seed.constants[source]
        else:
            weight = np.asarray(seed.constants[source].values)
            constants[target] = gs.Constant(target, regrouped(weight, change.seed, change.ground))
    return linked(in_order([placed.node for placed in nodes]), constants, seed)
