"""Classification: a folder for every class, DIR/train/CLASS/… and DIR/val/CLASS/…, or DIR/CLASS/… to be split."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fnatool.data.folders import below, is_image, kinds, left_out, listed, subfolders
from fnatool.data.options import DataOptions
from fnatool.data.sources import folders_by_split, split_of
from fnatool.data.split import Fault, Labelled, Sources, Split
from passes.check.finding import Finding
from passes.errors import UserError

LAYOUT = "class folders"
LOOKED_FOR = "DIR/train/CLASS/…, DIR/val/CLASS/…, or DIR/CLASS/…"


def find(root: Path, options: DataOptions) -> Sources:
    """The parts of the data set at root: its splits, or "all"; nothing where it has no folders.

    A folder is a split by its name where it holds folders; one that holds images alone is a class of that name.
    """
    found = folders_by_split(root, lambda folder: bool(subfolders(folder)))
    if not found:
        _require_classes(root)
        found = {"all": root} if subfolders(root) else {}
    return {name: partial(_read, root, _unwrapped(folder, name), name) for name, folder in found.items()}


def _require_classes(root: Path) -> None:
    """The folders of root are no splits without classes. Raises UserError."""
    flat = {split: name for name in subfolders(root) if (split := split_of(name)) is not None}
    if len(flat) > 1:
        names = " and ".join(f"'{name}'" for name in flat.values())
        raise UserError(
            f"{names} in '{root}' are named like splits, but have no folders of classes; what is looked for: "
            f"{LOOKED_FOR}"
        )


def _unwrapped(folder: Path, name: str) -> Path:
    """The folder with the classes: archives often repeat a split's name, as training_set/training_set/CLASS."""
    inside = subfolders(folder)
    while len(inside) == 1 and split_of(inside[0]) == name and subfolders(folder / inside[0]):
        folder = folder / inside[0]
        inside = subfolders(folder)
    return folder


def _read(root: Path, folder: Path, name: str, classes: Sequence[str] | None) -> Split:
    names = {label: _class_name(folder, label) for label in subfolders(folder)}
    known = tuple(classes or names.values())
    if len(known) < 2:
        raise UserError(f"'{folder}' has {len(known)} class folder(s); classification needs two or more{_hint(folder)}")
    if len(set(known)) < len(known):
        raise UserError(
            f"'{folder}' has two folders whose names are the same letters, written in two ways of Unicode; rename one"
        )
    items: list[Labelled] = []
    faults: list[Fault] = []
    others = [path for path in listed(folder) if not path.is_dir()]
    for label, files in zip(names, below([folder / label for label in names]), strict=True):
        images = [path.relative_to(root).as_posix() for path in files if is_image(path.name)]
        others += [path for path in files if not is_image(path.name)]
        if names[label] in known:
            items += [Labelled(image, known.index(names[label])) for image in images]
        else:
            message = (
                f"it is none of the {len(known)} classes ({', '.join(known[:3])} …), so its {len(images)} "
                "images have no label"
            )
            faults.append(_fault("unknown-class", root, folder / label, message, samples=len(images)))
        if not images:
            faults.append(_empty(root, folder / label, [folder / other for other in names if other != label]))
    found = len(items) + sum(fault.samples for fault in faults)
    notes = (
        *left_out(root, (path for path in others if not is_image(path.name))),
        *_loose(root, folder, others),
        *_beside(root, folder),
    )
    return Split(
        task="classification",
        name=name,
        root=root,
        layout=LAYOUT,
        classes=known,
        items=tuple(items),
        faults=tuple(faults),
        found=found,
        notes=notes,
    )


def _class_name(folder: Path, name: str) -> str:
    """The class of a folder: its name, in the form of Unicode that most systems write. Raises UserError where it is not
    text.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = name.encode("utf-8", "backslashreplace").decode()
        raise UserError(
            f"the name of the folder '{shown}' in '{folder}' is not UTF-8, so it cannot name a class; rename it"
        ) from error
    return unicodedata.normalize("NFC", name)


def _hint(folder: Path) -> str:
    """What may be meant, where the folders of the classes are one level deeper."""
    inside = subfolders(folder)
    return f"; is '{folder / inside[0]}' meant?" if len(inside) == 1 and subfolders(folder / inside[0]) else ""


def _empty(root: Path, folder: Path, others: Sequence[Path]) -> Fault:
    """The fault of a class without an image."""
    same = [other.name for other in others if other.resolve() == folder.resolve()]
    if same:
        return _fault(
            "same-folder",
            root,
            folder,
            f"it is the same folder as '{same[0]}', so its images have two classes",
            samples=0,
        )
    return _fault(
        "empty-class", root, folder, f"this class has no image; files of these kinds are: {kinds()}", samples=0
    )


def _fault(code: str, root: Path, folder: Path, message: str, *, samples: int) -> Fault:
    return Fault(Finding("error", code, f"{folder.relative_to(root).as_posix()}/", message), samples=samples)


def _loose(root: Path, folder: Path, files: Sequence[Path]) -> tuple[str, ...]:
    """A note on images that lie beside the folders of the classes."""
    found = [path.relative_to(root).as_posix() for path in files if path.parent == folder and is_image(path.name)]
    return (f"{len(found):,} image(s) in no class folder, as '{found[0]}'",) if found else ()


def _beside(root: Path, folder: Path) -> tuple[str, ...]:
    """A note on folders beside those of the splits; a split without folders of classes is none."""
    found = (
        [name for name in subfolders(root) if split_of(name) is None or not subfolders(root / name)]
        if folder != root
        else []
    )
    return (f"{len(found)} folder(s) beside the splits, as '{found[0]}'",) if found else ()
