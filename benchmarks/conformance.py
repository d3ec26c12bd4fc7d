"""`python -m benchmarks.conformance`: the ONNX project's own backend suite, read by torch.

Every case is a model with inputs and the outputs that the standard wants: 'node' (one operator, or a few), 'simple',
'pytorch-converted' and 'pytorch-operator'. Each is loaded by `fnatool.nn` and run in a child process: as it is, and
where that is refused with all inputs but the first as initializers, as networks have their weights, axes and sizes. It
passes where shapes, types and values are those expected (to the case's own tolerance; half precision is held in
single), is refused where a message says why it is not read, is wrong where the values differ, and is a traceback where
anything else is raised, or the process dies. Exit code 1 if one is wrong or a traceback.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

import fnatool.nn
from fnatool.nn.program import to_array, to_tensor
from fnatool.runtime import isolate
from passes.errors import RefusedModel, UserError

RESULTS = Path(__file__).parent / "results"
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
PACKAGES = ("onnx", "torch")

TOGETHER = 40  # cases in one process

Values = Sequence[object]


@dataclass(frozen=True)
class Outcome:
    """What became of one case: passed, refused, wrong or traceback, and why."""

    case: str
    kind: str
    verdict: str
    why: str = ""


def cases(kinds: Sequence[str]) -> Iterator[TestCase]:
    """The cases of these kinds, in order of their names."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # the suite makes some of its values by overflow and division by zero
        for kind in kinds:
            yield from sorted(load_model_tests(kind=kind), key=lambda case: case.name)


def tried(some: Sequence[TestCase]) -> list[Outcome]:
    """The outcomes of some cases, in a process of their own; where it dies, each case gets one."""
    try:
        found = isolate.run(lambda: [_tried(case) for case in some], seconds=120 if len(some) == 1 else 300)
    except isolate.Died as death:
        if len(some) > 1:
            return [outcome for case in some for outcome in tried([case])]
        found = [("traceback", str(death))]
    return [Outcome(case.name, case.kind, verdict, why) for case, (verdict, why) in zip(some, found, strict=True)]


def _tried(case: TestCase) -> tuple[str, str]:
    """The outcome with the inputs as they are; where that is refused, with all but the first as initializers, as
    networks have them.
    """
    warnings.simplefilter("error")
    model = onnx.load(Path(case.model_dir) / "model.onnx") if case.model_dir else case.model
    verdict, why = _run(model, list(_data(case)), case)
    data = list(_data(case))[:1]
    if verdict == "refused" and data and len(data[0][0]) > 1:
        again, other = _run(_held(model, data[0][0]), [(data[0][0][:1], data[0][1])], case)
        return (again, other) if again != "refused" else (verdict, why)
    return verdict, why


def _held(model: onnx.ModelProto, values: Values) -> onnx.ModelProto:
    """The model whose inputs after the first are initializers."""
    held = onnx.ModelProto()
    held.CopyFrom(model)
    if not all(isinstance(value, onnx.TensorProto | np.ndarray | np.generic) for value in values):
        return held
    for value, info in zip(values[1:], model.graph.input[1:], strict=False):
        tensor = held.graph.initializer.add()
        tensor.CopyFrom(value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(np.asarray(value)))
        tensor.name = info.name
    del held.graph.input[1:]
    return held


def _run(model: onnx.ModelProto, data: Sequence[tuple[Values, Values]], case: TestCase) -> tuple[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        try:
            network = fnatool.nn.load(path)
        except (RefusedModel, UserError) as refusal:
            return "refused", str(refusal)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what this looks for
            return "traceback", f"load: {type(error).__name__}: {error}"
    for inputs, expected in data:
        try:
            with torch.no_grad():
                made = network(*(to_tensor(_array(value)) for value in inputs))
        except (RefusedModel, UserError) as refusal:
            return "traceback", f"refused in the first run: {refusal}"
        except Exception as error:  # noqa: BLE001 - as above
            return "traceback", f"run: {type(error).__name__}: {error}"
        outputs = made if isinstance(made, tuple) else (made,)
        if why := "; ".join(_differences([to_array(value) for value in outputs], expected, case)):
            return "wrong", why
    return "passed", ""


def _data(case: TestCase) -> Iterator[tuple[Values, Values]]:
    """Inputs and expected outputs of each data set."""
    if case.data_sets is not None:
        yield from case.data_sets
        return
    for folder in sorted(Path(case.model_dir).glob("test_data_set_*")):
        yield _tensors(folder, "input"), _tensors(folder, "output")


def _tensors(folder: Path, kind: str) -> list[np.ndarray]:
    files = sorted(folder.glob(f"{kind}_*.pb"), key=lambda path: int(re.sub(r"\D", "", path.stem)))
    return [numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())) for path in files]


def _differences(made: Sequence[np.ndarray], expected: Values, case: TestCase) -> Iterator[str]:
    if len(made) != len(expected):
        yield f"{len(made)} outputs, not {len(expected)}"
        return
    for k, (got, want) in enumerate(zip(made, expected, strict=True)):
        wanted = _array(want)
        # held in single precision, as `fnatool.nn` does
        if is_half := wanted.dtype.itemsize == 2 and wanted.dtype.kind in "fV":
            wanted = wanted.astype(np.float32)
        rtol = max(case.rtol, 1e-2) if is_half else case.rtol
        if got.shape != wanted.shape or got.dtype != wanted.dtype:
            yield f"output {k} is {got.dtype} {got.shape}, not {wanted.dtype} {wanted.shape}"
        elif wanted.dtype.kind not in "OSU" and not np.allclose(
            _wide(got), _wide(wanted), rtol, rtol * 1e-2 if is_half else case.atol, equal_nan=True
        ):
            yield f"output {k} is off by {np.nanmax(np.abs(_wide(got) - _wide(wanted))):.2g}"


def _array(value: object) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def _wide(values: np.ndarray) -> np.ndarray:
    return values if values.dtype.kind in "iufcb" and values.dtype.itemsize > 2 else values.astype(np.float64)


# --- figures ------------------------------------------------------------------------------------


def counts(outcomes: Sequence[Outcome]) -> Mapping[str, int]:
    """Verdict → how many."""
    found = Counter(outcome.verdict for outcome in outcomes)
    return {
        "cases": len(outcomes),
        **{verdict: found[verdict] for verdict in ("passed", "refused", "wrong", "traceback")},
    }


def reason(why: str) -> str:
    """A message without its names and numbers."""
    text = re.sub(r"'[^']*'", "'…'", why.splitlines()[0] if why else "")
    return re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "…", text)


def report(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """The figures, the reasons of refusals with their number, most frequent first, and what is wrong, case by case."""
    kinds = sorted({outcome.kind for outcome in outcomes}, key=KINDS.index)
    reasons = Counter(reason(outcome.why) for outcome in outcomes if outcome.verdict == "refused")
    return {
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "all": counts(outcomes),
        "kinds": {kind: counts([outcome for outcome in outcomes if outcome.kind == kind]) for kind in kinds},
        "reasons": dict(reasons.most_common()),
        "wrong": [asdict(outcome) for outcome in outcomes if outcome.verdict == "wrong"],
        "traceback": [asdict(outcome) for outcome in outcomes if outcome.verdict == "traceback"],
        "refused": {outcome.case: outcome.why for outcome in outcomes if outcome.verdict == "refused"},
    }


def main() -> int:
    """The suite, in the terminal and as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind; may be repeated")
    parser.add_argument(
        "--only", default="", help="a regular expression: only the cases whose names it finds; nothing is written"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "conformance.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [case for case in cases(asked.kind or KINDS) if re.search(asked.only, case.name)]
    outcomes: list[Outcome] = []
    for k in range(0, len(chosen), TOGETHER):
        some = tried(chosen[k : k + TOGETHER])
        outcomes += some
        for outcome in some:
            if outcome.verdict in ("wrong", "traceback") or asked.only:
                print(f"{outcome.verdict:9} {outcome.kind}/{outcome.case}: {outcome.why}", flush=True)
    print(counts(outcomes))
    if not asked.only and not asked.kind:
        asked.output.write_text(json.dumps(report(outcomes), indent=1, ensure_ascii=False) + "\n")
    return int(any(outcome.verdict in ("wrong", "traceback") for outcome in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
