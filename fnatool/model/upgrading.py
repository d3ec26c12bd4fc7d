"""A model of an old opset in a newer one, by ONNX's own converter: what passes write needs a newer one than many files
have.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import onnx.version_converter

from fnatool.files import model as files
from fnatool.files.atomic import temporary
from fnatool.model.verified import compare, in_child
from fnatool.runtime import isolate
from passes.errors import RefusedModel
from passes.graph.view import view
from passes.network.analysis import Analysis

SECONDS = 120.0
CONVERTED = "converted from opset"
RAISED: tuple[type[Exception], ...] = (RuntimeError, ValueError, TypeError, IndexError, onnx.checker.ValidationError)


def at_least(model: files.Model, opset: int, what: str) -> files.Model:
    """The model in this opset where its own is older, else the model itself. `what` needs it.

    Raises RefusedModel where the converter cannot do it.
    """
    own = view(model.graph).opset
    if own >= opset:
        return model
    reason = f"this model has opset {own}, {what} needs {opset} or newer, and ONNX's own converter"
    with temporary() as folder:
        old, new = folder / "old.onnx", folder / "new.onnx"
        files.write(replace(model, data=()), old)
        try:
            said = isolate.run(_convert, old, new, opset, seconds=SECONDS, memory=8 * isolate.GIB)
        except isolate.Died as error:
            raise RefusedModel(f"{reason} died on it: {error}; export it again in a newer opset") from error
        if said:
            raise RefusedModel(f"{reason} cannot do it: {said}; export it again in a newer opset")
        made = files.read(new)
    envelope = onnx.ModelProto()
    envelope.CopyFrom(made.envelope)
    del envelope.metadata_props[:]
    envelope.metadata_props.extend(model.envelope.metadata_props)
    envelope.doc_string = model.envelope.doc_string
    return replace(
        model,
        graph=made.graph,
        envelope=envelope,
        notes=(*model.notes, f"{CONVERTED} {own} to {opset}, by ONNX's own converter"),
    )


def _convert(old: Path, new: Path, opset: int) -> str:
    """In the child: the file at `new` has the opset; returned is what went wrong."""
    model = onnx.load(old)
    try:
        made = onnx.version_converter.convert_version(model, opset)
    except RAISED as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return said.rpartition("` failed: ")[2][:300]  # without the place in its own code
    _place_as_before(made)
    onnx.save(made, new)
    return ""


def _place_as_before(made: onnx.ModelProto) -> None:
    """What resized before opset 11 does so as then: position x of the result is x / scale of the source, the nearest
    one below.

    The converter leaves it at the newer defaults, half a pixel off.
    """
    for node in made.graph.node:
        if node.op_type == "Resize" and node.domain in ("", "ai.onnx"):
            kept = [attribute for attribute in node.attribute if attribute.name == "mode"]
            del node.attribute[:]
            node.attribute.extend(kept)
            for name, value in (("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "floor")):
                node.attribute.append(onnx.helper.make_attribute(name, value))


def require_same(before: files.Model, after: files.Model, analysis: Analysis) -> None:
    """Both compute the same inside, in ONNX Runtime. Raises RefusedModel otherwise, naming the first tensor."""
    if before is after:
        return
    first = in_child(compare, before.graph, after.graph, analysis).first
    if first is not None:
        raise RefusedModel(
            f"ONNX's own converter changes what the model computes: '{first[0]}' drifts; export it again in a "
            "newer opset"
        )
