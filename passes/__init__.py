"""Pure passes over ONNX graphs: analyse a convolutional network, plan another shape, apply the plan."""

from passes.analysis import Analysis, Knob, analyse, group_of
from passes.errors import RefusedModel, UserError
from passes.plan import Plan, apply, plan
from passes.spec import Spec, own_spec, parse, resolve
from passes.take import Take

__all__ = [
    "Analysis",
    "Knob",
    "Plan",
    "RefusedModel",
    "Spec",
    "Take",
    "UserError",
    "analyse",
    "apply",
    "group_of",
    "own_spec",
    "parse",
    "plan",
    "resolve",
]
