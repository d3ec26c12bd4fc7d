"""Learning to be like another network on samples without labels: what it computes is what is learnt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fnatool.data.inputs import Sample, SampleInput, stacked
from fnatool.data.unlabelled import Unlabelled
from fnatool.files import model as files
from fnatool.imitation.imitating import Imitation, Outputs
from fnatool.imitation.in_runtime import compare, require_runs
from fnatool.imitation.likeness import METRIC, LikenessSums
from fnatool.imitation.losses import apart
from fnatool.imitation.teacher import Pair, Teacher, input_shapes
from fnatool.nn.network import Network
from fnatool.nn.program import to_array, to_tensor
from fnatool.nn.reading import Reading
from fnatool.tasks.finite import NotFinite
from fnatool.tasks.parts import Parts
from fnatool.training.ahead import ahead, is_fetching
from fnatool.training.config import Imitate
from fnatool.training.learner import outputs_of
from fnatool.training.objective import Judge
from fnatool.training.order import Key, TrainOrder
from fnatool.training.processes import World
from fnatool.training.samples import Batch, loader
from passes.errors import RefusedModel, UserError
from passes.graph.tensors import Shape
from passes.heads.taps import FLOATS


@dataclass(frozen=True)
class Samples(Dataset[Sample]):
    """Samples without labels by their keys."""

    data: Unlabelled

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: Key) -> Sample:
        return self.data.sample(key[1])


@dataclass(frozen=True)
class AlikeObjective:
    """The outputs of another network, on samples without labels; `kept` are those that figures are of.

    like: its file; teacher: the same on the device.
    """

    pair: Pair
    like: Path
    teacher: Teacher
    train: Unlabelled
    kept: Unlabelled
    metric = METRIC
    sign = -1.0
    small_batch = 8
    knows = True
    samples_said = "samples"

    def __len__(self) -> int:
        return len(self.train)

    @property
    def fields(self) -> tuple[SampleInput, ...]:
        """The inputs of the network."""
        return self.train.form.inputs

    def sizes(self, model: files.Model) -> Mapping[str, Shape]:
        """Those that it was analysed at."""
        return input_shapes(self.pair.student)

    def batches(self, order: TrainOrder, device: torch.device, *, workers: int) -> Iterator[Batch]:
        """The inputs by name."""
        pin = is_fetching(device)

        def placed(batch: Batch) -> Batch:
            return {name: value.to(device, non_blocking=pin) for name, value in batch.items()}

        with loader(Samples(self.train), order, self._stacked, workers, pin=pin) as batches:
            yield from ahead(batches(), placed, tensors=dict.values, device=device)

    def _stacked(self, samples: Sequence[Sample]) -> Batch:
        return {name: to_tensor(value) for name, value in stacked(samples, self.fields).items()}

    def inputs(self, reading: Reading, batch: Batch) -> tuple[Tensor, ...]:
        """In the order of the graph."""
        return tuple(batch[name] for name in reading.inputs)

    def loss(self, outputs: Outputs, batch: Batch) -> Parts:
        """Nothing but what the teacher says."""
        return {}

    def judge(self, world: World, *, batch: int, workers: int) -> AbstractContextManager[Judge]:
        """By how like its outputs are, on the samples kept back; each process looks at all of them."""
        return nullcontext(partial(self._likeness, device=world.device, batch=batch))

    @torch.inference_mode()
    def _likeness(self, network: Network, *, device: torch.device, batch: int) -> dict[str, float]:
        found = LikenessSums()
        for values in self.kept.batches(batch):
            inputs = {name: to_tensor(value).to(device) for name, value in values.items()}
            own, _ = outputs_of(network, [inputs[name] for name in network.origin.reading.inputs])
            other, _ = self.teacher(inputs, with_taps=False)
            try:
                found.add(
                    {name: to_array(value) for name, value in own.items()},
                    {name: to_array(value) for name, value in other.items()},
                )
            except RefusedModel as error:
                raise NotFinite(str(error)) from error
        return found.result().figures()

    def require_runs(self, path: Path) -> None:
        """On one sample."""
        require_runs(path, self.kept)

    def figures_of(self, path: Path, world: World, *, batch: int, workers: int) -> dict[str, float]:
        """The same in ONNX Runtime, by the first process for all."""
        made = compare((path, self.like), (self.kept, self.kept), batch=batch)[0].figures() if world.first else {}
        found: Any = world.gather(made)[0]
        return dict(found)

    def notes(self) -> Mapping[str, str]:
        """The file says what it said."""
        return {}


def learnable(pair: Pair) -> tuple[str, ...]:
    """The outputs that both have, of the same shape, in floats, with an axis of samples. Raises UserError where there
    is none.
    """
    student, teacher = pair.student.shapes, pair.teacher.shapes
    found = tuple(
        name
        for name in pair.teacher.view.outputs
        if name in pair.student.view.outputs
        and teacher.types.get(name) in FLOATS
        and len(teacher.shapes.get(name, ())) > 1
        and student.shapes.get(name) == teacher.shapes[name]
    )
    if not found:
        raise UserError(
            f"no output of '{pair.model.path}' can be learnt: it needs floats, of the same shape in both networks"
        )
    return found


def imitation_of(pair: Pair, how: Imitate) -> Imitation:
    """All outputs, and the features as the config says."""
    names = learnable(pair)

    def outputs_apart(own: Outputs, teacher: Outputs) -> Tensor:
        return torch.stack([apart(own[name], teacher[name]) for name in names]).mean()

    found = pair.places(how.places) if how.features else ()
    return Imitation(pair, found, how.features, how.outputs, how.until, outputs_apart, "running")
