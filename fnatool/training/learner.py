"""What changes while a network learns, all of it in one place: weights, the optimiser's memory, averages, the best so
far.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from fnatool.files.model import Model
from fnatool.imitation.imitating import Imitation, teacher_of
from fnatool.nn.network import Network, load
from fnatool.training.checkpoint import Held
from fnatool.training.config import Learning
from fnatool.training.machine import amp_type, compiling, memory_order
from fnatool.training.optimising import optimiser_for
from fnatool.training.processes import World
from fnatool.training.stepping import Descent
from passes.graph.tensors import Shape


class Learner:
    """A network that learns on a device, and everything that a checkpoint must hold."""

    def __init__(
        self,
        model: Model,
        config: Learning,
        world: World,
        *,
        sizes: Mapping[str, Shape] | None = None,
        small_batch: int = 0,
        imitation: Imitation | None = None,
    ) -> None:
        """sizes: of the inputs that the file leaves open; small_batch: with fewer samples BatchNormalization keeps its
        statistics.
        """
        self.step = 0  # steps done
        self.best: float | None = None
        self.config, self.world = config, world
        cuda = world.device.type == "cuda"
        self.network = _placed(load(model, sizes=sizes), world.device, memory_order(world, config.run))
        if is_frozen(config.averages.freeze_batchnorm, small_batch, config.run.batch // world.size):
            self.network.norms_in_training = "running"
        elif config.run.sync_batchnorm and world.size > 1:
            self.network.norms_in_training = "update over processes"
        wrap = compiling(config.run)  # a step runs this; evaluation, averages and checkpoints have the network itself
        self.forward: Callable[..., Any] = self.network if wrap is None else wrap(self.network)
        self.teacher = None if imitation is None else teacher_of(imitation, world.device)
        self.average = Average(self.network, config.averages.ema) if config.averages.ema else None
        self.optimiser = optimiser_for(self.network.named_parameters(), config.optimiser)
        self.amp = amp_type(cuda and config.run.amp)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.amp is torch.float16)
        self.descent = Descent(self.optimiser, self.scaler, tuple(self.network.parameters()), world)

    @property
    def evaluated(self) -> Network:
        """The network that is evaluated and written."""
        return self.average.network if self.average is not None else self.network

    def precision(self) -> AbstractContextManager[Any]:
        """Mixed precision, where it is wanted."""
        return nullcontext() if self.amp is None else torch.autocast(self.world.device.type, self.amp)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "step": self.step,
            "best": self.best,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.network.state_dict(),
        }

    def restore(self, state: Mapping[str, Any], held: Held) -> None:
        """Everything is as it was when state was taken, all of which has been checked before. Raises UserError."""
        step, best = held.step(state), held.figure(state, "best")
        network = held.tensors(held.part(state, "network"), self.network.state_dict())
        optimiser = held.memory(held.part(state, "optimiser"), self.optimiser)
        scaler = held.scaling(held.part(state, "scaler"), self.scaler.state_dict())
        average = None
        if self.average is not None:
            average = held.tensors(held.part(state, "average"), self.average.network.state_dict())
        self.step, self.best = step, best
        self.network.load_state_dict(network)
        self.optimiser.load_state_dict(optimiser)
        self.scaler.load_state_dict(scaler)
        if self.average is not None and average is not None:
            self.average.network.load_state_dict(average)


class Average:
    """A network whose weights and statistics are those of another one, averaged with an exponentially fading memory.

    The memory is short at first: the decay of update t is at most (1 + t) / (10 + t).
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: Network, step: int) -> None:
        """The average moves towards the network, after so many steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        # one kernel on a device, not one a tensor
        torch._foreach_lerp_(_floats(self.network), _floats(network), 1 - decay)


def _floats(network: Network) -> list[Tensor]:
    return [value for value in network.state_dict().values() if value.is_floating_point()]


def outputs_of(
    network: Network, inputs: Sequence[Tensor], *, taps: tuple[str, ...] = (), forward: Callable[..., Any] | None = None
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The outputs by name, and the inner tensors asked for. forward: what runs in place of the network, if anything
    does.
    """
    made = (network if forward is None else forward)(*inputs, taps=taps)
    found, inner = made if taps else (made, {})
    outputs = found if isinstance(found, tuple) else (found,)
    return dict(zip(network.origin.reading.outputs, outputs, strict=True)), [inner[name] for name in taps]


def is_frozen(asked: str, small_batch: int, batch: int) -> bool:
    """BatchNorm keeps its statistics while training. asked: yes, no or auto; batch: of one process."""
    return asked == "yes" or (asked == "auto" and batch < small_batch)


def _placed(network: Network, device: torch.device, order: torch.memory_format) -> Network:
    placed: Network = network.to(device, memory_format=order)  # type: ignore[call-overload]
    return placed
