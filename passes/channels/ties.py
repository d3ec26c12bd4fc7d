"""Why channels that make one identity cannot be fewer or more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from passes.channels.axes import FIXED, Flow, Ids, Site
from passes.graph.arrays import distinct
from passes.graph.components import connected

Union = tuple[Ids, Ids, str]


def components(unions: Sequence[Union], count: int) -> tuple[np.ndarray, int]:
    """Union-find: identity → class, and the number of classes."""
    if not count:
        return np.zeros(0, np.int64), 0
    a = np.concatenate([union[0] for union in unions] or [np.zeros(0, np.int64)])
    b = np.concatenate([union[1] for union in unions] or [np.zeros(0, np.int64)])
    classes = connected(a, b, count)
    return classes, int(classes.max()) + 1


def of_classes(unions: Sequence[Union], classes: np.ndarray, wanted: Sequence[int]) -> Mapping[int, Sequence[Union]]:
    """What the unions say of each class wanted, in their order."""
    found: dict[int, list[Union]] = {c: [] for c in wanted}
    asked = np.zeros(int(classes.max(initial=-1)) + 1, bool)
    asked[np.array(wanted, np.int64)] = True
    for a, b, at in unions:
        homes = classes[a]
        for c in distinct(homes[asked[homes]]).tolist() if asked[homes].any() else ():
            found[c].append((a[homes == c], b[homes == c], at))
    return found


def why_one(flow: Flow, unions: Sequence[Union], site: Site, *, class_: int, copies: int) -> str:
    """What makes the channels of a class, `copies` of them, one identity; the closed site makes them first.

    unions: those of the class.
    """
    raw = flow.sites[site.tensor, site.axis].ids
    own = raw[site.ids == class_]
    known = int(np.count_nonzero(site.ids != FIXED))
    if copies == 1 and known > 1:
        return (
            f"of the {known} channels of '{site.node}' no other goes the same way through the graph, and one "
            "alone keeps its number"
        )
    node = flow.view.by_name[site.node]
    output = next((name for name in node.outputs if name in flow.view.outputs), None)
    if copies == 1 and output is not None:
        return f"graph output '{output}'"
    if copies == 1:
        return f"'{site.node}' makes one channel: a size of 1 may be one channel or stand for any number, so it stays"
    if distinct(own).size == 1:
        return f"'{site.node}' makes one channel in each of its {copies} groups, and groups stay equal"
    return f"its {copies} channels are tied together, {_node_of(unions, own)}"


def _node_of(unions: Sequence[Union], own: Ids) -> str:
    """Where in the order of the graph the last of these identities becomes one with the others."""
    low, high = 1, len(unions)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _one(unions[:middle], own) else (middle + 1, high)
    at = unions[low - 1][2]
    alone = _one([union for union in unions if union[2] == at], own)
    return f"by {at}" if alone else f"the last of them by {at}"


def _one(unions: Sequence[Union], own: Ids) -> bool:
    """Whether the unions make these identities one; no other is looked at."""
    ids = distinct(np.concatenate([own, *(part for union in unions for part in union[:2])]))
    numbered = [(np.searchsorted(ids, a), np.searchsorted(ids, b), at) for a, b, at in unions]
    return distinct(components(numbered, ids.size)[0][np.searchsorted(ids, own)]).size == 1
