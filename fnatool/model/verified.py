"""What came of comparing two models in ONNX Runtime, in a child process with limits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_graphsurgeon as gs

from fnatool.files import model as files
from fnatool.runtime import isolate
from passes.channels.groups import keeps_function, regrouped_shape
from passes.errors import RefusedModel
from passes.graph.shapes import guessing
from passes.graph.tensors import Shape
from passes.network.analysis import Analysis
from passes.target.apply import apply
from passes.target.plan import Plan
from passes.target.take import Take

# --- verified ---------------------------------------------------------------------------------------------------------------------------


def _verified(model: files.Model, target: files.Model, analysis: Analysis) -> Verified:
    """Inner values compared in a child process. Raises RefusedModel where one moved by more than rounding, naming the first."""
    try:
        verified = isolate.run(_compare, model.graph, target.graph, analysis, seconds=VERIFY_SECONDS, memory=16 * isolate.GIB)
    except isolate.Died as error:
        raise RefusedModel(f"verification in ONNX Runtime died: {error}; --no-verify writes the result without it") from error
    if verified.first is not None:
        tensor, node, drift = verified.first
        raise RefusedModel(
            f"the result must compute what the model does, but '{tensor}' of node '{node}' is the first to drift, by {drift:.1e} of its "
            f"spread ({verified.judged}); nothing was written. Please report it with the model"
        )
    return verified


def _compare(before: gs.Graph, after: gs.Graph, analysis: Analysis) -> Verified:
    """In the child."""
    from fnatool.runtime.verify import compare, noise

    with guessing(analysis.shapes):
        result = compare(before, after, noise(analysis, 0))
    first = result.first
    row = None if first is None else (first.tensor, first.node, first.relative)
    return Verified(result.worst, row, len(result.drifts), result.tolerance, exact=True, doubt=result.doubt)


VERIFY_SECONDS = 600


@dataclass(frozen=True)
class Verified:
    """What the comparison of inner values found: worst relative drift, the first tensor beyond the tolerance, how many were compared.

    `whole`: how far the outputs are from the seed's, where the target lacks some of its channels or weights (None: it lacks none).
    """

    worst: float
    first: tuple[str, str, float] | None
    compared: int
    tolerance: float
    exact: bool
    whole: float | None = None
    doubt: str = ""

    @property
    def judged(self) -> str:
        """By what `first` was found to be too far."""
        if self.doubt:
            return f"tolerance {self.tolerance:.0e}; rounding may be why, but double precision cannot tell: {self.doubt}"
        in_double = "" if self.worst == float("inf") else ", and in double precision it drifts too"
        return f"tolerance {self.tolerance:.0e}{in_double}"


def verify_remap(model: files.Model, target: files.Model, analysis: Analysis, found: Plan) -> Verified:
    """Compare inner values in a child process. Raises RefusedModel where a remap that must be exact is not, naming the first tensor.

    A target for another image size is compared as it would be for the seed's.
    """
    compared = found if found.compared is None else found.compared
    if compared is not found:
        target = replace(target, graph=apply(model.graph, compared))
    try:
        verified = isolate.run(_verify, model, target, analysis, compared, seconds=VERIFY_SECONDS, memory=16 * isolate.GIB)
    except isolate.Died as error:
        raise RefusedModel(f"verification in ONNX Runtime died: {error}; --no-verify writes the result without it") from error
    if verified.worst == float("inf"):
        raise RefusedModel("the result computes infinities or NaN where the seed does not; nothing was written (--no-verify writes it)")
    if verified.exact and verified.first is not None:
        tensor, node, drift = verified.first
        raise RefusedModel(
            f"this remap must be exact but is not: '{tensor}' of node '{node}' is the first to drift, by {drift:.1e} of its spread "
            f"({verified.judged}); nothing was written. Please report it with the model"
        )
    return verified


def _verify(model: files.Model, target: files.Model, analysis: Analysis, found: Plan) -> Verified:
    from fnatool.runtime.verify import drift_of_whole, verify

    with guessing(analysis.shapes):
        result = verify(model.graph, target.graph, analysis, found)
        whole = drift_of_whole(model.graph, target.graph, analysis, found) if drops(analysis, found) else None
    first = result.first
    row = None if first is None else (first.tensor, first.node, first.relative)
    return Verified(result.worst, row, len(result.drifts), result.tolerance, result.exact, whole, result.doubt)


def drops(analysis: Analysis, found: Plan) -> bool:
    """Whether the target lacks channels or weights between groups that the seed has."""
    return any(_crops(take, analysis.shapes.shapes[take.source]) for take in found.takes)


def _crops(take: Take, shape: Shape) -> bool:
    groups = take.regroup
    if groups is not None and not keeps_function(groups.seed, groups.target):
        return True
    shape = shape if groups is None else regrouped_shape(shape, groups.seed, groups.ground)
    return any(len(set(along.index[along.index >= 0].tolist())) < shape[axis] for axis, along in take.axes.items())
