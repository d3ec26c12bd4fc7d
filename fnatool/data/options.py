"""What is said of a data set beside where it lies."""

from __future__ import annotations

from dataclasses import dataclass

Colours = tuple[tuple[int, int, int], ...]  # red, green, blue of the values 0, 1, 2 … of a mask

FORMAT_NAMES = ("folders", "coco", "voc", "cityscapes", "masks", "yolo")  # those of `formats.FORMATS`
IGNORED = (255,)  # values of a mask, unless others are said


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How labels are read. format: one of FORMAT_NAMES, where the data could be read in several; None: recognised.

    Of masks: `background` is the value of the background, which becomes the first class; the classes after it have the
    other values in their order. None: the classes have the values 0, 1, 2 … in their order. Values in `ignore` are of
    no class and count for nothing; they are left out of that order.
    """

    format: str | None = None
    background: int | None = None
    ignore: tuple[int, ...] = IGNORED

    @property
    def says_values(self) -> bool:
        """Something is said of the values of masks."""
        return self.background is not None or self.ignore != IGNORED


USUAL = DataOptions()
