"""The plan of a remap: for every target tensor where its values come from, and the target's nodes; and the loop that carries it out.

Depth, width and kernels each say their part; what a Take then holds, and how a strategy fills it, is in take.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from passes.channels.axes import Site, Size
from passes.channels.groups import Regroup, keeps_function, possible
from passes.channels.resize import Change, modelled, resized
from passes.errors import UserError
from passes.graph.operators import CONVOLUTIONS
from passes.network.analysis import Analysis
from passes.network.knobs import STRIDE, stage_knob
from passes.target.depth import BlockPlace, NodeLayout, PlacedNode, lay_out
from passes.target.kernel import Taps, attributes, kernels_at
from passes.target.plan import Plan
from passes.target.resolve import resolve
from passes.target.resolved import Resolved, Skeleton
from passes.target.sized import finish
from passes.target.spec import Spec
from passes.target.take import STRATEGIES, Along, Take, _bytes, _require_room
from passes.target.width import SELECTIONS, Changes, Choice, changes

UNBOUNDED = (1 << 63) - 1


def plan(analysis: Analysis, spec: Spec, *, strategy: str = "fna", select: str = "first", seed: int = 0, allow_drift: bool = False) -> Plan:
    """The plan that takes the analysed network to the shape the Spec asks for.

    strategy: fna or preserve; select: which channels survive narrowing (first, bn, l1, std); seed: for all noise; allow_drift: let preserve
    grow an approximate knob by the fna rule. Raises UserError for an impossible Spec or a growth that preserve must refuse.
    """
    if strategy not in STRATEGIES:
        raise UserError(f"strategy {strategy!r} is not one of {', '.join(STRATEGIES)}")
    if select not in SELECTIONS:
        raise UserError(f"selection {select!r} is not one of {', '.join(SELECTIONS)}")
    resolved = resolve(analysis, spec)
    layout = lay_out(analysis, resolved.sources)
    if strategy == "preserve" and not allow_drift:
        _require_whole_groups(resolved)
    refused, drifts = _growth_drifts(resolved, strategy)
    refused += _loud_copies(analysis, layout) if strategy == "preserve" else []
    if refused and not allow_drift:
        raise UserError(f"{refused[0]}; use --strategy fna, or --allow-drift to grow it by the fna rule")
    drifts = [*layout.drifts, *drifts, *refused]
    choice = Choice(select, "bn" if strategy == "preserve" else None)
    silenced = _silenced(analysis, layout) if strategy == "preserve" else {}
    ground, bones = analysis, resolved.skeleton
    if bones is not None:
        ground = bones.analysis
        silenced = _on_skeleton(silenced, bones)
        layout = lay_out(ground, {i: range(len(stage.blocks)) for i, stage in enumerate(ground.stages)})
    work = _Planner(ground, resolved, layout, changes=changes(ground, resolved, layout, choice), strategy=strategy, silenced=silenced)
    nodes, takes = work.nodes(), work.takes()
    if bones is not None:
        nodes, takes = _of_seed(bones, nodes, takes)
    made = Plan(
        strategy=strategy,
        rng_seed=seed,
        resolved=resolved,
        ground=ground,
        nodes=nodes,
        takes=takes,
        numbers=work.numbers,
        changes=work.changes,
        table=layout.table,
        drifts=tuple(drifts),
        notes=resolved.notes,
        sizes=work.shapes(),
    )
    made = finish(made, analysis)
    if made.averages and strategy == "preserve" and not allow_drift:
        why = f"'{made.averages[0]}' averages over the finer map"
        raise UserError(f"'{STRIDE}' cannot shrink exactly: {why}; use --strategy fna, or --allow-drift")
    return made


def _require_whole_groups(resolved: Resolved) -> None:
    """No convolution loses weights to its groups; raises UserError where one does."""
    for name, knob in resolved.knobs.items():
        value = resolved.values[name]
        if knob.kind == "groups" and not keeps_function(knob.value, value):
            raise UserError(
                f"'{name}' cannot go from {knob.value} to {value} exactly: {knob.why}; use --strategy fna, or --allow-drift to drop them"
            )


def _growth_drifts(resolved: Resolved, strategy: str) -> tuple[list[str], list[str]]:
    """Growth that preserve must refuse, and everything else in the Spec that moves inner values on the seed's channels."""
    refused: list[str] = []
    drifts: list[str] = []
    for name, value in resolved.values.items():
        knob = resolved.knobs[name]
        if knob.kind == "from":
            continue
        if value > knob.value and (knob.kind == "width" or (knob.kind == "depth" and strategy == "fna")):
            if strategy == "fna":
                drifts.append(f"{name} grows from {knob.value} to {value} by the fna rule")
            elif knob.growth == "approximate":
                refused.append(f"'{name}' cannot grow from {knob.value} to {value} exactly: {knob.why}")
        elif value < knob.value and knob.kind == "width" and knob.growth == "approximate":
            drifts.append(f"{name} shrinks from {knob.value} to {value}: {knob.why}")
        elif value < knob.value and knob.kind == "kernel":
            drifts.append(f"{name} shrinks from {knob.value} to {value}")
    return refused, drifts


def _loud_copies(analysis: Analysis, layout: NodeLayout) -> list[str]:
    """Copied blocks that preserve cannot silence."""
    found = []
    for place in dict.fromkeys(p.place for p in layout.nodes if p.place is not None and p.place.copy):
        why = analysis.silences[place.stage, place.source].why
        if why is not None:
            copy = f"block {place.block} copies the seed's block {place.source}"
            found.append(f"'{stage_knob(place.stage, 'depth')}' cannot grow exactly: {copy}, and {why}")
    return found


Held = Mapping[str, float]  # tensor → the value of all its entries


def _silenced(analysis: Analysis, layout: NodeLayout) -> dict[BlockPlace, Held]:
    """Copied blocks that must compute their entry, with the seed tensors that hold a value for that."""
    places = dict.fromkeys(p.place for p in layout.nodes if p.place is not None and p.place.copy)
    quiet = {place: analysis.silences[place.stage, place.source] for place in places}
    return {place: silence.values() for place, silence in quiet.items() if silence.why is None}


# --- where groups change: by way of the skeleton ---------------------------------------------------------------------------------------


def _on_skeleton(silenced: Mapping[BlockPlace, Held], bones: Skeleton) -> dict[BlockPlace, Held]:
    """The same blocks and tensors under the skeleton's names; there no block is a copy any more."""
    found: dict[BlockPlace, dict[str, float]] = {}
    for placed in bones.layout.nodes:
        place = placed.place
        if place is not None and place in silenced:
            held = silenced[place]
            quiet = {name: held[source] for name in placed.node.inputs if (source := bones.sources.get(name, "")) in held}
            found.setdefault(BlockPlace(place.stage, place.block, place.block, False), {}).update(quiet)
    return {**found}


def _of_seed(bones: Skeleton, nodes: Sequence[PlacedNode], takes: Sequence[Take]) -> tuple[tuple[PlacedNode, ...], tuple[Take, ...]]:
    """Nodes and takes made on the skeleton, with the seed's nodes and tensors as sources and the target's groups.

    Raises UserError where a number of groups does not divide the target's channels.
    """
    seed = {placed.node.name: placed for placed in bones.layout.nodes}
    shapes = {}
    done = []
    for take in takes:
        regroup = bones.regroups.get(take.source)
        shapes[take.target] = take.shape(bones.analysis.shapes.shapes[take.source])
        done.append(replace(take, source=bones.sources[take.source], regroup=regroup))
    made = []
    for placed in nodes:
        node, origin = placed.node, seed[placed.source]
        regroup = bones.regroups.get(node.input(1)) if node.op in CONVOLUTIONS else None
        if regroup is not None:
            _require_divisor(regroup, shapes[node.inputs[1]], node.op)
            node = replace(node, attrs={**node.attrs, "group": regroup.target})
        made.append(PlacedNode(node, origin.source, origin.place))
    return tuple(made), tuple(done)


def _require_divisor(regroup: Regroup, weight: tuple[int, ...], op: str) -> None:
    """The target's groups divide the channels that the weight (still of `ground` groups) has in the target."""
    rows, columns = weight[0], weight[1] * regroup.ground
    inputs = columns if op == "Conv" else rows
    valid = possible(rows, columns, inputs)
    if regroup.target not in valid:
        some = ", ".join(map(str, valid[:12])) + (", …" if len(valid) > 12 else "")
        outputs = rows if op == "Conv" else columns
        raise UserError(
            f"'{regroup.knob}': {regroup.target} groups are not possible with {inputs} input and {outputs} output channels, "
            f"of which every group needs the same number, and at least two inputs; possible are {some}"
        )


class _Planner:
    """Combines depth, width and kernel into takes, node attributes and numbers."""

    def __init__(
        self,
        analysis: Analysis,
        resolved: Resolved,
        layout: NodeLayout,
        *,
        changes: Changes,
        strategy: str,
        silenced: Mapping[BlockPlace, Held],
    ) -> None:
        self.analysis = analysis
        self.layout = layout
        self.changes = changes
        self.strategy, self.silenced = strategy, silenced
        self.regroups = resolved.skeleton is not None
        self.numbers: dict[str, np.ndarray] = {}
        places = list(dict.fromkeys(p.place for p in layout.nodes if p.place is not None))
        self.kernels = kernels_at(analysis, resolved, places)
        self.placed_of: dict[str, list[PlacedNode]] = {}
        for placed in layout.nodes:
            self.placed_of.setdefault(placed.source, []).append(placed)
        self.sites: dict[str, list[Site]] = {}
        for site in analysis.identities.sites.values():
            self.sites.setdefault(site.tensor, []).append(site)
        self.drifting = np.zeros(analysis.identities.count, bool)
        for atom in analysis.identities.atoms:
            if atom.drift is not None:
                self.drifting[atom.classes] = True

    # --- nodes ---

    def nodes(self) -> tuple[PlacedNode, ...]:
        """The target's nodes with every attribute and number that counts channels or taps refreshed."""
        edits: dict[str, dict[str, object]] = {}
        for size in self.analysis.identities.sizes:
            self._refresh(size, edits)
        for split in self.analysis.identities.splits:
            for placed in self.placed_of.get(split.node, []):
                self._refresh_split(placed, split.parts, edits)
        for pick in self.analysis.identities.picks:
            for placed in self.placed_of.get(pick.node, []):
                change = self.changes.at(placed.place)
                if not _untouched(pick.ids, change):
                    self.numbers[placed.node.inputs[1]] = _repicked(pick.ids, pick.picks, change).reshape(
                        self._number_shape(self.analysis.view.by_name[pick.node].inputs[1], -1)
                    )
        for (weight, place), kernel in self.kernels.items():
            self._refresh_kernel(weight, place, kernel, edits)
        done = []
        for placed in self.layout.nodes:
            node = placed.node
            attrs = {**node.attrs, **edits[node.name]} if node.name in edits else node.attrs
            done.append(replace(placed, node=replace(node, attrs=attrs)))
        return tuple(done)

    def _number_shape(self, name: str, count: int) -> tuple[int, ...]:
        shape = self.analysis.shapes.shapes[name]
        return tuple(count if size > 1 else 1 for size in shape)

    def _refresh(self, size: Size, edits: dict[str, dict[str, object]]) -> None:
        if len(size.place) == 3:
            for placed in self.placed_of.get(size.place[0], []):
                value = self._count(size, placed.place)
                attribute, index = str(size.place[1]), int(size.place[-1])
                if index < 0:
                    edits.setdefault(placed.node.name, {})[attribute] = value
                else:
                    row = edits.setdefault(placed.node.name, {})
                    numbers = list(row.get(attribute, placed.node.ints(attribute, ())))  # type: ignore[call-overload]
                    numbers[index] = value
                    row[attribute] = numbers
            return
        constant, index = str(size.place[0]), int(size.place[1])
        for reader, slot in self.analysis.view.readers.get(constant, ()):
            for placed in self.placed_of.get(reader, []):
                value = self._count(size, placed.place)
                target = placed.node.inputs[slot]
                array = self.numbers.get(target)
                old = self.analysis.view.values(constant)
                if array is None and int(old.ravel()[index]) == value:
                    continue
                array = old.copy() if array is None else array
                array.reshape(-1)[index] = value
                self.numbers[target] = array

    def _count(self, size: Size, place: BlockPlace | None) -> int:
        count = len(resized(size.ids, self.changes.at(place))) + size.beyond
        if size.from_end:
            return -count if count else UNBOUNDED  # −0 would count from the start
        return count

    def _refresh_split(self, placed: PlacedNode, parts: Sequence[np.ndarray], edits: dict[str, dict[str, object]]) -> None:
        change = self.changes.at(placed.place)
        if all(_untouched(part, change) for part in parts):
            return
        sizes = [len(resized(part, change)) for part in parts]
        node = placed.node
        if node.input(1):
            self.numbers[node.inputs[1]] = np.array(sizes, np.int64)
        else:
            edits.setdefault(node.name, {})["split"] = sizes

    def _refresh_kernel(self, weight: str, place: BlockPlace | None, kernel: Taps, edits: dict[str, dict[str, object]]) -> None:
        extents = self.analysis.shapes.shapes[weight][2:]
        for reader, _ in self.analysis.view.readers[weight]:
            for placed in self.placed_of.get(reader, []):
                if place is None or placed.place == place:
                    edits.setdefault(placed.node.name, {}).update(attributes(placed.node, kernel, extents))

    # --- tensors ---

    def takes(self) -> tuple[Take, ...]:
        """One Take per constant that the target's nodes read; numbers that were refreshed are not taken.

        Raises UserError where they would hold too much, before the positions of all of them take as much.
        """
        found: dict[str, Take] = {}
        total = 0
        for placed in self.layout.nodes:
            source_node = self.analysis.view.by_name[placed.source]
            for slot, target in enumerate(placed.node.inputs):
                source = source_node.inputs[slot]
                if source in self.analysis.view.constants and target not in found and target not in self.numbers:
                    found[target] = self._take(target, source, placed.place)
                    if not self.regroups:  # else the skeleton's weights are larger than the target's
                        total += _bytes(found[target], self.analysis.shapes.shapes[source])
                        _require_room(total)
        for name in self.analysis.view.outputs:
            if name in self.analysis.view.constants:
                found.setdefault(name, Take(name, name, {}))
        return tuple(found.values())

    def _take(self, target: str, source: str, place: BlockPlace | None) -> Take:
        change = self.changes.at(place)
        axes: dict[int, Along] = {}
        fill, weight = 0.0, False
        for site in self.sites.get(source, []):
            fill = max(fill, site.fill)
            weight |= site.weight
            if not _untouched(site.ids, change):
                axes[site.axis] = self._along(site, change)
        kernel = self.kernels.get((source, place)) or self.kernels.get((source, None))
        if kernel is not None:
            for axis, index in kernel.axes.items():
                axes[axis] = Along(index, np.maximum(index, 0), "kernel", np.zeros(index.size, bool))
        silenced = self.silenced.get(place) if place is not None else None
        return Take(
            target,
            source,
            dict(sorted(axes.items())),
            fill,
            None if silenced is None else silenced.get(source),
            silenced is not None,
            weight,
        )

    def _along(self, site: Site, change: Change) -> Along:
        positions = resized(site.ids, change)
        index = positions.index
        fresh = index < 0
        by_rule = fresh & (self.drifting[site.ids[positions.old]] if self.strategy == "preserve" else np.ones(index.size, bool))
        return Along(index, modelled(site.ids, positions, change.models), site.role, by_rule)

    # --- what the target will be ---

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape every target activation must have, under the probe sizes."""
        found = {name: self.analysis.shapes.shapes[name] for name in self.analysis.view.inputs if name in self.analysis.shapes.shapes}
        for placed in self.layout.nodes:
            change = self.changes.at(placed.place)
            for source, target in zip(self.analysis.view.by_name[placed.source].outputs, placed.node.outputs, strict=True):
                shape = self.analysis.shapes.shapes.get(source)
                label = self.analysis.identities.labels.get(source)
                if shape is None:
                    continue
                if label is not None and not _untouched(label.ids, change):
                    shape = (*shape[: label.axis], len(resized(label.ids, change)), *shape[label.axis + 1 :])
                found[target] = shape
        return found


def _untouched(ids: np.ndarray, change: Change) -> bool:
    known = ids[ids >= 0]
    return bool(change.keep[known].all()) and not change.grow[known].any()


def _repicked(ids: np.ndarray, picks: np.ndarray, change: Change) -> np.ndarray:
    """The new positions of picked channels: each kept pick where its channel went, each fresh copy after its parent."""
    source = resized(ids, change)
    where = {key: k for k, key in enumerate(zip(source.old.tolist(), source.copy.tolist(), strict=True))}
    picked = resized(ids[picks], change)
    return np.array([where[int(picks[old]), copy] for old, copy in zip(picked.old, picked.copy.tolist(), strict=True)], np.int64)
