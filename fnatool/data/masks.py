"""Segmentation: folders of images and masks with equal stems, Pascal VOC's layout, and that of Cityscapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from fnatool.data.images import is_image
from fnatool.data.sources import Sources, class_names, lines_of, subfolders, subfolders_by_split
from fnatool.data.split import IGNORE, UNKNOWN, Fault, Masked, Split
from passes.check import Finding
from passes.errors import UserError

MASK_FOLDERS = ("masks", "labels", "annotations")
MOST_CLASSES = 253  # 254 and 255 have other meanings

# Pascal VOC's own classes, in the order of its palette
VOC = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse"),
    *("motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
# The 19 classes that Cityscapes is evaluated on, and the id that each has in its labelIds files
CITYSCAPES = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19, "traffic sign": 20,
    "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31,
    "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
CITYSCAPES_IDS = 34

Pair = tuple[str, str]


def _split(name: str, root: Path, layout: str, classes: Sequence[str], pairs: list[Pair], faults: list[Fault], codes: bytes) -> Split:
    items = tuple(Masked(image, mask) for image, mask in pairs)
    found = len(items) + sum(fault.samples for fault in faults)
    return Split("segmentation", name, root, layout, tuple(classes), items, tuple(faults), found, codes=codes)


def codes_of(classes: int) -> bytes:
    """Masks hold the class itself, or IGNORE."""
    return bytes([*range(classes), *[UNKNOWN] * (255 - classes), IGNORE])


def _classes(root: Path, wanted: Sequence[str] | None, default: Sequence[str] | None = None) -> tuple[str, ...]:
    """The names of 0, 1, 2 … in the masks. Raises UserError where they are unknown or not the wanted ones."""
    stated = class_names(root)
    if stated is not None and wanted is not None and tuple(wanted) != stated:
        raise UserError(f"the classes that '{root}' states ({_some(stated)}) are not those asked for ({_some(wanted)})")
    names = tuple(stated or wanted or default or ())
    if len(names) < 2 or len(set(names)) != len(names) or len(names) > MOST_CLASSES:
        why = f"there are {len(names)} of them, or two are equal" if names else "there is no such file"
        raise UserError(f"put the class names into '{root / 'classes.txt'}', one a line from the class of mask value 0 on ({why})")
    return names


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" … {len(names)} in all" if len(names) > 4 else "")


# --- images and masks in folders ---

FOLDERS = "image and mask folders"
FOLDERS_LOOKED_FOR = "DIR/train/images and DIR/train/masks, DIR/images/train and DIR/masks/train, or DIR/images and DIR/masks"


def find_folders(root: Path) -> Sources:
    """The parts of a data set whose masks have the stems of their images; nothing where there are no such folders."""
    pairs = {name: pair for name, folder in subfolders_by_split(root).items() if (pair := _pair_of_folders(folder)) is not None}
    top = _pair_of_folders(root)
    if not pairs and top is not None:
        images, masks = (subfolders_by_split(folder) for folder in top)
        pairs = {name: (images[name], masks[name]) for name in images if name in masks} or {"all": top}
    return {name: partial(_read_folders, root, name, pair) for name, pair in pairs.items()}


def _pair_of_folders(folder: Path) -> tuple[Path, Path] | None:
    names = subfolders(folder)
    masks = [name for name in MASK_FOLDERS if name in names]
    return (folder / "images", folder / masks[0]) if "images" in names and masks else None


def _read_folders(root: Path, name: str, folders: tuple[Path, Path], wanted: Sequence[str] | None) -> Split:
    classes = _classes(root, wanted)
    faults: list[Fault] = []
    images, masks = (_by_stem(root, folder, faults) for folder in folders)
    for stem in images.keys() - masks.keys():
        message = f"it has no mask: there is no '{stem}' in {folders[1].relative_to(root).as_posix()}/"
        faults.append(Fault(Finding("error", "missing-mask", images[stem], message), samples=1))
    for stem in masks.keys() - images.keys():
        message = f"there is no image '{stem}' in {folders[0].relative_to(root).as_posix()}/ for this mask"
        faults.append(Fault(Finding("error", "missing-image", masks[stem], message), samples=1))
    pairs = [(images[stem], masks[stem]) for stem in sorted(images.keys() & masks.keys())]
    faults.sort(key=lambda fault: fault.finding.where)
    return _split(name, root, FOLDERS, classes, pairs, faults, codes_of(len(classes)))


def _by_stem(root: Path, folder: Path, faults: list[Fault]) -> dict[str, str]:
    """The images in folder and below, by what precedes the suffix of their path; those whose stem is taken become faults."""
    found: dict[str, str] = {}
    for path in sorted(path for path in folder.rglob("*") if is_image(path.name)):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        file = path.relative_to(root).as_posix()
        if stem in found:
            message = f"it has the same name as {found[stem]}, so which mask belongs to which image is open"
            faults.append(Fault(Finding("error", "same-stem", file, message), samples=1))
        else:
            found[stem] = file
    return found


# --- Pascal VOC ---

PASCAL = "Pascal VOC"
PASCAL_LOOKED_FOR = "DIR/JPEGImages, DIR/SegmentationClass and DIR/ImageSets/Segmentation/train.txt, val.txt"


def find_pascal(root: Path) -> Sources:
    """The lists of a data set in Pascal VOC's layout, or "all" of its masks where it has no lists."""
    names = subfolders(root)
    masks = [name for name in ("SegmentationClass", "SegmentationClassPNG") if any(_images(root / name))]
    if "JPEGImages" not in names or not masks:
        return {}
    lists = root / "ImageSets" / "Segmentation"
    listed = {name: lists / f"{name}.txt" for name in ("train", "val", "test") if (lists / f"{name}.txt").is_file()}
    sources: Mapping[str, Path | None] = listed or {"all": None}
    return {name: partial(_read_pascal, root, name, (masks[0], lines)) for name, lines in sources.items()}


def _images(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if is_image(path.name)] if folder.is_dir() else []


def _read_pascal(root: Path, name: str, where: tuple[str, Path | None], wanted: Sequence[str] | None) -> Split:
    classes = _classes(root, wanted, VOC)
    images = {path.stem: f"JPEGImages/{path.name}" for path in _images(root / "JPEGImages")}
    masks = {path.stem: f"{where[0]}/{path.name}" for path in _images(root / where[0])}
    pairs: list[Pair] = []
    faults: list[Fault] = []
    seen: set[str] = set()
    for place, stem in _stems(root, where[1], masks):
        missing = [f"{kind}/{stem}" for kind, files in (("JPEGImages", images), (where[0], masks)) if stem not in files]
        if missing:
            code = "missing-image" if stem not in images else "missing-mask"
            faults.append(Fault(Finding("error", code, place, f"there is no {' and no '.join(missing)}"), samples=1))
        elif stem in seen:
            faults.append(Fault(Finding("error", "listed-twice", place, f"'{stem}' is listed before"), samples=1))
        else:
            pairs.append((images[stem], masks[stem]))
        seen.add(stem)
    return _split(name, root, PASCAL, classes, pairs, faults, codes_of(len(classes)))


def _stems(root: Path, lines: Path | None, masks: dict[str, str]) -> list[tuple[str, str]]:
    """(where it is said, stem) for every sample."""
    if lines is None:
        return [(masks[stem], stem) for stem in sorted(masks)]
    file = lines.relative_to(root).as_posix()
    text = lines_of(lines)
    return [(f"{file}:{number}", line.split()[0]) for number, line in enumerate(text, 1) if line.strip()]


# --- Cityscapes ---

STREETS = "Cityscapes"
STREETS_LOOKED_FOR = "DIR/leftImg8bit/train/CITY/*_leftImg8bit.png and DIR/gtFine/train/CITY/*_gtFine_labelIds.png (or _labelTrainIds.png)"
PHOTO = "_leftImg8bit.png"


def find_streets(root: Path) -> Sources:
    """The splits of a data set in the layout of Cityscapes."""
    if not (root / "gtFine").is_dir():
        return {}
    found = {name: folder for name, folder in subfolders_by_split(root / "leftImg8bit").items() if (root / "gtFine" / folder.name).is_dir()}
    return {name: partial(_read_streets, root, name, folder) for name, folder in found.items()}


def _read_streets(root: Path, name: str, folder: Path, wanted: Sequence[str] | None) -> Split:
    classes = tuple(CITYSCAPES)
    if wanted is not None and tuple(wanted) != classes:
        raise UserError(f"Cityscapes has the classes {_some(classes)}, not those asked for ({_some(wanted)})")
    pairs: list[Pair] = []
    faults: list[Fault] = []
    kinds = ("labelIds", "labelTrainIds")
    truth = root / "gtFine" / folder.name
    kind = next((kind for kind in kinds if next(truth.rglob(f"*_gtFine_{kind}.png"), None) is not None), kinds[0])
    for photo in sorted(folder.rglob(f"*{PHOTO}")):
        mask = truth / photo.parent.name / f"{photo.name.removesuffix(PHOTO)}_gtFine_{kind}.png"
        image = photo.relative_to(root).as_posix()
        if mask.is_file():
            pairs.append((image, mask.relative_to(root).as_posix()))
        else:
            message = f"it has no mask: there is no {mask.relative_to(root).as_posix()}"
            faults.append(Fault(Finding("error", "missing-mask", image, message), samples=1))
    codes = _street_codes() if kind == "labelIds" else codes_of(len(classes))
    return _split(name, root, STREETS, classes, pairs, faults, codes)


def _street_codes() -> bytes:
    """From the 34 ids to the 19 classes; the other ids are ignored."""
    codes = bytearray([IGNORE] * CITYSCAPES_IDS + [UNKNOWN] * (255 - CITYSCAPES_IDS) + [IGNORE])
    for index, number in enumerate(CITYSCAPES.values()):
        codes[number] = index
    return bytes(codes)
