"""A model as a folder that is deployed: one graph from the image to the answer, and a document of what it is."""

from __future__ import annotations

from pathlib import Path

from fnatool.deploy.around import around, write_whole
from fnatool.deploy.document import ENGINE, MARK, MODEL, Deployed, Document
from fnatool.deploy.documenting import document_of, profiles
from fnatool.deploy.gate import Apart, judge_of, require_same_front
from fnatool.deploy.network import Core, network
from fnatool.deploy.options import INT8, DeployOptions, checked
from fnatool.deploy.output import require_replaceable
from fnatool.deploy.precision import Narrowed, narrowed, require_single
from fnatool.files import model as files
from fnatool.files.atomic import replacing_folder
from fnatool.files.interface import TASK_KEY
from fnatool.model.analysed import metadata
from fnatool.model.faults import STANDARD
from fnatool.model.source import Source, open_model
from fnatool.model.targets import ONNXRUNTIME
from fnatool.runtime import engine
from passes.check.engine import RTX, check_for_engine
from passes.check.finding import errors
from passes.errors import RefusedModel, UserError
from passes.graph.view import view

INTERNAL = ("com.microsoft.", "com.ms.internal.")  # domains of graphs that ONNX Runtime has rewritten


def deploy(model: Source, out: Path | str, *, options: DeployOptions | None = None) -> Deployed:
    """The folder `out` holds the model for its target: model.onnx, deploy.json, and engine.plan where that is built.

    All is there or, after any failure, nothing. Raises UserError for what cannot be asked of this model or here,
    RefusedModel for a model that cannot be deployed, or whose deployed graph does not answer as it does.
    """
    options = options or DeployOptions()
    folder = Path(out)
    batch = checked(options)
    require_replaceable(folder, MARK, force=options.force)
    read, given = open_model(model, options.inputs)
    _require_target(read, options.target)
    if options.target == ONNXRUNTIME and options.verify:
        _require_known(read)
    if options.precision == INT8:
        require_single(read)
    newer = (
        TASK_KEY in metadata(read.envelope) and (options.preprocessing or options.postprocessing)
    ) or options.precision == INT8
    made = network(read, given, size=options.size, batch=batch, newer=newer)
    if options.data is not None and made.described is None:
        raise UserError("--data is for models with a task; this one has none")
    with replacing_folder(folder) as place:
        document = _filled(place, read, made, options)
    return Deployed(folder, document)


def _require_target(model: files.Model, target: str) -> None:
    """The graph is one that the target may know. Raises UserError."""
    if target == ONNXRUNTIME:
        return
    wrong = errors(check_for_engine(model.graph, target))
    if wrong:
        more = f" ({len(wrong) - 1} more; 'fnatool check --target {target}' lists all)" if len(wrong) > 1 else ""
        raise UserError(f"{wrong[0].where}: {wrong[0].message}; {wrong[0].fix}{more}")


def _require_known(model: files.Model) -> None:
    """ONNX Runtime brings all operators of the graph, without which no answer can be compared. Raises UserError."""
    for node in view(model.graph).nodes:
        domain, named, _ = node.op.rpartition("::")
        if named and domain not in STANDARD and not domain.startswith(INTERNAL):
            raise UserError(
                f"{node.op} '{node.name}': ONNX Runtime itself has no operators of that domain, so that answers "
                "cannot be compared; "
                "--no-verify writes the result without that, for who registers them"
            )


def _filled(place: Path, read: files.Model, made: Core, options: DeployOptions) -> Document:
    """The files in the new folder, and what the document says."""
    parts = around(made, options)
    require_same_front(place, read, made, options, parts=parts)
    document = _accepted(place, read, made, options)
    names = [MODEL, *(path.name for path in place.iterdir() if path.name not in (MODEL, MARK)), MARK]
    if options.target == RTX:
        (place / ENGINE).write_bytes(engine.build_engine(place / MODEL, profiles(document)))
        names.append(ENGINE)
    document = document.model_copy(update={"files": tuple(dict.fromkeys(names))})
    (place / MARK).write_text(document.to_json())
    return document


def _accepted(place: Path, read: files.Model, made: Core, options: DeployOptions) -> Document:
    """The graph in the folder answers as the model does. Raises RefusedModel where that cannot be had with few nodes as
    they are.
    """
    parts, ways = around(made, options), narrowed(place, made, options)
    judge = judge_of(read, made, options, ways[0].samples)

    def tried(how: Narrowed, kept: tuple[str, ...]) -> Document | Apart:
        write_whole(place, made, how.make(kept), parts, options=options)
        said = document_of(place, read, made, options, has=(parts.front is not None, parts.finish is not None))
        return judge(place, said.model_copy(update={"kept_in_fp32": kept, "quantised": how.said or None}))

    far: list[Apart] = []
    for how in ways:
        found = tried(how, ())
        if isinstance(found, Document):
            return found
        far.append(found)
    nearest = min(range(len(ways)), key=lambda place: far[place].share)
    last, first = far[nearest], ""
    for kept in ways[nearest].choices():
        first = kept[0]
        found = tried(ways[nearest], kept)
        if isinstance(found, Document):
            return found
        last = found
    raise RefusedModel(last.sentence(first))
