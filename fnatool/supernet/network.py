"""The super network: all members of a Space in one torch module, its parameters remapped from the seed.

    network = build(graph, analysis, choices(analysis, space))   # remap(graph, largest member), read by torch
    network(x, member)                                           # a weight step: slices of shared weights, or a path
    network(x)                                                   # a step on α: all candidates at once
    network.architecture.hold(floor_at(progress))                # after it: against collapse to skip (alpha.py)
    found = network.recalibrate(member, batches)                 # a score: the member with statistics of its own
    network.forward_member(x, member, norms="running", statistics=found)
    network.architecture.log_probabilities()                     # what derivation works with

Two relaxations of the same choice. `entangled`: candidates are slices of the largest weights, mixed before the operator
(mixing.py). `paths`, as published: each candidate of a block has parameters of its own, and their outputs are weighed,
Σ_c P(c) · candidate_c(x). BatchNormalization takes the statistics of the batch; running ones are never written, a
member gets its own by `recalibrate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, Literal

import onnx_graphsurgeon as gs
import torch
from torch import Tensor

from fnatool.nn.batch import require_batch
from fnatool.nn.keys import keys
from fnatool.nn.layers import Norms
from fnatool.nn.program import Program, run
from fnatool.nn.reading import Reading
from fnatool.supernet.alpha import Architecture
from fnatool.supernet.mixing import Mixture, mixture, unmixable, without
from fnatool.supernet.segments import Segment
from fnatool.supernet.variants import Variant, Variants, tensors
from passes.errors import UserError
from passes.graph.tensors import Shape
from passes.network.analyse import analyse
from passes.network.analysis import Analysis
from passes.space.space import SKIP, Choices
from passes.target.apply import apply
from passes.target.plan import Plan
from passes.target.planner import plan

Relaxation = Literal["entangled", "paths"]
RELAXATIONS = ("entangled", "paths")
Outputs = dict[str, Tensor]
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


class Tensors(torch.nn.Module):
    """Tensors under their names in the graph: parameters, and buffers that are saved with them."""

    def __init__(self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.keys = {name: "/".join(key) for name, key in keys((*parameters, *buffers), dir(torch.nn.Module)).items()}
        for name, value in parameters.items():
            self.register_parameter(self.keys[name], torch.nn.Parameter(value))
        for name, value in buffers.items():
            self.register_buffer(self.keys[name], value)

    def named(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {name: getattr(self, key) for name, key in self.keys.items()}


@dataclass(frozen=True)
class Compiled:
    """What runs instead of the network's own functions: the mixture, and the parts so far by the program that each of
    them runs.
    """

    wrap: Wrap
    mixed: Callable[..., Outputs]
    parts: dict[int, Callable[..., tuple[Tensor, ...]]]

    def part(self, variant: Variant) -> Callable[..., tuple[Tensor, ...]]:
        """What runs this variant, which stays as long as the network."""
        key = id(variant.program)
        if key not in self.parts:
            self.parts[key] = self.wrap(_running(variant.program, f"part{len(self.parts)}"))
        return self.parts[key]


def _running(program: Program, name: str) -> Callable[..., tuple[Tensor, ...]]:
    """What runs the program, with code of its own: by that torch keeps what it compiled, and after a few for the same
    it stops.
    """

    def part(values: Sequence[Tensor], inputs: Sequence[Tensor], *, norms: Norms, training: bool) -> tuple[Tensor, ...]:
        return run(program, values, inputs, norms=norms, training=training)

    assert isinstance(part, FunctionType)
    part.__code__ = part.__code__.replace(co_name=name)
    return part


class SuperNetwork(torch.nn.Module):
    """All members of `choices`. Parameters: `shared` (and `paths`) are the weights, `architecture.alphas` is α; the
    state_dict holds all.

    `fixed` are the knobs that this relaxation cannot choose, with the reason; they have their largest value in every
    one of `choices`. `analysis` and `reading` are of the largest member, `segments` its parts in the order they run.
    """

    def __init__(
        self,
        analysis: Analysis,
        reading: Reading,
        choices: Choices,
        *,
        relaxation: Relaxation = "entangled",
        select: str = "first",
        seed: int = 0,
    ) -> None:
        """analysis and reading: of remap(seed network, largest member); select: which channels members keep; seed: of
        the initial α.
        """
        super().__init__()
        self.relaxation: Relaxation = relaxation
        self.fixed: Mapping[str, str] = unmixable(analysis, choices) if relaxation == "entangled" else {}
        self.choices = without(choices, self.fixed)
        self.analysis, self.reading = analysis, reading
        self.variants = Variants(analysis, reading, self.choices, select)
        self.segments = self.variants.segments
        self.architecture = Architecture(self.choices, seed)
        apart = {
            name for segment in self.segments if self._has_paths(segment) for name, _ in self._largest(segment).weights
        }
        values = {weight.name: (weight, reading.initial(weight)) for weight in reading.weights}
        self.shared = Tensors(
            {name: value for name, (weight, value) in values.items() if name not in apart and weight.role == "trained"},
            {
                name: value
                for name, (weight, value) in values.items()
                if name not in apart and weight.role == "statistic"
            },
        )
        self.paths = torch.nn.ModuleDict()
        if relaxation == "paths":
            self._lay_paths({name: value for name, (_, value) in values.items()})
        self._mixtures: dict[tuple[int, torch.device, torch.dtype], Mixture] = {}
        self._compiled: Compiled | None = None

    def _has_paths(self, segment: Segment) -> bool:
        return self.relaxation == "paths" and segment.block is not None

    def _largest(self, segment: Segment) -> Variant:
        return self.variants.of(segment, self.variants.largest)

    def _lay_paths(self, values: Mapping[str, Tensor]) -> None:
        """Parameters of its own for every candidate: its slices of the largest member's."""
        trained = {weight.name for weight in self.reading.weights if weight.role == "trained"}
        for segment in self.segments:
            if segment.block is None:
                continue
            candidates = torch.nn.ModuleList()
            for k in range(len(self.choices.blocks[segment.block].candidates)):
                variant = self.variants.of(segment, self._with(segment.block, k))
                own = {
                    name: (values[name] if cut is None else cut(values[name])).clone() for name, cut in variant.weights
                }
                split = [
                    {name: value for name, value in own.items() if (name in trained) is kind} for kind in (True, False)
                ]
                candidates.append(Tensors(*split))
            self.paths[_key(segment)] = candidates

    def _with(self, block: int, candidate: int) -> tuple[int, ...]:
        """The largest member but for one block."""
        return tuple(candidate if k == block else largest for k, largest in enumerate(self.variants.largest))

    # --- what is trained ---

    @property
    def alphas(self) -> list[torch.nn.Parameter]:
        """The architecture parameters, one per block with a choice."""
        return list(self.architecture.parameters())

    def weight_parameters(self) -> list[torch.nn.Parameter]:
        """All parameters but α."""
        return [*self.shared.parameters(), *self.paths.parameters()]

    # --- runs ---

    def forward(
        self, x: Tensor | Mapping[str, Tensor], member: Sequence[int] | None = None, norms: Norms = "batch"
    ) -> Outputs:
        """A member's outputs, or without one the mixture's: one call for both, so that wrappers of modules see it."""
        if member is None:
            mixed = self.forward_mixed if self._compiled is None else self._compiled.mixed
            return mixed(x, norms=norms)
        return self._forward_member(x, member, norms=norms, compiled=self._compiled)

    def compile_runs(self, wrap: Wrap, device: torch.device) -> None:
        """From now on `forward` runs what `wrap` makes of a function (torch.compile): the mixture as a whole, of a
        member every part.

        A member is another one at each step, but its parts come again: each is compiled when it is first drawn.
        """
        self.prepare_mixture(device)
        self._compiled = Compiled(wrap, wrap(self.forward_mixed), {})

    def prepare_mixture(self, device: torch.device) -> None:
        """Programs, masks and constants of the mixture are there, so that a run of it computes with tensors and does
        nothing else.
        """
        for segment in self.segments:
            if self._has_paths(segment):
                for k in range(len(self.choices.blocks[_number(segment)].candidates)):
                    self.variants.of(segment, self._with(_number(segment), k)).place(device)
            self._largest(segment).place(device)
            if not self._has_paths(segment):
                self._mixture(segment, torch.empty(0, device=device))

    def _mixture(self, segment: Segment, like: Tensor) -> Mixture:
        """That of a segment, for probabilities like these."""
        place = (segment.number, like.device, like.dtype)
        if place not in self._mixtures:
            self._mixtures[place] = mixture(self.variants, segment).to(like)
        return self._mixtures[place]

    def forward_member(
        self,
        x: Tensor | Mapping[str, Tensor],
        member: Sequence[int],
        *,
        norms: Norms = "batch",
        statistics: Mapping[str, Tensor] | None = None,
    ) -> Outputs:
        """Output → its tensor, of the member (per block the number of its candidate, or SKIP) with the weights it has
        here.

        norms: see fnatool.nn ("running" needs statistics that fit: the seed's, or those of `recalibrate`). Raises
        UserError where it is no member.
        """
        return self._forward_member(x, member, norms=norms, statistics=statistics)

    def _forward_member(
        self,
        x: Tensor | Mapping[str, Tensor],
        member: Sequence[int],
        *,
        norms: Norms,
        statistics: Mapping[str, Tensor] | None = None,
        compiled: Compiled | None = None,
    ) -> Outputs:
        self.choices.require_member(member)
        shared = self.shared.named()

        def step(segment: Segment, found: Outputs) -> Sequence[Tensor]:
            variant = self.variants.of(segment, self._present(member))
            weights = self._sliced(segment, variant, member, shared)
            if statistics is not None:
                weights |= {name: statistics[name] for name, _ in variant.weights if name in statistics}
            return self._run(segment, variant, weights, found, norms=norms, compiled=compiled)

        return self._walk(x, member, step)

    def forward_mixed(
        self,
        x: Tensor | Mapping[str, Tensor],
        *,
        norms: Norms = "batch",
        probabilities: Sequence[Tensor] | None = None,
        train_weights: bool = False,
    ) -> Outputs:
        """Output → its tensor, of all candidates weighed by softmax(α), or by other probabilities of that form.

        Gradients reach α, and the weights only where `train_weights` asks for it.
        """
        rows = self.architecture.probabilities() if probabilities is None else list(probabilities)
        found = self._inputs(x)
        device = next(iter(found.values())).device
        rows = [row.to(device) for row in rows]
        counts = [len(block.candidates) for block in self.choices.blocks]
        kept = [row[:count] / row[:count].sum().clamp(min=1e-30) for row, count in zip(rows, counts, strict=True)]
        shared = _held(self.shared.named(), learn=train_weights)

        def step(segment: Segment, found: Outputs) -> Sequence[Tensor]:
            if self._has_paths(segment):
                return self._weighed(segment, rows[_number(segment)], found, norms, learn=train_weights)
            keep = None
            if segment.block is not None and self.choices.blocks[segment.block].skippable:
                keep = rows[segment.block][: counts[segment.block]].sum()
            return self._mixed(segment, kept, shared, found, keep=keep, norms=norms)

        return self._walk(x, None, step)

    def _walk(
        self,
        x: Tensor | Mapping[str, Tensor],
        member: Sequence[int] | None,
        step: Callable[[Segment, Outputs], Sequence[Tensor]],
    ) -> Outputs:
        """The graph segment by segment; a tensor goes when nobody reads it any more."""
        found = self._inputs(x)
        for segment in self.segments:
            if member is not None and segment.block is not None and member[segment.block] == SKIP:
                found[segment.exit] = found[segment.entry]
            else:
                found |= zip(segment.outputs, step(segment, found), strict=True)
            for name in segment.spent:
                found.pop(name, None)
        return {name: found[name] for name in self.reading.outputs}

    def _inputs(self, x: Tensor | Mapping[str, Tensor]) -> Outputs:
        names = self.reading.inputs
        given = dict(zip(names, (x,), strict=False)) if isinstance(x, Tensor) else dict(x)
        if set(given) != set(names):
            raise TypeError(f"the graph has the inputs {', '.join(names)}; {', '.join(given)} given")
        return given

    def _run(
        self,
        segment: Segment,
        variant: Variant,
        weights: Mapping[str, Tensor],
        found: Outputs,
        *,
        norms: Norms,
        compiled: Compiled | None = None,
    ) -> tuple[Tensor, ...]:
        inputs = [found[name] for name in segment.inputs]
        values = tensors(variant, weights, inputs[0].device)
        if compiled is not None:
            return compiled.part(variant)(values, inputs, norms=norms, training=self.training)
        return run(variant.program, values, inputs, norms=norms, training=self.training)

    # --- one member ---

    def _present(self, member: Sequence[int]) -> tuple[int, ...]:
        """The member with the largest candidate where it skips: what nobody runs but others' sizes are asked of."""
        return tuple(largest if k == SKIP else k for k, largest in zip(member, self.variants.largest, strict=True))

    def _sliced(
        self, segment: Segment, variant: Variant, member: Sequence[int], shared: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The segment's weights with the member's widths."""
        if self._has_paths(segment):
            return self._path(segment, member[_number(segment)])
        return {name: shared[name] if cut is None else cut(shared[name]) for name, cut in variant.weights}

    def _path(self, segment: Segment, candidate: int) -> dict[str, Tensor]:
        candidates = self.paths[_key(segment)]
        assert isinstance(candidates, torch.nn.ModuleList)
        own = candidates[candidate]
        assert isinstance(own, Tensors)
        return own.named()

    @torch.no_grad()
    def recalibrate(self, member: Sequence[int], batches: Iterable[Tensor | Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The member's running statistics, by name and of its widths: the means of those of the batches. Nothing else
        changes.

        Raises UserError where there is no batch.
        """
        shared = self.shared.named()
        names = {weight.name for weight in self.reading.weights if weight.role == "statistic"}
        found: dict[str, Tensor] = {}
        for segment in self.segments:
            if segment.block is None or member[segment.block] != SKIP:
                weights = self._sliced(segment, self.variants.of(segment, self._present(member)), member, shared)
                found |= {name: value.clone() for name, value in weights.items() if name in names}
        count = 0
        for count, x in enumerate(batches, 1):
            self.forward_member(x, member, norms=1.0 / count, statistics=found)
        if not count:
            raise UserError("there is not one batch to take statistics of")
        return found

    # --- all candidates ---

    def _mixed(
        self,
        segment: Segment,
        kept: Sequence[Tensor],
        shared: Mapping[str, Tensor],
        found: Outputs,
        *,
        keep: Tensor | None,
        norms: Norms,
    ) -> Sequence[Tensor]:
        """A segment with mixed weights. kept: per block P(candidate | keep); keep: P(keep), where its block may be
        skipped.
        """
        mix = self._mixture(segment, kept[0].detach())
        variant = self._largest(segment)
        weights = mix({name: shared[name] for name, _ in variant.weights}, kept, keep)
        made = self._run(segment, variant, weights, found, norms=norms)
        if keep is None or mix.folded:
            return made
        entry = _precise(found[segment.entry], keep)
        return [(entry + keep * (_precise(y, keep) - entry)).to(y.dtype) if name == segment.exit else y
                for name, y in zip(segment.outputs, made, strict=True)]  # fmt: skip

    def _weighed(self, segment: Segment, row: Tensor, found: Outputs, norms: Norms, *, learn: bool) -> list[Tensor]:
        """Σ_c P(c) · candidate_c(x) + P(skip) · x, row being P; what a head reads inside is filled with zeros to the
        largest widths.

        learn: the weights do.
        """
        block = self.choices.blocks[_number(segment)]
        largest = self._largest(segment).shapes
        totals: list[Tensor] = []
        for k in range(len(block.candidates)):
            variant = self.variants.of(segment, self._with(_number(segment), k))
            made = self._run(segment, variant, _held(self._path(segment, k), learn=learn), found, norms=norms)
            terms = [row[k] * _precise(_filled(y, variant.shapes[name], largest[name]), row)
                     for name, y in zip(segment.outputs, made, strict=True)]  # fmt: skip
            totals = [total + term for total, term in zip(totals, terms, strict=True)] if totals else terms
        if block.skippable:
            totals = [total + row[-1] * _precise(found[segment.entry], row) if name == segment.exit else total
                      for name, total in zip(segment.outputs, totals, strict=True)]  # fmt: skip
        return [total.to(y.dtype) for total, y in zip(totals, made, strict=True)]

    # --- in words ---

    def describe(self) -> list[str]:
        """A line per block: its candidates, how it is skipped; and a line per knob that is not chosen, with the
        reason.
        """
        lines = []
        for segment in self.segments:
            if segment.block is None:
                continue
            block = self.choices.blocks[segment.block]
            tails = ", ".join(
                f"{tail} {'|'.join(map(str, _distinct(block.candidates, tail)))}" for tail in block.candidates[0]
            )
            count = len(block.candidates)
            skip = f", or skipped ({self._how_skipped(segment)})" if block.skippable else ""
            lines.append(f"{block.name}: {count} candidate{'s'[: count != 1]} ({tails or 'the seed’s'}){skip}")
        lines += [f"{knob} stays at its largest value: {why}" for knob, why in self.fixed.items()]
        return lines

    def _how_skipped(self, segment: Segment) -> str:
        if self.relaxation == "paths":
            return "a path of its own"
        return "by its last affine" if mixture(self.variants, segment).folded else "by weighing exit and entry"


def build(
    seed: gs.Graph,
    analysis: Analysis,
    choices: Choices,
    *,
    strategy: str = "fna",
    relaxation: Relaxation = "entangled",
    select: str = "first",
    rng_seed: int = 0,
) -> SuperNetwork:
    """The super network of a seed, its analysis and the choices on it: remapped to the largest member by the strategy,
    read by torch.

    select: which channels a narrower member keeps; rng_seed: for the noise of the remap and for α. Raises UserError for
    an unknown relaxation or an impossible choice, RefusedModel for a network that cannot be remapped, or that torch
    cannot compute or batch.
    """
    if relaxation not in RELAXATIONS:
        raise UserError(f"relaxation {relaxation!r} is not one of {', '.join(RELAXATIONS)}")
    if strategy == "preserve":
        choices = choices.with_originals()
    whole = largest(seed, analysis, choices, strategy=strategy, select=select, rng_seed=rng_seed)
    reading = Reading(whole.graph, whole.sizes)
    require_batch(
        reading, {weight.name: reading.initial(weight) for weight in reading.weights}, static=reading.static_batch
    )
    analysis = replace(whole.analysis, normal=None)  # whose weights nobody needs twice
    return SuperNetwork(analysis, reading, choices, relaxation=relaxation, select=select, seed=rng_seed)


@dataclass(frozen=True)
class LargestMember:
    """The largest member as a graph, the sizes of its inputs, its analysis, and how it was made of the seed."""

    graph: gs.Graph
    sizes: Mapping[str, Shape]
    analysis: Analysis
    plan: Plan


def largest(
    seed: gs.Graph, analysis: Analysis, choices: Choices, *, strategy: str, select: str, rng_seed: int
) -> LargestMember:
    """The seed remapped to the largest member of the choices on it. Raises UserError and RefusedModel as a remap
    does.
    """
    found = plan(analysis, choices.spec(choices.largest()), strategy=strategy, select=select, seed=rng_seed)
    graph = apply(analysis.normal or seed, found)
    sizes = {tensor.name: found.sizes[tensor.name] for tensor in graph.inputs if tensor.name in found.sizes}
    return LargestMember(graph, sizes, analyse(graph, sizes=sizes, table=found.table), found)


def _key(segment: Segment) -> str:
    return f"block{segment.block}"


def _number(segment: Segment) -> int:
    assert segment.block is not None
    return segment.block


def _held(weights: dict[str, Tensor], *, learn: bool) -> dict[str, Tensor]:
    return weights if learn else {name: value.detach() for name, value in weights.items()}


def _precise(y: Tensor, like: Tensor) -> Tensor:
    """y in a type that is no coarser than that of the probabilities it is weighed by, so that their gradients are not
    rounded.
    """
    return y.to(torch.promote_types(y.dtype, like.dtype))


def _filled(y: Tensor, shape: Shape, largest: Shape) -> Tensor:
    """y with zeros behind, where the largest candidate has more channels."""
    more = [b - a for a, b in zip(shape, largest, strict=True)]
    return torch.nn.functional.pad(y, [n for k in reversed(more) for n in (0, k)]) if any(more) else y


def _distinct(candidates: Sequence[Mapping[str, int]], tail: str) -> list[int]:
    return list(dict.fromkeys(row[tail] for row in candidates))
