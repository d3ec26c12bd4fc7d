"""What a search is for: a task with labels, or to compute what the seed computes; and what its data is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fnatool.data.inputs import stacked
from fnatool.data.split import Split
from fnatool.data.unlabelled import Place, Unlabelled, drawn, parted
from fnatool.files import model as files
from fnatool.model.pixels import PixelOptions
from fnatool.model.refit import KEPT
from fnatool.model.remapped import Remapped
from fnatool.model.unlabelled import inputs_of as samples_of
from fnatool.model.unlabelled import pictures_of
from fnatool.nn.program import to_tensor
from fnatool.nn.reading import Reading
from fnatool.search.config import SearchConfig
from fnatool.tasks.description import Description
from fnatool.tasks.task import PLAIN
from fnatool.training.loading import workers_for
from fnatool.training.model_and_data import inputs_of, sizes
from fnatool.training.order import TrainOrder
from fnatool.training.samples import Training
from fnatool.training.stepping import dealt
from passes.errors import UserError

STREAM = 4  # of chance: which images
# inputs of samples, in the order of the network's, the same every time
Batches = Callable[[], Iterator[tuple[Tensor, ...]]]


class Purpose(Protocol):
    """What the search asks of it."""

    @property
    def counts(self) -> tuple[int, int]:
        """Samples to learn from, and kept back."""

    @property
    def digests(self) -> tuple[str, str]:
        """Of both, the same for the same data."""

    def batches(self, seed: files.Model, config: SearchConfig, reading: Reading, device: torch.device) -> Batches:
        """Inputs to compare features on, drawn by the run's seed; held as they are read. seed: with its head."""

    def samples(self, made: Remapped, config: SearchConfig) -> tuple[Unlabelled, Unlabelled]:
        """Of what is learnt from, without labels, as a remap takes it: to solve its layers with, and to judge that
        by.
        """


def images_of(purpose: Purpose, config: SearchConfig) -> int:
    """How many samples features are compared on. Raises UserError where there are too few."""
    count = min(config.distance.images, purpose.counts[0])
    if count < 2:
        raise UserError("features are compared on two images at least; give more training data")
    batch = min(config.distance.batch, count)
    return count // batch * batch


def _order(purpose: Purpose, config: SearchConfig) -> TrainOrder:
    count = images_of(purpose, config)
    batch = min(config.distance.batch, count)
    return TrainOrder(samples=purpose.counts[0], batch=batch, steps=count // batch, seed=config.run.seed + STREAM)


def _drawn(data: Unlabelled, config: SearchConfig) -> tuple[Unlabelled, Unlabelled]:
    count = min(config.refit.samples, len(data))
    return parted(drawn(data, count, seed=config.run.seed, skip_bad=config.data.skip_bad), KEPT, use="refit")


@dataclass(frozen=True)
class LabelledPurpose:
    """A task, and a data set with its labels."""

    description: Description
    train: Split
    val: Split

    @property
    def counts(self) -> tuple[int, int]:
        """Of both splits."""
        return len(self.train.items), len(self.val.items)

    @property
    def digests(self) -> tuple[str, str]:
        """Of both splits."""
        return self.train.digest, self.val.digest

    def batches(self, seed: files.Model, config: SearchConfig, reading: Reading, device: torch.device) -> Batches:
        """Training images as the network takes them; held as bytes."""
        size, full = sizes(seed, self.description, config.data.size)
        samples = Training(self.train, self.description, size, PLAIN, config.run.seed, full)
        order = _order(self, config)
        here = torch.device("cpu")
        workers = workers_for(config.data.workers, here, batch=order.batch, sample=3 * size[0] * size[1])
        found = [batch["images"] for batch in dealt(samples, order, here, workers=workers)]

        def batches() -> Iterator[tuple[Tensor, ...]]:
            for images in found:
                yield (inputs_of(reading, images.to(device), self.description.input),)

        return batches

    def samples(self, made: Remapped, config: SearchConfig) -> tuple[Unlabelled, Unlabelled]:
        """The training images as pictures."""
        like = self.description.input
        inputs = samples_of(made.analysis, made.plan.sizes)
        how = PixelOptions(like.mean, like.scale, None if like.channels == "GREY" else like.channels)
        places = tuple(Place(name) for name in sorted({item.image for item in self.train.items}))
        form = pictures_of(made.seed, made.analysis, inputs, how)
        return _drawn(Unlabelled(self.train.root, form, places, len(places)), config)


@dataclass(frozen=True)
class AlikePurpose:
    """Samples without labels, for which the seed's own outputs are what is wanted."""

    used: Unlabelled
    kept: Unlabelled

    @property
    def counts(self) -> tuple[int, int]:
        """Of those used and those kept back."""
        return len(self.used), len(self.kept)

    @property
    def digests(self) -> tuple[str, str]:
        """Of those used and those kept back."""
        return self.used.digest, self.kept.digest

    def batches(self, seed: files.Model, config: SearchConfig, reading: Reading, device: torch.device) -> Batches:
        """The samples as the network takes them."""
        form = self.used.form
        found = []
        for keys in _order(self, config):
            rows = [self.used.sample(index) for _, index in keys]
            found.append({name: to_tensor(value) for name, value in stacked(rows, form.inputs).items()})

        def batches() -> Iterator[tuple[Tensor, ...]]:
            for batch in found:
                yield tuple(batch[name].to(device) for name in reading.inputs)

        return batches

    def samples(self, made: Remapped, config: SearchConfig) -> tuple[Unlabelled, Unlabelled]:
        """Of the samples used; those kept back judge the search."""
        return _drawn(self.used, config)
