"""A torch module as a seed: exported by torch, put into readable form, and checked against the module in ONNX Runtime.

torch has two exporters. The tracing one writes the cleaner graph and runs first; where it fails, or its graph does not
compute what the module does, the newer one has its turn. Both are asked to leave BatchNorm alone: a folded network
trains badly.
"""

from __future__ import annotations

import ctypes
import io
import json
import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from fnatool.export.readable import ModuleOrigin, Sizes, tidy
from fnatool.export.sources import CHANNELS, RAISED, SIDE, first_line
from fnatool.files import model as files
from fnatool.files import wire
from fnatool.files.atomic import temporary
from fnatool.files.interface import SOURCE_KEY
from fnatool.runtime import isolate
from fnatool.runtime.distance import HALF_TOLERANCE, ROUNDING_FACTOR, TOLERANCE, distance, nudged
from passes.errors import RefusedModel, UserError
from passes.graph.operators import CONVOLUTIONS
from passes.graph.view import View, view

OPSET = 18
BATCH = "N"
TRACED_BATCH = 2  # 1 may be taken for a constant
CHECKED_BATCHES = (1, 3)
WATCHED_BATCH = 1  # of which inner values are compared too
RUNS = 3  # of the module per batch: its values, again, and with inputs moved by a rounding error
CHECK_SECONDS = 600

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Exported:
    """A finished export: the model, which of torch's exporters made it, how many BatchNorms it keeps, and how far it
    drifts.

    `drifts` holds (batch size, max |ONNX Runtime − torch| relative to the spread of torch's values), the worst over all
    outputs; `inner` is the worst over what `compared` convolutions, linear layers and BatchNorms inside make. `source`
    goes into the metadata.
    """

    model: files.Model
    exporter: str
    norms: int
    params: int
    drifts: tuple[tuple[int, float], ...]
    inner: float
    compared: int
    notes: tuple[str, ...]
    source: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The same, for programs."""
        return {
            "source": dict(self.source),
            "exporter": self.exporter,
            "parameters": self.params,
            "norms": self.norms,
            "drifts": [{"batch": batch, "worst": drift} for batch, drift in self.drifts],
            "inner": {"worst": self.inner, "compared": self.compared},
            "notes": list(self.notes),
        }

    def write(self, path: Path | str, *, force: bool = False) -> None:
        """The model as a file, which says where it comes from."""
        files.write(self.model, path, force=force, metadata={SOURCE_KEY: json.dumps(self.source)})


@dataclass(frozen=True)
class _Task:
    """What is exported: the module, an input of TRACED_BATCH, the names of inputs and outputs, and what the module
    computes.
    """

    module: torch.nn.Module
    example: Tensors
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    references: tuple[_Reference, ...]
    norms: int  # BatchNorms that one pass runs through


@dataclass(frozen=True)
class _Reference:
    """Inputs of one batch size, and what the module makes of them: its outputs, and inside, by the path of the part
    that makes it.

    The tolerances are what rounding may do, measured on inputs moved by a rounding error where that is more than usual.
    """

    batch: int
    feeds: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    inner: Mapping[str, np.ndarray]
    tolerances: Mapping[str, float]  # of outputs and of inner values


def export_module(module: torch.nn.Module, example: torch.Tensor | Tensors | None, opset: int) -> Exported:
    """The module in eval mode as a model, with BatchNorm kept and a free batch axis, which computes what the module
    does.

    example: an input, or a tuple of them, batch first; None: 1×3×224×224. Nodes are named after modules, initializers
    as in the state_dict. Raises UserError for an input the module does not take, RefusedModel where torch cannot export
    it or the result is further than 1e-4 of the spread from the module.
    """
    if not LOWEST <= opset <= HIGHEST:
        raise UserError(f"opset {opset} is not one that torch writes; choose {LOWEST} to {HIGHEST} ({OPSET} is usual)")
    with _in_eval(module), torch.no_grad():
        made = _exported(_task(module, example, opset))
    return replace(made, source={"torch": torch.__version__, "exporter": made.exporter})


def input_names(count: int) -> tuple[str, ...]:
    """What the inputs of a module with so many are called in the model."""
    return ("input",) if count == 1 else tuple(f"input_{i}" for i in range(count))


def zeros(module: torch.nn.Module, shape: Sequence[int]) -> torch.Tensor:
    """An example input of this shape, in the type of the module's parameters."""
    first = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    return torch.zeros(tuple(shape), dtype=first.dtype)


@contextmanager
def _in_eval(module: torch.nn.Module) -> Iterator[None]:
    """Within it the module is in eval mode; afterwards each of its parts is as it was."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, flag in training.items():
            part.training = flag


# --- what the module takes and computes ---------------------------------------------------------


def _task(module: torch.nn.Module, example: torch.Tensor | Tensors | None, opset: int) -> _Task:
    given = _like_module(module, example)
    names = input_names(len(given))
    norms = _counting(module)
    outputs = _run(module, _batch(given, TRACED_BATCH))
    references = tuple(_reference(module, given, names, batch) for batch in CHECKED_BATCHES)
    return _Task(
        module=module,
        example=_batch(given, TRACED_BATCH),
        inputs=names,
        outputs=tuple(outputs),
        opset=opset,
        references=references,
        norms=norms(len(references) * RUNS + 1),
    )


def _like_module(module: torch.nn.Module, example: torch.Tensor | Tensors | None) -> Tensors:
    """The example, or the default one, on the device of the module's parameters."""
    if example is None:
        example = zeros(module, (1, CHANNELS, SIDE, SIDE))
    given = (example,) if isinstance(example, torch.Tensor) else tuple(example)
    if any(tensor.dim() < 1 or 0 in tensor.shape for tensor in given):
        raise UserError("an example input needs a batch axis and no axis of size 0")
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    return tuple(tensor.to(device) for tensor in given)


def _batch(given: Tensors, size: int) -> Tensors:
    """Inputs of this batch size: noise for floating-point ones, for others the rows given."""
    rng = torch.Generator().manual_seed(0)
    made = []
    for tensor in given:
        if tensor.is_floating_point():
            made.append(torch.randn((size, *tensor.shape[1:]), generator=rng).to(tensor))
        else:
            made.append(tensor[torch.arange(size) % tensor.shape[0]])
    return tuple(made)


def _counting(module: torch.nn.Module) -> Callable[[int], int]:
    """Counts the calls of BatchNorms in the module from here on; the function returned stops it and gives the calls per
    run.
    """
    calls: Counter[str] = Counter()
    hooks = [
        part.register_forward_hook(lambda *_, name=name: calls.update([name]))
        for name, part in module.named_modules()
        if isinstance(part, _BatchNorm) and part.track_running_stats
    ]

    def per_run(runs: int) -> int:
        for hook in hooks:
            hook.remove()
        return sum(calls.values()) // runs

    return per_run


def _run(module: torch.nn.Module, inputs: Tensors) -> dict[str, torch.Tensor]:
    """The outputs by name. Raises UserError where the module does not take the inputs or returns something else than
    tensors.
    """
    shapes = " and ".join("×".join(map(str, tensor.shape)) for tensor in inputs)
    try:
        found = module(*inputs)
    except RAISED as error:
        raise UserError(
            f"the module does not take an input of {shapes}: {type(error).__name__}: {first_line(error)}; "
            "--input gives another shape"
        ) from error
    named = dict(_named(found, ""))
    if not named:
        raise UserError(f"the module returns {type(found).__name__}, in which there is no tensor")
    return named


def _named(found: object, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in what a module returns: dictionaries give their keys, sequences numbers, a tensor alone is the
    logits.
    """
    if isinstance(found, torch.Tensor):
        yield name or "logits", found
    elif isinstance(found, Mapping):
        for key, value in found.items():
            yield from _named(value, f"{name}_{key}" if name else str(key))
    elif isinstance(found, (list, tuple)):
        for i, value in enumerate(found):
            yield from _named(value, f"{name or 'output'}_{i}" if len(found) > 1 else name)
    elif found is not None:
        raise UserError(
            f"the module returns {type(found).__name__}; a seed returns tensors, or dictionaries and lists of them"
        )


def _reference(module: torch.nn.Module, given: Tensors, names: Sequence[str], batch: int) -> _Reference:
    """Measured on the opposite of what is traced, so that a choice that the data makes shows."""
    inputs = tuple(-tensor if tensor.is_floating_point() else tensor for tensor in _batch(given, batch))
    feeds = dict(zip(names, (_array(tensor) for tensor in inputs), strict=True))
    run = _watched if batch == WATCHED_BATCH else _unwatched
    outputs, inner = run(module, inputs)
    if not all(np.isfinite(value).all() for value in outputs.values() if value.dtype.kind == "f"):
        raise UserError("the module computes infinities or NaN for standard normal noise; are its weights whole?")
    again, _ = _unwatched(module, inputs)
    if max(distance(outputs[name], again[name]) for name in outputs) > TOLERANCE:
        raise UserError(
            "the module computes something else each time it runs, even in eval mode; a seed is a function of its input"
        )
    moved = tuple(
        torch.from_numpy(array).to(tensor) for array, tensor in zip(nudged(feeds).values(), inputs, strict=True)
    )
    moved_outputs, moved_inner = run(module, moved)
    pairs = [(f"output {name}", value, moved_outputs[name]) for name, value in outputs.items()]
    pairs += [(name, value, moved_inner[name]) for name, value in inner.items()]
    return _Reference(batch, feeds, outputs, inner, {name: _tolerance(value, other) for name, value, other in pairs})


def _tolerance(values: np.ndarray, moved: np.ndarray) -> float:
    return max(HALF_TOLERANCE if values.dtype == np.float16 else TOLERANCE, ROUNDING_FACTOR * distance(values, moved))


Values = dict[str, np.ndarray]

WATCHED = (
    torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d,
    torch.nn.ConvTranspose3d, torch.nn.Linear, torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d,
)  # fmt: skip
WATCHED_OPS = CONVOLUTIONS | {"Gemm", "BatchNormalization"}


def _watched(module: torch.nn.Module, inputs: Tensors) -> tuple[Values, Values]:
    """The outputs, and what each part of a WATCHED class (no subclass: it may do more) makes that runs exactly once."""
    found: dict[str, list[np.ndarray]] = {}

    def keep(name: str, made: torch.Tensor) -> None:
        found.setdefault(name, []).append(_array(made).copy())  # an activation in place would change it

    hooks = [
        part.register_forward_hook(lambda _part, _inputs, made, name=name: keep(name, made))
        for name, part in module.named_modules()
        if type(part) in WATCHED
    ]
    try:
        outputs, _ = _unwatched(module, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs, {name: values[0] for name, values in found.items() if len(values) == 1}


def _unwatched(module: torch.nn.Module, inputs: Tensors) -> tuple[Values, Values]:
    """The outputs alone."""
    return {name: _array(value) for name, value in _run(module, inputs).items()}, {}


def _array(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        raise UserError("the module computes in bfloat16, which numpy lacks; export it after module.float()")
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


# --- torch's exporters --------------------------------------------------------------------------


def _exported(task: _Task) -> Exported:
    """The first exporter's result that computes what the module does."""
    failures: list[str] = []
    for name, (convert, low, high) in EXPORTERS.items():
        if not low <= task.opset <= high:
            continue
        try:
            with _quiet():
                proto = convert(task)
        except RAISED as error:
            failures.append(f"{name}: {_cause(error)}")
            continue
        try:
            return _check(proto, task, name)
        except RefusedModel as error:
            failures.append(f"{name}: {error}")
    raise RefusedModel(f"torch cannot export this module in opset {task.opset} ({'; '.join(failures)})")


@contextmanager
def _quiet() -> Iterator[None]:
    """Within it, torch's exporters neither warn, nor log, nor print: what they say is about their own insides."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    unheard = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(unheard), redirect_stderr(unheard), _native_output_dropped():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def _native_output_dropped() -> Iterator[None]:
    """Within it, what native code writes to standard output is dropped; one exporter writes its graph there when it
    fails.
    """
    flush = ctypes.CDLL(None).fflush
    flush(None)
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    try:
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)


def _cause(error: BaseException) -> str:
    """The innermost reason; exporters wrap it in general words."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(error)}"


def _traced(task: _Task) -> onnx.ModelProto:
    """By the tracing exporter."""
    buffer = io.BytesIO()
    torch.onnx.export(
        task.module,
        task.example,
        buffer,  # type: ignore[arg-type]  # this exporter takes a stream
        dynamo=False,
        opset_version=task.opset,
        input_names=list(task.inputs),
        output_names=list(task.outputs),
        dynamic_axes={name: {0: BATCH} for name in (*task.inputs, *task.outputs)},
        training=torch.onnx.TrainingMode.PRESERVE,  # the module is in eval mode; EVAL would fold BatchNorm
        do_constant_folding=False,  # a parameter stays one
    )
    return onnx.load_model_from_string(buffer.getvalue())


def _through_export(task: _Task) -> onnx.ModelProto:
    """By the exporter that goes through torch.export."""
    import onnxscript.optimizer

    program = torch.onnx.export(
        task.module,
        task.example,
        dynamo=True,
        opset_version=task.opset,
        input_names=list(task.inputs),
        output_names=list(task.outputs),
        dynamic_shapes=tuple({0: torch.export.Dim(BATCH)} for _ in task.inputs),
        optimize=False,  # it would fold BatchNorm
        verbose=False,
    )
    assert program is not None
    # it writes splits as sequences: these go
    onnxscript.optimizer.fold_constants(program.model, should_fold=lambda _: False)
    proto: onnx.ModelProto = program.model_proto
    return proto


EXPORTERS: Mapping[str, tuple[Callable[[_Task], onnx.ModelProto], int, int]] = {
    "torch.onnx, traced": (_traced, 9, 20),
    "torch.onnx, torch.export": (_through_export, 18, 23),
}
"""Name → function, lowest and highest opset it writes; in the order tried."""

LOWEST = min(low for _, low, _ in EXPORTERS.values())
HIGHEST = max(high for _, _, high in EXPORTERS.values())


# --- checked against the module -----------------------------------------------------------------


def _check(proto: onnx.ModelProto, task: _Task, exporter: str) -> Exported:
    """The tidy model. Raises RefusedModel where a BatchNorm is gone, or ONNX Runtime computes something else than the
    module.
    """
    with temporary() as folder:
        raw, mended = folder / "raw.onnx", folder / "mended.onnx"
        _save(proto, raw)
        model = tidy(files.read(raw), _origin(task.module), _shapes(task))
        seen = view(model.graph)
        norms = sum(node.op == "BatchNormalization" for node in seen.nodes)
        if norms < task.norms:
            raise RefusedModel(f"only {norms} of {task.norms} BatchNorms are left")
        files.write(model, mended)
        drifts = tuple((reference.batch, _drift(mended, reference)) for reference in task.references)
    inner, compared = _inner_drift(model.graph, seen, task.references[0])
    params, notes = _used(task.module, seen)
    return Exported(
        model=model,
        exporter=exporter,
        norms=norms,
        params=params,
        drifts=drifts,
        inner=inner,
        compared=compared,
        notes=notes,
    )


def _used(module: torch.nn.Module, seen: View) -> tuple[int, tuple[str, ...]]:
    """How many numbers the parameters in the graph have, and a note where others are left out."""
    own = dict(module.named_parameters(remove_duplicate=False))
    kept = {id(parameter): parameter.numel() for name, parameter in own.items() if name in seen.constants}
    left = [name for name, parameter in own.items() if id(parameter) not in kept]
    note = (
        f"{len(left)} parameters of the module take no part in its forward pass and are left out, as '{left[0]}'"
        if left
        else ""
    )
    return sum(kept.values()), (note,) if note else ()


def _save(proto: onnx.ModelProto, path: Path) -> None:
    large = proto.ByteSize() > wire.LIMIT
    onnx.save(proto, path, save_as_external_data=large)


def _drift(path: Path, reference: _Reference) -> float:
    """How far ONNX Runtime is from the module, the worst over the outputs. Raises RefusedModel where that is more than
    rounding.
    """
    return _require_near(reference, "output ", _output_distances, path, reference)


def _inner_drift(graph: gs.Graph, seen: View, reference: _Reference) -> tuple[float, int]:
    """The same for what parts of the module make inside, and how many were compared: outputs alone are a poor
    witness.
    """
    tensors = {
        node.name: node.outputs[0] for node in seen.nodes if node.op in WATCHED_OPS and node.name in reference.inner
    }
    if not tensors:
        return 0.0, 0
    return _require_near(reference, "", _inner_distances, graph, tensors, reference), len(tensors)


def _require_near(
    reference: _Reference, kind: str, measure: Callable[..., dict[str, float]], *arguments: object
) -> float:
    """The worst of the distances that are measured in a child process; each must be within its tolerance."""
    try:
        drifts = isolate.run(measure, *arguments, seconds=CHECK_SECONDS, memory=16 * isolate.GIB)
    except isolate.Died as error:
        raise RefusedModel(f"ONNX Runtime died on the result at batch {reference.batch}: {error}") from error
    for name, drift in drifts.items():
        tolerance = reference.tolerances[f"{kind}{name}"]
        if not drift <= tolerance:
            far = "has another shape or is not finite" if drift == float("inf") else f"is {drift:.1e} of its spread off"
            raise RefusedModel(
                f"{kind or 'the output of '}'{name}' {far} at batch {reference.batch} (tolerance {tolerance:.0e})"
            )
    return max(drifts.values())


def _output_distances(path: Path, reference: _Reference) -> dict[str, float]:
    """In the child: how far each output of the model is from the module's."""
    from fnatool.runtime.verify import outputs

    found = outputs(path, reference.feeds)
    return {name: distance(values, found[name]) for name, values in reference.outputs.items()}


def _inner_distances(graph: gs.Graph, tensors: Mapping[str, str], reference: _Reference) -> dict[str, float]:
    """In the child: how far the tensors (path of a part → tensor) are from what the parts make."""
    from fnatool.runtime.verify import Inner

    found = Inner(graph, list(tensors.values()), "it").run(reference.feeds, list(tensors.values()))
    return {name: distance(reference.inner[name], found[tensor]) for name, tensor in tensors.items()}


def _origin(module: torch.nn.Module) -> ModuleOrigin:
    paths = frozenset(name for name, _ in module.named_modules())
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    buffers = {name for name, _ in module.named_buffers(remove_duplicate=False)}
    return ModuleOrigin(type(module).__name__, paths, frozenset(parameters | buffers), torch.__version__)


def _shapes(task: _Task) -> dict[str, Sizes]:
    """Of inputs and outputs: N where the batch is, the size where it does not follow the batch, else a name of its
    own.
    """
    one, other = task.references
    first, second = ({**reference.feeds, **reference.outputs} for reference in (one, other))
    return {
        name: [
            a if a == b else BATCH if (a, b) == (one.batch, other.batch) else f"{name}_{axis}"
            for axis, (a, b) in enumerate(zip(values.shape, second[name].shape, strict=True))
        ]
        for name, values in first.items()
    }
