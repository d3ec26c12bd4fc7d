"""Verification of another batch in ONNX Runtime: each sample's values equal those that it had alone.

The output is a poor witness here too: what every convolution and matrix product makes of a sample is compared, not the
outputs alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from fnatool.runtime import isolate
from fnatool.runtime.distance import DOUBLE_TOLERANCE, HALF_TOLERANCE, ROUNDING_FACTOR, TOLERANCE, distance, nudged
from fnatool.runtime.double import NotRepeated, repeated
from fnatool.runtime.verify import DOUBLE_SECONDS, Drift, Inner, Verification, noise
from passes.batch.contents import SAMPLES, Axes
from passes.batch.rebatched import Rebatched, batched_inputs
from passes.graph.operators import WEIGHTED
from passes.graph.view import view
from passes.network.analysis import Analysis

Values = dict[str, np.ndarray]
COUNTS = (1, 2, 3)  # samples at once, where any number goes
MOST = 3  # samples that differ


@dataclass(frozen=True)
class _Side:
    """A network and what it is given: how many samples it takes at once (None: as many as there are), and where they
    lie in its tensors.
    """

    graph: gs.Graph
    batch: int | None
    inputs: tuple[str, ...]
    samples: Mapping[str, Axes]
    what: str

    def run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str], count: int, *, double: bool = False) -> Values:
        """What it makes of each sample, stacked; `count` at a time where it takes any number. double: in double
        precision.
        """
        inner = None if double else Inner(self.graph, names, self.what, FIX)
        total = next(len(feeds[name]) for name in self.inputs)
        step = self.batch or count
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for start in range(0, total, step):
            index = [min(k, total - 1) for k in range(start, start + step)]
            given = {name: value[index] if name in self.inputs else value for name, value in feeds.items()}
            found = inner.run(given, names) if inner is not None else repeated(self.graph, given, names)
            for name, value in found.items():
                parts[name] += list(_each(value, self.samples[name], step))[: total - start]
        return {name: np.stack(rows) for name, rows in parts.items()}


FIX = "; --no-verify writes the result without this check"


def _each(value: np.ndarray, axes: Axes, count: int) -> np.ndarray:
    """The values of each of so many samples, in front."""
    factors = [factor for content in axes for factor in content]
    split = value.reshape([count if factor == SAMPLES else factor for factor in factors])
    return np.moveaxis(split, factors.index(SAMPLES), 0)


def verify_batch(
    before: gs.Graph, after: gs.Graph, found: Rebatched, analysis: Analysis, batch: int | None
) -> Verification:
    """What `after`, which takes `batch` samples (None: any number), makes of each sample, beside what `before` makes of
    it.

    Raises RefusedModel where ONNX Runtime cannot run one of them.
    """
    old, new = view(before), view(after)
    shared = {name for name in found.samples if name in old.producer and name in new.producer}
    pairs = {
        name: node.name
        for node in old.nodes
        for name in node.outputs
        if name in shared
        and (node.op in WEIGHTED or name in old.outputs)
        and sum(c.count(SAMPLES) for c in found.samples[name]) == 1
    }
    inputs, names = batched_inputs(old), list(pairs)
    shape = old.inputs[inputs[0]][0]
    own = found.before if shape is not None and isinstance(shape[0], int) else None
    sides = (
        _Side(before, own, inputs, found.samples, "the network before"),
        _Side(after, batch, inputs, found.samples, "the result"),
    )
    feeds = _feeds(analysis, inputs, max(own or 1, 1))
    one = sides[0].run(feeds, names, 1)
    counts = COUNTS if batch is None else (batch,)
    moved: dict[str, float] = {}
    for count in counts:
        part = {
            name: value[: max(count, 1)] if name in inputs and batch is None else value for name, value in feeds.items()
        }
        other = sides[1].run(part, names, count)
        for name in names:
            moved[name] = max(moved.get(name, 0.0), distance(one[name][: len(other[name])], other[name]))
    half = any(values.dtype == np.float16 for values in one.values())
    drifts = tuple(Drift(name, node, moved[name]) for name, node in pairs.items())
    result = Verification(drifts, HALF_TOLERANCE if half else TOLERANCE, exact=True)
    if result.first is not None and not half:
        nudge = sides[0].run(nudged(feeds), names, 1)
        result = replace(
            result,
            drifts=tuple(
                replace(d, rounding=ROUNDING_FACTOR * distance(one[d.tensor], nudge[d.tensor])) for d in result.drifts
            ),
        )
    return _settled(result, sides, feeds, counts[-1])


def _feeds(analysis: Analysis, inputs: Sequence[str], own: int) -> Values:
    """Noise for some samples, which are different ones, in front of the inputs that have samples."""
    drawn = [noise(analysis, seed) for seed in range(MOST)]
    return {
        name: np.concatenate([row[name][:1] for row in drawn]) if name in inputs else drawn[0][name]
        for name in drawn[0]
    }


def _settled(
    result: Verification, sides: tuple[_Side, _Side], feeds: Mapping[str, np.ndarray], count: int
) -> Verification:
    """What is in doubt is decided in double precision."""
    doubtful = list(result.in_doubt())
    if not doubtful or result.worst == float("inf"):
        return result
    try:
        moved = isolate.run(_in_double, sides, feeds, doubtful, count, seconds=DOUBLE_SECONDS)
    except (NotRepeated, isolate.Died) as error:
        return replace(result, doubt=str(error))
    decided = (
        replace(d, relative=moved[d.tensor], limit=DOUBLE_TOLERANCE) if d.tensor in moved else d for d in result.drifts
    )
    return replace(result, drifts=tuple(decided))


def _in_double(
    sides: tuple[_Side, _Side], feeds: Mapping[str, np.ndarray], names: Sequence[str], count: int
) -> dict[str, float]:
    """In a child: it may take long."""
    one, other = sides[0].run(feeds, names, 1, double=True), sides[1].run(feeds, names, count, double=True)
    return {name: distance(one[name], other[name]) for name in names}
