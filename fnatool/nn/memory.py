"""How much memory a graph takes, from its shapes alone: nothing of it has run yet."""

from __future__ import annotations

import math
from collections.abc import Container
from pathlib import Path

from fnatool.nn.site import torch_type
from passes.errors import RefusedModel
from passes.graph.learnt import dense_weights
from passes.graph.tensors import Shapes, printed
from passes.graph.view import View, live

GIB = 2**30
LEAST = 4 * GIB  # may always be taken
SHARE = 4  # so much of the free memory may be taken: one part of so many


def require_memory(seen: View, shapes: Shapes, data: Container[str]) -> None:
    """Two samples of the probe's sizes take no more than LEAST, or a part of the memory that is free. Raises
    RefusedModel.

    `data` are the tensors that follow from the inputs; all others are computed once and stay.
    """
    most = 2 * peak(seen, shapes, data)
    if most <= max(LEAST, free_memory() // SHARE):
        return
    sizes = {name: bytes_of(shapes, name) for node in seen.nodes for name in node.outputs}
    widest = max(sizes, key=lambda name: sizes[name])
    shape = printed(shapes.shapes[widest])
    raise RefusedModel(
        f"it would take {most / GIB:,.1f} GiB to run two samples at its sizes (tensor '{widest}' of node "
        f"'{seen.producer[widest]}' has "
        f"the shape {shape}); export it for smaller sizes"
    )


def peak(seen: View, shapes: Shapes, data: Container[str]) -> int:
    """The most bytes that a run holds at once: every tensor goes after its last use, but those that stay."""
    nodes = live(seen.nodes, seen.outputs)
    last = {name: k for k, node in enumerate(nodes) for name in (*node.outputs, *node.inputs) if name}
    own = {name: bytes_of(shapes, name) for node in nodes if node.op not in VIEWS for name in node.outputs if name}
    ending: dict[int, int] = {}
    for name, size in own.items():
        if name in data and name not in seen.outputs:
            ending[last[name]] = ending.get(last[name], 0) + size
    now = most = 0
    for k, node in enumerate(nodes):
        now += sum(own.get(name, 0) for name in node.outputs)
        most = max(most, now)
        now -= ending.get(k, 0)
    return most


def held(seen: View, shapes: Shapes, data: Container[str]) -> int:
    """The least bytes that a run keeps for the gradients: every tensor that a convolution or matrix product multiplies
    its weights by.
    """
    readers = [node for node in live(seen.nodes, seen.outputs) if dense_weights(node, seen)]
    return sum(
        bytes_of(shapes, name)
        for name in dict.fromkeys(name for node in readers for name in node.inputs if name in data)
    )


def largest(seen: View, shapes: Shapes, data: Container[str]) -> int:
    """The least bytes that a run without gradients holds at once: the largest tensor."""
    made = [name for node in live(seen.nodes, seen.outputs) for name in node.outputs if name in data]
    return max((bytes_of(shapes, name) for name in made), default=0)


VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
"""Operators whose results take no memory of their own."""


def bytes_of(shapes: Shapes, name: str) -> int:
    """The bytes of a tensor; 0 where its sizes are unknown, and of an unknown type as of a float32."""
    if name not in shapes.shapes:
        return 0
    dtype = torch_type(shapes.types.get(name, 0))
    return math.prod(shapes.shapes[name]) * (4 if dtype is None else dtype.itemsize)


def free_memory() -> int:
    """The bytes of memory that are free; 0 where the system does not say."""
    table = Path("/proc/meminfo")
    if not table.exists():
        return 0
    found = [line.split()[1] for line in table.read_text().splitlines() if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else 0
