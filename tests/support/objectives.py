"""Something small to learn: one output of a tiny network is to be zero, on noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from tiny import WEIGHTS, model, save
from torch import Tensor

from fnatool.files import model as files
from fnatool.nn.network import Network
from fnatool.nn.reading import Reading
from fnatool.tasks.parts import Outputs, Part, Parts
from fnatool.training.config import parse_config
from fnatool.training.learner import outputs_of
from fnatool.training.loop import TrainingJob
from fnatool.training.objective import Judge
from fnatool.training.order import TrainOrder
from fnatool.training.processes import World
from fnatool.training.samples import Batch

# the same as tiny.NET, with an output that a loss may leave out
TEXT = """
net (float[N,3,8,8] x) => (float[N,4] y, float[N,4] other) {
    c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w, b)
    n = BatchNormalization (c, scale, shift, mean, variance)
    r = Relu (n)
    p = GlobalAveragePool (r)
    f = Flatten (p)
    y = Gemm <transB = 1> (f, m, mb)
    other = Gemm <transB = 1> (f, m2, mb2)
}
"""
CONFIG = {
    "optimiser": {"lr": 1e-3, "warmup": 0, "schedule": "constant"},
    "run": {"batch": 4, "steps": 2},
    "averages": {"freeze_batchnorm": "yes"},
}


def sample(number: int) -> Tensor:
    """The same noise for the same number."""
    return torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(number))


@dataclass(frozen=True)
class Zero:
    """`y` is to be zero."""

    samples: int = 8
    metric = "nearness"
    sign = 1.0
    small_batch = 0
    knows = False
    samples_said = "samples"

    def __len__(self) -> int:
        return self.samples

    def sizes(self, model: files.Model) -> Mapping[str, tuple[int, ...]]:
        return {}

    def batches(self, order: TrainOrder, device: torch.device, *, workers: int) -> Iterator[Batch]:
        for keys in order:
            yield {"x": torch.stack([sample(index) for _, index in keys]).to(device)}

    def inputs(self, reading: Reading, batch: Batch) -> tuple[Tensor, ...]:
        return (batch["x"],)

    def loss(self, outputs: Outputs, batch: Batch) -> Parts:
        values = outputs["y"].square()
        return {"square": Part(values.sum(), torch.tensor(values.numel()))}

    def judge(self, world: World, *, batch: int, workers: int) -> AbstractContextManager[Judge]:
        @torch.no_grad()
        def figures(network: Network) -> dict[str, float]:
            outputs, _ = outputs_of(network, (torch.stack([sample(k) for k in range(self.samples)]).to(world.device),))
            return {"nearness": -outputs["y"].square().mean().item()}

        return nullcontext(figures)

    def require_runs(self, path: Path) -> None:
        pass

    def figures_of(self, path: Path, world: World, *, batch: int, workers: int) -> dict[str, float]:
        return {"nearness": 0.0}

    def notes(self) -> Mapping[str, str]:
        return {}


def job(folder: Path, *, workers: int = 0, **sections: Mapping[str, object]) -> TrainingJob:
    """A run of two steps in a folder that is made."""
    folder.mkdir(exist_ok=True)
    merged = {name: {**CONFIG.get(name, {}), **sections.get(name, {})} for name in {**CONFIG, **sections}}
    proto = model(TEXT, {**WEIGHTS, "m2": (4, 8), "mb2": (4,)})
    path = save(proto, folder / "seed.onnx") if not (folder / "seed.onnx").exists() else folder / "seed.onnx"
    return TrainingJob(
        parse_config({"task": "classification", **merged}), files.read(path), Zero(), folder, "key", workers=workers
    )
