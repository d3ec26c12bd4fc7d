"""Where a network grows coarser: its encoder, level by level, over all of its outputs; and what share of the parameters
a tap keeps.

A map belongs to the encoder where nothing before it is coarser than it is. What makes a map finer again belongs to a
decoder (an FPN, the second half of a U-Net), and so does all that reads it. A detour is no level: a map is pooled, and
comes back to where it was, with less than a twentieth of the parameters on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction

from passes.graph.operators import CONVOLUTIONS, SIZES
from passes.graph.view import Node, View
from passes.heads.tap import Grid, Stride
from passes.heads.trunk import trunk
from passes.network.analysis import Analysis

DETOUR = 0.05  # of the parameters
NOTHING = Fraction(0)
LINEAR = CONVOLUTIONS | {"BatchNormalization", "Identity"}


@dataclass(frozen=True)
class Ancestry:
    """The parameters that each tensor comes from, as bits of a number, and how many numbers each parameter has."""

    sets: Mapping[str, int]
    counts: tuple[int, ...]

    def params(self, tensors: Iterable[str]) -> int:
        """Parameters that any of the tensors comes from."""
        whole = 0
        for tensor in tensors:
            whole |= self.sets.get(tensor, 0)
        return sum(count for k, count in enumerate(self.counts) if whole >> k & 1)


def ancestry(analysis: Analysis) -> Ancestry:
    """Of every tensor that is computed."""
    place = {name: k for k, name in enumerate(analysis.cost.tensor_params)}
    sets: dict[str, int] = {}
    for node in analysis.view.nodes:
        own = 0
        for name in node.inputs:
            own |= 1 << place[name] if name in place else sets.get(name, 0)
        sets.update(dict.fromkeys(node.outputs, own))
    return Ancestry(sets, tuple(analysis.cost.tensor_params.values()))


def encoder(
    analysis: Analysis, grids: Mapping[str, Grid], is_tap: Callable[[str], bool], behind: Set[str]
) -> tuple[str, ...]:
    """The maps of the encoder from fine to coarse: those of each level that all coarser maps come from.

    Of the coarsest level those that all comes from that leaves it, or else what the branch with the most parameters
    comes from. `behind`: tensors that do not count.
    """
    levels = _levels(analysis, grids, is_tap, behind)
    found: list[str] = []
    for stride in sorted(levels, key=lambda stride: stride[0] * stride[1]):
        own = levels[stride]
        coarser = [t for other, maps in levels.items() if other[0] * other[1] > stride[0] * stride[1] for t in maps]
        passed = _passed(analysis.view, coarser, own) if coarser else _last(analysis, own)
        found.extend(_finished(passed, analysis))
    return tuple(found)


def _levels(
    analysis: Analysis, grids: Mapping[str, Grid], is_tap: Callable[[str], bool], behind: Set[str]
) -> dict[Stride, list[str]]:
    """The maps of the encoder by stride, in order."""
    seen = analysis.view
    # of all before a tensor; None: something before it was coarser than what followed
    peaks: dict[str, Stride | None] = {}
    levels: dict[Stride, list[str]] = {}
    for name in seen.inputs:
        if name in grids:
            peaks[name] = grids[name].stride
    for node in seen.nodes:
        if node.op in SIZES:
            continue
        before = [peaks[name] for name in node.inputs if name in peaks]
        coarsest = _coarsest(before)
        for name in node.outputs:
            grid = grids.get(name)
            peaks[name] = coarsest
            if grid is None or coarsest is None:
                continue
            deeper = grid.stride[0] > coarsest[0] or grid.stride[1] > coarsest[1]
            finer = grid.stride[0] < coarsest[0] or grid.stride[1] < coarsest[1]
            if finer:
                peaks[name] = None
            elif not (deeper and before and _is_detour(node, analysis, grids)):
                peaks[name] = grid.stride
                if is_tap(name) and name not in behind:
                    levels.setdefault(grid.stride, []).append(name)
    return levels


def _coarsest(before: Sequence[Stride | None]) -> Stride | None:
    """The coarsest of some strides on both axes; None where one of them is."""
    found = [stride for stride in before if stride is not None]
    if len(found) < len(before):
        return None
    return (max((down for down, _ in found), default=NOTHING), max((across for _, across in found), default=NOTHING))


def _is_detour(first: Node, analysis: Analysis, grids: Mapping[str, Grid]) -> bool:
    """What follows from a node comes back to finer maps, and until then has next to no parameters."""
    seen, params = analysis.view, analysis.cost.tensor_params
    stride = grids[next(name for name in first.outputs if name in grids)].stride
    found: set[str] = set()
    waiting = [first]
    done = {first.name}
    returns = False
    while waiting:
        node = waiting.pop()
        found.update(name for name in node.inputs if name in params)
        for name in node.outputs:
            grid = grids.get(name)
            if grid is not None and (grid.stride[0] < stride[0] or grid.stride[1] < stride[1]):
                returns = True
                continue
            for reader, _ in seen.readers.get(name, ()):
                if reader not in done:
                    done.add(reader)
                    waiting.append(seen.by_name[reader])
    return returns and sum(params[name] for name in found) < DETOUR * sum(params.values())


def _passed(seen: View, targets: Sequence[str], own: Sequence[str]) -> list[str]:
    """Those of own that every path to the targets passes."""
    members = set(own)
    return [name for name in trunk(seen, targets) if name in members]


def _last(analysis: Analysis, own: Sequence[str]) -> list[str]:
    """Of the coarsest level: what everything that leaves it comes from, or else the branch with the most parameters."""
    seen = analysis.view
    inside = ancestors(seen, own)
    leaving = [
        name
        for name in own
        if name in seen.outputs or not all(reader in inside for reader, _ in seen.readers.get(name, (("", 0),)))
    ]
    found = _passed(seen, leaving, own)
    if found:
        return found
    known = ancestry(analysis)
    branches = [_finished(_passed(seen, [name], own), analysis) for name in leaving]
    return max(branches, key=lambda maps: known.params(maps[-1:]))


def ancestors(seen: View, tensors: Iterable[str]) -> set[str]:
    """The nodes that the tensors come from."""
    wanted = set(tensors)
    found = set()
    for node in reversed(seen.nodes):
        if any(name in wanted for name in node.outputs):
            wanted.update(node.inputs)
            found.add(node.name)
    return found


def _finished(maps: Sequence[str], analysis: Analysis) -> list[str]:
    """Without those that are a convolution's result as it is (an FPN's lateral, a prediction), unless a block ends
    there or all are.
    """
    exits = {block.exit for stage in analysis.stages for block in stage.blocks}
    found = [name for name in maps if name in exits or not is_projection(name, analysis.view)]
    return found or list(maps)


def is_projection(tensor: str, seen: View) -> bool:
    """Nothing but a convolution, its normalisation and its bias stands last."""
    node = seen.by_name.get(seen.producer.get(tensor, ""))
    if node is None:
        return False
    constant = [name for name in node.inputs if name in seen.constants]
    if node.op in ("Add", "Transpose") and len(constant) == len(node.inputs) - 1:
        return is_projection(next(name for name in node.inputs if name not in constant), seen)
    return node.op in LINEAR
