"""The last phase of a search: what was found learns its task, or to be like the seed."""

from __future__ import annotations

from fnatool.files import model as files
from fnatool.imitation.teacher import paired
from fnatool.search.config import SearchConfig
from fnatool.search.preparing import PreparedSearch
from fnatool.search.purposes import AlikePurpose, Purpose
from fnatool.training.finetune import RunPlaces, perform, require_teacher, tune
from fnatool.training.order import TrainOrder
from fnatool.training.prepare_alike import job_alike
from fnatool.training.processes import World
from fnatool.training.said import Tuned
from fnatool.training.stepping import share


def require_tuning(config: SearchConfig, purpose: Purpose, world: World) -> None:
    """There are samples enough for a step of the last phase, and a teacher where one is asked for. Raises UserError."""
    if not config.finetune.enabled:
        return
    batch = share(config.finetune.run.batch, world)
    TrainOrder(samples=purpose.counts[0], batch=batch, steps=1, seed=0, start=0, rank=world.rank, world=world.size)
    if not isinstance(purpose, AlikePurpose):
        require_teacher(config.tuning().imitate)


def tune_found(made: PreparedSearch, found: files.Model, places: RunPlaces, world: World) -> Tuned | None:
    """What was found, in a file, tuned: the result is at its place; the first process has its figures."""
    if not isinstance(made.purpose, AlikePurpose):
        return tune(found, made.config.tuning(), places, world)
    pair = paired(found, made.ground.seed, resize=False)
    data = (made.purpose.used, made.purpose.kept)
    return perform(job_alike(pair, found, made.config.tuning_alike(), data, places.folder, world), places, world)
