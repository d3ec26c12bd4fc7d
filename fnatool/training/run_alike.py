"""Fine-tuning a model to be like another one on samples without labels: the order of `fnatool finetune --like`."""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fnatool import terminal
from fnatool.data.unlabelled import Unlabelled, drawn, parted
from fnatool.files import model as files
from fnatool.files.atomic import recover, require_writable
from fnatool.files.runfolder import TUNING, hold_folder
from fnatool.imitation.likeness import METRIC
from fnatool.imitation.teacher import Pair, Teacher, paired
from fnatool.model.source import Source, open_model
from fnatool.model.unlabelled import UnlabelledOptions, find_unlabelled
from fnatool.training.alike import Alike, imitation_of
from fnatool.training.config import LikeConfig, LikeData, read_like_config
from fnatool.training.finetune import RunPlaces, finished, perform
from fnatool.training.loop import TrainingJob
from fnatool.training.processes import World, joined
from fnatool.training.said import Tuned
from passes.graph.freeing import freed
from passes.network.analysis import Analysis


@dataclass(frozen=True, kw_only=True)
class LikeOptions:
    """The samples, and how: a config, a TOML file of one, or the defaults (None).

    `folder` is where the run is kept (beside the result, unless said); `restart` removes an older run there and begins anew; `force` lets
    the result replace another file (never one of the models). `skip_bad` leaves out samples that cannot be used, whatever the config says.
    """

    data: UnlabelledOptions
    config: LikeConfig | Path | str | None = None
    folder: Path | None = None
    restart: bool = False
    skip_bad: bool = False
    force: bool = False


def finetune_like(model: Source, like: Source, out: Path | str, options: LikeOptions) -> Tuned | None:
    """The model at `out` with what it learnt of another one, whose outputs it is to have; a run that was interrupted goes on.

    Under torchrun all processes work together; the first one writes, and the others get None. Raises UserError, before anything is trained,
    for data or models that do not fit; later where the loss is not finite or memory is out. The last checkpoint is never lost.
    """
    out = Path(out)
    read, _ = open_model(model)
    read = replace(read, graph=freed(read.graph))
    teacher, _ = open_model(like)
    how = config_of(options.config)
    if options.skip_bad:
        how = how.model_copy(update={"data": how.data.model_copy(update={"skip_bad": True})})
    places = RunPlaces(out, options.folder or out.with_suffix(".run"), options.force, options.restart)
    recover(out, files.data_path(out))
    done = None if options.force or options.restart else finished(read, how, places, METRIC)
    if done is None:
        require_writable(out, force=options.force, forbid=(read.path, *read.data, teacher.path, *teacher.data))
    if how.run.threads is not None:
        torch.set_num_threads(how.run.threads)
    with joined(how.run.device) as world, hold_folder(places.folder, TUNING) if world.first else nullcontext():
        if done is not None:
            if world.first:
                terminal.console().print(f"'{out}' is what this run came to: nothing is left to do; --restart trains anew")
            return done if world.first else None
        world.wait()
        pair = paired(read, teacher, resize=False)
        data = samples_of((read, pair.student), options.data, how.data, seed=how.run.seed, world=world)
        return perform(job_alike(pair, read, how, data, places.folder, world), places, world)


def config_of(given: LikeConfig | Path | str | None) -> LikeConfig:
    """In memory, or of a file."""
    return given if isinstance(given, LikeConfig) else LikeConfig() if given is None else read_like_config(Path(given))


def samples_of(
    of: tuple[files.Model, Analysis], where: UnlabelledOptions, how: LikeData, *, seed: int, world: World
) -> tuple[Unlabelled, Unlabelled]:
    """The samples to learn from and those kept back; the first process looks at every file and speaks. of: the model, and its analysis."""
    found = find_unlabelled(*of, where)
    if world.first:
        count = len(found) if how.images is None else min(how.images, len(found))
        with terminal.progress("looking at the data", count) as advance:
            found = drawn(found, how.images, seed=seed, skip_bad=how.skip_bad, done=advance)
        for line in (*found.notes, found.summary()):
            terminal.console().print(line, markup=False)
    shared = world.gather(found)[0]
    assert isinstance(shared, Unlabelled)
    return parted(shared, how.kept)


def job_alike(
    pair: Pair, model: files.Model, how: LikeConfig, data: tuple[Unlabelled, Unlabelled], folder: Path, world: World
) -> TrainingJob:
    """The run with all of its parts checked. data: to learn from, and kept back. Raises UserError where they do not fit."""
    used, kept = data
    imitation = imitation_of(pair, how.imitate)
    facts = [model.sha256, pair.model.sha256, how.model_dump(mode="json"), used.digest, kept.digest, world.size]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    if world.first:
        console = terminal.console()
        console.print(f"{len(used):,} to learn from, {len(kept):,} kept back; compared at {len(imitation.places)} places inside")
    objective = Alike(pair, pair.model.path, Teacher(pair, (), world.device, "running"), used, kept)
    return TrainingJob(config=how, model=model, objective=objective, folder=folder, key=key, imitation=imitation, workers=how.data.workers)
