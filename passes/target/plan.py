"""The plan of a remap as data: for every tensor of the target a Take, and the edits of nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from passes.graph.macs import macs_of
from passes.maps.contents import Sampling
from passes.network.analysis import Analysis
from passes.network.cost import Cost
from passes.target.depth import PlacedNode
from passes.target.resolved import Resolved
from passes.target.take import Take
from passes.target.width import Changes

if TYPE_CHECKING:
    from passes.colours.recoloured import Recolouring


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything needed to build the target from the seed's graph, and what is known beforehand about the result.

    `drifts` says why inner values on the seed's channels change; empty means they must not. `sizes` are the shapes of
    the target's activations under the probe sizes, `declared` those of inputs and outputs that the file must say anew
    (name → axis → size). `ground` is what `changes` and the axes of the takes speak of: the seed, or where groups
    change its skeleton.

    `samples` says where the seed's values are in finer tensors (None: nowhere; a tensor it lacks is not finer),
    `averages` which nodes look at finer maps and pass on what they see to others. Where the image or the batch has
    another size, `compared` is the plan without that. Where the batch has, `unbatched` is the plan without that alone,
    and has the nodes, takes and numbers of this one; so has `uncoloured`, the plan without other channels of the image,
    `recolouring`, which gives the weights in `reshaped` other columns.
    """

    strategy: str
    rng_seed: int
    resolved: Resolved
    ground: Analysis
    nodes: tuple[PlacedNode, ...]
    takes: tuple[Take, ...]
    numbers: Mapping[str, np.ndarray]
    changes: Changes
    table: list[list[dict[str, str]]]
    drifts: tuple[str, ...]
    notes: tuple[str, ...]
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    declared: Mapping[str, Mapping[int, int | str | None]] = field(default_factory=dict)
    samples: Mapping[str, Sampling | None] = field(default_factory=dict)
    averages: tuple[str, ...] = ()
    compared: Plan | None = None
    unbatched: Plan | None = None
    uncoloured: Plan | None = None
    recolouring: Recolouring | None = None
    reshaped: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def identity(self) -> bool:
        """Whether the target is the seed."""
        if self.samples or self.compared is not None:
            return False
        names = [placed.source for placed in self.nodes]
        return (
            all(t.unchanged and t.target == t.source for t in self.takes)
            and len(names) == len(set(names))
            and not self.drifts
        )

    def origin(self) -> dict[str, str]:
        """Target node → the seed node it is or copies."""
        return {placed.node.name: placed.source for placed in self.nodes}


def planned_cost(plan: Plan, analysis: Analysis) -> Cost:
    """The cost of the target, known before it is built."""
    shapes = dict(plan.sizes)
    params: dict[str, int] = {}
    for take in plan.takes:
        shape = plan.reshaped.get(take.target, take.shape(analysis.shapes.shapes[take.source]))
        shapes[take.target] = shape
        if take.source in analysis.cost.tensor_params:
            params[take.target] = math.prod(shape)
    macs = macs_of((placed.node for placed in plan.nodes), shapes)
    sized = plan if plan.unbatched is None else plan.unbatched
    sized = sized if sized.uncoloured is None else sized.uncoloured
    known = analysis.cost.macs is not None or sized.compared is not None
    return Cost(sum(macs.values()) if known else None, sum(params.values()), macs, params)
