"""What exporters write in several operators as the one it is: torch then keeps fewer tensors, and sizes can follow the
batch.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from fnatool.nn.site import LoadFacts
from passes.graph.view import Node


def fused(nodes: Sequence[Node], wanted: Collection[str], facts: LoadFacts) -> list[Node]:
    """The nodes with x · σ(x) as Swish, x · hardsigmoid(x) as HardSwish, and all of a flattened x picked in order as a
    Reshape.

    What is between goes where nobody else reads it; a gate that somebody reads stays, and so does its product. The new
    constants are added to the known ones.
    """
    producer = {node.outputs[0]: node for node in nodes if node.outputs}
    readers: dict[str, int] = dict.fromkeys(wanted, 1)
    for node in nodes:
        for name in node.inputs:
            readers[name] = readers.get(name, 0) + 1
    replaced: dict[str, Node | None] = {}
    for node in nodes:
        for x, between in ((0, 1), (1, 0)):
            source = producer.get(node.input(between))
            if source is None:
                continue
            alone = readers[source.outputs[0]] == 1
            gated = alone and node.op == "Mul"
            new = _gated(node, x, source) if gated else _picked(node, x, source, facts) if node.op == "Gather" else None
            if new is not None:
                replaced |= {node.name: new, **({source.name: None} if alone else {})}
                break
    return [new for node in nodes if (new := replaced.get(node.name, node)) is not None]


def _gated(node: Node, x: int, gate: Node) -> Node | None:
    """x times a gate of x."""
    if gate.inputs[0] != node.inputs[x]:
        return None
    attrs: Mapping[str, float] = gate.attrs
    if gate.op == "Sigmoid":
        return Node(node.name, "Swish", (node.inputs[x],), node.outputs, {})
    sixth = math.isclose(float(attrs.get("alpha", 0.2)), 1 / 6, rel_tol=1e-4)
    if gate.op == "HardSigmoid" and sixth and float(attrs.get("beta", 0.5)) == 0.5:
        return Node(node.name, "HardSwish", (node.inputs[x],), node.outputs, {})
    return None


def _picked(node: Node, positions: int, flat: Node, facts: LoadFacts) -> Node | None:
    """Positions 0, 1, 2, … of a tensor that was flattened altogether: torch's exporter writes some views so."""
    places, target = facts.known.get(node.input(positions)), facts.known.get(flat.input(1))
    shape = facts.shapes.get(flat.input(0))
    if positions != 1 or flat.op != "Reshape" or places is None or target is None or shape is None:
        return None
    if target.tolist() != [-1] or not np.array_equal(places.ravel(), np.arange(math.prod(shape))):
        return None
    name = f"{node.inputs[1]} of {node.name}"
    facts.known[name] = np.array(places.shape, np.int64)
    return Node(node.name, "Reshape", (flat.inputs[0], name), node.outputs, {})
