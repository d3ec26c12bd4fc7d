"""What changes while an architecture is searched, all of it in one place: weights, α, the memory of both optimisers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import Parameter

from fnatool.nn.layers import Norms
from fnatool.search.config import SearchConfig
from fnatool.supernet.network import SuperNetwork, Tensors
from fnatool.tasks.table import TASKS
from fnatool.training.checkpoint import Held, damaged
from fnatool.training.learner import is_frozen
from fnatool.training.machine import amp_type, compiling, memory_order
from fnatool.training.optimising import optimiser_for
from fnatool.training.processes import World
from fnatool.training.stepping import Descent, share

BETA2 = 0.999
REACH = 5.0  # how far α can move in all its steps, unless a rate is given: a step of Adam is its rate at most


class Searcher:
    """A super network that learns on a device, and everything that a checkpoint must hold."""

    def __init__(self, network: SuperNetwork, config: SearchConfig, world: World, *, alpha_steps: int) -> None:
        """alpha_steps: how many steps on α there will be."""
        self.step = 0  # weight steps done
        self.config, self.world = config, world
        self.network: SuperNetwork = network.to(world.device, memory_format=memory_order(world, config.run))  # type: ignore[call-overload]
        if (wrap := compiling(config.run)) is not None:
            network.compile_runs(wrap, world.device)
        batch = share(config.run.batch, world)
        frozen = is_frozen(config.search.freeze_batchnorm, TASKS[config.task].small_batch, batch)
        together = config.run.sync_batchnorm and world.size > 1
        self.norms: Norms = "running" if frozen else "batch over processes" if together else "batch"
        self.amp = amp_type(world.device.type == "cuda" and config.run.amp)
        alpha = config.alpha
        rate = REACH / max(alpha_steps, 1) if alpha.lr is None else alpha.lr
        adam = torch.optim.Adam(network.alphas, rate, betas=(alpha.beta1, BETA2), weight_decay=alpha.weight_decay)
        self.weights = self._descent(optimiser_for(named_weights(network), config.weights), network.weight_parameters())
        self.alphas = self._descent(adam, network.alphas)

    def _descent(self, optimiser: torch.optim.Optimizer, parameters: list[Parameter]) -> Descent:
        scaler = torch.amp.GradScaler(self.world.device.type, enabled=self.amp is torch.float16)
        return Descent(optimiser, scaler, tuple(parameters), self.world)

    def precision(self) -> AbstractContextManager[Any]:
        """Mixed precision, where it is wanted."""
        return nullcontext() if self.amp is None else torch.autocast(self.world.device.type, self.amp)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "weights": self.weights.optimiser.state_dict(),
            "alphas": self.alphas.optimiser.state_dict(),
            "scalers": [self.weights.scaler.state_dict(), self.alphas.scaler.state_dict()],
        }

    def restore(self, state: Mapping[str, Any], held: Held) -> None:
        """Everything is as it was when state was taken, all of which has been checked before. Raises UserError."""
        step = held.step(state)
        network = held.tensors(held.part(state, "network"), self.network.state_dict())
        scalers = held.part(state, "scalers")
        if not isinstance(scalers, list) or len(scalers) != 2:
            raise damaged(held.path, "its scales of gradients are not two")
        descents = (self.weights, self.alphas)
        memories = [
            held.memory(held.part(state, name), one.optimiser)
            for name, one in zip(("weights", "alphas"), descents, strict=True)
        ]
        scales = [held.scaling(found, one.scaler.state_dict()) for found, one in zip(scalers, descents, strict=True)]
        self.step = step
        self.network.load_state_dict(network)
        for descent, memory, scale in zip(descents, memories, scales, strict=True):
            descent.optimiser.load_state_dict(memory)
            descent.scaler.load_state_dict(scale)


def named_weights(network: SuperNetwork) -> Iterator[tuple[str, Parameter]]:
    """All parameters but α, with their names in the graph: those of every path have the same."""
    for part in (network.shared, *network.paths.modules()):
        if isinstance(part, Tensors):
            yield from ((name, value) for name, value in part.named().items() if isinstance(value, Parameter))
