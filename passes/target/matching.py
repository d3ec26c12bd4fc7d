"""Which layers of a target can be solved anew, and which tensor of the seed each is to come close to.

What a layer makes runs through steps that scale and shift its channels (a BatchNormalization, products and sums with
constants), and perhaps additions of other data, to the tensor that is compared: T = s · layer(x) + t + rest. A layer is
solved anew where it lost some of what it read (channels, taps of its kernel, weights between groups); and where it is
the last of a block in which something was lost, or behind which blocks are gone: then it learns what the seed has
behind those. Behind such a layer the last of every block and what is outside of blocks is solved anew too, since what
these read has moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from passes.channels.groups import keeps_function, regrouped_shape
from passes.channels.resize import resized
from passes.graph.operators import MERGES
from passes.graph.tensors import Shape
from passes.graph.view import Node, View
from passes.network.analysis import Analysis
from passes.network.knobs import block_name
from passes.target.depth import BlockPlace, PlacedNode
from passes.target.plan import Plan
from passes.target.take import Take

LAYERS: Mapping[str, int] = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": -1}
"""Operators that are solved anew, whose weight is their second input → the axis of the channels that they make."""

SHIFTS = ("Add", "BatchNormalization")
SCALES = ("Mul", "BatchNormalization")


@dataclass(frozen=True, kw_only=True)
class MatchedLayer:
    """A layer of the target: `node`, which the seed calls `source`, in the target's block of that name ('' outside of
    blocks).

    Of its `tensor`, whose channels are on `axis`, those at `rows` are to be what those at `matches` are in the seed's
    tensor `seed`. `steps` are the nodes from the layer to the tensor.
    """

    node: str
    source: str
    block: str
    tensor: str
    seed: str
    axis: int
    rows: np.ndarray
    matches: np.ndarray
    steps: tuple[str, ...]


def matched_layers(analysis: Analysis, plan: Plan, target: View) -> tuple[MatchedLayer, ...]:
    """The layers of a target that are solved anew, in its order; none of a copied block, which the seed has no other
    tensors for.

    target: what `apply` made of the plan.
    """
    work = _Matching(analysis, plan, target)
    layers: list[MatchedLayer] = []
    moved: set[str] = set()  # tensors behind a layer that is solved anew
    for node in target.nodes:
        behind = not moved.isdisjoint(node.inputs)
        found = work.layer(node, behind=behind)
        if found is not None:
            layers.append(found)
        if behind or found is not None:
            moved.update(node.outputs)
    return tuple(layers)


class _Matching:
    """What is known of the target's nodes, tensors and blocks."""

    def __init__(self, analysis: Analysis, plan: Plan, target: View) -> None:
        self.analysis, self.plan, self.target = analysis, plan, target
        self.placed = {
            placed.node.name: placed for placed in plan.nodes if placed.place is None or not placed.place.copy
        }
        self.seeds = {
            name: source
            for placed in self.placed.values()
            for name, source in zip(placed.node.outputs, analysis.view.by_name[placed.source].outputs, strict=True)
            if name
        }
        takes = {take.target: take for take in plan.takes}
        shapes = analysis.shapes.shapes
        self.poorer = {
            name for name, take in takes.items() if take.weight and _loses(take, shapes[take.source], of_inputs=True)
        }
        changed = {
            name for name, take in takes.items() if take.weight and _loses(take, shapes[take.source], of_inputs=False)
        }
        self.changed = {
            placed.place
            for placed in self.placed.values()
            if placed.place and not changed.isdisjoint(placed.node.inputs)
        }
        self.ends = dict(self._ends())

    def _ends(self) -> Iterator[tuple[str, tuple[BlockPlace, str, bool]]]:
        """The target's tensor at the end of each block; the block, the seed's tensor it is to be, and whether blocks
        behind it are gone.
        """
        stages: dict[int, dict[int, BlockPlace]] = {}
        for placed in self.plan.nodes:
            if placed.place is not None:
                stages.setdefault(placed.place.stage, {})[placed.place.block] = placed.place
        own = {(placed.place, placed.source): placed.node for placed in self.placed.values() if placed.place}
        for stage, places in stages.items():
            blocks = self.analysis.stages[stage].blocks
            ordered = [places[k] for k in sorted(places)]
            for k, place in enumerate(ordered):
                after = ordered[k + 1].source if k + 1 < len(ordered) else len(blocks)
                # what follows in the seed up to the next block there is
                last = after - 1 if after > place.source else place.source
                ends = [self._end(stage, number) for number in (place.source, last)]
                node = own.get((place, self.analysis.view.producer[ends[0]]))
                if node is not None:
                    yield node.outputs[0], (place, ends[1], last > place.source)

    def _end(self, stage: int, number: int) -> str:
        """Where the seed's block ends, before an activation behind its addition."""
        block = self.analysis.stages[stage].blocks[number]
        return self.analysis.view.by_name[block.merge].outputs[0] if block.merge else block.exit

    def layer(self, node: Node, *, behind: bool) -> MatchedLayer | None:
        """The node as a layer that is solved anew, None where it is none. behind: what it reads is behind another
        one.
        """
        placed = self.placed.get(node.name)
        if (
            placed is None
            or node.op not in LAYERS
            or node.input(1) not in self.target.constants
            or node.int("transA", 0)
        ):
            return None
        axes = len(self.target.constants[node.inputs[1]].shape)
        if len(self.target.readers[node.inputs[1]]) > 1 or axes < 2:
            return None  # other layers have the same weight
        if node.op == "MatMul" and axes > 2:
            return None  # several matrices
        if node.op == "ConvTranspose" and (
            "output_shape" in node.attrs or node.attrs.get("auto_pad", "NOTSET") != "NOTSET"
        ):
            return None  # where it cuts depends on how large its map is
        tensors, steps = self._way(node)
        end = next((k for k, name in enumerate(tensors) if name in self.ends), None)
        place, seed, shortened = self.ends[tensors[end]] if end is not None else (None, "", False)
        is_last = place is not None and (behind or shortened or place in self.changed)
        if not (node.inputs[1] in self.poorer or is_last or (behind and placed.place is None)):
            return None
        if end is None or place != placed.place:
            end = max((k for k, name in enumerate(tensors) if name in self.seeds), default=None)
            if end is None:
                return None
            seed = self.seeds[tensors[end]]
        rows = self._rows(tensors[end], seed, placed)
        if rows is None:
            return None
        block = "" if placed.place is None else block_name(placed.place.stage, placed.place.block)
        axis = LAYERS[node.op] % len(self.plan.sizes[tensors[end]])
        return MatchedLayer(
            node=node.name,
            source=placed.source,
            block=block,
            tensor=tensors[end],
            seed=seed,
            axis=axis,
            rows=rows[0],
            matches=rows[1],
            steps=steps[:end],
        )

    def _rows(self, tensor: str, seed: str, placed: PlacedNode) -> tuple[np.ndarray, np.ndarray] | None:
        """The positions of channels that are the seed's, in the target and in the seed; None where they are on no
        common axis.
        """
        sizes, shapes = self.plan.sizes, self.analysis.shapes.shapes
        axis = LAYERS[placed.node.op] % len(sizes[tensor])
        labels = self.plan.ground.identities.labels
        label, own = labels.get(seed), labels.get(self.seeds.get(tensor, ""))
        if label is None or own is None:
            same = shapes[seed][axis] == sizes[tensor][axis] and label is None and own is None
            return (np.arange(sizes[tensor][axis]),) * 2 if same else None
        if not label.axis == own.axis == axis or not np.array_equal(label.ids, own.ids):
            return None
        positions = resized(label.ids, self.plan.changes.at(placed.place))
        rows = np.flatnonzero(positions.copy == 0)
        return rows, positions.old[rows]

    def _way(self, node: Node) -> tuple[list[str], tuple[str, ...]]:
        """What the layer makes, and each tensor that this becomes by scales, shifts and additions; and the nodes
        between them.
        """
        sizes, axis = self.plan.sizes, LAYERS[node.op]
        tensors = [node.outputs[0]]
        steps: list[str] = []
        merged, normalised = False, False
        while True:
            readers = self.target.readers.get(tensors[-1], ())
            if len(readers) != 1 or tensors[-1] in self.target.outputs or tensors[-1] not in sizes:
                return tensors, tuple(steps)
            step, slot = self.target.by_name[readers[0][0]], readers[0][1]
            constants = [name for name in step.inputs if name in self.target.constants]
            if step.op == "BatchNormalization":
                goes_on = (
                    slot == 0
                    and not merged
                    and not normalised
                    and axis == 1
                    and len([name for name in step.outputs if name]) == 1
                )
                normalised = True
            elif constants:
                fits = step.op in (*SHIFTS, *SCALES) and not merged and len(step.inputs) == 2
                goes_on = fits and self._is_per_channel(constants[0], sizes[tensors[-1]], axis)
            else:
                goes_on = step.op in MERGES
                merged = True
            if not goes_on or sizes.get(step.outputs[0]) != sizes[tensors[-1]]:
                return tensors, tuple(steps)
            tensors.append(step.outputs[0])
            steps.append(step.name)

    def _is_per_channel(self, constant: str, shape: Shape, axis: int) -> bool:
        """Whether it is a number for each channel, or one for all, laid along that axis of the shape."""
        found = tuple(self.target.constants[constant].shape)
        if len(found) > len(shape):
            return False
        whole = (1,) * (len(shape) - len(found)) + found
        return all(size == 1 or (k == axis % len(shape) and size == shape[k]) for k, size in enumerate(whole))


def _loses(take: Take, shape: Shape, *, of_inputs: bool) -> bool:
    """Whether the target lacks some of the weight; of_inputs: of what it reads, so that what it makes of the rest is
    another value.
    """
    groups = take.regroup
    if groups is not None:
        if not keeps_function(groups.seed, groups.target):
            return True
        shape = regrouped_shape(shape, groups.seed, groups.ground)
    return any(
        len(set(along.index[along.index >= 0].tolist())) < shape[axis]
        for axis, along in take.axes.items()
        if not of_inputs or along.role != "creates"
    )
