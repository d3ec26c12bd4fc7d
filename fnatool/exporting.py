"""A torch module as a seed: exported by torch, put into readable form, and checked against the module in ONNX Runtime.

torch has two exporters. The tracing one writes the cleaner graph and runs first; where it fails, or its graph does not compute what the
module does, the newer one has its turn. Both are asked to leave BatchNorm alone: a folded network trains badly.
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from fnatool import files, isolate, wire
from fnatool.distance import HALF_TOLERANCE, ROUNDING_FACTOR, TOLERANCE, distance, nudged
from fnatool.sources import CHANNELS, RAISED, SIDE, first_line
from passes.errors import RefusedModel, UserError
from passes.normalise import normalise
from passes.view import CORE_DOMAINS, Node, View, unique, view

SOURCE_KEY = "fnatool.source"
OPSET = 18
BATCH = "N"
TRACED_BATCH = 2  # 1 may be taken for a constant
CHECKED_BATCHES = (1, 3)
RUNS = 3  # of the module per batch: its values, again, and with inputs moved by a rounding error
CHECK_SECONDS = 600

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Exported:
    """A finished export: the model, which of torch's exporters made it, how many BatchNorms it keeps, and how far it drifts.

    `drifts` holds (batch size, max |ONNX Runtime − torch| relative to the spread of torch's values), the worst over all outputs.
    """

    model: files.Model
    exporter: str
    norms: int
    params: int
    drifts: tuple[tuple[int, float], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Task:
    """What is exported: the module, an input of TRACED_BATCH, the names of inputs and outputs, and what the module computes."""

    module: torch.nn.Module
    example: Tensors
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    references: tuple[_Reference, ...]
    norms: int  # BatchNorms that one pass runs through


@dataclass(frozen=True)
class _Reference:
    """Inputs of one batch size, and what the module makes of them; `rounding` is how far that moves when they move by a rounding error."""

    batch: int
    feeds: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]
    rounding: float


def export(
    module: torch.nn.Module,
    path: Path | str,
    *,
    example: torch.Tensor | Tensors | None = None,
    opset: int = OPSET,
    source: Mapping[str, object] | None = None,
    force: bool = False,
) -> Exported:
    """The file at path is the module in eval mode as ONNX, with BatchNorm kept and a free batch axis, and computes what the module does.

    example: an input, or a tuple of them, batch first (default 1×3×224×224); source: more for the metadata. Nodes are named after modules,
    initializers as in the state_dict. Raises UserError for an input the module does not take, RefusedModel where torch cannot export it or
    the result is further than 1e-4 of the spread from the module.
    """
    path = Path(path)
    files.require_writable(path, force=force)
    if not LOWEST <= opset <= HIGHEST:
        raise UserError(f"opset {opset} is not one that torch writes; choose {LOWEST} to {HIGHEST} ({OPSET} is usual)")
    with _in_eval(module), torch.no_grad():
        task = _task(module, example, opset)
        made = _exported(task)
    metadata = {**(source or {"source": type(module).__qualname__}), "torch": torch.__version__, "exporter": made.exporter}
    files.write(made.model, path, force=force, metadata={SOURCE_KEY: json.dumps(metadata)})
    return made


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


# --- what the module takes and computes -------------------------------------------------------------------------------------------------


def _task(module: torch.nn.Module, example: torch.Tensor | Tensors | None, opset: int) -> _Task:
    given = _like_module(module, example)
    names = ("input",) if len(given) == 1 else tuple(f"input_{i}" for i in range(len(given)))
    norms = _counting(module)
    outputs = _run(module, _batch(given, TRACED_BATCH))
    references = tuple(_reference(module, given, names, batch) for batch in CHECKED_BATCHES)
    return _Task(module, _batch(given, TRACED_BATCH), names, tuple(outputs), opset, references, norms(len(references) * RUNS + 1))


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
    """Counts the calls of BatchNorms in the module from here on; the function returned stops it and gives the calls per run."""
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
    """The outputs by name. Raises UserError where the module does not take the inputs or returns something else than tensors."""
    shapes = " and ".join("×".join(map(str, tensor.shape)) for tensor in inputs)
    try:
        found = module(*inputs)
    except RAISED as error:
        raise UserError(
            f"the module does not take an input of {shapes}: {type(error).__name__}: {first_line(error)}; --input gives another shape"
        ) from error
    named = dict(_named(found, ""))
    if not named:
        raise UserError(f"the module returns {type(found).__name__}, in which there is no tensor")
    return named


def _named(found: object, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in what a module returns: dictionaries give their keys, sequences numbers, a tensor alone is the logits."""
    if isinstance(found, torch.Tensor):
        yield name or "logits", found
    elif isinstance(found, Mapping):
        for key, value in found.items():
            yield from _named(value, f"{name}_{key}" if name else str(key))
    elif isinstance(found, (list, tuple)):
        for i, value in enumerate(found):
            yield from _named(value, f"{name or 'output'}_{i}" if len(found) > 1 else name)
    elif found is not None:
        raise UserError(f"the module returns {type(found).__name__}; a seed returns tensors, or dictionaries and lists of them")


def _reference(module: torch.nn.Module, given: Tensors, names: Sequence[str], batch: int) -> _Reference:
    """Measured on the opposite of what is traced, so that a choice that the data makes shows."""
    inputs = tuple(-tensor if tensor.is_floating_point() else tensor for tensor in _batch(given, batch))
    feeds = dict(zip(names, (_array(tensor) for tensor in inputs), strict=True))
    values = {name: _array(value) for name, value in _run(module, inputs).items()}
    moved = tuple(torch.from_numpy(array).to(tensor) for array, tensor in zip(nudged(feeds).values(), inputs, strict=True))
    after = {name: _array(value) for name, value in _run(module, moved).items()}
    if not all(np.isfinite(value).all() for value in values.values() if value.dtype.kind == "f"):
        raise UserError("the module computes infinities or NaN for standard normal noise; are its weights whole?")
    again = {name: _array(value) for name, value in _run(module, inputs).items()}
    if max(distance(values[name], again[name]) for name in values) > TOLERANCE:
        raise UserError("the module computes something else each time it runs, even in eval mode; a seed is a function of its input")
    return _Reference(batch, feeds, values, ROUNDING_FACTOR * max(distance(values[name], after[name]) for name in values))


def _array(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        raise UserError("the module computes in bfloat16, which numpy lacks; export it after module.float()")
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


# --- torch's exporters ------------------------------------------------------------------------------------------------------------------


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
            return _checked(proto, task, name)
        except RefusedModel as error:
            failures.append(f"{name}: {error}")
    raise RefusedModel(f"torch cannot export this module in opset {task.opset} ({'; '.join(failures)})")


@contextmanager
def _quiet() -> Iterator[None]:
    """Within it, torch's exporters neither warn nor log: what they say is about their own insides."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


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
    onnxscript.optimizer.fold_constants(program.model, should_fold=lambda _: False)  # it writes splits as sequences: these go
    proto: onnx.ModelProto = program.model_proto
    return proto


EXPORTERS: Mapping[str, tuple[Callable[[_Task], onnx.ModelProto], int, int]] = {
    "torch.onnx, traced": (_traced, 9, 20),
    "torch.onnx, torch.export": (_through_export, 18, 23),
}
"""Name → function, lowest and highest opset it writes; in the order tried."""

LOWEST = min(low for _, low, _ in EXPORTERS.values())
HIGHEST = max(high for _, _, high in EXPORTERS.values())


# --- checked against the module ---------------------------------------------------------------------------------------------------------


def _checked(proto: onnx.ModelProto, task: _Task, exporter: str) -> Exported:
    """The tidy model. Raises RefusedModel where a BatchNorm is gone, or ONNX Runtime computes something else than the module."""
    with tempfile.TemporaryDirectory() as folder:
        raw, tidy = Path(folder) / "raw.onnx", Path(folder) / "tidy.onnx"
        _save(proto, raw)
        model = _tidy(files.read(raw), task)
        files.write(model, tidy)
        seen = view(model.graph)
        norms = sum(node.op == "BatchNormalization" for node in seen.nodes)
        if norms < task.norms:
            raise RefusedModel(f"only {norms} of {task.norms} BatchNorms are left")
        drifts = tuple((reference.batch, _drift(tidy, reference)) for reference in task.references)
    own = dict(task.module.named_parameters(remove_duplicate=False))
    unused = [
        name for name in own if name not in seen.constants and not any(own[name] is own[other] for other in seen.constants if other in own)
    ]
    notes: tuple[str, ...] = ()
    if unused:
        notes = (f"{len(unused)} parameters of the module take no part in its forward pass and are left out, as '{unused[0]}'",)
    return Exported(model, exporter, norms, sum(own[name].numel() for name in seen.constants if name in own), drifts, notes)


def _save(proto: onnx.ModelProto, path: Path) -> None:
    large = proto.ByteSize() > wire.LIMIT
    onnx.save(proto, path, save_as_external_data=large)


def _drift(path: Path, reference: _Reference) -> float:
    """How far ONNX Runtime is from the module, the worst over the outputs. Raises RefusedModel where that is more than rounding."""
    try:
        drifts = isolate.run(_distances, path, reference.feeds, reference.values, seconds=CHECK_SECONDS, memory=16 * isolate.GIB)
    except isolate.Died as error:
        raise RefusedModel(f"ONNX Runtime died on the result at batch {reference.batch}: {error}") from error
    name = max(drifts, key=lambda key: drifts[key])
    tolerance = HALF_TOLERANCE if reference.values[name].dtype == np.float16 else TOLERANCE
    if not drifts[name] <= max(tolerance, reference.rounding):
        far = "has another shape or is not finite" if drifts[name] == float("inf") else f"is {drifts[name]:.1e} of its spread off"
        raise RefusedModel(f"output '{name}' {far} at batch {reference.batch} (tolerance {tolerance:.0e})")
    return drifts[name]


def _distances(path: Path, feeds: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> dict[str, float]:
    """In the child: how far each output of the model is from what is expected."""
    from fnatool.verify import outputs

    found = outputs(path, feeds)
    return {name: distance(values, found[name]) for name, values in expected.items()}


# --- readable -------------------------------------------------------------------------------------------------------------------------


def _tidy(model: files.Model, task: _Task) -> files.Model:
    """The same network: parameters under their own names, sizes as numbers, nodes named after modules, and none of the exporter's notes."""
    parameters = {name for name, _ in task.module.named_parameters(remove_duplicate=False)}
    parameters |= {name for name, _ in task.module.named_buffers(remove_duplicate=False)}
    graph = _simplified(model.graph, parameters)
    _rename(graph, _paths(graph, model.envelope, task.module), parameters, {*task.inputs, *task.outputs})
    _declare(graph, task)
    envelope = onnx.ModelProto(ir_version=model.envelope.ir_version, producer_name="pytorch", producer_version=torch.__version__)
    used = {node.domain or "" for node in graph.nodes}
    envelope.opset_import.extend(entry for entry in model.envelope.opset_import if entry.domain in used)
    graph.import_domains = list(envelope.opset_import)
    envelope.graph.name = type(task.module).__name__
    return replace(model, graph=graph, envelope=envelope, data=(), notes=())


def _simplified(graph: gs.Graph, parameters: set[str]) -> gs.Graph:
    """In normal form, except that nothing is computed from parameters beforehand: they stay as the module has them, to be trained."""
    _untie(graph, parameters)
    constants = {t.name: t for node in graph.nodes for t in node.inputs if isinstance(t, gs.Constant) and t.name in parameters}
    inputs = {name: gs.Variable(name, constant.dtype, list(constant.shape)) for name, constant in constants.items()}
    _exchange(graph, inputs)
    graph.inputs.extend(inputs.values())
    graph = normalise(graph).graph
    graph.inputs = [tensor for tensor in graph.inputs if tensor.name not in constants]
    _exchange(graph, {name: gs.Constant(name, constant.values) for name, constant in constants.items()})
    _drop_zero_biases(graph, parameters)
    _mark_pads(graph)
    return graph


def _drop_zero_biases(graph: gs.Graph, parameters: set[str]) -> None:
    """One exporter writes a bias of zeros where the module has none."""
    for node in graph.nodes:
        has_bias = node.op in ("Conv", "ConvTranspose") and len(node.inputs) > 2
        if has_bias and node.inputs[2].name not in parameters and _is_zero(node.inputs[2]):
            node.inputs.pop()


def _mark_pads(graph: gs.Graph) -> None:
    """A zero padded in front of a MaxPool is −0: the same number, but +0 makes ONNX Runtime fuse it into padding by −∞."""
    pooled = {node.inputs[0].name for node in graph.nodes if node.op == "MaxPool"}
    for node in graph.nodes:
        if node.op != "Pad" or node.outputs[0].name not in pooled or len(node.inputs) < 2:
            continue
        value = node.inputs[2] if len(node.inputs) > 2 else gs.Variable.empty()
        if node.attrs.get("mode", "constant") != "constant" or (value.name and not _is_zero(value)):
            continue
        minus = gs.Constant(f"{node.name}/minus_zero", np.array(-0.0, value.values.dtype if value.name else np.float32))
        if len(node.inputs) > 2:
            node.inputs[2] = minus
        else:
            node.inputs.append(minus)


def _is_zero(tensor: gs.Tensor) -> bool:
    return isinstance(tensor, gs.Constant) and not np.any(tensor.values)


def _untie(graph: gs.Graph, parameters: set[str]) -> None:
    """Parameters of equal values are several again: the tracing exporter keeps one and passes it on through Identity."""
    own: dict[str, gs.Tensor] = {}
    for node in graph.nodes:
        name = node.outputs[0].name if node.outputs else ""
        if node.op == "Identity" and name in parameters and isinstance(node.inputs[0], gs.Constant):
            own[name] = gs.Constant(name, node.inputs[0].values)
    _exchange(graph, own)
    graph.nodes[:] = [node for node in graph.nodes if not (node.outputs and node.outputs[0].name in own)]


def _exchange(graph: gs.Graph, tensors: Mapping[str, gs.Tensor]) -> None:
    """Every node reads the tensors given in place of those of their names."""
    for node in graph.nodes:
        for slot, tensor in enumerate(node.inputs):
            if tensor.name in tensors:
                node.inputs[slot] = tensors[tensor.name]


def _paths(graph: gs.Graph, envelope: onnx.ModelProto, module: torch.nn.Module) -> dict[str, str]:
    """Node name → the path of the module that made it, '' for the outermost."""
    modules = {name for name, _ in module.named_modules()}
    scopes = {stub.name: entry.value for stub in envelope.graph.node for entry in stub.metadata_props if entry.key == SCOPES}
    found = {}
    for node in graph.nodes:
        if node.name in scopes:
            names = [name for name in _strings(scopes[node.name]) if name in modules]
            found[node.name] = names[-1] if names else ""
        else:
            found[node.name] = _path_of_scope(node.name.split("/")[1:-1], modules)
    return found


SCOPES = "pkg.torch.onnx.name_scopes"


def _strings(text: str) -> list[str]:
    """The strings in a list written as Python does."""
    return text.replace('"', "'").split("'")[1::2]


def _path_of_scope(parts: Sequence[str], modules: set[str]) -> str:
    """The path of /layer1/layer1.0/conv1: each part continues the path before it, or that of a container further out."""
    path = ""
    for part in parts:
        outer = path
        while (joined := f"{outer}.{part}" if outer else part) not in modules:
            if not outer:
                return path
            outer = outer.rpartition(".")[0]
        path = joined
    return path


def _rename(graph: gs.Graph, paths: Mapping[str, str], parameters: set[str], ends: set[str]) -> None:
    """Nodes are named after their modules, what they compute after them, constants after their place; parameters keep their names."""
    seen = view(graph)
    names = _node_names(seen, paths, parameters)
    taken = ends | parameters
    renamed: dict[str, str] = {}
    for node in seen.nodes:
        for k, tensor in enumerate(node.outputs):
            if tensor and tensor not in ends:
                renamed[tensor] = unique(f"{names[node.name]}/out" + (f"_{k}" if k else ""), taken.__contains__)
                taken.add(renamed[tensor])
        for slot, tensor in enumerate(node.inputs):
            if tensor in seen.constants and tensor not in taken and tensor not in renamed:
                renamed[tensor] = unique(f"{names[node.name]}.{_slot_name(node, slot, seen)}", taken.__contains__)
                taken.add(renamed[tensor])
    tensors = {id(tensor): tensor for node in graph.nodes for tensor in (*node.inputs, *node.outputs)}
    for tensor in tensors.values():
        tensor.name = renamed.get(tensor.name, tensor.name)
    for node in graph.nodes:
        node.name = names[node.name]


def _node_names(seen: View, paths: Mapping[str, str], parameters: set[str]) -> dict[str, str]:
    """A module's path for the node that carries it out; for others the path and what they do: `layer1.0.add`, `layers.2.gamma`."""
    inside = Counter(paths.values())
    leaves = {path for path in inside if not any(other.startswith(f"{path}.") for other in inside)}
    behind = _parameters_behind(seen, parameters)
    names: dict[str, str] = {}
    taken: set[str] = set()
    for node in seen.nodes:
        path = paths[node.name]
        own = [name for name in node.inputs if name in parameters and name.rpartition(".")[0] == path]
        on_data = node.outputs[0] not in behind
        reads = {name for tensor in node.inputs for name in behind.get(tensor, ())} if on_data else set()
        if path and (any(f"{path}.{part}" in reads for part in MAIN) or (inside[path] == 1 and path in leaves)):
            name = path
        elif own and on_data:
            name = own[0]
        else:
            name = ".".join(filter(None, (path, node.op.rpartition("::")[2].lower())))
        names[node.name] = unique(name, taken.__contains__)
        taken.add(names[node.name])
    return names


MAIN = ("weight", "running_mean")  # what reads one of these is what the module is for


def _parameters_behind(seen: View, parameters: set[str]) -> dict[str, frozenset[str]]:
    """Every tensor that is computed without the network's inputs → the parameters in it."""
    behind = {name: frozenset({name} & parameters) for name in seen.constants}
    for node in seen.nodes:
        known = [behind.get(name) for name in node.inputs if name]
        if all(names is not None for names in known):
            names = frozenset().union(*(names for names in known if names is not None))
            behind |= {name: names for name in node.outputs if name}
    return behind


def _slot_name(node: Node, slot: int, seen: View) -> str:
    """What the operator calls this input."""
    domain, _, op = node.op.rpartition("::")
    if domain in CORE_DOMAINS and onnx.defs.has(op, seen.opset, ""):
        slots = onnx.defs.get_schema(op, seen.opset, "").inputs
        if slot < len(slots):
            return str(slots[slot].name).lower()
    return f"input{slot}"


def _declare(graph: gs.Graph, task: _Task) -> None:
    """The shapes of inputs and outputs: N where the batch is, sizes where they do not follow it."""
    one, other = task.references
    for tensor in (*graph.inputs, *graph.outputs):
        name = tensor.name
        shapes = [(*r.feeds.items(), *r.values.items()) for r in (one, other)]
        first, second = (dict(pairs)[name].shape for pairs in shapes)
        tensor.shape = [
            a if a == b else BATCH if (a, b) == (one.batch, other.batch) else f"{name}_{axis}"
            for axis, (a, b) in enumerate(zip(first, second, strict=True))
        ]
