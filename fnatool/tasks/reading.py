"""`read`: a folder of data in one of the layouts of a task as a Split, split by a seed where it is not split already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fnatool.data.folders import special
from fnatool.data.split import Item, Sources, Split, bad_data
from fnatool.tasks.table import TASKS
from passes.errors import Listed, UserError


@dataclass(frozen=True)
class Holdout:
    """Where data is not split: the share kept back for validation, drawn by a seed (of every class the same share, at least one)."""

    share: float = 0.1
    seed: int = 0


def read(
    root: Path | str, *, task: str, split: str = "train", classes: Sequence[str] | None = None,
    holdout: Holdout | None = None, images: Path | None = None,
) -> Split:  # fmt: skip
    """The split ("train", "val", "test") of the data at root, its faults listed; only a structure that cannot be read raises UserError.

    root is a folder in one of the layouts of task, or for detection and pose the annotation file of that split, whose images are in
    `images` or near it. classes fixes the classes and their order (those of a model, or of the training split); None: the data's own.
    Where the data has no val split, or is not split at all, val is the part of it that holdout keeps back, and train the rest.
    """
    root = Path(root)
    kind = special(root)
    if kind is not None and not root.is_dir():
        raise UserError(f"'{root}' is {kind}; give the folder of the data")
    if not root.exists():
        raise UserError(f"'{root}' does not exist; give the folder of the data")
    if root.is_file():
        read_file = TASKS[task].read_file
        if read_file is None:
            raise Listed(f"'{root}' is a file; {task} data is a folder:", *_looked_for(task))
        return _filled(read_file(root, images, name=split, classes=classes))
    sources = _sources(root, task)
    if split in sources and (split != "train" or "val" in sources):
        return _filled(sources[split](classes))
    whole = "train" if "train" in sources else "all"
    if whole not in sources or split == "test":
        raise UserError(f"'{root}' has no {split} data, only {', '.join(sources)}")
    entire = _filled(sources[whole](classes))
    part = _held_out(entire, split, holdout or Holdout())
    if not part.items:
        count = len({item.image for item in entire.items})
        raise UserError(f"'{root}' has no {split} data of its own, and of its {count} image(s) none is kept back for it; add a val split")
    return part


def read_both(
    root: Path | str, *, task: str, classes: Sequence[str] | None = None, holdout: Holdout | None = None
) -> tuple[Split, Split]:  # fmt: skip
    """The train and the val split of the data at root, with the same classes and joints. Raises UserError as `read` does."""
    train = read(root, task=task, classes=classes, holdout=holdout)
    val = read(root, task=task, split="val", classes=train.classes, holdout=holdout)
    if train.joints != val.joints:
        raise UserError(f"'{root}' has other keypoints for val ({', '.join(val.joints)}) than for train ({', '.join(train.joints)})")
    return train, val


def _sources(root: Path, task: str) -> Sources:
    for layout in TASKS[task].layouts.values():
        sources = layout.find(root)
        if sources:
            return sources
    raise Listed(f"'{root}' is in no layout of {task} data; what was looked for:", *_looked_for(task))


def _looked_for(task: str) -> list[str]:
    return [f"  {name}: {layout.looked_for}" for name, layout in TASKS[task].layouts.items()]


def _filled(split: Split) -> Split:
    if not split.items:
        if split.faults:
            raise bad_data([split])
        notes = "".join(f"; {note}" for note in split.notes)
        raise UserError(f"'{split.root}' has no image for {split.name}{notes}")
    return split


def _held_out(whole: Split, name: str, holdout: Holdout) -> Split:
    """The part of a split that val is, or train: images are dealt, class by class, so that no image is in both."""
    groups: dict[int, list[str]] = {}
    for item in whole.items:
        groups.setdefault(item.group, []).append(item.image)
    kept: set[str] = set()
    for group, names in groups.items():
        different = sorted(set(names))
        count = min(max(round(holdout.share * len(different)), 1), len(different) - 1) if holdout.share else 0
        kept.update(np.random.default_rng([holdout.seed, group]).permutation(np.array(different, object))[:count])
    indices = [index for index, item in enumerate(whole.items) if (item.image in kept) == (name == "val")]
    return _part(whole, name, indices)


def _part(whole: Split, name: str, indices: Sequence[int]) -> Split:
    """The items at indices as a split; what spoils no item is counted with train."""
    place = {index: new for new, index in enumerate(indices)}
    items: tuple[Item, ...] = tuple(whole.items[index] for index in indices)
    loose = name == "train"
    faults = [
        replace(fault, items=tuple(place[index] for index in fault.items if index in place))
        for fault in whole.faults
        if (any(index in place for index in fault.items) if fault.items else loose)
    ]
    samples = sum(fault.samples for fault in faults)
    boxes = _boxes(items) + (whole.entries - _boxes(whole.items) if loose else 0)
    return replace(whole, name=name, items=items, faults=tuple(faults), found=len(items) + samples, entries=boxes if whole.entries else 0)


def _boxes(items: Sequence[Item]) -> int:
    return sum(item.entries for item in items)
