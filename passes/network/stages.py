"""Blocks, stages, and their table in a model's metadata."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """A region of nodes between two tensors; `kind` is residual where both carry the same channels, so that a copy fits
    behind it, else projection or bottleneck; `merge` the addition that closes it, if any.

    `tapped`: inner tensors that are read outside too, by a head; only a stored table names such blocks.
    """

    kind: str
    entry: str
    exit: str
    nodes: tuple[str, ...]
    merge: str = ""
    tapped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """Consecutive blocks whose exits carry the same channels."""

    blocks: tuple[Block, ...]

    @property
    def repeatable(self) -> tuple[int, ...]:
        """The blocks whose copies fit behind any other block of the stage."""
        return tuple(i for i, block in enumerate(self.blocks) if block.kind == "residual")


Table = Sequence[Sequence[Mapping[str, str]]]


def stage_table(stages: Sequence[Stage]) -> list[list[dict[str, str]]]:
    """The stages as names, for the model's metadata, so that they survive every remap."""
    return [
        [{"kind": b.kind, "entry": b.entry, "exit": b.exit, "merge": b.merge} for b in stage.blocks] for stage in stages
    ]


def table_of_whole(stages: Sequence[Stage], nodes: Collection[str]) -> list[list[dict[str, str]]]:
    """The stage table of the blocks of which all nodes are among these."""
    left = [
        Stage(tuple(block for block in stage.blocks if all(node in nodes for node in block.nodes))) for stage in stages
    ]
    return stage_table([stage for stage in left if stage.blocks])


@dataclass(frozen=True)
class Silence:
    """The tensors that, set to zero, make a copied block compute its entry; or `why` that cannot be.

    `scales`: what all of them are multiplied by (not below 0), the whole branch is. `held`: tensors that have to hold
    another value for that, in all entries: those of an arm that becomes the identity.
    """

    tensors: tuple[str, ...] = ()
    why: str | None = None
    scales: bool = True
    held: tuple[tuple[str, float], ...] = ()

    def values(self) -> dict[str, float]:
        """What all of these tensors hold in a copy: tensor → value."""
        return {**dict.fromkeys(self.tensors, 0.0), **dict(self.held)}
