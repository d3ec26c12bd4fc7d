"""What the tasks' samples have in common: pictures from files, and batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from fnatool.data import images
from fnatool.data.split import Item, Split
from fnatool.tasks.bare import plain
from fnatool.tasks.task import Sample
from passes.errors import UserError

T = TypeVar("T")


def picture(split: Split, item: Item) -> Image.Image:
    """The image of an item. Raises UserError where it is none any more."""
    return readable(images.rgb, split.path(item.image))


def tensor(split: Split, item: Item) -> torch.Tensor:
    """The same as a tv_tensors.Image, uint8 [3, h, w]."""
    found: torch.Tensor = F.to_image(picture(split, item))
    return found


def readable(read: Callable[[Path], T], path: Path) -> T:
    """What is read from a file that has been checked. Raises UserError where that has become impossible."""
    try:
        return read(path)
    except images.Unreadable as error:
        raise UserError(f"'{path}' was whole when it was checked, and now {error}; has it been changed?") from error


def stacked(samples: Sequence[Sample], plural: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """`images` and everything else of the samples along a new first axis. plural: the names in a batch that are others
    than in a sample.
    """
    names = {"image": "images", **plural}
    return {names.get(name, name): torch.stack([plain(one[name]) for one in samples]) for name in samples[0]}
