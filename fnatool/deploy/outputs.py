"""How far the outputs of a written file are from those of the network that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from fnatool.deploy.network import Core
from fnatool.model.verified import in_child

Feeds = Mapping[str, np.ndarray]
NOTHING = 1e-5  # a spread below it is none: a sigmoid far from its middle computes noise
LEAST = 1e-2  # of the largest value: the spread of an output that is nearly the same everywhere


def farthest(made: Core, path: Path, samples: Callable[[], Iterator[Feeds]] | None = None) -> tuple[float, str]:
    """The largest difference, as a share of the spread of its output, and that output: on noise, with graph
    optimisation and without.

    On samples it is the mean over them, root mean square, in parts of the standard deviation: values of 8 bits have a
    coarse step, and one of many is off by several. Raises RefusedModel where one of them does not run.
    """
    return in_child(_farthest, made, path, samples)


def _farthest(made: Core, path: Path, samples: Callable[[], Iterator[Feeds]] | None) -> tuple[float, str]:
    from fnatool.runtime.session import Runner
    from fnatool.runtime.verify import Inner

    graph, measure = made.model.graph, _apart if samples is None else _mean_apart
    names = [tensor.name for tensor in graph.outputs]
    before = Inner(graph, names, "the network")
    after = [Runner(path, optimised=optimised) for optimised in ("all", "none")]
    found: list[list[list[float]]] = []  # sample, runner, output
    for feeds in iter([noise(made)]) if samples is None else samples():
        plain = before.run(feeds, names)
        found.append(
            [[measure(plain[name], other[name]) for name in names] for other in (runner(feeds) for runner in after)]
        )
    whole = np.array(found).mean(axis=0).max(axis=0)
    return float(whole.max()), names[int(whole.argmax())]


def noise(made: Core) -> dict[str, np.ndarray]:
    """Inputs of the usual batch: normal, or of whole numbers zeros and ones."""
    rng = np.random.default_rng(0)
    feeds = {}
    for tensor in made.model.graph.inputs:
        if tensor.name in made.shapes:
            shape, dtype = made.shapes[tensor.name], np.dtype(tensor.dtype)
            feeds[tensor.name] = (
                rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
            ).astype(dtype)
    return feeds


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    if one.shape != other.shape:
        return float("inf")
    if not _as_finite(one, other):
        return float("inf")
    if one.dtype.kind not in "fiub":
        return float(not np.array_equal(one, other))
    plain = one.astype(np.float64)
    most = float(np.abs(plain).max(initial=0.0))
    # one number has no spread
    spread = most if plain.size == 1 else max(float(np.ptp(plain)) if plain.size else 0.0, LEAST * most)
    difference = np.abs(plain - other.astype(np.float64)).max(initial=0.0)
    return float(difference / max(spread, NOTHING))


def _as_finite(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the other has a number wherever the first has: narrower ones may overflow."""
    return one.dtype.kind != "f" or bool(
        np.isfinite(other.astype(np.float64))[np.isfinite(one.astype(np.float64))].all()
    )


def _mean_apart(one: np.ndarray, other: np.ndarray) -> float:
    if one.shape != other.shape or one.dtype.kind != "f" or one.size == 1 or not _as_finite(one, other):
        return _apart(one, other)
    plain = one.astype(np.float64)
    difference = float(np.sqrt(np.square(plain - other.astype(np.float64)).mean()))
    return difference / max(float(plain.std()), LEAST * float(np.abs(plain).max(initial=0.0)), NOTHING)
