"""A model as a folder that is deployed: one graph from the image to the answer, and a document of what it is."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from fnatool.data.placement import Size
from fnatool.deploy import engine
from fnatool.deploy.document import ENGINE, MARK, MODEL, Batch, Document, GraphValue, at, parsed_batch, trtexec_line
from fnatool.deploy.network import Core, network
from fnatool.deploy.output import require_replaceable
from fnatool.deploy.outputs import farthest, hurt
from fnatool.files import model as files
from fnatool.files.atomic import replacing_folder
from fnatool.files.interface import Inputs
from fnatool.model.analysed import SPEC_KEY, STAGES_KEY, metadata
from fnatool.model.source import Source, open_model
from fnatool.runtime import half
from fnatool.tasks.description import KEY, Description
from fnatool.tasks.table import TASKS
from passes.deploy.assemble import Finish, Front, assembled
from passes.deploy.postprocessing import End, Ending
from passes.deploy.preprocessing import Taking
from passes.deploy.steps import Steps
from passes.errors import RefusedModel, UserError
from passes.graph.normalise import normalise
from passes.graph.view import view

ONNXRUNTIME, TENSORRT, RTX = "onnxruntime", "tensorrt", "tensorrt-rtx"
TARGETS = (ONNXRUNTIME, TENSORRT, RTX)
PRECISIONS = ("fp32", "fp16")
LAYOUTS = ("NHWC", "NCHW")
NEWEST_OPSET = {TENSORRT: 25, RTX: 28}
SIDES: Mapping[str, tuple[int, int, int]] = {"height": (32, 720, 2160), "width": (32, 1280, 3840)}
"""The least, usual and largest image that an engine for images of any size is built for."""
EXACT, ROUNDED = 0.002, 0.02
"""Which share of an answer (see `Task.apart`) may be another; and where pixels or weights are rounded."""
MOST_LOST = 0.005  # of the task's first figure, by rounding
MOST_REDUCTION = 32  # of the part around a box, for engines


@dataclass(frozen=True, kw_only=True)
class DeployOptions:
    """What it is to run on (see TARGETS), its precision, and for what.

    batch: a number, or 1:8:32; None: as the file says, one where it leaves that open. size: of the network's input, where the file leaves
    it open. image_size: of the images, where they all have one; layout: of the images. preprocessing and postprocessing: whether they go
    into the graph of a model with a task. data: a data set of the task, whose figures before and after are told. tolerance: how much of
    an answer may be another; None: by the precision. inputs: shapes for free sizes of a model without a task. verify: whether the answers
    are compared.
    """

    target: str = ONNXRUNTIME
    precision: str = "fp32"
    batch: str | None = None
    size: Size | None = None
    image_size: Size | None = None
    layout: str = "NHWC"
    preprocessing: bool = True
    postprocessing: bool = True
    data: Path | None = None
    tolerance: float | None = None
    inputs: Inputs = None
    verify: bool = True
    force: bool = False


@dataclass(frozen=True)
class Deployed:
    """The folder, and its document."""

    folder: Path
    document: Document


def deploy(model: Source, out: Path | str, *, options: DeployOptions | None = None) -> Deployed:
    """The folder `out` holds the model for its target: model.onnx, deploy.json, and engine.plan where that is built.

    All is there or, after any failure, nothing. Raises UserError for what cannot be asked of this model or here, RefusedModel for a model
    that cannot be deployed, or whose deployed graph does not answer as it does.
    """
    options = options or DeployOptions()
    folder = Path(out)
    batch = _checked(options)
    require_replaceable(folder, MARK, force=options.force)
    read, given = open_model(model, options.inputs)
    _require_target(read, options.target)
    around = KEY in metadata(read.envelope) and (options.preprocessing or options.postprocessing)
    made = network(read, given, size=options.size, batch=batch, around=around)
    if options.data is not None and made.described is None:
        raise UserError("--data is for models with a task; this one has none")
    with replacing_folder(folder) as place:
        document = _filled(place, read, made, options)
    return Deployed(folder, document)


def _checked(options: DeployOptions) -> Batch | None:
    """The batch asked for. Raises UserError for an option that cannot be."""
    for word, value, known in (
        ("target", options.target, TARGETS),
        ("precision", options.precision, PRECISIONS),
        ("layout", options.layout, LAYOUTS),
    ):
        if value not in known:
            raise UserError(f"'{value}' is no {word}; there are {', '.join(known)}")
    if options.target == RTX:
        engine.require_installed()
    return None if options.batch is None else parsed_batch(options.batch)


def _require_target(model: files.Model, target: str) -> None:
    """The graph is one that the target may know. Raises UserError."""
    if target == ONNXRUNTIME:
        return
    seen = view(model.graph)
    foreign = next((node for node in seen.nodes if "::" in node.op), None)
    if foreign is not None:
        raise UserError(
            f"node '{foreign.name}' is {foreign.op}, an operator of another domain, which {target} does not know; use onnxruntime"
        )
    if seen.opset > NEWEST_OPSET[target]:
        raise UserError(f"the model has opset {seen.opset}; {target} knows those up to {NEWEST_OPSET[target]}; export it in an older one")


def _filled(place: Path, read: files.Model, made: Core, options: DeployOptions) -> Document:
    """The files in the new folder, and what the document says."""
    described = made.described
    front, finish = _front(made, described, options), _finish(made, described, options)
    if front is not None and front.framing.kind == "around" and made.axis != 1:
        raise UserError(
            f"{described.task if described else ''} is answered for a box of an image, so its pre-processing takes one image at a time; "
            "leave out --batch, or add --no-preprocessing"
        )
    judge = partial(_checked_outputs, made=made) if described is None else partial(_judged, read=read)
    if described is not None and front is not None and finish is not None and options.verify and _is_exact(options, front):
        _require_same_front(place, read, made, options, front)
    found: Document | Apart | None = None
    for kept in _kept(place, made, options):
        _write(place, made, options, (front, finish, kept))
        said = _document(place, read, made, options, (front is not None, finish is not None))
        found = judge(place, said.model_copy(update={"kept_in_fp32": kept}), options)
        if isinstance(found, Document):
            break
    if not isinstance(found, Document):
        raise RefusedModel(found.sentence(options) if found else "nothing was made")
    document = found
    names = [MODEL, *(path.name for path in place.iterdir() if path.name not in (MODEL, MARK)), MARK]
    if options.target == RTX:
        (place / ENGINE).write_bytes(engine.build_engine(place / MODEL, _profiles(document)))
        names.append(ENGINE)
    document = document.model_copy(update={"files": tuple(dict.fromkeys(names))})
    (place / MARK).write_text(document.to_json())
    return document


@dataclass(frozen=True)
class Apart:
    """A deployed graph that does not answer as the model does: by what share of what, and where that begins."""

    share: float
    what: str
    first: str = ""

    def sentence(self, options: DeployOptions) -> str:
        """In words."""
        most = (options.tolerance or ROUNDED) if "output" in self.what else _tolerance(options)
        start = f"; it begins at '{self.first}'" if self.first else ""
        said = f"{self.what}: {self.share:.1%} is another (at most {most:.1%} may be){start}"
        return f"the deployed graph does not answer as the model does: {said}"


def _kept(place: Path, made: Core, options: DeployOptions) -> Iterator[tuple[str, ...]]:
    """The nodes that stay in single precision, tried one choice after the other: none, then those that are hurt most, more and more."""
    yield ()
    if options.precision == "fp32":
        return
    order = hurt(made, _halved(place, made, ()))
    for power in range(len(order).bit_length()):
        if 2**power <= len(order) // 2:
            yield tuple(order[: 2**power])


def _write(place: Path, made: Core, options: DeployOptions, parts: tuple[Front | None, Finish | None, tuple[str, ...]]) -> None:
    """The graph as a file. parts: what goes before and behind the network, and what of it stays in single precision."""
    front, finish, kept = parts
    core = made.model if options.precision == "fp32" else _halved(place, made, kept)
    graph = core.graph
    if front is not None or finish is not None:
        real = np.float64 if _is_exact(options, front) else np.float32
        size, engines = made.size or (0, 0), options.target != ONNXRUNTIME
        graph = assembled(graph, batch=made.axis, size=size, front=front, finish=finish, engine=engines, real=real)
        if options.image_size is not None and isinstance(made.axis, int):
            graph = normalise(graph).graph  # what follows from the size of the image is a number
    without = made.described is not None and (front is not None or finish is not None)
    files.write(replace(_enveloped(replace(core, graph=graph), without=without), path=place / "none"), place / MODEL, force=True)


# --- the graph --------------------------------------------------------------------------------------------------------------------------


def _front(made: Core, described: Description | None, options: DeployOptions) -> Front | None:
    if described is None or not options.preprocessing:
        if options.image_size is not None or options.layout != "NHWC":
            raise UserError("--image-size and --layout are of the images that pre-processing takes, and there is none")
        return None
    like = described.input
    (tensor,) = (tensor for tensor in made.model.graph.inputs if tensor.name in made.shapes)
    taking = Taking(made.size or (0, 0), like.layout, like.channels, like.mean, like.scale, np.dtype(tensor.dtype))
    framing = TASKS[described.task].frame(described)
    if framing.kind == "around" and options.target != ONNXRUNTIME:
        framing = replace(framing, taps=2 * MOST_REDUCTION + 1)
    return Front(framing, taking, options.layout, options.image_size)


def _is_exact(options: DeployOptions, front: Front | None) -> bool:
    """Whether places are computed as evaluation does: engines have no float64, but of images of one size all is known beforehand."""
    known = options.image_size is not None and front is not None and front.framing.kind != "around"
    return options.target == ONNXRUNTIME or known


def _finish(made: Core, described: Description | None, options: DeployOptions) -> Finish | None:
    if described is None or not options.postprocessing:
        return None
    return partial(_written, made, described)


def _written(made: Core, described: Description, steps: Steps, outputs: Mapping[str, str], ending: Ending) -> list[End]:
    task = TASKS[described.task]
    missing = [name for name in task.outputs if name not in outputs]
    if missing:
        raise RefusedModel(f"the model has no output '{missing[0]}', which {described.task} needs; it has {', '.join(outputs)}")
    return task.finish(steps, outputs, described, made.shapes, ending)


def _halved(place: Path, made: Core, kept: tuple[str, ...]) -> files.Model:
    """The network in float16, its inputs and outputs as they were."""
    whole, cut = place / "whole.onnx", place / "half.onnx"
    files.write(replace(made.model, path=place / "none", data=()), whole)
    half.write_half(whole, cut, kept)
    try:
        found = files.read(cut)
    except RefusedModel as error:
        why = str(error).removeprefix(f"'{cut}': ")
        raise RefusedModel(f"ONNX Runtime's converter to float16 breaks this model ({why}); deploy it in fp32") from error
    finally:
        for path in (whole, cut):
            path.unlink()
    return replace(made.model, graph=found.graph, data=())


def _enveloped(model: files.Model, *, without: bool) -> files.Model:
    """The model without what its metadata say no more of: stages, and where the graph does it itself, how outputs are read."""
    envelope = onnx.ModelProto()
    envelope.CopyFrom(model.envelope)
    gone = {STAGES_KEY, *((KEY,) if without else ())}
    kept = [entry for entry in model.envelope.metadata_props if entry.key not in gone]
    del envelope.metadata_props[:]
    envelope.metadata_props.extend(kept)
    return replace(model, envelope=envelope)


# --- the document -----------------------------------------------------------------------------------------------------------------------


def _document(place: Path, read: files.Model, made: Core, options: DeployOptions, has: tuple[bool, bool]) -> Document:
    """What is known before anything runs. has: pre- and post-processing."""
    written = onnx.load(place / MODEL, load_external_data=False)
    described = made.described
    ends = [tuple(_value(value) for value in values) for values in (written.graph.input, written.graph.output)]
    candidates = options.target != ONNXRUNTIME and any(value.name == "boxes" and len(value.shape) == 3 for value in ends[1])
    inputs = {value.name: value.shape for value in ends[0]}
    pixels = None if described is None else described.input.model_dump(mode="json", include={"mean", "scale", "channels", "layout"})
    with (place / MODEL).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Document(
        files=(MODEL, MARK),
        target=options.target,
        precision=options.precision,
        model={"file": read.path.name, "sha256": read.sha256, **_seed(read)},
        sha256=sha256,
        task=None if described is None else described.task,
        description=None if described is None else described.model_dump(mode="json"),
        classes=() if described is None else described.labels,
        pixels=pixels,
        inputs=ends[0],
        outputs=ends[1],
        size=made.size,
        image_size=options.image_size,
        layout="NHWC" if options.layout == "NHWC" else "NCHW",
        batch=made.batch,
        preprocessing=has[0],
        postprocessing="none" if not has[1] else "candidates" if candidates else "whole",
        thresholds=dict(TASKS[described.task].thresholds) if described is not None and has[1] else {},
        costs={when: dict(cost) for when, cost in made.costs.items()},
        trtexec=None if options.target == ONNXRUNTIME else trtexec_line(inputs, made.batch, SIDES),
        notes=made.notes,
    )


def _value(value: onnx.ValueInfoProto) -> GraphValue:
    tensor = value.type.tensor_type
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else axis.dim_param or "?" for axis in tensor.shape.dim)
    return GraphValue(name=value.name, type=str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape=shape)


def _seed(read: files.Model) -> dict[str, str]:
    """The SHA-256 of the seed that a remap has recorded, if one has."""
    try:
        recorded = json.loads(metadata(read.envelope).get(SPEC_KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    seed = recorded.get("seed") if isinstance(recorded, dict) else None
    return {"seed": seed} if isinstance(seed, str) else {}


def _profiles(document: Document) -> dict[str, engine.Profile]:
    return {
        value.name: (
            at(value.shape, document.batch, SIDES, 0),
            at(value.shape, document.batch, SIDES, 1),
            at(value.shape, document.batch, SIDES, 2),
        )
        for value in document.inputs
        if not all(isinstance(axis, int) for axis in value.shape)
    }


# --- the same answers -------------------------------------------------------------------------------------------------------------------


def _judged(place: Path, document: Document, options: DeployOptions, *, read: files.Model) -> Document | Apart:
    """The document with how far answers are from those of the model. Raises RefusedModel where they are too far."""
    from fnatool.deploy import judging
    from fnatool.deploy.answering import of_folder, of_model

    if not options.preprocessing and options.postprocessing:
        return document.model_copy(update={"notes": (*document.notes, "answers are in pixels of the input and were not compared")})
    if not options.verify and options.data is None:
        return document
    (place / MARK).write_text(document.to_json())  # for who reads a folder
    source = place / "source.onnx"
    files.write(replace(read, path=place / "none", data=()), source)
    try:
        one, other = of_model(source, "cpu", document.size), of_folder(place, "cpu")
        tolerance = _tolerance(options)
        found = judging.judged(one, other, judging.pictures(document.size or (0, 0), document.image_size))
        by_figure = options.data is not None and options.precision != "fp32"
        if options.verify and found.worst > tolerance and not by_figure:
            return Apart(found.worst, f"of the answer on {found.where}")
        verified = {"apart": found.worst, "pictures": found.count, "tolerance": tolerance}
        update: dict[str, object] = {"verified": verified}
        if options.data is not None:
            figures = _figures(one, other, options.data)
            metric = TASKS[one.description.task].metric
            lost = figures["before"][metric] - figures["after"][metric]
            if options.verify and by_figure and lost > MOST_LOST:
                return Apart(lost, f"of {metric} on '{options.data}'")
            update["figures"] = figures
    finally:
        for path in (source, source.with_name(f"{source.name}.data")):
            path.unlink(missing_ok=True)
    return document.model_copy(update=update)


def _tolerance(options: DeployOptions) -> float:
    if options.tolerance is not None:
        return options.tolerance
    return EXACT if options.precision == "fp32" and options.target == ONNXRUNTIME else ROUNDED


def _require_same_front(place: Path, read: files.Model, made: Core, options: DeployOptions, front: Front) -> None:
    """With pre-processing alone the outputs are those of the model. Raises RefusedModel where they are not."""
    from fnatool.deploy import judging
    from fnatool.deploy.answering import of_folder, of_model

    plain = replace(options, precision="fp32")
    with tempfile.TemporaryDirectory(dir=place, prefix="front") as name:
        inner = Path(name)
        _write(inner, made, plain, (front, None, ()))
        document = _document(inner, read, made, plain, (True, False))
        (inner / MARK).write_text(document.to_json())
        files.write(replace(read, path=place / "none", data=()), inner / "source.onnx")
        one, other = of_model(inner / "source.onnx", "cpu", made.size), of_folder(inner, "cpu")
        found = judging.outputs_apart(one, other, judging.pictures(made.size or (0, 0), options.image_size))
    if found.worst > EXACT:
        where = f"{found.where} is off by {found.worst:.1%}"
        raise RefusedModel(f"the deployed graph does not show the network what the model is shown: {where}")


def _figures(one: object, other: object, data: Path) -> dict[str, dict[str, float]]:
    from fnatool.data import checking
    from fnatool.deploy import judging
    from fnatool.deploy.answering import Answering
    from fnatool.tasks import reading
    from fnatool.tasks.description import is_placeholder
    from fnatool.training.samples import require_fit

    assert isinstance(one, Answering)
    assert isinstance(other, Answering)
    described = one.description
    classes = None if is_placeholder(described.classes) else described.classes
    split = reading.read(data, task=described.task, split="val", classes=classes)
    (split,) = checking.checked([split], skip_bad=False, progress=lambda done, total: None)
    described = described.adopting(split.classes, split.joints)
    require_fit(split, described)
    pairs = (("before", one), ("after", other))
    return {name: judging.figures(replace(whose, description=described), split, f"figures {name}") for name, whose in pairs}


def _checked_outputs(place: Path, document: Document, options: DeployOptions, *, made: Core) -> Document | Apart:
    """The same of a model without a task: how far its outputs are from those of the network in single precision, on noise."""
    if not options.verify:
        return document
    tolerance = ROUNDED if options.tolerance is None else options.tolerance  # inner values are the strict proof; outputs may be unsteady
    found = farthest(made, place / MODEL)
    if found[0] > tolerance:
        return Apart(found[0], f"of the spread of the output '{found[1]}'")
    return document.model_copy(update={"verified": {"output": found[1], "apart": found[0], "tolerance": tolerance}})
