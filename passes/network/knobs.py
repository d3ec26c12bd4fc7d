"""Knobs: what can be set of a network, and their names."""

from __future__ import annotations

import functools
import re
from collections.abc import Container, Mapping
from dataclasses import KW_ONLY, dataclass

from passes.graph.tensors import printed

MAX_WIDTH = 1 << 16
MAX_DEPTH = 256
MAX_KERNEL = 31
FROM_WHY = "it says which block's parameters are taken; another choice is another function"


@dataclass(frozen=True)
class Knob:
    """One number of the network. `growth` says whether adding to it can keep the function exactly; `why` says why not.

    `min` and `max` are inclusive; a value is a multiple of `multiple`, except for kernels, which go in steps of 2, and
    one of `values` where they are given.
    """

    name: str
    kind: str
    value: int
    _: KW_ONLY
    min: int
    max: int
    multiple: int = 1
    growth: str
    why: str | None = None
    values: tuple[int, ...] = ()

    @staticmethod
    def frozen(name: str, kind: str, value: int, why: str | None, *, multiple: int = 1) -> Knob:
        """A knob that keeps its value."""
        return Knob(name, kind, value, min=value, max=value, multiple=multiple, growth="frozen", why=why)


def unique_number(base: str, taken: Container[str]) -> str:
    """base, base2, base3, …: the first that is not taken."""
    k = 1
    while (name := base if k == 1 else f"{base}{k}") in taken:
        k += 1
    return name


# --- names --------------------------------------------------------------------------------------

STRIDE = "output_stride"
IMAGE = "input.size"
CHANNELS = "input.channels"
BATCH = "batch"
FREE = "free"  # the batch that is any number


@dataclass(frozen=True)
class KnobKind:
    """How knobs of a kind are named (I, J, NAME stand for numbers and a node), and what they set."""

    names: tuple[str, ...]
    sets: str


KINDS: Mapping[str, KnobKind] = {
    "depth": KnobKind(("stageI.depth",), "how many blocks the stage has; further ones copy the seed's last"),
    "width": KnobKind(
        ("stageI.width", "node:NAME.width"),
        "the channels between the blocks of a stage; those of a node outside blocks",
    ),
    "from": KnobKind(("stageI.blockJ.from",), "which seed block this one copies, default min(J, last)"),
    "kernel": KnobKind(("stageI.blockJ.kernel", "kernel2 …", "node:NAME.kernel"), "kernel size; it keeps its parity"),
    "groups": KnobKind(
        ("stageI.blockJ.groups", "groups2 …", "node:NAME.groups"), "groups of a convolution (not of a depthwise one)"
    ),
    "hidden": KnobKind(("stageI.blockJ.hidden", "hidden2 …"), "channels inside a block"),
    "se": KnobKind(("stageI.blockJ.se", "se2 …"), "channels of a squeeze-excite"),
    IMAGE: KnobKind((IMAGE,), "height and width of the image, `[512, 1024]`, or one integer for both"),
    CHANNELS: KnobKind(
        (CHANNELS,), "channels of the image: 1 is grey; more than there were are fresh, and read as the strategy says"
    ),
    BATCH: KnobKind((BATCH,), "how many samples at once: a number, or `free` for any; each is computed as it was"),
    STRIDE: KnobKind(
        (STRIDE,), "pixels of the image between two samples of the last map: smaller, strides become dilations"
    ),
}
"""Every kind of knob, in the order of knobs at one place."""

NAME = re.compile(r"stage(?P<stage>\d+)(\.block(?P<block>\d+))?\.(?P<tail>.+)")
TAIL = re.compile(r"(?P<kind>[a-z]+)(?P<number>\d*)")


@dataclass(frozen=True)
class KnobName:
    """What the name of a knob in a stage says: its block, None where it is the stage's own, and what is set (`kernel`,
    `hidden2`).
    """

    stage: int
    block: int | None
    tail: str


@functools.lru_cache(maxsize=1 << 16)  # a name is read when knobs are sorted, resolved and carried out
def named(knob: str) -> KnobName | None:
    """What a knob's name says; None for one outside stages."""
    found = NAME.fullmatch(knob)
    return (
        None
        if found is None
        else KnobName(int(found["stage"]), None if found["block"] is None else int(found["block"]), found["tail"])
    )


def stage_name(stage: int) -> str:
    """stageI"""
    return f"stage{stage}"


def block_name(stage: int, block: int) -> str:
    """stageI.blockJ"""
    return f"{stage_name(stage)}.block{block}"


def stage_knob(stage: int, tail: str) -> str:
    """The name of what is set of a stage as a whole."""
    return f"{stage_name(stage)}.{tail}"


def block_knob(stage: int, block: int, tail: str) -> str:
    """The name of what is set of a block."""
    return f"{block_name(stage, block)}.{tail}"


def node_knob(node: str, tail: str) -> str:
    """The name of what is set of a node outside blocks."""
    return f"node:{node}.{tail}"


def kind_of(knob: str) -> str:
    """The kind that the end of a knob's name says, or of a pattern's: `kernel` for `stage*.kernel2` and `**.kernel*`;
    '' for others.
    """
    found = TAIL.fullmatch(knob.rpartition(".")[2].removesuffix("*"))
    return "" if found is None else found["kind"]


def block_of(knob: str) -> tuple[int, int, str] | None:
    """(stage, block, the rest) of a knob's name, None outside blocks."""
    found = named(knob)
    return None if found is None or found.block is None else (found.stage, found.block, found.tail)


@functools.lru_cache(maxsize=1 << 16)
def knob_order(name: str) -> tuple[int, ...]:
    """The stride, then stages in order; in a stage depth, width, then block by block; nodes keep the order of the
    graph.
    """
    found, tail = named(name), TAIL.fullmatch(name.rpartition(".")[2])
    if found is None or tail is None:
        return (-1 if name == STRIDE else 1, 0, 0, 0, 0)
    return (
        0,
        found.stage,
        -1 if found.block is None else found.block,
        list(KINDS).index(tail["kind"]),
        int(tail["number"] or 1),
    )


Size = tuple[int, int]
Batch = int | None
"""How many samples a network takes at once; None: any number."""


def size_text(size: Size) -> str:
    """As people write it: height×width."""
    return printed(size)


def batch_text(batch: Batch) -> int | str:
    """As a Spec says it: a number, or free."""
    return FREE if batch is None else batch
