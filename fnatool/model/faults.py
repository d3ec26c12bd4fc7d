"""Everything that is wrong with a model file by itself.

What runs native code on the file (checker, shape inference, ONNX Runtime) does so in a child process, whose death is a
finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx
import onnx.checker
import onnx.helper
import onnx.shape_inference

from fnatool.files import model as files
from fnatool.files.interface import declared_shape, free_inputs, shape_text
from fnatool.runtime import failures, isolate, native
from passes.check import graph as check
from passes.check.finding import Finding
from passes.check.message import check_proto
from passes.errors import RefusedModel, UserError

if TYPE_CHECKING:
    from fnatool.runtime.session import InferenceSession


Shape = tuple[int, ...]
Array = npt.NDArray[np.generic]
Shapes = dict[str, Shape]

STEP_SECONDS = 120.0  # of processor time, for each isolated step
GUESSED_EXTENT = 224  # of a dynamic spatial axis; of any other dynamic axis 1
UNKNOWN = -1
STANDARD = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}  # the operator domains that ONNX Runtime brings


def find_faults(raw: files.Raw, inputs: Mapping[str, Shape], seconds: float = STEP_SECONDS) -> list[Finding]:
    """The findings on a file as it is; inputs: shapes of dynamic inputs. Raises UserError where they do not fit the
    model.
    """
    given = _with_inputs(raw.proto, inputs)
    shapes, inferred = _infer(given, seconds)
    findings = [*check_proto(raw.proto)]
    if not any(finding.code == "element-type" for finding in findings):
        findings += _static(raw, shapes)
    findings += [*_checker(raw.path, seconds), *inferred]
    findings += _run(raw.path, given, raw.proto, seconds)
    return findings


# --- static ---


def _with_inputs(proto: onnx.ModelProto, shapes: Mapping[str, Shape]) -> onnx.ModelProto:
    """A copy of proto whose inputs have the given shapes. Raises UserError where they do not fit."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    inputs = {value.name: value for value in free_inputs(changed)}
    for name, shape in shapes.items():
        if name not in inputs:
            raise UserError(
                f"--input {name}: the model has no such input; it has {', '.join(map(repr, inputs)) or 'none'}"
            )
        axes = inputs[name].type.tensor_type.shape.dim
        fits = len(axes) == len(shape) and all(
            a.dim_value <= 0 or a.dim_value == size for a, size in zip(axes, shape, strict=True)
        )
        if axes and not fits:
            raise UserError(
                f"--input {name}: {shape_text(shape)} does not fit the model's "
                f"{shape_text(declared_shape(inputs[name]))}"
            )
        del axes[:]
        for size in shape:
            axes.add(dim_value=size)
    return changed


def _static(raw: files.Raw, shapes: Shapes) -> Sequence[Finding]:
    """The rules of passes.check, where the file can be made a graph."""
    names = [tensor.name for tensor in raw.proto.graph.initializer]
    try:
        graph = files.import_graph(raw.proto, dict(zip(names, raw.arrays, strict=True)))
    except RefusedModel as error:
        return (Finding("error", "unreadable", "graph", str(error)),)
    return check.check(graph, shapes)


def _checker(path: Path, seconds: float) -> Iterator[Finding]:
    try:
        isolate.run(_check_whole, path, seconds=seconds)
    except isolate.Died as death:
        yield Finding(
            "error",
            "checker-died",
            "onnx.checker",
            str(death),
            _remedy(death) or "do not use this file: it breaks the checker",
        )
    except failures.FAILURES as error:
        yield Finding("error", "checker", "onnx.checker", _brief(error))


def _check_whole(path: Path) -> None:
    with native.openable(path) as text:
        onnx.checker.check_model(text)


def _infer(proto: onnx.ModelProto, seconds: float) -> tuple[Shapes, list[Finding]]:
    """The shapes found by inference (-1: dynamic), and what strict inference objects to."""
    message = proto.SerializeToString()
    try:
        shapes = isolate.run(_shapes, message, seconds=seconds)
    except failures.FAILURES as error:
        return {}, [Finding("error", "shape-inference-died", "shape inference", _brief(error), _remedy(error))]
    try:
        isolate.run(_infer_strictly, message, seconds=seconds)
    except failures.FAILURES as error:
        return shapes, [Finding("error", "shape-inference", "shape inference", _brief(error), _remedy(error))]
    return shapes, []


def _infer_strictly(message: bytes) -> None:
    onnx.shape_inference.infer_shapes(message, check_type=True, strict_mode=True, data_prop=True)


def _shapes(message: bytes) -> Shapes:
    """What lenient inference finds, also before and behind a mistake."""
    proto = onnx.ModelProto()
    proto.ParseFromString(message)
    del proto.graph.value_info[:]  # what a file claims of inner tensors may be stale
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    found: Shapes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            found[value.name] = tuple(
                axis.dim_value if axis.HasField("dim_value") else UNKNOWN for axis in value.type.tensor_type.shape.dim
            )
    return found


# --- the run ---


@dataclass(frozen=True)
class Feed:
    """What a run gets as one input."""

    name: str
    dtype: npt.DTypeLike
    shape: Shape


def _run(path: Path, given: onnx.ModelProto, proto: onnx.ModelProto, seconds: float) -> Iterator[Finding]:
    """Findings of one run in ONNX Runtime on random inputs; on guessed sizes a failure is a note."""
    inputs = free_inputs(given)
    if odd := [value.name for value in inputs if not value.type.HasField("tensor_type")]:
        yield Finding("note", "not-run", "ONNX Runtime", f"not run: input '{odd[0]}' is not a tensor")
        return
    if any(value.type.tensor_type.elem_type not in onnx.helper.get_all_tensor_dtypes() for value in inputs):
        return  # check_proto reports it
    feeds, guessed = _feeds(given)
    sizes = ", ".join(f"{feed.name}={shape_text(feed.shape)}" for feed in feeds)
    outputs = {value.name: declared_shape(value) for value in proto.graph.output}
    batched, followers = _batched(given, feeds)
    try:
        found = isolate.run(_session_run, path, feeds, (batched, followers), seconds=seconds)
    except failures.FAILURES as error:
        yield _failed_run(_brief(error), sizes, guessed, _remedy(error))
        return
    if (
        foreign := sorted({node.domain for node in proto.graph.node} - STANDARD)
        if found.problem and not found.loaded
        else []
    ):
        message = f"not run: it needs the operators of {', '.join(foreign)} ({found.problem})"
        yield Finding("note", "not-run", "ONNX Runtime", message, "run it where they are installed")
        return
    if found.problem:
        yield _failed_run(found.problem, sizes, guessed and found.loaded)
        return
    for name, shape in found.shapes.items():
        stated = outputs.get(name)
        if stated is None or not isinstance(shape, tuple):
            continue
        fits = len(stated) == len(shape) and all(
            a == b for a, b in zip(stated, shape, strict=True) if isinstance(a, int)
        )
        if not fits:
            message = f"it is declared as {shape_text(stated)} but runs as {shape_text(shape)} ({sizes})"
            yield Finding("error", "output-shape", f"output '{name}'", message, "declare the shape it has")
    if found.batch:
        yield Finding(
            "error", "batch", "ONNX Runtime", f"its batch is declared free, but {found.batch} ({sizes})", FREE
        )
    for name in found.not_finite:
        message = f"it is not finite on random input ({sizes})"
        yield Finding("warning", "output-not-finite", f"output '{name}'", message, "see whether it is on real input")


FREE = (
    "export it with a batch that is free all the way, or free sizes that were written for one sample: 'fnatool "
    "remap --set batch=free'"
)


Names = frozenset[str]


def _batched(proto: onnx.ModelProto, feeds: Sequence[Feed]) -> tuple[Names, Names]:
    """The inputs whose first axis is a free batch (of images, and what names it alike), and the outputs that may have
    it.
    """
    inputs = {value.name: declared_shape(value) for value in free_inputs(proto)}
    images = [
        shape[0] for shape in inputs.values() if shape is not None and len(shape) > 2 and not isinstance(shape[0], int)
    ]
    if not images:
        return frozenset(), frozenset()
    batch = images[0]
    batched = (feed.name for feed in feeds if (shape := inputs[feed.name]) and shape[0] == batch)
    outputs = {value.name: declared_shape(value) for value in proto.graph.output}
    followers = (
        name
        for name, shape in outputs.items()
        if not shape or not isinstance(shape[0], str) or shape[0] == batch or not batch
    )
    return frozenset(batched), frozenset(followers)


def _failed_run(problem: str, sizes: str, guessed: bool, remedy: str = "") -> Finding:
    fix = remedy or next((fix for text, fix in REMEDIES.items() if text in problem), "")
    if guessed:
        message = f"it does not run on guessed sizes and numbers ({sizes}): {problem}"
        return Finding("note", "run", "ONNX Runtime", message, fix or "say the sizes with --input NAME=1x3x224x224")
    return Finding("error", "run", "ONNX Runtime", f"it does not run{f' ({sizes})' if sizes else ''}: {problem}", fix)


REMEDIES = {
    "is under development and support for this is limited": "export the model in an older opset",
    "Unsupported model IR version": "install a newer ONNX Runtime, or export the model for an older one",
    "Could not find an implementation": "the processor has no such operator for these types: export in float32 or "
    "in another opset",
}
"""part of what ONNX Runtime says → what helps."""


def _remedy(error: BaseException) -> str:
    """What helps against a step that did not end; '' where nothing is known to."""
    return "give it longer with --timeout" if isinstance(error, isolate.TimedOut) else ""


def _feeds(proto: onnx.ModelProto) -> tuple[list[Feed], bool]:
    """One feed per input, and whether any size of them is a guess: batch 1, channels as the first convolution wants
    them, extent 224.
    """
    channels = _first_channels(proto)
    feeds: list[Feed] = []
    guessed = False
    for value in free_inputs(proto):
        stated = declared_shape(value)
        guessed |= stated is None or any(not isinstance(size, int) for size in stated) or _may_hold_sizes(value)
        axes: tuple[int | str | None, ...] = stated if stated is not None else (None,) * 4
        guess = (
            (1, channels.get(value.name, 3), *(GUESSED_EXTENT for _ in axes[2:])) if len(axes) > 2 else (1,) * len(axes)
        )
        shape = tuple(size if isinstance(size, int) else other for size, other in zip(axes, guess, strict=True))
        feeds.append(Feed(value.name, onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type), shape))
    return feeds, guessed


def _may_hold_sizes(value: onnx.ValueInfoProto) -> bool:
    """Whether an input is a list of integers: of sizes or axes, for which any value is a guess."""
    kind = value.type.tensor_type
    return len(kind.shape.dim) <= 1 and kind.elem_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)


def _first_channels(proto: onnx.ModelProto) -> dict[str, int]:
    """The channels that convolutions reading a tensor directly want of it."""
    dims = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    found: dict[str, int] = {}
    for node in proto.graph.node:
        weight = dims.get(node.input[1]) if node.op_type == "Conv" and len(node.input) > 1 else None
        if weight is not None and len(weight) > 2:
            group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
            found.setdefault(node.input[0], weight[1] * group)
    return found


@dataclass(frozen=True)
class Ran:
    """What became of a run: a problem, or the shapes of the outputs, those not finite, and what is wrong with two
    samples at once.
    """

    problem: str
    loaded: bool
    shapes: Shapes
    not_finite: tuple[str, ...]
    batch: str = ""


def _session_run(path: Path, feeds: Sequence[Feed], free: tuple[Names, Names]) -> Ran:
    from fnatool.runtime.session import FAILURES, make_session

    with native.openable(path) as text:
        try:
            session = make_session(text, optimised="none")  # the graph as it is, and soonest
        except FAILURES as error:
            return Ran(_brief(error).replace(text, str(path)), False, {}, ())
    rng = np.random.default_rng(0)
    try:
        values = {feed.name: _random(feed, rng) for feed in feeds}
        outputs = session.run(None, values)
    except FAILURES as error:
        return Ran(_brief(error), True, {}, ())
    results = {
        value.name: array
        for value, array in zip(session.get_outputs(), outputs, strict=True)
        if isinstance(array, np.ndarray)
    }
    bad = tuple(name for name, array in results.items() if array.dtype.kind == "f" and not np.isfinite(array).all())
    batched, followers = free
    alone = {name: array for name, array in results.items() if name in followers}
    batch = _two_samples(session, values, alone, batched) if batched and not bad else ""
    return Ran("", True, {name: array.shape for name, array in results.items()}, bad, batch)


def _two_samples(
    session: InferenceSession, first: Mapping[str, Array], alone: Mapping[str, Array], batched: Names
) -> str:  # fmt: skip
    """What is wrong with the first sample in a batch of two; '' where each output holds, in front, what the sample
    gives alone.
    """
    from fnatool.runtime.session import FAILURES

    rng = np.random.default_rng(1)
    seconds = {
        name: rng.permuted(value) if value.dtype.kind == "f" else value
        for name, value in first.items()
        if name in batched
    }
    both = {name: np.concatenate([value, seconds[name]]) if name in batched else value for name, value in first.items()}
    try:
        together = dict(zip([value.name for value in session.get_outputs()], session.run(None, both), strict=True))
    except FAILURES as error:
        return f"two samples at once do not go through: {_brief(error)}"
    counts = {first[name].shape[0] for name in batched}
    for name, value in alone.items():
        samples = value.shape[0] if value.ndim else 0
        if samples not in counts or value.dtype.kind != "f":
            continue
        if together[name].shape != (2 * samples, *value.shape[1:]):
            return (
                f"output '{name}' of two samples has the shape {shape_text(together[name].shape)}, that of one "
                f"{shape_text(value.shape)}"
            )
        moved = _apart(together[name], value)
        if moved > APART:
            return f"output '{name}' of a sample depends on the other in its batch (by {moved:.1e} of its spread)"
    return ""


def _apart(both: Array, one: Array) -> float:
    """max |difference| of one from the beginning of both, of the spread of both, and at least of a thousandth of their
    size.
    """
    wide = both.astype(np.float64)
    moved = float(np.abs(wide[: one.shape[0]] - one.astype(np.float64)).max(initial=0.0))
    return moved / max(float(np.ptp(wide)), 1e-3 * float(np.abs(wide).max())) if moved else 0.0


APART = 1e-2  # of the spread of a sample's values: far beyond rounding, far below what another sample's values would do


def _random(feed: Feed, rng: np.random.Generator) -> npt.NDArray[np.generic]:
    """Standard normal for real numbers, zeros for all else (indices, masks)."""
    dtype = np.dtype(feed.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(feed.shape, np.float32).astype(dtype)
    return np.full(feed.shape, "") if dtype.kind == "O" else np.zeros(feed.shape, dtype)


def _brief(error: BaseException) -> str:
    """The message of a native library in one paragraph of readable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 500 else f"{text[:500]} …"
