"""Several processes that learn one network together."""

from __future__ import annotations

from pathlib import Path

import torch
from objectives import job
from ranks import two
from torch import Tensor

from fnatool.training.loop import finetune
from fnatool.training.processes import World
from fnatool.training.watching import silent

HERE = World(0, 1, torch.device("cpu"))


def test_an_output_that_the_loss_leaves_out_ends_nothing_on_two_processes(tmp_path: Path) -> None:
    todo = job(tmp_path / "two")

    def learnt(world: World) -> dict[str, Tensor]:
        return dict(finetune(todo, world, silent()).network.state_dict())

    alone = finetune(job(tmp_path / "one"), HERE, silent()).network.state_dict()
    for found in two(learnt, tmp_path):
        for name, value in alone.items():
            assert torch.allclose(found[name], value, rtol=1e-5), name


def test_gradients_of_several_types_are_averaged(tmp_path: Path) -> None:
    def averaged(world: World) -> list[Tensor]:
        values = [torch.full((2, 3), 1.0 + world.rank), torch.full((3,), 3.0 * world.rank, dtype=torch.float64), torch.ones(2)]
        values[0] = values[0].t()  # an order of its own in memory
        world.average(values)
        return values

    for single, double, same in two(averaged, tmp_path):
        assert torch.equal(single, torch.full((3, 2), 1.5))
        assert double.dtype == torch.float64
        assert torch.equal(double, torch.full((3,), 1.5, dtype=torch.float64))
        assert torch.equal(same, torch.ones(2))

