"""What every step of training has in common, of fine-tuning and of the search: its batch, its chance, its way down."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fnatool.tasks.augment import coloured
from fnatool.training.ahead import ahead, is_fetching
from fnatool.training.order import TrainOrder
from fnatool.training.processes import World
from fnatool.training.samples import COLOURS, Batch, Training, training_loader
from passes.errors import UserError


def share(batch: int, world: World) -> int:
    """The part of a batch that one process has. Raises UserError where it cannot be dealt evenly."""
    if batch % world.size:
        raise UserError(
            f"a batch of {batch} cannot be dealt to {world.size} processes; make 'run.batch' a multiple of {world.size}"
        )
    return batch // world.size


def read(*scalars: torch.Tensor) -> list[float]:
    """The numbers, for which the host waits once. In double precision, which changes none of them."""
    found: list[float] = torch.stack([value.detach().double() for value in scalars]).tolist()
    return found


def require_in_step(world: World, step: int, folder: Path) -> None:
    """All processes go on from the same step. Raises UserError in each of them otherwise."""
    steps = world.gather(step)
    if len(set(steps)) > 1:
        raise UserError(
            f"the processes would go on from different steps, {', '.join(map(str, steps))} by rank: '{folder}' "
            "is not the same folder for "
            "all of them; on several machines it must lie in a file system that they share"
        )


def dealt(samples: Training, order: TrainOrder, device: torch.device, *, workers: int) -> Iterator[Batch]:
    """The batches of order on the device, which changes the colours of their images itself where it is faster than the
    processor.
    """
    with dealer(samples, order, device, workers=workers) as batches:
        yield from batches()


@contextmanager
def dealer(
    samples: Training, order: TrainOrder, device: torch.device, *, workers: int
) -> Iterator[Callable[[], Iterator[Batch]]]:
    """Within it `dealt`, as often as they are asked for, by the same processes."""
    pin = is_fetching(device)
    with training_loader(replace(samples, colours_later=pin), order, workers=workers, pin=pin) as batches:
        yield lambda: ahead(batches(), partial(_placed, device=device), tensors=dict.values, device=device)


def _placed(batch: Batch, device: torch.device) -> Batch:
    placed = {name: value.to(device, non_blocking=is_fetching(device)) for name, value in batch.items()}
    colours = placed.pop(COLOURS, None)
    return placed if colours is None else {**placed, "images": coloured(placed["images"], colours)}


def reseed(*key: int) -> None:
    """What torch draws from its global generator, dropout say, is a function of key from here on."""
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


@dataclass(frozen=True)
class Descent:
    """An optimiser and what it moves, in all processes of `world` by the mean of their gradients.

    A parameter that the loss does not reach has none, and stays; which ones these are is the same in all processes.
    """

    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    parameters: tuple[torch.nn.Parameter, ...]
    world: World

    def gradients(self, loss: torch.Tensor, clip: float) -> torch.Tensor:
        """The norm of the gradient of loss; what the parameters have is clipped to `clip` where that is less (0:
        never).
        """
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.world.average([parameter.grad for parameter in self.parameters if parameter.grad is not None])
        self.scaler.unscale_(self.optimiser)
        return torch.nn.utils.clip_grad_norm_(self.parameters, clip or float("inf"))

    def is_sound(self, loss: float, norm: float) -> bool:
        """Loss and gradient are finite; under a scale a gradient that is not is skipped, and no fault."""
        return math.isfinite(loss) and (math.isfinite(norm) or self.scaler.is_enabled())

    def step(self) -> None:
        """The parameters move by their gradients."""
        self.scaler.step(self.optimiser)
        self.scaler.update()
