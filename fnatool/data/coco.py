"""Detection and pose: COCO's json of boxes or keypoints, and the folder of its images."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from fnatool.data import images
from fnatool.data.sources import ALIASES, Sources, subfolders_by_split
from fnatool.data.split import Boxed, Fault, Item, Posed, Size, Split
from passes.check import Finding
from passes.errors import UserError

LAYOUT = "COCO"
LOOKED_FOR = {
    "detection": "DIR/annotations/instances_train.json (or _train2017.json) and images in DIR/train, or DIR/train/_annotations.coco.json",
    "pose": "DIR/annotations/person_keypoints_train.json (or any *keypoints_train*.json) and images in DIR/train",
}
OTHER_KINDS = ("keypoints", "captions", "panoptic", "stuff", "image_info")  # of files in the annotations of COCO; detection wants none
LARGEST = 1e9  # a number beyond it is no position, size or area
OVERHANG = 1.0  # pixels: what rounding explains; boxes are cut to the image

Json = Mapping[str, object]


# --- finding the files ---


def find(root: Path, *, task: str) -> Sources:
    """The splits that the annotation files below root are named after, or "all" where there is a single one without a split's name."""
    beside = {name: folder / "_annotations.coco.json" for name, folder in subfolders_by_split(root).items()}
    beside = {name: file for name, file in beside.items() if file.is_file()}
    if beside:
        return {name: partial(_read, file, file.parent, (task, name, root)) for name, file in beside.items()}
    files = [file for folder in (root / "annotations", root) for file in sorted(folder.glob("*.json")) if _suits(file.stem, task)]
    named: dict[str, list[Path]] = {}
    for file in files:
        named.setdefault(_split_of(file.stem), []).append(file)
    for name, several in named.items():
        if len(several) > 1 and name != "all":
            raise UserError(f"'{root}' has several annotation files for {name}: {_names(several)}; give the path of the one to read")
    if len(named.get("all", [])) > 1 and len(named) == 1:
        raise UserError(f"'{root}' has several annotation files: {_names(files)}; give the path of the one to read")
    if len(named) > 1:
        named.pop("all", None)
    return {name: partial(_read, found[0], _image_folder(root, found[0].stem, name), (task, name, root)) for name, found in named.items()}


def read_file(file: Path, folder: Path | None, *, task: str, name: str, classes: Sequence[str] | None) -> Split:
    """The split that one annotation file describes, with its images in folder (None: looked for around the file)."""
    around = file.parent.parent if file.parent.name == "annotations" else file.parent
    return _read(file, folder or _image_folder(around, file.stem, _split_of(file.stem)), (task, name, around), classes)


def _names(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files)


def _suits(stem: str, task: str) -> bool:
    if task == "pose":
        return "keypoints" in stem
    return not any(kind in stem for kind in OTHER_KINDS)


def _split_of(stem: str) -> str:
    words = re.split(r"[^a-z]+", stem.lower())
    return next((name for name, aliases in ALIASES.items() if set(aliases) & set(words)), "all")


def _image_folder(root: Path, stem: str, name: str) -> Path:
    """Where the images of an annotation file are: train2017 beside annotations, or what people make of it."""
    wanted = [stem.rpartition("_")[2], *ALIASES[name]] if name in ALIASES else []
    folders = [root / "images" / word for word in wanted] + [root / word for word in wanted] + [root / "images"]
    return next((folder for folder in folders if folder.is_dir()), root)


# --- reading one ---


@dataclass(frozen=True)
class _Image:
    """An entry of the list of images."""

    where: str
    file: str  # relative to the root
    size: Size | None  # None: the file cannot be read, which the check of the images reports


@dataclass
class _Document:
    """An annotation file while it is being read."""

    name: str
    images: dict[object, _Image] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, code: str, where: str, message: str, *, samples: int = 0, entries: int = 0) -> None:
        self.faults.append(Fault(Finding("error", code, where, message), (), samples, entries))


def _read(file: Path, folder: Path, what: tuple[str, str, Path], classes: Sequence[str] | None) -> Split:
    task, name, root = what
    document = _load(file)
    reading = _Document(file.name)
    categories = _categories(document["categories"], file.name)
    _read_images(reading, document["images"], (root, folder))
    annotations = document["annotations"]
    if task == "pose":
        return _poses(reading, categories, annotations, (name, root))
    return _objects(reading, categories, annotations, (name, root, classes))


def _load(file: Path) -> dict[str, list[Json]]:
    """The lists `images`, `annotations` and `categories` of the file. Raises UserError."""
    try:
        document = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise UserError(f"'{file}' does not exist; give the path of an annotation file") from None
    except json.JSONDecodeError as error:
        raise UserError(f"'{file}', line {error.lineno}, column {error.colno}: this is not JSON, or not all of it ({error.msg})") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"'{file}' is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise UserError(
            f"'{file}' is not in COCO's format: it is a {type(document).__name__}, not an object with images, annotations, categories"
        )
    lists: dict[str, list[Json]] = {}
    for key in ("images", "annotations", "categories"):
        entries = document.get(key)
        if not isinstance(entries, list) or not entries:
            state = "is missing" if key not in document else "is empty" if entries == [] else "is not a list"
            raise UserError(f"'{file}' is not in COCO's format: '{key}' {state}")
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise UserError(f"'{file}' is not in COCO's format: {key}[{index}] is not an object")
        lists[key] = entries
    return lists


def _categories(entries: Sequence[Json], file: str) -> dict[int, Json]:
    """The categories by id, in the order of the ids, which may have gaps. Raises UserError."""
    found: dict[int, Json] = {}
    for index, entry in enumerate(entries):
        number, name = entry.get("id"), entry.get("name")
        if not isinstance(number, int) or isinstance(number, bool) or not isinstance(name, str) or not name:
            raise UserError(f"{file}: categories[{index}] needs a number as 'id' and a 'name'")
        if number in found or name in {other["name"] for other in found.values()}:
            raise UserError(f"{file}: categories[{index}] has the id or the name of another one ({number}, '{name}')")
        found[number] = entry
    return dict(sorted(found.items()))


def _is_number(value: object) -> bool:
    """A finite number that a position or an area may be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _read_images(reading: _Document, entries: Sequence[Json], where: tuple[Path, Path]) -> None:
    root, folder = where
    for index, entry in enumerate(entries):
        place = f"{reading.name}: images[{index}]"
        name, number = entry.get("file_name"), entry.get("id")
        if not isinstance(name, str) or not name or not isinstance(number, int | str):
            reading.fault("image-entry", place, "it needs an 'id' and a 'file_name'", samples=1)
            continue
        if number in reading.images:
            reading.fault("same-id", f"{place} ('{name}')", f"its id {number} is that of another image", samples=1)
            continue
        path = folder / name
        file = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
        size = (entry.get("height"), entry.get("width"))
        if not all(isinstance(extent, int) and not isinstance(extent, bool) and 0 < extent < LARGEST for extent in size):
            try:
                size = images.size(path)
            except images.Unreadable:
                reading.images[number] = _Image(place, file, None)
                continue
        reading.images[number] = _Image(place, file, size)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Object:
    """An annotation that can be used, its box cut to the image."""

    category: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    entry: Json
    where: str


def _usable(
    reading: _Document, entries: Iterable[tuple[int, Json]], category_of: Callable[[Json], int | str]
) -> Iterator[tuple[object, _Object]]:
    """(image id, object) for each annotation without fault; category_of gives the index of its class, or what is wrong with it.

    Every annotation that is left out is the one entry of a fault.
    """
    for index, entry in entries:
        number = entry.get("image_id")
        where = f"{reading.name}: annotations[{index}] (id {entry.get('id')})"
        if not isinstance(number, int | str) or number not in reading.images:
            reading.fault("unknown-image", where, f"its image_id {number!r} is that of no image", entries=1)
            continue
        image = reading.images[number]
        where = f"{where[:-1]}, '{image.file}')"
        if image.size is None:
            reading.fault("unreadable", where, "its image cannot be read", entries=1)
            continue
        category, box = category_of(entry), _box(entry.get("bbox"), image.size)
        problems = {code: problem for code, problem in (("unknown-class", category), ("box", box)) if isinstance(problem, str)}
        for count, (code, problem) in enumerate(problems.items()):
            reading.fault(code, where, problem, entries=int(count == 0))
        if isinstance(category, str) or isinstance(box, str):
            continue
        area = entry.get("area")
        own = float(area) if isinstance(area, int | float) and 0 < area < LARGEST else (box[2] - box[0]) * (box[3] - box[1])
        yield number, _Object(category, box, own, bool(entry.get("iscrowd")), entry, where)


def _box(value: object, size: Size) -> tuple[float, float, float, float] | str:
    """Left, top, right, bottom within the image, or what is wrong with the box."""
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        return f"its bbox {_short(value)} is not four numbers x, y, width, height"
    left, top, width, height = map(float, value)
    if width <= 0 or height <= 0:
        return f"its bbox {_short(value)} has no area"
    over = max(-left, -top, left + width - size[1], top + height - size[0])
    if over > OVERHANG:
        return f"its bbox {_short(value)} reaches {over:g} pixels out of the image, which is {size[1]}×{size[0]}"
    box = (max(left, 0.0), max(top, 0.0), min(left + width, float(size[1])), min(top + height, float(size[0])))
    return box if box[0] < box[2] and box[1] < box[3] else f"its bbox {_short(value)} is outside the image, which is {size[1]}×{size[0]}"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


# --- boxes ---


def _objects(
    reading: _Document, categories: Mapping[int, Json], entries: Sequence[Json], what: tuple[str, Path, Sequence[str] | None]
) -> Split:
    name, root, wanted = what
    own = tuple(str(category["name"]) for category in categories.values())
    classes = tuple(wanted or own)
    index_of = {number: classes.index(str(c["name"])) for number, c in categories.items() if c["name"] in classes}

    def category_of(entry: Json) -> int | str:
        number = entry.get("category_id")
        if not isinstance(number, int) or number not in categories:
            return f"its category_id {number!r} is that of no category"
        if number not in index_of:
            return f"its category '{categories[number]['name']}' is none of the {len(classes)} classes"
        return index_of[number]

    by_image: dict[object, list[_Object]] = {number: [] for number in reading.images}
    for number, found in _usable(reading, enumerate(entries), category_of):
        by_image[number].append(found)
    items = tuple(_boxed(image, by_image[number]) for number, image in reading.images.items())
    found_samples = len(items) + sum(fault.samples for fault in reading.faults)
    return Split("detection", name, root, LAYOUT, classes, items, tuple(reading.faults), found_samples, len(entries))


def _boxed(image: _Image, objects: Sequence[_Object]) -> Boxed:
    return Boxed(
        image.file,
        image.size or (0, 0),
        np.array([o.box for o in objects], np.float32).reshape(-1, 4),
        np.array([o.category for o in objects], np.int64),
        np.array([o.crowd for o in objects], bool),
        np.array([o.area for o in objects], np.float32),
        image.where,
    )


# --- keypoints ---


def _poses(reading: _Document, categories: Mapping[int, Json], entries: Sequence[Json], what: tuple[str, Path]) -> Split:
    name, root = what
    joints = _joints(reading.name, categories)
    posed = {number for number, category in categories.items() if "keypoints" in category}

    def category_of(entry: Json) -> int | str:
        number = entry.get("category_id")
        return 0 if number in posed else f"its category_id {number!r} is that of no category with keypoints"

    items: list[Item] = []
    people = [(index, entry) for index, entry in enumerate(entries) if not entry.get("iscrowd") and entry.get("num_keypoints") != 0]
    for number, found in _usable(reading, people, category_of):
        image = reading.images[number]
        points = _points(found.entry.get("keypoints"), len(joints), image.size or (0, 0))
        if isinstance(points, str):
            reading.fault("keypoints", found.where, points, entries=1)
        elif points[:, 2].any():
            box = np.array(found.box, np.float32)
            seen = points[:, 2].astype(np.uint8)
            items.append(Posed(image.file, image.size or (0, 0), box, points[:, :2] + np.float32(0.5), seen, found.area, image.where))
    faults = tuple(Fault(fault.finding, samples=fault.entries) for fault in reading.faults)  # an annotation is a sample here
    unusable = sum(fault.samples for fault in faults)
    classes = tuple(str(categories[number]["name"]) for number in posed)
    without = len(entries) - len(items) - unusable
    notes = (f"{without:,} annotations are crowds or have no keypoint",) if without else ()
    return Split("pose", name, root, LAYOUT, classes, tuple(items), faults, len(items) + unusable, joints=joints, notes=notes)


def _joints(file: str, categories: Mapping[int, Json]) -> tuple[str, ...]:
    """The names of the keypoints, the same in every category that has any. Raises UserError."""
    found = {number: category["keypoints"] for number, category in categories.items() if "keypoints" in category}
    if not found:
        raise UserError(f"{file}: no category has 'keypoints', the list of their names; is this a file of boxes?")
    first = next(iter(found.values()))
    named = isinstance(first, list) and first and all(isinstance(name, str) and name for name in first)
    if not named or not isinstance(first, list) or len(set(first)) < len(first):
        raise UserError(f"{file}: 'keypoints' of a category is not a list of different names")
    if any(other != first for other in found.values()):
        raise UserError(f"{file}: its categories have different keypoints, which one network cannot find; split the file")
    return tuple(first)


def _points(value: object, joints: int, size: Size) -> np.ndarray[tuple[int, int], np.dtype[np.float32]] | str:
    """[J, 3] x, y, visibility, or what is wrong with the keypoints."""
    if not isinstance(value, list) or len(value) != 3 * joints:
        return f"its keypoints are not {joints} × x, y, visibility"
    if not all(map(_is_number, value)):
        return "its keypoints hold something that is no number"
    points = np.array(value, np.float32).reshape(joints, 3)
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        return "a visibility of its keypoints is not 0, 1 or 2"
    labelled = points[points[:, 2] > 0, :2]
    outside = ((labelled < -OVERHANG) | (labelled > np.array([size[1], size[0]]) - 1 + OVERHANG)).any(1)
    if outside.any():
        x, y = labelled[outside][0]
        return f"its keypoint at {x:g}, {y:g} is outside the image, which is {size[1]}×{size[0]}"
    return points
