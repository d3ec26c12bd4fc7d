"""Detection and pose: COCO's json of boxes or keypoints, and the folder of its images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from fnatool.data import naming
from fnatool.data.folders import is_aside, special
from fnatool.data.objects import LARGEST, OVERHANG, Edges, LabelFindings, LabelledBox, boxed, cut
from fnatool.data.options import DataOptions
from fnatool.data.sources import folders_by_split, named, split_in
from fnatool.data.split import Fault, Item, Posed, Size, Sources, Split
from passes.errors import UserError

LAYOUT = "COCO"
BOXES_LOOKED_FOR = (
    "DIR/annotations/instances_train.json (or _train2017.json) and images in DIR/train, "
    "DIR/train/_annotations.coco.json, "
    "or one json of COCO's format beside its images"
)
JOINTS_LOOKED_FOR = (
    "DIR/annotations/person_keypoints_train.json (or any *keypoints_train*.json) and images in DIR/train"
)
# of files in the annotations of COCO; detection wants none
OTHER_KINDS = ("keypoints", "captions", "panoptic", "stuff", "image_info")
ROBOFLOW = "_annotations.coco.json"  # in the folder of a split
FOREIGN = "foreign-class"  # the code of a fault: the category is known, but no class of the model
MOST_NAMED = 5  # files in a message

Json = Mapping[str, object]


# --- finding the files ---


def find(root: Path, options: DataOptions, *, keypoints: bool = False) -> Sources:
    """The splits that the annotation files below root are named after, or "all" where there is a single one without a
    split's name.

    Where the files are not beside each other, each is in the folder of its split.
    """
    beside = {
        name: folder / ROBOFLOW
        for name, folder in folders_by_split(root, lambda folder: (folder / ROBOFLOW).is_file()).items()
    }
    if beside:
        return {
            name: partial(_read, file, [file.parent], _Part(name, root, keypoints)) for name, file in beside.items()
        }
    top = _files_by_split(root, keypoints=keypoints)
    if top.keys() <= {"all"}:
        inner = {name: _files_by_split(folder, keypoints=keypoints) for name, folder in folders_by_split(root).items()}
        splits = {
            name: file for name, found in inner.items() if (file := found.get(name) or found.get("all")) is not None
        }
        top = splits if splits and not any(_is_coco(file, keypoints=keypoints) for file in top.values()) else top
    return {
        name: partial(_read, file, naming.image_folders(file, root, name), _Part(name, root, keypoints))
        for name, file in top.items()
    }


def _files_by_split(folder: Path, *, keypoints: bool) -> dict[str, Path]:
    """The annotation files of a folder, or of its folder "annotations", by the split in their names or "all". Raises
    UserError.
    """
    places = [
        place for place in (named(folder, ("annotations",)), named(folder, ("labels",)), folder) if place is not None
    ]
    files = [
        file for place in places for file in sorted(place.glob("*.json")) if file.is_file() and not is_aside(file.name)
    ]
    suiting = [file for file in files if _suits(file.stem, keypoints=keypoints)]
    found: dict[str, list[Path]] = {}
    for file in suiting or [file for file in files if _is_coco(file, keypoints=keypoints)]:
        found.setdefault(split_in(file.stem) or "all", []).append(file)
    if len(found) > 1:
        found.pop("all", None)
    for name, several in found.items():
        if len(several) > 1:
            found[name] = [file for file in several if _is_coco(file, keypoints=keypoints)] or several
            if len(found[name]) > 1:
                of = "" if name == "all" else f" for {name}"
                raise UserError(
                    f"'{folder}' has several annotation files{of}: {_names(found[name])}; give the path of the "
                    "one to read"
                )
    return {name: several[0] for name, several in found.items()}


def is_sure(root: Path, *, keypoints: bool = False) -> bool:
    """One of the files that `find` looks at is of COCO's format by its content."""
    folders = [root, *folders_by_split(root).values()]
    places = [
        place for folder in folders for place in (named(folder, ("annotations",)), named(folder, ("labels",)), folder)
    ]
    files = [file for place in places if place is not None for file in sorted(place.glob("*.json")) if file.is_file()]
    return any(_is_coco(file, keypoints=keypoints) for file in files)


def _is_coco(file: Path, *, keypoints: bool) -> bool:
    """The file holds what COCO's does, and keypoints where they are wanted; decided by its content."""
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(document, dict) or not {"images", "annotations", "categories"} <= document.keys():
        return False
    categories = document["categories"] if isinstance(document["categories"], list) else []
    return not keypoints or any(isinstance(category, dict) and "keypoints" in category for category in categories)


def read_file(
    file: Path, folder: Path | None, *, name: str, classes: Sequence[str] | None, keypoints: bool = False
) -> Split:  # fmt: skip
    """The split that one annotation file describes, with its images in folder (None: looked for around the file)."""
    around = file.parent.parent if file.parent.name.lower() == "annotations" else file.parent
    folders = [folder] if folder is not None else naming.image_folders(file, around, split_in(file.stem) or "all")
    return _read(file, folders, _Part(name, around, keypoints), classes)


def _names(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files[:MOST_NAMED]) + (
        f" and {len(files) - MOST_NAMED} more" if len(files) > MOST_NAMED else ""
    )


def _suits(stem: str, *, keypoints: bool) -> bool:
    if keypoints:
        return "keypoints" in stem
    return not any(kind in stem for kind in OTHER_KINDS)


# --- reading one ---


@dataclass(frozen=True)
class _Part:
    """Which split is read, of the data at root, and whether for its keypoints."""

    name: str
    root: Path
    keypoints: bool


@dataclass(frozen=True)
class _Image:
    """An entry of the list of images."""

    where: str
    file: str  # relative to the root
    size: Size | None  # None: the file cannot be read, which the check of the images reports
    index: int  # among the images


@dataclass
class _Document(LabelFindings):
    """An annotation file while it is being read."""

    name: str = ""
    categories: Mapping[int | str, Json] = field(default_factory=dict)
    images: dict[int | str, _Image] = field(default_factory=dict)
    # the number among the entries, by id, of those that are no images
    refused: dict[int | str, int] = field(default_factory=dict)


def _read(file: Path, folders: Sequence[Path], part: _Part, classes: Sequence[str] | None) -> Split:
    document = _load(file)
    reading = _Document(name=file.name)
    annotations = document["annotations"]
    used = {_number(entry.get("category_id")) for entry in annotations}
    reading.categories = _categories(reading, document["categories"], used)
    _read_images(reading, document["images"], part.root, folders)
    if part.keypoints:
        return _poses(reading, annotations, part)
    return _objects(reading, annotations, part, classes)


def _load(file: Path) -> dict[str, list[Json]]:
    """The lists `images`, `annotations` and `categories` of the file. Raises UserError."""
    kind = special(file)
    if kind is not None:
        raise UserError(f"'{file}' is {kind}, not an annotation file")
    try:
        document = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise UserError(f"'{file}' does not exist; give the path of an annotation file") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"'{file}', line {error.lineno}, column {error.colno}: this is not JSON, or not all of it ({error.msg})"
        ) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, a number of thousands of digits, thousands of brackets
        raise UserError(f"'{file}' is not JSON that can be read ({error})") from error
    if not isinstance(document, dict):
        raise UserError(
            f"'{file}' is not in COCO's format: it is a {type(document).__name__}, not an object with images, "
            "annotations, categories"
        )
    lists: dict[str, list[Json]] = {}
    for key in ("images", "annotations", "categories"):
        entries = document.get(key)
        if key in ("images", "categories") and entries == []:
            raise UserError(f"'{file}': the list of '{key}' is empty")
        if not isinstance(entries, list):
            state = "is missing" if key not in document else "is not a list"
            raise UserError(f"'{file}' is not in COCO's format: '{key}' {state}")
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise UserError(f"'{file}' is not in COCO's format: {key}[{index}] is not an object")
        lists[key] = entries
    return lists


def _categories(reading: _Document, entries: Sequence[Json], used: set[int | str | None]) -> dict[int | str, Json]:
    """The categories by id, in the order of the ids, which may have gaps. Raises UserError.

    One that no annotation has and that others name as their supercategory is the root of a tree, and no class.
    """
    found: dict[int | str, Json] = {}
    for index, entry in enumerate(entries):
        number, name = _number(entry.get("id")), entry.get("name")
        if number is None or not isinstance(name, str) or not name:
            raise UserError(f"{reading.name}: categories[{index}] needs a number as 'id' and a 'name'")
        if number in found:
            raise UserError(f"{reading.name}: categories[{index}] has the id of another one ({number}, '{name}')")
        found[number] = entry
    above = {number: _names_it(found, number) for number in found}
    roots = [number for number in found if number not in used and above[number] and len(found) > 1]
    for number in roots:
        entry = found.pop(number)
        reading.notes.append(
            f"the category '{entry['name']}' is no class: no annotation has it, and others name it as their "
            "supercategory"
        )
    names = Counter(str(entry["name"]) for entry in found.values())
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(
            f"{reading.name}: {names[twice[0]]} categories have the name '{twice[0]}'; give each class a name "
            "of its own"
        )
    return dict(sorted(found.items(), key=lambda row: (isinstance(row[0], str), row[0])))


def _names_it(categories: Mapping[int | str, Json], number: int | str) -> bool:
    """Another category says that this one is above it."""
    name = categories[number]["name"]
    return any(other != number and entry.get("supercategory") == name for other, entry in categories.items())


def _number(value: object) -> int | str | None:
    """An id: a whole number, however it is written, or a text; None where it is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int | str) else None


def _is_number(value: object) -> bool:
    """A finite number that a position or an area may be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _read_images(reading: _Document, entries: Sequence[Json], root: Path, folders: Sequence[Path]) -> None:
    names = [str(entry["file_name"]) for entry in entries if naming.is_name(entry.get("file_name"))]
    within = [root] if any(folder.is_relative_to(root) for folder in folders) else [root, *folders]
    place = naming.place(names, folders, within)
    files: dict[str, int] = {}
    for index, entry in enumerate(entries):
        where = f"{reading.name}: images[{index}]"
        name, number = entry.get("file_name"), _number(entry.get("id"))
        if number is not None and number not in reading.images:
            reading.refused[number] = index  # until nothing is wrong with it
        if not isinstance(name, str) or number is None:
            reading.fault("image-entry", where, "it needs an 'id', a number or a text, and a 'file_name'", samples=1)
            continue
        if not naming.is_name(name):
            reading.fault("image-entry", where, "its file_name is none that a file can have", samples=1)
            continue
        path = place.file(name) or place.expected(name)
        if path is None:
            message = (
                "its file_name leads out of the folder of the data; give names that begin in the folder of the images"
            )
            reading.fault("outside", f"{where} ('{name}')", message, samples=1)
            continue
        if number in reading.images:
            reading.fault("same-id", f"{where} ('{name}')", f"its id {number} is that of another image", samples=1)
            continue
        file = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
        if file in files:
            message = f"its file is that of images[{files[file]}] too; join the two entries"
            reading.fault("same-file", f"{where} ('{name}')", message, samples=1)
            continue
        files[file] = index
        del reading.refused[number]
        reading.images[number] = _Image(where, file, _size(entry, path), len(reading.images))


def _size(entry: Json, path: Path) -> Size | None:
    """The size that the entry says, or else the file; None where neither does."""
    from fnatool.data import images  # Pillow: where the entries say all sizes, it is not needed

    height, width = (entry.get(name) for name in ("height", "width"))
    if _is_extent(height) and _is_extent(width):
        return int(height), int(width)  # type: ignore[call-overload]
    try:
        return images.size(path)
    except images.Unreadable:
        return None


def _is_extent(value: object) -> bool:
    return _is_number(value) and value == int(value) and value > 0  # type: ignore[call-overload,operator]


@dataclass(frozen=True)
class _Object:
    """An annotation that can be used, its box cut to the image."""

    labelled: LabelledBox
    entry: Json
    where: str


def _usable(
    reading: _Document, entries: Iterable[tuple[int, Json]], category_of: Callable[[Json], int | str]
) -> Iterator[tuple[int | str, _Object]]:
    """(image id, object) for each annotation without fault; category_of gives the index of its class, or what is wrong
    with it.

    Every annotation that is left out is the one entry of a fault. An image with an object that cannot be used would
    teach that there is none, so the fault is the image's too; but one of a category that is no class is none.
    """
    for index, entry in entries:
        number = _number(entry.get("image_id"))
        where = f"{reading.name}: annotations[{index}] (id {entry.get('id')})"
        if number in reading.refused:
            reading.fault("no-image", where, f"its image, images[{reading.refused[number]}], cannot be used", entries=1)
            continue
        if number is None or number not in reading.images:
            reading.fault(
                "unknown-image", where, f"its image_id {entry.get('image_id')!r} is that of no image", entries=1
            )
            continue
        image = reading.images[number]
        where = f"{where[:-1]}, '{image.file}')"
        if image.size is None:
            reading.fault("unreadable", where, "its image cannot be read", entries=1)
            continue
        category, box = category_of(entry), _box(entry.get("bbox"), image.size, reading.overhangs)
        foreign = FOREIGN if _number(entry.get("category_id")) in reading.categories else "unknown-class"
        problems = {code: problem for code, problem in ((foreign, category), ("box", box)) if isinstance(problem, str)}
        for count, (code, problem) in enumerate(problems.items()):
            items = () if code == FOREIGN else (image.index,)
            reading.fault(code, where, problem, items=items, entries=int(count == 0))
        if isinstance(category, str) or isinstance(box, str):
            continue
        area = entry.get("area")
        own = (
            float(area)
            if isinstance(area, int | float) and 0 < area < LARGEST
            else (box[2] - box[0]) * (box[3] - box[1])
        )
        yield number, _Object(LabelledBox(int(category), box, own, bool(entry.get("iscrowd"))), entry, where)


def _box(value: object, size: Size, overhangs: list[float]) -> Edges | str:
    """Left, top, right, bottom within the image, or what is wrong with the box; how far it reached out of it joins
    overhangs.
    """
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        return f"its bbox {_short(value)} is not four numbers x, y, width, height"
    left, top, width, height = map(float, value)
    if width <= 0 or height <= 0:
        return f"its bbox {_short(value)} has no area"
    within = cut((left, top, left + width, top + height), size, overhangs)
    return within or f"its bbox {_short(value)} is outside the image, which is {size[1]}×{size[0]}"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


# --- boxes ---


def _objects(reading: _Document, entries: Sequence[Json], part: _Part, wanted: Sequence[str] | None) -> Split:
    categories = reading.categories
    own = tuple(str(category["name"]) for category in categories.values())
    classes = tuple(wanted or own)
    index_of = {number: classes.index(str(c["name"])) for number, c in categories.items() if c["name"] in classes}

    def category_of(entry: Json) -> int | str:
        number = _number(entry.get("category_id"))
        if number is None or number not in categories:
            return f"its category_id {entry.get('category_id')!r} is that of no category"
        if number not in index_of:
            return f"its category '{categories[number]['name']}' is none of the {len(classes)} classes"
        return index_of[number]

    by_image: dict[int | str, list[_Object]] = {number: [] for number in reading.images}
    for number, found in _usable(reading, enumerate(entries), category_of):
        by_image[number].append(found)
    items = tuple(
        boxed(image.file, image.size, [found.labelled for found in by_image[number]], image.where)
        for number, image in reading.images.items()
    )
    found_samples = len(items) + sum(fault.samples for fault in reading.faults)
    faults, notes = tuple(reading.faults), reading.all_notes()
    return Split(
        task="detection",
        name=part.name,
        root=part.root,
        layout=LAYOUT,
        classes=classes,
        items=items,
        faults=faults,
        found=found_samples,
        entries=len(entries),
        notes=notes,
    )


# --- keypoints ---


def _poses(reading: _Document, entries: Sequence[Json], part: _Part) -> Split:
    categories = reading.categories
    joints = _joints(reading.name, categories)
    posed = {number for number, category in categories.items() if "keypoints" in category}

    def category_of(entry: Json) -> int | str:
        number = _number(entry.get("category_id"))
        return (
            0
            if number in posed
            else f"its category_id {entry.get('category_id')!r} is that of no category with keypoints"
        )

    items: list[Item] = []
    outside = 0
    people = [
        (index, entry)
        for index, entry in enumerate(entries)
        if not entry.get("iscrowd") and entry.get("num_keypoints") != 0
    ]
    for number, found in _usable(reading, people, category_of):
        image = reading.images[number]
        points = _points(found.entry.get("keypoints"), len(joints), image.size or (0, 0))
        if isinstance(points, str):
            reading.fault("keypoints", found.where, points, entries=1)
            continue
        outside += sum(flag > 0 for flag in found.entry["keypoints"][2::3]) - int((points[:, 2] > 0).sum())  # type: ignore[index]
        if points[:, 2].any():
            box = np.array(found.labelled.box, np.float32)
            seen = points[:, 2].astype(np.uint8)
            items.append(
                Posed(
                    image.file,
                    image.size or (0, 0),
                    box,
                    points[:, :2] + np.float32(0.5),
                    seen,
                    found.labelled.area,
                    image.where,
                )
            )
    # an annotation is a sample here
    faults = tuple(Fault(fault.finding, samples=fault.entries) for fault in reading.faults)
    unusable = sum(fault.samples for fault in faults)
    classes = tuple(str(categories[number]["name"]) for number in posed)
    without = len(entries) - len(items) - unusable
    notes = [f"{without:,} annotations are crowds or have no keypoint"] if without else []
    notes += [f"{outside:,} keypoint(s) are outside their images and count as not labelled"] if outside else []
    if not items and not faults:
        raise UserError(
            f"{reading.name}: no annotation has a keypoint ({len(entries):,} annotations of "
            f"{len(reading.images):,} images)"
        )
    found_samples = len(items) + unusable
    all_notes = (*reading.all_notes(), *notes)
    return Split(
        task="pose",
        name=part.name,
        root=part.root,
        layout=LAYOUT,
        classes=classes,
        items=tuple(items),
        faults=faults,
        found=found_samples,
        joints=joints,
        notes=all_notes,
    )


def _joints(file: str, categories: Mapping[int | str, Json]) -> tuple[str, ...]:
    """The names of the keypoints, the same in every category that has any. Raises UserError."""
    found = {number: category["keypoints"] for number, category in categories.items() if "keypoints" in category}
    if not found:
        raise UserError(f"{file}: no category has 'keypoints', the list of their names; is this a file of boxes?")
    first = next(iter(found.values()))
    named = isinstance(first, list) and first and all(isinstance(name, str) and name for name in first)
    if not named or not isinstance(first, list) or len(set(first)) < len(first):
        raise UserError(f"{file}: 'keypoints' of a category is not a list of different names")
    if any(other != first for other in found.values()):
        raise UserError(
            f"{file}: its categories have different keypoints, which one network cannot find; split the file"
        )
    return tuple(first)


def _points(value: object, joints: int, size: Size) -> np.ndarray[tuple[int, int], np.dtype[np.float32]] | str:
    """[J, 3] x, y, visibility, or what is wrong with the keypoints. One that lies outside the image is not labelled."""
    if not isinstance(value, list) or len(value) != 3 * joints:
        return f"its keypoints are not {joints} × x, y, visibility"
    if not all(map(_is_number, value)):
        return "its keypoints hold something that is no number"
    points = np.array(value, np.float32).reshape(joints, 3)
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        return "a visibility of its keypoints is not 0, 1 or 2"
    edge = np.array([size[1], size[0]], np.float32) - 0.5  # COCO counts from the middle of the first pixel
    inside = ((points[:, :2] >= -0.5 - OVERHANG) & (points[:, :2] <= edge + OVERHANG)).all(1)
    seen = points[:, 2] > 0
    if seen.any() and not (seen & inside).any():
        x, y = points[seen][0, :2]
        return f"its keypoint at {x:g}, {y:g} is outside the image, which is {size[1]}×{size[0]}, and so is every other"
    points[seen, :2] = np.clip(points[seen, :2], -0.5, edge)
    points[~inside] = 0
    return points
