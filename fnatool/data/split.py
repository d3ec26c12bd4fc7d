"""What a data set holds, as facts: a Split of Items, and the Faults that reading and checking found in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fnatool.data.options import Colours, DataOptions
from fnatool.data.outlines import filled
from passes.check.finding import Finding
from passes.errors import Listed, UserError

IGNORE = 255  # in a mask: this pixel counts for nothing
UNKNOWN = 254  # in `Split.codes`: a value that no mask should have
SHOWN = 10  # faults in a message

Floats = npt.NDArray[np.float32]
Size = tuple[int, int]  # height, width


Flags = npt.NDArray[np.bool_]  # [256]: which values a mask holds
NO_VALUES = np.zeros(256, bool)


@dataclass(frozen=True)
class Look:
    """What looking at the files of an item has found; of a mask its values too, and a number for all of them."""

    findings: tuple[Finding, ...] = ()
    values: Flags = field(default_factory=lambda: NO_VALUES)
    content: int = 0


@dataclass(frozen=True, slots=True)
class Item:
    """An image and what is true of it: a kind of item is a class below this one, here or in the module of a task."""

    image: str  # like every path here relative to the split's root, or absolute
    counted: ClassVar[str] = "samples"  # what a label is the label of

    @property
    def files(self) -> tuple[str, ...]:
        """Those that the item is read from."""
        return (self.image,)

    @property
    def site(self) -> str:
        """The image, and the entry that names it."""
        return self.image

    @property
    def stated(self) -> Size | None:
        """The size of the image as the annotations say it, if they do."""
        return None

    @property
    def group(self) -> int:
        """Items of each group are dealt to the splits in the same proportion."""
        return 0

    @property
    def entries(self) -> int:
        """How many annotations are in it, where these are counted beside the images."""
        return 0

    def labels_in(self, split: Split, look: Look) -> Sequence[int]:
        """The numbers of the labels in it (of pose, of its joints), each as often as it counts."""
        return ()

    def facts(self) -> tuple[object, ...]:
        """What it says beside its files, as numbers and words."""
        return ()

    def arrays(self) -> tuple[npt.NDArray[np.generic], ...]:
        """And as arrays."""
        return ()

    def look(self, split: Split, size: Size) -> Look:
        """What is wrong with it, its image being whole and of that size."""
        stated = self.stated
        if stated is None or stated == size:
            return Look()
        message = f"it is {extent(size)}, but the annotations say {extent(stated)}"
        if stated == size[::-1]:
            message += "; if they were made before its EXIF tag turned it, save it without that tag"
        return Look((Finding("error", "image-size", self.site, message),))

    @classmethod
    def require_use(cls, split: Split, values: Flags | None = None) -> None:
        """Something can be learnt from the split's items, or measured on them; values: of all its masks. Raises
        UserError.
        """


@dataclass(frozen=True, slots=True)
class Labelled(Item):
    """An image and the index of its class."""

    label: int
    counted: ClassVar[str] = "pictures"

    def labels_in(self, split: Split, look: Look) -> Sequence[int]:
        """The class."""
        return (self.label,)

    @property
    def group(self) -> int:
        """The class."""
        return self.label

    def facts(self) -> tuple[object, ...]:
        """The class."""
        return (self.label,)


@dataclass(frozen=True, slots=True)
class Masked(Item):
    """An image and the file with the class of every pixel."""

    mask: str
    counted: ClassVar[str] = "pictures that show it"

    def labels_in(self, split: Split, look: Look) -> Sequence[int]:
        """The classes that the mask holds."""
        return sorted({split.codes[value] for value in np.flatnonzero(look.values)} & set(range(len(split.classes))))

    @property
    def files(self) -> tuple[str, ...]:
        """Image and mask."""
        return (self.image, self.mask)

    def look(self, split: Split, size: Size) -> Look:
        """The mask is one, as large as the image, of classes that there are."""
        from fnatool.data import images  # Pillow

        try:
            mask = images.mask(split.path(self.mask), split.colours)
        except images.Unreadable as error:
            return Look((Finding("error", "mask", self.mask, str(error)),))
        values = np.bincount(mask.ravel(), minlength=256) > 0
        findings = []
        if mask.shape != size:
            message = f"it is {extent(mask.shape)}, its image {self.image} {extent(size)}"
            findings.append(Finding("error", "mask-size", self.mask, message))
        unknown = np.flatnonzero(values & (np.frombuffer(split.codes, np.uint8) == UNKNOWN))
        if unknown.size:
            some = ", ".join(map(str, unknown[:5])) + (" …" if unknown.size > 5 else "")
            message = f"it holds the value{'s' if unknown.size > 1 else ''} {some}, but {_known(split)}"
            findings.append(Finding("error", "mask-value", self.mask, message))
        return Look(tuple(findings), values, int.from_bytes(blake2b(mask.tobytes(), digest_size=8).digest(), "big"))

    def pixels(self, split: Split) -> npt.NDArray[np.uint8]:
        """The classes of the pixels of the whole image, [h, w]. Raises Unreadable."""
        from fnatool.data import images  # Pillow

        mask = images.mask(split.path(self.mask), split.colours)
        return np.frombuffer(bytearray(mask).translate(split.codes), np.uint8).reshape(mask.shape)

    @classmethod
    def require_use(cls, split: Split, values: Flags | None = None) -> None:
        """There are classes to tell apart, or one to measure."""
        if values is None:
            return
        where = f"'{split.root}' ({split.name})"
        classes = {split.codes[value] for value in np.flatnonzero(values)} & set(range(len(split.classes)))
        teaches = split.name in ("train", "all")
        if len(classes) < (2 if teaches else 1):
            only = f"only '{split.classes[classes.pop()]}'" if classes else "no class"
            lost = "so there is nothing to tell apart" if teaches else "so there is nothing to measure"
            hint = "" if not values[255] or split.codes[255] != IGNORE else f"; {OF_255}"
            raise UserError(f"the masks in {where} hold {only}, {lost}{hint}")


OF_255 = (
    "255 means a pixel to ignore: if it stands for a class, save that class as its number, or say what it is "
    "in a labelmap.txt beside the "
    "folders, a line like 'thing:255,255,255::' for each class"
)


def _known(split: Split) -> str:
    numbers = [value for value, code in enumerate(split.codes) if code < UNKNOWN]
    ignored = [value for value, code in enumerate(split.codes) if code == IGNORE and value > numbers[-1]]
    to_be = f" ({', '.join(map(str, ignored))}: to be ignored)" if ignored else ""
    return f"the {len(split.classes)} classes are {numbers[0]} … {numbers[-1]}{to_be}"


@dataclass(frozen=True, slots=True)
class Outlined(Item):
    """An image and the outlines of n objects in it; what is outside them is of the first class, the background."""

    size: Size
    points: Floats  # [m, 2] x, y with (0, 0) at the corner of the first pixel, the outlines one after the other
    lengths: npt.NDArray[np.int64]  # [n] points of each outline
    labels: npt.NDArray[np.int64]  # [n] indices of classes
    where: str = ""  # the file with the outlines
    counted: ClassVar[str] = "outlines"

    def labels_in(self, split: Split, look: Look) -> Sequence[int]:
        """The class of each outline."""
        found: list[int] = self.labels.tolist()
        return found

    @property
    def site(self) -> str:
        """The file and the image."""
        return _with_entry(self.where, self.image)

    @property
    def stated(self) -> Size | None:
        """What the outlines were scaled to."""
        return self.size

    @property
    def entries(self) -> int:
        """Outlines."""
        return len(self.labels)

    def arrays(self) -> tuple[npt.NDArray[np.generic], ...]:
        """All of the outlines."""
        return self.points, self.lengths, self.labels

    def pixels(self, split: Split) -> npt.NDArray[np.uint8]:
        """The classes of the pixels of the whole image, [h, w]; where outlines overlap the smaller one is on top."""
        made = np.zeros(self.size, np.uint8)
        shapes = (
            [filled(outline, self.size) for outline in np.split(self.points, np.cumsum(self.lengths)[:-1])]
            if len(self.lengths)
            else []
        )
        for index in np.argsort([-int(shape.sum()) for shape in shapes], kind="stable"):
            made[shapes[index]] = self.labels[index]
        return made

    @classmethod
    def require_use(cls, split: Split, values: Flags | None = None) -> None:
        """There is an object to find."""
        if not any(isinstance(item, Outlined) and len(item.labels) for item in split.items):
            use = "learn" if split.name == "train" else "measure"
            raise UserError(f"no image of '{split.root}' ({split.name}) has an outline, so there is nothing to {use}")


@dataclass(frozen=True, slots=True)
class Boxed(Item):
    """An image and its n objects."""

    size: Size  # as the annotations say
    boxes: Floats  # [n, 4] left, top, right, bottom edges in pixels, within the image
    labels: npt.NDArray[np.int64]  # [n] indices of classes
    crowd: npt.NDArray[np.bool_]  # [n] a region of many such objects
    areas: Floats  # [n] pixels of the object itself
    where: str = ""  # the entry of the image in the annotation file
    counted: ClassVar[str] = "boxes"

    def labels_in(self, split: Split, look: Look) -> Sequence[int]:
        """The class of each box."""
        found: list[int] = self.labels.tolist()
        return found

    @property
    def site(self) -> str:
        """The entry and the image."""
        return _with_entry(self.where, self.image)

    @property
    def stated(self) -> Size | None:
        """As the annotations say."""
        return self.size

    @property
    def entries(self) -> int:
        """Boxes."""
        return len(self.boxes)

    def arrays(self) -> tuple[npt.NDArray[np.generic], ...]:
        """All of the objects."""
        return self.boxes, self.labels, self.crowd, self.areas

    @classmethod
    def require_use(cls, split: Split, values: Flags | None = None) -> None:
        """There is an object to find."""
        boxed = [item for item in split.items if isinstance(item, Boxed)]
        if not any((~item.crowd).any() for item in boxed):
            images = f"the {len(boxed):,} image{'s' if len(boxed) != 1 else ''} of '{split.root}' ({split.name})"
            only = any(len(item.boxes) for item in boxed)
            what = f"every box in {images} is a crowd (iscrowd)" if only else f"none of {images} has a box"
            raise UserError(f"{what}, so there is nothing to {'learn' if split.name == 'train' else 'measure'}")


@dataclass(frozen=True, slots=True)
class Posed(Item):
    """An image, the box around one object in it, and the object's J joints."""

    size: Size
    box: Floats  # [4] left, top, right, bottom
    # [J, 2] x, y with (0, 0) at the corner of the first pixel: COCO's numbers, which count from its middle, plus 0.5
    points: Floats
    seen: npt.NDArray[np.uint8]  # [J] 0 not labelled, 1 labelled but hidden, 2 in sight
    area: float
    where: str = ""
    counted: ClassVar[str] = "labelled joints"

    def labels_in(self, split: Split, look: Look) -> Sequence[int]:
        """The joints that are labelled."""
        found: list[int] = np.flatnonzero(self.seen).tolist()
        return found

    @property
    def site(self) -> str:
        """The entry and the image."""
        return _with_entry(self.where, self.image)

    @property
    def stated(self) -> Size | None:
        """As the annotations say."""
        return self.size

    def arrays(self) -> tuple[npt.NDArray[np.generic], ...]:
        """All of the object."""
        return self.box, self.points, self.seen, np.array([self.area])


def _with_entry(entry: str, image: str) -> str:
    return f"{entry} ('{image}')" if entry else image


def extent(size: Sequence[int]) -> str:
    """'640×480' of (height, width) = (480, 640)."""
    return f"{size[1]}×{size[0]}"


@dataclass(frozen=True)
class Fault:
    """Something broken, and what it makes useless."""

    finding: Finding
    items: tuple[int, ...] = ()  # the indices of items that cannot be used
    samples: int = 0  # samples that never became items
    entries: int = 0  # boxes that were left out of their item


@dataclass(frozen=True)
class Split:
    """One part of a data set ("train", "val"), as read: `items` may still hold broken ones, until `checking.checked`
    has seen it.
    """

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
    # segmentation: those that masks have for their values; none: Pascal VOC's, where they have colours
    colours: Colours = ()
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
        return self.entries - sum(item.entries for item in self.items)


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
    words = f"{', '.join(lost)} cannot be used" if lost else "every sample can be used"
    lines = [f"'{splits[0].root}' has {len(findings):,} fault{plural} in its data ({words}):"]
    lines += [f"  {finding.where}: {finding.message}" for finding in findings[:SHOWN]]
    lines += [f"  and {len(findings) - SHOWN:,} more"] if len(findings) > SHOWN else []
    lines += ["mend the data, or go on without what is broken: --skip-bad, or 'skip_bad = true' in the config's [data]"]
    return BadData(lines, findings)


def usable(split: Split) -> Split:
    """The split without the items that a fault names; `found`, `entries` and `faults` stay, so that nothing is lost
    sight of.
    """
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


Sources = Mapping[str, Callable[[Sequence[str] | None], Split]]


@dataclass(frozen=True)
class FileReader:
    """How a single file that stands for a split is read: its suffixes, and read(file, images, name=, classes=) →
    Split.
    """

    suffixes: tuple[str, ...]
    read: Callable[..., Split]


@dataclass(frozen=True)
class DataLayout:
    """A format as a task knows it: what is looked for, in words, and what finds it, nothing where there is nothing of
    the kind.

    general: how many other folders look like this too; of the formats that are found the least general ones are meant.
    sure: what is found is of this format by its content too, not by its name alone; asked where another format is found
    as well. file: what reads a file instead of a folder.
    """

    looked_for: str
    find: Callable[[Path, DataOptions], Sources]
    general: int = 0
    sure: Callable[[Path], bool] = lambda root: True
    file: FileReader | None = None
