"""Fine-tuning a model file: config, data and model are checked, the network learns, the graph is written with what it
learnt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import torch

from fnatool import seeds, terminal
from fnatool.data import checking
from fnatool.data.split import Split, said
from fnatool.files import model as files
from fnatool.files.atomic import workplace, write_text
from fnatool.files.documents import read_json
from fnatool.files.interface import TASK_KEY
from fnatool.files.runfolder import CONFIG, REPORT, TUNING, empty_folder
from fnatool.imitation.imitating import Imitation
from fnatool.imitation.losses import outputs_apart
from fnatool.imitation.teacher import paired
from fnatool.model import pixels
from fnatool.model.analysed import metadata
from fnatool.nn.network import save
from fnatool.tasks import reading
from fnatool.tasks.description import Description, is_placeholder
from fnatool.tasks.table import TASKS, by_task, description_of
from fnatool.tasks.task import PLAIN
from fnatool.training import diagnosis, watching
from fnatool.training.config import Config, Imitate, Learning, telling
from fnatool.training.loading import workers_for
from fnatool.training.loop import Trained, TrainingJob, finetune
from fnatool.training.model_and_data import sizes
from fnatool.training.objective import LabelledObjective
from fnatool.training.processes import World
from fnatool.training.said import Tuned
from fnatool.training.samples import Evaluation, Training, require_fit
from passes.errors import RefusedModel, UserError


@dataclass(frozen=True)
class RunPlaces:
    """Where the result goes, where the run is kept, whether an older result may be overwritten, and whether an older
    run is to go.
    """

    out: Path
    folder: Path
    force: bool = False
    restart: bool = False


def tune(read: files.Model, how: Config, places: RunPlaces, world: World) -> Tuned | None:
    """The model learns its task, by processes that have joined, in a folder that is there and this run's own; the first
    one writes it.
    """
    world.wait()
    return perform(prepare_training(read, how, places.folder, world), places, world)


def perform(job: TrainingJob, places: RunPlaces, world: World) -> Tuned | None:
    """The job done from where it was, and its result at its place."""
    job = replace(job, anew=places.restart)

    def ready() -> None:
        if world.first:
            if places.restart:
                empty_folder(places.folder, TUNING)
            write_text(places.folder / CONFIG, job.config.model_dump_json(indent=1) + "\n", force=True)
        world.wait()

    with watching.shown(job.metric) if world.first else nullcontext(watching.silent()) as watch:
        learnt = _guarded(lambda: finetune(job, world, watch, ready), job)
    return _finish(learnt, job, places, world)


def prepare_training(model: files.Model, config: Config, folder: Path, world: World) -> TrainingJob:
    """The run with all of its parts checked; the first process speaks. Raises UserError where they do not fit."""
    described = description_of(metadata(model.envelope))
    if described.task != config.task:
        raise UserError(f"the config is for {config.task}, the model for {described.task}")
    size, full = sizes(model, described, config.data.size)
    train, val = _data(config, described, world)
    described = described.adopting(train.classes, train.joints)
    require_fit(train, described)
    changes = TASKS[config.task].augment if config.data.augment else PLAIN
    facts = [model.sha256, telling(config), train.digest, val.digest, world.size]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    if world.first:
        console = terminal.console()
        console.print(f"{model.path.name}: {described.task}, {described.counted()}; input {size[0]}×{size[1]}")
        for line in said((train, val)):
            console.print(line, markup=False)
        pixels.say(pixels.recorded(model, described.input))
    objective = LabelledObjective(
        described, Training(train, described, size, changes, config.run.seed, full), Evaluation(val, described, full)
    )
    return TrainingJob(
        config=config,
        model=model,
        objective=objective,
        folder=folder,
        key=key,
        imitation=imitation_of(model, config.imitate, objective),
        workers=workers_for(
            config.data.workers, world.device, batch=config.run.batch // world.size, sample=3 * size[0] * size[1]
        ),
    )


def _data(config: Config, described: Description, world: World) -> tuple[Split, Split]:
    """Both splits, checked; the first process looks at every file, the others at what it remembered."""
    if not world.first:
        world.wait()
    classes = None if is_placeholder(described.classes) else described.classes
    splits = reading.read_both(
        config.data.path,
        task=config.task,
        classes=classes,
        holdout=reading.Holdout(seed=config.run.seed),
        options=config.data.reading,
    )
    with terminal.progress("looking at the data", sum(len(split.items) for split in splits)) as advance:
        train, val = checking.checked(splits, skip_bad=config.data.skip_bad, progress=lambda done, total: advance(1))
    if world.first:
        world.wait()
    return train, val


def imitation_of(model: files.Model, how: Imitate, objective: LabelledObjective) -> Imitation | None:
    """What the model has to do with the config's teacher. Raises UserError where there is none, or the two cannot be
    compared.
    """
    if not how.is_on:
        return None
    require_teacher(how)
    pair = paired(model, str(how.teacher), objective.sizes(model))
    found = pair.places(how.places) if how.features else ()
    if how.features and not found:
        raise UserError(
            f"'{pair.model.path}' has no features of the same shape as '{model.path}': 'imitate.features' needs some"
        )
    description, temperature = objective.description, how.temperature
    theirs = _of_same_task(pair.model, description)
    return Imitation(
        pair,
        found,
        features=how.features,
        outputs=how.outputs,
        until=how.until,
        apart=lambda own, teacher: outputs_apart(own, by_task(teacher, theirs), description, temperature),
        norms="batch" if how.features else "running",
    )


def _of_same_task(teacher: files.Model, description: Description) -> Description:
    """What the teacher says of itself, where that is of the same task; else what the student does."""
    about = metadata(teacher.envelope)
    found = description_of(about) if TASK_KEY in about else description
    return found if found.task == description.task else description


def require_teacher(how: Imitate) -> None:
    """There is a teacher, where one is asked for. Raises UserError."""
    if not how.is_on:
        return
    if how.teacher is None:
        raise UserError(
            "'imitate.features' or 'imitate.outputs' is not 0, but there is no 'imitate.teacher': give an ONNX file"
        )
    if not seeds.find(how.teacher).is_file():
        raise UserError(f"'{how.teacher}', the 'imitate.teacher', does not exist; give the path of an ONNX file")


# --- the end of a run ---------------------------------------------------------------------------


def finished(model: files.Model, config: Learning, places: RunPlaces, metric: str) -> Tuned | None:
    """What the run in the folder came to, if that is what is at its place; None where anything is left to do."""
    found = _report(model, config, places) or {}
    figures, held, step = found.get("figures"), found.get("in_runtime"), found.get("step")
    if not (_are_figures(figures, metric) and _are_figures(held, metric) and isinstance(step, int)):
        return None
    return Tuned(figures, held, metric, step)


def is_unevaluated(model: files.Model, config: Learning, places: RunPlaces) -> bool:
    """What is at the place of the result is of this run, which ended before that had its figures in ONNX Runtime."""
    found = None if places.restart else _report(model, config, places)
    return found is not None and found.get("in_runtime") is None


def _report(model: files.Model, config: Learning, places: RunPlaces) -> dict[str, Any] | None:
    """The report in the folder, if it is of the file that is at the place of the result, and of what is asked for."""
    out, path = places.out, places.folder / REPORT
    if not (out.is_file() and path.is_file()):
        return None
    try:
        found = read_json(path, "report", pipes=False)
    except UserError:
        return None
    if not isinstance(found, dict) or found.get("of") != _asked(model, config) or found.get("sha256") != _sha256(out):
        return None
    return found


def _are_figures(found: object, metric: str) -> TypeGuard[Mapping[str, float]]:
    return (
        isinstance(found, dict) and metric in found and all(isinstance(value, int | float) for value in found.values())
    )


def _asked(model: files.Model, config: Learning) -> str:
    """The same for runs that were asked for the same."""
    return hashlib.sha256(json.dumps([model.sha256, telling(config)]).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _guarded(train: Callable[[], Trained], job: TrainingJob) -> Trained:
    """Raises UserError where memory is out, with what to lower."""
    try:
        return train()
    except (RuntimeError, MemoryError) as error:
        if not diagnosis.is_out_of_memory(error):
            raise
        raise UserError(
            f"there is not enough memory for {job.config.run.batch} {job.objective.samples_said} a step; lower "
            "'run.batch' or 'data.size'"
            f" and begin anew with --restart ('{job.folder}' keeps the last checkpoint)"
        ) from error


def _finish(learnt: Trained, job: TrainingJob, places: RunPlaces, world: World) -> Tuned | None:
    """The result is at its place and runs in ONNX Runtime, and then it is evaluated there by all processes, which may
    take long.

    Raises RefusedModel where it does not run, and writes nothing then.
    """
    result: dict[str, Any] = {}
    if world.first:
        result = _write_result(learnt, job, places)
    world.wait()
    held = job.objective.figures_of(places.out, world, batch=job.config.run.batch, workers=job.workers)
    if world.first:
        write_text(job.folder / REPORT, json.dumps({**result, "in_runtime": held}, indent=1) + "\n", force=True)
    world.wait()
    return Tuned(learnt.figures, held, job.metric, learnt.step) if world.first else None


def _write_result(learnt: Trained, job: TrainingJob, places: RunPlaces) -> dict[str, Any]:
    """The file, and before it a report that says what it is, without figures in ONNX Runtime yet. Raises
    RefusedModel.
    """
    network = learnt.network.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    out, notes = places.out, job.objective.notes()
    own = is_unevaluated(job.model, job.config, places)
    with workplace(job.folder) as place:
        draft = place / out.name
        save(network, draft, metadata=notes)
        try:
            job.objective.require_runs(draft)
        except RefusedModel as error:
            raise RefusedModel(str(error).replace(str(draft), str(out))) from error
        made = {"model": str(out), "sha256": _sha256(draft), "of": _asked(job.model, job.config)}
    result: dict[str, Any] = {"step": learnt.step, "figures": dict(learnt.figures), "in_runtime": None, **made}
    write_text(job.folder / REPORT, json.dumps(result, indent=1) + "\n", force=True)
    save(network, out, force=places.force or own, metadata=notes)
    return result
