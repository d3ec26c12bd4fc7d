"""A plan carried out: the target's graph, tensor by tensor."""

from __future__ import annotations

import zlib

import numpy as np
import onnx_graphsurgeon as gs

from passes.graph.normal import Normalised
from passes.graph.normalise import in_normal_form
from passes.graph.view import build, in_order
from passes.target.conforming import declare, require_shapes
from passes.target.plan import Plan
from passes.target.take import Take, bytes_made, require_room, taken

# --- carrying it out -----------------------------------------------------------------------------


def apply(graph: gs.Graph | Normalised, plan: Plan) -> gs.Graph:
    """The target network, in a new graph; arrays that do not change are shared with the seed's, none is written in
    place.

    graph: the seed, or its normal form at the sizes that the plan is for, as `Analysis.normal` has it.

    Raises RefusedModel where a size that the graph computes by itself does not follow the plan.
    """
    if plan.unbatched is not None or plan.recolouring is not None:
        from passes.target.input_axes import with_batch, with_colours  # not above: few plans ask for either
    if plan.unbatched is not None:
        return with_batch(apply(graph, plan.unbatched), plan, plan.unbatched)
    if plan.uncoloured is not None and plan.recolouring is not None:
        return with_colours(apply(graph, plan.uncoloured), plan, plan.uncoloured)
    known = plan.ground.shapes.shapes
    inputs = (graph.given if isinstance(graph, Normalised) else graph).inputs
    normal = in_normal_form(graph, {tensor.name: known[tensor.name] for tensor in inputs if tensor.name in known})
    seed = normal.seen
    require_room(sum(bytes_made(take, seed.constants[take.source].shape) for take in plan.takes))
    constants = {take.target: _carry_out(take, plan, seed.constants[take.source]) for take in plan.takes}
    constants |= {name: gs.Constant(name, array) for name, array in plan.numbers.items()}
    result = build(in_order([placed.node for placed in plan.nodes]), constants, normal.given)
    declare(result, plan.declared, plan.sizes)
    require_shapes(result, plan.sizes)
    return result


def _carry_out(take: Take, plan: Plan, source: gs.Constant) -> gs.Constant:
    if take.unchanged and take.target == take.source:
        return source
    old = np.asarray(source.values)
    if take.unchanged:
        return gs.Constant(take.target, old)
    seed = (plan.rng_seed, zlib.crc32(take.target.encode()))
    return gs.Constant(take.target, taken(take, old, plan.strategy, seed))
