"""One normal form, so that every later reading sees weights as initializers and sizes as numbers.

Guaranteed afterwards: no Constant nodes; nothing is computed from initializers alone (quantisation excepted, and what
would be larger than what it is computed from: a broadcast tensor is no weight); static shape arithmetic is folded; no
operand is broadcast before an operator that broadcasts by itself, and zeros that are joined to a tensor are padded; a
1-D or uniform tensor of several elements belongs to one node (exporters deduplicate equal tensors); weights of two or
more axes shared by several nodes stay shared, as one parameter, with their bias; a Split says its sizes, and `auto_pad`
is explicit, wherever sizes are known. The function is unchanged, and a graph in normal form is its own normal form,
node by node and tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_graphsurgeon as gs

from passes.graph.broadcasting import operands_left_to_broadcast, written_operands_left_to_broadcast
from passes.graph.folding import (
    constant_expressions_folded,
    constants_made_initializers,
    identities_of_weights_bypassed,
    static_sizes_folded,
)
from passes.graph.normal import Normalised
from passes.graph.padding import auto_pads_made_explicit, joined_zeros_made_pads
from passes.graph.rewriting import (
    casts_to_their_own_type_bypassed,
    equal_splits_made_explicit,
    turned_images_transposed,
)
from passes.graph.tensors import Shape
from passes.graph.transposes import settle
from passes.graph.unsharing import small_tensors_unshared
from passes.graph.view import build
from passes.graph.work import Work, begun


def normalise(graph: gs.Graph, sizes: Mapping[str, Shape] | None = None) -> Normalised:
    """A copy of the graph in normal form (arrays are shared with the original). Raises RefusedModel for cycles and
    control flow.

    sizes: shapes for inputs with free dimensions, which stay free: no size becomes a number that the file leaves open.
    """
    work = begun(graph, sizes or {})
    counts = dict.fromkeys(STEPS, 0)
    # one makes work for another: sizes that are folded leave constants
    while sum(found := [_done(step, work) for step in STEPS]):
        for step, count in zip(STEPS, found, strict=True):
            counts[step] += count
    notes = tuple(f"{step.__name__.replace('_', ' ')}: {count}" for step, count in counts.items() if count)
    return Normalised(work.seen, notes, any(counts[step] for step in OF_SIZES), graph)


def in_normal_form(graph: gs.Graph | Normalised, sizes: Mapping[str, Shape] | None = None) -> Normalised:
    """What is in normal form already, or the graph brought into it. Raises RefusedModel as normalise does."""
    return graph if isinstance(graph, Normalised) else normalise(graph, sizes)


def _done(step: Callable[[Work], int], work: Work) -> int:
    """The step, carried out: how many places it changed."""
    count = step(work)
    if count:
        work.forget()
    return count


def with_sizes_open(graph: gs.Graph, sizes: Mapping[str, Shape] | None = None) -> gs.Graph:
    """A copy as near to normal form as it comes without the size of any tensor: each number is an initializer, and one
    node's.

    With `sizes` (of inputs) what is broadcast to written sizes is left to who reads it, and written zeros that are
    joined are pads, where that is the same at these sizes.
    """
    work = begun(graph, sizes or {})
    for step in (*OF_NO_SIZES, *((joined_zeros_made_pads, written_operands_left_to_broadcast) if sizes else ())):
        if step(work):
            work.forget()
    return work.graph


def transposes_met(work: Work) -> int:
    """Transposes move past what they do not concern, and inverse ones that meet are gone (transposes.py)."""
    found = settle(work.seen, work.shapes) if sum(node.op == "Transpose" for node in work.seen.nodes) > 1 else None
    if found is None:
        return 0
    work.become(build(found.nodes, found.constants, work.graph))
    work.drop_unread()
    return found.gone


STEPS: Sequence[Callable[[Work], int]] = (
    constants_made_initializers,
    identities_of_weights_bypassed,
    operands_left_to_broadcast,
    joined_zeros_made_pads,
    constant_expressions_folded,
    static_sizes_folded,
    casts_to_their_own_type_bypassed,
    turned_images_transposed,
    transposes_met,
    equal_splits_made_explicit,
    small_tensors_unshared,
    auto_pads_made_explicit,
)
"""The pipeline, in order. Each step changes the work in place and returns how many places it changed."""


OF_SIZES = (static_sizes_folded, auto_pads_made_explicit)
OF_NO_SIZES = (constants_made_initializers, identities_of_weights_bypassed, small_tensors_unshared)
