"""Samples for a DataLoader, to train on and to evaluate on, and the batches that become of them.

Their keys are (epoch, index); a training sample is a function of (seed, epoch, index) alone, whichever process makes it and whatever
was drawn before. Images stay uint8 up to the device: a quarter of the bytes on the way.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from fnatool.data import images
from fnatool.data.placement import Placement, Size
from fnatool.data.split import Boxed, Item, Labelled, Masked, Posed, Split
from fnatool.files.atomic import temporary
from fnatool.runtime.parent import die_with
from fnatool.tasks.description import Classification, Description, Pose
from fnatool.tasks.pixels import fill
from fnatool.training import augment
from fnatool.training.augment import Augment, Sample
from fnatool.training.order import EvaluationOrder, Key, TrainOrder
from passes.errors import UserError

T = TypeVar("T")
U = TypeVar("U")
Batch = dict[str, torch.Tensor]
Truth = int | npt.NDArray[np.uint8] | Boxed | Posed


@dataclass(frozen=True)
class Training(Dataset[Sample]):
    """Training samples of a checked split for a model: image uint8 [3, *size] and

    classification: `label` []; segmentation: `mask` uint8 [*size]; detection: `boxes` [n, 4] in pixels of the input and `labels` [n];
    pose: `points` [J, 2] in pixels of the input and `weights` [J].
    full: the size that evaluation fits an image into, where it is not the one of training (segmentation and detection).
    """

    split: Split
    description: Description
    size: Size
    augment: Augment
    seed: int
    full: Size | None = None

    def __post_init__(self) -> None:
        require_fit(self.split, self.description)

    def __len__(self) -> int:
        return len(self.split.items)

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        with drawn(self.seed, epoch, index):
            return MAKE[self.split.task](self, self.split.items[index])


@dataclass(frozen=True)
class Shown:
    """What a model is shown of an image: uint8 [3, H, W], where the image lies in it, and what is true of the image."""

    index: int
    image: torch.Tensor
    placement: Placement
    truth: Truth


@dataclass(frozen=True)
class EvaluationBatch:
    """Images uint8 [N, 3, H, W] with, for each, its index in the split, its placement, and what is true."""

    images: torch.Tensor
    indices: tuple[int, ...]
    placements: tuple[Placement, ...]
    truths: tuple[Truth, ...]


@dataclass(frozen=True)
class Evaluation(Dataset[Shown]):
    """What is shown of each image of a checked split, without chance.

    truth is, by task: the label; the classes of the pixels of the whole image, uint8; the Boxed or Posed item.
    """

    split: Split
    description: Description
    size: Size

    def __post_init__(self) -> None:
        require_fit(self.split, self.description)

    def __len__(self) -> int:
        return len(self.split.items)

    def __getitem__(self, key: Key) -> Shown:
        index = key[1]
        item = self.split.items[index]
        picture = F.to_image(_picture(self.split, item))
        box = item.box if isinstance(item, Posed) else None
        shown, placement = show(picture, self.description, self.size, box=box)
        truth: Truth = item.label if isinstance(item, Labelled) else _mask(self.split, item) if isinstance(item, Masked) else item
        return Shown(index, shown.as_subclass(torch.Tensor), placement, truth)


def require_fit(split: Split, description: Description) -> None:
    """The data speaks of what the model is for. Raises UserError."""
    where = f"the data in '{split.root}'"
    if split.task != description.task:
        raise UserError(f"{where} is for {split.task}, the model for {description.task}")
    what, data, model = (
        ("joints", split.joints, description.joints) if isinstance(description, Pose) else ("classes", split.classes, description.classes)
    )
    for number, (one, other) in enumerate(zip_longest(data, model, fillvalue="nothing")):
        if one != other:
            counts = f"{where} has {len(data)} {what}, the model {len(model)}"
            raise UserError(f"{counts}; number {number} is '{one}' in the data and '{other}' in the model")


def show(
    image: torch.Tensor, description: Description, size: Size, *, box: npt.NDArray[np.float32] | None = None
) -> tuple[torch.Tensor, Placement]:
    """What the model is shown of an image, uint8 [3, h, w] → [3, *size], and where the image lies in it.

    For pose, box is that of the object. The one way for evaluation and for prediction.
    """
    colour = fill(description.input)
    if isinstance(description, Classification):
        return augment.middle(image, size, description.crop, colour)
    if isinstance(description, Pose):
        height, width = image.shape[-2:]
        around = np.array([0, 0, width, height], np.float32) if box is None else box
        none = augment.points_of(np.zeros((0, 2), np.float32), (height, width))
        shown, _, placement = augment.around(image, none, torch.from_numpy(around), size=size, by=(description.padding, 0.0), fill=colour)
        return shown, placement
    return augment.fitted(image, size, colour)


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


# --- training samples, task by task ---


def _picture(split: Split, item: Item) -> Image.Image:
    return _readable(images.rgb, split.path(item.image))


def _mask(split: Split, item: Masked) -> npt.NDArray[np.uint8]:
    """The classes of the pixels, [h, w]."""
    return np.frombuffer(split.codes, np.uint8)[_readable(images.mask, split.path(item.mask))]


def _readable(read: Callable[[Path], T], path: Path) -> T:
    try:
        return read(path)
    except images.Unreadable as error:
        raise UserError(f"'{path}' was whole when it was checked, and now {error}; has it been changed?") from error


def _classified(of: Training, item: Item) -> Sample:
    assert isinstance(item, Labelled)
    image = augment.cut_out(_picture(of.split, item), of.size, of.augment)
    return {"image": image, "label": torch.tensor(item.label)}


def _segmented(of: Training, item: Item) -> Sample:
    assert isinstance(item, Masked)
    mask = tv_tensors.Mask(torch.from_numpy(_mask(of.split, item)))
    sample: Sample = {"image": F.to_image(_picture(of.split, item)), "mask": mask}
    return augment.scaled(sample, of.size, of.augment, full=of.full or of.size, fill=fill(of.description.input))


def _detected(of: Training, item: Item) -> Sample:
    assert isinstance(item, Boxed)
    labels = torch.from_numpy(np.where(item.crowd, augment.NEITHER, item.labels))
    sample: Sample = {"image": F.to_image(_picture(of.split, item)), "boxes": augment.boxes_of(item.boxes, item.size), "labels": labels}
    return augment.scaled(sample, of.size, of.augment, full=of.full or of.size, fill=fill(of.description.input))


def _posed(of: Training, item: Item) -> Sample:
    assert isinstance(item, Posed)
    assert isinstance(of.description, Pose)
    sample: Sample = {
        "image": F.to_image(_picture(of.split, item)),
        "points": augment.points_of(item.points, item.size),
        "box": torch.from_numpy(item.box),
        "seen": torch.from_numpy(item.seen),
    }
    padding, pairs = of.description.padding, of.description.flip_pairs
    return augment.posed(sample, of.size, of.augment, padding=padding, fill=fill(of.description.input), pairs=pairs)


MAKE: Mapping[str, Callable[[Training, Item], Sample]] = {
    "classification": _classified,
    "segmentation": _segmented,
    "detection": _detected,
    "pose": _posed,
}


# --- batches ---


def training_batch(samples: Sequence[Sample]) -> Batch:
    """`images` uint8 [N, 3, H, W] and, stacked: `labels` [N] | `masks` [N, H, W] | `points` [N, J, 2] and `weights` [N, J] |

    `boxes` [N, M, 4] and `labels` [N, M], M being the most boxes of an image; NO_LABEL where there is none.
    """
    plain = [{name: value.as_subclass(torch.Tensor) for name, value in sample.items()} for sample in samples]
    batch = {"images": torch.stack([sample["image"] for sample in plain])}
    if "boxes" in plain[0]:
        boxes, labels = ([sample[name] for sample in plain] for name in ("boxes", "labels"))
        batch["boxes"] = torch.nn.utils.rnn.pad_sequence(boxes, batch_first=True)
        batch["labels"] = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=augment.NO_LABEL)
        return batch
    plural = {"label": "labels", "mask": "masks"}
    return batch | {plural.get(name, name): torch.stack([sample[name] for sample in plain]) for name in plain[0] if name != "image"}


def evaluation_batch(shown: Sequence[Shown]) -> EvaluationBatch:
    """The images stacked, all else in tuples."""
    stacked = torch.stack([one.image for one in shown])
    return EvaluationBatch(
        stacked, tuple(one.index for one in shown), tuple(one.placement for one in shown), tuple(one.truth for one in shown)
    )


Order = TrainOrder | EvaluationOrder


def training_batches(samples: Training, order: TrainOrder, *, workers: int, pin: bool = False) -> Iterator[Batch]:
    """The batches of order; neither the number of workers nor where order starts changes what is in a batch. Raises UserError."""
    return _batches(samples, order, training_batch, workers, pin)


def evaluation_batches(samples: Evaluation, order: EvaluationOrder, *, workers: int, pin: bool = False) -> Iterator[EvaluationBatch]:
    """Batches of all samples of this process, in order. Raises UserError."""
    return _batches(samples, order, evaluation_batch, workers, pin)


def _tied(parent: int, place: Path, worker: int) -> None:
    """A worker ends with the process that it loads for and not by Ctrl-C before it; its sockets lie in a place that is cleared away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tempfile.tempdir = str(place)
    die_with(parent)


def _batches(samples: Dataset[T], order: Order, collate: Callable[[list[T]], U], workers: int, pin: bool) -> Iterator[U]:
    own = torch.Generator()  # otherwise the loader draws its workers' seeds from the global one
    with temporary() if workers else nullcontext(Path()) as place:
        loader: DataLoader[U] = DataLoader(
            samples,  # type: ignore[arg-type]
            batch_sampler=order,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin,
            generator=own,
            worker_init_fn=partial(_tied, os.getpid(), place),
        )
        try:
            yield from loader
        except UserError as error:  # from a worker it comes with its traceback as text
            raise UserError(str(error).rpartition("UserError: ")[2].strip()) from error
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            raise UserError(
                "a process that loads samples has ended before its time, perhaps for want of memory; lower 'workers'"
            ) from error
