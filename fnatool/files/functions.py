"""Local functions of a model, put where they are called. A few that call each other can stand for more nodes than fit
anywhere.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Iterator

import onnx
import onnx.inliner

from fnatool.runtime import failures, isolate
from passes.errors import RefusedModel

MOST = 200_000  # nodes of a model, counted without its functions

Name = tuple[str, str, str]  # domain, name, overload


def require_few(proto: onnx.ModelProto) -> None:
    """The graph has at most MOST nodes, and the functions stand for no more, counted without writing them out. Raises
    RefusedModel.
    """
    if len(proto.graph.node) > MOST:
        raise RefusedModel(f"it has {len(proto.graph.node)} nodes; at most {MOST} are supported")
    calls = {(f.domain, f.name, f.overload): list(_calls(f.node)) for f in proto.functions}
    inner = {name: [call for call in called if call in calls] for name, called in calls.items()}
    nodes: dict[Name, int] = {}
    try:
        for name in graphlib.TopologicalSorter(inner).static_order():
            nodes[name] = min(sum(nodes.get(call, 1) for call in calls[name]), MOST + 1)
    except graphlib.CycleError:
        raise RefusedModel(f"{_REFUSED} (some of them call themselves); export without functions") from None
    if calls and sum(nodes.get(call, 1) for call in _calls(proto.graph.node)) > MOST:
        raise RefusedModel(f"{_REFUSED} (they stand for more than {MOST} nodes); export without functions")


_REFUSED = "its local functions cannot be inlined"


def _calls(nodes: Iterable[onnx.NodeProto]) -> Iterator[Name]:
    """What nodes call, and the nodes of the graphs inside them."""
    waiting = [iter(nodes)]
    while waiting:
        for node in waiting.pop():
            yield node.domain, node.op_type, node.overload
            for attribute in node.attribute:
                waiting += [iter(graph.node) for graph in (attribute.g, *attribute.graphs)]


def inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model without local functions. The inliner is native code: it sees the untrusted file in a child process
    only.
    """
    if not proto.functions:
        return proto
    try:
        found = onnx.ModelProto()
        found.ParseFromString(isolate.run(_inline, proto.SerializeToString(), seconds=60))
    except failures.FAILURES as error:
        raise RefusedModel(f"{_REFUSED} ({error}); export without functions") from error
    return found


def _inline(message: bytes) -> bytes:
    proto = onnx.ModelProto()
    proto.ParseFromString(message)
    return bytes(onnx.inliner.inline_local_functions(proto).SerializeToString())
