"""A data set looked at before anything is done with it: its format, what it holds, every fault, and its labels drawn on
a few pictures.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fnatool import terminal
from fnatool.data.checking import LookedAt, looked_at, require_use
from fnatool.data.formats import FORMATS
from fnatool.data.options import USUAL, DataOptions
from fnatool.data.split import Fault, Item, Split, usable
from fnatool.escaping import shown
from fnatool.files.atomic import replacing, require_writable, write_text
from fnatool.tasks import drawing
from fnatool.tasks.reading import DataSource, require_format, require_there, source_of, sources_of
from fnatool.tasks.table import TASKS, require_task
from passes.check.finding import Finding
from passes.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

LISTED = 1000  # faults of a split in the document for programs
DRAWN = 10  # pictures of a split on a sheet
PNG = ".png"


@dataclass(frozen=True, kw_only=True)
class CheckDataOptions:
    """What the labels are for (None: told by the layout, where it leaves no choice), and how they are read.

    sheet: a PNG to write, on which labels are drawn on a few pictures of each split, drawn by `seed`; force: it may
    replace a file.
    """

    task: str | None = None
    reading: DataOptions = USUAL
    sheet: Path | None = None
    seed: int = 0
    force: bool = False


@dataclass(frozen=True)
class SplitReport:
    """What a split holds, how often it has each label, its faults, and what would be left out for them."""

    split: Split
    pictures: int
    labels: Mapping[str, int]
    counted: str  # what a label is the label of
    samples_left_out: int
    entries_left_out: int

    @property
    def findings(self) -> list[Finding]:
        """What is wrong."""
        return [fault.finding for fault in self.split.faults]

    def to_json(self) -> dict[str, object]:
        """For programs."""
        rows = [{"code": one.code, "where": one.where, "message": one.message} for one in self.findings[:LISTED]]
        return {
            "split": self.split.name,
            "pictures": self.pictures,
            "samples": self.split.found,
            "boxes": self.split.entries,
            "counted": self.counted,
            "labels": dict(self.labels),
            "notes": list(self.split.notes),
            "left_out": {"samples": self.samples_left_out, "boxes": self.entries_left_out},
            "faults": len(self.split.faults),
            "faults_by_code": dict(sorted(Counter(one.code for one in self.findings).items())),
            "first_faults": rows,
        }


@dataclass(frozen=True)
class DataReport:
    """A data set: where it is, its task, the name of its format, its classes and joints, and its splits."""

    root: Path
    task: str
    format: str
    classes: tuple[str, ...]
    joints: tuple[str, ...]
    splits: tuple[SplitReport, ...]
    sheet: Path | None = None

    @property
    def passed(self) -> bool:
        """Nothing is wrong."""
        return not any(split.split.faults for split in self.splits)

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "data": str(self.root),
            "task": self.task,
            "format": self.format,
            "classes": list(self.classes),
            "joints": list(self.joints),
            "passed": self.passed,
            "splits": [split.to_json() for split in self.splits],
            "sheet": None if self.sheet is None else str(self.sheet),
        }

    def write(self, path: Path | str, *, force: bool = False) -> None:
        """The same as a JSON file."""
        write_text(Path(path), json.dumps(self.to_json(), indent=1) + "\n", force=force)


def check_data(root: Path | str, *, options: CheckDataOptions | None = None) -> DataReport:
    """What is in a data set, every file of which has been looked at.

    Raises UserError where it is in no format, in several, or for several tasks of which none is named, and where its
    structure cannot be read; what is wrong with single files and labels are its faults.
    """
    options, root = options or CheckDataOptions(), Path(root)
    require_there(root)
    if options.sheet is not None:
        _require_sheet(options.sheet, force=options.force)
    source = _source(root, options)
    splits = _read(source)
    with terminal.progress(
        "looking at the data", sum(len({item.image for item in split.items}) for split in splits)
    ) as advance:
        seen = list(looked_at(splits, progress=lambda done, total: advance(1)))
    found = DataReport(
        root=root,
        task=source.task,
        format=source.format,
        classes=splits[0].classes,
        joints=splits[0].joints,
        splits=tuple(_report(one) for one in seen),
        sheet=options.sheet,
    )
    if options.sheet is not None:
        _write_sheet(options.sheet, [one.split for one in seen], options)
    return found


def _source(root: Path, options: CheckDataOptions) -> DataSource:
    """What reads the data, for the task that is named or the only one it may be for."""
    if options.reading.format is not None:
        require_format(options.reading.format)
    if options.task is not None:
        require_task(options.task)
        return source_of(root, options.task, options.reading)
    if root.is_file():
        raise UserError(f"'{root}' is a file; say with --task what its labels are for")
    found = sources_of(root, options.reading)
    tasks = list(dict.fromkeys(one.task for one in found))
    if len(tasks) > 1:
        rows = " or ".join(
            f"{task} ({', '.join(FORMATS[one.format].said for one in found if one.task == task)})" for task in tasks
        )
        raise UserError(f"'{root}' may be for {rows}; say with --task which one is meant")
    return source_of(root, tasks[0], options.reading)


def _read(source: DataSource) -> list[Split]:
    """All splits, with the classes of the first."""
    splits: list[Split] = []
    for read in source.sources.values():
        splits.append(read(splits[0].classes if splits else None))
    return splits


def _report(seen: LookedAt) -> SplitReport:
    split = _with_use(seen)
    left = usable(split)
    counts = Counter(label for item in split.items for label in item.labels_in(split, seen.looks[item.image]))
    return SplitReport(
        split=split,
        pictures=len({item.image for item in split.items}),
        labels={name: counts[number] for number, name in enumerate(TASKS[split.task].labels_of(split))},
        counted=type(split.items[0]).counted if split.items else Item.counted,
        samples_left_out=split.found - len(left.items),
        entries_left_out=left.entries_left_out,
    )


def _with_use(seen: LookedAt) -> Split:
    """The split; where nothing can be learnt from it, that is a fault too."""
    try:
        require_use(usable(seen.split), seen.values)
    except UserError as error:
        finding = Finding("error", "no-use", seen.split.name, str(error))
        return replace(seen.split, faults=(*seen.split.faults, Fault(finding)))
    return seen.split


# --- the sheet ---


def _require_sheet(path: Path, *, force: bool) -> None:
    if path.suffix.lower() != PNG:
        raise UserError(f"'{path}': a contact sheet is a picture; give a file that ends in {PNG}")
    require_writable(path, force=force)


def _write_sheet(path: Path, splits: Sequence[Split], options: CheckDataOptions) -> None:
    """The file is the sheet, or what it was before. Raises UserError where no picture is whole."""
    chosen = [
        (split, item) for index, split in enumerate(splits) for item in _chosen(usable(split), [options.seed, index])
    ]
    if not chosen:
        raise UserError(f"no picture in '{splits[0].root}' is without fault, so there is none to draw labels on")
    (sheet,) = drawing.contact_sheets(_drawn(chosen), len(chosen))
    made = io.BytesIO()
    sheet.save(made, "PNG")
    with replacing(path, force=options.force) as (file,):
        file.write(made.getvalue())


def _chosen(split: Split, seed: Sequence[int]) -> list[Item]:
    """A few items of a split, those with labels first, in their order."""
    drawn = np.random.default_rng(seed).permutation(len(split.items))
    first = sorted(drawn.tolist(), key=lambda index: split.items[index].entries == 0)[: min(DRAWN, len(split.items))]
    return [split.items[index] for index in sorted(first)]


def _drawn(chosen: Sequence[tuple[Split, Item]]) -> Iterator[tuple[str, Image.Image]]:
    from fnatool.tasks.samples import picture

    for split, item in chosen:
        task = TASKS[split.task]
        # all that is drawn of it are names
        named = task.description.model_construct(classes=split.classes, joints=split.joints)
        marked = task.mark(picture(split, item), task.truth(split, item), named)
        yield f"{split.name}: {shown(Path(item.image).name)}", marked
