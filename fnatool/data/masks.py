"""Segmentation: folders of images and masks with equal stems, Pascal VOC's layout, and that of Cityscapes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fnatool.data.folders import below, is_image, left_out, listed
from fnatool.data.labelmap import LABELMAP, labelmap
from fnatool.data.options import USUAL, Colours, DataOptions
from fnatool.data.sources import class_names, folders_by_split, lines_of, named, split_of, unwrapped
from fnatool.data.split import IGNORE, UNKNOWN, Fault, Masked, Sources, Split
from passes.check.finding import Finding
from passes.errors import UserError

# in any case
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "photos", "pictures", "inputs", "leftimg8bit")
MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "segmentationclass", "segmentationclasspng"),
    *(
        "segmentation",
        "segmentations",
        "seg",
        "segs",
        "groundtruth",
        "ground_truth",
        "ground-truth",
        "gt",
        "gtfine",
        "targets",
        "trimaps",
    ),
)
MOST_CLASSES = 253  # 254 and 255 have other meanings
# What the name of a mask has after that of its image, and that of an image where both lie in one folder, or have such
# ends both
MASK_ENDS = re.compile(
    r"[-_. ](masks?|seg|segm|segmentation|segmented|labels?|labelids|labeltrainids|gt|groundtruth|ground[-_ "
    r"]truth|annotations?|annot|"
    r"target|trimap|l)$",
    re.I,
)
IMAGE_ENDS = re.compile(r"[-_. ](images?|imgs?|photo|rgb|sat|input|original|orig|leftimg8bit)$", re.I)

OTHER_LABELS = (".txt", ".xml", ".json")  # of files in a folder of labels that are no masks

# Pascal VOC's own classes, in the order of its palette
VOC = (
    *(
        "background",
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
    ),
    *("motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
# The 19 classes that Cityscapes is evaluated on, and the id that each has in its labelIds files
CITYSCAPES = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
CITYSCAPES_IDS = 34

Pair = tuple[str, str]
Files = Mapping[str, str]  # by their stem


@dataclass(frozen=True)
class _Part:
    """Where a split is, in which layout, and what is said of its masks."""

    name: str
    root: Path
    layout: str
    options: DataOptions


@dataclass(frozen=True)
class _Values:
    """What the values of masks mean: the classes, for each of the 256 values a code (see Split), and the values'
    colours.
    """

    classes: tuple[str, ...]
    codes: bytes
    colours: Colours = ()


def _split(
    of: _Part, pairs: Sequence[Pair], faults: Sequence[Fault], *, values: _Values, others: Sequence[Path]
) -> Split:
    items = tuple(Masked(image, mask) for image, mask in pairs)
    found = len(items) + sum(fault.samples for fault in faults)
    notes = left_out(of.root, others)
    return Split(
        task="segmentation",
        name=of.name,
        root=of.root,
        layout=of.layout,
        classes=values.classes,
        items=items,
        faults=tuple(faults),
        found=found,
        codes=values.codes,
        colours=values.colours,
        notes=notes,
    )


def codes_of(classes: int, options: DataOptions = USUAL) -> bytes:
    """For each value of a mask its class, IGNORE, or UNKNOWN: without options masks hold the class itself, and 255 is
    IGNORE.
    """
    codes = bytearray([UNKNOWN] * 256)
    for number, value in enumerate(_order(options)[:classes]):
        codes[value] = number
    for value in options.ignore:
        codes[value] = IGNORE
    return bytes(codes)


def _order(options: DataOptions) -> list[int]:
    """The values of the classes, in their order."""
    first = [] if options.background is None else [options.background]
    return [*first, *(value for value in range(256) if value not in (*first, *options.ignore))]


def _values(of: _Part, wanted: Sequence[str] | None, default: Sequence[str] | None = None) -> _Values:
    """What the masks of a part hold. Raises UserError where that is unknown, or the classes are not the wanted ones."""
    labels = labelmap(of.root)
    if labels is None:
        classes = _classes(of.root, wanted, default)
        return _Values(classes, codes_of(len(classes), of.options))
    names = [labels[value].name for value in _order(of.options) if value < len(labels)]
    classes = _classes(of.root, wanted, names)
    if classes != tuple(names):
        said = "classes.txt states" if class_names(of.root) else "are asked for"
        raise UserError(
            f"the classes in '{of.root / LABELMAP}' ({_some(names)}) are not those that {said} ({_some(classes)})"
        )
    return _Values(classes, codes_of(len(classes), of.options), tuple(label.colour for label in labels))


def _classes(root: Path, wanted: Sequence[str] | None, default: Sequence[str] | None = None) -> tuple[str, ...]:
    """The names of the classes in the order of their values. Raises UserError where they are unknown or not the wanted
    ones.
    """
    stated = class_names(root)
    if stated is not None and wanted is not None and tuple(wanted) != stated:
        raise UserError(f"the classes that '{root}' states ({_some(stated)}) are not those asked for ({_some(wanted)})")
    names = tuple(stated or wanted or default or ())
    if len(names) < 2 or len(set(names)) != len(names) or len(names) > MOST_CLASSES:
        why = f"there are {len(names)} of them, or two are equal" if names else "there is no such file"
        raise UserError(
            f"put the class names into '{root / 'classes.txt'}', one a line from the class of mask value 0 on ({why})"
        )
    return names


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" … {len(names)} in all" if len(names) > 4 else "")


# --- images and masks in folders ---

FOLDERS = "image and mask folders"
FOLDERS_LOOKED_FOR = (
    "DIR/train/images and DIR/train/masks, DIR/images/train and DIR/masks/train, DIR/images and DIR/masks, "
    "or NAME.jpg and NAME_mask.png in one folder"
)


def find_folders(root: Path, options: DataOptions) -> Sources:
    """The parts of a data set whose masks are called like their images, but for an end as _mask; nothing without such
    folders.
    """
    pairs = {
        name: pair
        for name, folder in folders_by_split(root, _has_pair).items()
        if (pair := _pair_of_folders(folder)) is not None
    }
    top = _pair_of_folders(root)
    if not pairs and top is not None:
        images, masks = (folders_by_split(folder) for folder in top)
        pairs = {name: (images[name], masks[name]) for name in images if name in masks} or {"all": top}
    return {name: partial(_read_folders, _Part(name, root, FOLDERS, options), pair) for name, pair in pairs.items()}


def _has_pair(folder: Path) -> bool:
    return _pair_of_folders(folder) is not None


def _pair_of_folders(folder: Path) -> tuple[Path, Path] | None:
    """Where images and masks lie: the same folder, where they lie together."""
    images, masks = named(folder, IMAGE_FOLDERS), named(folder, MASK_FOLDERS)
    if images is not None and masks is not None:
        return None if _holds_text(masks) else (images, masks)
    for place in (folder, *([images] if images is not None else [])):
        stems = {path.stem for path in listed(place) if is_image(path.name)}
        if any((image := MASK_ENDS.sub("", stem)) != stem and image in stems for stem in stems):
            return place, place
    return None


def _holds_text(folder: Path) -> bool:
    """It holds labels of another kind, and no picture, whether in folders of splits or without."""
    files = [path for place in (folder, *folders_by_split(folder).values()) for path in listed(place)]
    return any(path.suffix.lower() in OTHER_LABELS for path in files) and not any(is_image(path.name) for path in files)


def _read_folders(of: _Part, folders: tuple[Path, Path], wanted: Sequence[str] | None) -> Split:
    values = _values(of, wanted)
    faults: list[Fault] = []
    together = folders[0] == folders[1]
    walked = below(folders[:1] if together else folders)
    others = [path for files in walked for path in files if not is_image(path.name)]
    if together:
        walked = _divided(walked[0])
    images, masks = (_by_stem(of.root, *row, faults) for row in zip(folders, walked, strict=True))
    pairs = _paired(images, masks)
    if images and masks and not pairs:
        raise UserError(_no_pair(folders, images, masks))
    used = {mask for _, mask in pairs}
    for stem in images.keys() - {image for image, _ in pairs}:
        message = f"it has no mask: there is no '{stem}' in {_place(of, folders[1])}"
        faults.append(Fault(Finding("error", "missing-mask", images[stem], message), samples=1))
    for stem in masks.keys() - used:
        message = (
            f"there is no image '{MASK_ENDS.sub('', stem) if together else stem}' in {_place(of, folders[0])} "
            "for this mask"
        )
        faults.append(Fault(Finding("error", "missing-image", masks[stem], message), samples=1))
    files = [(images[image], masks[mask]) for image, mask in pairs]
    faults.sort(key=lambda fault: fault.finding.where)
    return _split(of, files, faults, values=values, others=others)


def _place(of: _Part, folder: Path) -> str:
    return f"{folder.relative_to(of.root).as_posix()}/"


def _divided(files: Sequence[Path]) -> list[list[Path]]:
    """Images, and masks by the ends of their names, of files that lie together; a name like that of a mask whose image
    is there is one.
    """
    stems = {path.with_suffix("") for path in files if is_image(path.name)}
    masks = {
        stem
        for stem in stems
        if (image := stem.with_name(MASK_ENDS.sub("", stem.name))) != stem and _has_image(image, stems)
    }
    return [[path for path in files if (path.with_suffix("") in masks) == is_mask] for is_mask in (False, True)]


def _has_image(stem: Path, stems: set[Path]) -> bool:
    return stem in stems or any(
        IMAGE_ENDS.sub("", other.name) == stem.name for other in stems if other.parent == stem.parent
    )


def _paired(images: Files, masks: Files) -> list[Pair]:
    """The stems of images and of their masks: equal ones, and else those that are without the ends of either kind."""
    found = {stem: stem for stem in images.keys() & masks.keys()}
    left: dict[str, str] = {}
    for stem in sorted(images.keys() - found.keys()):
        left.setdefault(IMAGE_ENDS.sub("", stem), stem)
        left[stem] = stem
    for stem in sorted(masks.keys() - found.keys()):
        image = left.get(MASK_ENDS.sub("", stem))
        if image is not None:
            found.setdefault(image, stem)
    return sorted(found.items())


def _no_pair(folders: tuple[Path, Path], images: Files, masks: Files) -> str:
    """What to say where not one mask is called like an image."""
    image, mask = images[min(images)], masks[min(masks)]
    return (
        f"no mask in '{folders[1]}' has the name of its image in '{folders[0]}': there are {len(images):,} "
        f"images, as '{image}', and "
        f"{len(masks):,} masks, as '{mask}'; give both the same name, but for the suffix and an end as _mask"
    )


def _by_stem(root: Path, folder: Path, files: Sequence[Path], faults: list[Fault]) -> dict[str, str]:
    """The images among the files of a folder, by what precedes the suffix of their path; those whose stem is taken
    become faults.
    """
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


def find_pascal(root: Path, options: DataOptions) -> Sources:
    """The lists of a data set in Pascal VOC's layout, or "all" of its masks where it has no lists."""
    root = unwrapped(root, lambda folder: (folder / "JPEGImages").is_dir())
    photos, masks = (root / "JPEGImages", [root / name for name in ("SegmentationClass", "SegmentationClassPNG")])
    masks = [folder for folder in masks if any(is_image(path.name) for path in listed(folder))]
    if not photos.is_dir() or not masks:
        return {}
    lists = [path for path in listed(root / "ImageSets" / "Segmentation") if path.suffix == ".txt" and path.is_file()]
    listing = {split: path for path in lists if (split := split_of(path.stem)) is not None}
    sources: Mapping[str, Path | None] = listing or {"all": None}
    return {
        name: partial(_read_pascal, _Part(name, root, PASCAL, options), (photos, masks[0]), lines)
        for name, lines in sources.items()
    }


def _read_pascal(of: _Part, folders: tuple[Path, Path], lines: Path | None, wanted: Sequence[str] | None) -> Split:
    values = _values(of, wanted, VOC)
    faults: list[Fault] = []
    walked = below(folders)
    others = [path for files in walked for path in files if not is_image(path.name)]
    images, masks = (_by_stem(of.root, *row, faults) for row in zip(folders, walked, strict=True))
    pairs: list[Pair] = []
    seen: set[str] = set()
    for place, stem in _stems(of.root, lines, masks):
        missing = [
            f"{folder.name}/{stem}" for folder, files in zip(folders, (images, masks), strict=True) if stem not in files
        ]
        if missing:
            code = "missing-image" if stem not in images else "missing-mask"
            faults.append(Fault(Finding("error", code, place, f"there is no {' and no '.join(missing)}"), samples=1))
        elif stem in seen:
            faults.append(Fault(Finding("error", "listed-twice", place, f"'{stem}' is listed before"), samples=1))
        else:
            pairs.append((images[stem], masks[stem]))
        seen.add(stem)
    return _split(of, pairs, faults, values=values, others=others)


def _stems(root: Path, lines: Path | None, masks: Files) -> list[tuple[str, str]]:
    """(where it is said, stem) for every sample; a list may say more after the stem."""
    if lines is None:
        return [(masks[stem], stem) for stem in sorted(masks)]
    file = lines.relative_to(root).as_posix()
    said = [(f"{file}:{number}", line.strip()) for number, line in enumerate(lines_of(lines), 1) if line.strip()]
    return [(place, line if line in masks else line.split()[0]) for place, line in said]


# --- Cityscapes ---

STREETS = "Cityscapes"
STREETS_LOOKED_FOR = (
    "DIR/leftImg8bit/train/CITY/*_leftImg8bit.png and DIR/gtFine/train/CITY/*_gtFine_labelIds.png "
    "(or _labelTrainIds.png)"
)
PHOTO = "_leftImg8bit.png"


def find_streets(root: Path, options: DataOptions) -> Sources:
    """The splits of a data set in the layout of Cityscapes."""
    if not (root / "gtFine").is_dir():
        return {}
    photos, truths = folders_by_split(root / "leftImg8bit"), folders_by_split(root / "gtFine")
    return {
        name: partial(_read_streets, _Part(name, root, STREETS, options), (folder, truths[name]))
        for name, folder in photos.items()
        if name in truths
    }


def _read_streets(of: _Part, folders: tuple[Path, Path], wanted: Sequence[str] | None) -> Split:
    classes = tuple(CITYSCAPES)
    if wanted is not None and tuple(wanted) != classes:
        raise UserError(f"Cityscapes has the classes {_some(classes)}, not those asked for ({_some(wanted)})")
    if of.options.says_values:
        raise UserError("Cityscapes itself says what its masks hold; leave 'background' and 'ignore' out")
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
    return _split(of, pairs, faults, values=_Values(classes, codes), others=others)


def _street_codes() -> bytes:
    """From the 34 ids to the 19 classes; the other ids are ignored."""
    codes = bytearray([IGNORE] * CITYSCAPES_IDS + [UNKNOWN] * (255 - CITYSCAPES_IDS) + [IGNORE])
    for index, number in enumerate(CITYSCAPES.values()):
        codes[number] = index
    return bytes(codes)
