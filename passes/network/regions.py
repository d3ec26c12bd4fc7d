"""Regions of a graph: the nodes between two tensors, and what of them others see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from passes.channels.atoms import Identities
from passes.graph.dominators import immediate_dominators
from passes.graph.learnt import dense_weights
from passes.graph.tensors import Shapes
from passes.graph.view import Node, View


@dataclass(frozen=True)
class Regions:
    """One graph, with the place of every node, its immediate dominator (-1: the input), and which nodes have weights,
    which dense ones.
    """

    view: View
    shapes: Shapes
    identities: Identities
    index: Mapping[str, int]
    idom: Sequence[int]
    weighted: Set[str]
    dense: Set[str]


def regions_of(view: View, shapes: Shapes, identities: Identities) -> Regions:
    """The regions of a graph."""
    return Regions(
        view,
        shapes,
        identities,
        index={node.name: i for i, node in enumerate(view.nodes)},
        idom=immediate_dominators(view),
        weighted={site.node for site in identities.sites.values()},
        dense={node.name for node in view.nodes if dense_weights(node, view)},
    )


def region(regions: Regions, entry: str, exit_: str) -> tuple[str, ...] | None:
    """The nodes between two tensors in order; None where a path avoids the entry or something inside is seen
    outside.
    """
    names = between(regions, entry, exit_)
    return None if names is None or seen_outside(regions, names, exit_) else names


def between(regions: Regions, entry: str, exit_: str) -> tuple[str, ...] | None:
    """The nodes between two tensors in order; None where a path avoids the entry."""
    found: set[int] = set()
    stack = [exit_]
    while stack:
        name = stack.pop()
        if name == entry or not name or name in regions.view.constants:
            continue
        producer = regions.view.producer.get(name)
        if producer is None:
            return None
        i = regions.index[producer]
        if i not in found:
            found.add(i)
            stack.extend(regions.view.nodes[i].inputs)
    return tuple(regions.view.nodes[i].name for i in sorted(found))


def seen_outside(regions: Regions, names: Sequence[str], exit_: str) -> tuple[str, ...]:
    """What these nodes make, beside the exit, that others read or the graph shows."""
    inside = set(names)
    outputs = [output for name in names for output in regions.view.by_name[name].outputs if output and output != exit_]
    return tuple(
        output
        for output in outputs
        if output in regions.view.outputs
        or any(reader not in inside for reader, _ in regions.view.readers.get(output, ()))
    )


def same_channels(regions: Regions, a: str, b: str) -> bool:
    """Whether two tensors have one shape and carry the same channels on the same axis."""
    x, y = regions.identities.labels.get(a), regions.identities.labels.get(b)
    if regions.shapes.shapes.get(a) != regions.shapes.shapes.get(b) or (x is None) != (y is None):
        return False
    return x is None or y is None or (x.axis == y.axis and bool(np.array_equal(x.ids, y.ids)))


def next_node(regions: Regions, node: Node) -> Node | None:
    """The next node that all data from this one passes: its only reader, or the gate that its readers close."""
    output = node.outputs[0]
    readers = [
        regions.view.by_name[name] for name in dict.fromkeys(name for name, _ in regions.view.readers.get(output, ()))
    ]
    if output in regions.view.outputs or not readers:
        return None
    last = max(readers, key=lambda reader: regions.index[reader.name])
    if regions.idom[regions.index[last.name]] != regions.index[node.name]:
        return None
    if len(readers) == 1:
        return last
    return last if last.op == "Mul" and region(regions, output, last.outputs[0]) is not None else None
