"""A model in another shape: analyse, plan, apply, verify; and how the result is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fnatool.files import model as files
from fnatool.files.copying import copy
from fnatool.files.interface import Inputs, named_shapes
from fnatool.model.analysed import SPEC_KEY, STAGES_KEY, analyse_model, metadata, require_seed
from fnatool.model.recoloured import recoloured_metadata
from fnatool.model.refit_result import Refit
from fnatool.model.verified import Verified, verify_remap
from passes.network.analyse import analyse
from passes.network.analysis import Analysis
from passes.network.cost import Cost
from passes.network.knobs import kind_of
from passes.target.apply import apply
from passes.target.assigned import with_knobs
from passes.target.plan import Plan, planned_cost
from passes.target.planner import plan
from passes.target.spec import Spec, Value


@dataclass(frozen=True, kw_only=True)
class RemapOptions:
    """How to remap: see `passes.plan`; `knobs` are set on top of the spec; `multiple` is what a width that a factor
    gives is one of.

    `inputs` gives shapes for free dimensions, `verify` runs the check of inner values.

    `refit` is a folder of pictures, or of arrays for the inputs, without labels: layers that lost something are solved
    anew against the seed (see `fnatool.model.refit`), from at most `refit_samples` of them, drawn with `seed`; mean,
    scale and channels say how pixels become inputs, as in HeadOptions; `skip_bad` leaves out what cannot be read.

    `seed` is for the noise of fresh weights too: the same seed gives the same bytes. `report` is where what happened to
    every tensor is written as JSON; `force` lets both files replace others (never the seed, nor the spec).
    """

    knobs: Mapping[str, Value] = field(default_factory=dict)
    multiple: int = 1
    strategy: str = "fna"
    select: str = "first"
    seed: int = 0
    allow_drift: bool = False
    verify: bool = True
    inputs: Inputs = None
    report: Path | None = None
    force: bool = False
    refit: Path | str | None = None
    refit_samples: int = 1000
    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    channels: str | None = None
    skip_bad: bool = False


@dataclass(frozen=True)
class Remapped:
    """A finished remap: the target's model, the plan that made it, the seed's analysis, and what verification found
    (None: not run).

    What was verified is the remap before layers were solved anew; `refit` says what came of that (None: not asked for).
    """

    model: files.Model
    plan: Plan
    analysis: Analysis
    seed: files.Model
    verified: Verified | None
    refit: Refit | None = None

    def cost(self) -> Cost:
        """Parameters and multiply-adds of the result, at its image size; where that is free, at the size the seed was
        analysed with.
        """
        return planned_cost(self.plan, self.analysis)

    def write(self, path: Path | str, *, force: bool = False, beside: Mapping[Path, str] | None = None) -> None:
        """The result as a file, and texts beside it, atomically; the seed itself, byte for byte, where nothing
        changes.
        """
        if self.plan.identity:
            copy(self.seed, Path(path), force=force, beside=beside)
            return
        files.write(self.model, path, force=force, beside=beside)


def remap_model(model: files.Model, spec: Spec, options: RemapOptions, *, analysis: Analysis | None = None) -> Remapped:
    """The model in the shape of the spec, verified unless told otherwise; analysis: of the model at these inputs, if
    there is one.

    No layer is solved anew, whatever the options say. Raises UserError and RefusedModel as `fnatool.remap` does.
    """
    spec = with_knobs(spec, options.knobs)
    require_seed(spec, model)
    if analysis is None:
        analysis = analyse_model(
            model, named_shapes(options.inputs, [tensor.name for tensor in model.graph.inputs]) or None
        )
    found = plan(
        analysis,
        spec,
        strategy=options.strategy,
        select=options.select,
        seed=options.seed,
        allow_drift=options.allow_drift,
        multiple=options.multiple,
    )
    target = replace(model, graph=apply(analysis.normal or model.graph, found), notes=())
    verified = None
    if options.verify and not found.identity:
        verified = verify_remap(model, target, analysis, found)
    if found.identity:
        return Remapped(model, found, analysis, model, verified)
    pixels = _pixels(model, analysis, found)
    gone = [key for key, text in pixels.items() if text is None]
    channels = found.resolved.channels
    notes = [f"its record of the task ('{key}') is gone: no task takes pictures of {channels} channels" for key in gone]
    found = replace(found, notes=(*found.notes, *notes))
    return Remapped(_with_spec(target, found, pixels), found, analysis, model, verified)


def _pixels(model: files.Model, analysis: Analysis, found: Plan) -> dict[str, str | None]:
    """What the metadata say of pixels, where the image has other channels."""
    old, new = analysis.colours.value, found.resolved.channels
    return {} if old is None or new is None or old == new else recoloured_metadata(metadata(model.envelope), old, new)


def _recorded(target: files.Model, found: Plan) -> Spec:
    """The Spec without groups that the target cannot have others of: a convolution that reads one channel now has no
    such knob.
    """
    spec = found.resolved.spec(f"sha256:{target.sha256}")
    if found.recolouring is None:
        return spec
    known = analyse(target.graph, table=found.table).knobs
    return replace(
        spec, knobs={key: value for key, value in spec.knobs.items() if kind_of(key) != "groups" or key in known}
    )


def _with_spec(target: files.Model, found: Plan, said: Mapping[str, str | None]) -> files.Model:
    """The target says which stages it has, and what Spec of which seed it is; and what else is said."""
    own = {STAGES_KEY: json.dumps(found.table), SPEC_KEY: json.dumps(_recorded(target, found).to_json())}
    return files.with_metadata(target, {**said, **own}, found.origin())
