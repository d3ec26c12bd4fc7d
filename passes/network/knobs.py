"""Knobs: what can be set of a network, and their names."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass

MAX_WIDTH = 1 << 16
MAX_DEPTH = 256
MAX_KERNEL = 31
FROM_WHY = "it says which block's parameters are taken; another choice is another function"


@dataclass(frozen=True)
class Knob:
    """One number of the network. `growth` says whether adding to it can keep the function exactly; `why` says why not.

    `min` and `max` are inclusive; a value is a multiple of `multiple`, except for kernels, which go in steps of 2, and one of
    `values` where they are given.
    """

    name: str
    kind: str
    value: int
    min: int
    max: int
    multiple: int
    growth: str
    why: str | None = None
    values: tuple[int, ...] = ()


def unique_number(base: str, taken: Container[str]) -> str:
    """base, base2, base3, …: the first that is not taken."""
    k = 1
    while (name := base if k == 1 else f"{base}{k}") in taken:
        k += 1
    return name


STRIDE = "output_stride"
KIND_ORDER = ("depth", "width", "from", "kernel", "groups", "hidden", "se")


def block_of(knob: str) -> tuple[int, int, str] | None:
    """(stage, block, the rest) of a knob's name, None outside blocks."""
    found = re.fullmatch(r"stage(\d+)\.block(\d+)\.(.+)", knob)
    return None if found is None else (int(found[1]), int(found[2]), found[3])


def _order(name: str) -> tuple[object, ...]:
    """The stride, then stages in order; in a stage depth, width, then block by block; nodes keep the order of the graph."""
    if name == STRIDE:
        return (-1, 0, 0, 0, 0)
    found = re.fullmatch(r"stage(\d+)(?:\.block(\d+))?\.([a-z]+)(\d*)", name)
    if found is None:
        return (1, 0, 0, 0, 0)
    stage, block, kind, number = found.groups()
    return (0, int(stage), -1 if block is None else int(block), KIND_ORDER.index(kind), int(number or 1))


Size = tuple[int, int]


def size_text(size: Size) -> str:
    """As people write it: height×width."""
    return "×".join(map(str, size))
