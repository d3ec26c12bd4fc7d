"""Words for what a search speaks of; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping

from fnatool import terminal
from passes.space.costs import BY_NAME

BASELINES: Mapping[str, str] = {"seed": "the seed's own shape", "uniform": "all widths narrowed alike"}
"""What a baseline is, in words."""

PROBABILITIES = "probabilities"  # the kind of a row of the journal: BLOCK/NUMBER of a candidate → how likely it is
SKIPPED = "skipped"  # what a block is that is left out


def chosen_words(candidate: Mapping[str, int]) -> str:
    """'kernel 3, hidden 96'"""
    return ", ".join(f"{tail} {value}" for tail, value in candidate.items()) or "as in the seed"


def cost_text(kind: str, value: float) -> str:
    """'61.203M', '2.913 ms'"""
    how = BY_NAME[kind]
    return f"{value / how.units[how.shown]:.3f} {how.shown}" if how.shown else terminal.count(round(value))
