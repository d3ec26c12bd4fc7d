"""Remap a file: read, analyse, plan, apply, verify, write. The order of `fnatool remap`, and the Python API of the same words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from fnatool import documents, files, isolate, seeds, specs
from fnatool.atomic import replacing
from passes.analysis import STRIDE, Analysis, analyse
from passes.blocks import Table
from passes.cost import Cost
from passes.errors import RefusedModel, UserError
from passes.groups import keeps_function, regrouped_shape
from passes.plan import Plan, apply, plan, planned_cost
from passes.rules import RULES
from passes.shapes import Shape, guessing
from passes.spec import IMAGE, Spec, differences, own_spec, parse, resolve
from passes.take import Take

STAGES_KEY = "fnatool.stages"
SPEC_KEY = "fnatool.spec"
VERIFY_SECONDS = 600
REHEARSAL_SECONDS = 30
USUAL = RULES.keys() | {"Constant"}  # operators whose shape inference `make fuzz` knows well


@dataclass(frozen=True)
class Options:
    """How to remap: see `passes.plan`; `inputs` gives shapes for free dimensions, `verify` runs the check of inner values."""

    strategy: str = "fna"
    select: str = "first"
    seed: int = 0
    allow_drift: bool = False
    verify: bool = True
    inputs: Mapping[str, Shape] | None = None


@dataclass(frozen=True)
class Verified:
    """What the comparison of inner values found: worst relative drift, the first tensor beyond the tolerance, how many were compared.

    `whole`: how far the outputs are from the seed's, where the target lacks some of its channels or weights (None: it lacks none).
    """

    worst: float
    first: tuple[str, str, float] | None
    compared: int
    tolerance: float
    exact: bool
    whole: float | None = None
    doubt: str = ""

    @property
    def judged(self) -> str:
        """By what `first` was found to be too far."""
        if self.doubt:
            return f"tolerance {self.tolerance:.0e}; rounding may be why, but double precision cannot tell: {self.doubt}"
        in_double = "" if self.worst == float("inf") else ", and in double precision it drifts too"
        return f"tolerance {self.tolerance:.0e}{in_double}"


@dataclass(frozen=True)
class Remapped:
    """A finished remap: the target's model, the plan that made it, the seed's analysis, and what verification found (None: not run)."""

    model: files.Model
    plan: Plan
    analysis: Analysis
    seed: files.Model
    verified: Verified | None

    def cost(self) -> Cost:
        """Parameters and multiply-adds of the result, at its image size; where that is free, at the size the seed was analysed with."""
        return planned_cost(self.plan, self.analysis)

    def write(self, path: Path | str, *, force: bool = False, beside: Mapping[Path, str] | None = None) -> None:
        """The result as a file, and texts beside it, atomically; the seed itself, byte for byte, where nothing changes."""
        if self.plan.identity:
            copy(self.seed, Path(path), force=force, beside=beside)
            return
        resolved = self.plan.resolved.spec(f"sha256:{self.seed.sha256}").to_json()
        metadata = {STAGES_KEY: json.dumps(self.plan.table), SPEC_KEY: json.dumps(resolved)}
        files.write(self.model, path, force=force, metadata=metadata, origin=self.plan.origin(), beside=beside)


def remap(
    seed: Path | str, spec: Spec | Mapping[str, object] | Path | str, out: Path | str | None = None, *, options: Options | None = None
) -> Remapped:
    """The seed in the shape the spec asks for, with what it knows; written to `out` if given (never over an existing file).

    seed: a path, or the name of the bundled seed; spec: a Spec, its JSON document, the path of one, or the name of a bundled one. Raises
    UserError for a wrong spec or path, RefusedModel for a model that cannot be remapped safely or whose result fails verification.
    """
    options = options or Options()
    model = files.read(seeds.bundled(str(seed)) or seed if not Path(seed).exists() else seed, options.inputs)
    if out is not None:
        files.require_writable(Path(out), force=False, forbid=(model.path, *model.data))
    if isinstance(spec, (Spec, Mapping)):
        made = remap_model(model, spec if isinstance(spec, Spec) else parse(spec), options)
    else:
        path = specs.find(spec)
        with specs.fitting(path):
            made = remap_model(model, read_spec(path), options)
    if out is not None:
        made.write(out)
    return made


def remap_model(model: files.Model, spec: Spec, options: Options) -> Remapped:
    """The same on a model already read."""
    require_seed(spec, model)
    analysis = analyse_model(model, options.inputs)
    found = plan(analysis, spec, strategy=options.strategy, select=options.select, seed=options.seed, allow_drift=options.allow_drift)
    target = replace(model, graph=apply(model.graph, found), notes=())
    verified = None
    if options.verify and not found.identity:
        verified = verify_remap(model, target, analysis, found)
    return Remapped(target, found, analysis, model, verified)


def verify_remap(model: files.Model, target: files.Model, analysis: Analysis, found: Plan) -> Verified:
    """Compare inner values in a child process. Raises RefusedModel where a remap that must be exact is not, naming the first tensor.

    A target for another image size is compared as it would be for the seed's.
    """
    compared = found if found.compared is None else found.compared
    if compared is not found:
        target = replace(target, graph=apply(model.graph, compared))
    try:
        verified = isolate.run(_verify, model, target, analysis, compared, seconds=VERIFY_SECONDS, memory=16 * isolate.GIB)
    except isolate.Died as error:
        raise RefusedModel(f"verification in ONNX Runtime died: {error}; --no-verify writes the result without it") from error
    if verified.worst == float("inf"):
        raise RefusedModel("the result computes infinities or NaN where the seed does not; nothing was written (--no-verify writes it)")
    if verified.exact and verified.first is not None:
        tensor, node, drift = verified.first
        raise RefusedModel(
            f"this remap must be exact but is not: '{tensor}' of node '{node}' is the first to drift, by {drift:.1e} of its spread "
            f"({verified.judged}); nothing was written. Please report it with the model"
        )
    return verified


def _verify(model: files.Model, target: files.Model, analysis: Analysis, found: Plan) -> Verified:
    from fnatool.verify import drift_of_whole, verify

    with guessing(analysis.shapes):
        result = verify(model.graph, target.graph, analysis, found)
        whole = drift_of_whole(model.graph, target.graph, analysis, found) if drops(analysis, found) else None
    first = result.first
    row = None if first is None else (first.tensor, first.node, first.relative)
    return Verified(result.worst, row, len(result.drifts), result.tolerance, result.exact, whole, result.doubt)


def drops(analysis: Analysis, found: Plan) -> bool:
    """Whether the target lacks channels or weights between groups that the seed has."""
    return any(_crops(take, analysis.shapes.shapes[take.source]) for take in found.takes)


def _crops(take: Take, shape: Shape) -> bool:
    groups = take.regroup
    if groups is not None and not keeps_function(groups.seed, groups.target):
        return True
    shape = shape if groups is None else regrouped_shape(shape, groups.seed, groups.ground)
    return any(len(set(along.index[along.index >= 0].tolist())) < shape[axis] for axis, along in take.axes.items())


def analyse_model(model: files.Model, inputs: Mapping[str, Shape] | None = None) -> Analysis:
    """The analysis of a model read from a file, with the stages its metadata stores. Raises RefusedModel and UserError as analyse does."""
    table = stored_stages(model.envelope)
    if any(node.op not in USUAL for node in model.graph.nodes):  # then native code runs that few have ever run: in a child first
        try:
            isolate.run(_rehearse, model, inputs, table, seconds=REHEARSAL_SECONDS, memory=4 * isolate.GIB)
        except isolate.Died as error:
            raise RefusedModel(f"shape inference died on this model: {error}; 'fnatool check' lists what is wrong with it") from error
    return analyse(model.graph, sizes=inputs, table=table)


def _rehearse(model: files.Model, inputs: Mapping[str, Shape] | None, table: Table | None) -> None:
    analyse(model.graph, sizes=inputs, table=table)


def stored_stages(envelope: onnx.ModelProto) -> list[list[dict[str, str]]] | None:
    """The stage table in the model's metadata; None where there is none or it is not one (then stages are found anew)."""
    text = metadata(envelope).get(STAGES_KEY)
    if text is None:
        return None
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        return None
    keys = {"kind", "entry", "exit", "merge"}
    rows = [row for stage in table for row in stage] if isinstance(table, list) and all(isinstance(s, list) and s for s in table) else None
    if not rows or any(not isinstance(row, dict) or set(row) != keys or not all(isinstance(v, str) for v in row.values()) for row in rows):
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


def require_seed(spec: Spec, model: files.Model) -> None:
    """A spec that names its seed is for that seed."""
    if spec.seed is not None and spec.seed != f"sha256:{model.sha256}":
        other = f"{spec.seed[:19]}…, '{model.path}' is sha256:{model.sha256[:12]}…"
        raise UserError(f"this spec was made for another seed ({other}); remove its 'seed' to use it all the same")


def realises(
    model: files.Model, spec: Spec | Path, seed: files.Model | None = None, inputs: Mapping[str, Shape] | None = None
) -> list[str]:
    """Where the model is not what the Spec says, one sentence each; none: it realises it.

    With the seed the Spec is resolved first, so that relative values and every unnamed knob are checked too; where groups change, which may
    split knobs or tie them together, against the knobs that the target has then.
    """
    wanted = read_spec(spec) if isinstance(spec, Path) else spec
    sizes = _fitting(model, inputs)
    if seed is None:
        return differences(analyse_model(model, sizes), wanted)
    require_seed(wanted, seed)
    analysis = analyse_model(seed, _fitting(seed, inputs))
    resolved = resolve(analysis, wanted)
    if resolved.skeleton is None:
        return differences(analyse_model(model, sizes), resolved.spec())
    found = plan(analysis, wanted)
    target = analyse(apply(seed.graph, found), table=found.table, sizes=sizes)
    return differences(analyse_model(model, sizes), own_spec(target))


def _fitting(model: files.Model, inputs: Mapping[str, Shape] | None) -> dict[str, Shape]:
    """Those of the shapes that the model's inputs can have: another model may fix another size."""
    found = {}
    for tensor in model.graph.inputs:
        shape = (inputs or {}).get(tensor.name)
        if shape is None:
            continue
        stated = tuple(tensor.shape or shape)
        if len(stated) == len(shape) and all(own == size or not isinstance(own, int) for own, size in zip(stated, shape, strict=True)):
            found[tensor.name] = shape
    return found


def declared(seed: files.Model, spec: Spec | Path, inputs: Mapping[str, Shape] | None = None) -> Mapping[str, Mapping[int, int]]:
    """Where inputs and outputs of the Spec's target say another size than the seed's: name → axis → size."""
    wanted = read_spec(spec) if isinstance(spec, Path) else spec
    if not {IMAGE, STRIDE} & set(wanted.knobs):
        return {}
    require_seed(wanted, seed)
    return plan(analyse_model(seed, _fitting(seed, inputs)), wanted).declared


def copy(seed: files.Model, path: Path, *, force: bool, beside: Mapping[Path, str] | None = None) -> None:
    """The file at path has the bytes of the seed's, those in `beside` their texts: all of them or, after any failure, none.

    Raises UserError as files.write does, and where the weights lie beside the seed.
    """
    texts = dict(beside or {})
    for place in (path, *texts):
        files.require_writable(place, force=force, forbid=(seed.path, *seed.data))
    if seed.data:
        raise UserError(f"nothing changes, and '{seed.path}' keeps its weights in other files; copy it together with them")
    with replacing(path, *texts, force=force) as (target, *others), seed.path.open("rb") as source:
        for other, text in zip(others, texts.values(), strict=True):
            other.write(text.encode())
        shutil.copyfileobj(source, target)
