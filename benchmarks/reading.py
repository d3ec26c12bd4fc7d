"""`python -m benchmarks.reading`: what torch computes for every model of the sweep, beside ONNX Runtime.

Two samples in one batch; the output of every convolution and matrix product, and of the graph, is compared with the sample alone in the
runtime: max |torch − runtime| of the spread of the runtime's values. Where that is more than the tolerance, `rounding` says how far the
runtime's own values move when its input moves by a rounding error. The runtime works without graph optimisations: 1.31 fuses a Pad with
zeros into the MaxPool after it, which pads with −∞ (resnetv2_50x1_bit is off by 7e-3 for it). What is newer than the runtime is held to
ONNX's reference. Exit code 1 if a model fails.
"""

from __future__ import annotations

import argparse
import fnmatch
import gc
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx.reference import ReferenceEvaluator

import fnatool.nn
from benchmarks import zoo
from fnatool import files
from fnatool.distance import HALF_TOLERANCE, NUDGE, ROUNDING_FACTOR, TOLERANCE, distance
from fnatool.verify import COMPARED

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("onnx", "onnxruntime-gpu", "torch", "torchvision", "timm")

Array = np.ndarray
Run = Callable[[Array], list[Array]]


@dataclass(frozen=True)
class Drift:
    """How one model was read: the worst drift and its tensor, that of rounding where it was measured, seconds to load it."""

    drift: float
    tensor: str
    compared: int
    tolerance: float
    rounding: float
    reference: str
    load_s: float

    @property
    def is_right(self) -> bool:
        return self.drift <= max(self.tolerance, self.rounding)


def measure(export: zoo.Export) -> Drift:
    """The drift of one model."""
    path = zoo.cached(export)
    start = time.perf_counter()
    module = fnatool.nn.load(path)
    seconds = time.perf_counter() - start
    reading = module.origin.reading
    inner = tuple(node.outputs[0] for node in reading.view.nodes if node.op in COMPARED and node.outputs[0] not in reading.outputs)
    names = (*inner, *reading.outputs)
    newer = export.opset > zoo.RUNTIME_NEWEST
    run = (_reference if newer else _runtime)(path, names)
    half = export.variant == "half"
    shape = reading.shapes.shapes[reading.inputs[0]]
    rng = np.random.default_rng(0)
    samples = [rng.standard_normal((1, *shape[1:])).astype(np.float16 if half else np.float32) for _ in range(2)]
    alone = [run(sample) for sample in samples]
    with torch.no_grad():
        outputs, taps = module(torch.from_numpy(np.concatenate(samples)), taps=inner)
    computed = [*taps.values(), *(outputs if isinstance(outputs, tuple) else (outputs,))]
    drifts = [distance(np.concatenate(pair), value.numpy()) for value, *pair in zip(computed, *alone, strict=True)]
    worst = int(np.argmax(drifts))
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    rounding = 0.0
    if drifts[worst] > tolerance:
        moved = run((samples[0] * (1 + NUDGE * rng.standard_normal(samples[0].shape))).astype(samples[0].dtype))
        rounding = ROUNDING_FACTOR * distance(alone[0][worst], moved[worst])
    return Drift(drifts[worst], names[worst], len(names), tolerance, rounding, "onnx.reference" if newer else "onnxruntime", seconds)


def _with_outputs(path: Path, names: Sequence[str]) -> onnx.ModelProto:
    """The model with these tensors as its outputs."""
    proto = onnx.load(path)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return proto


def _runtime(path: Path, names: Sequence[str]) -> Run:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(_with_outputs(path, names).SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda sample: [np.asarray(value) for value in session.run(None, {name: sample})]


def _reference(path: Path, names: Sequence[str]) -> Run:
    proto = _with_outputs(path, names)
    evaluator = ReferenceEvaluator(proto)
    return lambda sample: [np.asarray(value) for value in evaluator.run(None, {proto.graph.input[0].name: sample})]


def main() -> None:
    """Measure the models and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading", description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="*", metavar="PATTERN", help="only exports like this, as timm.resnet*")
    parser.add_argument("--representative", action="store_true", help="only the quick ones")
    parser.add_argument("--output", type=Path, default=RESULTS / "reading.json", metavar="FILE", help="where the figures go")
    options = parser.parse_args()
    exports = [e for e in (zoo.REPRESENTATIVE if options.representative else zoo.SWEEP) if fnmatch.fnmatch(zoo.place(e).stem, options.name)]
    rows: dict[str, Drift] = {}
    for export in exports:
        found = rows[zoo.place(export).stem] = measure(export)
        beside = f"  rounding alone {found.rounding:.1e}" if found.rounding else ""
        verdict = "" if found.is_right else f"  FAILED at '{found.tensor}'"
        print(f"{zoo.place(export).stem:62} {found.drift:8.1e} of {found.compared:3}{beside}{verdict}", flush=True)
        gc.collect()
    wrong = [name for name, row in rows.items() if not row.is_right]
    above = [name for name, row in rows.items() if row.drift > row.tolerance]
    print(f"{len(rows)} models, {len(wrong)} wrong, {len(above)} beyond the tolerance within rounding")
    _write(options.output, {name: asdict(row) for name, row in rows.items()})
    raise SystemExit(1 if wrong else 0)


def _write(path: Path, rows: Mapping[str, Mapping[str, object]]) -> None:
    versions = {name: metadata.version(name) for name in PACKAGES}
    document = {"python": platform.python_version(), "machine": platform.machine(), "versions": versions, "models": rows}
    files.write_text(path, json.dumps(document, indent=1) + "\n", force=True)


if __name__ == "__main__":
    main()
