"""Linear bottlenecks: blocks that no addition closes, as MobileNet's first and last ones."""

from __future__ import annotations

from passes.graph.operators import ACTIVATIONS, of
from passes.graph.view import Node
from passes.network.regions import Regions, next_node, region, same_channels
from passes.network.stages import Block


def bottlenecks(regions: Regions, inside: set[str]) -> list[Block]:
    """Pointwise or depthwise convolution … affine without activation, with exactly one spatial convolution, depthwise.

    One that gives the very channels it reads is residual: a copy fits behind it.
    """
    chain = _chain(regions)
    taken = set(inside)
    blocks = []
    for node in regions.view.nodes:
        if (
            node.name in taken
            or regions.index[node.name] not in chain
            or not (_pointwise(regions, node) or _depthwise(regions, node))
        ):
            continue
        end = _linear_end(regions, node, taken)
        if end is None:
            continue
        nodes = region(regions, node.inputs[0], end)
        if nodes is not None and sum(_spatial(regions, regions.view.by_name[name]) for name in nodes) == 1:
            kind = "residual" if same_channels(regions, node.inputs[0], end) else "bottleneck"
            blocks.append(Block(kind, node.inputs[0], end, nodes))
            taken.update(nodes)
    return blocks


def _chain(regions: Regions) -> set[int]:
    """Nodes that every path to some graph output passes."""
    found: set[int] = set()
    for name in regions.view.outputs:
        producer = regions.view.producer.get(name)
        i = -1 if producer is None else regions.index[producer]
        while i >= 0 and i not in found:
            found.add(i)
            i = regions.idom[i]
    return found


def _linear_end(regions: Regions, start: Node, taken: set[str]) -> str | None:
    """The output of the first affine after `start` that no activation follows, passing at most one spatial (depthwise)
    convolution.
    """
    node, spatial = start, int(_spatial(regions, start))
    while True:
        step = next_node(regions, node)
        affine = node.op in ("Conv", "BatchNormalization") or _scales_channels(regions, node)
        if affine and (step is None or not _keeps_going(regions, node, step)):
            return node.outputs[0] if spatial == 1 else None
        if step is None or step.name in taken:
            return None
        node = step
        if _spatial(regions, node):
            spatial += 1
            if spatial > 1 or not _depthwise(regions, node):
                return None


def _keeps_going(regions: Regions, affine: Node, step: Node) -> bool:
    """After an affine: a BatchNormalization of it, one written as scales and offsets, an activation, or a gate."""
    if _scales_channels(regions, step) and affine.op != "BatchNormalization":
        return True
    return (step.op == "BatchNormalization" and affine.op == "Conv") or step.op in ACTIVATIONS or step.op == "Mul"


def _scales_channels(regions: Regions, node: Node) -> bool:
    """Whether the node adds to each channel a constant of its own, or multiplies by one."""
    if not of(node.op).affine or node.input(0) in regions.view.constants:
        return False
    constant = regions.view.constants.get(node.input(1))
    return constant is not None and sum(size > 1 for size in constant.shape) == 1


def _kernel(regions: Regions, node: Node) -> tuple[int, ...]:
    shape = regions.shapes.shapes.get(node.input(1)) if node.op == "Conv" else None
    return shape[2:] if shape is not None else ()


def _spatial(regions: Regions, node: Node) -> bool:
    return max(_kernel(regions, node), default=1) > 1


def _pointwise(regions: Regions, node: Node) -> bool:
    return node.op == "Conv" and node.int("group", 1) == 1 and max(_kernel(regions, node), default=0) == 1


def _depthwise(regions: Regions, node: Node) -> bool:
    shape = regions.shapes.shapes.get(node.input(0)) if node.op == "Conv" else None
    return shape is not None and node.int("group", 1) == shape[1] > 1
