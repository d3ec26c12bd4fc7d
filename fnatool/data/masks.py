"""Segmentation: folders of images and masks with equal stems, Pascal VOC's layout, and that of Cityscapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fnatool.data.folders import below, is_image, left_out, listed
from fnatool.data.sources import class_names, folders_by_split, lines_of, named, split_of
from fnatool.data.split import IGNORE, UNKNOWN, Fault, Masked, Sources, Split
from passes.check.finding import Finding
from passes.errors import UserError

IMAGE_FOLDERS = ("images", "image", "imgs", "img")  # in any case
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "annotation")
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
Files = Mapping[str, str]  # by their stem


@dataclass(frozen=True)
class _Part:
    """Where a split is, and in which layout."""

    name: str
    root: Path
    layout: str


def _split(
    of: _Part, pairs: Sequence[Pair], faults: Sequence[Fault], *, codes: bytes, classes: Sequence[str], others: Sequence[Path]
) -> Split:
    items = tuple(Masked(image, mask) for image, mask in pairs)
    found = len(items) + sum(fault.samples for fault in faults)
    notes = left_out(of.root, others)
    return Split(
        task="segmentation",
        name=of.name,
        root=of.root,
        layout=of.layout,
        classes=tuple(classes),
        items=items,
        faults=tuple(faults),
        found=found,
        codes=codes,
        notes=notes,
    )


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
    pairs = {name: pair for name, folder in folders_by_split(root, _has_pair).items() if (pair := _pair_of_folders(folder)) is not None}
    top = _pair_of_folders(root)
    if not pairs and top is not None:
        images, masks = (folders_by_split(folder) for folder in top)
        pairs = {name: (images[name], masks[name]) for name in images if name in masks} or {"all": top}
    return {name: partial(_read_folders, _Part(name, root, FOLDERS), pair) for name, pair in pairs.items()}


def _has_pair(folder: Path) -> bool:
    return _pair_of_folders(folder) is not None


def _pair_of_folders(folder: Path) -> tuple[Path, Path] | None:
    images, masks = named(folder, IMAGE_FOLDERS), named(folder, MASK_FOLDERS)
    return None if images is None or masks is None else (images, masks)


def _read_folders(of: _Part, folders: tuple[Path, Path], wanted: Sequence[str] | None) -> Split:
    classes = _classes(of.root, wanted)
    faults: list[Fault] = []
    walked = below(folders)
    others = [path for files in walked for path in files if not is_image(path.name)]
    images, masks = (_by_stem(of.root, *row, faults) for row in zip(folders, walked, strict=True))
    if images and masks and not images.keys() & masks.keys():
        raise UserError(_no_pair(folders, images, masks))
    for stem in images.keys() - masks.keys():
        message = f"it has no mask: there is no '{stem}' in {folders[1].relative_to(of.root).as_posix()}/"
        faults.append(Fault(Finding("error", "missing-mask", images[stem], message), samples=1))
    for stem in masks.keys() - images.keys():
        message = f"there is no image '{stem}' in {folders[0].relative_to(of.root).as_posix()}/ for this mask"
        faults.append(Fault(Finding("error", "missing-image", masks[stem], message), samples=1))
    pairs = [(images[stem], masks[stem]) for stem in sorted(images.keys() & masks.keys())]
    faults.sort(key=lambda fault: fault.finding.where)
    return _split(of, pairs, faults, codes=codes_of(len(classes)), classes=classes, others=others)


def _no_pair(folders: tuple[Path, Path], images: Files, masks: Files) -> str:
    """What to say where not one mask is called like an image."""
    image, mask = images[min(images)], masks[min(masks)]
    return (
        f"no mask in '{folders[1]}' has the name of its image in '{folders[0]}': there are {len(images):,} images, as '{image}', and "
        f"{len(masks):,} masks, as '{mask}'; give both the same name, but for the suffix"
    )


def _by_stem(root: Path, folder: Path, files: Sequence[Path], faults: list[Fault]) -> dict[str, str]:
    """The images among the files of a folder, by what precedes the suffix of their path; those whose stem is taken become faults."""
    found: dict[str, str] = {}
    for path in files:
        if not is_image(path.name):
            continue
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
    photos, masks = (root / "JPEGImages", [root / name for name in ("SegmentationClass", "SegmentationClassPNG")])
    masks = [folder for folder in masks if any(is_image(path.name) for path in listed(folder))]
    if not photos.is_dir() or not masks:
        return {}
    lists = [path for path in listed(root / "ImageSets" / "Segmentation") if path.suffix == ".txt" and path.is_file()]
    listing = {split: path for path in lists if (split := split_of(path.stem)) is not None}
    sources: Mapping[str, Path | None] = listing or {"all": None}
    return {name: partial(_read_pascal, _Part(name, root, PASCAL), (photos, masks[0]), lines) for name, lines in sources.items()}


def _read_pascal(of: _Part, folders: tuple[Path, Path], lines: Path | None, wanted: Sequence[str] | None) -> Split:
    classes = _classes(of.root, wanted, VOC)
    faults: list[Fault] = []
    walked = below(folders)
    others = [path for files in walked for path in files if not is_image(path.name)]
    images, masks = (_by_stem(of.root, *row, faults) for row in zip(folders, walked, strict=True))
    pairs: list[Pair] = []
    seen: set[str] = set()
    for place, stem in _stems(of.root, lines, masks):
        missing = [f"{folder.name}/{stem}" for folder, files in zip(folders, (images, masks), strict=True) if stem not in files]
        if missing:
            code = "missing-image" if stem not in images else "missing-mask"
            faults.append(Fault(Finding("error", code, place, f"there is no {' and no '.join(missing)}"), samples=1))
        elif stem in seen:
            faults.append(Fault(Finding("error", "listed-twice", place, f"'{stem}' is listed before"), samples=1))
        else:
            pairs.append((images[stem], masks[stem]))
        seen.add(stem)
    return _split(of, pairs, faults, codes=codes_of(len(classes)), classes=classes, others=others)


def _stems(root: Path, lines: Path | None, masks: Files) -> list[tuple[str, str]]:
    """(where it is said, stem) for every sample; a list may say more after the stem."""
    if lines is None:
        return [(masks[stem], stem) for stem in sorted(masks)]
    file = lines.relative_to(root).as_posix()
    said = [(f"{file}:{number}", line.strip()) for number, line in enumerate(lines_of(lines), 1) if line.strip()]
    return [(place, line if line in masks else line.split()[0]) for place, line in said]


# --- Cityscapes ---

STREETS = "Cityscapes"
STREETS_LOOKED_FOR = "DIR/leftImg8bit/train/CITY/*_leftImg8bit.png and DIR/gtFine/train/CITY/*_gtFine_labelIds.png (or _labelTrainIds.png)"
PHOTO = "_leftImg8bit.png"


def find_streets(root: Path) -> Sources:
    """The splits of a data set in the layout of Cityscapes."""
    if not (root / "gtFine").is_dir():
        return {}
    photos, truths = folders_by_split(root / "leftImg8bit"), folders_by_split(root / "gtFine")
    return {
        name: partial(_read_streets, _Part(name, root, STREETS), (folder, truths[name]))
        for name, folder in photos.items()
        if name in truths
    }


def _read_streets(of: _Part, folders: tuple[Path, Path], wanted: Sequence[str] | None) -> Split:
    classes = tuple(CITYSCAPES)
    if wanted is not None and tuple(wanted) != classes:
        raise UserError(f"Cityscapes has the classes {_some(classes)}, not those asked for ({_some(wanted)})")
    pairs: list[Pair] = []
    faults: list[Fault] = []
    kinds = ("labelIds", "labelTrainIds")
    photos, masks = below(folders)
    kind = next((kind for kind in kinds if any(path.name.endswith(f"_gtFine_{kind}.png") for path in masks)), kinds[0])
    known = set(masks)
    for photo in photos:
        if not photo.name.endswith(PHOTO):
            continue
        mask = folders[1] / photo.parent.name / f"{photo.name.removesuffix(PHOTO)}_gtFine_{kind}.png"
        image = photo.relative_to(of.root).as_posix()
        if mask in known:
            pairs.append((image, mask.relative_to(of.root).as_posix()))
        else:
            message = f"it has no mask: there is no {mask.relative_to(of.root).as_posix()}"
            faults.append(Fault(Finding("error", "missing-mask", image, message), samples=1))
    others = [photo for photo in photos if not photo.name.endswith(PHOTO)]
    codes = _street_codes() if kind == "labelIds" else codes_of(len(classes))
    return _split(of, pairs, faults, codes=codes, classes=classes, others=others)


def _street_codes() -> bytes:
    """From the 34 ids to the 19 classes; the other ids are ignored."""
    codes = bytearray([IGNORE] * CITYSCAPES_IDS + [UNKNOWN] * (255 - CITYSCAPES_IDS) + [IGNORE])
    for index, number in enumerate(CITYSCAPES.values()):
        codes[number] = index
    return bytes(codes)
