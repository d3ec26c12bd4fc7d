"""Samples for a DataLoader, to train on and to evaluate on, and the batches that become of them.

Their keys are (epoch, index); a training sample is a function of (seed, epoch, index) alone, whichever process makes it
and whatever was drawn before. Images stay uint8 up to the device: a quarter of the bytes on the way.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from fnatool.data.placement import Placement, Size
from fnatool.data.split import Split
from fnatool.files.atomic import temporary
from fnatool.runtime.parent import die_with
from fnatool.tasks.augment import drawn_colours
from fnatool.tasks.bare import plain
from fnatool.tasks.description import Description
from fnatool.tasks.samples import tensor
from fnatool.tasks.table import TASKS
from fnatool.tasks.task import Augment, Sample, SampleOptions
from fnatool.training.order import EvaluationOrder, Key, TrainOrder
from passes.errors import UserError

T = TypeVar("T")
U = TypeVar("U")
Batch = dict[str, torch.Tensor]
COLOURS = "colours"  # of a sample and a batch: what is still to be done to its images


@dataclass(frozen=True)
class Training(Dataset[Sample]):
    """Training samples of a checked split for a model: image uint8 [3, *size], and what the task's `sample` says.

    full: the size that evaluation fits an image into, where it is not the one of training. colours_later: changes of
    colours are drawn and left to be made on the batch, on a device that does it faster (`augment.coloured`).
    """

    split: Split
    description: Description
    size: Size
    augment: Augment
    seed: int
    full: Size | None = None
    colours_later: bool = False

    def __post_init__(self) -> None:
        require_fit(self.split, self.description)

    def __len__(self) -> int:
        return len(self.split.items)

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        augment = replace(self.augment, colour=0.0) if self.colours_later else self.augment
        how = SampleOptions(self.size, self.full or self.size, augment)
        with drawn(self.seed, epoch, index):
            made = TASKS[self.split.task].sample(self.split, self.split.items[index], self.description, how)
            if self.colours_later and self.augment.colour:  # the last that is drawn either way
                made = {**made, COLOURS: drawn_colours(self.augment)}
            return made


@dataclass(frozen=True)
class Shown:
    """What a model is shown of an image: uint8 [3, H, W], where the image lies in it, and what is true of the image
    (see `Task.truth`).
    """

    index: int
    image: torch.Tensor
    placement: Placement
    truth: object


@dataclass(frozen=True)
class EvaluationBatch:
    """Images uint8 [N, 3, H, W] with, for each, its index in the split, its placement, and what is true."""

    images: torch.Tensor
    indices: tuple[int, ...]
    placements: tuple[Placement, ...]
    truths: tuple[object, ...]


@dataclass(frozen=True)
class Evaluation(Dataset[Shown]):
    """What is shown of each image of a checked split, without chance."""

    split: Split
    description: Description
    size: Size

    def __post_init__(self) -> None:
        require_fit(self.split, self.description)

    def __len__(self) -> int:
        return len(self.split.items)

    def __getitem__(self, key: Key) -> Shown:
        index = key[1]
        item, task = self.split.items[index], TASKS[self.split.task]
        shown, placement = task.show(tensor(self.split, item), self.description, self.size, item)
        return Shown(index, plain(shown), placement, task.truth(self.split, item))


def require_fit(split: Split, description: Description) -> None:
    """The data speaks of what the model is for. Raises UserError."""
    where = f"the data in '{split.root}'"
    if split.task != description.task:
        raise UserError(f"{where} is for {split.task}, the model for {description.task}")
    what = TASKS[split.task].labels
    data, model = TASKS[split.task].labels_of(split), description.labels
    for number, (one, other) in enumerate(zip_longest(data, model, fillvalue="nothing")):
        if one != other:
            counts = f"{where} has {len(data)} {what}, the model {len(model)}"
            raise UserError(f"{counts}; number {number} is '{one}' in the data and '{other}' in the model")


@contextmanager
def drawn(*key: int) -> Iterator[None]:
    """Within it torch's random numbers are a function of key; after it the generator is where it was."""
    before = torch.get_rng_state()
    try:
        # not torch.manual_seed, which would reach for every accelerator too
        torch.default_generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        yield
    finally:
        torch.set_rng_state(before)


# --- batches ---


def evaluation_batch(shown: Sequence[Shown]) -> EvaluationBatch:
    """The images stacked, all else in tuples."""
    stacked = torch.stack([one.image for one in shown])
    return EvaluationBatch(
        stacked,
        tuple(one.index for one in shown),
        tuple(one.placement for one in shown),
        tuple(one.truth for one in shown),
    )


Order = TrainOrder | EvaluationOrder


def training_batches(samples: Training, order: TrainOrder, *, workers: int, pin: bool = False) -> Iterator[Batch]:
    """The batches of order; neither the number of workers nor where order starts changes what is in a batch. Raises
    UserError.
    """
    return loaded(samples, order, partial(_collated, TASKS[samples.split.task].batch), workers, pin=pin)


def _collated(collate: Callable[..., Batch], samples: Sequence[Sample]) -> Batch:
    """The task's batch, and what is still to be done to its images."""
    made = collate([{name: value for name, value in sample.items() if name != COLOURS} for sample in samples])
    return {**made, COLOURS: torch.stack([sample[COLOURS] for sample in samples])} if COLOURS in samples[0] else made


def evaluation_batches(
    samples: Evaluation, order: EvaluationOrder, *, workers: int, pin: bool = False
) -> Iterator[EvaluationBatch]:
    """Batches of all samples of this process, in order. Raises UserError."""
    return loaded(samples, order, evaluation_batch, workers, pin=pin)


def training_loader(
    samples: Training, order: TrainOrder, *, workers: int, pin: bool = False
) -> AbstractContextManager[Callable[[], Iterator[Batch]]]:
    """Within it `training_batches`, as often as they are asked for, by the same processes."""
    return loader(samples, order, partial(_collated, TASKS[samples.split.task].batch), workers, pin=pin)


def evaluation_loader(
    samples: Evaluation, order: EvaluationOrder, *, workers: int, pin: bool = False
) -> AbstractContextManager[Callable[[], Iterator[EvaluationBatch]]]:
    """Within it `evaluation_batches`, as often as they are asked for, by the same processes."""
    return loader(samples, order, evaluation_batch, workers, pin=pin)


def _tied(parent: int, place: Path, worker: int) -> None:
    """A worker ends with the process that it loads for and not by Ctrl-C before it; its sockets lie in a place that is
    cleared away.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tempfile.tempdir = str(place)
    die_with(parent)


def loaded(
    samples: Dataset[T], order: Order, collate: Callable[[list[T]], U], workers: int, *, pin: bool
) -> Iterator[U]:
    """The batches of order, made by so many processes; the result does not depend on their number. Raises UserError."""
    with loader(samples, order, collate, workers, pin=pin) as batches:
        yield from batches()


@contextmanager
def loader(
    samples: Dataset[T], order: Order, collate: Callable[[list[T]], U], workers: int, *, pin: bool
) -> Iterator[Callable[[], Iterator[U]]]:
    """Within it the batches of order from the first on, as often as they are asked for, one time after the other.

    The processes that make them are started when they are first asked for, and end with it.
    """
    own = torch.Generator()  # otherwise the loader draws its workers' seeds from the global one
    with temporary() if workers else nullcontext(Path()) as place:
        made: DataLoader[U] = DataLoader(
            samples,  # type: ignore[arg-type]
            batch_sampler=order,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin,
            persistent_workers=workers > 0,
            generator=own,
            worker_init_fn=partial(_tied, os.getpid(), place),
        )
        held = [made]
        del made
        try:
            yield lambda: _told(held[0])
        finally:
            held.clear()  # its processes end before their place goes


def _told(batches: Iterable[U]) -> Iterator[U]:
    """The same. Raises UserError where a process that makes them did, or is gone."""
    try:
        yield from batches
    except UserError as error:  # from a worker it comes with its traceback as text
        raise UserError(str(error).rpartition("UserError: ")[2].strip()) from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise UserError(
            "a process that loads samples has ended before its time, perhaps for want of memory; lower 'workers'"
        ) from error
