"""Finding the parts of a data set in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fnatool.data.split import Split
from passes.errors import UserError

# From the names of the parts that a layout finds ("train", "val", "test", or "all" for data that is not split) to what reads each;
# its argument is the classes it must keep to, None for the data's own.
Sources = Mapping[str, Callable[[Sequence[str] | None], Split]]

ALIASES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def subfolders(folder: Path) -> list[str]:
    """The names of the folders in folder, sorted, without hidden ones."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def subfolders_by_split(folder: Path) -> dict[str, Path]:
    """The folders in folder that are named like splits."""
    names = subfolders(folder)
    return {split: folder / alias for split, aliases in ALIASES.items() for alias in aliases if alias in names}


def class_names(root: Path) -> tuple[str, ...] | None:
    """The names in classes.txt or class_names.txt of root, a line each; None where there is no such file."""
    for name in ("classes.txt", "class_names.txt"):
        if (root / name).is_file():
            return tuple(line.strip() for line in lines_of(root / name) if line.strip())
    return None


def lines_of(file: Path) -> list[str]:
    """The lines of a text file. Raises UserError where it is not UTF-8."""
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"'{file}' is not UTF-8 text (byte {error.start}); save it as such") from error
