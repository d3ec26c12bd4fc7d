"""Pure passes over ONNX graphs: analyse a convolutional network, plan another shape, apply the plan."""

from passes.errors import RefusedModel, UserError
from passes.network.analyse import analyse
from passes.network.analysis import Analysis, group_of
from passes.network.knobs import Knob
from passes.target.apply import apply
from passes.target.plan import Plan
from passes.target.planner import plan
from passes.target.resolve import own_spec, resolve
from passes.target.spec import Spec, parse
from passes.target.take import Take

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
