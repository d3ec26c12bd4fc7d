"""Through which node all data reaches another."""

from __future__ import annotations

from passes.graph.view import View


def immediate_dominators(view: View) -> list[int]:
    """Per node the last node that every path from an input passes; −1 is the input itself (Cooper, Harvey, Kennedy
    2001, for a DAG).
    """
    index = {node.name: i for i, node in enumerate(view.nodes)}
    idom: list[int] = []
    depth: list[int] = []
    for node in view.nodes:
        best = None
        for name in node.inputs:
            if not name or name in view.constants:
                continue
            producer = view.producer.get(name)
            other = -1 if producer is None else index[producer]
            best = other if best is None else _common(best, other, idom, depth)
        idom.append(-1 if best is None else best)
        depth.append(0 if idom[-1] < 0 else depth[idom[-1]] + 1)
    return idom


def _common(a: int, b: int, idom: list[int], depth: list[int]) -> int:
    while a != b:
        if a < 0 or b < 0:
            return -1
        if depth[a] >= depth[b]:
            a = idom[a]
        else:
            b = idom[b]
    return a
