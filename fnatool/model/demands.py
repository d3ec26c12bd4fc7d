"""What is asked of a model beyond being valid: a seed's inputs and outputs, a Spec, and what it may cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx

from fnatool.files import model as files
from fnatool.files.interface import free_inputs, signature
from fnatool.model.analysed import Analysed, declared, unrealised
from passes.check.finding import Finding
from passes.errors import RefusedModel
from passes.graph.tensors import Shape
from passes.target.spec import Spec


@dataclass(frozen=True)
class Demands:
    """What is asked, with the seed that the model is held against read but not yet looked at.

    `inputs`: shapes of dynamic inputs; `multiple`: what widths are to be multiples of.
    """

    against: files.Raw | None
    spec: Spec | None
    max_macs: int | None
    max_params: int | None
    inputs: Mapping[str, Shape]
    multiple: int | None = None

    @cached_property
    def seed(self) -> Analysed | None:
        """The seed as a network. Raises RefusedModel where it is none."""
        return None if self.against is None else Analysed(files.of_raw(self.against, self.inputs), self.inputs)


def unmet(raw: files.Raw, demands: Demands) -> Iterator[Finding]:
    """A finding for every demand that the model in a file does not meet, or that cannot be measured."""
    if demands.against is not None:
        yield from same_interface(raw.proto, _expected(demands.against, demands))
    if demands.spec is None and demands.max_macs is None and demands.max_params is None and demands.multiple is None:
        return
    try:
        model = Analysed(files.of_raw(raw, demands.inputs), demands.inputs)
    except RefusedModel as error:
        yield Finding("error", "refused", "model", f"what the options demand cannot be measured: {error}")
        return
    if demands.spec is not None:
        yield from _as_specified(model, demands.spec, demands)
    if demands.multiple is not None:
        yield from _wasteful(model, demands.multiple)
    if demands.max_macs is not None or demands.max_params is not None:
        yield from _within_budget(model, demands)


def _expected(seed: files.Raw, demands: Demands) -> onnx.ModelProto:
    """The seed's message; its inputs and outputs have the sizes that the spec demanded gives them."""
    proto, spec = onnx.ModelProto(), demands.spec
    proto.CopyFrom(seed.proto)
    try:
        sizes = {} if spec is None or demands.seed is None else declared(demands.seed, spec)
    except RefusedModel:  # the spec cannot be compared with then, and that finding says so
        return proto
    inputs = {value.name for value in proto.graph.input}
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, size in sizes.get(value.name, {}).items():
            dim = value.type.tensor_type.shape.dim[axis]
            if not isinstance(size, int):
                dim.Clear()
            elif value.name in inputs or dim.HasField("dim_value") or axis == 0:
                dim.dim_value = size
    return proto


def _as_specified(model: Analysed, spec: Spec, demands: Demands) -> Iterator[Finding]:
    try:
        differences = unrealised(model, spec, demands.seed)
    except RefusedModel as error:
        yield Finding("error", "refused", "model", f"it cannot be compared with the spec: {error}")
        return
    for difference in differences:
        fix = "" if "--against" in difference else "'fnatool remap SEED --spec SPEC -o OUT' writes a model that is"
        yield Finding("error", "spec", "model", difference, fix)


def _wasteful(model: Analysed, multiple: int) -> Iterator[Finding]:
    """A warning of each width that could be another one and is no multiple."""
    try:
        knobs = model.analysis.knobs
    except RefusedModel as error:
        yield Finding("error", "refused", "model", f"its widths are not known: {error}")
        return
    for knob in knobs.values():
        more = -(-knob.value // multiple) * multiple
        if knob.kind == "width" and knob.growth != "frozen" and knob.value != more:
            below = knob.value // multiple * multiple
            message = f"{knob.value} channels cost as much as {more} where {multiple} are computed at a time"
            near = [
                str(value) for value in (below, more) if knob.min <= value <= knob.max and value % knob.multiple == 0
            ]
            fix = (
                f"'fnatool remap --set {knob.name}={near[0]}'" + (f", or {near[1]}" if len(near) > 1 else "")
                if near
                else ""
            )
            yield Finding("warning", "width", f"'{knob.name}'", message, fix)


def _within_budget(model: Analysed, demands: Demands) -> Iterator[Finding]:
    try:
        cost = model.analysis.cost
    except RefusedModel as error:
        yield Finding("error", "refused", "model", f"its cost cannot be measured: {error}")
        return
    if demands.max_params is not None and cost.params > demands.max_params:
        message = f"it has {cost.params:,} parameters, {demands.max_params:,} are allowed"
        yield Finding("error", "max-params", "model", message, NARROW)
    if demands.max_macs is None:
        return
    if cost.macs is None:
        message = "its multiply-accumulates depend on dynamic axes"
        yield Finding("error", "max-macs", "model", message, "say the sizes with --input NAME=1x3x224x224")
    elif cost.macs > demands.max_macs:
        message = f"it takes {cost.macs:,} multiply-accumulates, {demands.max_macs:,} are allowed"
        yield Finding("error", "max-macs", "model", message, NARROW)


NARROW = "'fnatool profile' shows where they are, 'fnatool remap' makes it narrower or less deep"


def same_interface(model: onnx.ModelProto, seed: onnx.ModelProto) -> Iterator[Finding]:
    """Findings where model's inputs and outputs differ from seed's: name, order, type, shape (any two dynamic axes are
    alike).
    """
    sides = (
        ("input", free_inputs(model), free_inputs(seed)),
        ("output", list(model.graph.output), list(seed.graph.output)),
    )
    for kind, ours, theirs in sides:
        wanted = {value.name: value for value in theirs}
        names = [value.name for value in ours]
        for name in wanted:
            if name not in names:
                message, fix = "the seed has it, the model has not", "add it, or give the one in its place this name"
                yield Finding("error", "interface", f"{kind} '{name}'", message, fix)
        for value in ours:
            if value.name not in wanted:
                message, fix = "the model has it, the seed has not", "remove it, or give it the seed's name"
                yield Finding("error", "interface", f"{kind} '{value.name}'", message, fix)
            elif (here := signature(value)) != (there := signature(wanted[value.name])):
                yield Finding(
                    "error",
                    "interface",
                    f"{kind} '{value.name}'",
                    f"it is {here}, the seed's is {there}",
                    "export it like that",
                )
        if sorted(names) == sorted(wanted) and names != list(wanted):
            message = f"their order is {', '.join(names)}, the seed's {', '.join(wanted)}"
            yield Finding("error", "interface", f"{kind}s", message, "list them in the seed's order")
