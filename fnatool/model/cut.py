"""A part of a model as a model of its own: it ends, and may begin, at other tensors; or the whole of it, brought to
inference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

from fnatool.files import model as files
from fnatool.files.atomic import require_writable
from fnatool.files.interface import SOURCE_KEY, TASK_KEY, Inputs, shape_json
from fnatool.model.analysed import SPEC_KEY, STAGES_KEY, analyse_model, metadata, rehearse
from fnatool.model.headed import HEAD_KEY
from fnatool.model.pixels import GUESS, GUESS_KEY
from fnatool.model.sound import require_sound
from fnatool.model.source import Source, open_model
from fnatool.model.verified import in_child
from fnatool.tasks.table import TASKS, parse_description
from passes.errors import RefusedModel, UserError
from passes.graph.inference import to_inference
from passes.graph.section import section
from passes.graph.shapes import infer
from passes.graph.tensors import Shape
from passes.graph.view import build, records, view
from passes.heads.taps import tap_names
from passes.nearest import nearest
from passes.network.analyse import analyse
from passes.network.analysis import Analysis
from passes.network.stages import table_of_whole


@dataclass(frozen=True, kw_only=True)
class CutOptions:
    """Where the model ends and begins: names of tensors or nodes, or of places like `stage5.exit`; none: where it does.

    `inference` brings Dropout and BatchNormalization that compute as in training to inference. `inputs` gives shapes
    for free dimensions, `verify` compares the outputs with the inner values of the whole and checks the result; `force`
    lets it replace another file.
    """

    outputs: tuple[str, ...] = ()
    new_inputs: tuple[str, ...] = ()
    inference: bool = False
    inputs: Inputs = None
    verify: bool = True
    force: bool = False


@dataclass(frozen=True)
class CutModel:
    """A model that was cut: `changed` nodes were brought to inference, `left` of the `whole` nodes are in it, `notes`
    say what went.
    """

    model: files.Model
    seed: files.Model
    changed: tuple[str, ...]
    left: int
    whole: int
    notes: tuple[str, ...]
    verified: bool

    def to_json(self) -> dict[str, object]:
        """The same, for programs."""
        sides = {"inputs": self.model.graph.inputs, "outputs": self.model.graph.outputs}
        shapes = {
            name: [{"name": one.name, "shape": shape_json(one.shape)} for one in tensors]
            for name, tensors in sides.items()
        }
        return {
            "seed": f"sha256:{self.seed.sha256}",
            **shapes,
            "brought_to_inference": list(self.changed),
            "nodes": {"before": self.whole, "after": self.left},
            "notes": list(self.notes),
            "verified": self.verified,
        }

    def write(self, path: Path | str, *, force: bool = False) -> None:
        """The result as a file, atomically."""
        files.write(self.model, path, force=force)


def cut(model: Source, out: Path | str | None = None, *, options: CutOptions) -> CutModel:
    """The model (a path, the bundled seed's name, or a model in memory) from its new inputs to its new outputs; written
    to `out` if given.

    Names stay; of the metadata stays what is still true. Raises UserError for places that are not there and a file that
    must not be written, RefusedModel for a model that cannot be read or cut, or a result that is not sound.
    """
    if not (options.outputs or options.new_inputs or options.inference):
        raise UserError(
            "say where the model is to end (--outputs) or to begin (--inputs), or bring it to inference (--inference)"
        )
    read, sizes = open_model(model, options.inputs, tolerated={"training-mode"} if options.inference else ())
    if out is not None:
        require_writable(Path(out), force=options.force, forbid=(read.path, *read.data))
    made = _cut(read, sizes, options)
    if out is not None:
        made.write(out, force=options.force)
    return made


@dataclass(frozen=True)
class _Whole:
    """The model that is cut, in inference if asked for, and its analysis, made when it is first asked for."""

    model: files.Model
    sizes: Mapping[str, Shape] | None

    @cached_property
    def analysis(self) -> Analysis:
        """Raises RefusedModel as analyse does."""
        return analyse_model(self.model, self.sizes)


def _cut(read: files.Model, sizes: Mapping[str, Shape] | None, options: CutOptions) -> CutModel:
    brought = to_inference(read.graph) if options.inference else None
    model = read if brought is None else replace(read, graph=brought.graph)
    rehearse(model, lambda: infer(view(model.graph), sizes))
    whole = _Whole(model, sizes)
    ends, starts = (_resolved(names, whole) for names in (options.outputs, options.new_inputs))
    base = _with_tensors((*ends, *starts), whole)
    graph = section(base, ends, starts, sizes=sizes)
    table = _stages(whole, graph)
    about, gone = _metadata(model, graph, table)
    target = files.with_metadata(replace(model, graph=graph, envelope=_envelope(model.envelope, about), notes=()), {})
    if options.verify:
        left = {
            name: shape for name, shape in (sizes or {}).items() if name in {tensor.name for tensor in graph.inputs}
        }
        _require_same(base, graph, sizes)
        require_sound(target, replace(model, graph=base), left)
    notes = [f"output '{name}', which only training has, is gone" for name in (brought.gone if brought else ())]
    before, after = ([tensor.name for tensor in one.inputs] for one in (model.graph, graph))
    notes += [f"input '{name}' is not needed any more" for name in before if name not in after and not starts]
    return CutModel(
        model=target,
        seed=read,
        changed=brought.changed if brought else (),
        left=len(records(graph)[0]),
        whole=len(records(base)[0]),
        notes=(*notes, *gone),
        verified=options.verify,
    )


# --- names --------------------------------------------------------------------------------------


def _resolved(names: Sequence[str], whole: _Whole) -> tuple[str, ...]:
    """The tensors of these names. Raises UserError for a name that is none."""
    seen = view(whole.model.graph)
    return tuple(
        name if name in seen.producer or name in seen.inputs or name in seen.constants else _place(name, whole)
        for name in names
    )


def _place(name: str, whole: _Whole) -> str:
    """The tensor of a place, or the first one that a node makes. Raises UserError where there is no such name."""
    seen = view(whole.model.graph)
    if name in seen.by_name:
        return seen.by_name[name].outputs[0]
    places = tap_names(whole.analysis)
    if name in places:
        return places[name]
    near = nearest(name, [*places, *seen.by_name, *seen.producer])
    meant = f"; did you mean '{near}'?" if near else ";"
    raise UserError(
        f"'{name}' is no tensor, node or place of this model{meant} 'fnatool inspect --taps' lists the places"
    )


def _with_tensors(tensors: Sequence[str], whole: _Whole) -> gs.Graph:
    """The graph where it has these tensors, else its normal form, of which a place may be one."""
    seen = view(whole.model.graph)
    if all(name in seen.producer or name in seen.inputs or name in seen.constants for name in tensors):
        return whole.model.graph
    normal = whole.analysis.view
    return build(normal.nodes, normal.constants, whole.model.graph)


# --- metadata -----------------------------------------------------------------------------------


def _stages(whole: _Whole, graph: gs.Graph) -> list[list[dict[str, str]]]:
    """The table of the stages that are left; none of a model that the analysis refuses, whose nodes have no stages."""
    try:
        stages = whole.analysis.stages
    except RefusedModel:
        return []
    return table_of_whole(stages, {node.name for node in records(graph)[0]})


def _metadata(
    model: files.Model, graph: gs.Graph, table: list[list[dict[str, str]]]
) -> tuple[dict[str, str], list[str]]:
    """What of the metadata is true of a part, and what is gone of it, in words."""
    about, gone = metadata(model.envelope), list[str]()
    about.pop(STAGES_KEY, None)
    if table:
        about[STAGES_KEY] = json.dumps(table)
    begins = [tensor.name for tensor in graph.inputs] == [tensor.name for tensor in model.graph.inputs]
    if TASK_KEY in about and not (begins and _answers(about[TASK_KEY], graph)):
        if begins and about.get(GUESS_KEY) != GUESS:
            about[SOURCE_KEY] = _with_pixels(about.get(SOURCE_KEY), about[TASK_KEY])
        gone.append("it is for no task any more: 'fnatool head' or 'fnatool task' gives it one")
        for key in (TASK_KEY, GUESS_KEY, HEAD_KEY):
            about.pop(key, None)
    if SPEC_KEY in about:
        about[SPEC_KEY] = _spec(about[SPEC_KEY], graph, table)
    if not begins:
        about.pop(SOURCE_KEY, None)
    return about, gone


def _answers(text: str, graph: gs.Graph) -> bool:
    """Whether the graph still has the outputs of the task that its metadata describes."""
    try:
        about = parse_description(text)
    except UserError:
        return False
    return {about.output(name) for name in TASKS[about.task].outputs} <= {tensor.name for tensor in graph.outputs}


def _with_pixels(source: str | None, text: str) -> str:
    """What is known of where the model comes from, with how its task's pixels are scaled: that is still true."""
    try:
        known, seen = json.loads(source or "{}"), parse_description(text).input
    except (ValueError, RecursionError, UserError):
        return source or "{}"
    return json.dumps(
        {
            **(known if isinstance(known, dict) else {}),
            "mean": seen.mean,
            "scale": seen.scale,
            "channels": seen.channels,
        }
    )


def _spec(text: str, graph: gs.Graph, table: list[list[dict[str, str]]]) -> str:
    """The Spec with the knobs that the part still has."""
    try:
        document = json.loads(text)
        knobs = {
            name: value
            for name, value in document["knobs"].items()
            if name in analyse(graph, table=table or None).knobs
        }
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError, RefusedModel):
        return text
    return json.dumps({**document, "knobs": knobs})


def _envelope(envelope: onnx.ModelProto, about: Mapping[str, str]) -> onnx.ModelProto:
    """The envelope with this metadata alone."""
    made = onnx.ModelProto()
    made.CopyFrom(envelope)
    del made.metadata_props[:]
    for key, value in about.items():
        made.metadata_props.add(key=key, value=value)
    return made


# --- verification -------------------------------------------------------------------------------


def _require_same(base: gs.Graph, graph: gs.Graph, sizes: Mapping[str, Shape] | None) -> None:
    """Every output has the bits of the whole's tensor in ONNX Runtime. Raises RefusedModel otherwise."""
    found = in_child(_moved, base, graph, sizes)
    if found:
        raise RefusedModel(f"'{found[0]}' is not what it is in the whole; nothing was written. Please report it")


def _moved(base: gs.Graph, graph: gs.Graph, sizes: Mapping[str, Shape] | None) -> list[str]:
    """In the child: the outputs that are not the whole's."""
    from fnatool.runtime.verify import noise_for, run_inner

    seen = view(base)
    starts, ends = ([tensor.name for tensor in one] for one in (graph.inputs, graph.outputs))
    feeds = noise_for(seen, infer(seen, sizes), 0)
    inner = run_inner(
        base, feeds, [name for name in (*starts, *ends) if name not in feeds], "the model", optimised=False
    )
    known = {**feeds, **inner}
    made = run_inner(graph, {name: known[name] for name in starts}, ends, "the result", optimised=False)
    return [name for name in ends if known[name].tobytes() != made[name].tobytes()]
