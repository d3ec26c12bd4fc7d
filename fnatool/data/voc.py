"""Detection: Pascal VOC's XML of boxes, one file a picture, in VOC's own folders or as LabelImg and others leave them.

VOC counts pixels from 1, and its xmax is the last pixel of the object: a box from xmin to xmax has its edges at xmin -
1 and xmax, those of COCO's [xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]. An object that is `difficult` is as
COCO's crowds are: nothing is learnt from it, and whoever finds it is neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from fnatool.data import markup, naming
from fnatool.data.folders import below, is_image, listed
from fnatool.data.inputs import Unreadable
from fnatool.data.labelmap import LABELMAP
from fnatool.data.markup import Element
from fnatool.data.numbers import number
from fnatool.data.objects import LARGEST, Edges, LabelFindings, LabelledBox, boxed, cut
from fnatool.data.options import DataOptions
from fnatool.data.sources import class_names, folders_by_split, lines_of, named, split_of, unwrapped
from fnatool.data.split import Boxed, Size, Sources, Split
from passes.errors import UserError

LAYOUT = "Pascal VOC"
LOOKED_FOR = (
    "DIR/JPEGImages, DIR/Annotations/*.xml and DIR/ImageSets/Main/train.txt, val.txt; or an .xml for each "
    "picture, beside it or in "
    "DIR/annotations, in DIR/train and DIR/val or without"
)
SUFFIX = ".xml"
PICTURES = ("jpegimages", "images", "image", "imgs", "img", "pictures", "photos")  # in any case
NOTES = ("annotations", "annotation", "labels", "label", "xml", "xmls", "bboxes")
ROOT_TAG = "annotation"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
BACKGROUND = "background"  # a label of masks, which no box has


@dataclass(frozen=True)
class _Part:
    """A split: where pictures and XML files lie, and which of these it lists (None: all); and where those of all splits
    lie.
    """

    name: str
    root: Path
    pictures: Path
    notes: Path
    listing: Path | None
    everywhere: tuple[Path, ...]


# --- finding ---


def find(root: Path, options: DataOptions) -> Sources:
    """The splits of a data set with an XML file for each picture, or "all" where it has none; nothing where there are
    no such files.
    """
    top = unwrapped(root, lambda folder: _places(folder) is not None)
    places = _places(top)
    if places is None:
        splits = {name: pair for name, folder in folders_by_split(top).items() if (pair := _places(folder)) is not None}
    else:
        inner = {
            name: (_same_split(places[0], name), folder)
            for name, folder in folders_by_split(places[1], _has_notes).items()
        }
        splits = inner or {"all": places}
    everywhere = tuple(dict.fromkeys(notes for _, notes in splits.values()))
    lists = _lists(top) if splits.keys() == {"all"} else {}
    rows: dict[str, tuple[Path, Path, Path | None]] = {name: (*pair, None) for name, pair in splits.items()}
    if lists:
        rows = {name: (*splits["all"], lines) for name, lines in lists.items()}
    return {
        name: partial(_read, _Part(name, root, pictures, notes, lines, everywhere))
        for name, (pictures, notes, lines) in rows.items()
    }


def _places(folder: Path) -> tuple[Path, Path] | None:
    """Where the pictures and the XML files of a folder lie."""
    notes, pictures = named(folder, NOTES), named(folder, PICTURES)
    if notes is not None and (
        _has_notes(notes) or any(_has_notes(inner) for inner in folders_by_split(notes).values())
    ):
        return pictures or folder, notes
    return next(((place, place) for place in (folder, pictures) if place is not None and _has_notes(place)), None)


def _has_notes(folder: Path) -> bool:
    return any(_is_note(path) for path in listed(folder))


def _is_note(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX


def _same_split(pictures: Path, name: str) -> Path:
    return folders_by_split(pictures).get(name, pictures)


def _lists(top: Path) -> dict[str, Path]:
    """The lists of the splits: train.txt and others in ImageSets/Main, or in ImageSets itself."""
    sets = named(top, ("imagesets",))
    places = [] if sets is None else [named(sets, ("main",)), sets]
    for place in (place for place in places if place is not None):
        files = [path for path in listed(place) if path.suffix.lower() == ".txt" and path.is_file()]
        found = {split: path for path in files if (split := split_of(path.stem)) is not None}
        if found:
            return found
    return {}


# --- reading ---


@dataclass(frozen=True)
class _Note:
    """An XML file of boxes: where it is, by what it could be called like its picture, and what is in it."""

    file: str  # relative to the root
    path: Path
    stem: str  # relative to its folder, without suffix
    content: Element

    @property
    def picture(self) -> str:
        """The name of the picture as the file says it; empty where it says none."""
        return self.content.words("filename") or ""

    @property
    def size(self) -> Size | None:
        """The size of the picture as the file says it, if it does."""
        stated = next(iter(self.content.all("size")), Element(""))
        height, width = (number(stated.words(side) or "") for side in ("height", "width"))
        is_size = (
            height is not None
            and width is not None
            and all(0 < side < LARGEST and side == int(side) for side in (height, width))
        )
        return (int(height), int(width)) if is_size and height is not None and width is not None else None


def _read(part: _Part, wanted: Sequence[str] | None) -> Split:
    found = LabelFindings()
    notes = list(_notes(part, found))
    pictures = _Pictures.of(part, notes)
    classes = _classes(part, notes, wanted)
    items: list[Boxed] = []
    entries = 0
    taken: dict[str, str] = {}
    for note in notes:
        picture = pictures.of_note(note)
        if isinstance(picture, str):
            found.fault(
                "missing-image" if not picture.startswith("its filename leads") else "outside",
                note.file,
                picture,
                samples=1,
            )
            continue
        image = picture.relative_to(part.root).as_posix()
        if image in taken:
            found.fault(
                "same-file", note.file, f"its picture '{image}' is that of {taken[image]} too; join the two", samples=1
            )
            continue
        taken[image] = note.file
        objects = note.content.all("object")
        entries += len(objects)
        size = note.size or _measured(picture)
        usable = _objects(note, objects, (size, classes, len(items)), found)
        items.append(boxed(image, size, usable, note.file))
    named_alike = {path.stem for path in below([part.notes])[0] if _is_note(path)}
    unlabelled = [file for file in pictures.files if file not in taken and PurePosixPath(file).stem not in named_alike]
    if unlabelled and part.listing is None:
        found.notes.append(f"{len(unlabelled):,} picture(s) without an .xml are left out, as '{unlabelled[0]}'")
    return Split(
        task="detection",
        name=part.name,
        root=part.root,
        layout=LAYOUT,
        classes=classes,
        items=tuple(items),
        faults=tuple(found.faults),
        found=len(items) + sum(fault.samples for fault in found.faults),
        entries=entries,
        notes=found.all_notes(),
    )


def _notes(part: _Part, found: LabelFindings) -> list[_Note]:
    """The XML files that can be read; of the others each is a fault."""
    read: list[_Note] = []
    for where, path in _files(part, found):
        file = path.relative_to(part.root).as_posix()
        try:
            content = markup.parsed(path)
        except Unreadable as error:
            found.fault("xml", file if where is None else where, str(error), samples=1)
            continue
        if content.tag != ROOT_TAG:
            message = f"it is a <{content.tag[:40]}>, not the <annotation> of Pascal VOC"
            found.fault("xml", file, message, samples=1)
            continue
        read.append(_Note(file, path, path.relative_to(part.notes).with_suffix("").as_posix(), content))
    return read


def _files(part: _Part, found: LabelFindings) -> list[tuple[str | None, Path]]:
    """The XML files of a split, with the line of the list that names each."""
    there = {
        path.relative_to(part.notes).with_suffix("").as_posix(): path
        for path in below([part.notes])[0]
        if _is_note(path)
    }
    if part.listing is None:
        return [(None, path) for path in there.values()]
    list_name = part.listing.relative_to(part.root).as_posix()
    files: dict[str, tuple[str, Path]] = {}
    for index, line in enumerate(lines_of(part.listing), 1):
        if not line.strip():
            continue
        stem = next(
            (name for name in (line.strip(), line.split()[0], PurePosixPath(line.split()[0]).stem) if name in there),
            None,
        )
        where = f"{list_name}:{index}"
        if stem is None:
            notes = part.notes.relative_to(part.root).as_posix()
            found.fault("missing-labels", where, f"there is no {notes}/{line.strip()[:200]}{SUFFIX}", samples=1)
        elif stem in files:
            found.fault("listed-twice", where, f"'{stem}' is listed before", samples=1)
        else:
            files[stem] = (where, there[stem])
    return list(files.values())


@dataclass(frozen=True)
class _Pictures:
    """The pictures of a split: as the XML files name them, and as they are called."""

    place: naming.ImagePlace
    files: tuple[str, ...]  # relative to the root
    # below their folder without suffix, and the last part of that alone; None where several have it
    by_stem: Mapping[str, Path | None]

    @classmethod
    def of(cls, part: _Part, notes: Sequence[_Note]) -> _Pictures:
        found = [path for path in below([part.pictures])[0] if is_image(path.name)]
        by_stem: dict[str, Path | None] = {}
        for path in found:
            stem = path.relative_to(part.pictures).with_suffix("")
            for name in dict.fromkeys((stem.as_posix(), stem.name)):
                by_stem[name] = None if name in by_stem else path
        names = [note.picture for note in notes if naming.is_name(note.picture)]
        place = naming.place(names, [part.pictures, *{note.path.parent: None for note in notes[:64]}], [part.root])
        return cls(place, tuple(path.relative_to(part.root).as_posix() for path in found), by_stem)

    def of_note(self, note: _Note) -> Path | str:
        """The picture that an XML file is about, or why there is none: that of its filename, else the one that is
        called like the file.
        """
        name = note.picture
        if naming.is_name(name):
            if self.place.expected(name) is None:
                return (
                    "its filename leads out of the folder of the data; give names that begin in the folder of "
                    "the pictures"
                )
            exact = self.place.file(name)
            if exact is not None and is_image(exact.name):
                return exact
        stems = (
            note.stem,
            PurePosixPath(note.stem).name,
            PurePosixPath(next(naming.forms(name), name)).stem if name else "",
        )
        like = next((path for stem in stems if (path := self.by_stem.get(stem)) is not None), None)
        return like or f"there is no picture of its name, or of its filename '{name[:200]}'"


def _measured(picture: Path) -> Size | None:
    """The size that the picture has; None where it cannot be read, which the check of the pictures reports."""
    from fnatool.data import images  # Pillow: where the files say all sizes, it is not needed

    try:
        return images.size(picture)
    except Unreadable:
        return None


def _classes(part: _Part, notes: Sequence[_Note], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The wanted classes; those that classes.txt or labelmap.txt names; else the names of all objects of all splits,
    sorted.
    """
    stated = class_names(part.root) or _labels(part.root)
    if stated is not None or wanted is not None:
        classes = tuple(wanted or stated or ())
    else:
        others = [path for folder in part.everywhere for path in below([folder])[0] if _is_note(path)]
        known = {note.path for note in notes}
        rest = (_content(path) for path in others if path not in known)
        contents = [*(note.content for note in notes), *(content for content in rest if content is not None)]
        classes = tuple(
            sorted({name for content in contents for entry in content.all("object") if (name := entry.words("name"))})
        )
    if len(set(classes)) < len(classes):
        raise UserError(f"'{part.root}': two of its classes have the same name")
    return classes


def _content(path: Path) -> Element | None:
    try:
        return markup.parsed(path)
    except Unreadable:
        return None


def _labels(root: Path) -> tuple[str, ...] | None:
    """The labels of CVAT's labelmap.txt, whatever it says of colours, without the background."""
    file = root / LABELMAP
    if not file.is_file():
        return None
    names = [
        line.partition(":")[0].strip() for line in lines_of(file) if line.strip() and not line.lstrip().startswith("#")
    ]
    return tuple(name for name in names if name and name != BACKGROUND) or None


def _objects(
    note: _Note, objects: Sequence[Element], about: tuple[Size | None, Sequence[str], int], found: LabelFindings
) -> list[LabelledBox]:
    """The objects that can be used; each of the others is the one entry of a fault. about: size, classes and the number
    of the item.
    """
    size, classes, item = about
    usable: list[LabelledBox] = []
    for index, entry in enumerate(objects, 1):
        name = entry.words("name") or ""
        called = f" ('{name[:80]}')" if name else ""
        where = f"{note.file}: object {index}{called}"
        if size is None:
            found.fault("unreadable", where, "its image cannot be read", entries=1)
            continue
        box = _box(entry, size, found.overhangs)
        problems: list[tuple[str, str, tuple[int, ...]]] = []
        if not name:
            problems.append(("unknown-class", "it has no name", (item,)))
        elif name not in classes:
            problems.append(("foreign-class", f"its name is none of the {len(classes)} classes", ()))
        if isinstance(box, str):
            problems.append(("box", box, (item,)))
        for count, (code, message, items) in enumerate(problems):
            found.fault(code, where, message, items=items, entries=int(count == 0))
        if not problems and not isinstance(box, str):
            area = (box[2] - box[0]) * (box[3] - box[1])
            usable.append(LabelledBox(classes.index(name), box, area, entry.words("difficult") not in (None, "", "0")))
    return usable


def _box(entry: Element, size: Size, overhangs: list[float]) -> Edges | str:
    """The edges of an object's box within the image, or what is wrong with it."""
    box = next(iter(entry.all("bndbox")), None)
    if box is None:
        return "it has no bndbox"
    said = [box.words(corner) for corner in CORNERS]
    values = [None if word is None else number(word) for word in said]
    xmin, ymin, xmax, ymax = values
    if xmin is None or ymin is None or xmax is None or ymax is None:
        shown = ", ".join(
            f"{corner} '{word[:20] if word else word}'" for corner, word in zip(CORNERS, said, strict=True)
        )
        return f"its bndbox is not four numbers: {shown}"
    shown = ", ".join(f"{corner} {value:g}" for corner, value in zip(CORNERS, (xmin, ymin, xmax, ymax), strict=True))
    if xmax <= xmin - 1 or ymax <= ymin - 1:
        return f"its bndbox has no area: {shown}"
    within = cut((xmin - 1, ymin - 1, xmax, ymax), size, overhangs)
    return within or f"its bndbox is outside the image, which is {size[1]}×{size[0]}: {shown}"
