"""What a network is trained for, as the loop sees it: batches, a loss, and figures that tell the better network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from fnatool.files import model as files
from fnatool.files.interface import TASK_KEY
from fnatool.nn.network import Network
from fnatool.nn.reading import Reading
from fnatool.tasks import description as descriptions
from fnatool.tasks.description import Description
from fnatool.tasks.parts import Outputs, Parts
from fnatool.tasks.table import TASKS, loss_of
from fnatool.training.figures import evaluator
from fnatool.training.in_runtime import evaluate_together, require_runs
from fnatool.training.learner import outputs_of
from fnatool.training.model_and_data import inputs_of, open_sizes
from fnatool.training.order import TrainOrder
from fnatool.training.processes import World
from fnatool.training.samples import Batch, Evaluation, Training
from fnatool.training.stepping import dealt
from passes.graph.tensors import Shape

Judge = Callable[[Network], dict[str, float]]  # its figures


class Objective(Protocol):
    """What the loop asks of it. A batch is what `batches` gave, on the device of the network."""

    @property
    def metric(self) -> str:
        """The figure that tells the better network."""

    @property
    def sign(self) -> float:
        """1 where more of it is better, −1 where less is."""

    @property
    def small_batch(self) -> int:
        """With fewer samples a process BatchNormalization keeps its statistics, unless a config says otherwise."""

    @property
    def knows(self) -> bool:
        """Whether a network does this before its first step, so that training must make it better."""

    @property
    def samples_said(self) -> str:
        """'images of 96×96'"""

    def __len__(self) -> int:
        """Training samples."""

    def sizes(self, model: files.Model) -> Mapping[str, Shape]:
        """The shapes of inputs that the model leaves open."""

    def batches(self, order: TrainOrder, device: torch.device, *, workers: int) -> Iterator[Batch]:
        """Training batches."""

    def inputs(self, reading: Reading, batch: Batch) -> tuple[Tensor, ...]:
        """What a network is given."""

    def loss(self, outputs: Outputs, batch: Batch) -> Parts:
        """What training lowers, beside what the teacher says."""

    def judge(self, world: World, *, batch: int, workers: int) -> AbstractContextManager[Judge]:
        """Within it what says how good a network is on what is kept back, the same in every process."""

    def require_runs(self, path: Path) -> None:
        """A file with such a network runs in ONNX Runtime. Raises RefusedModel otherwise."""

    def figures_of(self, path: Path, world: World, *, batch: int, workers: int) -> dict[str, float]:
        """The same figures of a file in ONNX Runtime, by all processes together."""

    def notes(self) -> Mapping[str, str]:
        """Metadata of the file that is written."""


@dataclass(frozen=True)
class LabelledObjective:
    """A task's loss on a data set with labels."""

    description: Description
    train: Training
    knows = False
    val: Evaluation
    sign = 1.0

    @property
    def metric(self) -> str:
        """The task's."""
        return TASKS[self.description.task].metric

    @property
    def small_batch(self) -> int:
        """The task's."""
        return TASKS[self.description.task].small_batch

    @property
    def samples_said(self) -> str:
        """With their size."""
        height, width = self.train.size
        return f"images of {height}×{width}"

    def __len__(self) -> int:
        return len(self.train)

    def sizes(self, model: files.Model) -> Mapping[str, Shape]:
        """That of the training images."""
        return open_sizes(model, self.description, self.train.size)

    def batches(self, order: TrainOrder, device: torch.device, *, workers: int) -> Iterator[Batch]:
        """Images uint8 RGB [N, 3, H, W], and labels."""
        return dealt(self.train, order, device, workers=workers)

    def inputs(self, reading: Reading, batch: Batch) -> tuple[Tensor, ...]:
        """The images as the description says."""
        return (inputs_of(reading, batch["images"], self.description.input),)

    def loss(self, outputs: Outputs, batch: Batch) -> Parts:
        """The task's."""
        return loss_of(outputs, batch, self.description)

    @contextmanager
    def judge(self, world: World, *, batch: int, workers: int) -> Iterator[Judge]:
        """By the task's figures on the validation split."""

        @torch.inference_mode()
        def predict(network: Network, images: Tensor) -> dict[str, Tensor]:
            inputs = inputs_of(network.origin.reading, images, self.description.input)
            return outputs_of(network, (inputs,))[0]

        with evaluator(self.val, batch=batch, workers=workers, world=world, device=world.device) as figures:
            yield lambda network: figures(partial(predict, network))

    def require_runs(self, path: Path) -> None:
        """On one image."""
        require_runs(path, self.val.description, self.val.size)

    def figures_of(self, path: Path, world: World, *, batch: int, workers: int) -> dict[str, float]:
        """The same, each process on its part of the samples."""
        return evaluate_together(path, self.val, world, batch=batch, workers=workers)

    def notes(self) -> Mapping[str, str]:
        """What the model is for."""
        return {TASK_KEY: descriptions.to_json(self.description)}
