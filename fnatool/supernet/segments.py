"""A graph cut at its blocks: what runs at once, from which tensors to which others.

A block is a segment of its own; between two blocks lies a stretch, what the next one needs and has not been computed
yet; the last stretch is all the rest, heads too. Only floating-point data passes from one to the other: shape
arithmetic is done anew where it is needed.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass, replace

from passes.graph.view import View
from passes.network.stages import Block


@dataclass(frozen=True)
class Segment:
    """Nodes in order, the tensors they read from before, and those that are read afterwards.

    `number` is its place among the segments, `block` that among the blocks given (None: a stretch), `entry` and `exit`
    are its ends; `varying` are the blocks whose inner tensors a stretch reads, so that its widths are theirs; `spent`
    is what nobody reads afterwards.
    """

    number: int
    block: int | None
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    entry: str = ""
    exit: str = ""
    varying: tuple[int, ...] = ()
    spent: tuple[str, ...] = ()


def cut(view: View, blocks: Sequence[Block], data: Container[str]) -> tuple[Segment, ...]:
    """The segments of a graph in the order they run; a block that is no part of it has none. data: what may pass
    between them.
    """
    work = _Cutting(view, data)
    position = {node.name: i for i, node in enumerate(view.nodes)}
    first = {
        k: min((position[name] for name in block.nodes if name in position), default=-1)
        for k, block in enumerate(blocks)
    }
    for k in sorted((k for k, at in first.items() if at >= 0), key=first.__getitem__):
        work.stretch([blocks[k].entry])
        work.block(k, blocks[k])
    work.stretch(view.outputs)
    return _joined(work.segments, view)


class _Cutting:
    """The segments so far, and who made which tensor."""

    def __init__(self, view: View, data: Container[str]) -> None:
        self.view, self.data = view, data
        self.segments: list[Segment] = []
        self.made: dict[str, int] = dict.fromkeys((name for name in view.inputs if name not in view.constants), -1)
        self.index = {node.name: i for i, node in enumerate(view.nodes)}

    def stretch(self, wanted: Collection[str]) -> None:
        """What the wanted tensors need and is not there yet."""
        nodes, inputs = self.walk(wanted)
        if nodes:
            self.add(Segment(len(self.segments), None, nodes, inputs, (), varying=self.varying(inputs)))

    def block(self, k: int, block: Block) -> None:
        """One block, by itself."""
        nodes, inputs = self.walk([block.exit, *block.tapped])
        self.add(
            Segment(
                number=len(self.segments),
                block=k,
                nodes=nodes,
                inputs=inputs,
                outputs=(),
                entry=block.entry,
                exit=block.exit,
            )
        )

    def add(self, segment: Segment) -> None:
        for name in segment.nodes:
            for output in self.view.by_name[name].outputs:
                if output and output in self.data:
                    self.made.setdefault(output, len(self.segments))
        self.segments.append(segment)

    def walk(self, wanted: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The nodes behind the wanted tensors up to data that is there, and that data."""
        nodes: set[int] = set()
        inputs: dict[str, None] = {}
        stack = list(wanted)
        while stack:
            name = stack.pop()
            if not name or name in self.view.constants:
                continue
            if name in self.made:
                inputs[name] = None
                continue
            i = self.index[self.view.producer[name]]
            if i not in nodes:
                nodes.add(i)
                stack.extend(self.view.nodes[i].inputs)
        return tuple(self.view.nodes[i].name for i in sorted(nodes)), tuple(inputs) if nodes else ()

    def varying(self, inputs: Sequence[str]) -> tuple[int, ...]:
        """The blocks whose inner tensors are among these, or made the stretches that are."""
        found: set[int] = set()
        for name in inputs:
            if self.made[name] >= 0:
                source = self.segments[self.made[name]]
                found.update(source.varying if source.block is None else {source.block} if name != source.exit else ())
        return tuple(sorted(found))


def _joined(segments: Sequence[Segment], view: View) -> tuple[Segment, ...]:
    """The segments with what later ones and the graph's outputs read of them."""
    last = {name: k for k, segment in enumerate(segments) for name in (*segment.inputs, segment.entry) if name}
    last |= dict.fromkeys(view.outputs, len(segments))
    done = []
    for k, segment in enumerate(segments):
        made = [output for name in segment.nodes for output in view.by_name[name].outputs]
        outputs = tuple(name for name in dict.fromkeys(made) if last.get(name, -1) > k or name == segment.exit)
        spent = tuple(name for name, end in last.items() if end == k)
        done.append(replace(segment, outputs=outputs, spent=spent))
    return tuple(done)
