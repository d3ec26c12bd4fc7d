"""How each operator's axes relate: one row per operator.

A rule gets the node and the flow, and returns the label of its output (or a tuple, one per output): which axis carries channels, and which
channels. Weights it meets are recorded as sites, sizes as sizes. `None` means: no axis of the output follows a weight.
"""

from passes.channels.rules.elementwise import UNARY
from passes.channels.rules.moving import UNBOUNDED, regrouped
from passes.channels.rules.reductions import REDUCTIONS
from passes.channels.rules.table import ALL_INPUTS, RULES
from passes.graph.broadcasting import NARY

__all__ = ["ALL_INPUTS", "NARY", "REDUCTIONS", "RULES", "UNARY", "UNBOUNDED", "regrouped"]
