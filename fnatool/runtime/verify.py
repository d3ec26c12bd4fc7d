"""Verification in ONNX Runtime, on inner values.

The final output is a poor witness: a wiring error may leave it almost unchanged. So every convolution and matrix
product that the target has in common with the seed is compared on the seed's channels. Where channels were dropped, the
seed is masked first: what read them reads zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from fnatool.runtime import isolate, native
from fnatool.runtime.distance import DOUBLE_TOLERANCE, HALF_TOLERANCE, ROUNDING_FACTOR, TOLERANCE, distance, nudged
from fnatool.runtime.double import NotRepeated, repeated
from fnatool.runtime.native import first_line
from fnatool.runtime.session import FAILURES, make_session
from passes.channels.groups import regrouped
from passes.channels.resize import resized
from passes.errors import RefusedModel
from passes.graph.normalise import normalise
from passes.graph.operators import WEIGHTED
from passes.graph.tensors import Shape, Shapes
from passes.graph.view import View, build, view
from passes.maps.contents import Sampling
from passes.network.analysis import Analysis
from passes.target.plan import Plan
from passes.target.take import Take

DOUBLE_SECONDS = 60


@dataclass(frozen=True)
class Drift:
    """How far one tensor moved: max |target − seed| on the seed's channels, relative to the spread (max − min) of the
    seed's values.

    `rounding` is how far it may move by rounding alone, where the tolerance was not enough and this was measured.
    `limit` is what decides instead of both where that was in doubt still: then `relative` is how far it moved in double
    precision.
    """

    tensor: str
    node: str
    relative: float
    rounding: float = 0.0
    limit: float | None = None


@dataclass(frozen=True)
class Verification:
    """What was compared, in the order of the graph, and how much may move. `doubt`: why double precision could not be
    asked.

    `blind`: those of the tensors that hold no finite value in the seed, so that nothing is known of them.
    """

    drifts: tuple[Drift, ...]
    tolerance: float
    exact: bool
    doubt: str = ""
    blind: tuple[str, ...] = ()

    @property
    def worst(self) -> float:
        """The largest relative drift, 0 where nothing was compared."""
        return max((drift.relative for drift in self.drifts), default=0.0)

    @property
    def first(self) -> Drift | None:
        """The first tensor that moved further than rounding does, in the order of the graph."""
        return next((drift for drift in self.drifts if self._moved(drift)), None)

    def _moved(self, drift: Drift) -> bool:
        return not drift.relative <= (max(self.tolerance, drift.rounding) if drift.limit is None else drift.limit)

    def in_doubt(self) -> tuple[str, ...]:
        """The tensors that moved further than rounding seems to, but stay finite where the seed's do."""
        return tuple(drift.tensor for drift in self.drifts if self._moved(drift) and np.isfinite(drift.relative))


def verify(seed: gs.Graph, target: gs.Graph, analysis: Analysis, plan: Plan, *, rng_seed: int = 0) -> Verification:
    """Both networks run on the same noise, at the same image size; every tensor they share is compared on what they
    share of it.

    Raises RefusedModel where ONNX Runtime cannot run one of them.
    """
    pairs = shared_tensors(analysis, plan)
    feeds = noise(analysis, rng_seed)
    masked = mask_dropped(_in_normal_form(seed, analysis), analysis, plan)
    names = [pair.tensor for pair in pairs]
    before = run_inner(masked, feeds, names, "the seed")
    after = run_inner(target, feeds, names, "the target")
    half = any(values.dtype == np.float16 for values in before.values())
    drifts = [Drift(pair.tensor, pair.node, pair.drift(before[pair.tensor], after[pair.tensor])) for pair in pairs]
    blind = tuple(name for name in dict.fromkeys(names) if not np.isfinite(before[name]).any())
    result = Verification(tuple(drifts), HALF_TOLERANCE if half else TOLERANCE, not plan.drifts, blind=blind)
    if result.exact and result.first is not None and not half:
        result = replace(
            result,
            drifts=_with_rounding(result.drifts, pairs, before, run_inner(masked, nudged(feeds), names, "the seed")),
        )
    return _settled(result, pairs, (masked, target, feeds), DOUBLE_TOLERANCE) if result.exact else result


def drift_of_whole(seed: gs.Graph, target: gs.Graph, analysis: Analysis, plan: Plan, *, rng_seed: int = 0) -> float:
    """How far the outputs are from those of the whole seed, with all that the target drops; of inner values where no
    output is shared.
    """
    pairs = shared_tensors(analysis, plan)
    pairs = [pair for pair in pairs if pair.tensor in analysis.view.outputs] or pairs
    feeds, names = noise(analysis, rng_seed), [pair.tensor for pair in pairs]
    before, after = (
        run_inner(_in_normal_form(seed, analysis), feeds, names, "the seed"),
        run_inner(target, feeds, names, "the target"),
    )
    return max((pair.drift(before[pair.tensor], after[pair.tensor]) for pair in pairs), default=0.0)


def _in_normal_form(seed: gs.Graph, analysis: Analysis) -> gs.Graph:
    """A graph of its own in the normal form that was analysed: that of the seed."""
    normal = analysis.normal
    if normal is None or normal.given is not seed:
        return normalise(
            seed,
            {name: analysis.shapes.shapes[name] for name in analysis.view.inputs if name in analysis.shapes.shapes},
        ).graph
    return build(normal.seen.nodes, normal.seen.constants, normal.given)


def _with_rounding(
    drifts: Sequence[Drift], pairs: Sequence[Shared], before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
) -> tuple[Drift, ...]:
    """A deep network may amplify rounding beyond the tolerance; how far shows in the seed itself when its input moves
    by that much.
    """
    floors = [
        ROUNDING_FACTOR * replace(pair, new=pair.old, sampling=None).drift(before[pair.tensor], after[pair.tensor])
        for pair in pairs
    ]
    return tuple(replace(drift, rounding=floor) for drift, floor in zip(drifts, floors, strict=True))


def _settled(
    result: Verification,
    pairs: Sequence[Shared],
    run: tuple[gs.Graph, gs.Graph, Mapping[str, np.ndarray]],
    limit: float,
) -> Verification:
    """What is in doubt is decided in double precision: a value of its own scale, as one that a sigmoid has saturated,
    rounds far.

    run: both networks and their inputs.
    """
    doubtful = result.in_doubt()
    if not doubtful or result.worst == float("inf"):
        return result
    try:
        moved = isolate.run(
            _drifts_in_double, [pair for pair in pairs if pair.tensor in doubtful], *run, seconds=DOUBLE_SECONDS
        )
    except (NotRepeated, isolate.Died) as error:
        return replace(result, doubt=str(error))
    decided = (
        replace(drift, relative=moved[drift.tensor], limit=limit) if drift.tensor in moved else drift
        for drift in result.drifts
    )
    return replace(result, drifts=tuple(decided))


def _drifts_in_double(
    pairs: Sequence[Shared], before: gs.Graph, after: gs.Graph, feeds: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """In a child: it may take long."""
    names = [pair.tensor for pair in pairs]
    one, other = repeated(before, feeds, names), repeated(after, feeds, names)
    return {pair.tensor: pair.drift(one[pair.tensor], other[pair.tensor]) for pair in pairs}


def compare(before: gs.Graph, after: gs.Graph, feeds: Mapping[str, np.ndarray]) -> Verification:
    """Two graphs that must compute the same, on every tensor of both that something with a weight makes, and on the
    outputs.

    Raises RefusedModel where ONNX Runtime cannot run one of them.
    """
    old, new = view(before), view(after)
    made = WEIGHTED | {"BatchNormalization"}
    found = {
        tensor: node.name
        for node in old.nodes
        for tensor in node.outputs
        if tensor
        and tensor in new.producer
        and (node.op in made or new.by_name[new.producer[tensor]].op in made or tensor in old.outputs)
    }
    pairs = [Shared(tensor, node, 0, None, None) for tensor, node in found.items()]
    names = list(found)
    one, other = run_inner(before, feeds, names, "the model"), run_inner(after, feeds, names, "the result")
    half = any(values.dtype == np.float16 for values in one.values())
    drifts = tuple(Drift(pair.tensor, pair.node, pair.drift(one[pair.tensor], other[pair.tensor])) for pair in pairs)
    result = Verification(drifts, HALF_TOLERANCE if half else TOLERANCE, exact=True)
    if result.first is not None and not half:
        result = replace(
            result, drifts=_with_rounding(drifts, pairs, one, run_inner(before, nudged(feeds), names, "the model"))
        )
    return _settled(result, pairs, (before, after, feeds), result.tolerance)  # changed weights are rounded themselves


@dataclass(frozen=True)
class Shared:
    """A tensor of both networks: its channel axis, and the positions there that are the seed's, in the seed and in the
    target.

    `sampling`: where the seed's positions in space are in the target's finer map.
    """

    tensor: str
    node: str
    axis: int
    old: np.ndarray | None
    new: np.ndarray | None
    sampling: Sampling | None = None

    def drift(self, before: np.ndarray, after: np.ndarray) -> float:
        """max |after − before| / (max − min) on the shared positions; infinite where a value is not finite in one of
        them only.
        """
        if self.sampling is not None:
            if after.size != np.prod(self.sampling.sizes):
                return float("inf")
            after = self.sampling.of(after)
        if self.old is not None and self.new is not None:
            before, after = before.take(self.old, self.axis), after.take(self.new, self.axis)
        return distance(before, after)


def shared_tensors(analysis: Analysis, plan: Plan) -> list[Shared]:
    """The outputs of convolutions and matrix products, and the graph's outputs, that both networks have, with what they
    share of them.

    What comes after an average over a finer map is another value, and not among them.
    """
    seed = analysis.view
    found = []
    for placed in plan.nodes:
        if placed.node.name != placed.source:
            continue
        for tensor in seed.by_name[placed.source].outputs:
            if tensor not in placed.node.outputs or not (placed.node.op in WEIGHTED or tensor in seed.outputs):
                continue
            sampling = plan.samples.get(tensor)
            if sampling is None and tensor in plan.samples:
                continue
            label = plan.ground.identities.labels.get(tensor)
            if label is None:
                found.append(Shared(tensor=tensor, node=placed.source, axis=0, old=None, new=None, sampling=sampling))
                continue
            positions = resized(label.ids, plan.changes.at(placed.place))
            kept = np.flatnonzero(positions.copy == 0)
            found.append(
                Shared(
                    tensor=tensor,
                    node=placed.source,
                    axis=label.axis,
                    old=positions.old[kept],
                    new=kept,
                    sampling=sampling,
                )
            )
    return found


def noise(analysis: Analysis, rng_seed: int) -> dict[str, np.ndarray]:
    """Inputs of the analysed sizes, see `noise_for`."""
    return noise_for(analysis.view, analysis.shapes, rng_seed)


def noise_for(seen: View, shapes: Shapes, rng_seed: int) -> dict[str, np.ndarray]:
    """Standard normal inputs of these sizes, batch 1 where it is free; bytes are pixels, sizes fit, other integers are
    0 or 1.
    """
    rng = np.random.default_rng(rng_seed)
    feeds = {}
    for name, (_, dtype) in seen.inputs.items():
        if name in seen.constants:
            continue
        shape = shapes.shapes[name]
        kind = onnx.helper.tensor_dtype_to_np_dtype(dtype)
        bytes_ = np.dtype(kind) == np.uint8
        values = (
            rng.standard_normal(shape) if np.dtype(kind).kind == "f" else rng.integers(0, 256 if bytes_ else 2, shape)
        )
        fitting = None if np.dtype(kind).kind == "f" else sizes_for(seen, shapes, name)
        feeds[name] = (values if fitting is None else np.array(fitting)).astype(kind)
    return feeds


SIZES = {"Resize": 3, "Expand": 1, "Reshape": 1}
"""op → the input that holds the sizes of its result."""


def sizes_for(seen: View, shapes: Shapes, name: str) -> Shape | None:
    """Sizes that fit where an input holds those of a node's result: the ones its data has already. None for any other
    input.
    """
    for reader, slot in seen.readers.get(name, ()):
        node = seen.by_name[reader]
        shape = shapes.shapes.get(node.inputs[0])
        if SIZES.get(node.op) == slot and shape is not None and (len(shape),) == shapes.shapes[name]:
            return shape
    return None


def mask_dropped(graph: gs.Graph, analysis: Analysis, plan: Plan) -> gs.Graph:
    """The seed in which whatever consumes a dropped channel multiplies it by zero; the graph given (in normal form) is
    changed.
    """
    masked: dict[str, np.ndarray] = {}
    unread: dict[str, dict[int, np.ndarray]] = {}
    keep = plan.changes.base.keep
    for site in plan.ground.identities.sites.values():
        dropped = (site.ids >= 0) & ~keep[site.ids]
        if site.role != "creates" and dropped.any() and site.tensor in analysis.view.constants:
            unread.setdefault(site.tensor, {})[site.axis] = dropped
    regroups = {take.source: take for take in plan.takes if take.regroup is not None and take.target == take.source}
    for tensor in {**unread, **regroups}:
        shape = plan.ground.shapes.shapes[tensor]
        kept = np.ones(shape[:2], bool)
        for axis, dropped in unread.get(tensor, {}).items():
            kept[(slice(None),) * axis + (dropped,)] = False
        if tensor in regroups:
            kept = _within_groups(kept, regroups[tensor])
        values = analysis.view.values(tensor)
        masked[tensor] = np.where(
            kept.reshape(*kept.shape, *(1 for _ in shape[2:])), values, np.zeros((), values.dtype)
        )
    constants = {name: gs.Constant(name, values) for name, values in masked.items()}
    for node in graph.nodes:
        for slot, tensor in enumerate(node.inputs):
            if tensor.name in constants:
                node.inputs[slot] = constants[tensor.name]
    return graph


def _within_groups(kept: np.ndarray, take: Take) -> np.ndarray:
    """Which entries of the seed's weight stay, of those of the weight with its `ground` groups: none that crosses the
    target's groups.
    """
    groups = take.regroup
    if groups is None:
        return kept
    # dense in between: two channels stay together where the target has them in one group
    if groups.ground != groups.target:
        homes = []
        for axis, extent in enumerate(kept.shape):
            index = take.axes[axis].index if axis in take.axes else np.arange(extent)
            home = np.full(extent, -1)
            home[index[index >= 0]] = (np.arange(index.size) * groups.target // index.size)[index >= 0]
            homes.append(home)
        kept = kept & (homes[0][:, None] == homes[1])
    return regrouped(kept, groups.ground, groups.seed)


def moved(seed: gs.Graph, target: gs.Graph, feeds: Mapping[str, np.ndarray], tensors: Sequence[str]) -> list[str]:
    """Those of the tensors that do not have the same bits in both networks, neither of which is optimised for this."""
    before = run_inner(seed, feeds, tensors, "the seed", optimised=False)
    after = run_inner(target, feeds, tensors, "the result", optimised=False)
    return [name for name in tensors if before[name].tobytes() != after[name].tobytes()]


def outputs(path: Path, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model in a file makes of the inputs given. Raises RefusedModel where ONNX Runtime cannot run it."""
    try:
        with native.openable(path) as text:
            session = make_session(text)
        names = [value.name for value in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))
    except FAILURES as error:
        raise RefusedModel(f"ONNX Runtime cannot run it: {first_line(error)}") from error


def run_inner(
    graph: gs.Graph, feeds: Mapping[str, np.ndarray], tensors: Sequence[str], what: str, *, optimised: bool = True
) -> dict[str, np.ndarray]:
    """The values of inner tensors for the inputs given. Unless optimised, every node runs as it is written."""
    return Inner(graph, tensors, what, "; --no-verify writes the result without this check", optimised=optimised).run(
        feeds, tensors
    )


class Inner:
    """A graph in ONNX Runtime whose inner tensors can be asked for. A RefusedModel says what cannot be run, and the
    fix.
    """

    def __init__(
        self, graph: gs.Graph, tensors: Sequence[str], what: str, fix: str = "", *, optimised: bool = True
    ) -> None:
        self.failed = (what, fix)
        model = gs.export_onnx(graph, do_type_check=False)
        del model.graph.value_info[:]  # ONNX Runtime infers them; a graph has no type for sequences
        known = {info.name for info in model.graph.output}
        model.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in dict.fromkeys(tensors) if name not in known
        )
        try:
            self.session = make_session(model.SerializeToString(), optimised="basic" if optimised else "none")
        except FAILURES as error:
            raise self._refused(error) from error

    def run(self, feeds: Mapping[str, np.ndarray], tensors: Sequence[str]) -> dict[str, np.ndarray]:
        """The values of the tensors for these inputs."""
        try:
            return dict(zip(tensors, self.session.run(list(tensors), dict(feeds)), strict=True))
        except FAILURES as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> RefusedModel:
        what, fix = self.failed
        return RefusedModel(f"ONNX Runtime cannot run {what}: {first_line(error)}{fix}")
