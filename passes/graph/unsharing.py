"""A small tensor belongs to one node, or to the nodes of one layer: exporters deduplicate equal ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from passes.graph.operators import having, of
from passes.graph.view import View, unique
from passes.graph.work import Work

SIZE_READERS = having(lambda row: row.counts)


def small_tensors_unshared(work: Work) -> int:
    """Each use of a 1-D or uniform tensor of several elements gets its own, a layer used several times one; the first
    keeps the name.
    """
    seen = work.seen
    taken = set(seen.constants) | set(seen.producer) | set(seen.inputs)
    shared = [
        (name, owned)
        for name, uses in seen.readers.items()
        if len(uses) > 1 and name in seen.constants and name not in seen.outputs
        if _is_deduplicated(seen, name) or _is_size(seen, name, uses)
        for owned in _owners(seen, uses)[1:]
    ]
    nodes = {node.name: node for node in work.graph.nodes} if shared else {}
    for name, owned in shared:
        copy = unique(f"{name}_{owned[0][0]}", taken.__contains__)
        taken.add(copy)
        for reader, slot in owned:
            nodes[reader].inputs[slot] = gs.Constant(copy, seen.values(name))
    return len(shared)


def _is_deduplicated(seen: View, name: str) -> bool:
    constant = seen.constants[name]
    size = math.prod(constant.shape)
    if size <= 1 or isinstance(constant.dtype, int):
        return False
    if len(constant.shape) == 1 or max(constant.shape) == size:
        return True
    values = seen.values(name)
    return bool((values == values.flat[0]).all())


def _owners(seen: View, uses: Sequence[tuple[str, int]]) -> list[list[tuple[str, int]]]:
    """The uses of a deduplicated tensor by whose it is: nodes that share a weight are one layer, as in a detector's
    towers.
    """
    owners: dict[object, list[tuple[str, int]]] = {}
    for reader, slot in uses:
        node = seen.by_name[reader]
        row = of(node.op)
        weight = node.input(row.dense[-1]) if row.dense else ""
        layer = slot == row.bias and weight in seen.constants
        shared = layer and not _is_deduplicated(seen, weight)
        owners.setdefault(weight if shared else (reader, slot), []).append((reader, slot))
    return list(owners.values())


def _is_size(seen: View, name: str, uses: Sequence[tuple[str, int]]) -> bool:
    """A number that may count channels: each operator that reads it may need another."""
    dtype = seen.constants[name].dtype
    return (
        not isinstance(dtype, int)
        and np.dtype(dtype).kind in "iu"
        and any(seen.by_name[reader].op in SIZE_READERS for reader, _ in uses)
    )
