"""Remap a file: read, analyse, plan, apply, verify, write. The order of `fnatool remap`, and the Python API of the same words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fnatool import seeds, specs
from fnatool.files import model as files
from fnatool.files.atomic import replacing, require_writable
from fnatool.model.analysed import SPEC_KEY, STAGES_KEY, analyse_model, read_spec, require_seed
from fnatool.model.verified import Verified, verify_remap
from passes.errors import UserError
from passes.graph.tensors import Shape
from passes.network.analysis import Analysis
from passes.network.cost import Cost
from passes.target.apply import apply
from passes.target.plan import Plan, planned_cost
from passes.target.planner import plan
from passes.target.spec import Spec, parse


@dataclass(frozen=True)
class RemapOptions:
    """How to remap: see `passes.plan`; `inputs` gives shapes for free dimensions, `verify` runs the check of inner values."""

    strategy: str = "fna"
    select: str = "first"
    seed: int = 0
    allow_drift: bool = False
    verify: bool = True
    inputs: Mapping[str, Shape] | None = None


@dataclass(frozen=True)
class Remapped:
    """A finished remap: the target's model, the plan that made it, the seed's analysis, and what verification found (None: not run)."""

    model: files.Model
    plan: Plan
    analysis: Analysis
    seed: files.Model
    verified: Verified | None

    def cost(self) -> Cost:
        """Parameters and multiply-adds of the result, at its image size; where that is free, at the size the seed was analysed with."""
        return planned_cost(self.plan, self.analysis)

    def write(self, path: Path | str, *, force: bool = False, beside: Mapping[Path, str] | None = None) -> None:
        """The result as a file, and texts beside it, atomically; the seed itself, byte for byte, where nothing changes."""
        if self.plan.identity:
            copy(self.seed, Path(path), force=force, beside=beside)
            return
        resolved = self.plan.resolved.spec(f"sha256:{self.seed.sha256}").to_json()
        metadata = {STAGES_KEY: json.dumps(self.plan.table), SPEC_KEY: json.dumps(resolved)}
        files.write(self.model, path, force=force, metadata=metadata, origin=self.plan.origin(), beside=beside)


def remap(
    seed: Path | str, spec: Spec | Mapping[str, object] | Path | str, out: Path | str | None = None, *, options: RemapOptions | None = None
) -> Remapped:
    """The seed in the shape the spec asks for, with what it knows; written to `out` if given (never over an existing file).

    seed: a path, or the name of the bundled seed; spec: a Spec, its JSON document, the path of one, or the name of a bundled one. Raises
    UserError for a wrong spec or path, RefusedModel for a model that cannot be remapped safely or whose result fails verification.
    """
    options = options or RemapOptions()
    model = files.read(seeds.bundled(str(seed)) or seed if not Path(seed).exists() else seed, options.inputs)
    if out is not None:
        require_writable(Path(out), force=False, forbid=(model.path, *model.data))
    if isinstance(spec, (Spec, Mapping)):
        made = remap_model(model, spec if isinstance(spec, Spec) else parse(spec), options)
    else:
        path = specs.find(spec)
        with specs.fitting(path):
            made = remap_model(model, read_spec(path), options)
    if out is not None:
        made.write(out)
    return made


def remap_model(model: files.Model, spec: Spec, options: RemapOptions) -> Remapped:
    """The same on a model already read."""
    require_seed(spec, model)
    analysis = analyse_model(model, options.inputs)
    found = plan(analysis, spec, strategy=options.strategy, select=options.select, seed=options.seed, allow_drift=options.allow_drift)
    target = replace(model, graph=apply(model.graph, found), notes=())
    verified = None
    if options.verify and not found.identity:
        verified = verify_remap(model, target, analysis, found)
    return Remapped(target, found, analysis, model, verified)


def copy(seed: files.Model, path: Path, *, force: bool, beside: Mapping[Path, str] | None = None) -> None:
    """The file at path has the bytes of the seed's, those in `beside` their texts: all of them or, after any failure, none.

    Raises UserError as files.write does, and where the weights lie beside the seed.
    """
    texts = dict(beside or {})
    for place in (path, *texts):
        require_writable(place, force=force, forbid=(seed.path, *seed.data))
    if seed.data:
        raise UserError(f"nothing changes, and '{seed.path}' keeps its weights in other files; copy it together with them")
    with replacing(path, *texts, force=force) as (target, *others), seed.path.open("rb") as source:
        for other, text in zip(others, texts.values(), strict=True):
            other.write(text.encode())
        shutil.copyfileobj(source, target)
