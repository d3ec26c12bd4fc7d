"""What came of comparing two models in ONNX Runtime, in a child process with limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import onnx_graphsurgeon as gs

from fnatool.files import model as files
from fnatool.runtime import isolate
from passes.channels.groups import keeps_function, regrouped_shape
from passes.check.graph import not_finite
from passes.errors import RefusedModel
from passes.graph.shapes import guessing, infer
from passes.graph.tensors import Shape
from passes.graph.view import view
from passes.network.analysis import Analysis
from passes.network.knobs import BATCH, CHANNELS
from passes.target.apply import apply
from passes.target.plan import Plan
from passes.target.take import Take

if TYPE_CHECKING:
    from fnatool.runtime.verify import Verification

P = ParamSpec("P")
T = TypeVar("T")

VERIFY_SECONDS = 600


def in_child(compare: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What the comparison returns in a child process with limits. Raises RefusedModel where it dies there."""
    try:
        return isolate.run(lambda: compare(*arguments, **named), seconds=VERIFY_SECONDS, memory=16 * isolate.GIB)
    except isolate.Died as error:
        raise RefusedModel(
            f"verification in ONNX Runtime died: {error}; --no-verify writes the result without it"
        ) from error


@dataclass(frozen=True)
class Verified:
    """What the comparison of inner values found: worst relative drift, the first tensor beyond the tolerance, how many
    were compared.

    `batch`: what came of comparing each sample of another batch with what it is alone (None: the batch is the seed's);
    `colours`: the same of other channels of the image. `whole`: how far the outputs are from the seed's, where the
    target lacks some of its channels or weights (None: it lacks none, or that is unknown). `blind`: tensors that hold
    no finite value in the seed; they are not among those compared.
    """

    worst: float
    first: tuple[str, str, float] | None
    compared: int
    tolerance: float
    exact: bool
    whole: float | None = None
    doubt: str = ""
    blind: tuple[str, ...] = ()
    batch: Verified | None = None
    colours: Verified | None = None

    def to_json(self) -> dict[str, object]:
        """What was compared; `whole` only where something of the seed's is gone, `batch` and `channels` where the
        inputs are others.
        """
        parts: dict[str, object] = {} if self.whole is None else {"whole": self.whole}
        for name, part in (("channels", self.colours), ("batch", self.batch)):
            if part is not None:
                parts[name] = {"worst": part.worst, "compared": part.compared}
        return {"worst": self.worst, "compared": self.compared, "tolerance": self.tolerance, **parts}

    @property
    def judged(self) -> str:
        """By what `first` was found to be too far."""
        if self.doubt:
            return (
                f"tolerance {self.tolerance:.0e}; rounding may be why, but double precision cannot tell: {self.doubt}"
            )
        in_double = "" if self.worst == float("inf") else ", and in double precision it drifts too"
        return f"tolerance {self.tolerance:.0e}{in_double}"


def verify_same(model: files.Model, target: files.Model, analysis: Analysis) -> Verified:
    """Inner values compared in a child process. Raises RefusedModel where one moved by more than rounding, naming the
    first.
    """
    require_finite(model)
    verified = in_child(compare, model.graph, target.graph, analysis)
    if verified.first is not None:
        tensor, node, drift = verified.first
        raise RefusedModel(
            f"the result must compute what the model does, but '{tensor}' of node '{node}' is the first to "
            f"drift, by {drift:.1e} of its "
            f"spread ({verified.judged}); nothing was written. Please report it with the model"
        )
    return verified


def require_finite(model: files.Model) -> None:
    """No weight is NaN or infinite, beside which nothing is compared. Raises RefusedModel, naming the first that is."""
    found = next(not_finite(model.graph), None)
    if found is not None:
        raise RefusedModel(
            f"{found.where} of the model: {found.message}, so there is nothing to compare the result with; "
            f"{found.fix} (--no-verify "
            "writes the result without a comparison)"
        )


def compare(before: gs.Graph, after: gs.Graph, analysis: Analysis) -> Verified:
    """What both graphs compute inside, on noise of the analysed sizes; for `in_child`, since ONNX Runtime may die of
    it.
    """
    from fnatool.runtime import verify

    with guessing(analysis.shapes):
        found = verify.compare(before, after, verify.noise(analysis, 0))
    return _in_words(found)


def verify_remap(model: files.Model, target: files.Model, analysis: Analysis, found: Plan) -> Verified:
    """Compare inner values in a child process. Raises RefusedModel where a remap that must be exact is not, naming the
    first tensor.

    A target for another image size is compared as it would be for the seed's.
    """
    require_finite(model)
    batch = None if found.unbatched is None else _verify_batch(model, target, analysis, found)
    colours = None if found.uncoloured is None else _verify_colours(model, analysis, found)
    own = batch if colours is None else colours
    if own is not None and found.compared is not None and found.compared.identity:
        return replace(own, batch=batch, colours=colours)
    compared = found if found.compared is None else found.compared
    if compared is not found:
        target = replace(target, graph=apply(analysis.normal or model.graph, compared))
    verified = in_child(_verify, model, target, analysis, compared)
    _require_as_promised(verified, "this remap")
    return replace(verified, batch=batch, colours=colours)


def _require_as_promised(verified: Verified, what: str) -> None:
    """The result is finite, and the same where it must be. Raises RefusedModel, naming the first tensor that is not."""
    if verified.worst == float("inf"):
        raise RefusedModel(
            "the result computes infinities or NaN where the seed does not; nothing was written (--no-verify writes it)"
        )
    if verified.exact and verified.first is not None:
        tensor, node, drift = verified.first
        raise RefusedModel(
            f"{what} must be exact but is not: '{tensor}' of node '{node}' is the first to drift, by "
            f"{drift:.1e} of its spread "
            f"({verified.judged}); nothing was written. Please report it with the model"
        )


def _verify_colours(model: files.Model, analysis: Analysis, found: Plan) -> Verified:
    """The network with other channels of the image compared with what it was, in a child process.

    Raises RefusedModel where it must compute the same and does not, naming the first tensor.
    """
    verified = in_child(_colours, model, analysis, found)
    _require_as_promised(verified, f"'{CHANNELS}'")
    return verified


def _colours(model: files.Model, analysis: Analysis, found: Plan) -> Verified:
    """In the child."""
    from fnatool.runtime.colours import verify_colours
    from passes.target.input_axes import with_colours

    single, asked = found.uncoloured, found.recolouring
    assert single is not None
    assert asked is not None
    before = apply(analysis.normal or model.graph, single)
    coloured = found if found.unbatched is None else found.unbatched
    after = with_colours(before, coloured, single)
    sizes = {name: single.sizes[name] for name in analysis.view.inputs if name in single.sizes}
    sized = replace(analysis, shapes=replace(analysis.shapes, shapes={**analysis.shapes.shapes, **sizes}))
    with guessing(analysis.shapes):
        return _in_words(verify_colours(before, after, sized, asked, exact=len(coloured.drifts) == len(single.drifts)))


def _verify_batch(model: files.Model, target: files.Model, analysis: Analysis, found: Plan) -> Verified:
    """Each sample compared with itself alone, in a child process. Raises RefusedModel where one differs, naming the
    first tensor.
    """
    verified = in_child(_batches, model, target, analysis, found)
    if verified.first is not None:
        tensor, node, drift = verified.first
        raise RefusedModel(
            f"'{BATCH}': a sample is not what it is alone: '{tensor}' of node '{node}' is the first to drift, "
            f"by {drift:.1e} of its spread "
            f"({verified.judged}), so the samples are not computed each by itself; nothing was written"
        )
    return verified


def _batches(model: files.Model, target: files.Model, analysis: Analysis, found: Plan) -> Verified:
    """In the child."""
    from fnatool.runtime.batches import verify_batch
    from passes.batch.rebatched import rebatched

    assert found.unbatched is not None
    before = apply(analysis.normal or model.graph, found.unbatched)
    sizes = {name: found.unbatched.sizes[name] for name in analysis.view.inputs if name in found.unbatched.sizes}
    sized = replace(analysis, shapes=replace(analysis.shapes, shapes={**analysis.shapes.shapes, **sizes}))
    with guessing(analysis.shapes):
        made = rebatched(view(before), infer(view(before), sizes or None), found.resolved.batch)
        result = verify_batch(before, target.graph, made, sized, found.resolved.batch)
    return _in_words(result)


def _verify(model: files.Model, target: files.Model, analysis: Analysis, found: Plan) -> Verified:
    """In the child."""
    from fnatool.runtime import verify

    with guessing(analysis.shapes):
        result = verify.verify(model.graph, target.graph, analysis, found)
        known = not set(result.blind) & set(analysis.view.outputs)
        whole = (
            verify.drift_of_whole(model.graph, target.graph, analysis, found)
            if known and drops(analysis, found)
            else None
        )
    return replace(_in_words(result), whole=whole)


def _in_words(found: Verification) -> Verified:
    first = found.first
    row = None if first is None else (first.tensor, first.node, first.relative)
    compared = sum(drift.tensor not in found.blind for drift in found.drifts)
    return Verified(found.worst, row, compared, found.tolerance, found.exact, doubt=found.doubt, blind=found.blind)


def drops(analysis: Analysis, found: Plan) -> bool:
    """Whether the target lacks channels or weights between groups that the seed has."""
    return any(_crops(take, analysis.shapes.shapes[take.source]) for take in found.takes)


def _crops(take: Take, shape: Shape) -> bool:
    groups = take.regroup
    if groups is not None and not keeps_function(groups.seed, groups.target):
        return True
    shape = shape if groups is None else regrouped_shape(shape, groups.seed, groups.ground)
    return any(len(set(along.index[along.index >= 0].tolist())) < shape[axis] for axis, along in take.axes.items())
