"""Members of a space as they are before any training: slices of the largest one's weights, run part by part up to some
tensors.

    members = members_of(graph, analysis, choices, tensors)
    state = members.start(inputs)                               # what is there at the first segment
    for segment in members.segments:
        members.step(segment, member, state)                # runs it in place; states are small copies of each other
    state[tensor]

Only what the tensors need is run, so that a head costs nothing. A state that is kept at a block's entry is where every
candidate of the block begins: only the part behind it is run again. BatchNormalization takes the statistics of the
batch. Where the trunk is not the seed's, channels inside blocks are chosen by the weights that the narrower network
has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_graphsurgeon as gs
import torch
from torch import Tensor

from fnatool.nn.program import run
from fnatool.nn.reading import Reading
from fnatool.supernet.network import largest
from fnatool.supernet.segments import Segment
from fnatool.supernet.variants import Variants, tensors
from passes.errors import UserError
from passes.graph.view import build as built
from passes.graph.view import live, view
from passes.network.analysis import Analysis
from passes.space.space import SKIP, Choices
from passes.target.kept import KeptChannels, kept_channels

State = dict[str, Tensor]


class Members:
    """All members of `choices`, run up to `tensors` by the segments in order."""

    def __init__(
        self, variants: Variants, tensors: Sequence[str], device: torch.device, kept: Sequence[KeptChannels | None] = ()
    ) -> None:
        """variants: of a reading of the largest member whose outputs are the tensors; kept: what these have of the
        seed's channels.
        """
        self.variants, self.tensors = variants, tuple(tensors)
        self.kept = tuple(kept) or (None,) * len(self.tensors)
        self.choices, self.segments = variants.choices, variants.segments
        reading = variants.reading
        self.weights = {weight.name: reading.initial(weight).to(device) for weight in reading.weights}

    @property
    def reading(self) -> Reading:
        """Of the largest member, as far as the tensors need it."""
        return self.variants.reading

    def start(self, inputs: Sequence[Tensor]) -> State:
        """The state before the first segment, for the network's inputs in order."""
        return dict(zip(self.reading.inputs, inputs, strict=True))

    @torch.no_grad()
    def step(self, segment: Segment, member: Sequence[int], state: State) -> None:
        """The state after a segment of the member, in place of the one before it."""
        if segment.block is not None and member[segment.block] == SKIP:
            state[segment.exit] = state[segment.entry]
        else:
            present = tuple(whole if k == SKIP else k for k, whole in zip(member, self.variants.largest, strict=True))
            variant = self.variants.of(segment, present)
            inputs = [state[name] for name in segment.inputs]
            weights = {
                name: self.weights[name] if cut is None else cut(self.weights[name]) for name, cut in variant.weights
            }
            made = run(
                variant.program, tensors(variant, weights, inputs[0].device), inputs, norms="batch", training=False
            )
            state.update(zip(segment.outputs, made, strict=True))
        for name in segment.spent:
            state.pop(name, None)

    def after(self, number: int, member: Sequence[int], state: Mapping[str, Tensor]) -> list[Tensor]:
        """The tensors of the member from the state before the segment of that number, which stays as it is."""
        own = dict(state)
        for segment in self.segments[number:]:
            self.step(segment, member, own)
        return [own[name] for name in self.tensors]


def members_of(
    seed: gs.Graph,
    analysis: Analysis,
    choices: Choices,
    wanted: Sequence[str],
    *,
    strategy: str = "fna",
    select: str = "first",
    rng_seed: int = 0,
    device: torch.device | None = None,
) -> Members:
    """The members of the choices on a seed, up to the tensors wanted; of a stage's exit, that of the largest member's
    stage.

    Raises UserError and RefusedModel as `supernet.build` does.
    """
    if strategy == "preserve":
        choices = choices.with_originals()
    whole = largest(seed, analysis, choices, strategy=strategy, select=select, rng_seed=rng_seed)
    ends = {
        before.blocks[-1].exit: after.blocks[-1].exit
        for before, after in zip(analysis.stages, whole.analysis.stages, strict=True)
    }
    names = tuple(ends.get(name, name) for name in wanted)
    reading = Reading(up_to(whole.graph, names), whole.sizes)
    kept = [kept_channels(whole.plan, name) for name in wanted]
    return Members(Variants(whole.analysis, reading, choices, select), names, device or torch.device("cpu"), kept)


def up_to(graph: gs.Graph, names: Sequence[str]) -> gs.Graph:
    """The part of a graph that the tensors come from, which are its outputs; weights are shared. Raises UserError where
    it has no such.
    """
    seen = view(graph)
    unknown = [name for name in names if name not in seen.producer]
    if unknown:
        raise UserError(f"this network computes no tensor '{unknown[0]}'")
    nodes = live(seen.nodes, names)
    read = {name for node in nodes for name in node.inputs}
    made = built(nodes, {name: constant for name, constant in seen.constants.items() if name in read}, graph)
    found = {tensor.name: tensor for node in made.nodes for tensor in node.outputs}
    made.outputs = [found[name] for name in names]
    return made
