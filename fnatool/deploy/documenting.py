"""What `deploy.json` says of a deployed graph before anything has run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import onnx

from fnatool.deploy.document import MARK, MODEL, Document, GraphValue, at, trtexec_line
from fnatool.deploy.network import Core
from fnatool.deploy.options import DeployOptions
from fnatool.files import model as files
from fnatool.model.analysed import SPEC_KEY, metadata
from fnatool.model.targets import ONNXRUNTIME
from fnatool.runtime import engine
from fnatool.tasks.table import TASKS

SIDES: Mapping[str, tuple[int, int, int]] = {"height": (32, 720, 2160), "width": (32, 1280, 3840)}
"""The least, usual and largest image that an engine for images of any size is built for."""


def document_of(
    place: Path, read: files.Model, made: Core, options: DeployOptions, *, has: tuple[bool, bool]
) -> Document:
    """What is known of the graph in the folder. has: pre- and post-processing."""
    written = onnx.load(place / MODEL, load_external_data=False)
    described = made.described
    ends = [tuple(_value(value) for value in values) for values in (written.graph.input, written.graph.output)]
    candidates = options.target != ONNXRUNTIME and any(
        value.name == "boxes" and len(value.shape) == 3 for value in ends[1]
    )
    inputs = {value.name: value.shape for value in ends[0]}
    pixels = (
        None
        if described is None
        else described.input.model_dump(mode="json", include={"mean", "scale", "channels", "layout"})
    )
    with (place / MODEL).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Document(
        files=(MODEL, MARK),
        target=options.target,
        precision=options.precision,
        model={"file": read.path.name, "sha256": read.sha256, **_seed(read)},
        sha256=sha256,
        task=None if described is None else described.task,
        description=None if described is None else described.model_dump(mode="json"),
        classes=() if described is None else described.labels,
        pixels=pixels,
        inputs=ends[0],
        outputs=ends[1],
        size=made.size,
        image_size=options.image_size,
        layout="NHWC" if options.layout == "NHWC" else "NCHW",
        batch=made.batch,
        preprocessing=has[0],
        postprocessing="none" if not has[1] else "candidates" if candidates else "whole",
        thresholds=dict(TASKS[described.task].thresholds) if described is not None and has[1] else {},
        costs={when: dict(cost) for when, cost in made.costs.items()},
        trtexec=None if options.target == ONNXRUNTIME else trtexec_line(inputs, made.batch, SIDES),
        notes=made.notes,
    )


def _value(value: onnx.ValueInfoProto) -> GraphValue:
    tensor = value.type.tensor_type
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else axis.dim_param or "?" for axis in tensor.shape.dim)
    return GraphValue(name=value.name, type=str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape=shape)


def _seed(read: files.Model) -> dict[str, str]:
    """The SHA-256 of the seed that a remap has recorded, if one has."""
    try:
        recorded = json.loads(metadata(read.envelope).get(SPEC_KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    seed = recorded.get("seed") if isinstance(recorded, dict) else None
    return {"seed": seed} if isinstance(seed, str) else {}


def profiles(document: Document) -> dict[str, engine.Profile]:
    """The least, usual and largest shape of every input that is free."""
    return {
        value.name: (
            at(value.shape, document.batch, SIDES, 0),
            at(value.shape, document.batch, SIDES, 1),
            at(value.shape, document.batch, SIDES, 2),
        )
        for value in document.inputs
        if not all(isinstance(axis, int) for axis in value.shape)
    }
