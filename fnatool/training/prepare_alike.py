"""A run in which a network learns to be like another one, before its first step: the samples and the job, checked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fnatool import terminal
from fnatool.data.unlabelled import Unlabelled, drawn, parted
from fnatool.files import model as files
from fnatool.imitation.teacher import Pair, Teacher
from fnatool.model.unlabelled import UnlabelledOptions, find_unlabelled
from fnatool.training.alike import Alike, imitation_of
from fnatool.training.config import LikeConfig, LikeData
from fnatool.training.loop import TrainingJob
from fnatool.training.processes import World
from passes.network.analysis import Analysis


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
