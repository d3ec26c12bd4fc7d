"""What all formats of boxes have in common: an object's box within its image, the faults of a split, and its items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fnatool.data.split import Boxed, Fault, Size
from passes.check.finding import Finding

LARGEST = 1e9  # a number beyond it is no position, size or area
OVERHANG = 1.0  # pixels: what rounding explains, and no note is made of

# left, top, right, bottom in pixels, (0, 0) being the corner of the first pixel
Edges = tuple[float, float, float, float]


@dataclass
class LabelFindings:
    """What reading the labels of a split has found beside its items."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    overhangs: list[float] = field(default_factory=list)  # of boxes that were cut, in pixels

    def fault(
        self, code: str, where: str, message: str, *, items: tuple[int, ...] = (), samples: int = 0, entries: int = 0
    ) -> None:
        """One more fault."""
        self.faults.append(Fault(Finding("error", code, where, message), items, samples, entries))

    def all_notes(self) -> tuple[str, ...]:
        """The notes, with one on boxes that were cut to their images."""
        over = self.overhangs
        boxes = (
            [f"{len(over):,} box(es) reach out of their images, by up to {max(over):.4g} pixels, and are cut to them"]
            if over
            else []
        )
        return (*self.notes, *boxes)


@dataclass(frozen=True)
class LabelledBox:
    """An object that can be used: the index of its class, its box cut to the image, its own pixels, whether it is a
    region of many.
    """

    label: int
    box: Edges
    area: float
    crowd: bool = False


def cut(edges: Edges, size: Size, overhangs: list[float]) -> Edges | None:
    """The part of a box that is within the image, None where none is; how far it reached out of it joins overhangs."""
    left, top, right, bottom = edges
    within = (max(left, 0.0), max(top, 0.0), min(right, float(size[1])), min(bottom, float(size[0])))
    first, second, third, fourth = map(float, np.array(within, np.float32))  # as they are kept: no side may vanish
    if third <= first or fourth <= second:
        return None
    over = max(-left, -top, right - size[1], bottom - size[0])
    if over > OVERHANG:
        overhangs.append(over)
    return first, second, third, fourth


def boxed(image: str, size: Size | None, objects: Sequence[LabelledBox], where: str) -> Boxed:
    """The item of an image and its objects."""
    return Boxed(
        image,
        size or (0, 0),
        np.array([o.box for o in objects], np.float32).reshape(-1, 4),
        np.array([o.label for o in objects], np.int64),
        np.array([o.crowd for o in objects], bool),
        np.array([o.area for o in objects], np.float32),
        where,
    )
