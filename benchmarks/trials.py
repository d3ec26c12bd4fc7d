"""What every network must pass, measured: halved, widened, grown exactly, and back.

A trial takes one model through the passes as a user would, with weights at realistic scale, and returns figures; the
sweep prints them and the tests hold them to their bars.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from fnatool.runtime.verify import noise, run_inner, verify
from passes import Analysis, Spec, analyse, apply, own_spec, plan
from passes.check.finding import errors
from passes.check.graph import check
from passes.graph.normalise import normalise
from passes.graph.shapes import infer
from passes.graph.view import view
from passes.target.plan import Plan

GROWTH = {"width": "x1.25", "depth": "+1", "kernel": "+2"}


@dataclass(frozen=True)
class Trial:
    """The figures of one model. `problems` holds a sentence for everything that should not be; empty means it
    passed.
    """

    nodes: int
    params: int
    stages: tuple[int, ...]
    knobs: int
    frozen: int
    analyse_s: float
    left: float
    widened: float
    worst_growth: float
    worst_narrowing: float
    covered: float
    problems: tuple[str, ...] = field(default=())


def trial(graph: gs.Graph) -> Trial:
    """Halve every width, widen every one, grow every exact knob and go back; see the fields of Trial."""
    start = time.thread_time()
    analysis = analyse(graph)
    elapsed = time.thread_time() - start
    problems: list[str] = []
    half, halved = _remapped(graph, analysis, factors(analysis, "x0.5"), "fna")
    problems += [f"halved: {what}" for what in _not_sound(halved, half, analysis)]
    wide, widened = _remapped(graph, analysis, factors(analysis, "x1.25"), "fna")
    problems += [f"widened: {what}" for what in _not_sound(widened, wide, analysis)]
    worst_narrowing = _narrowing(graph, analysis, problems)
    worst_growth = _growth(graph, analysis, problems)
    return Trial(
        nodes=len(analysis.view.nodes),
        params=analysis.cost.params,
        stages=tuple(len(stage.blocks) for stage in analysis.stages),
        knobs=len(analysis.knobs),
        frozen=sum(knob.growth == "frozen" for knob in analysis.knobs.values()),
        analyse_s=elapsed,
        left=analyse(halved, table=half.table).cost.params / analysis.cost.params,
        widened=analyse(widened, table=wide.table).cost.params / analysis.cost.params,
        worst_growth=worst_growth,
        worst_narrowing=worst_narrowing,
        covered=covered(analysis),
        problems=tuple(problems),
    )


def covered(analysis: Analysis) -> float:
    """The share of the parameters that lie in a tensor which an exact width knob changes."""
    tensors = {
        site.tensor
        for name, atom in analysis.atoms.items()
        if analysis.knobs[name].growth == "exact"
        for site in atom.sites
    }
    return sum(size for name, size in analysis.cost.tensor_params.items() if name in tensors) / analysis.cost.params


def exact_growth(analysis: Analysis) -> Spec:
    """Every knob that grows exactly, grown: widths × 1.25, depth + 1, kernels + 2."""
    return Spec(
        {
            name: GROWTH[knob.kind]
            for name, knob in analysis.knobs.items()
            if knob.growth == "exact" and knob.kind in GROWTH
        }
    )


def factors(analysis: Analysis, factor: str, *, exact: bool = False) -> Spec:
    wanted = ("exact",) if exact else ("exact", "approximate")
    return Spec(
        {name: factor for name, knob in analysis.knobs.items() if knob.kind == "width" and knob.growth in wanted}
    )


def _remapped(graph: gs.Graph, analysis: Analysis, spec: Spec, strategy: str) -> tuple[Plan, gs.Graph]:
    found = plan(analysis, spec, strategy=strategy)
    return found, apply(graph, found)


def _not_sound(target: gs.Graph, found: Plan, analysis: Analysis) -> list[str]:
    """The result passes the static check, runs, is finite, and its own Spec is the one resolved."""
    seen = view(target)
    sizes = {name: analysis.shapes.shapes[name] for name in seen.inputs if name in analysis.shapes.shapes}
    problems = [f"{f.where}: {f.message}" for f in errors(check(target, infer(seen, sizes).shapes))]
    outputs = run_inner(target, noise(analysis, 0), list(seen.outputs), "the target")
    problems += [f"output '{name}' is not finite" for name, values in outputs.items() if not np.isfinite(values).all()]
    wanted, own = found.resolved.spec().knobs, own_spec(analyse(target, table=found.table)).knobs
    different = [name for name in (*wanted, *own) if wanted.get(name) != own.get(name)]
    return problems + [
        f"its own Spec differs at '{name}': {own.get(name)}, not {wanted.get(name)}" for name in different[:3]
    ]


def _narrowing(graph: gs.Graph, analysis: Analysis, problems: list[str]) -> float:
    """Halving the exact widths equals the seed with the dropped channels' consumed columns zeroed, on all kept inner
    channels.
    """
    found, target = _remapped(graph, analysis, factors(analysis, "x0.5", exact=True), "fna")
    result = verify(graph, target, analysis, found)
    if result.first is not None:
        problems.append(
            f"narrowing differs from the masked seed at '{result.first.tensor}' by {result.first.relative:.1e}"
        )
    return result.worst


def _growth(graph: gs.Graph, analysis: Analysis, problems: list[str]) -> float:
    """Growing everything exact changes no inner value, and narrowing back gives every initializer bit for bit."""
    found, grown = _remapped(graph, analysis, exact_growth(analysis), "preserve")
    result = verify(graph, grown, analysis, found)
    if found.drifts:
        problems.append(f"exact growth is not: {found.drifts[0]}")
    if result.first is not None:
        problems.append(f"growth drifts at '{result.first.tensor}' by {result.first.relative:.1e}")
    problems += [f"grown: {what}" for what in _not_sound(grown, found, analysis)]
    again = analyse(grown, table=found.table)
    back = apply(grown, plan(again, Spec(own_spec(analysis).knobs)))
    problems += [
        f"'{name}' is not the seed's after growing and narrowing back"
        for name in different(normalise(graph).graph, back)[:3]
    ]
    return result.worst


def different(seed: gs.Graph, other: gs.Graph) -> Sequence[str]:
    before, after = _constants(seed), _constants(other)
    return [
        name
        for name in {**before, **after}
        if name not in before or name not in after or not _same(before[name], after[name])
    ]


def _constants(graph: gs.Graph) -> Mapping[str, np.ndarray]:
    seen = view(graph)
    return {name: seen.values(name) for name in seen.constants}


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
