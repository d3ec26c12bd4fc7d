"""A remap whose layers are solved anew against the seed, from pictures without labels.

Layer by layer in the order of the target, each after those before it: from what it reads in the target and what its
tensor lacks to be the seed's, over all positions of all pictures, by least squares that shrink towards the layer as it
is; how much they shrink is chosen by pictures kept back, and a layer that no strength helps there stays as it is. (He,
Zhang, Sun 2017; Luo, Wu, Lin 2017; without shrinking.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
import onnx_graphsurgeon as gs

from fnatool import terminal
from fnatool.data.inputs import Values
from fnatool.data.unlabelled import Unlabelled
from fnatool.files.atomic import temporary
from fnatool.model import least_squares
from fnatool.model.least_squares import LayerChange
from fnatool.model.refit_result import Refit, RefitDistance, RefitLayer
from fnatool.model.remapped import Remapped
from passes.graph.view import Node, view
from passes.network.analysis import Analysis
from passes.network.knobs import IMAGE, STRIDE
from passes.target.apply import apply
from passes.target.input_axes import with_batch, with_colours
from passes.target.matching import MatchedLayer, matched_layers
from passes.target.plan import Plan
from passes.target.planner import plan as planned
from passes.target.spec import Spec, Value

if TYPE_CHECKING:
    from fnatool.nn.columns import Linear
    from fnatool.nn.moments import PositionSums
    from fnatool.nn.parted import PartedNetwork

KEPT = 0.2  # the share of samples, usually, that decide how much is solved
MOST_READS = 8192  # of a layer per position: more make a system of equations that takes minutes and gigabytes
BATCH = 32
ACTIVATIONS = 1 << 26  # bytes of the largest tensors of a batch


def require_torch() -> None:
    """torch is there. Raises MissingTorch, which says how to get it."""
    import_module("fnatool.nn.missing")


def refit(made: Remapped, data: tuple[Unlabelled, Unlabelled]) -> Remapped:
    """The remap with its layers solved anew, and what came of that. data: the samples that are used, and those kept
    back.

    Raises RefusedModel where torch cannot compute one of the networks, MissingTorch where there is none.
    """
    plan = made.plan
    coloured = plan if plan.unbatched is None else plan.unbatched
    single = coloured if coloured.uncoloured is None else coloured.uncoloured
    if single is plan:
        graph, found = refitted(made.analysis, plan, made.model.graph, data)
    else:  # layers are solved in the network that takes as many samples and channels as the seed
        assert made.analysis.normal is not None
        graph, found = refitted(made.analysis, single, apply(made.analysis.normal, single), data)
        graph = graph if single is coloured else with_colours(graph, coloured, single)
        graph = graph if coloured is plan else with_batch(graph, plan, coloured)
    return replace(made, model=replace(made.model, graph=graph), refit=found)


def refitted(
    analysis: Analysis, plan: Plan, graph: gs.Graph, data: tuple[Unlabelled, Unlabelled]
) -> tuple[gs.Graph, Refit]:
    """The target's graph with its layers solved anew. data: the samples that are used, and those kept back.

    Raises RefusedModel where torch cannot compute one of the networks, MissingTorch where there is none.
    """
    from fnatool.nn.parted import PartedNetwork, device

    target = view(graph)
    layers = matched_layers(analysis, plan, target)
    sizes = {name: plan.sizes[name] for name in target.inputs if name in plan.sizes}
    with temporary() as folder:
        seed = PartedNetwork(teacher(analysis, plan), sizes, folder / "seed", device())
        walk = PartedNetwork(graph, sizes, folder / "target", device())
        fitting = _Fitting(seed, walk, layers)
        size = fitting.batch(data)
        fitting.add(data, size)
        before = dict(walk.weights)
        strengths = fitting.run()
        distances = fitting.distances(data[1], size, before)
    rows = tuple(
        RefitLayer(layer.node, layer.block, strengths[layer.node], distances[layer.tensor, layer.seed])
        for layer in layers
        if layer.node in strengths
    )
    outputs = tuple(distances[pair] for pair in fitting.outputs())
    return walk.changed(graph), Refit(rows, outputs, len(data[0]), len(data[1]), fitting.skipped)


def teacher(analysis: Analysis, plan: Plan) -> gs.Graph:
    """The seed in its normal form, at the target's image size and output stride."""
    assert analysis.normal is not None
    knobs: dict[str, Value] = {}
    resolved = plan.resolved
    if resolved.image is not None and (resolved.image != analysis.image.size or analysis.image.free):
        knobs[IMAGE] = resolved.image
    if resolved.values[STRIDE] != analysis.strides.value:
        knobs[STRIDE] = resolved.values[STRIDE]
    if not knobs:
        return analysis.normal.graph
    return apply(analysis.normal, planned(analysis, Spec(knobs), allow_drift=True))


class _Fitting:
    """Both networks on their way through the layers."""

    def __init__(self, seed: PartedNetwork, target: PartedNetwork, layers: Sequence[MatchedLayer]) -> None:
        self.seed, self.target = seed, target
        self.skipped: dict[str, str] = {}
        self.kept: list[bool] = []
        self.layers = [layer for layer in layers if self._can(layer)]

    def _can(self, layer: MatchedLayer) -> bool:
        """Whether the layer can be solved; if not, why is known."""
        node = self.target.reading.view.by_name.get(layer.node)
        shapes = (self.seed.reading.shapes.shapes.get(layer.seed), self.target.reading.shapes.shapes.get(layer.tensor))
        why = ""
        if node is None or node.inputs[1] not in self.target.weights:
            why = "its weight is none that is learnt"
        elif None in shapes or _without(shapes[0], layer.axis) != _without(shapes[1], layer.axis):
            why = "its map has another size than the seed's"
        elif self._linear(node).rows(self.target.weight(node.inputs[1])).shape[2] > MOST_READS:
            why = f"it reads more than {MOST_READS:,} numbers at a position"
        if why:
            self.skipped[layer.node] = why
        return not why

    def _linear(self, node: Node) -> Linear:
        from fnatool.nn.columns import LINEAR
        from fnatool.nn.site import NodeSite

        reading = self.target.reading
        return LINEAR[node.op](NodeSite(node, reading.view.opset, reading.facts))

    def batch(self, data: tuple[Unlabelled, Unlabelled]) -> int:
        """How many samples run at once: one, where the network cannot take more."""
        if not self.target.free or not self.seed.free:
            return 1
        largest = max(self.target.largest, self.seed.largest, 1)
        return int(min(BATCH, max(1, ACTIVATIONS // largest), max(map(len, data))))

    def add(self, data: tuple[Unlabelled, Unlabelled], size: int) -> None:
        """The samples stand at the beginning of both networks."""
        for back, part in enumerate(data):
            for batch in part.batches(size):
                count = max(len(values) for values in batch.values())
                self.seed.add(batch, count)
                self.target.add(batch, count)
                self.kept.append(bool(back))

    def run(self) -> dict[str, float | None]:
        """Every layer is solved in its turn; by node the strength, None where it stays."""
        found: dict[str, float | None] = {}
        with terminal.progress("refitting layers", len(self.layers)) as advance:
            for k, layer in enumerate(self.layers):
                found[layer.node] = self._solve(k, layer)
                advance(1)
        return found

    def _solve(self, k: int, layer: MatchedLayer) -> float | None:
        from fnatool.nn.moments import Match, moments

        node = self.target.reading.view.by_name[layer.node]
        linear = self._linear(node)
        rest = self.layers[k + 1 :]
        own = self.target.run((node.inputs[0], layer.tensor), layer.node, [other.tensor for other in rest])
        producer = self.seed.reading.view.producer[layer.seed]
        other = self.seed.run((layer.seed,), producer, [after.seed for after in rest])
        rows = ((a[node.inputs[0]], a[layer.tensor], b[layer.seed]) for a, b in zip(own, other, strict=True))
        used, kept = moments(rows, linear, Match(layer.axis, layer.rows, layer.matches), self.kept)
        if not all(np.isfinite(part).all() for sums in (used, kept) for part in (sums.gram, sums.cross, sums.square)):
            self.skipped[layer.node] = "what it reads or is to make is not finite on these samples"
            return None
        way = _Way(self.target, node, linear, layer.steps)
        change = least_squares.best(way.without_shift(used), way.without_shift(kept))
        if change is None:
            return None
        way.write(change)
        return change.strength

    # --- how far everything is ---

    def outputs(self) -> list[tuple[str, str]]:
        """The networks' outputs that can be compared."""
        shapes, types = (
            (self.target.reading.shapes.shapes, self.seed.reading.shapes.shapes),
            self.target.reading.facts.types,
        )
        pairs = zip(self.target.reading.outputs, self.seed.reading.outputs, strict=True)
        return [
            (a, b) for a, b in pairs if types.get(a) in FLOATING and shapes[0].get(a) == shapes[1].get(b) is not None
        ]

    def distances(
        self, data: Unlabelled, size: int, before: Mapping[str, object]
    ) -> dict[tuple[str, str], RefitDistance]:
        """Of the layers' tensors and the outputs, on the samples kept back."""
        matches = {(layer.tensor, layer.seed): (layer.axis, layer.rows, layer.matches) for layer in self.layers}
        pairs = dict.fromkeys([*matches, *self.outputs()])
        spreads = {pair: _Spread() for pair in pairs}
        own, other = (
            network.whole(dict.fromkeys(pair[k] for pair in pairs))
            for k, network in enumerate((self.target, self.seed))
        )
        for batch in data.batches(size):
            wanted = other(self.seed.weights, self.seed.given(batch))
            was = own(before, self.target.given(batch))  # type: ignore[arg-type]
            now = own(self.target.weights, self.target.given(batch))
            for pair in pairs:
                values = [
                    found[name].cpu().numpy() for found, name in ((wanted, pair[1]), (was, pair[0]), (now, pair[0]))
                ]
                if pair in matches:
                    axis, rows, matching = matches[pair]
                    values = [values[0].take(matching, axis), *(value.take(rows, axis) for value in values[1:])]
                spreads[pair].add(*values)
        return {pair: spread.distance(pair[0]) for pair, spread in spreads.items()}


FLOATING = frozenset({1, 10, 11, 16})  # ONNX's element types of single, half, double and brain precision


def _without(shape: Sequence[int] | None, axis: int) -> tuple[int, ...]:
    return () if shape is None else tuple(size for k, size in enumerate(shape) if k != axis)


class _Spread:
    """Σ ‖wanted − mean wanted‖² over samples, and Σ ‖wanted − found‖² of two others."""

    def __init__(self) -> None:
        self.count = 0
        self.total: np.ndarray | float = 0.0
        self.square = 0.0
        self.moved = np.zeros(2)

    def add(self, wanted: Values, was: Values, now: Values) -> None:
        of = wanted.astype(np.float64)
        self.count += len(of) if of.ndim else 1
        with np.errstate(all="ignore"):  # what is not finite has no distance
            self.total = self.total + (of.sum(0) if of.ndim else of)
            self.square += float(np.square(of).sum())
            self.moved += [float(np.square(of - found.astype(np.float64)).sum()) for found in (was, now)]

    def distance(self, name: str) -> RefitDistance:
        with np.errstate(all="ignore"):
            # one sample is compared with its own size
            mean = float(np.square(self.total).sum()) / self.count if self.count > 1 else 0.0
            spread = np.float64(self.square - mean)
            before, after = np.where(self.moved > 0, self.moved / spread, self.moved).tolist()
        return RefitDistance(name, before, after)


# --- what a change of the tensor is in the layer ------------------------------------------------


class _Way:
    """From a layer to its tensor: T = s · layer(x) + t, channel by channel, and where a shift of T can be written."""

    def __init__(self, walk: PartedNetwork, node: Node, linear: Linear, steps: Sequence[str]) -> None:
        self.walk, self.node, self.linear = walk, node, linear
        self.nodes = [walk.reading.view.by_name[name] for name in steps]
        channels = linear.rows(walk.weight(node.inputs[1])).shape[:2]
        self.channels = channels[0] * channels[1]
        self.scales = [self._scale(step) for step in self.nodes]
        self.shift = self._shift_place()

    def _constant(self, name: str) -> np.ndarray:
        found = self.walk.weight(name) if name in self.walk.weights else self.walk.reading.view.values(name)
        return np.broadcast_to(np.asarray(found, np.float64).ravel(), self.channels)

    def _scale(self, step: Node) -> np.ndarray:
        """What the step multiplies each channel by."""
        if step.op == "BatchNormalization":
            scale, variance = self._constant(step.inputs[1]), self._constant(step.inputs[4])
            return np.asarray(scale / np.sqrt(variance + _epsilon(step)))
        constants = [name for name in step.inputs if name in self.walk.reading.view.constants]
        return self._constant(constants[0]) if step.op == "Mul" and constants else np.ones(self.channels)

    def after(self, k: int) -> np.ndarray:
        """The scale from behind step k to the tensor; k = −1: from the layer."""
        return np.asarray(np.prod([np.ones(self.channels), *self.scales[k + 1 :]], axis=0))

    def _shift_place(self) -> tuple[str, np.ndarray] | None:
        """A weight that shifts the channels one by one, and what it is multiplied by up to the tensor: a
        normalisation's first of all.
        """
        places = []
        for k, step in enumerate(self.nodes):
            if step.op == "BatchNormalization":
                return step.inputs[2], self.after(k)
            constants = [name for name in step.inputs if name in self.walk.reading.view.constants]
            if step.op == "Add" and constants:
                places.append((constants[0], self.after(k)))
        if self.node.input(2):
            places.insert(0, (self.node.inputs[2], self.linear.bias * self.after(-1)))
        suiting = [
            (name, scale)
            for name, scale in places
            if name in self.walk.weights and self.walk.weight(name).size == self.channels
        ]
        return suiting[0] if suiting else None

    def without_shift(self, sums: PositionSums) -> PositionSums:
        """The sums, of which the 1 is left out where nothing could hold a shift."""
        if self.shift is not None:
            return sums
        gram, cross = sums.gram.copy(), sums.cross.copy()
        gram[:, -1], gram[:, :, -1], cross[:, :, -1] = 0, 0, 0
        return replace(sums, gram=gram, cross=cross)

    def write(self, change: LayerChange) -> None:
        """The layer and its shift are new, so that T moves by the change.

        A normalisation behind it keeps its statistics and its scale: the layer comes close to the one that these are
        of. (Statistics of the new layer with a scale that makes up for them are the same function, but further from the
        seed with those of a batch.)
        """
        name = self.node.inputs[1]
        rows = self.linear.rows(self.walk.weight(name)).astype(np.float64)
        scale = self.linear.factor * self.after(-1)
        moves = np.abs(scale) > SMALLEST * np.abs(scale).max()
        divisor = np.where(moves, scale, 1.0)
        asked = change.rows.reshape(self.channels, -1) * moves[:, None]
        new = rows + (asked[:, :-1] / divisor[:, None]).reshape(rows.shape)
        self.walk.set(name, self.linear.weight(new))
        if self.shift is not None:
            place, factor = self.shift
            delta = np.divide(asked[:, -1], factor, out=np.zeros(self.channels), where=np.abs(factor) > 0)
            old = self.walk.weight(place)
            self.walk.set(place, old + delta.reshape(old.shape))


SMALLEST = 1e-6  # of the largest scale: channels that hardly reach the tensor cannot move it


def _epsilon(step: Node) -> float:
    return float(step.attrs.get("epsilon", 1e-5))
