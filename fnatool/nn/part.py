"""A part of a graph as a function: from tensors that are known to others that follow from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from fnatool.nn.program import compiled, run
from fnatool.nn.reading import Reading, facts_of
from fnatool.nn.table import TORCH
from passes.graph.shapes import infer
from passes.graph.view import View, linked

FLOATING = frozenset({1, 10, 11, 16})  # ONNX's element types of single, half, double and brain precision


class NetworkPart:
    """What of a network makes the `wanted` tensors of the `given` ones; `inputs` are those of the given that it
    reads.
    """

    def __init__(self, reading: Reading, wanted: Sequence[str], given: Collection[str]) -> None:
        """Raises RefusedModel as a Reading does. What is given and wanted is passed on."""
        seen = reading.view
        self.wanted = tuple(wanted)
        self.made = tuple(name for name in dict.fromkeys(wanted) if name not in given)
        nodes, self.inputs = needed(seen, self.made, given)
        constants = {
            name: seen.constants[name] for k in nodes for name in seen.nodes[k].inputs if name in seen.constants
        }
        sizes = {name: reading.shapes.shapes[name] for name in self.inputs}
        inputs = {name: (_freed(reading, sizes[name]), reading.facts.types[name]) for name in self.inputs}
        view = linked(
            [seen.nodes[k] for k in nodes], constants, dataclasses.replace(seen, inputs=inputs, outputs=self.made)
        )
        weights = tuple(weight for weight in reading.weights if weight.name in constants)
        facts = dataclasses.replace(facts_of(view, infer(view, sizes), weights), main_type=reading.facts.main_type)
        self.constants: dict[str, Tensor] = {}
        self.program = compiled(view, facts, self.made, self.constants, rows=TORCH) if self.made else None
        self.weights = tuple(weight.name for weight in weights)

    @torch.no_grad()
    def __call__(self, weights: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The wanted tensors by name."""
        found = {name: given[name] for name in self.wanted if name not in self.made}
        if self.program is None:
            return found
        inputs = [given[name] for name in self.inputs]
        values = [
            *(weights[name] for name in self.weights),
            *(value.to(inputs[0].device) for value in self.constants.values()),
        ]
        return found | dict(
            zip(self.made, run(self.program, values, inputs, norms="running", training=False), strict=True)
        )


def needed(seen: View, wanted: Collection[str], given: Collection[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The nodes that make the wanted tensors of the given ones, in order and by number, and which of the given they
    read.
    """
    index = {node.name: k for k, node in enumerate(seen.nodes)}
    nodes: set[int] = set()
    inputs: dict[str, None] = {}
    stack = list(wanted)
    while stack:
        name = stack.pop()
        if not name or name in seen.constants:
            continue
        if name in given or name not in seen.producer:
            inputs[name] = None
            continue
        k = index[seen.producer[name]]
        if k not in nodes:
            nodes.add(k)
            stack.extend(seen.nodes[k].inputs)
    return tuple(sorted(nodes)), tuple(inputs)


def _freed(reading: Reading, shape: tuple[int, ...]) -> tuple[int | str | None, ...]:
    """The shape with a free batch, where the network has one."""
    free = bool(reading.facts.batched) and len(shape) > 1 and shape[0] == reading.facts.batch
    return (None, *shape[1:]) if free else shape
