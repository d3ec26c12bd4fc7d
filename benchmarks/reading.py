"""`python -m benchmarks.reading`: what torch computes for every model of the sweep, beside ONNX Runtime.

Two samples in one batch; the output of every convolution and matrix product, and of the graph, is compared with the
sample alone in the runtime: max |torch − runtime| of the spread of the runtime's values. Where that is more than the
tolerance, `rounding` says how far the runtime's own values move when its input moves by a rounding error. The runtime
works without graph optimisations: 1.31 fuses a Pad with zeros into the MaxPool after it, which pads with −∞
(resnetv2_50x1_bit is off by 7e-3 for it). What is newer than the runtime is held to ONNX's reference. Exit code 1 if a
model fails.
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import gc
import json
import math
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
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

import fnatool.nn
from benchmarks import zoo
from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.model.analysed import analyse_model
from fnatool.runtime.distance import HALF_TOLERANCE, NUDGE, ROUNDING_FACTOR, TOLERANCE, distance, nudged
from fnatool.runtime.session import FAILURES
from fnatool.runtime.verify import noise
from passes.graph.operators import WEIGHTED

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("onnx", "onnxruntime-gpu", "torch", "torchvision", "timm")
DOUBLE_TOLERANCE = 1e-7  # of the spread, in float64
WIRING = 1e-4  # of the drift in float32: a wrong reading drifts in float64 as far
ROUGH = 1e-3  # of the spread: more than this is not laid to rounding without a look in float64

Array = np.ndarray
Run = Callable[[Array], list[Array]]


@dataclass(frozen=True)
class Drift:
    """How one model was read: the worst drift and its tensor, that of rounding where it was measured, seconds to load
    it.
    """

    drift: float
    tensor: str
    compared: int
    tolerance: float
    rounding: float
    reference: str
    load_s: float
    double: float = math.inf  # the worst drift in float64 of the tensors that were in doubt, where that was measured
    note: str = ""

    @property
    def is_right(self) -> bool:
        return self.drift <= max(self.tolerance, self.rounding) or self.double <= max(
            DOUBLE_TOLERANCE, WIRING * self.drift
        )


def measure(export: zoo.Export) -> Drift:
    """The drift of one model."""
    path = zoo.cached(export)
    start = time.perf_counter()
    module = fnatool.nn.load(path)
    seconds = time.perf_counter() - start
    reading = module.origin.reading
    inner = tuple(
        node.outputs[0] for node in reading.view.nodes if node.op in WEIGHTED and node.outputs[0] not in reading.outputs
    )
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
    return Drift(
        drifts[worst],
        names[worst],
        len(names),
        tolerance,
        rounding,
        "onnx.reference" if newer else "onnxruntime",
        seconds,
    )


def every_tensor(path: Path) -> Drift:
    """The drift of any model on every tensor that its file computes, one sample; and of two samples in one batch on
    what has them in front.

    A tensor beyond the tolerance, and beyond what rounding may, is computed again in float64, by torch and by ONNX's
    reference.
    """
    model = files.read(path)
    feeds = noise(analyse_model(model), 0)
    start = time.perf_counter()
    module = fnatool.nn.load(model)
    seconds = time.perf_counter() - start
    reading = module.origin.reading
    made = {name for node in onnx.load(path, load_external_data=False).graph.node for name in node.output}
    hidden = reading.facts.known.keys() | reading.view.constants.keys() | set(reading.outputs)
    inner = tuple(
        name
        for node in reading.view.nodes
        for name in node.outputs
        if name in made - hidden and name in reading.shapes.types
    )
    names = (*inner, *reading.outputs)
    alone, reference = _fed(path, names, feeds)
    values = _computed(module, reading, feeds, inner)
    half = any(value.dtype == np.float16 for value in alone)
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    drifts = [distance(*pair) for pair in zip(alone, values, strict=True)]
    drifts += (more := _of_two(path, (module, reading), feeds))
    names += reading.outputs[: len(more)]
    rounding, double, note = 0.0, math.inf, ""
    if doubtful := [k for k, drift in enumerate(drifts) if not drift <= tolerance and k < len(values)]:
        moved, _ = _fed(path, names[: len(values)], nudged(feeds))
        floors = {k: ROUNDING_FACTOR * distance(alone[k], moved[k]) for k in doubtful}
        rest = [k for k in doubtful if not drifts[k] <= min(floors[k], ROUGH)]
        if rest:
            double, note = _in_double(path, (module, reading), feeds, inner)
            note = f"first in doubt '{names[rest[0]]}' by {drifts[rest[0]]:.1e}; {note}"
        else:
            rounding = max(floors.values())
    worst = int(np.argmax(np.nan_to_num(drifts, nan=np.inf)))
    return Drift(drifts[worst], names[worst], len(names), tolerance, rounding, reference, seconds, double, note)


Fed = Mapping[str, Array]


def _fed(path: Path, names: Sequence[str], feeds: Fed) -> tuple[list[Array], str]:
    """The tensors for these inputs in ONNX Runtime, or where that cannot run the model in ONNX's reference; and which
    it was.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = _with_outputs(path, names)
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [np.asarray(value) for value in session.run(None, dict(feeds))], "onnxruntime"
    except FAILURES:
        return [np.asarray(value) for value in ReferenceEvaluator(proto).run(None, dict(feeds))], "onnx.reference"


def _computed(module: fnatool.nn.Network, reading: fnatool.nn.Reading, feeds: Fed, inner: Sequence[str]) -> list[Array]:
    """The inner tensors and then the outputs, in torch."""
    with torch.no_grad():
        results = module(*(torch.from_numpy(feeds[name]) for name in reading.inputs), taps=inner)
    outputs, taps = results if inner else (results, {})  # type: ignore[misc]
    return [
        value.detach().numpy() for value in (*taps.values(), *(outputs if isinstance(outputs, tuple) else (outputs,)))
    ]


def _of_two(path: Path, read: tuple[fnatool.nn.Network, fnatool.nn.Reading], feeds: Fed) -> list[float]:
    """The drift of the outputs for two different samples in one batch, up to the first that has no samples in front."""
    module, reading = read
    if not reading.facts.batched:
        return []
    others = {
        name: value[..., ::-1].copy() if name in reading.facts.batched else value for name, value in feeds.items()
    }
    both = {
        name: np.concatenate((value, others[name])) if name in reading.facts.batched else value
        for name, value in feeds.items()
    }
    alone = [_fed(path, reading.outputs, one)[0] for one in (feeds, others)]
    drifts: list[float] = []
    for one, other, value in zip(*alone, _computed(module, reading, both, ()), strict=True):
        if not one.ndim or value.shape[:1] != (2 * one.shape[0],):
            break
        floor = ROUNDING_FACTOR * distance(
            *(_fed(path, reading.outputs, f)[0][len(drifts)] for f in (others, nudged(others)))
        )
        drift = distance(np.concatenate((one, other)), value)
        drifts.append(0.0 if drift <= floor else drift)
    return drifts


def _in_double(
    path: Path, read: tuple[fnatool.nn.Network, fnatool.nn.Reading], feeds: Fed, inner: Sequence[str]
) -> tuple[float, str]:
    """The worst drift where both compute in float64, and on which tensor; infinite, and why, where one cannot."""
    module, reading = read
    wide = {name: value.astype(np.float64) if value.dtype == np.float32 else value for name, value in feeds.items()}
    names = (*inner, *reading.outputs)
    try:
        truth = ReferenceEvaluator(_doubled(_with_outputs(path, names))).run(None, wide)
        values = _computed(copy.deepcopy(module).double(), reading, wide, inner)
    except Exception as error:  # noqa: BLE001 - the reference and torch raise everything; then the doubt stays
        return math.inf, f"float64 cannot be had: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    drifts = [distance(np.asarray(one), other) for one, other in zip(truth, values, strict=True)]
    worst = int(np.argmax(np.nan_to_num(drifts, nan=np.inf)))
    return drifts[worst], f"in float64 '{names[worst]}' by {drifts[worst]:.1e}"


def _doubled(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every float32 in it as float64."""
    single, double = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
    tensors = [*proto.graph.initializer, *(a.t for node in proto.graph.node for a in node.attribute if a.HasField("t"))]
    for tensor in tensors:
        if tensor.data_type == single:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == single:
                attribute.i = double
    for value in proto.graph.input:
        if value.type.tensor_type.elem_type == single:
            value.type.tensor_type.elem_type = double
    del proto.graph.value_info[:]
    return proto


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
    session = ort.InferenceSession(
        _with_outputs(path, names).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda sample: [np.asarray(value) for value in session.run(None, {name: sample})]


def _reference(path: Path, names: Sequence[str]) -> Run:
    proto = _with_outputs(path, names)
    evaluator = ReferenceEvaluator(proto)
    return lambda sample: [np.asarray(value) for value in evaluator.run(None, {proto.graph.input[0].name: sample})]


def main() -> None:
    """Measure the models and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--name", default="*", metavar="PATTERN", help="only exports like this, as timm.resnet*")
    parser.add_argument("--representative", action="store_true", help="only the quick ones")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "reading.json", metavar="FILE", help="where the figures go"
    )
    options = parser.parse_args()
    exports = [
        e
        for e in (zoo.REPRESENTATIVE if options.representative else zoo.SWEEP)
        if fnmatch.fnmatch(zoo.place(e).stem, options.name)
    ]
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
    document = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": versions,
        "models": rows,
    }
    write_text(path, json.dumps(document, indent=1) + "\n", force=True)


if __name__ == "__main__":
    main()
