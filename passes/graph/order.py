"""Topological order: of anything that reads and makes names, and of the nodes of a file's graph."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx
import onnx.defs


def defined_names(graph: onnx.GraphProto) -> set[str]:
    """The tensors that a graph makes, reads from outside, or holds."""
    names = {name for node in graph.node for name in node.output}
    return names.union(
        (value.name for value in graph.input),
        (tensor.name for tensor in graph.initializer),
        (tensor.values.name for tensor in graph.sparse_initializer),
    )


def needed_names(node: onnx.NodeProto) -> list[str]:
    """The tensors that node reads, also from within its subgraphs."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs) if attribute.HasField("g") or attribute.graphs else ():
            inner = defined_names(body)
            names += [name for deep in body.node for name in needed_names(deep) if name not in inner]
            names += [value.name for value in body.output if value.name not in inner]
    return names


@dataclass(frozen=True)
class Order:
    """Indices of nodes so that each comes after what it reads, the given order kept where possible; stuck: those on or
    behind a cycle.
    """

    nodes: tuple[int, ...]
    stuck: tuple[int, ...]

    @property
    def is_given(self) -> bool:
        return self.nodes == tuple(range(len(self.nodes)))


def topological(reads: Sequence[Iterable[str]], makes: Sequence[Iterable[str]]) -> Order:
    """The order of nodes that read and make these tensors. O(n log n); a tensor that no node makes is there from the
    start.
    """
    maker = {name: index for index, names in enumerate(makes) for name in names if name}
    waiting = [{maker[name] for name in names if name in maker} for names in reads]
    readers: defaultdict[int, list[int]] = defaultdict(list)
    for index, before in enumerate(waiting):
        for other in before:
            readers[other].append(index)
    left = [len(before) for before in waiting]
    ready = [index for index, count in enumerate(left) if not count]
    done: list[int] = []
    while ready:
        done.append(heapq.heappop(ready))
        for reader in readers[done[-1]]:
            left[reader] -= 1
            if not left[reader]:
                heapq.heappush(ready, reader)
    return Order(tuple(done), tuple(index for index, count in enumerate(left) if count))


def order(graph: onnx.GraphProto) -> Order:
    """The topological order of the nodes of graph."""
    return topological([needed_names(node) for node in graph.node], [node.output for node in graph.node])
