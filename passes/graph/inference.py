"""A graph as it was exported for training, brought to inference.

A Dropout that is active, y = x · mask / (1 − ratio), becomes the identity; a BatchNormalization that normalises by the
batch, y = γ (x − μ_batch) / √(σ²_batch + ε) + β, normalises by the running statistics that it reads, and what it would
have made of these is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from passes.graph.shapes import constant_value
from passes.graph.view import Node, View, build, view

STATISTICS = {1: 3, 2: 4, 3: 3, 4: 4}
"""An output of a BatchNormalization in training → the input that stands for it in inference: the mean, the variance."""


@dataclass(frozen=True)
class Brought:
    """The graph in inference, the nodes that were changed, and the outputs of the graph that only training has."""

    graph: gs.Graph
    changed: tuple[str, ...]
    gone: tuple[str, ...]


def in_training(seen: View) -> tuple[str, ...]:
    """The nodes that compute as in training: they drop values at random, or normalise a sample by the others of its
    batch.
    """
    return tuple(node.name for node in seen.nodes if node.op in IS_TRAINING and IS_TRAINING[node.op](node, seen))


def to_inference(graph: gs.Graph) -> Brought:
    """The graph with every node in inference; the graph itself where all are. Arrays are shared, the graph given is not
    changed.
    """
    seen = view(graph)
    active = set(in_training(seen))
    if not active:
        return Brought(graph, (), ())
    instead = {
        node.outputs[slot]: node.input(source)
        for node in seen.nodes
        if node.name in active and node.op == "BatchNormalization"
        for slot, source in STATISTICS.items()
        if slot < len(node.outputs) and node.outputs[slot]
    }
    nodes = [replace(node, inputs=tuple(instead.get(name, name) for name in node.inputs)) for node in seen.nodes]
    nodes = [IN_INFERENCE[node.op](node, seen.opset) if node.name in active else node for node in nodes]
    made = build(nodes, seen.constants, graph)
    made.outputs = [tensor for tensor in made.outputs if tensor.name not in instead]
    gone = tuple(name for name in seen.outputs if name in instead)
    return Brought(made, tuple(node.name for node in seen.nodes if node.name in active), gone)


def _drops(node: Node, seen: View) -> bool:
    """Before version 7 it says whether it is a test; from 12 on an input says whether it trains, and a ratio of 0 drops
    nothing.
    """
    if seen.opset < 7:
        return not node.int("is_test", 0)
    switch = node.input(2) if seen.opset >= 12 else ""
    return bool(switch) and not _is_false(switch, seen) and not (node.input(1) and _is_false(node.input(1), seen))


def _is_false(name: str, seen: View) -> bool:
    """Whether the tensor is a constant that holds nothing but zeros; what is computed, or given by the caller, may hold
    others.
    """
    if name in seen.constants:
        return not np.any(seen.values(name))
    made_by = seen.by_name.get(seen.producer.get(name, ""))
    return made_by is not None and made_by.op == "Constant" and not np.any(constant_value(made_by))


def _normalises_by_batch(node: Node, seen: View) -> bool:
    """Before version 7 it says whether it is a test, from 14 on whether it trains; between them its further outputs
    do.
    """
    if seen.opset < 7:
        return not node.int("is_test", 0)
    return bool(node.int("training_mode", 0)) if seen.opset >= 14 else any(node.outputs[1:])


def _dropout(node: Node, opset: int) -> Node:
    return replace(node, attrs={**node.attrs, "is_test": 1}) if opset < 7 else replace(node, inputs=node.inputs[:2])


def _batch_normalization(node: Node, opset: int) -> Node:
    attrs = {name: value for name, value in node.attrs.items() if name != "training_mode"}
    return replace(node, attrs={**attrs, "is_test": 1} if opset < 7 else attrs, outputs=node.outputs[:1])


IS_TRAINING: Mapping[str, Callable[[Node, View], bool]] = {
    "Dropout": _drops,
    "BatchNormalization": _normalises_by_batch,
}
IN_INFERENCE: Mapping[str, Callable[[Node, int], Node]] = {
    "Dropout": _dropout,
    "BatchNormalization": _batch_normalization,
}
