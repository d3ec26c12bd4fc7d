"""Everything that is wrong with a model file, and what it is not that was asked of it, in one report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from fnatool import seeds, specs
from fnatool.files import model as files
from fnatool.files.atomic import temporary, write_text
from fnatool.files.interface import Inputs, free_inputs, named_shapes
from fnatool.model.analysed import read_spec, spec_of
from fnatool.model.demands import Demands, unmet
from fnatool.model.faults import STEP_SECONDS, find_faults
from fnatool.model.source import Source
from fnatool.model.targets import TARGETS, for_target
from passes.check.finding import CODES as STATIC_CODES
from passes.check.finding import Finding, errors
from passes.errors import RefusedModel, UserError
from passes.target.assigned import with_knobs
from passes.target.spec import Spec, Value

Json = dict[str, object]

CODES: Mapping[str, str] = {
    **STATIC_CODES,
    "batch": "the batch is declared free, but samples are not computed each by itself",
    "engine-not-parsed": "nothing here can say whether the target parses the model",
    "engine-parse": "the parser of the target rejects the model",
    "checker": "the ONNX checker rejects the model",
    "checker-died": "the ONNX checker crashes on the model",
    "interface": "inputs or outputs are not those of the seed",
    "max-macs": "the model takes more multiply-accumulates than allowed",
    "max-params": "the model has more parameters than allowed",
    "not-run": "the model could not be run here",
    "output-not-finite": "an output is NaN or infinite on random input",
    "output-shape": "an output does not have the shape it is declared with",
    "refused": "the model cannot be measured against what is demanded",
    "run": "the model does not run in ONNX Runtime",
    "shape-inference": "strict shape inference finds a contradiction",
    "shape-inference-died": "shape inference crashes on the model",
    "spec": "the model is not what the spec says",
    "width": "a width is no multiple of what was asked for: a device fills it up",
    "unreadable": "the file is not an ONNX model, or has what cannot be read",
}
"""code of a finding → what it means, in a line."""


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """What is asked of a model beyond being valid.

    `against`: the seed whose inputs and outputs it must have; `spec`: what it must realise, a Spec, its JSON document,
    the path of one, or the name of a bundled one, on top of which `knobs` are set; `multiple`: what widths are to be
    multiples of, so that a device wastes nothing (others are warned of); `max_macs` and `max_params`: what it may cost
    at most; `target`: what an engine of it is to be for, of TARGETS; `inputs`: shapes of dynamic inputs; `seconds` of
    processor time for each step that runs in a process of its own.
    """

    against: Path | str | None = None
    spec: Spec | Mapping[str, object] | Path | str | None = None
    knobs: Mapping[str, Value] = field(default_factory=dict)
    multiple: int | None = None
    max_macs: int | None = None
    max_params: int | None = None
    target: str | None = None
    inputs: Inputs = None
    seconds: float = STEP_SECONDS


@dataclass(frozen=True)
class Report:
    """All findings on one file, errors first."""

    model: Path
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing found is an error."""
        return not errors(self.findings)

    def to_json(self) -> Json:
        """For programs: `model`, `passed` and `findings`."""
        return {
            "model": str(self.model),
            "passed": self.passed,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def write(self, path: Path | str, *, force: bool = False) -> None:
        """The same as a JSON file."""
        write_text(Path(path), json.dumps(self.to_json(), indent=2) + "\n", force=force)


def check(model: Source, *, options: CheckOptions | None = None) -> Report:
    """The report on a model (a path, the bundled seed's name, or a model in memory, which is looked at as it would be
    written).

    The static rules, the ONNX checker, strict shape inference and a run in ONNX Runtime, then what the options demand.
    Raises UserError where there is no such file, or an option does not fit the model; whatever is wrong with the model
    itself is a finding.
    """
    options = options or CheckOptions()
    if options.target not in (None, *TARGETS):
        raise UserError(f"'{options.target}' is no target; there are {', '.join(TARGETS)}")
    if isinstance(model, files.Model):
        with temporary() as folder:
            files.write(model, folder / model.path.name)
            return replace(_report(folder / model.path.name, options), model=model.path)
    return _report(seeds.find(model), options)


def _report(path: Path, options: CheckOptions) -> Report:
    try:
        raw = files.load(path)
    except RefusedModel as error:
        return Report(path, (Finding("error", "unreadable", "file", str(error).removeprefix(f"'{path}': ")),))
    inputs = named_shapes(options.inputs, [value.name for value in free_inputs(raw.proto)])
    findings = find_faults(raw, inputs, options.seconds)
    findings += unmet(raw, _demands(options, inputs))
    if options.target is not None:
        findings += for_target(raw, options.target)
    rank = {"error": 0, "warning": 1, "note": 2}
    return Report(path, tuple(sorted(dict.fromkeys(findings), key=lambda finding: rank[finding.severity])))


def _demands(options: CheckOptions, inputs: Mapping[str, tuple[int, ...]]) -> Demands:
    against = None if options.against is None else files.load(seeds.find(options.against))
    spec = options.spec
    wanted = (
        None if spec is None else spec_of(spec) if isinstance(spec, Spec | Mapping) else read_spec(specs.find(spec))
    )
    wanted = with_knobs(wanted, options.knobs) if options.knobs else wanted
    return Demands(against, wanted, options.max_macs, options.max_params, inputs, multiple=options.multiple)
