"""Why channels that make one identity cannot be fewer or more."""

from __future__ import annotations

from collections.abc import Sequence

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


def why_one(flow: Flow, site: Site, class_: int, copies: int) -> str:
    """What makes the channels of a class, `copies` of them, one identity; the closed site makes them first."""
    raw = flow.sites[site.tensor, site.axis].ids
    own = raw[site.ids == class_]
    known = int(np.count_nonzero(site.ids != FIXED))
    if copies == 1 and known > 1:
        return f"of the {known} channels of '{site.node}' no other goes the same way through the graph, and one alone keeps its number"
    node = flow.view.by_name[site.node]
    output = next((name for name in node.outputs if name in flow.view.outputs), None)
    if copies == 1 and output is not None:
        return f"graph output '{output}'"
    if copies == 1:
        return f"'{site.node}' makes one channel: a size of 1 may be one channel or stand for any number, so it stays"
    if distinct(own).size == 1:
        return f"'{site.node}' makes one channel in each of its {copies} groups, and groups stay equal"
    return f"its {copies} channels are tied together, {_node_of(flow, own)}"


def _node_of(flow: Flow, own: Ids) -> str:
    """Where in the order of the graph the last of these identities becomes one with the others."""
    low, high = 1, len(flow.unions)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _one(flow.unions[:middle], flow.count, own) else (middle + 1, high)
    at = flow.unions[low - 1][2]
    alone = _one([union for union in flow.unions if union[2] == at], flow.count, own)
    return f"by {at}" if alone else f"the last of them by {at}"


def _one(unions: Sequence[Union], count: int, own: Ids) -> bool:
    return distinct(components(unions, count)[0][own]).size == 1
