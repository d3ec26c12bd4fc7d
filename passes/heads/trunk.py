"""What every path of a network passes: while such a tensor is made, no other waits to be read."""

from __future__ import annotations

from collections.abc import Sequence

from passes.graph.operators import SIZES
from passes.graph.view import Node, View


def trunk(seen: View, targets: Sequence[str] | None = None) -> tuple[str, ...]:
    """The tensors that every path from the input to the targets passes, in order; the target is the first output unless
    said.
    """
    wanted = tuple(dict.fromkeys(seen.outputs[:1] if targets is None else targets))
    nodes = _on_the_way(seen, wanted)
    waiting = dict.fromkeys(wanted, 1)
    for node in nodes:
        for name in _data(node):
            waiting[name] = waiting.get(name, 0) + 1
    alive: set[str] = set()
    found: list[str] = []
    for node in nodes:
        for name in _data(node):
            waiting[name] -= 1
            if not waiting[name]:
                alive.discard(name)
        alive.update(name for name in node.outputs if waiting.get(name))
        if len(alive) == 1 and alive <= set(node.outputs):
            found.extend(alive)
    return tuple(found)


def _data(node: Node) -> tuple[str, ...]:
    """What flows through a node; a shape is read, it does not flow."""
    return () if node.op in SIZES else tuple(name for name in node.inputs if name)


def _on_the_way(seen: View, targets: Sequence[str]) -> list[Node]:
    """The nodes between the inputs and the targets, in order; their other inputs (constants, sizes) are left out."""
    wanted = set(targets)
    for node in reversed(seen.nodes):
        if any(name in wanted for name in node.outputs):
            wanted.update(_data(node))
    flowing = {name for name in seen.inputs if name not in seen.constants}
    found = []
    for node in seen.nodes:
        inputs = tuple(name for name in _data(node) if name in flowing)
        if inputs and any(name in wanted for name in node.outputs):
            flowing.update(node.outputs)
            found.append(Node(node.name, node.op, inputs, node.outputs, {}))
    return found
