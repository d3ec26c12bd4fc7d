"""The training loop: every step of fine-tuning, in one place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from fnatool.files.model import Model
from fnatool.files.runfolder import BEST, CHECKPOINT
from fnatool.imitation.imitating import Imitation
from fnatool.nn.network import Network
from fnatool.tasks.finite import NotFinite
from fnatool.tasks.parts import means
from fnatool.training import checkpoint, diagnosis
from fnatool.training.config import Learning
from fnatool.training.journal import RESULT, Journal
from fnatool.training.learner import Learner, outputs_of
from fnatool.training.objective import Judge, Objective
from fnatool.training.optimising import set_rate
from fnatool.training.order import TrainOrder
from fnatool.training.processes import World
from fnatool.training.room import require_room
from fnatool.training.said import Figures, TrainingWatch
from fnatool.training.samples import Batch
from fnatool.training.schedule import factor
from fnatool.training.stepping import read, require_in_step, reseed, share
from passes.errors import UserError


@dataclass(frozen=True)
class TrainingJob:
    """A network, what it is trained for, its teacher if it has one, and where the run is kept. `key` tells this run
    from any other.

    anew: what the folder holds of an earlier run is not looked at.
    """

    config: Learning
    model: Model
    objective: Objective
    folder: Path
    key: str
    imitation: Imitation | None = None
    workers: int = 0
    anew: bool = False

    @property
    def metric(self) -> str:
        """The figure that tells the better network."""
        return self.objective.metric


@dataclass(frozen=True)
class Trained:
    """The network at the end, and how good it is on the validation split; the same in all processes."""

    network: Network
    figures: Figures
    step: int


def finetune(job: TrainingJob, world: World, watch: TrainingWatch, ready: Callable[[], None] = lambda: None) -> Trained:
    """The network after training as the config says, from its last checkpoint if there is one.

    ready is called once, when nothing of what was asked can be refused any more, before anything is written. Raises
    UserError where the loss is not finite, before the first step where a batch needs more memory than is free, and
    where memory is out later; the last checkpoint stays.
    """
    config, run = job.config, job.config.run
    sizes, small = job.objective.sizes(job.model), job.objective.small_batch
    learner = Learner(job.model, config, world, sizes=sizes, small_batch=small, imitation=job.imitation)
    order = TrainOrder(
        samples=len(job.objective),
        batch=share(run.batch, world),
        steps=1,
        seed=run.seed,
        start=0,
        rank=world.rank,
        world=world.size,
    )
    require_room(
        learner.network.origin.reading, order.batch, world.device, key="run.batch", halved=learner.amp is not None
    )
    total = run.steps or run.epochs * order.steps_per_epoch
    between = run.evaluate * order.steps_per_epoch
    if (job.folder / CHECKPOINT).exists() and not job.anew:
        path = job.folder / CHECKPOINT
        learner.restore(checkpoint.read(path, key=job.key, processes=world.size), checkpoint.Held(path, total))
    require_in_step(world, learner.step, job.folder)
    ready()
    journal = Journal(job.folder, learner.step) if world.first else None
    watch.started(learner.step, total)
    with job.objective.judge(world, batch=order.batch, workers=job.workers) as judge:
        audience = Audience(judge, journal, watch)
        if learner.step == 0:
            _begin(learner, job, audience)
        written = time.monotonic()
        for batch in _batches(job, learner, total):
            rate = config.optimiser.lr * factor(learner.step, total, config.optimiser)
            values = _step(learner, job, batch, (rate, learner.step / total))
            learner.step += 1
            if learner.average is not None:
                learner.average.update(learner.network, learner.step)
            if journal is not None:
                journal.write(learner.step, "train", values)
            watch.stepped(learner.step, values)
            last = learner.step == total
            if last or learner.step % between == 0:
                _evaluate(learner, job, audience)
            if world.first and (last or checkpoint.is_due(run.checkpoint, learner.step, written)):
                _write(learner, job)
                written = time.monotonic()
        learnt = _finish(learner, job, judge)
    if journal is not None:
        journal.write(learnt.step, RESULT, learnt.figures)
        journal.close()
    return learnt


def _step(learner: Learner, job: TrainingJob, batch: Batch, now: tuple[float, float]) -> dict[str, float]:
    """One optimiser step on a batch: its loss, the parts of it, the learning rate and the norm of the gradient.

    now: the learning rate, and the share of the steps that are done.
    """
    config, (rate, progress) = job.config, now
    reseed(config.run.seed, learner.world.rank, learner.step)  # for dropout
    set_rate(learner.optimiser, rate)
    learner.network.train()
    reading = learner.network.origin.reading
    with learner.precision():
        inputs = job.objective.inputs(reading, batch)
        taps = () if job.imitation is None else job.imitation.taps(progress)
        reading.program(taps)  # is there before torch compiles what runs it
        own = outputs_of(learner.network, inputs, taps=taps, forward=learner.forward)
        parts = means(job.objective.loss(own[0], batch))
        if job.imitation is not None and learner.teacher is not None and not job.imitation.is_over(progress):
            taught = learner.teacher(dict(zip(reading.inputs, inputs, strict=True)), with_taps=bool(taps))
            parts |= job.imitation.parts(own, taught, progress)
        loss = torch.stack(list(parts.values())).sum()
    descent = learner.descent
    norm = descent.gradients(loss, config.optimiser.clip)
    total, gradient, *numbers = read(loss, norm, *parts.values())
    if not descent.is_sound(total, gradient):
        found = diagnosis.not_finite(learner.network, inputs)
        raise _wrong(learner.step + 1, found, job)
    descent.step()
    values = dict(zip(parts, numbers, strict=True))
    return {"loss": sum(values.values()), **values, "lr": rate, "gradient": gradient}


def _batches(
    job: TrainingJob, learner: Learner, total: int, *, start: int | None = None, seed: int = 0
) -> Iterator[Batch]:
    """The batches of the steps from `start` (where the learner is) to total, on the device."""
    config, world = job.config, learner.world
    begin = learner.step if start is None else start
    own = share(config.run.batch, world)
    order = TrainOrder(
        samples=len(job.objective),
        batch=own,
        steps=total,
        seed=config.run.seed + seed,
        start=begin,
        rank=world.rank,
        world=world.size,
    )
    return job.objective.batches(order, world.device, workers=job.workers)


# --- around the steps ---------------------------------------------------------------------------


@torch.no_grad()
def refresh(learner: Learner, job: TrainingJob, steps: int, network: Network | None = None) -> None:
    """BatchNorm's running statistics of the network follow the training data for so many steps; nothing else
    changes.
    """
    network = network or learner.network
    together = job.config.run.sync_batchnorm and learner.world.size > 1
    norms, network.norms_in_training = network.norms_in_training, "update over processes" if together else "update"
    network.train()
    for batch in _batches(job, learner, steps, start=0, seed=1):
        with learner.precision():
            network(*job.objective.inputs(network.origin.reading, batch))
    network.norms_in_training = norms
    for value in network.buffers():
        if value.is_floating_point() and learner.world.size > 1:
            value.copy_(learner.world.total(value) / learner.world.size)


def evaluated(learner: Learner, job: TrainingJob, judge: Judge, network: Network | None = None) -> dict[str, float]:
    """The figures of the network that will be written, on the validation split. Raises UserError where it computes no
    numbers.
    """
    network = (network or learner.evaluated).eval()
    learner.world.share(network.buffers())  # while training each process has statistics of its own
    try:
        return judge(network)
    except NotFinite as error:
        raise _wrong(learner.step, diagnosis.broken_value(network) or str(error), job) from error


@dataclass(frozen=True)
class Audience:
    """Who judges a run, and who is told of it; `journal` is the first process's alone."""

    judge: Judge
    journal: Journal | None
    watch: TrainingWatch


def _begin(learner: Learner, job: TrainingJob, audience: Audience) -> None:
    """BatchNorm's statistics follow the data, if wanted; where the network can do this already and the best is kept,
    only if that helps.
    """
    steps, knows = job.config.averages.refresh_before, job.objective.knows and job.config.run.keep == "best"
    if knows:
        _evaluate(learner, job, audience)
    if not steps:
        return
    # an average of the weights has statistics of its own, so that nothing can be told by it
    before, best = {name: value.clone() for name, value in learner.network.state_dict().items()}, learner.best
    refresh(learner, job, steps)
    if knows and learner.average is None:
        _evaluate(learner, job, audience)
        if learner.best == best:
            learner.network.load_state_dict(before)


def _evaluate(learner: Learner, job: TrainingJob, audience: Audience) -> None:
    """How good the network is now, which is written and said; it is kept where it is the best so far."""
    figures = evaluated(learner, job, audience.judge)
    if audience.journal is not None:
        audience.journal.write(learner.step, "val", figures)
    audience.watch.evaluated(learner.step, figures)
    _keep_best(learner, job, figures)


def _keep_best(learner: Learner, job: TrainingJob, figures: Figures) -> None:
    figure, sign = figures[job.metric], job.objective.sign
    if job.config.run.keep == "best" and (learner.best is None or sign * figure > sign * learner.best):
        learner.best = figure
        if learner.world.first:
            best = {"network": learner.evaluated.state_dict(), "step": learner.step}
            checkpoint.write(best, job.folder / BEST, key=job.key, processes=learner.world.size)


def _write(learner: Learner, job: TrainingJob) -> None:
    """The checkpoint, by the first process, if all in it is finite: otherwise the last good one stays."""
    broken = diagnosis.broken_state(learner.state())
    if broken is not None:
        raise _wrong(learner.step, broken, job)
    checkpoint.write(learner.state(), job.folder / CHECKPOINT, key=job.key, processes=learner.world.size)


def _finish(learner: Learner, job: TrainingJob, judge: Judge) -> Trained:
    """The network to write: the best or the last one, its statistics refreshed if wanted."""
    network, step = learner.evaluated, learner.step
    learner.world.wait()
    if job.config.run.keep == "best":
        held = checkpoint.Held(job.folder / BEST, learner.step)
        best = checkpoint.read(held.path, key=job.key, processes=learner.world.size)
        network.load_state_dict(held.tensors(held.part(best, "network"), network.state_dict()))
        step = held.step(best)
    if job.config.averages.refresh_after:
        refresh(learner, job, job.config.averages.refresh_after, network)
    return Trained(network, evaluated(learner, job, judge, network), step)


def _wrong(step: int, what: str, job: TrainingJob) -> UserError:
    path = job.folder / CHECKPOINT
    kept = f"'{path}' still holds the last good step" if path.exists() else "no checkpoint had been written yet"
    return UserError(
        f"step {step} went wrong: {what}; lower 'optimiser.lr', raise 'optimiser.warmup' or set 'optimiser.clip', "
        f"then begin anew with --restart ({kept})"
    )
