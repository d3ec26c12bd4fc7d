"""int8: a model file whose values are rounded to 8 bits and back between its operators, by ONNX Runtime's own
quantiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import CalibrationDataReader, MinMaxCalibrater, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from fnatool.runtime import isolate
from fnatool.runtime.half import RAISED
from fnatool.runtime.native import first_line
from fnatool.runtime.session import FAILURES
from passes.errors import RefusedModel

SECONDS = 3600.0
OLDEST_OPSET = 13  # since when scales are per channel
Feeds = Mapping[str, np.ndarray]
Ranges = Mapping[str, tuple[float, float]]
"""tensor → its least and largest value."""


@dataclass(frozen=True)
class Scheme:
    """How values become 8 bits; weights always as int8, symmetric, with a scale for each channel.

    signed: values are int8 around zero, else uint8 with a zero of their own. paired: weights stay float32 in the file
    and are rounded and widened like values, and biases are left alone, which is what TensorRT reads. reduced: weights
    take 7 bits, so that the sums of processors without instructions for int8 cannot overflow.
    """

    signed: bool
    paired: bool
    reduced: bool

    @property
    def said(self) -> str:
        """In words."""
        return f"{'S8S8' if self.signed else 'U8S8'}, weights per channel{' of 7 bits' if self.reduced else ''}"


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Samples one after another, none of which is kept."""

    def __init__(self, samples: Iterator[Feeds]) -> None:
        self.samples = samples

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next one."""
        found = next(self.samples, None)
        return None if found is None else dict(found)


def value_ranges(source: Path, samples: Callable[[], Iterator[Feeds]]) -> dict[str, tuple[float, float]]:
    """Between what values the inner tensors of the model lie on the samples.

    Raises RefusedModel where it does not run.
    """
    try:
        found = isolate.run(_ranges, source, samples, seconds=SECONDS, memory=32 * isolate.GIB)
    except isolate.Died as error:
        raise RefusedModel(f"ONNX Runtime died on this model while its values were looked at: {error}") from error
    if isinstance(found, str):
        raise RefusedModel(f"ONNX Runtime cannot look at the values of this model: {found}; deploy it in fp32")
    return found


def _ranges(source: Path, samples: Callable[[], Iterator[Feeds]]) -> dict[str, tuple[float, float]] | str:
    """In the child; a text says what went wrong."""
    try:
        looking = MinMaxCalibrater(source, augmented_model_path=f"{source}.looking")
        looking.augment_graph()
        looking.create_inference_session()
        looking.collect_data(_Reader(samples()))
        found = looking.compute_data()
    except (*FAILURES, *RAISED) as error:
        return first_line(error)
    finally:
        Path(f"{source}.looking").unlink(missing_ok=True)
    return {name: (_only(found[name].lowest), _only(found[name].highest)) for name in found.keys()}  # noqa: SIM118


def _only(value: np.ndarray) -> float:
    return float(np.ravel(value)[0])


def write_quantised(source: Path, target: Path, ranges: Ranges, scheme: Scheme, kept: Sequence[str] = ()) -> None:
    """The file at target is the model at source in 8 bits, its inputs and outputs and the nodes of the names in `kept`
    as they are.

    Raises RefusedModel where the quantiser cannot do it.
    """
    try:
        said = isolate.run(
            _quantise, source, target, ranges, scheme, tuple(kept), seconds=SECONDS, memory=32 * isolate.GIB
        )
    except isolate.Died as error:
        raise RefusedModel(f"ONNX Runtime's quantiser died on this model: {error}; deploy it in fp32") from error
    if said:
        raise RefusedModel(f"ONNX Runtime's quantiser cannot do this model: {said}; deploy it in fp32")


def _quantise(source: Path, target: Path, ranges: Ranges, scheme: Scheme, kept: tuple[str, ...]) -> str:
    """In the child; returned is what went wrong."""
    held = {name: tuple(np.float32(value) for value in pair) for name, pair in ranges.items()}
    kind = QuantType.QInt8 if scheme.signed else QuantType.QUInt8
    how = {"ActivationSymmetric": scheme.signed, "AddQDQPairToWeight": scheme.paired, "QuantizeBias": not scheme.paired}
    how["DedicatedQDQPair"] = scheme.paired
    operators = sorted({*QDQRegistry, *QLinearOpsRegistry})
    try:
        made = QDQQuantizer(
            load_model_with_shape_infer(source), True, scheme.reduced, QuantType.QInt8, kind,
            TensorsData(CalibrationMethod.MinMax, held), [], list(kept), operators, how,
        )  # fmt: skip
        made.quantize_model()
    except (*FAILURES, *RAISED) as error:
        return first_line(error)
    model = made.model.model
    used = {node.domain for node in model.graph.node} | {""}
    imports = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    onnx.save(model, target)
    return ""


def has_int8_instructions() -> bool:
    """Whether sums of products of 8 bits are exact here: x86 before VNNI lets sums of two overflow."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = {word for line in text.splitlines() if line.startswith(("flags", "Features")) for word in line.split()}
    return bool(flags & {"avx512_vnni", "avx_vnni", "asimd"})
