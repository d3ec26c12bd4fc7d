"""`python -m benchmarks.reading`: what torch computes for every model of the sweep, beside ONNX Runtime.

Two samples in one batch, each compared with the sample alone in the runtime: max |torch − runtime| of the spread of the runtime's values.
Where that is more than the tolerance, `rounding` says how far the runtime's own output moves when its input moves by a rounding error. The
runtime works without graph optimisations: 1.31 fuses a Pad with zeros into the MaxPool after it, which pads with −∞ (resnetv2_50x1_bit is
off by 7e-3 for it). What is newer than the runtime is held to ONNX's reference. Exit code 1 if a model fails.
"""

from __future__ import annotations

import argparse
import fnmatch
import gc
import json
import platform
import time
from collections.abc import Callable, Mapping
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
from fnatool.verify import HALF_TOLERANCE, NUDGE, ROUNDING_FACTOR, TOLERANCE

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("onnx", "onnxruntime-gpu", "torch", "torchvision", "timm")

Array = np.ndarray
Run = Callable[[Array], list[Array]]


@dataclass(frozen=True)
class Drift:
    """How one model was read: the drift of its outputs, that of rounding where it was measured, what held it, seconds to load it."""

    drift: float
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
    newer = export.opset > zoo.RUNTIME_NEWEST
    run = _reference(path) if newer else _runtime(path)
    half = export.variant == "half"
    shape = module.origin.reading.shapes.shapes[module.origin.reading.inputs[0]]
    rng = np.random.default_rng(0)
    samples = [rng.standard_normal((1, *shape[1:])).astype(np.float16 if half else np.float32) for _ in range(2)]
    expected = [run(sample) for sample in samples]
    with torch.no_grad():
        computed = module(torch.from_numpy(np.concatenate(samples)))
    outputs = [output.numpy() for output in (computed if isinstance(computed, tuple) else (computed,))]
    drift = max(_apart(output, np.concatenate([e[k] for e in expected])) for k, output in enumerate(outputs))
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    rounding = 0.0
    if drift > tolerance:
        moved = run((samples[0] * (1 + NUDGE * rng.standard_normal(samples[0].shape))).astype(samples[0].dtype))
        rounding = ROUNDING_FACTOR * max(_apart(m, e) for m, e in zip(moved, expected[0], strict=True))
    return Drift(drift, tolerance, rounding, "onnx.reference" if newer else "onnxruntime", seconds)


def _apart(a: Array, b: Array) -> float:
    return float("inf") if a.shape != b.shape else float(np.abs(a.astype(np.float64) - b).max() / np.ptp(b.astype(np.float64)))


def _runtime(path: Path) -> Run:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda sample: [np.asarray(value) for value in session.run(None, {name: sample})]


def _reference(path: Path) -> Run:
    proto = onnx.load(path)
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
        print(f"{zoo.place(export).stem:62} {found.drift:8.1e}{beside}{'' if found.is_right else '  FAILED'}", flush=True)
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
