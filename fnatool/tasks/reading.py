"""`read`: a folder of data in one of the layouts of a task as a Split, split by a seed where it is not split
already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fnatool.data.folders import special
from fnatool.data.formats import FORMATS, layouts_of
from fnatool.data.options import USUAL, DataOptions
from fnatool.data.split import DataLayout, Item, Sources, Split, bad_data
from passes.errors import Listed, UserError


@dataclass(frozen=True)
class Holdout:
    """Where data is not split: the share kept back for validation, drawn by a seed (of every class the same share, at
    least one).
    """

    share: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class DataSource:
    """Where labelled data is: its folder or file, its task, the format it is in, and what reads each split, or
    "all".
    """

    root: Path
    task: str
    format: str
    sources: Sources


def read(
    root: Path | str, *, task: str, split: str = "train", classes: Sequence[str] | None = None,
    holdout: Holdout | None = None, images: Path | None = None, options: DataOptions = USUAL,
) -> Split:  # fmt: skip
    """The split ("train", "val", "test") of the data at root, its faults listed; only a structure that cannot be read
    raises UserError.

    root is a folder in one of the formats of the task, or a file that stands for data: COCO's json of that split, whose
    images are in `images` or near it, or YOLO's data.yaml. classes fixes the classes and their order (those of a model,
    or of the training split); None: the data's own. Where the data has no val split, or is not split at all, val is the
    part of it that holdout keeps back, and train the rest.
    """
    root = Path(root)
    require_there(root)
    if root.is_file():
        return _filled(_file_reader(root, task, options)(root, images, name=split, classes=classes))
    sources = source_of(root, task, options).sources
    if split in sources and (split != "train" or "val" in sources):
        return _filled(sources[split](classes))
    whole = "train" if "train" in sources else "all"
    if whole not in sources or split == "test":
        raise UserError(f"'{root}' has no {split} data, only {', '.join(sources)}")
    entire = _filled(sources[whole](classes))
    part = _held_out(entire, split, holdout or Holdout())
    if not part.items:
        count = len({item.image for item in entire.items})
        raise UserError(
            f"'{root}' has no {split} data of its own, and of its {count} image(s) none is kept back for it; "
            "add a val split"
        )
    return part


def require_there(root: Path) -> None:
    """There is a file or a folder. Raises UserError."""
    kind = special(root)
    if kind is not None and not root.is_dir():
        raise UserError(f"'{root}' is {kind}; give the folder of the data")
    if not root.exists():
        raise UserError(f"'{root}' does not exist; give the folder of the data")


def read_both(
    root: Path | str, *, task: str, classes: Sequence[str] | None = None, holdout: Holdout | None = None,
    options: DataOptions = USUAL,
) -> tuple[Split, Split]:  # fmt: skip
    """The train and the val split of the data at root, with the same classes and joints. Raises UserError as `read`
    does.
    """
    train = read(root, task=task, classes=classes, holdout=holdout, options=options)
    val = read(root, task=task, split="val", classes=train.classes, holdout=holdout, options=options)
    if train.joints != val.joints:
        raise UserError(
            f"'{root}' has other keypoints for val ({', '.join(val.joints)}) than for train ({', '.join(train.joints)})"
        )
    return train, val


# --- formats ---


def source_of(root: Path, task: str, options: DataOptions = USUAL) -> DataSource:
    """What reads the data in a folder, by the one format that it is in. Raises UserError where that is none, or
    several.
    """
    found, problem = _found(root, task, options)
    if len(found) > 1:
        names = " and ".join(f"{FORMATS[name].said} ('{name}')" for name in found)
        raise UserError(
            f"'{root}' has {task} data as {names}; say which one is meant, with --data-format or 'format' in "
            "the config's [data]"
        )
    if found:
        name, sources = next(iter(found.items()))
        return DataSource(root, task, name, sources)
    if problem is not None:
        raise problem.error
    raise Listed(f"'{root}' is in no layout of {task} data; what was looked for:", *_looked_for(task, options))


def sources_of(root: Path, options: DataOptions = USUAL) -> list[DataSource]:
    """What reads the data in a folder for each task that it may be for; those whose format many folders look like, only
    if no other is.

    Raises UserError where it is in no format, or is named after one that cannot be read.
    """
    tasks = list(dict.fromkeys(task for form in FORMATS.values() for task in form.tasks))
    if options.format is not None:
        require_format(options.format)
        tasks = list(FORMATS[options.format].tasks)
    found: list[DataSource] = []
    problem: _Problem | None = None
    for task in tasks:
        sources, other = _found(root, task, options, content=True)
        found += [DataSource(root, task, name, one) for name, one in sources.items()]
        problem = min(filter(None, (problem, other)), key=lambda one: one.general, default=None)
    least = min((_general(one.format, one.task) for one in found), default=None)
    if problem is not None and (least is None or problem.general < least):
        raise problem.error
    if least is not None:
        return [one for one in found if _general(one.format, one.task) == least]
    lines = [f"  {task}: {line.strip()}" for task in tasks for line in _looked_for(task, options)]
    raise Listed(f"'{root}' is in no layout of labelled data; what was looked for:", *lines)


def _general(name: str, task: str) -> int:
    return FORMATS[name].tasks[task].general


@dataclass(frozen=True)
class _Problem:
    """What keeps data of a format from being read, and how many folders look like that format."""

    error: UserError
    general: int


def _found(
    root: Path, task: str, options: DataOptions, *, content: bool = False
) -> tuple[dict[str, Sources], _Problem | None]:  # fmt: skip
    """By format what reads the data, the least general formats alone, and what kept another one from being read.

    Where several are found, and with `content` in any case, a name alone is not enough.
    """
    layouts = _asked(task, options)
    found: dict[str, Sources] = {}
    problem: _Problem | None = None
    for name, layout in layouts.items():
        try:
            sources = layout.find(root, options)
        except UserError as error:
            problem = problem or _Problem(error, layout.general)
        else:
            found |= {name: sources} if sources else {}
    least = min((layouts[name].general for name in found), default=0)
    found = {name: sources for name, sources in found.items() if layouts[name].general == least}
    if (len(found) > 1 or content) and options.format is None:
        sure = {name: sources for name, sources in found.items() if layouts[name].sure(root)}
        found = sure if sure or content else found
    return found, problem


def _asked(task: str, options: DataOptions) -> dict[str, DataLayout]:
    """The formats of the task, or the one that is asked for. Raises UserError where the task has it not."""
    layouts = layouts_of(task)
    if options.says_values and task != "segmentation":
        raise UserError(f"'background' and 'ignore' are said of masks; {task} has none")
    if options.format is None:
        return layouts
    require_format(options.format)
    if options.format not in layouts:
        raise UserError(
            f"there is no {task} data in the format '{options.format}'; its formats are {', '.join(layouts)}"
        )
    return {options.format: layouts[options.format]}


def require_format(name: str) -> None:
    """It is the name of a format. Raises UserError."""
    if name not in FORMATS:
        raise UserError(f"'{name}' is no format of data; there are {', '.join(FORMATS)}")


def _file_reader(file: Path, task: str, options: DataOptions) -> Callable[..., Split]:
    readers = [layout.file for layout in _asked(task, options).values() if layout.file is not None]
    if not readers:
        raise Listed(f"'{file}' is a file; {task} data is a folder:", *_looked_for(task, options))
    suiting = next((reader for reader in readers if file.suffix.lower() in reader.suffixes), readers[0])
    return suiting.read


def _looked_for(task: str, options: DataOptions) -> list[str]:
    return [f"  {FORMATS[name].said}: {layout.looked_for}" for name, layout in _asked(task, options).items()]


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
    return replace(
        whole,
        name=name,
        items=items,
        faults=tuple(faults),
        found=len(items) + samples,
        entries=boxes if whole.entries else 0,
    )


def _boxes(items: Sequence[Item]) -> int:
    return sum(item.entries for item in items)
