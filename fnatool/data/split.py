"""What a data set holds, as facts: a Split of Items, and the Faults that reading and checking found in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from passes.check.finding import Finding
from passes.errors import Listed

IGNORE = 255  # in a mask: this pixel counts for nothing
SHOWN = 10  # faults in a message

Floats = npt.NDArray[np.float32]
Size = tuple[int, int]  # height, width


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image and the index of its class."""

    image: str  # like every path here relative to the split's root, or absolute
    label: int


@dataclass(frozen=True, slots=True)
class Masked:
    """An image and the file with the class of every pixel."""

    image: str
    mask: str


@dataclass(frozen=True, slots=True)
class Boxed:
    """An image and its n objects."""

    image: str
    size: Size  # as the annotations say
    boxes: Floats  # [n, 4] left, top, right, bottom edges in pixels, within the image
    labels: npt.NDArray[np.int64]  # [n] indices of classes
    crowd: npt.NDArray[np.bool_]  # [n] a region of many such objects
    areas: Floats  # [n] pixels of the object itself
    where: str = ""  # the entry of the image in the annotation file


@dataclass(frozen=True, slots=True)
class Posed:
    """An image, the box around one object in it, and the object's J joints."""

    image: str
    size: Size
    box: Floats  # [4] left, top, right, bottom
    points: Floats  # [J, 2] x, y with (0, 0) at the corner of the first pixel: COCO's numbers, which count from its middle, plus 0.5
    seen: npt.NDArray[np.uint8]  # [J] 0 not labelled, 1 labelled but hidden, 2 in sight
    area: float
    where: str = ""


Item = Labelled | Masked | Boxed | Posed


@dataclass(frozen=True)
class Fault:
    """Something broken, and what it makes useless."""

    finding: Finding
    items: tuple[int, ...] = ()  # the indices of items that cannot be used
    samples: int = 0  # samples that never became items
    entries: int = 0  # boxes that were left out of their item


@dataclass(frozen=True)
class Split:
    """One part of a data set ("train", "val"), as read: `items` may still hold broken ones, until `checking.checked` has seen it."""

    task: str
    name: str
    root: Path
    layout: str
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    faults: tuple[Fault, ...] = ()
    found: int = 0  # samples, whether they can be used or not
    entries: int = 0  # boxes, whether they can be used or not
    codes: bytes = b""  # segmentation: class (or IGNORE) for each of the 256 values of a mask, see UNKNOWN
    joints: tuple[str, ...] = ()  # pose: their names
    notes: tuple[str, ...] = ()  # what is not as usual and no fault, a line each
    digest: str = ""  # of names, sizes and labels, once it has been checked

    def path(self, file: str) -> Path:
        """Where a file that an item names lies."""
        return self.root / file

    @property
    def left_out(self) -> int:
        """Samples that were found and are no items."""
        return self.found - len(self.items)

    @property
    def entries_left_out(self) -> int:
        """Boxes that were found and are in no item, the ones of unusable images too."""
        return self.entries - sum(len(item.boxes) for item in self.items if isinstance(item, Boxed))


UNKNOWN = 254  # in `codes`: a value that no mask should have


class BadData(Listed):
    """Broken data, all of it in `findings`; the message shows the first few and how many there are."""

    def __init__(self, lines: Sequence[str], findings: Sequence[Finding]) -> None:
        super().__init__(*lines)
        self.findings = tuple(findings)


def bad_data(splits: Sequence[Split]) -> BadData:
    """The error about the faults of some splits."""
    findings = [fault.finding for split in splits for fault in split.faults]
    samples = sum(split.found - len(usable(split).items) for split in splits)
    boxes = sum(usable(split).entries_left_out for split in splits)
    lost = [f"{samples:,} of {sum(s.found for s in splits):,} samples"] if samples else []
    lost += [f"{boxes:,} of {sum(s.entries for s in splits):,} boxes"] if boxes else []
    plural = "s" if len(findings) > 1 else ""
    lines = [f"'{splits[0].root}' has {len(findings):,} fault{plural} in its data ({', '.join(lost) or 'no sample'} cannot be used):"]
    lines += [f"  {finding.where}: {finding.message}" for finding in findings[:SHOWN]]
    lines += [f"  and {len(findings) - SHOWN:,} more"] if len(findings) > SHOWN else []
    lines += ["mend the data, or go on without what is broken: --skip-bad, or 'skip_bad = true' in the config's [data]"]
    return BadData(lines, findings)


def usable(split: Split) -> Split:
    """The split without the items that a fault names; `found`, `entries` and `faults` stay, so that nothing is lost sight of."""
    broken = {index for fault in split.faults for index in fault.items}
    return replace(split, items=tuple(item for index, item in enumerate(split.items) if index not in broken))


def summary(split: Split) -> str:
    """'train: 1,197 of 1,200 samples (3 left out), 8,995 of 9,000 boxes (5 left out)'."""
    text = f"{split.name}: {_counted(len(split.items), split.found, 'samples')}"
    if split.entries:
        text += f", {_counted(split.entries - split.entries_left_out, split.entries, 'boxes')}"
    return text


def said(splits: Sequence[Split]) -> list[str]:
    """The summaries of the splits in a line, and each note on some of them in another."""
    notes: dict[str, list[str]] = {}
    for split in splits:
        for note in split.notes:
            notes.setdefault(note, []).append(split.name)
    return ["; ".join(map(summary, splits)), *(f"{', '.join(names)}: {note}" for note, names in notes.items())]


def spread(split: Split, count: int) -> Split:
    """So many of the items, all where there are no more: from all over the split, whose first may be of one class."""
    wanted = min(count, len(split.items))
    return replace(split, items=tuple(split.items[k * len(split.items) // wanted] for k in range(wanted)))


def _counted(used: int, found: int, what: str) -> str:
    return f"{used:,} {what}" if used == found else f"{used:,} of {found:,} {what} ({found - used:,} left out)"
