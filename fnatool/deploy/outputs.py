"""How far the outputs of a written file are from those of the network that it was made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fnatool.deploy.network import Core
from fnatool.files import model as files
from fnatool.model.verified import in_child
from passes.graph.operators import WEIGHTED
from passes.graph.view import view

NOTHING = 1e-5  # a spread below it is none: a sigmoid far from its middle computes noise
LEAST = 1e-2  # of the largest value: the spread of an output that is nearly the same everywhere


def farthest(made: Core, path: Path) -> tuple[float, str]:
    """The largest difference, as a share of the spread of its output, and that output: on noise, with graph optimisation and without.

    Raises RefusedModel where one of them does not run.
    """
    return in_child(_farthest, made, path)


def _farthest(made: Core, path: Path) -> tuple[float, str]:
    from fnatool.runtime.session import Runner
    from fnatool.runtime.verify import run_inner

    graph, feeds = made.model.graph, _noise(made)
    names = [tensor.name for tensor in graph.outputs]
    before = run_inner(graph, feeds, names, "the network")
    worst = (0.0, names[0])
    for optimised in ("all", "none"):
        after = Runner(path, optimised=optimised)(feeds)
        worst = max(worst, *((_apart(before[name], after[name]), name) for name in names))
    return worst


def _noise(made: Core) -> dict[str, np.ndarray]:
    """Inputs of the usual batch: normal, or of whole numbers zeros and ones."""
    rng = np.random.default_rng(0)
    feeds = {}
    for tensor in made.model.graph.inputs:
        if tensor.name in made.shapes:
            shape, dtype = made.shapes[tensor.name], np.dtype(tensor.dtype)
            feeds[tensor.name] = (rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)).astype(dtype)
    return feeds


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    if one.shape != other.shape:
        return float("inf")
    if one.dtype.kind not in "fiub":
        return float(not np.array_equal(one, other))
    plain = one.astype(np.float64)
    most = float(np.abs(plain).max(initial=0.0))
    spread = most if plain.size == 1 else max(float(np.ptp(plain)) if plain.size else 0.0, LEAST * most)  # one number has no spread
    difference = np.abs(plain - other.astype(np.float64)).max(initial=0.0)
    return float(difference / max(spread, NOTHING))


def hurt(made: Core, halved: files.Model) -> list[str]:
    """The nodes with weights, those first behind which the difference to single precision grows most."""
    return in_child(_hurt, made, halved)


def _hurt(made: Core, halved: files.Model) -> list[str]:
    from fnatool.runtime.verify import run_inner

    before, after = view(made.model.graph), view(halved.graph)
    feeds = _noise(made)
    nodes = [node for node in before.nodes if node.op in WEIGHTED and node.outputs[0] in after.producer]
    names = [node.outputs[0] for node in nodes]
    one, other = run_inner(made.model.graph, feeds, names, "the network"), run_inner(halved.graph, feeds, names, "the network in float16")
    drifts = np.array([_apart(one[name], other[name]) for name in names])
    growth = np.diff(np.nan_to_num(drifts, nan=1e9, posinf=1e9), prepend=0.0)
    return [nodes[place].name for place in np.argsort(-growth, kind="stable")]
