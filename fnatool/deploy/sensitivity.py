"""Which nodes are hurt most by narrower numbers: behind which the difference to the network in single precision grows
most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from fnatool.model.verified import in_child
from passes.graph.view import Node, View, view

WIDENED = "{}_DequantizeLinear_Output"  # the name that the quantiser gives to a value that has been rounded to 8 bits
CUTTING = ("Relu", "Clip")  # which are part of what is before them, as soon as values are cut to 8 bits anyway
Feeds = Mapping[str, np.ndarray]


def hurt(before: gs.Graph, after: gs.Graph, samples: Callable[[], Iterator[Feeds]]) -> list[str]:
    """The nodes, those first behind which the two networks differ more than before them, by most.

    A difference is root mean square, in parts of the standard deviation of the values.
    """
    return in_child(_hurt, before, after, samples)


def _hurt(before: gs.Graph, after: gs.Graph, samples: Callable[[], Iterator[Feeds]]) -> list[str]:
    seen, other = view(before), view(after)
    ends = {node.name: _end(seen, node) for node in seen.nodes if node.op not in CUTTING}
    names = {
        tensor: WIDENED.format(tensor) if WIDENED.format(tensor) in other.producer else tensor
        for tensor in ends.values()
        if tensor in other.producer or WIDENED.format(tensor) in other.producer
    }
    return ranked(seen, ends, _differences(before, after, names, samples))


def _end(seen: View, node: Node) -> str:
    """What a node comes to, cut where nothing else reads it: the quantiser makes one of both."""
    tensor = node.outputs[0]
    readers = seen.readers.get(tensor, ())
    if len(readers) == 1 and tensor not in seen.outputs and seen.by_name[readers[0][0]].op in CUTTING:
        return seen.by_name[readers[0][0]].outputs[0]
    return tensor


def _differences(
    before: gs.Graph, after: gs.Graph, names: Mapping[str, str], samples: Callable[[], Iterator[Feeds]]
) -> dict[str, float]:  # fmt: skip
    """Of every tensor; names: what it is called in the other network. One batch at a time is held."""
    from fnatool.runtime.verify import Inner

    one = Inner(before, list(names), "the network")
    other = Inner(after, list(names.values()), "the network with narrower numbers")
    sums = {name: np.zeros(4) for name in names}  # of squared differences, values, squared values, and how many
    for feeds in samples():
        plain, narrow = one.run(feeds, list(names)), other.run(feeds, list(names.values()))
        for name, called in names.items():
            if plain[name].dtype.kind == "f" and plain[name].shape == narrow[called].shape:
                values = plain[name].astype(np.float64)
                difference = np.nan_to_num(values - narrow[called].astype(np.float64), nan=1e9, posinf=1e9, neginf=1e9)
                sums[name] += (np.square(difference).sum(), values.sum(), np.square(values).sum(), values.size)
    found = {}
    for name, (squares, total, squared, count) in sums.items():
        variance = squared / count - (total / count) ** 2 if count else 0.0
        found[name] = float(np.sqrt(squares / count / variance)) if variance > 0 else 0.0
    return found


def ranked(seen: View, ends: Mapping[str, str], differences: Mapping[str, float]) -> list[str]:
    """The nodes, that one first where the difference grows most. ends: node → the tensor that it is judged by."""
    reaching = _reaching(seen, differences)
    growth = {name: differences[tensor] - reaching[name] for name, tensor in ends.items() if tensor in differences}
    return sorted(growth, key=lambda name: -growth[name])


def _reaching(seen: View, differences: Mapping[str, float]) -> dict[str, float]:
    """The largest difference that reaches each node, through nodes of which none is known."""
    held: dict[str, float] = {}
    found = {}
    for node in seen.nodes:
        found[node.name] = max((held.get(tensor, 0.0) for tensor in node.inputs), default=0.0)
        held.update(_behind(node, differences, found[node.name]))
    return found


def _behind(node: Node, differences: Mapping[str, float], reached: float) -> Sequence[tuple[str, float]]:
    return [(tensor, differences.get(tensor, reached)) for tensor in node.outputs if tensor]


def with_makers(seen: View, order: Sequence[str]) -> list[str]:
    """The nodes in their order, behind each those that make what it reads: a value between two nodes is whole where
    both are.
    """
    found: dict[str, None] = {}
    for name in order:
        found[name] = None
        for tensor in seen.by_name[name].inputs:
            maker = seen.producer.get(tensor)
            while maker is not None and seen.by_name[maker].op in CUTTING:
                maker = seen.producer.get(seen.by_name[maker].inputs[0])
            if maker is not None:
                found[maker] = None
    return list(found)
