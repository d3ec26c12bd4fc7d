"""What keeps a model file from what it is to run on."""

from __future__ import annotations

from collections.abc import Iterator

from fnatool.files import model as files
from fnatool.runtime import engine
from passes.check.engine import RTX, TENSORRT, check_for_engine
from passes.check.finding import Finding
from passes.errors import RefusedModel

ONNXRUNTIME = "onnxruntime"
TARGETS = (ONNXRUNTIME, TENSORRT, RTX)


def for_target(raw: files.Raw, target: str) -> Iterator[Finding]:
    """Findings of the target's rules, and for tensorrt-rtx of its parser where that is here. What ONNX Runtime runs has
    been run.
    """
    if target == ONNXRUNTIME:
        return
    names = [tensor.name for tensor in raw.proto.graph.initializer]
    try:
        graph = files.import_graph(raw.proto, dict(zip(names, raw.arrays, strict=True)))
    except RefusedModel:  # another finding says so
        return
    yield from check_for_engine(graph, target)
    if not engine.is_installed():
        fix = f"pip install '{engine.EXTRA}' (NVIDIA's own licence)"
        yield Finding(
            "note",
            "engine-not-parsed",
            "model",
            f"it was looked at, but not parsed: {engine.MODULE} is not installed",
            fix,
        )
        return
    said = engine.parse(raw.path)
    if said:
        yield Finding("error", "engine-parse", f"the parser of {RTX}", said)
