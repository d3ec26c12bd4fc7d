"""How far the outputs of a written file are from those of the network that it was made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fnatool.deploy.network import Network
from fnatool.model.verified import in_child


def farthest(made: Network, path: Path) -> tuple[float, str]:
    """The largest difference, as a share of the spread of its output, and that output: on noise, with graph optimisation and without.

    Raises RefusedModel where one of them does not run.
    """
    return in_child(_farthest, made, path)


def _farthest(made: Network, path: Path) -> tuple[float, str]:
    from fnatool.runtime.session import Runner
    from fnatool.runtime.verify import run_inner

    graph, rng = made.model.graph, np.random.default_rng(0)
    feeds = {}
    for tensor in graph.inputs:
        if tensor.name in made.shapes:
            shape, dtype = made.shapes[tensor.name], np.dtype(tensor.dtype)
            feeds[tensor.name] = (rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)).astype(dtype)
    names = [tensor.name for tensor in graph.outputs]
    before = run_inner(graph, feeds, names, "the network")
    worst = (0.0, names[0])
    for optimised in ("all", "none"):
        after = Runner(path, optimised=optimised)(feeds)
        worst = max(worst, *((_apart(before[name], after[name]), name) for name in names))
    return worst


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    if one.shape != other.shape:
        return float("inf")
    if one.dtype.kind not in "fiub":
        return float(not np.array_equal(one, other))
    plain = one.astype(np.float64)
    spread = float(np.ptp(plain)) if plain.size else 0.0
    difference = np.abs(plain - other.astype(np.float64)).max(initial=0.0)
    return float(difference / spread) if spread else float(difference > 0)
