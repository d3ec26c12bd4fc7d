"""Width: which channels of each atom the target keeps, and how many fresh ones it gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from passes.channels.atoms import Atom
from passes.channels.axes import Site
from passes.channels.resize import Change
from passes.network.analysis import Analysis
from passes.network.knobs import block_knob, block_of
from passes.target.depth import BlockPlace, NodeLayout
from passes.target.resolved import Resolved


@dataclass(frozen=True)
class Changes:
    """The change of every class: one for the original blocks and everything outside, one of its own for each copied
    block.
    """

    base: Change
    copies: Mapping[tuple[int, int], Change]

    def at(self, place: BlockPlace | None) -> Change:
        """The change that holds in a block of the target."""
        return self.base if place is None or not place.copy else self.copies[place.stage, place.block]


@dataclass(frozen=True)
class Choice:
    """Which channels survive narrowing (`select`; FNA++: the first), and whether fresh ones take after the strongest
    (`copy`).
    """

    select: str
    copy: str | None


def changes(analysis: Analysis, resolved: Resolved, layout: NodeLayout, choice: Choice) -> Changes:
    """Every atom at its resolved width."""
    local: dict[tuple[int, int], list[tuple[str, Atom]]] = {}
    base = Change.none(analysis.identities.count)
    for name, atom in analysis.atoms.items():
        found = block_of(name)
        if found is None:
            _set(base, atom, resolved.values[name], analysis=analysis, choice=choice)
        else:
            local.setdefault(found[:2], []).append((found[2], atom))
    places = dict.fromkeys(p.place for p in layout.nodes if p.place is not None)
    copies: dict[tuple[int, int], Change] = {}
    for place in sorted(places, key=lambda p: p.copy):
        change = Change(base.keep.copy(), base.grow.copy(), dict(base.models)) if place.copy else base
        for tail, atom in local.get((place.stage, place.source), []):
            change.keep[atom.classes] = True
            change.grow[atom.classes] = 0
            change.models.pop(atom.parent, None)
            _set(
                change,
                atom,
                resolved.values[block_knob(place.stage, place.block, tail)],
                analysis=analysis,
                choice=choice,
            )
        if place.copy:
            copies[place.stage, place.block] = change
    return Changes(base, copies)


def _set(change: Change, atom: Atom, value: int, *, analysis: Analysis, choice: Choice) -> None:
    classes = value // atom.multiple
    if classes < atom.classes.size:
        change.keep[atom.classes] = False
        change.keep[_survivors(atom, classes, analysis, choice.select)] = True
    elif classes > atom.classes.size:
        fresh = classes - atom.classes.size
        change.grow[atom.parent] = fresh
        if choice.copy is not None:
            strongest = _ranked(atom, analysis, choice.copy)
            change.models[atom.parent] = np.resize(atom.classes[strongest], fresh)


def _survivors(atom: Atom, count: int, analysis: Analysis, select: str) -> np.ndarray:
    """The classes that stay, in their order: ranked once, so that all producers and consumers keep the same."""
    if select == "first":
        return atom.classes[:count]
    return np.asarray(atom.classes[np.sort(_ranked(atom, analysis, select)[:count])])


def _ranked(atom: Atom, analysis: Analysis, select: str) -> np.ndarray:
    """The atom's classes, by number, from the best score to the worst; behind them those whose weights are not finite
    and have none.
    """
    with np.errstate(all="ignore"):
        scores = SCORES[select](atom, analysis)
    return np.asarray(np.argsort(-scores, kind="stable"))


def _per_class(site: Site, values: np.ndarray, atom: Atom) -> np.ndarray:
    """Sum over the positions of each class, in the atom's order, relative to the mean."""
    order = {int(c): k for k, c in enumerate(atom.classes)}
    score = np.zeros(atom.classes.size)
    for position, c in enumerate(site.ids.tolist()):
        if c in order:
            score[order[c]] += float(values[position])
    mean = float(score.mean())
    return score / mean if 0 < mean < np.inf else score


def _rows(site: Site, analysis: Analysis, reduce: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    weight = analysis.view.values(site.tensor).astype(np.float64)
    return reduce(np.moveaxis(weight, site.axis, 0).reshape(weight.shape[site.axis], -1))


def _sum(scores: list[np.ndarray]) -> np.ndarray:
    return np.asarray(np.sum(scores, axis=0))


def _by_l1(atom: Atom, analysis: Analysis) -> np.ndarray:
    """Σ|w| over every weight that makes or reads the channel."""
    dense = [site for site in atom.sites if site.dense]
    return _sum([_per_class(s, _rows(s, analysis, lambda w: np.abs(w).sum(1)), atom) for s in dense])


def _by_std(atom: Atom, analysis: Analysis) -> np.ndarray:
    """Standard deviation of the weights that make the channel."""
    makers = [site for site in atom.sites if site.dense and site.role == "creates"]
    return _sum([_per_class(s, _rows(s, analysis, lambda w: w.std(1)), atom) for s in makers])


def _by_bn(atom: Atom, analysis: Analysis) -> np.ndarray:
    """Σ|γ| over the BatchNormalizations of the channel; where there is none, the weights decide."""
    nodes = analysis.view.by_name
    scales = [s for s in atom.sites if nodes[s.node].op == "BatchNormalization" and nodes[s.node].inputs[1] == s.tensor]
    if not scales:
        return _by_l1(atom, analysis)
    return _sum([_per_class(s, np.abs(analysis.view.values(s.tensor).astype(np.float64)), atom) for s in scales])


SCORES: Mapping[str, Callable[[Atom, Analysis], np.ndarray]] = {"bn": _by_bn, "l1": _by_l1, "std": _by_std}
SELECTIONS = ("first", *SCORES)
