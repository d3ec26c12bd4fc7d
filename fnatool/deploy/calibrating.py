"""The samples that int8 is made of, and those that it is judged by: as the network takes them, read when they are
needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from fnatool import terminal
from fnatool.data import images, unlabelled
from fnatool.data.unlabelled import Unlabelled
from fnatool.deploy.network import Core
from fnatool.deploy.options import FEWEST_SAMPLES, DeployOptions
from fnatool.model.analysed import analyse_model
from fnatool.model.unlabelled import UnlabelledOptions, find_unlabelled, folder_options
from fnatool.runtime.quantising import Feeds
from fnatool.tasks.bare import plain
from fnatool.tasks.description import Description, is_placeholder
from fnatool.tasks.pixels import to_array
from fnatool.tasks.samples import picture
from fnatool.tasks.table import TASKS
from passes.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

JUDGED = 0.2  # the share of the samples that are kept back to judge by
Shown = tuple["Image.Image", Any]  # a picture, and the item of a data set that it belongs to


@dataclass(frozen=True)
class CalibrationSamples:
    """What values are looked at on, and what it is judged by: batches for the network, and pictures where they are
    such.

    said: where they are from, in words.
    """

    used: Callable[[], Iterator[Feeds]]
    back: Callable[[], Iterator[Feeds]]
    pictures: Callable[[], Iterator[tuple[str, Image.Image]]]
    count: int
    said: str


def samples_for(made: Core, options: DeployOptions) -> CalibrationSamples:
    """The samples that the options name. Raises UserError where there are none, too few, or such as it cannot take."""
    if options.images is None:
        return _of_data(made, options)
    found = _found(made, options, options.images)
    with terminal.progress("reading samples", min(options.samples, len(found))) as done:
        found = unlabelled.drawn(found, options.samples, seed=options.seed, done=done)
    _require_enough(len(found), f"'{options.images}'")
    used, back = unlabelled.parted(found, JUDGED)
    if made.described is None:
        return CalibrationSamples(
            partial(_batches, made, used), partial(_batches, made, back), lambda: iter(()), len(used), used.summary()
        )
    return CalibrationSamples(
        partial(_fed, made, partial(_pictures, used)), partial(_fed, made, partial(_pictures, back)),
        partial(_named, back), len(used), used.summary(),
    )  # fmt: skip


def _found(made: Core, options: DeployOptions, root: Path) -> Unlabelled:
    wanted = UnlabelledOptions(images=root) if made.described is not None else folder_options(root)
    inputs = {tensor.name: made.shapes[tensor.name] for tensor in made.model.graph.inputs if tensor.name in made.shapes}
    return find_unlabelled(made.model, analyse_model(made.model, inputs), wanted)


def _require_enough(count: int, where: str) -> None:
    if count < FEWEST_SAMPLES:
        raise UserError(f"int8 is made of at least {FEWEST_SAMPLES} samples, and {where} has {count}")


def _of_data(made: Core, options: DeployOptions) -> CalibrationSamples:
    """Of the training pictures of a data set: those that figures are told of are others."""
    from fnatool.data import checking
    from fnatool.tasks import reading

    described, data = made.described, options.data
    if described is None or data is None:
        raise UserError("--data is for models with a task; give pictures, or arrays, with --images")
    classes = None if is_placeholder(described.classes) else described.classes
    split = reading.read(data, task=described.task, split="train", classes=classes, options=options.reading)
    order = np.random.default_rng(options.seed).permutation(len(split.items))[: options.samples]
    split = replace(split, items=tuple(split.items[place] for place in sorted(order.tolist())))
    (split,) = checking.checked([split], progress=lambda done, total: None)
    _require_enough(len(split.items), f"'{data}'")

    def shown(step: Sequence[Any]) -> Iterator[Shown]:
        return ((picture(split, item), item) for item in step)

    every = round(1 / JUDGED)
    back, used = split.items[::every], [item for place, item in enumerate(split.items) if place % every]
    said = f"{len(used)} training pictures of '{data}'"
    return CalibrationSamples(
        partial(_fed, made, partial(shown, used)),
        partial(_fed, made, partial(shown, back)),
        lambda: iter(()),
        len(used),
        said,
    )


def _batches(made: Core, data: Unlabelled) -> Iterator[Feeds]:
    """The samples as arrays for all inputs, as many as the network takes at once."""
    count = made.batch.usual
    for batch in data.batches(count):
        yield {
            name: _filled(values, count) if values.ndim and len(values) < count else values
            for name, values in batch.items()
        }


def _pictures(data: Unlabelled) -> Iterator[Shown]:
    return ((images.rgb(data.root / place.file), None) for place in data.places)


def _named(data: Unlabelled) -> Iterator[tuple[str, Image.Image]]:
    return ((f"'{place.file}'", images.rgb(data.root / place.file)) for place in data.places)


def _fed(made: Core, shown: Callable[[], Iterator[Shown]]) -> Iterator[Feeds]:
    """What the network takes of pictures, as evaluation shows them, as many as it takes at once."""
    torch.set_num_threads(1)  # this runs in a child, where torch's own threads are not
    described, size = made.described, made.size
    assert described is not None
    assert size is not None
    (tensor,) = (tensor for tensor in made.model.graph.inputs if tensor.name in made.shapes)
    held: list[np.ndarray] = []
    for image, item in shown():
        held.append(_taken(image, item, described, size=size))
        if len(held) == made.batch.usual:
            yield {tensor.name: np.concatenate(held).astype(tensor.dtype)}
            held = []
    if held:
        yield {tensor.name: _filled(np.concatenate(held).astype(tensor.dtype), made.batch.usual)}


def _taken(image: Image.Image, item: Any, described: Description, *, size: tuple[int, int]) -> np.ndarray:
    shown, _ = TASKS[described.task].show(F.to_image(image), described, size, item)
    return to_array(plain(shown)[None].numpy(), described.input)


def _filled(values: np.ndarray, count: int) -> np.ndarray:
    """So many samples, the last one repeated."""
    return np.concatenate([values, np.repeat(values[-1:], count - len(values), axis=0)])
