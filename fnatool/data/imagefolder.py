"""Classification: a folder for every class, DIR/train/CLASS/… and DIR/val/CLASS/…, or DIR/CLASS/… to be split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fnatool.data.images import SUFFIXES, is_image
from fnatool.data.sources import Sources, subfolders, subfolders_by_split
from fnatool.data.split import Fault, Labelled, Split
from passes.check import Finding
from passes.errors import UserError

LAYOUT = "class folders"
LOOKED_FOR = "DIR/train/CLASS/…, DIR/val/CLASS/…, or DIR/CLASS/…"


def find(root: Path) -> Sources:
    """The parts of the data set at root: its splits, or "all"; nothing where it has no folders."""
    found = subfolders_by_split(root)
    if not found:
        found = {"all": root} if subfolders(root) else {}
    return {name: partial(_read, root, folder, name) for name, folder in found.items()}


def _read(root: Path, folder: Path, name: str, classes: Sequence[str] | None) -> Split:
    names = subfolders(folder)
    known = tuple(classes or names)
    if len(known) < 2:
        raise UserError(f"'{folder}' has {len(known)} class folder(s); classification needs two or more")
    items: list[Labelled] = []
    faults: list[Fault] = []
    for label in names:
        files = _files(root, folder / label)
        if label in known:
            items += [Labelled(file, known.index(label)) for file in files]
        else:
            message = f"it is none of the {len(known)} classes ({', '.join(known[:3])} …), so its {len(files)} images have no label"
            faults.append(_fault("unknown-class", root, folder / label, message, len(files)))
        if not files:
            message = f"this class has no image; files of these kinds are: {', '.join(sorted(SUFFIXES))}"
            faults.append(_fault("empty-class", root, folder / label, message, 0))
    found = len(items) + sum(fault.samples for fault in faults)
    return Split("classification", name, root, LAYOUT, known, tuple(items), tuple(faults), found)


def _files(root: Path, folder: Path) -> list[str]:
    """The images in folder and below it, relative to root, sorted."""
    paths = [Path(at, file) for at, _, files in os.walk(folder, followlinks=True) for file in files if is_image(file)]
    return sorted(path.relative_to(root).as_posix() for path in paths)


def _fault(code: str, root: Path, folder: Path, message: str, samples: int) -> Fault:
    return Fault(Finding("error", code, f"{folder.relative_to(root).as_posix()}/", message), samples=samples)
