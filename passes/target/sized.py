"""The end of a plan: other strides and another image size, after all other knobs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_graphsurgeon as gs

from passes.errors import UserError
from passes.graph.shapes import infer
from passes.graph.view import in_order, linked
from passes.maps.contents import Sampling
from passes.maps.following import follow
from passes.maps.positions import MapSpace, Stuck
from passes.network.knobs import STRIDE, Size, size_text
from passes.network.resolution import SizedView, at_size, image_axes, image_maps
from passes.target.conforming import said_anew

if TYPE_CHECKING:
    from passes.network.analysis import Analysis
    from passes.target.plan import Plan


# --- planning -----------------------------------------------------------------------------------


def finish(plan: Plan, analysis: Analysis) -> Plan:
    """The plan with its image size and output stride.

    Where the image changes, `compared` is the plan without that. Raises UserError for what is not possible, naming the
    node.
    """
    size, limit = plan.resolved.image, plan.resolved.values[STRIDE]
    image, own = analysis.image, analysis.strides.value
    if size == image.size and not image.free:
        size = None
    if limit == own and size is None:
        return plan
    start = planned_view(plan, analysis)
    dilated = plan if limit == own else _planned(plan, start, *_strided(start, limit))
    if size is None:
        return dilated
    target, space = _sized(start, plan, analysis, size), None
    if limit != own:
        target, space = _strided(target, limit)
    return replace(_planned(plan, start, target, space), compared=dilated)


def planned_view(plan: Plan, analysis: Analysis) -> SizedView:
    """The target at the seed's image size, without the values of its weights."""
    constants = {name: gs.Constant(name, array) for name, array in plan.numbers.items()}
    for take in plan.takes:
        source = analysis.view.constants[take.source]
        if not take.unchanged:
            shape = take.shape(tuple(source.shape))
            source = gs.Constant(take.target, np.broadcast_to(np.zeros((), np.asarray(source.values).dtype), shape))
        constants[take.target] = source
    nodes = in_order([placed.node for placed in plan.nodes])
    seen = linked(nodes, constants, analysis.view)
    seen = replace(
        seen,
        inputs={
            name: (said_anew(shape, plan.declared.get(name, {})), kind) for name, (shape, kind) in seen.inputs.items()
        },
    )
    inputs = {name: plan.sizes[name] for name in seen.inputs if name in plan.sizes}
    return SizedView(seen, infer(seen, inputs), inputs)


def _planned(plan: Plan, start: SizedView, target: SizedView, space: MapSpace | None) -> Plan:
    """The plan that makes the target; `space` says which of its tensors are finer, and how."""
    ends = [name for name in (*start.inputs, *start.view.outputs) if name in start.shapes.shapes]
    return replace(
        plan,
        nodes=tuple(replace(placed, node=target.view.by_name[placed.node.name]) for placed in plan.nodes),
        takes=tuple(take for take in plan.takes if take.target not in target.numbers),
        numbers={**plan.numbers, **target.numbers},
        sizes={name: target.shapes.shapes.get(name, shape) for name, shape in plan.sizes.items()},
        declared={name: sizes for name in ends if (sizes := _resized(start, target, name))},
        samples={} if space is None else _samples(space),
        averages=() if space is None else tuple(dict.fromkeys(space.averages)),
        notes=tuple(dict.fromkeys((*plan.notes, *target.notes))),
    )


def _resized(start: SizedView, target: SizedView, name: str) -> dict[int, int]:
    """axis → size, of an input or output: where it is another than before, or was free."""
    old, new = start.shapes.shapes[name], target.shapes.shapes.get(name, ())
    sizes = {axis: size for axis, size in enumerate(new) if size != old[axis]}
    before, after = (t.view.inputs[name][0] if name in t.view.inputs else None for t in (start, target))
    if before is not None and after is not None:
        sizes |= {axis: new[axis] for axis in range(len(new)) if before[axis] != after[axis]}
    return sizes


def _samples(space: MapSpace) -> dict[str, Sampling | None]:
    found = {name: None if made.averaged else space.sampling(name) for name, made in space.maps.items()}
    return {name: sampling for name, sampling in found.items() if sampling is not None or space.maps[name].averaged}


def _strided(target: SizedView, limit: int) -> tuple[SizedView, MapSpace]:
    """The target with dilations in place of the strides beyond the limit."""
    try:
        space = follow(
            target.view, target.shapes, image_maps(target.shapes, image_axes(target.view, target.shapes)), limit=limit
        )
        return target.edited(space, {}), space
    except Stuck as why:
        raise UserError(f"'{STRIDE}': {limit} is not possible: {why}") from why


def _sized(target: SizedView, plan: Plan, analysis: Analysis, size: Size) -> SizedView:
    """The target for images of another size."""
    total = analysis.strides.value
    try:
        return at_size(target, (analysis.image, size), analysis.view, plan.origin())
    except Stuck as why:
        odd = [str(side) for side in size if side % total]
        hint = (
            f"; {' and '.join(odd)} {'is' if len(odd) == 1 else 'are'} no multiple of {total}, the total "
            "stride: try one"
            if odd
            else ""
        )
        raise UserError(f"'input.size': {size_text(size)} is not possible: {why}{hint}") from why
