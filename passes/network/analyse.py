"""A network analysed: every knob, with what it may be and why, derived anew from the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import TypeVar

import onnx_graphsurgeon as gs

from passes.channels.atoms import Atom, Identities
from passes.channels.groups import WHY as GROUPS_WHY
from passes.channels.groups import Grouping, groupings, possible
from passes.channels.identities import flow_identities
from passes.check.graph import misfits
from passes.errors import RefusedModel
from passes.graph.learnt import learnt
from passes.graph.normal import Normalised
from passes.graph.normalise import in_normal_form
from passes.graph.shapes import infer, require_elements, why_unknown
from passes.graph.tensors import Shape, Shapes
from passes.graph.view import Node, View
from passes.network.analysis import Analysis, Kernel
from passes.network.blocks import find_stages, unrepeatable
from passes.network.cost import Cost, cost
from passes.network.images import Resolution, Strides
from passes.network.knobs import (
    FROM_WHY,
    MAX_DEPTH,
    MAX_KERNEL,
    MAX_WIDTH,
    STRIDE,
    Knob,
    block_knob,
    knob_order,
    node_knob,
    stage_knob,
    unique_number,
)
from passes.network.resolution import read_resolution
from passes.network.silence import silences
from passes.network.stages import Silence, Stage, Table


def analyse(
    graph: gs.Graph | Normalised, *, sizes: Mapping[str, Shape] | None = None, table: Table | None = None
) -> Analysis:
    """Analyse a network; the graph is not changed, a copy is brought into normal form first, unless it is the normal
    form of one.

    sizes: shapes for inputs with free dimensions; table: the stages stored in the model's metadata, if any.
    Raises RefusedModel for a graph that cannot be read, or that has no convolution or matrix product with a weight.
    """
    normal = in_normal_form(graph, sizes)
    for finding in misfits(normal.seen):
        raise RefusedModel(f"{finding.where}: {finding.message}; 'fnatool check' lists all that is wrong")
    seen = normal.seen
    require_elements(seen)
    shapes = infer(seen, sizes)
    resolution = read_resolution(normal.given if normal.sized else None, seen, shapes)
    return replace(read(seen, shapes, resolution, table=table, notes=normal.notes), normal=normal)


def read(
    seen: View, shapes: Shapes, resolution: Resolution, *, table: Table | None = None, notes: tuple[str, ...] = ()
) -> Analysis:
    """The same for a graph in normal form whose maps are known; `notes` say how it got there."""
    parameters = learnt(seen)
    identities = flow_identities(seen, shapes, parameters)
    if not identities.atoms:
        quantised = any(node.op == "DequantizeLinear" for node in seen.nodes)
        unknown = why_unknown(seen, shapes)
        if unknown is not None:
            raise RefusedModel(f"no convolution or matrix product of known size is in this graph: {unknown}")
        what = "whose weights are not quantised" if quantised else "with a weight"
        raise RefusedModel(f"there is no convolution or matrix product {what} in this graph: nothing to adapt")
    stages = find_stages(seen, shapes, identities, table)
    quiet = {(i, j): found for i, stage in enumerate(stages) for j, found in silences(stage, seen, identities).items()}
    home = {
        name: (i, j) for i, stage in enumerate(stages) for j, block in enumerate(stage.blocks) for name in block.nodes
    }
    atoms = _name_atoms(seen, identities, stages, home=home, makes_map=resolution.makes_map)
    kernels = _name_kernels(seen, shapes, home)
    groups = _named([(found.nodes, found) for found in groupings(seen, shapes)], home, "groups")
    knobs: dict[str, Knob] = {STRIDE: _stride_knob(resolution.strides)}
    found = cost(seen, shapes, parameters)
    for i, stage in enumerate(stages):
        tied = _tied_weight(stage, seen, found)
        for knob in (
            _depth_knob(i, stage, quiet, tied=tied, fixed=unrepeatable(stage, shapes, identities)),
            *(() if tied else _from_knobs(i, stage)),
        ):
            knobs[knob.name] = knob
    for name, atom in atoms.items():
        knobs[name] = _width_knob(name, atom)
    for name, kernel in kernels.items():
        knobs[name] = _kernel_knob(name, kernel, seen)
    for name, grouping in groups.items():
        knobs[name] = _groups_knob(name, grouping, seen, identities)
    knobs = {name: _that_moves(knob) for name, knob in knobs.items()}
    ordered = dict(sorted(knobs.items(), key=lambda item: knob_order(item[0])))
    return Analysis(
        view=seen,
        shapes=shapes,
        identities=identities,
        stages=stages,
        knobs=ordered,
        atoms=atoms,
        kernels=kernels,
        groups=groups,
        silences=quiet,
        cost=found,
        notes=notes,
        resolution=resolution,
    )


Home = Mapping[str, tuple[int, int]]  # node → its stage and block


T = TypeVar("T")


def _name_atoms(
    seen: View, identities: Identities, stages: Sequence[Stage], *, home: Home, makes_map: Mapping[str, bool]
) -> dict[str, Atom]:
    """Stage exits are `width`; atoms wholly inside a block `hidden`, or `se` where they have no extent in space; others
    their node's.

    makes_map says of nodes whether they make maps; of nodes it does not name the extent decides.
    """
    names: dict[int, str] = {}
    taken: set[str] = set()

    def give(index: int, base: str) -> None:
        names[index] = unique_number(base, taken)
        taken.add(names[index])

    for i, stage in enumerate(stages):
        label = identities.labels.get(stage.blocks[-1].exit)
        for c in [] if label is None else dict.fromkeys(identities.atom_of[label.ids[label.ids >= 0]].tolist()):
            if c >= 0 and c not in names:
                give(c, stage_knob(i, "width"))
    tapped = {(i, j) for i, stage in enumerate(stages) for j, block in enumerate(stage.blocks) if block.tapped}
    for index, atom in enumerate(identities.atoms):
        if index in names:
            continue
        place = _local_to(atom, home, seen, tapped)
        if place is None:
            give(index, node_knob(atom.first.node, "width"))
        else:
            makers = [site for site in atom.sites if site.role == "creates" and site.dense]
            kind = "hidden" if any(makes_map.get(site.node, site.extent > 1) for site in makers) else "se"
            give(index, block_knob(*place, kind))
    return {names[index]: atom for index, atom in enumerate(identities.atoms)}


def _local_to(atom: Atom, home: Home, seen: View, tapped: Set[tuple[int, int]]) -> tuple[int, int] | None:
    """The block that holds every use of every weight of the atom, but for those of a head that taps the block."""
    place = home.get(atom.first.node)
    if place is None:
        return None
    others = {home.get(reader) for site in atom.sites for reader, _ in seen.readers[site.tensor]} - {place}
    return place if others <= ({None} if place in tapped else set()) else None


def _named(found: Sequence[tuple[tuple[str, ...], T]], home: Home, kind: str) -> dict[str, T]:
    """Knobs of one kind, each named after the block that holds all its nodes, else its first node; numbered in the
    order given.
    """
    names: dict[str, T] = {}
    for users, one in found:
        places = {home.get(user) for user in users}
        place = places.pop() if len(places) == 1 else None
        base = node_knob(users[0], kind) if place is None else block_knob(*place, kind)
        names[unique_number(base, names)] = one
    return names


def _name_kernels(seen: View, shapes: Shapes, home: Home) -> dict[str, Kernel]:
    """One kernel per spatial convolution weight, in topological order within its block."""
    found: list[tuple[tuple[str, ...], Kernel]] = []
    done: set[str] = set()
    for node in seen.nodes:
        if node.op != "Conv" or node.input(1) not in seen.constants or node.input(1) in done:
            continue
        weight = node.inputs[1]
        extents = shapes.shapes[weight][2:]
        users = tuple(
            reader for reader, slot in seen.readers[weight] if slot == 1 and seen.by_name[reader].op == "Conv"
        )
        if max(extents, default=1) == 1 or len(users) != len(seen.readers[weight]):
            continue
        done.add(weight)
        found.append((users, Kernel(weight, users, extents)))
    return _named(found, home, "kernel")


def _tied_weight(stage: Stage, seen: View, found: Cost) -> str | None:
    """A parameter that a block of the stage shares with nodes outside it: a copy of the block could not keep it
    tied.
    """
    for block in stage.blocks:
        inside = set(block.nodes)
        for node in block.nodes:
            for tensor in seen.by_name[node].inputs:
                if tensor in found.tensor_params and any(reader not in inside for reader, _ in seen.readers[tensor]):
                    return tensor
    return None


def _depth_knob(
    i: int, stage: Stage, quiet: Mapping[tuple[int, int], Silence], *, tied: str | None, fixed: str
) -> Knob:
    """tied: the weight its blocks share with others, if any; fixed: why none can be repeated, where none can."""
    depth = len(stage.blocks)
    name = stage_knob(i, "depth")
    if tied is not None:
        return Knob.frozen(name, "depth", depth, f"its blocks share '{tied}', which a copy could not keep shared")
    if not stage.repeatable:
        return Knob.frozen(name, "depth", depth, fixed)
    last = stage.repeatable[-1]
    found = quiet[i, last]
    if found.why is None:
        return Knob(name, "depth", depth, min=1, max=MAX_DEPTH, growth="exact")
    return Knob(name, "depth", depth, min=1, max=MAX_DEPTH, growth="approximate", why=found.why)


def _from_knobs(i: int, stage: Stage) -> list[Knob]:
    """Block J of a target takes block `from` of the seed; block 0 always comes from 0."""
    if not stage.repeatable:
        return []
    lowest = 0 if 0 in stage.repeatable else 1
    last = len(stage.blocks) - 1
    return [
        Knob(block_knob(i, j, "from"), "from", j, min=lowest, max=last, growth="approximate", why=FROM_WHY)
        for j in range(1, last + 1)
    ]


def _width_knob(name: str, atom: Atom) -> Knob:
    value, multiple = atom.value, atom.multiple
    if atom.frozen is not None:
        return Knob.frozen(name, "width", value, atom.frozen, multiple=multiple)
    if atom.one is not None:
        return Knob.frozen(name, "width", value, atom.one, multiple=multiple)
    growth = "exact" if atom.drift is None else "approximate"
    most = value if atom.parent < 0 else max(MAX_WIDTH // multiple * multiple, value)
    return Knob(
        name, "width", value, min=atom.fewest * multiple, max=most, multiple=multiple, growth=growth, why=atom.drift
    )


def _stride_knob(strides: Strides) -> Knob:
    least, own = strides.values[0], strides.value
    return Knob(
        STRIDE, "stride", own, min=least, max=own, growth=strides.growth, why=strides.why, values=strides.values
    )


def _kernel_knob(name: str, kernel: Kernel, seen: View) -> Knob:
    value = max(kernel.extents)
    clipped = next((node for node in kernel.nodes if _clips(seen.by_name[node], kernel.extents)), None)
    if clipped is not None:
        why = f"the pads of '{clipped}' depend on the image size, which is free"
        return Knob.frozen(name, "kernel", value, why)
    room = min(_room(seen.by_name[node], kernel.extents) for node in kernel.nodes)
    smallest = min(extent for extent in kernel.extents if extent > 1)
    least = 3 if smallest % 2 else 2
    shrink = max(min((smallest - least) // 2, room), 0)
    largest = max(MAX_KERNEL - (value + 1) % 2, value)
    return Knob(name, "kernel", value, min=value - 2 * shrink, max=largest, growth="exact")


def _that_moves(knob: Knob) -> Knob:
    """The knob, frozen where no value but its own is possible; groups are not: other widths may have other divisors."""
    if knob.growth == "frozen" or knob.min < knob.max or knob.kind in ("stride", "groups"):
        return knob
    return replace(knob, growth="frozen", why=ONLY.get(knob.kind, f"{knob.value} is the only value that it can have"))


ONLY = {
    "kernel": f"its pads leave no room to take taps from, and a kernel grows to {MAX_KERNEL} at most",
    "width": "no channel can be taken away, and the order in which channels are cut and joined leaves no place for "
    "new ones",
    "from": "the stage has no other block to take parameters from",
}


def _groups_knob(name: str, grouping: Grouping, seen: View, identities: Identities) -> Knob:
    value = grouping.groups
    node = seen.by_name[grouping.nodes[0]]
    channels = identities.labels.get(node.inputs[0])
    if channels is None or channels.axis != 1:
        why = f"the channels that '{node.name}' reads are no weight's"
        return Knob.frozen(name, "groups", value, why)
    most = possible(grouping.rows, grouping.columns, grouping.inputs)[-1]
    return Knob(name, "groups", value, min=1, max=max(most, value), growth="approximate", why=GROUPS_WHY)


def _clips(node: Node, extents: Sequence[int]) -> bool:
    """SAME padding that stays, with a stride beyond the kernel: the total may be clipped at zero, and a larger kernel
    would shift.
    """
    strides = node.ints("strides", (1,) * len(extents))
    same = node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return same and any(stride > extent for stride, extent in zip(strides, extents, strict=True))


def _room(node: Node, extents: Sequence[int]) -> int:
    """How many taps can go on each side before the pads would turn negative."""
    if node.attrs.get("auto_pad", "NOTSET") != "NOTSET":
        return MAX_KERNEL
    spatial = len(extents)
    pads = node.ints("pads", (0,) * (2 * spatial))
    dilations = node.ints("dilations", (1,) * spatial)
    return min(min(pads[a], pads[a + spatial]) // dilations[a] for a in range(spatial) if extents[a] > 1)
