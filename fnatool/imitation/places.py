"""Where a network is compared with the one that it is to be like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from passes.errors import UserError
from passes.heads import chart
from passes.heads.taps import Chart
from passes.network.analysis import Analysis


@dataclass(frozen=True)
class PlacePair:
    """A tensor of a network, and the one of the teacher that it is to be like."""

    own: str
    teacher: str


def places(student: Analysis, teacher: Analysis, asked: Sequence[str] = ()) -> tuple[PlacePair, ...]:
    """The places asked for, by the names of taps; else the exits of the stages, in order, and the last map, where both
    have the same shape.

    Raises UserError for a place that one of them does not have, or that has another shape there.
    """
    if asked:
        return tuple(_named(name, chart(student), chart(teacher)) for name in asked)
    return tuple(dict.fromkeys(pair for pair in _usual(student, teacher) if _is_same(pair, student, teacher)))


def _usual(student: Analysis, teacher: Analysis) -> Iterator[PlacePair]:
    for own, other in zip(student.stages, teacher.stages, strict=False):
        yield PlacePair(own.blocks[-1].exit, other.blocks[-1].exit)
    ends = [last_map(analysis) for analysis in (student, teacher)]
    if None not in ends:
        yield PlacePair(str(ends[0]), str(ends[1]))


def last_map(analysis: Analysis) -> str | None:
    """The last map on the way through the network, None where it has none."""
    found = chart(analysis)
    maps = [tensor for tensor in found.way if found.is_map(tensor)]
    return maps[-1] if maps else None


def _is_same(pair: PlacePair, student: Analysis, teacher: Analysis) -> bool:
    """Both are computed, and have the same shape but for the batch."""
    shapes = (student.shapes.shapes.get(pair.own), teacher.shapes.shapes.get(pair.teacher))
    return None not in shapes and len({None if shape is None else shape[1:] for shape in shapes}) == 1


def _named(name: str, student: Chart, teacher: Chart) -> PlacePair:
    own, other = student.tap(name), teacher.tap(name)
    if (own.channels, own.space) != (other.channels, other.space):
        said = [f"{tap.channels} channels of {tap.space[0]}×{tap.space[1]}" for tap in (own, other)]
        raise UserError(f"at '{name}' the network has {said[0]}, the one that it is to be like {said[1]}")
    return PlacePair(own.tensor, other.tensor)
