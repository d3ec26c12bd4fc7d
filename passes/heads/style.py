"""What a kind of head is: a record in the file that builds it, and a row of `attaching.HEADS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from passes.errors import UserError
from passes.heads.detection import BoxCoding, HeadGeometry
from passes.heads.image import HeadImage
from passes.heads.inheriting import Keep, OwnHead
from passes.heads.tap import Tap
from passes.heads.taps import Chart
from passes.heads.writer import FeatureMap, Writer


@dataclass(frozen=True)
class HeadSpec:
    """The head asked for: `count` classes or joints, the taps by name (none: the style's own), and what its style lets
    one choose.

    keep: rows of the seed's head that become the first classes. own: the head that the seed has; where no taps, width
    or levels are asked for, one of the same style takes its place and its weights.
    """

    style: str
    count: int
    taps: tuple[str, ...] = ()
    width: int | None = None
    levels: int | None = None
    keep: Keep = ()
    own: OwnHead | None = None

    @property
    def goes_on(self) -> OwnHead | None:
        """The seed's head, where this one is to take its place."""
        free = not self.taps and self.width is None and self.levels is None
        return self.own if self.own is not None and free and self.own.style == self.style else None


@dataclass(frozen=True)
class HeadWork:
    """What a head is built from: what was asked for, the network's maps and image, the taps, and what writes the
    nodes.
    """

    head: HeadSpec
    chart: Chart
    image: HeadImage
    taps: tuple[Tap, ...]
    writer: Writer

    def maps(self) -> list[FeatureMap]:
        """The taps with their channels on axis 1, written where they are not."""
        return [self.writer.tapped(tap) for tap in self.taps]

    def options(self, *names: str) -> dict[str, int]:
        """The options that the user chose; the head's own defaults stand for the others."""
        return {name: value for name in names if (value := getattr(self.head, name)) is not None}

    def geometry(self) -> HeadGeometry:
        """Levels need whole strides that rise. Raises UserError where the taps have none."""
        strides = []
        for tap in self.taps:
            down, across = tap.stride
            if down.denominator != 1 or across.denominator != 1:
                raise UserError(f"tap '{tap.name}' is finer than the image; a detector taps maps of stride 1 or more")
            strides.append((int(down), int(across)))
        for tap, before, after in zip(self.taps[1:], strides, strides[1:], strict=False):
            if not (before[0] < after[0] and before[1] < after[1]):
                both = f"{after[0]}×{after[1]}, the one before it {before[0]}×{before[1]}"
                raise UserError(f"tap '{tap.name}' has stride {both}; name the taps from fine to coarse")
        return HeadGeometry(self.image.size, not self.image.free, tuple(strides))


@dataclass(frozen=True)
class HeadStyle:
    """A kind of head: its name, its outputs, what it taps when nobody says, and how it is built.

    outputs: by name the axes behind the batch that follow a free image size ('' for one that does not). counts: what
    `HeadSpec.count` says. options: those that it has. taps_features: it taps what the seed's own classifier reads,
    where it can.
    """

    name: str
    outputs: Mapping[str, tuple[str, ...]]
    taps: Callable[[Chart], Sequence[str]]
    build: Callable[[HeadWork], BoxCoding | None]
    counts: str = "classes"
    options: tuple[str, ...] = ()
    most_taps: int = 1
    taps_features: bool = False
