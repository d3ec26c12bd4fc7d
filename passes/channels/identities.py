"""Channel identity: which dimensions must change together.

Every weight axis that creates channels gives each channel an identity. Identities flow through the graph as the data
does (rules/, one row per operator); a merge unites them. Closing the unions gives classes; classes that always appear
in the same places form one atom, one width that can be changed on its own. What has no rule freezes what it touches,
with the reason.

After closing, each tensor has at most one axis of channels, with one class per position. A new size of an atom is then
a change of that vector alone (resize.py), for every weight axis and every size written in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence, Set
from dataclasses import replace

import numpy as np

from passes.channels.atoms import Atom, Identities
from passes.channels.axes import FIXED, Flow, Ids, Label, Picks, Site, SplitSizes
from passes.channels.rules.table import RULES
from passes.channels.ties import components, of_classes, why_one
from passes.graph.arrays import distinct, marks
from passes.graph.learnt import learnt
from passes.graph.operators import SIZES, of
from passes.graph.shapes import ARITHMETIC, MOVES
from passes.graph.tensors import Shapes
from passes.graph.view import Node, View

First = tuple[np.ndarray, Site, int]
"""An atom's classes, the axis that creates them first, and how many channels of it are one class."""


def flow_identities(view: View, shapes: Shapes, parameters: Container[str] | None = None) -> Identities:
    """Channel identities of the whole graph (design: channel identity); parameters: the constants that are learnt,
    where they are known.
    """
    flow = Flow(view, shapes)
    for node in view.nodes:
        rule = RULES.get(node.op)
        labels: Sequence[Label | None]
        if rule is None:
            _freeze_inputs(flow, node, f"operator {node.op} ('{node.name}') has no rule")
            continue
        if any(name and flow.shape(name) is None for name in (*node.inputs, node.outputs[0])):
            _freeze_inputs(flow, node, f"the sizes around '{node.name}' ({node.op}) are unknown")
            continue
        _follow_counts(flow, node)
        flow.at = f"'{node.name}' ({node.op})"
        found = rule(node, flow)
        labels = found if isinstance(found, tuple) else (found,)
        if not of(node.op).every_input:  # the rule gives a meaning to the first alone
            for name in node.inputs[1:]:
                _freeze_label(flow, name, f"'{node.name}' ({node.op}) uses it as a weight or a size")
        for name, label in zip(node.outputs, labels, strict=False):
            if label is not None and name and label.ids.size > 1:
                flow.lay(node, name, label)
    flow.at = ""
    for name in view.outputs:
        label = flow.labels.get(name)
        if label is not None:
            flow.freeze(label.ids, f"graph output '{name}'")
    _freeze_what_cannot_follow(flow, learnt(view) if parameters is None else parameters)
    return _close(flow)


def _freeze_what_cannot_follow(flow: Flow, known: Container[str]) -> None:
    """A weight axis keeps its size where another reader of the weight says nothing of that axis, or the weight is a
    graph output.

    So does one of what stands in a weight's place and is not learnt: each of its numbers has a meaning of its own.
    """
    for (tensor, axis), site in flow.sites.items():
        if site.dense and tensor not in known:
            flow.freeze(site.ids, f"'{tensor}' of '{site.node}' is a formula's numbers, not learnt ones")
        if tensor in flow.view.outputs:
            flow.freeze(site.ids, f"its weight '{tensor}' is a graph output")
        for reader in flow.view.readers.get(tensor, ()):
            if reader not in flow.noted[tensor, axis]:
                flow.freeze(site.ids, f"'{reader[0]}' also reads '{tensor}', whose axis {axis} is fixed there")


def _follow_counts(flow: Flow, node: Node) -> None:
    """Numbers computed from how many channels there are: which elements of a shape they are, and which values they
    scale.
    """
    if not flow.counted and node.op not in SIZES:
        return
    counts = [flow.counted.get(name, {}) for name in node.inputs]
    found: dict[int, Ids] = {}
    label = flow.label(node.input(0))
    if node.op == "Shape" and label is not None:
        found = {label.axis - node.int("start", 0): label.ids}
    elif node.op == "Size" and label is not None:
        found = {0: label.ids}
    elif node.op in MOVES and any(counts):
        found = _moved_counts(flow, node, counts)
    elif node.op in ARITHMETIC and any(counts):
        found = {0: next(iter(next(c for c in counts if c).values()))}
        if any(flow.label(name) is not None for name in node.inputs):
            flow.drift(
                found[0], f"'{node.name}' ({node.op}) scales by a number computed from how many channels there are"
            )
            found = {}
    if found:
        flow.counted[node.outputs[0]] = found


def _moved_counts(flow: Flow, node: Node, counts: Sequence[Mapping[int, Ids]]) -> dict[int, Ids]:
    """Which elements of a moved shape count channels: the same move, done on a numbering."""
    sizes = [flow.shapes.values[name].array.size if name in flow.shapes.values else 0 for name in node.inputs]
    output = flow.shapes.values.get(node.outputs[0])
    if output is None:
        return {}
    if node.op == "Concat":
        starts = np.cumsum([0, *sizes])
        return {int(starts[k]) + i: ids for k, row in enumerate(counts) for i, ids in row.items()}
    numbers: list[np.ndarray | None] = [
        flow.shapes.values[name].array if name in flow.shapes.values else None for name in node.inputs
    ]
    if numbers[0] is None or any(value is None and name for value, name in zip(numbers, node.inputs, strict=True)):
        return {}
    numbers[0] = np.arange(sizes[0]).reshape(numbers[0].shape)
    order = np.ravel(MOVES[node.op](node, numbers, flow.view.opset)) if node.op != "Cast" else np.arange(sizes[0])
    return {i: counts[0][int(source)] for i, source in enumerate(order) if int(source) in counts[0]}


def _freeze_inputs(flow: Flow, node: Node, why: str) -> None:
    for name in node.inputs:
        _freeze_label(flow, name, why)


def _freeze_label(flow: Flow, name: str, why: str) -> None:
    label = flow.label(name)
    if label is not None:
        flow.freeze(label.ids, why)


def _close(flow: Flow) -> Identities:
    classes, count = components(flow.unions, flow.count)

    done: dict[int, tuple[Ids, Ids]] = {}  # tensors hand on their channels, so that many labels are one vector

    def closed(ids: Ids) -> Ids:
        if not flow.count:
            return ids
        if id(ids) not in done:
            # held, so that its id stays its own
            done[id(ids)] = ids, np.asarray(np.where(ids == FIXED, FIXED, classes[ids]))
        return done[id(ids)][1]

    sites = {key: site.along(closed(site.ids)) for key, site in flow.sites.items()}
    frozen = _reasons(flow.frozen, closed)
    drift = _reasons(flow.drifts, closed)
    borders = closed(np.array(flow.borders, np.int64).reshape(-1, 2))
    touched = frozenset(borders[(borders[:, 0] == borders[:, 1]) & (borders[:, 0] != FIXED), 0].tolist())
    least = [(closed(ids), size) for ids, size in flow.least]
    atoms, atom_of = _atoms(
        sites, [closed(ids) for ids in flow.places], count, frozen=frozen, drift=drift, touched=touched, least=least
    )
    lone = {int(atom.classes[0]): atom for atom in atoms if atom.classes.size == 1}
    unions = of_classes(flow.unions, classes, list(lone))
    ones = {c: why_one(flow, unions[c], atom.first, class_=c, copies=atom.value) for c, atom in lone.items()}
    atoms = tuple(replace(atom, one=ones[int(atom.classes[0])]) if atom.classes.size == 1 else atom for atom in atoms)
    return Identities(
        labels={name: Label(label.axis, closed(label.ids)) for name, label in flow.labels.items()},
        sites=sites,
        sizes=tuple(replace(size, ids=closed(size.ids)) for size in flow.sizes),
        splits=tuple(SplitSizes(s.node, tuple(closed(part) for part in s.parts)) for s in flow.splits),
        picks=tuple(Picks(p.node, closed(p.ids), p.picks) for p in flow.picks),
        atoms=atoms,
        atom_of=atom_of,
        count=count,
        extents={name: math.prod(shape) for name, shape in flow.shapes.shapes.items()},
    )


def _fewest(
    firsts: Sequence[First],
    frozen: Set[int],
    touching: Sequence[Sequence[Site]],
    *,
    atom_of: np.ndarray,
    vectors: Sequence[tuple[Ids, int]],
) -> list[int]:
    """How many classes of each atom have to stay: an axis of one channel could not be told from a broadcast one, and a
    vector keeps as many positions as the reading of the graph depends on, whatever the other atoms in it have.

    atom_of: class → atom; vectors: each with the positions that it has to keep.
    """
    fewest, least = [], []
    for (classes, _, _), sites in zip(firsts, touching, strict=True):
        # sites hand on their channels: most have the same vector
        vectors_of = {id(site.ids): site.ids for site in sites}
        counts = [int(np.count_nonzero(ids == classes[0])) for ids in vectors_of.values()]
        fewest.append(min(-(-2 // min(counts)), int(classes.size)))
        fixed = classes.size == 1 or any(int(c) in frozen for c in classes)
        least.append(int(classes.size) if fixed else fewest[-1])
    for ids, size in vectors:
        found, times = np.unique(ids[ids != FIXED], return_counts=True)
        homes = atom_of[found]
        here = {k: times[homes == k] for k in distinct(homes[homes >= 0]).tolist()}
        absent = {k: int(firsts[k][0].size) - some.size for k, some in here.items()}  # classes that may stay instead
        stays = {k: max(least[k] - absent[k], 0) * int(some.min()) for k, some in here.items()}
        beside = int(ids.size) - sum(int(some.sum()) for some in here.values()) + sum(stays.values())
        for k, some in here.items():
            missing = size - (beside - stays[k])
            if missing > 0:
                needed = min(-(-missing // int(some.min())), some.size) + absent[k]
                fewest[k] = max(fewest[k], min(needed, int(firsts[k][0].size)))
    return fewest


def _reasons(entries: Sequence[tuple[Ids, str]], closed: Callable[[Ids], Ids]) -> dict[int, str]:
    """Class → the first reason given for it."""
    reasons: dict[int, str] = {}
    for ids, why in entries:
        for c in distinct(closed(ids)):
            reasons.setdefault(int(c), why)
    return reasons


def _laid(vectors: Sequence[Ids]) -> tuple[np.ndarray, np.ndarray]:
    """All channels of these vectors in one, and of each the number of its vector; fixed positions are left out."""
    ids = np.concatenate([*vectors, np.zeros(0, np.int64)]).astype(np.int64)
    vector = np.repeat(np.arange(len(vectors)), [ids.size for ids in vectors])
    return ids[ids != FIXED], vector[ids != FIXED]


def _atoms(
    sites: Mapping[tuple[str, int], Site],
    places: Sequence[Ids],
    count: int,
    *,
    frozen: Mapping[int, str],
    drift: Mapping[int, str],
    touched: frozenset[int],
    least: Sequence[tuple[Ids, int]],
) -> tuple[tuple[Atom, ...], np.ndarray]:
    """Group classes by where they appear, how often, and whether they are frozen: each group is one atom."""
    here, place = _laid([*(site.ids for site in sites.values()), *places])
    signature = np.zeros(count, np.uint64)
    of_places = marks(len(sites) + len(places) + 1)
    np.add.at(signature, here, of_places[place])
    signature[np.array(sorted(frozen), np.int64)] += of_places[-1]
    atom_of = np.full(count, -1, np.int64)
    firsts: list[First] = []
    for site in sites.values():
        if site.role == "consumes" or not site.dense:
            continue
        new = site.ids[(site.ids != FIXED)]
        new = new[atom_of[new] < 0]
        seen, position, times = np.unique(new, return_index=True, return_counts=True)
        for key in dict.fromkeys(signature[new[np.sort(position)]].tolist()):
            members = signature[seen] == np.uint64(key)
            order = np.argsort(position[members])
            classes = seen[members][order]
            atom_of[classes] = len(firsts)
            firsts.append((classes, site, int(times[members][0]) * site.repeat))
    touching: list[list[Site]] = [[] for _ in firsts]
    every = list(sites.values())
    meets = (place < len(every)) & (atom_of[here] >= 0)
    for pair in distinct(place[meets] * len(firsts) + atom_of[here[meets]]).tolist():
        index, atom = divmod(pair, len(firsts))
        touching[atom].append(every[index])
    fewest = _fewest(firsts, frozen.keys(), touching, atom_of=atom_of, vectors=least)
    atoms = tuple(
        Atom(
            classes=classes,
            parent=next((int(c) for c in classes[::-1] if int(c) not in touched), -1),
            fewest=fewest[k],
            value=classes.size * times,
            multiple=times,
            first=site,
            sites=tuple(touching[k]),
            frozen=next((frozen[int(c)] for c in classes if int(c) in frozen), None),
            drift=next((drift[int(c)] for c in classes if int(c) in drift), None),
        )
        for k, (classes, site, times) in enumerate(firsts)
    )
    return atoms, atom_of
