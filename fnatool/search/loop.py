"""The search: every step on weights and on α, in one place.

    warm up   weights only, a member drawn by what α is at first: all paths alike, but for the lead of the seed's own
    search    a weight step on a member drawn by α; every `alpha_every`-th one is followed by a step on α with
              all candidates, on data that the weights do not see: task loss + λ · log_τ(γ · expected cost)

No state of a random generator is kept: batches, members and dropout are functions of (seed, step).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fnatool.files.runfolder import CHECKPOINT
from fnatool.search.config import SearchConfig
from fnatool.search.sampling import Member, sample
from fnatool.search.searcher import Searcher
from fnatool.search.solver import Budget
from fnatool.search.words import PROBABILITIES
from fnatool.supernet.alpha import cost_loss, floor_at
from fnatool.supernet.network import SuperNetwork
from fnatool.tasks.description import Description
from fnatool.tasks.parts import means
from fnatool.tasks.table import loss_of
from fnatool.training import checkpoint, diagnosis
from fnatool.training.journal import Journal
from fnatool.training.loading import workers_for
from fnatool.training.model_and_data import inputs_of
from fnatool.training.optimising import set_rate
from fnatool.training.order import TrainOrder
from fnatool.training.processes import World
from fnatool.training.samples import Batch, Training
from fnatool.training.schedule import factor
from fnatool.training.stepping import Descent, dealt, read, require_in_step, reseed, share
from passes.errors import UserError
from passes.space.costs import Table

WEIGHTS, ALPHAS = 0, 1  # streams of chance
MILLION = 1e6
MOMENTS = 30  # of a search that probabilities are written down of

Figures = Mapping[str, float]


@dataclass(frozen=True)
class SearchJob:
    """A super network, what it is for, the two parts of the training data, what a member costs, and where the run is
    kept.

    `key` tells this run from any other; `budget` is the first one given, None where the search pays for every bit of
    `table`.
    """

    config: SearchConfig
    network: SuperNetwork
    description: Description
    weights: Training
    alphas: Training
    table: Table
    budget: Budget | None
    folder: Path
    key: str

    def steps(self, world: World) -> int:
        """Weight steps in all."""
        how = self.config.search
        order = TrainOrder(
            samples=len(self.weights),
            batch=share(self.config.run.batch, world),
            steps=1,
            seed=0,
            start=0,
            rank=world.rank,
            world=world.size,
        )
        return how.steps or how.epochs * order.steps_per_epoch


@dataclass(frozen=True)
class SearchWatch:
    """Who is told how a search goes: after resuming (steps done, in all), and after every step (phase, steps done, its
    rows by kind).
    """

    started: Callable[[int, int], None]
    stepped: Callable[[str, int, Mapping[str, Figures]], None]


@dataclass(frozen=True)
class AlphaSchedule:
    """Which of `total` weight steps are followed by a step on α: every `every`-th from `start` on. Steps count from
    0.
    """

    total: int
    start: int
    every: int

    def has_alpha(self, step: int) -> bool:
        """A step on α follows this one."""
        return step >= self.start and (step - self.start) % self.every == 0

    def alphas_before(self, step: int) -> int:
        """Steps on α before this weight step."""
        return -(-max(step - self.start, 0) // self.every)

    def phase(self, step: int) -> str:
        """In words."""
        return "warm up" if step < self.start else "search"


def learn(job: SearchJob, world: World, watch: SearchWatch) -> SuperNetwork:
    """The super network after the search that the config says, from its last checkpoint if there is one.

    Raises UserError where a loss is not finite; the last checkpoint stays.
    """
    how, run = job.config.search, job.config.run
    total = job.steps(world)
    plan = AlphaSchedule(total, round(how.alpha_from * total), how.alpha_every)
    searcher = Searcher(job.network, job.config, world, alpha_steps=plan.alphas_before(total))
    path = job.folder / CHECKPOINT
    if path.exists():
        searcher.restore(checkpoint.read(path, key=job.key, processes=world.size), checkpoint.Held(path, total))
    require_in_step(world, searcher.step, job.folder)
    journal = Journal(job.folder, searcher.step) if world.first else None
    watch.started(searcher.step, total)
    batches = _batches(job, world, (searcher.step, total), stream=WEIGHTS)
    others = _batches(job, world, (plan.alphas_before(searcher.step), plan.alphas_before(total)), stream=ALPHAS)
    written = time.monotonic()
    while searcher.step < total:
        step = searcher.step
        rows = {"weights": _weight_step(searcher, job, next(batches), plan)}
        if plan.has_alpha(step):
            rows["alpha"] = _alpha_step(searcher, job, next(others), plan)
        searcher.step += 1
        for kind, values in rows.items():
            if journal is not None:
                journal.write(searcher.step, kind, values)
        if (
            journal is not None
            and "alpha" in rows
            and (searcher.step == total or searcher.step % max(total // MOMENTS, 1) == 0)
        ):
            journal.write(searcher.step, PROBABILITIES, _probabilities(searcher.network))
        watch.stepped(plan.phase(step), searcher.step, rows)
        if world.first and (searcher.step == total or checkpoint.is_due(run.checkpoint, searcher.step, written)):
            _write(searcher, job)
            written = time.monotonic()
    if journal is not None:
        journal.close()
    return searcher.network


def _weight_step(searcher: Searcher, job: SearchJob, batch: Batch, plan: AlphaSchedule) -> dict[str, float]:
    """The weights of one member move: its loss, the parts of it, the learning rate and the norm of the gradient."""
    config, step = job.config, searcher.step
    rate = config.weights.lr * factor(step, plan.total, config.weights)
    set_rate(searcher.weights.optimiser, rate)
    member = drawn(searcher.network, config.run.seed, step)
    values = _task_loss(searcher, job, batch, step=step, member=member)
    loss = torch.stack(list(values.values())).sum()
    norm = searcher.weights.gradients(loss, config.weights.clip)
    shared, (total, gradient) = _shared(values, searcher.world, (loss, norm))
    _require_sound(searcher.weights, total, gradient, searcher)
    searcher.weights.step()
    return {**shared, "lr": rate, "gradient": gradient}


def _alpha_step(searcher: Searcher, job: SearchJob, batch: Batch, plan: AlphaSchedule) -> dict[str, float]:
    """α moves: the loss of all candidates on the other data, the expected cost, what it is charged, the entropy, and
    the floor.
    """
    config, architecture = job.config, searcher.network.architecture
    number = plan.alphas_before(searcher.step)
    values = _task_loss(searcher, job, batch, step=number, member=None)
    cost = architecture.expected_cost(job.table)
    charged = _charged(cost, job)
    loss = torch.stack(list(values.values())).sum() + charged.float()
    norm = searcher.alphas.gradients(loss, config.alpha.clip)
    shared, (total, gradient) = _shared(values, searcher.world, (loss, norm))
    _require_sound(searcher.alphas, total, gradient, searcher)
    searcher.alphas.step()
    floor = floor_at(
        number / max(plan.alphas_before(plan.total), 1), floor=config.search.floor, annealed=config.search.annealed
    )
    architecture.hold(floor)
    with torch.no_grad():
        after, paid, entropy = read(architecture.expected_cost(job.table), charged, architecture.entropy())
    return {**shared, "cost": after, "charged": paid, "entropy": entropy, "floor": floor}


def _task_loss(
    searcher: Searcher, job: SearchJob, batch: Batch, *, step: int, member: Member | None
) -> dict[str, torch.Tensor]:
    """The parts of the task's loss of a member, or without one of all candidates at once, in that step."""
    reseed(job.config.run.seed, searcher.world.rank, step, WEIGHTS if member is not None else ALPHAS)  # for dropout
    searcher.network.train()
    with searcher.precision():
        inputs = inputs_of(searcher.network.reading, batch["images"], job.description.input)
        outputs = searcher.network(inputs, member, searcher.norms)
        return means(loss_of(outputs, batch, job.description))


def _charged(cost: torch.Tensor, job: SearchJob) -> torch.Tensor:
    """λ · log_τ(γ · cost), cost in millions; with a budget what is above it: λ · log_τ(cost / budget), and nothing
    below.
    """
    how = job.config.cost
    if job.budget is not None:
        return torch.relu(cost_loss(cost, weight=how.weight, base=how.base, scale=1 / job.budget.limit))
    return cost_loss(cost, weight=how.weight, base=how.base, scale=how.scale / MILLION)


@torch.no_grad()
def _probabilities(network: SuperNetwork) -> dict[str, float]:
    """Of every candidate of every block, the last one to skip it where that may be: BLOCK/NUMBER."""
    rows = network.architecture.probabilities()
    numbers = iter(torch.cat(rows).tolist())
    return {
        f"{block.name}/{k}": next(numbers)
        for block, row in zip(network.choices.blocks, rows, strict=True)
        for k in range(len(row))
    }


@torch.no_grad()
def drawn(network: SuperNetwork, seed: int, step: int) -> Member:
    """The member that a weight step trains."""
    rows = network.architecture.probabilities()
    numbers = iter(torch.cat(rows).tolist())
    return sample(network.choices, [[next(numbers) for _ in range(len(row))] for row in rows], seed=seed, step=step)


# --- around the steps ---------------------------------------------------------------------------


def _batches(job: SearchJob, world: World, steps: tuple[int, int], *, stream: int) -> Iterator[Batch]:
    """The batches of the steps from the first to the last of a stream, on the device."""
    config = job.config
    samples = job.weights if stream == WEIGHTS else job.alphas
    start, end = steps
    order = TrainOrder(
        samples=len(samples),
        batch=share(config.run.batch, world),
        steps=end,
        seed=config.run.seed + stream,
        start=start,
        rank=world.rank,
        world=world.size,
    )
    workers = workers_for(
        config.data.workers, world.device, batch=order.batch, sample=3 * samples.size[0] * samples.size[1]
    )
    return dealt(samples, order, world.device, workers=workers)


def _shared(
    values: Mapping[str, torch.Tensor], world: World, own: Sequence[torch.Tensor]
) -> tuple[dict[str, float], list[float]]:
    """The loss and its parts, over all processes; and what is this one's own, in the same wait."""
    parts = torch.stack([value.detach().double() for value in values.values()])
    world.average([parts])
    numbers: list[float] = torch.cat([parts, torch.stack([value.detach().double() for value in own])]).tolist()
    found = dict(zip(values, numbers, strict=False))
    return {"loss": sum(found.values()), **found}, numbers[len(values) :]


def _require_sound(descent: Descent, loss: float, norm: float, searcher: Searcher) -> None:
    if not descent.is_sound(loss, norm):
        broken = diagnosis.broken_value(searcher.network) or diagnosis.broken_gradient(
            searcher.network.named_parameters()
        )
        raise _wrong(searcher.step + 1, broken)


def _write(searcher: Searcher, job: SearchJob) -> None:
    """The checkpoint, by the first process, if all in it is finite: otherwise the last good one stays."""
    broken = diagnosis.broken_state(searcher.state())
    if broken is not None:
        raise _wrong(searcher.step, broken)
    checkpoint.write(searcher.state(), job.folder / CHECKPOINT, key=job.key, processes=searcher.world.size)


def _wrong(step: int, what: str) -> UserError:
    return UserError(
        f"step {step} of the search went wrong: {what}; lower 'weights.lr' or 'alpha.lr', raise "
        "'weights.warmup' or set 'weights.clip', "
        "then begin anew with --restart (the last checkpoint is still good)"
    )
