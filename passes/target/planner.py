"""The plan of a remap: for every target tensor where its values come from, and the target's nodes; and the loop that
carries it out.

Depth, width and kernels each say their part; what a Take then holds, and how a strategy fills it, is in take.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace

import numpy as np

from passes.channels.axes import Site, Size
from passes.channels.groups import Regroup, keeps_function, possible
from passes.channels.resize import Change, length, modelled, resized
from passes.errors import UserError
from passes.graph.operators import CONVOLUTIONS
from passes.network.analysis import Analysis
from passes.network.knobs import STRIDE, stage_knob
from passes.target.depth import BlockPlace, NodeLayout, PlacedNode, lay_out
from passes.target.kernel import Taps, attributes, kernels_at
from passes.target.plan import Plan
from passes.target.resolve import resolve
from passes.target.resolved import Resolved, Skeleton
from passes.target.sized import finish, planned_view
from passes.target.spec import Spec
from passes.target.take import STRATEGIES, Along, Take, bytes_made, require_room
from passes.target.width import SELECTIONS, Changes, Choice, changes

UNBOUNDED = (1 << 63) - 1


def plan(
    analysis: Analysis,
    spec: Spec,
    *,
    strategy: str = "fna",
    select: str = "first",
    seed: int = 0,
    allow_drift: bool = False,
    multiple: int = 1,
) -> Plan:
    """The plan that takes the analysed network to the shape the Spec asks for.

    strategy: fna or preserve; select: which channels survive narrowing (first, bn, l1, std); seed: for all noise;
    allow_drift: let preserve grow an approximate knob by the fna rule; multiple: of what a factor makes of a width.
    Raises UserError for an impossible Spec or a growth that preserve must refuse.
    """
    if strategy not in STRATEGIES:
        raise UserError(f"strategy {strategy!r} is not one of {', '.join(STRATEGIES)}")
    if select not in SELECTIONS:
        raise UserError(f"selection {select!r} is not one of {', '.join(SELECTIONS)}")
    resolved = resolve(analysis, spec, multiple=multiple)
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
    work = _work(ground, resolved, layout, choice, strategy=strategy, silenced=silenced)
    nodes, numbers = _nodes(work)
    takes = _takes(work, numbers)
    if bones is not None:
        nodes, takes = _of_seed(bones, nodes, takes)
    made = Plan(
        strategy=strategy,
        rng_seed=seed,
        resolved=resolved,
        ground=ground,
        nodes=nodes,
        takes=takes,
        numbers=numbers,
        changes=work.changes,
        table=layout.table,
        drifts=tuple(drifts),
        notes=resolved.notes,
        sizes=_shapes(work),
    )
    made = finish(made, analysis)
    if resolved.batched or resolved.channels not in (None, analysis.colours.value):
        from passes.target.input_axes import with_inputs  # not above: few plans ask for it

        made = with_inputs(made, planned_view(made, analysis), analysis)
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
                f"'{name}' cannot go from {knob.value} to {value} exactly: {knob.why}; use --strategy fna, or "
                "--allow-drift to drop them"
            )


def _growth_drifts(resolved: Resolved, strategy: str) -> tuple[list[str], list[str]]:
    """Growth that preserve must refuse, and everything else in the Spec that moves inner values on the seed's
    channels.
    """
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


# --- where groups change: by way of the skeleton ------------------------------------------------


def _on_skeleton(silenced: Mapping[BlockPlace, Held], bones: Skeleton) -> dict[BlockPlace, Held]:
    """The same blocks and tensors under the skeleton's names; there no block is a copy any more."""
    found: dict[BlockPlace, dict[str, float]] = {}
    for placed in bones.layout.nodes:
        place = placed.place
        if place is not None and place in silenced:
            held = silenced[place]
            quiet = {
                name: held[source] for name in placed.node.inputs if (source := bones.sources.get(name, "")) in held
            }
            found.setdefault(BlockPlace(place.stage, place.block, place.block, False), {}).update(quiet)
    return {**found}


def _of_seed(
    bones: Skeleton, nodes: Sequence[PlacedNode], takes: Sequence[Take]
) -> tuple[tuple[PlacedNode, ...], tuple[Take, ...]]:
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
            f"'{regroup.knob}': {regroup.target} groups are not possible with {inputs} input and {outputs} "
            "output channels, "
            f"of which every group needs the same number, and at least two inputs; possible are {some}"
        )


# --- nodes, tensors and shapes of the target ---


@dataclass(frozen=True)
class _Work:
    """What a plan is made of: the analysed network, its nodes in the target, and what becomes of its channels and
    kernels there.

    `silenced`: copied blocks that must compute their entry, with what their tensors hold; `regrouped`: whether groups
    change; `placed`: the nodes of the target by seed node; `sites` by tensor; `drifting`: the classes that do not grow
    exactly.
    """

    analysis: Analysis
    layout: NodeLayout
    changes: Changes
    kernels: Mapping[tuple[str, BlockPlace | None], Taps]
    _: KW_ONLY
    strategy: str
    silenced: Mapping[BlockPlace, Held]
    regrouped: bool
    placed: Mapping[str, Sequence[PlacedNode]]
    sites: Mapping[str, Sequence[Site]]
    drifting: np.ndarray
    alongs: dict[tuple[int, str, bytes], Along] = field(default_factory=dict)  # by change, role and channels


@dataclass
class _Edits:
    """Node → the attributes that are others in the target; constant → its numbers there."""

    attributes: dict[str, dict[str, object]] = field(default_factory=dict)
    numbers: dict[str, np.ndarray] = field(default_factory=dict)


def _work(
    analysis: Analysis,
    resolved: Resolved,
    layout: NodeLayout,
    choice: Choice,
    *,
    strategy: str,
    silenced: Mapping[BlockPlace, Held],
) -> _Work:
    """What the plan on this ground is made of."""
    places = list(dict.fromkeys(p.place for p in layout.nodes if p.place is not None))
    placed_of: dict[str, list[PlacedNode]] = {}
    for placed in layout.nodes:
        placed_of.setdefault(placed.source, []).append(placed)
    sites: dict[str, list[Site]] = {}
    for site in analysis.identities.sites.values():
        sites.setdefault(site.tensor, []).append(site)
    drifting = np.zeros(analysis.identities.count, bool)
    for atom in analysis.identities.atoms:
        if atom.drift is not None:
            drifting[atom.classes] = True
    return _Work(
        analysis,
        layout,
        changes(analysis, resolved, layout, choice),
        kernels_at(analysis, resolved, places),
        strategy=strategy,
        silenced=silenced,
        regrouped=resolved.skeleton is not None,
        placed=placed_of,
        sites=sites,
        drifting=drifting,
    )


def _nodes(work: _Work) -> tuple[tuple[PlacedNode, ...], dict[str, np.ndarray]]:
    """The target's nodes with every attribute that counts channels or taps refreshed, and the constants whose numbers
    do.
    """
    edits = _Edits()
    for size in work.analysis.identities.sizes:
        _refresh(work, size, edits)
    for split in work.analysis.identities.splits:
        for placed in work.placed.get(split.node, []):
            _refresh_split(work, placed, split.parts, edits)
    for pick in work.analysis.identities.picks:
        for placed in work.placed.get(pick.node, []):
            change = work.changes.at(placed.place)
            if change.touches(pick.ids):
                edits.numbers[placed.node.inputs[1]] = _repicked(pick.ids, pick.picks, change).reshape(
                    _number_shape(work, work.analysis.view.by_name[pick.node].inputs[1], -1)
                )
    for (weight, place), kernel in work.kernels.items():
        _refresh_kernel(work, weight, place, kernel, edits=edits)
    return tuple(_edited(placed, edits.attributes.get(placed.node.name)) for placed in work.layout.nodes), edits.numbers


def _edited(placed: PlacedNode, attributes: Mapping[str, object] | None) -> PlacedNode:
    node = placed.node
    return placed if attributes is None else replace(placed, node=replace(node, attrs={**node.attrs, **attributes}))


def _number_shape(work: _Work, name: str, count: int) -> tuple[int, ...]:
    shape = work.analysis.shapes.shapes[name]
    return tuple(count if size > 1 else 1 for size in shape)


def _refresh(work: _Work, size: Size, edits: _Edits) -> None:
    if len(size.place) == 3:
        for placed in work.placed.get(size.place[0], []):
            value = _count(work, size, placed.place)
            attribute, index = str(size.place[1]), int(size.place[-1])
            if index < 0:
                edits.attributes.setdefault(placed.node.name, {})[attribute] = value
            else:
                row = edits.attributes.setdefault(placed.node.name, {})
                numbers = list(row.get(attribute, placed.node.ints(attribute, ())))  # type: ignore[call-overload]
                numbers[index] = value
                row[attribute] = numbers
        return
    constant, index = str(size.place[0]), int(size.place[1])
    for reader, slot in work.analysis.view.readers.get(constant, ()):
        for placed in work.placed.get(reader, []):
            value = _count(work, size, placed.place)
            target = placed.node.inputs[slot]
            array = edits.numbers.get(target)
            old = work.analysis.view.values(constant)
            if array is None and int(old.ravel()[index]) == value:
                continue
            array = old.copy() if array is None else array
            array.reshape(-1)[index] = value
            edits.numbers[target] = array


def _count(work: _Work, size: Size, place: BlockPlace | None) -> int:
    count = length(size.ids, work.changes.at(place)) + size.beyond
    if size.from_end:
        return -count if count else UNBOUNDED  # −0 would count from the start
    return count


def _refresh_split(work: _Work, placed: PlacedNode, parts: Sequence[np.ndarray], edits: _Edits) -> None:
    change = work.changes.at(placed.place)
    if not any(change.touches(part) for part in parts):
        return
    sizes = [length(part, change) for part in parts]
    node = placed.node
    if node.input(1):
        edits.numbers[node.inputs[1]] = np.array(sizes, np.int64)
    else:
        edits.attributes.setdefault(node.name, {})["split"] = sizes


def _refresh_kernel(work: _Work, weight: str, place: BlockPlace | None, kernel: Taps, *, edits: _Edits) -> None:
    extents = work.analysis.shapes.shapes[weight][2:]
    for reader, _ in work.analysis.view.readers[weight]:
        for placed in work.placed.get(reader, []):
            if place is None or placed.place == place:
                edits.attributes.setdefault(placed.node.name, {}).update(attributes(placed.node, kernel, extents))


def _takes(work: _Work, numbers: Mapping[str, np.ndarray]) -> tuple[Take, ...]:
    """One Take per constant that the target's nodes read; numbers that were refreshed are not taken.

    Raises UserError where they would hold too much, before the positions of all of them take as much.
    """
    found: dict[str, Take] = {}
    total = 0
    for placed in work.layout.nodes:
        source_node = work.analysis.view.by_name[placed.source]
        for slot, target in enumerate(placed.node.inputs):
            source = source_node.inputs[slot]
            if source in work.analysis.view.constants and target not in found and target not in numbers:
                found[target] = _take(work, target, source, placed.place)
                if not work.regrouped:  # else the skeleton's weights are larger than the target's
                    total += bytes_made(found[target], work.analysis.shapes.shapes[source])
                    require_room(total)
    for name in work.analysis.view.outputs:
        if name in work.analysis.view.constants:
            found.setdefault(name, Take(name, name, {}))
    return tuple(found.values())


def _take(work: _Work, target: str, source: str, place: BlockPlace | None) -> Take:
    change = work.changes.at(place)
    axes: dict[int, Along] = {}
    fill, weight = 0.0, False
    for site in work.sites.get(source, []):
        fill = max(fill, site.fill)
        weight |= site.weight
        if change.touches(site.ids):
            axes[site.axis] = _along(work, site, change)
    kernel = work.kernels.get((source, place)) or work.kernels.get((source, None))
    if kernel is not None:
        for axis, index in kernel.axes.items():
            axes[axis] = Along(index, np.maximum(index, 0), "kernel", np.zeros(index.size, bool))
    silenced = work.silenced.get(place) if place is not None else None
    return Take(
        target=target,
        source=source,
        axes=dict(sorted(axes.items())),
        fill=fill,
        held=None if silenced is None else silenced.get(source),
        inside_silent=silenced is not None,
        weight=weight,
    )


def _along(work: _Work, site: Site, change: Change) -> Along:
    """Sites that have the same channels are one axis."""
    key = (id(change), site.role, site.ids.tobytes())
    if key not in work.alongs:
        work.alongs[key] = _made_along(work, site, change)
    return work.alongs[key]


def _made_along(work: _Work, site: Site, change: Change) -> Along:
    positions = resized(site.ids, change)
    index = positions.index
    fresh = index < 0
    by_rule = fresh & (
        work.drifting[site.ids[positions.old]] if work.strategy == "preserve" else np.ones(index.size, bool)
    )
    return Along(index, modelled(site.ids, positions, change.models), site.role, by_rule)


def _shapes(work: _Work) -> dict[str, tuple[int, ...]]:
    """The shape every target activation must have, under the probe sizes."""
    found = {
        name: work.analysis.shapes.shapes[name]
        for name in work.analysis.view.inputs
        if name in work.analysis.shapes.shapes
    }
    for placed in work.layout.nodes:
        change = work.changes.at(placed.place)
        for source, target in zip(work.analysis.view.by_name[placed.source].outputs, placed.node.outputs, strict=True):
            shape = work.analysis.shapes.shapes.get(source)
            label = work.analysis.identities.labels.get(source)
            if shape is None:
                continue
            if label is not None and change.touches(label.ids):
                shape = (*shape[: label.axis], length(label.ids, change), *shape[label.axis + 1 :])
            found[target] = shape
    return found


def _repicked(ids: np.ndarray, picks: np.ndarray, change: Change) -> np.ndarray:
    """The new positions of picked channels: each kept pick where its channel went, each fresh copy after its parent."""
    source = resized(ids, change)
    where = {key: k for k, key in enumerate(zip(source.old.tolist(), source.copy.tolist(), strict=True))}
    picked = resized(ids[picks], change)
    return np.array(
        [where[int(picks[old]), copy] for old, copy in zip(picked.old, picked.copy.tolist(), strict=True)], np.int64
    )
