"""The shapes that show an architecture: a block is a bar as high as it is wide, the seed's above what became of it.

Lengths are pixels. Heights go by the square root of the channels, so that a stem and a head fit on one page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fnatool.report.architecture import DROPPED, PartPair, Piece

SEED = "seed"  # the fate of none: what stands above

COLUMN, BAR, GAP = 38, 26, 12  # from bar to bar, a bar, and between the two rows
HIGH, LEAST = 84, 6  # of the widest bar, and of the narrowest
TEXT = 30  # below a bar: its channels and its kernels
MARK = (7, 2)  # a kernel's mark: its side is the first and so much more for each position of the kernel


@dataclass(frozen=True)
class Bar:
    """A piece as a rectangle; `ghost` is the height it would have had unchanged, where it is another."""

    x: int
    y: int
    width: int
    height: int
    base: int  # where it stands
    ghost: int | None
    mark: int | None  # the side of the square that stands for its kernels
    channels: str
    kernels: str
    fate: str
    title: str


@dataclass(frozen=True)
class Panel:
    """A part of both networks as one picture."""

    name: str
    note: str
    width: int
    height: int
    bars: tuple[Bar, ...]
    rows: tuple[int, int]  # where the bars of the first and of the second network stand


def panels(parts: Sequence[PartPair]) -> list[Panel]:
    """A picture for each part, all of one scale."""
    widest = max(
        (piece.inner for part in parts for pair in part.pairs for piece in pair if piece is not None), default=1
    )
    return [_panel(part, widest) for part in parts]


def _panel(part: PartPair, widest: int) -> Panel:
    upper, lower = HIGH, 2 * HIGH + TEXT + GAP
    bars = []
    for column, (before, after) in enumerate(part.pairs):
        x = column * COLUMN + (COLUMN - BAR) // 2
        if before is not None:
            bars.append(_bar(before, (x, upper), widest, fate=SEED, other=None))
        if after is not None:
            bars.append(_bar(after, (x, lower), widest, fate=after.fate, other=before))
        elif before is not None:
            bars.append(_bar(before, (x, lower), widest, fate=DROPPED, other=None))
    space = "" if part.space is None else "×".join(map(str, part.space))
    return Panel(part.name, space, max(len(part.pairs), 2) * COLUMN, lower + TEXT, tuple(bars), (upper, lower))


def _bar(piece: Piece, at: tuple[int, int], widest: int, *, fate: str, other: Piece | None) -> Bar:
    x, base = at
    height = _height(piece.inner, widest)
    ghost = None if other is None or other.inner == piece.inner else _height(other.inner, widest)
    largest = max(piece.kernels, default=0)
    return Bar(
        x=x,
        y=base - height,
        width=BAR,
        height=height,
        base=base,
        ghost=ghost,
        mark=None if not largest else min(MARK[0] + MARK[1] * largest, BAR - 4),
        channels=f"{piece.inner}",
        kernels="" if not largest else f"{largest}×{largest}",
        fate=fate,
        title=_title(piece, fate, other),
    )


def _height(channels: int, widest: int) -> int:
    return max(round(HIGH * math.sqrt(channels / widest)), LEAST)


def _title(piece: Piece, fate: str, other: Piece | None) -> str:
    """The numbers of a piece, and where its parameters came from."""
    lines = [piece.name if fate == SEED else f"{piece.name}: {fate}"]
    of = "" if other is None or other.inner == piece.inner else f" of {other.inner:,}"
    lines.append(f"channels {piece.inner:,}{of}, out {piece.out:,}")
    if piece.kernels:
        lines.append(f"kernels {', '.join(f'{k}×{k}' for k in piece.kernels)}")
    lines.append(f"parameters {piece.params:,}")
    if piece.macs is not None:
        lines.append(f"multiply-adds {piece.macs:,}")
    if piece.source is not None:
        lines.append(f"its parameters come from {piece.source}")
    return "\n".join(lines)
