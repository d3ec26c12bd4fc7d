"""Detection, pose and segmentation: YOLO's text files, one a picture, with a data.yaml (Ultralytics,
Roboflow), an obj.data (darknet, CVAT) or a list of class names.

A row is `class x y width height` of a box, its middle first; for poses `px py` or `px py visibility` of each joint
follow; or it is `class x y x y …`, an outline. All are shares of the picture's width and height, from its corner: a box
has its left edge at (x - width / 2) · W pixels. Decimals round: six of them move an edge by up to a millionth of the
side.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from fnatool.data import darknet, naming
from fnatool.data.folders import below, is_image, listed, special
from fnatool.data.inputs import Unreadable
from fnatool.data.numbers import number
from fnatool.data.objects import OVERHANG, Edges, LabelFindings, LabelledBox, boxed, cut
from fnatool.data.options import DataOptions
from fnatool.data.sources import folders_by_split, lines_of, named, split_of
from fnatool.data.split import Fault, Floats, Item, Outlined, Posed, Size, Sources, Split
from fnatool.data.yolo_yaml import YAMLS, YoloFacts, facts_of, is_yolo
from passes.errors import UserError

LAYOUT = "YOLO"
FOLDERS_SAID = (
    "DIR/data.yaml with names, train and val; or DIR/images and DIR/labels/*.txt (or .txt beside "
    "pictures) with DIR/classes.txt"
)
BOXES, JOINTS, OUTLINES = "boxes", "joints", "outlines"  # what rows are of
LOOKED_FOR = {
    BOXES: f"{FOLDERS_SAID}; a row is 'class x y width height'",
    JOINTS: "DIR/data.yaml with kpt_shape, names, train and val; a row is 'class x y width height', and 'x y "
    "visibility' for each joint",
    OUTLINES: f"{FOLDERS_SAID}; a row is 'class x y x y x y …', an outline",
}
PICTURES = ("images", "image", "imgs", "img")  # in any case
LABELS = ("labels", "label")
NAMES = ("classes.txt", "obj.names", "classes.names", "class_names.txt")
LARGEST = 16 << 20  # bytes of a file of labels
BACKGROUND = "background"
LOOKED_AT = 16  # files of labels that tell whether they are of this format
MOST_NUMBERS = 100_000  # in a row
UNREAD = ("number", "unknown-class")  # the codes of faults of rows that are read as none


@dataclass(frozen=True)
class _Part:
    """A split: what its rows are of, its task, its folders of pictures and lists of them, and what is said of the
    labels.
    """

    name: str
    root: Path
    kind: str
    task: str
    sources: tuple[Path, ...]
    facts: YoloFacts


# --- finding ---


def find(root: Path, options: DataOptions, *, kind: str, task: str) -> Sources:
    """The splits that a data.yaml of root names, or that lie in folders; nothing where there is neither, or no such
    rows.
    """
    found = _by_file(root) or _by_folders(root)
    if found is None or not found[1]:
        return {}
    facts, splits = found
    if kind == JOINTS and facts.shape is None:
        return {}
    if kind == OUTLINES and not _has_outlines(root, facts, splits):
        return {}
    if options.says_values:
        raise UserError("YOLO's outlines hold no values; leave 'background' and 'ignore' out")
    return {name: partial(_read, _Part(name, root, kind, task, sources, facts)) for name, sources in splits.items()}


def read_file(
    file: Path, images: Path | None, *, name: str, classes: Sequence[str] | None, kind: str, task: str
) -> Split:
    """The split of that name, of the data that a data.yaml or an obj.data describes."""
    facts = _facts(file)
    root = file.parent
    splits = {split: _sources(root, facts, said) for split, said in facts.splits.items()}
    if name not in splits:
        raise UserError(f"'{file}' has no {name} data, only {', '.join(splits) or 'none'}")
    if kind == JOINTS and facts.shape is None:
        raise UserError(f"'{file}' has no 'kpt_shape', so there are no joints")
    return _read(_Part(name, root, kind, task, splits[name], facts), classes)


Splits = Mapping[str, tuple[Path, ...]]


def _facts(file: Path) -> YoloFacts:
    return (darknet.facts_of if file.suffix.lower() == darknet.SUFFIX else facts_of)(file)


def _by_file(root: Path) -> tuple[YoloFacts, Splits] | None:
    """What a data.yaml says, or where there is none darknet's obj.data."""
    files = [path for path in listed(root) if special(path) is None]
    yamls = [path for path in files if path.suffix.lower() in (".yaml", ".yml")]
    usual = [path for path in yamls if path.name.lower() in YAMLS]
    suiting = usual or [path for path in yamls if is_yolo(path)]
    suiting = suiting or [path for path in files if path.suffix.lower() == darknet.SUFFIX and darknet.is_darknet(path)]
    if not suiting:
        return None
    if len(suiting) > 1:
        names = ", ".join(path.name for path in suiting[:5])
        raise UserError(f"'{root}' has several files that describe data: {names}; give the path of the one to read")
    facts = _facts(suiting[0])
    there = {name: said for name, said in facts.splits.items() if name != "test" or _has_sources(root, facts, said)}
    return facts, {name: _sources(root, facts, said) for name, said in there.items()}


def _has_sources(root: Path, facts: YoloFacts, said: Sequence[str]) -> bool:
    """What a yaml names is there; Roboflow writes down a test split where there is none."""
    return all(any(path.exists() for path in _candidates(root, facts.path, name)) for name in said)


def _sources(root: Path, facts: YoloFacts, said: Sequence[str]) -> tuple[Path, ...]:
    """The folders and lists that a yaml names. Raises UserError where one is not there, or leads out of the folder of
    the data.
    """
    return tuple(_located(root, facts, name) for name in said)


def _located(root: Path, facts: YoloFacts, name: str) -> Path:
    """Where a path of a yaml leads: seen from its `path`, from its own folder, or
    from there without the ../ that Roboflow writes, or without darknet's data/."""
    inside = [path for path in _candidates(root, facts.path, name) if not os.path.relpath(path, root).startswith("..")]
    there = next((path for path in inside if path.exists()), None)
    if there is not None:
        return there
    what = "is not there" if inside else "leads out of the folder of the data"
    raise UserError(f"'{facts.file}': '{name}' {what}; give folders seen from the folder of this file, as images/train")


def _candidates(root: Path, base: str | None, name: str) -> list[Path]:
    plain = name.replace("\\", "/")
    relative = plain
    while relative.startswith(("../", "./")):
        relative = relative.partition("/")[2]
    given = [] if base is None else [os.path.join(base.replace("\\", "/"), plain)]  # noqa: PTH118 — an absolute one may come second
    forms = (*given, plain, relative, darknet.without_first_folder(relative))
    found = [os.path.abspath(os.path.join(root, form)) for form in forms]  # noqa: PTH100, PTH118 — not resolved
    top = Path(os.path.abspath(root))  # noqa: PTH100
    return [root / os.path.relpath(path, top) for path in found]


def _by_folders(root: Path) -> tuple[YoloFacts, Splits] | None:
    """The same where there is no yaml: pictures and labels in folders, or together, with the names of the classes in a
    file.
    """
    splits = _labelled_folders(root)
    if not splits:
        return None
    names = _names(root)
    if names is None:
        raise UserError(
            f"'{root}' has YOLO's labels, but nothing that names their classes: put the names into classes.txt, "
            "one a line"
        )
    return YoloFacts(root / NAMES[0], names), {name: (folder,) for name, folder in splits.items()}


def _labelled_folders(root: Path) -> dict[str, Path]:
    """By split, or "all", the folders of pictures that have labels."""
    splits: dict[str, Path] = {}
    for name, folder in folders_by_split(root).items():
        inside = named(folder, PICTURES)
        labelled = next((place for place in (inside, folder) if place is not None and _is_labelled(root, place)), None)
        if labelled is not None:
            splits[name] = labelled
    if splits:
        return splits
    pictures = named(root, PICTURES)
    if pictures is not None:
        splits = {name: folder for name, folder in folders_by_split(pictures).items() if _is_labelled(root, folder)}
        if splits:
            return splits
    places = (pictures, named(root, ("obj_train_data",)), root)
    return next(({"all": place} for place in places if place is not None and _is_labelled(root, place)), {})


def _is_labelled(root: Path, folder: Path) -> bool:
    """Pictures in the folder have labels, and these are of this format: rows of numbers."""
    stems = {path.stem for path in listed(folder) if is_image(path.name)}
    labels = listed(_label_of(root, folder / "x.jpg").parent) if stems else []
    some = [path for path in labels if path.suffix.lower() == ".txt" and path.stem in stems and special(path) is None]
    return bool(some) and all(_looks_like_rows(path) for path in some[:: max(len(some) // LOOKED_AT, 1)])


def _looks_like_rows(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            first = file.read(200).decode("utf-8-sig", "replace").split("\n")[0].split()
    except OSError:
        return False
    return not first or (len(first) >= 5 and first[0].isdigit())


def _names(root: Path) -> tuple[str, ...] | None:
    places = [
        root,
        *(
            folder
            for folder in (named(root, LABELS), named(root, PICTURES), named(root, ("obj_train_data",)))
            if folder
        ),
    ]
    places += [inner for folder in places[:2] for inner in folders_by_split(folder).values()]
    file = next((place / name for place in places for name in NAMES if (place / name).is_file()), None)
    return None if file is None else tuple(line.strip() for line in lines_of(file) if line.strip())


def _has_outlines(root: Path, facts: YoloFacts, splits: Splits) -> bool:
    """Rows of the first labels are outlines."""
    if facts.shape is not None:
        return False
    pictures = [
        path for sources in splits.values() for source in sources for path in _pictures(root, source, facts)[:LOOKED_AT]
    ]
    rows = [words for path in pictures for words in _first_rows(_label_of(root, path))]
    return any(len(words) > 6 and len(words) % 2 for words in rows)


def _first_rows(file: Path) -> list[list[str]]:
    """The words of the first rows of a file of labels; none where it is none."""
    try:
        return [row.split() for row in _text(file).splitlines()[:LOOKED_AT]]
    except Unreadable:
        return []


def _label_of(root: Path, picture: Path) -> Path:
    """The file of a picture's labels: in the folder of labels that stands where that of images does, else beside it."""
    inside = picture.relative_to(root)
    parts = list(inside.parts)
    name = f"{picture.stem}.txt"
    for place in range(len(parts) - 2, -1, -1):
        if parts[place].lower() in PICTURES:
            above = root.joinpath(*parts[:place])
            labels = named(above, LABELS)
            return picture.with_name(name) if labels is None else labels.joinpath(*parts[place + 1 : -1], name)
    return picture.with_name(name)


# --- reading ---


def _pictures(root: Path, source: Path, facts: YoloFacts) -> list[Path]:
    """The pictures of a folder, or those that a list names, whether they are there or not."""
    if source.is_dir():
        return [path for path in below([source])[0] if is_image(path.name)]
    if special(source) is not None:
        raise UserError(f"'{source}' is no list of pictures")
    found = []
    for line in lines_of(source):
        if line.strip():
            found.append(_listed(root, source, facts, line.strip()))
    return found


def _listed(root: Path, source: Path, facts: YoloFacts, line: str) -> Path:
    if not naming.is_name(line):
        return root / "?"
    plain = line.replace("\\", "/")
    beside = source.parent.relative_to(root).as_posix()
    found = [path for base in (beside, facts.path) for path in _candidates(root, base, plain)]
    inside = [path for path in found if not os.path.relpath(path, root).startswith("..")]
    return next(
        (path for path in inside if path.is_file()), inside[0] if inside else root / ".." / PurePosixPath(plain).name
    )


@dataclass(frozen=True)
class _Row:
    """A row of labels: where it stands, the index of its class among the names, and its other numbers."""

    where: str
    label: int
    numbers: tuple[float, ...]


@dataclass(frozen=True)
class _Labelled:
    """A picture with its rows."""

    image: str
    size: Size | None
    where: str  # the file of labels
    rows: tuple[_Row, ...]
    item: int  # its number among the pictures


def _read(part: _Part, wanted: Sequence[str] | None) -> Split:
    found = LabelFindings()
    pictures = list(_labelled(part, found))
    return READERS[part.kind](part, pictures, wanted, found)


def _labelled(part: _Part, found: LabelFindings) -> list[_Labelled]:
    read: list[_Labelled] = []
    seen: set[Path] = set()
    without = 0
    twice = 0
    for source in part.sources:
        for index, picture in enumerate(_pictures(part.root, source, part.facts), 1):
            if source.is_file() and (problem := _unusable(part, picture, seen)):
                found.fault(
                    *problem[:1], f"{source.relative_to(part.root).as_posix()}, picture {index}", problem[1], samples=1
                )
                continue
            if picture in seen:
                continue
            seen.add(picture)
            image = picture.relative_to(part.root).as_posix()
            file = _label_of(part.root, picture)
            where = file.relative_to(part.root).as_posix()
            rows: list[_Row] = []
            if special(file) is not None or file.exists():
                rows, again = _rows(part, file, (where, len(read)), found)
                twice += again
            else:
                without += 1
            read.append(_Labelled(image, _measured(picture), where, tuple(rows), len(read)))
    if read and without == len(read):
        example = _label_of(part.root, part.root / read[0].image)
        raise UserError(
            f"not one of the {len(read):,} pictures for {part.name} in '{part.root}' has labels: looked for "
            f"'{example}' and the like"
        )
    if without:
        found.notes.append(f"{without:,} picture(s) have no file of labels, and count as pictures without objects")
    if twice:
        found.notes.append(f"{twice:,} row(s) of labels stand twice, and count once")
    _orphans(part, seen, found)
    return read


def _unusable(part: _Part, picture: Path, seen: set[Path]) -> tuple[str, str] | None:
    """What is wrong with a picture that a list names."""
    if ".." in picture.relative_to(part.root).parts:
        return "outside", f"'{picture.name}' leads out of the folder of the data; give names that begin there"
    if not picture.is_file():
        return "missing-image", f"there is no picture '{picture.relative_to(part.root).as_posix()}'"
    if picture in seen:
        return "listed-twice", f"'{picture.relative_to(part.root).as_posix()}' is listed before"
    return None


def _orphans(part: _Part, pictures: set[Path], found: LabelFindings) -> None:
    """A fault for each file in a folder of labels whose picture is not there."""
    stems = {path.with_suffix("") for path in pictures}
    for source in part.sources:
        if not source.is_dir():
            continue
        folder = _label_of(part.root, source / "x.jpg").parent
        if folder == source or not folder.is_dir():
            continue
        for path in below([folder])[0]:
            stem = source / path.relative_to(folder).with_suffix("")
            if (
                path.suffix.lower() == ".txt"
                and path.name.lower() not in NAMES
                and split_of(path.stem) is None
                and stem not in stems
            ):
                message = (
                    f"there is no picture '{stem.name}' in {source.relative_to(part.root).as_posix()}/ for these labels"
                )
                found.fault("missing-image", path.relative_to(part.root).as_posix(), message, samples=1)


def _rows(part: _Part, file: Path, about: tuple[str, int], found: LabelFindings) -> tuple[list[_Row], int]:
    """The rows of a file of labels that hold numbers, and how many stand there twice. about: the file's name, the
    picture's number.
    """
    name, item = about
    try:
        lines = _text(file).splitlines()
    except Unreadable as error:
        found.fault("labels", name, str(error), items=(item,))
        return [], 0
    rows: list[_Row] = []
    seen: set[tuple[float, ...]] = set()
    twice = 0
    for index, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        where = f"{name}:{index}"
        values = [number(word) for word in words[:MOST_NUMBERS]]
        if None in values:
            strange = words[values.index(None)]
            found.fault(
                "number",
                where,
                f"it holds '{strange[:40]}', which is no number that a place can be",
                items=(item,),
                entries=1,
            )
            continue
        numbers = tuple(value for value in values if value is not None)
        label = int(numbers[0])
        if label != numbers[0] or not 0 <= label < len(part.facts.names):
            count = len(part.facts.names)
            message = f"its class is {words[0][:20]}, but there are {count} classes, 0 … {count - 1}"
            found.fault("unknown-class", where, message, items=(item,), entries=1)
        elif numbers in seen:
            twice += 1
        else:
            seen.add(numbers)
            rows.append(_Row(where, label, numbers[1:]))
    return rows, twice


def _text(file: Path) -> str:
    """What a file of labels says. Raises Unreadable."""
    kind = special(file)
    if kind is not None:
        raise Unreadable(f"it is {kind}, not a file")
    try:
        with file.open("rb") as stream:
            content = stream.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise Unreadable(f"it is larger than {LARGEST >> 20} MiB; labels of one picture are not")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise Unreadable(f"it cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise Unreadable(f"it is not UTF-8 text (byte {error.start})") from error


def _measured(picture: Path) -> Size | None:
    from fnatool.data import images  # Pillow

    try:
        return images.size(picture)
    except Unreadable:
        return None


# --- what the rows of each kind are ---


T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """Why a row of labels is of no use: the code of its fault, and the message."""

    code: str
    message: str


def _index(part: _Part, row: _Row, classes: Sequence[str], found: LabelFindings) -> int | None:
    """The number of a row's class; None, and a fault, where it is no class of the model."""
    name = part.facts.names[row.label]
    if name in classes:
        return classes.index(name)
    found.fault("foreign-class", row.where, f"its class '{name}' is none of the {len(classes)} classes", entries=1)
    return None


def _edges(middle: Sequence[float], size: Size) -> Edges:
    x, y, width, height = middle
    return (x - width / 2) * size[1], (y - height / 2) * size[0], (x + width / 2) * size[1], (y + height / 2) * size[0]


def _pixels(numbers: Sequence[float], size: Size) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """[n, 2] x, y in pixels of shares one after the other."""
    shares: np.ndarray[tuple[int, int], np.dtype[np.float64]] = np.array(numbers, np.float64).reshape(-1, 2)
    return shares * np.array([size[1], size[0]], np.float64)


def _box(numbers: Sequence[float], size: Size, found: LabelFindings) -> Edges | Problem:
    """The edges of a box within the picture, or what is wrong with it."""
    if numbers[2] <= 0 or numbers[3] <= 0:
        return Problem("box", f"its box has no area: width {numbers[2]:g}, height {numbers[3]:g}")
    within = cut(_edges(numbers, size), size, found.overhangs)
    return within or Problem("box", f"its box {_short(numbers)} is outside the picture{_hint(numbers)}")


def _outline(numbers: Sequence[float], size: Size, found: LabelFindings) -> tuple[Floats, Edges] | Problem:
    """Points [n, 2] within the picture and the box around them, or what is wrong with them."""
    points = _pixels(numbers, size)
    low, high = points.min(0), points.max(0)
    if (high <= low).any():
        return Problem("outline", "its outline has no area")
    box = cut((float(low[0]), float(low[1]), float(high[0]), float(high[1])), size, found.overhangs)
    if box is None:
        return Problem("outline", f"its outline is outside the picture{_hint(numbers)}")
    within: Floats = np.clip(points, 0, np.array([size[1], size[0]], np.float64)).astype(np.float32)
    return within, box


def _hint(numbers: Sequence[float]) -> str:
    return (
        "; are these pixels? YOLO's numbers are shares of the picture's sides, from 0 to 1" if max(numbers) > 2 else ""
    )


def _short(numbers: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in numbers[:4])


def _area(points: Floats) -> float:
    """Of a polygon, by the shoelace formula."""
    x, y = points.astype(np.float64).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _usable(picture: _Labelled, read: Callable[[_Row, Size], T | Problem | None], found: LabelFindings) -> list[T]:
    """What the rows of a picture are read as. A row with a fault makes its picture useless: it would teach that there
    is nothing.
    """
    usable: list[T] = []
    for row in picture.rows:
        if picture.size is None:
            found.fault("unreadable", row.where, "its picture cannot be read", entries=1)
            continue
        made = read(row, picture.size)
        if isinstance(made, Problem):
            found.fault(made.code, row.where, made.message, items=(picture.item,), entries=1)
        elif made is not None:
            usable.append(made)
    return usable


def _boxes_of(part: _Part, pictures: Sequence[_Labelled], wanted: Sequence[str] | None, found: LabelFindings) -> Split:
    classes = tuple(wanted or part.facts.names)
    joints = part.facts.numbers

    def read(row: _Row, size: Size) -> LabelledBox | Problem | None:
        if len(row.numbers) == 4 or (joints and len(row.numbers) == 4 + joints):
            box = _box(row.numbers[:4], size, found)
            if isinstance(box, Problem):
                return box
            area = (box[2] - box[0]) * (box[3] - box[1])
        elif not joints and len(row.numbers) >= 6 and len(row.numbers) % 2 == 0:
            outline = _outline(row.numbers, size, found)
            if isinstance(outline, Problem):
                return outline
            box, area = outline[1], _area(outline[0])
        else:
            return Problem("row", f"it holds {len(row.numbers) + 1} numbers, not {_expected(part)}")
        label = _index(part, row, classes, found)
        return None if label is None else LabelledBox(label, box, area)

    items = [boxed(one.image, one.size, _usable(one, read, found), one.where) for one in pictures]
    return _split(part, items, found, classes=classes, entries=_entries(pictures, found))


def _expected(part: _Part) -> str:
    if part.facts.shape is not None:
        joints, each = part.facts.shape
        return f"the {5 + joints * each} of a box and {joints} joints of {each} ('kpt_shape')"
    return "the 5 of a class and a box, or a class and the points of an outline, three or more"


def _outlines_of(
    part: _Part, pictures: Sequence[_Labelled], wanted: Sequence[str] | None, found: LabelFindings
) -> Split:
    classes = tuple(wanted or (BACKGROUND, *(name for name in part.facts.names if name != BACKGROUND)))
    if classes[0] != BACKGROUND:
        raise UserError(
            f"what is outside of YOLO's outlines is '{BACKGROUND}', which must be the first class, not '{classes[0]}'"
        )

    def read(row: _Row, size: Size) -> tuple[int, Floats] | Problem | None:
        if len(row.numbers) < 6 or len(row.numbers) % 2:
            what = "a box" if len(row.numbers) == 4 else f"{len(row.numbers) + 1} numbers"
            return Problem("row", f"it is {what}, not a class and the points of an outline, three or more")
        outline = _outline(row.numbers, size, found)
        if isinstance(outline, Problem):
            return outline
        label = _index(part, row, classes, found)
        return None if label is None else (label, outline[0])

    items: list[Item] = []
    for one in pictures:
        rows = _usable(one, read, found)
        points = np.concatenate([outline for _, outline in rows]) if rows else np.zeros((0, 2), np.float32)
        lengths = np.array([len(outline) for _, outline in rows], np.int64)
        labels = np.array([label for label, _ in rows], np.int64)
        items.append(Outlined(one.image, one.size or (0, 0), points, lengths, labels, one.where))
    return _split(part, items, found, classes=classes, entries=_entries(pictures, found))


def _joints_of(part: _Part, pictures: Sequence[_Labelled], wanted: Sequence[str] | None, found: LabelFindings) -> Split:
    assert part.facts.shape is not None
    joints, each = part.facts.shape
    outside = without = 0

    def read(
        row: _Row, size: Size
    ) -> tuple[_Row, Edges, Floats, np.ndarray[tuple[int], np.dtype[np.uint8]]] | Problem | None:
        nonlocal outside, without
        if len(row.numbers) != 4 + joints * each:
            return Problem("row", f"it holds {len(row.numbers) + 1} numbers, not {_expected(part)}")
        box = _box(row.numbers[:4], size, found)
        if isinstance(box, Problem):
            return box
        values = np.array(row.numbers[4:], np.float64).reshape(joints, each)
        if each == 3 and not np.isin(values[:, 2], (0, 1, 2)).all():
            return Problem("keypoints", "a visibility of its joints is not 0, 1 or 2")
        points = values[:, :2] * np.array([size[1], size[0]], np.float64)
        seen = values[:, 2] if each == 3 else np.where((values[:, :2] < 0).any(1) | (values[:, :2] == 0).all(1), 0, 2)
        edge = np.array([size[1], size[0]], np.float64)
        inside = ((points >= -OVERHANG) & (points <= edge + OVERHANG)).all(1)
        if (seen > 0).any() and not ((seen > 0) & inside).any():
            return Problem("keypoints", f"all of its joints are outside the picture{_hint(row.numbers)}")
        outside += int(((seen > 0) & ~inside).sum())
        labelled = (seen > 0) & inside
        without += int(not labelled.any())
        where = np.where(labelled[:, None], np.clip(points, 0, edge), 0.5).astype(np.float32)
        return (row, box, where, np.where(labelled, seen, 0).astype(np.uint8)) if labelled.any() else None

    items: list[Item] = []
    for one in pictures:
        for row, box, points, seen in _usable(one, read, found):
            area = (box[2] - box[0]) * (box[3] - box[1])
            items.append(Posed(one.image, one.size or (0, 0), np.array(box, np.float32), points, seen, area, row.where))
    # a row is a sample here
    faults = tuple(Fault(fault.finding, samples=max(fault.samples, fault.entries)) for fault in found.faults)
    found.notes += [f"{without:,} object(s) have no joint that is labelled"] if without else []
    found.notes += [f"{outside:,} joint(s) are outside their pictures and count as not labelled"] if outside else []
    found.faults[:] = faults
    split = _split(part, items, found, classes=part.facts.names, entries=0)
    return replace(split, joints=part.facts.joints)


def _entries(pictures: Sequence[_Labelled], found: LabelFindings) -> int:
    """Rows that stand for objects, those that cannot be read too."""
    return sum(len(one.rows) for one in pictures) + sum(
        fault.entries for fault in found.faults if fault.finding.code in UNREAD
    )


def _split(part: _Part, items: Sequence[Item], found: LabelFindings, *, classes: Sequence[str], entries: int) -> Split:
    return Split(
        task=part.task,
        name=part.name,
        root=part.root,
        layout=LAYOUT,
        classes=tuple(classes),
        items=tuple(items),
        faults=tuple(found.faults),
        found=len(items) + sum(fault.samples for fault in found.faults),
        entries=entries,
        notes=found.all_notes(),
    )


READERS: Mapping[str, Callable[[_Part, Sequence[_Labelled], Sequence[str] | None, LabelFindings], Split]] = {
    BOXES: _boxes_of,
    JOINTS: _joints_of,
    OUTLINES: _outlines_of,
}
