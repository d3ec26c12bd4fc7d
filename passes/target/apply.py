"""A plan carried out: the target's graph, tensor by tensor."""

from __future__ import annotations

import zlib

import numpy as np
import onnx_graphsurgeon as gs

from passes.batch.contents import Mixed
from passes.batch.rebatched import with_samples
from passes.colours.following import Lost
from passes.colours.recoloured import with_channels
from passes.errors import RefusedModel
from passes.graph.normal import Normalised
from passes.graph.normalise import in_normal_form
from passes.graph.shapes import infer
from passes.graph.view import build, in_order, view
from passes.network.knobs import BATCH, CHANNELS, batch_text
from passes.target.plan import Plan
from passes.target.take import Take, bytes_made, require_room, taken

# --- carrying it out --------------------------------------------------------------------------------------------------------------------


def apply(graph: gs.Graph | Normalised, plan: Plan) -> gs.Graph:
    """The target network, in a new graph; arrays that do not change are shared with the seed's, none is written in place.

    graph: the seed, or its normal form at the sizes that the plan is for, as `Analysis.normal` has it.

    Raises RefusedModel where a size that the graph computes by itself does not follow the plan.
    """
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
    _declare(result, plan)
    _check_shapes(result, plan)
    return result


def with_colours(graph: gs.Graph, plan: Plan, before: Plan) -> gs.Graph:
    """The graph for an image of as many channels as are asked for. before: the plan that it was made by."""
    assert plan.recolouring is not None
    sizes = {tensor.name: before.sizes[tensor.name] for tensor in graph.inputs if tensor.name in before.sizes}
    try:
        return with_channels(graph, infer(view(graph), sizes or None), plan.recolouring)
    except Lost as why:
        raise RefusedModel(f"'{CHANNELS}': {plan.recolouring.channels} is not possible: {why}") from why


def with_batch(graph: gs.Graph, plan: Plan, before: Plan) -> gs.Graph:
    """The graph for as many samples as are asked for. before: the plan that it was made by."""
    sizes = {tensor.name: before.sizes[tensor.name] for tensor in graph.inputs if tensor.name in before.sizes}
    try:
        made = with_samples(graph, infer(view(graph), sizes or None), plan.resolved.batch)
    except Mixed as why:
        raise RefusedModel(f"'{BATCH}': {batch_text(plan.resolved.batch)} is not possible: {why}") from why
    _check_shapes(made, plan)
    return made


def _declare(graph: gs.Graph, plan: Plan) -> None:
    """Inputs and outputs say the sizes they have; what an output leaves open stays open."""
    for tensor in graph.inputs:
        sizes = plan.declared.get(tensor.name, {})
        if sizes:
            shape = [None] * len(plan.sizes[tensor.name]) if tensor.shape is None else tensor.shape
            tensor.shape = [sizes.get(axis, size) for axis, size in enumerate(shape)]
    for tensor in graph.outputs:
        sizes = plan.declared.get(tensor.name, {})
        if sizes and tensor.shape is not None:
            tensor.shape = [sizes.get(axis, size) if isinstance(size, int) else size for axis, size in enumerate(tensor.shape)]


def _check_shapes(graph: gs.Graph, plan: Plan) -> None:
    sizes = {t.name: plan.sizes[t.name] for t in graph.inputs if t.name in plan.sizes}
    found = infer(view(graph), sizes or None).shapes
    for name, shape in plan.sizes.items():
        actual = found.get(name)
        if actual is not None and actual != shape:
            shapes = f"shape {list(actual)} instead of {list(shape)}"
            raise RefusedModel(f"tensor '{name}' would have {shapes}: a size the graph computes does not follow its channels")


def _carry_out(take: Take, plan: Plan, source: gs.Constant) -> gs.Constant:
    if take.unchanged and take.target == take.source:
        return source
    old = np.asarray(source.values)
    if take.unchanged:
        return gs.Constant(take.target, old)
    seed = (plan.rng_seed, zlib.crc32(take.target.encode()))
    return gs.Constant(take.target, taken(take, old, plan.strategy, seed))
