"""Two networks block by block: how large each block is, and what became of each block of the first one in the second.

A piece is a block of a stage, or a layer with weights outside all blocks. Pieces stand in parts: the stem, the stages
and the head; in a network without stages, the sizes of the maps that they make.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from passes.graph.view import Node
from passes.network.analysis import Analysis, blocks_named
from passes.network.knobs import block_name
from passes.network.profile import HEAD, STEM, Profile, Row
from passes.network.stages import Block

Json = dict[str, object]

KEPT, NARROWED, WIDENED, COPIED, DROPPED, FRESH = "kept", "narrowed", "widened", "copied", "dropped", "fresh"
FATES: Mapping[str, str] = {
    KEPT: "as wide as in the seed",
    NARROWED: "narrower than in the seed",
    WIDENED: "wider than in the seed",
    COPIED: "the seed's block a second time",
    DROPPED: "of the seed, left out",
    FRESH: "new, no part of the seed",
}


@dataclass(frozen=True)
class Piece:
    """A block, or a layer outside all blocks: `inner` channels at its widest, `out` channels of what it makes, and what
    it costs.

    A block without hidden channels of its own is as wide as what it makes. `kernels` are the extents of its
    convolutions over space, the 1×1 ones apart. source: the piece of the other network it was made from; fate: what
    became of that.
    """

    name: str
    part: str
    inner: int
    out: int
    kernels: tuple[int, ...]
    params: int
    macs: int | None
    source: str | None = None
    fate: str = KEPT

    def to_json(self) -> Json:
        """For the page's data."""
        return {**asdict(self), "kernels": list(self.kernels)}


@dataclass(frozen=True)
class PartPair:
    """A part of both networks: pairs of pieces side by side, None where one has no such piece."""

    name: str
    space: tuple[int, ...] | None
    pairs: tuple[tuple[Piece | None, Piece | None], ...]


Sources = Mapping[str, str]  # block of the second network → the one of the first that it was made from


def pieces_of(analysis: Analysis, profile: Profile) -> list[Piece]:
    """The pieces of a network in the order they run."""
    rows = {row.name: row for row in profile.rows}
    blocks = dict(blocks_named(analysis))
    home = {node: name for name, block in blocks.items() for node in block.nodes}
    found: dict[str, Piece] = {}
    for node in analysis.view.nodes:
        row, block = rows.get(node.name), home.get(node.name)
        if row is None:
            continue
        if block is None:
            if row.params and row.macs:
                found[node.name] = _layer(node, row, analysis, sized=profile.sized)
            continue
        piece = found.get(block) or _block(block, blocks[block], row.part, analysis)
        macs = None if piece.macs is None or not profile.sized else piece.macs + row.macs
        found[block] = replace(
            piece, params=piece.params + row.params, macs=macs, kernels=(*piece.kernels, *_kernels(node, row))
        )
    return list(found.values())


def _block(name: str, block: Block, part: str, analysis: Analysis) -> Piece:
    out = _channels(block.exit, analysis)
    hidden = [knob.value for key, knob in analysis.knobs.items() if key.startswith(f"{name}.hidden")]
    return Piece(name, part, max(hidden, default=out), out, (), 0, 0)


def _layer(node: Node, row: Row, analysis: Analysis, *, sized: bool) -> Piece:
    out = _channels(node.outputs[0], analysis)
    part = row.part if analysis.stages else map_name(row.shape)
    return Piece(node.name, part, out, out, _kernels(node, row), row.params, row.macs if sized else None)


def map_name(shape: Sequence[int] | None) -> str:
    """The part of a layer in a network without stages: the size of the map it makes."""
    return "vectors" if shape is None or len(shape) < 3 else "×".join(map(str, shape[2:]))


def _kernels(node: Node, row: Row) -> tuple[int, ...]:
    """The larger extent of the kernel of a convolution that looks further than one position."""
    largest = max(node.ints("kernel_shape", ()), default=1) if row.macs else 1
    return (largest,) if largest > 1 else ()


def _channels(tensor: str, analysis: Analysis) -> int:
    label, shape = analysis.identities.labels.get(tensor), analysis.shapes.shapes.get(tensor, ())
    if label is not None:
        return int(label.ids.size)
    return shape[1] if len(shape) > 1 else 1


# --- side by side -------------------------------------------------------------------------------


def sources_of(stages: Mapping[int, Sequence[int]]) -> Sources:
    """The same of stages, each with the number of the block behind each of its blocks."""
    return {block_name(i, j): block_name(i, source) for i, row in stages.items() for j, source in enumerate(row)}


def related(before: Sequence[Piece], after: Sequence[Piece], sources: Sources) -> list[Piece]:
    """The pieces of the second network, each with the piece of the first one that it comes from, and what became of
    that.

    Pieces that sources does not name come from those of their own names.
    """
    known = {piece.name: piece for piece in before}
    used: set[str] = set()
    found = []
    for piece in after:
        source = known.get(sources.get(piece.name, piece.name))
        found.append(replace(piece, source=None if source is None else source.name, fate=_fate(source, piece, used)))
        if source is not None:
            used.add(source.name)
    return found


def _fate(source: Piece | None, piece: Piece, used: set[str]) -> str:
    if source is None:
        return FRESH
    if source.name in used:
        return COPIED
    change = piece.inner - source.inner or piece.out - source.out
    return KEPT if not change else WIDENED if change > 0 else NARROWED


def side_by_side(
    before: Sequence[Piece], after: Sequence[Piece], spaces: Mapping[str, tuple[int, ...] | None]
) -> list[PartPair]:
    """Part by part, the first network's pieces each beside what was made of it, copies behind it; both in the order
    they run.
    """
    parts = in_order([piece.part for piece in (*before, *after)])
    return [PartPair(part, spaces.get(part), tuple(_pairs(before, after, part))) for part in parts]


def in_order(parts: Iterable[str]) -> list[str]:
    """Each part once: the stem first, the head last, the others as they come."""
    return sorted(dict.fromkeys(parts), key=lambda part: {STEM: 0, HEAD: 2}.get(part, 1))


def _pairs(before: Sequence[Piece], after: Sequence[Piece], part: str) -> Iterator[tuple[Piece | None, Piece | None]]:
    own = {piece.name for piece in before if piece.part == part}
    for piece in (piece for piece in before if piece.part == part):
        made = [other for other in after if other.source == piece.name and other.part == part]
        yield piece, made[0] if made else None
        for other in made[1:]:
            yield None, other
    for piece in after:
        if piece.part == part and piece.source not in own:
            yield None, piece
