"""Another number of channels of the image, and of samples: the last steps of a plan, and the graphs that follow
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_graphsurgeon as gs

from passes.batch.contents import Mixed
from passes.batch.rebatched import FREE_NAME, Rebatched, declared_sizes, rebatched, with_samples
from passes.colours.following import Lost
from passes.colours.recoloured import Recolouring, recoloured, with_channels
from passes.errors import RefusedModel, UserError
from passes.graph.shapes import infer
from passes.graph.view import linked, view
from passes.network.analysis import Analysis
from passes.network.knobs import BATCH, CHANNELS, batch_text
from passes.network.resolution import SizedView
from passes.target.conforming import require_shapes, said_anew
from passes.target.plan import Plan

# --- planning ------------------------------------------------------------------------------------


def with_inputs(plan: Plan, start: SizedView, analysis: Analysis) -> Plan:
    """The plan for as many channels and samples as are asked for. start: the target before that. Raises UserError where
    it cannot be.
    """
    colours, wanted = analysis.colours, plan.resolved.channels
    coloured = plan
    if wanted is not None and wanted != colours.value:
        coloured, start = _coloured(
            plan, start, Recolouring(colours.image, colours.axis, wanted, plan.strategy == "fna", plan.rng_seed)
        )
    return _batched(coloured, start, analysis) if plan.resolved.batched else coloured


def _coloured(plan: Plan, start: SizedView, asked: Recolouring) -> tuple[Plan, SizedView]:
    """The plan for an image of other channels, and the target as far as it is known then."""
    old, new = start.shapes.shapes[asked.image][asked.axis], asked.channels
    try:
        made = recoloured(start.view, start.shapes, asked)
    except Lost as why:
        raise UserError(f"'{CHANNELS}': {new} is not possible: {why}") from why
    declared = {**plan.declared, asked.image: {**plan.declared.get(asked.image, {}), asked.axis: new}}
    inputs = {
        name: (said_anew(shape, declared.get(name, {})), kind) for name, (shape, kind) in start.view.inputs.items()
    }
    seen = replace(linked(made.nodes, {**start.view.constants, **made.constants}, start.view), inputs=inputs)
    own = start.shapes.shapes[asked.image]
    shape = tuple(new if axis == asked.axis else size for axis, size in enumerate(own))
    sized = SizedView(seen, infer(seen, {**start.inputs, asked.image: shape}), {**start.inputs, asked.image: shape})
    note = (
        [f"the one channel is repeated {old} times in front of the network: {made.repeated}"] if made.repeated else []
    )
    result = replace(
        plan,
        sizes={name: made.shapes.get(name, shape) for name, shape in plan.sizes.items()},
        declared=declared,
        drifts=plan.drifts
        if made.exact
        else (*plan.drifts, f"{CHANNELS} {'grows' if new > old else 'shrinks'} from {old} to {new}"),
        notes=(*plan.notes, *note),
        compared=plan if plan.compared is None else plan.compared,
        uncoloured=plan,
        recolouring=asked,
        reshaped={name: tuple(constant.shape) for name, constant in made.constants.items()},
    )
    return result, sized


def _batched(plan: Plan, start: SizedView, analysis: Analysis) -> Plan:
    """The plan for the samples that are asked for; the same where the network takes as many, and any where that is
    asked for.
    """
    wanted, own = plan.resolved.batch, analysis.batching.value
    if wanted is not None and wanted == own:
        return plan
    try:
        made = rebatched(start.view, start.shapes, wanted)
    except Mixed as why:
        if wanted is None and own is None:
            return replace(plan, notes=(*plan.notes, f"'{BATCH}' is said to be free, but {why}"))
        raise UserError(f"'{BATCH}': {batch_text(wanted)} is not possible: {why}") from why
    if wanted is None and own is None and not made.changes:
        return plan
    return replace(
        plan,
        sizes={name: made.shapes.get(name, shape) for name, shape in plan.sizes.items()},
        declared=_with_batch(plan, start, made),
        compared=plan if plan.compared is None else plan.compared,
        unbatched=plan,
    )


def _with_batch(plan: Plan, start: SizedView, made: Rebatched) -> dict[str, Mapping[int, int | str | None]]:
    """What inputs and outputs say of their sizes."""
    found: dict[str, Mapping[int, int | str | None]] = dict(plan.declared)
    ends = (*start.inputs, *start.view.outputs)
    for name, sizes in declared_sizes(made, ends, plan.resolved.batch, FREE_NAME).items():
        found[name] = {**found.get(name, {}), **sizes}
    return found


# --- carrying it out ----------------------------------------------------------------------------


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
    require_shapes(made, plan.sizes)
    return made
