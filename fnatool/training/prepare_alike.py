"""A run in which a network learns to be like another one, checked, before its first step."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

from fnatool import terminal
from fnatool.data.unlabelled import Unlabelled
from fnatool.files import model as files
from fnatool.imitation.teacher import Pair, Teacher
from fnatool.training.alike import AlikeObjective, imitation_of
from fnatool.training.config import LikeConfig, telling
from fnatool.training.loading import workers_for
from fnatool.training.loop import TrainingJob
from fnatool.training.processes import World


def job_alike(
    pair: Pair, model: files.Model, how: LikeConfig, data: tuple[Unlabelled, Unlabelled], folder: Path, world: World
) -> TrainingJob:
    """The run with all of its parts checked. data: to learn from, and kept back. Raises UserError where they do not
    fit.
    """
    used, kept = data
    imitation = imitation_of(pair, how.imitate)
    facts = [model.sha256, pair.model.sha256, telling(how), used.digest, kept.digest, world.size]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    if world.first:
        console = terminal.console()
        console.print(
            f"{len(used):,} to learn from, {len(kept):,} kept back; compared at {len(imitation.places)} places inside"
        )
    objective = AlikeObjective(pair, pair.model.path, Teacher(pair, (), world.device, "running"), used, kept)
    sample = sum(math.prod(one.shape) * one.dtype.itemsize for one in objective.fields)
    workers = workers_for(how.data.workers, world.device, batch=how.run.batch // world.size, sample=sample)
    return TrainingJob(
        config=how, model=model, objective=objective, folder=folder, key=key, imitation=imitation, workers=workers
    )
