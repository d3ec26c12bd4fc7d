"""A model read from a file and analysed, with what its metadata says of its stages and its Spec."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx

from fnatool import specs
from fnatool.files import documents
from fnatool.files import model as files
from fnatool.runtime import isolate
from passes.channels.rules.table import RULES
from passes.errors import RefusedModel, UserError
from passes.graph.tensors import Shape
from passes.graph.view import nodes_of
from passes.network.analyse import analyse
from passes.network.analysis import Analysis
from passes.network.knobs import BATCH, CHANNELS, IMAGE, STRIDE
from passes.network.profile import Profile, profile
from passes.target.apply import apply
from passes.target.planner import plan
from passes.target.resolve import differences, own_spec, resolve
from passes.target.spec import Spec, parse

STAGES_KEY = "fnatool.stages"
SPEC_KEY = "fnatool.spec"
REHEARSAL_SECONDS = 30
USUAL = RULES.keys() | {"Constant"}  # operators whose shape inference `make fuzz` knows well


def analyse_model(model: files.Model, inputs: Mapping[str, Shape] | None = None) -> Analysis:
    """The analysis of a model read from a file, with the stages its metadata stores. Raises RefusedModel and UserError
    as analyse does.
    """
    table = stored_stages(model.envelope)

    def look() -> object:
        found = analyse(model.graph, sizes=inputs, table=table)
        return found.image.why, found.batching.why, found.colours.why  # which asks at another size, too

    rehearse(model, look)
    return analyse(model.graph, sizes=inputs, table=table)


def rehearse(model: files.Model, look: Callable[[], object]) -> None:
    """Where a model has operators whose shape inference few have ever run, `look` is called in a child process first.

    Raises RefusedModel where that dies, and what look raises there.
    """
    if all(node.op in USUAL for node in nodes_of(model.graph)):
        return
    try:
        isolate.run(lambda: (look(), None)[1], seconds=REHEARSAL_SECONDS, memory=4 * isolate.GIB)
    except isolate.Died as error:
        raise RefusedModel(
            f"shape inference died on this model: {error}; 'fnatool check' lists what is wrong with it"
        ) from error


def profile_model(
    model: files.Model, inputs: Mapping[str, Shape] | None = None, *, convention: str = "conv"
) -> Profile:
    """The profile of a model read from a file, with the stages its metadata stores."""
    return profile(model.graph, sizes=inputs, table=stored_stages(model.envelope), convention=convention)


def stored_stages(envelope: onnx.ModelProto) -> list[list[dict[str, str]]] | None:
    """The stage table in the model's metadata; None where there is none or it is not one (then stages are found
    anew).
    """
    text = metadata(envelope).get(STAGES_KEY)
    if text is None:
        return None
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        return None
    keys = {"kind", "entry", "exit", "merge"}
    rows = (
        [row for stage in table for row in stage]
        if isinstance(table, list) and all(isinstance(s, list) and s for s in table)
        else None
    )
    if not rows or any(
        not isinstance(row, dict) or set(row) != keys or not all(isinstance(v, str) for v in row.values())
        for row in rows
    ):
        return None
    return table  # type: ignore[no-any-return]


def metadata(envelope: onnx.ModelProto) -> dict[str, str]:
    """The model's metadata as a dictionary."""
    return {entry.key: entry.value for entry in envelope.metadata_props}


def read_spec(path: Path) -> Spec:
    """The Spec in a JSON file. Raises UserError where there is none."""
    try:
        document = documents.read(path)
    except FileNotFoundError as error:
        bundled = f"bundled are {', '.join(specs.NAMES)}"
        own = f"'fnatool inspect MODEL --spec > {path.name}' writes one to edit"
        raise UserError(f"there is no spec '{path}'; {own}; {bundled}") from error
    except OSError as error:
        raise UserError(f"'{path}' cannot be read as a spec: {error.strerror}") from error
    try:
        return parse(document)
    except UserError as error:
        raise UserError(f"'{path}': {error}") from error


def spec_of(spec: Spec | Mapping[str, object] | Path | str) -> Spec:
    """The Spec itself, of its JSON document, or in the file of that path. Raises UserError where it is none."""
    if isinstance(spec, Path | str):
        return read_spec(Path(spec))
    return spec if isinstance(spec, Spec) else parse(spec)


def require_seed(spec: Spec, model: files.Model) -> None:
    """A spec that names its seed is for that seed."""
    if spec.seed is not None and spec.seed != f"sha256:{model.sha256}":
        other = f"{spec.seed[:19]}…, '{model.path}' is sha256:{model.sha256[:12]}…"
        raise UserError(f"this spec was made for another seed ({other}); remove its 'seed' to use it all the same")


@dataclass(frozen=True)
class Analysed:
    """A model and its analysis, which is made when it is first asked for, once; `inputs` are shapes, perhaps for other
    models too.
    """

    model: files.Model
    inputs: Mapping[str, Shape]

    @cached_property
    def sizes(self) -> dict[str, Shape]:
        """Those of the shapes that the model's inputs can have: another model may fix another size."""
        found = {}
        for tensor in self.model.graph.inputs:
            shape = self.inputs.get(tensor.name)
            if shape is None:
                continue
            stated = tuple(tensor.shape or shape)
            if len(stated) == len(shape) and all(
                own == size or not isinstance(own, int) for own, size in zip(stated, shape, strict=True)
            ):
                found[tensor.name] = shape
        return found

    @cached_property
    def analysis(self) -> Analysis:
        """Raises RefusedModel and UserError as analyse does."""
        return analyse_model(self.model, self.sizes)


def realises(
    model: files.Model, spec: Spec | Path, seed: files.Model | None = None, inputs: Mapping[str, Shape] | None = None
) -> list[str]:
    """Where the model is not what the Spec says, one sentence each; none: it realises it. See `unrealised`."""
    of = inputs or {}
    return unrealised(Analysed(model, of), spec_of(spec), None if seed is None else Analysed(seed, of))


def unrealised(model: Analysed, wanted: Spec, seed: Analysed | None) -> list[str]:
    """Where the model is not what the Spec says, one sentence each; none: it realises it.

    With the seed the Spec is resolved first, so that relative values and every unnamed knob are checked too; where
    groups or the channels of the image change, which may split knobs, tie them together or take them away, against the
    knobs that the target has then.
    """
    if seed is None:
        return differences(model.analysis, wanted)
    require_seed(wanted, seed.model)
    resolved = resolve(seed.analysis, wanted)
    if resolved.skeleton is None and resolved.channels == seed.analysis.colours.value:
        return differences(model.analysis, resolved.spec())
    found = plan(seed.analysis, wanted)
    graph = apply(seed.analysis.normal or seed.model.graph, found)
    target = analyse(graph, table=found.table, sizes=model.sizes)
    return differences(model.analysis, own_spec(target))


def declared(seed: Analysed, wanted: Spec) -> Mapping[str, Mapping[int, int | str | None]]:
    """Where inputs and outputs of the Spec's target say another size than the seed's: name → axis → size, no number
    where it is free.
    """
    if not {BATCH, CHANNELS, IMAGE, STRIDE} & set(wanted.knobs):
        return {}
    require_seed(wanted, seed.model)
    return plan(seed.analysis, wanted).declared
