"""How each operator's axes relate: one row per operator.

A rule gets the node and the flow, and returns the label of its output (or a tuple, one per output): which axis carries channels, and which
channels. Weights it meets are recorded as sites, sizes as sizes. `None` means: no axis of the output follows a weight.
"""

from passes.rules.elementwise import NARY, UNARY
from passes.rules.moving import UNBOUNDED, regrouped
from passes.rules.reductions import REDUCTIONS
from passes.rules.table import ALL_INPUTS, RULES

__all__ = ["ALL_INPUTS", "NARY", "REDUCTIONS", "RULES", "UNARY", "UNBOUNDED", "regrouped"]
