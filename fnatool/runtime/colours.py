"""Verification of another number of channels of the image in ONNX Runtime: of what the channels mean, the network makes
what it made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from fnatool.runtime.distance import DOUBLE_TOLERANCE, HALF_TOLERANCE, ROUNDING_FACTOR, TOLERANCE, distance, nudged
from fnatool.runtime.double import NotRepeated, repeated
from fnatool.runtime.verify import Drift, Verification, noise, run_inner
from passes.colours.recoloured import Recolouring, matrix
from passes.graph.operators import WEIGHTED
from passes.graph.view import view
from passes.network.analysis import Analysis


def verify_colours(
    before: gs.Graph, after: gs.Graph, analysis: Analysis, asked: Recolouring, *, exact: bool
) -> Verification:
    """What `after` makes of other channels u, beside what `before` makes of A·u (see `passes.colours.recoloured`).

    What still has the channels of the image, as a filter for each of them makes, has others, and is not compared.
    Raises RefusedModel where ONNX Runtime cannot run one of them.
    """
    old, new = view(before), view(after)
    pairs = {
        name: node.name for node in old.nodes for name in node.outputs
        if name in new.producer and (node.op in WEIGHTED or name in old.outputs)
    }  # fmt: skip
    names = list(pairs)
    theirs, ours = _feeds(noise(analysis, 0), asked)
    one, other = run_inner(before, theirs, names, "the network before"), run_inner(after, ours, names, "the result")
    pairs = {name: node for name, node in pairs.items() if one[name].shape == other[name].shape or name in old.outputs}
    half = any(values.dtype == np.float16 for values in one.values())
    drifts = tuple(Drift(name, node, distance(one[name], other[name])) for name, node in pairs.items())
    result = Verification(drifts, HALF_TOLERANCE if half else TOLERANCE, exact)
    if exact and result.first is not None and not half:
        moved = run_inner(before, nudged(theirs), names, "the network before")
        result = replace(
            result,
            drifts=tuple(
                replace(d, rounding=ROUNDING_FACTOR * distance(one[d.tensor], moved[d.tensor])) for d in drifts
            ),
        )
    doubtful = list(result.in_doubt()) if exact else []
    if not doubtful or result.worst == float("inf"):
        return result
    try:
        one, other = repeated(before, theirs, doubtful), repeated(after, ours, doubtful)
    except NotRepeated as error:
        return replace(result, doubt=str(error))
    limit = ROUNDING_FACTOR * (HALF_TOLERANCE if half else DOUBLE_TOLERANCE)
    decided = (
        replace(d, relative=distance(one[d.tensor], other[d.tensor]), limit=limit) if d.tensor in one else d
        for d in result.drifts
    )  # columns that are sums are rounded themselves
    return replace(result, drifts=tuple(decided))


def _feeds(drawn: Mapping[str, np.ndarray], asked: Recolouring) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs for the network before, and for the result: of the second the first is A·u."""
    x = drawn[asked.image]
    old, new = x.shape[asked.axis], asked.channels
    a = matrix(old, new)
    whole = x.dtype.kind != "f"
    u = np.repeat(x.take([0], asked.axis), new, asked.axis)  # grey, where a mean could not be said in whole numbers
    if not whole or old > 1:
        rng = np.random.default_rng(1)
        u = np.concatenate([x, rng.permuted(u)], asked.axis).take(range(new), asked.axis)
    seen = np.moveaxis(np.tensordot(a, np.moveaxis(u, asked.axis, 0).astype(np.float64), 1), 0, asked.axis)
    seen = np.rint(seen) if whole else seen
    return {**drawn, asked.image: seen.astype(x.dtype)}, {**drawn, asked.image: np.ascontiguousarray(u)}
