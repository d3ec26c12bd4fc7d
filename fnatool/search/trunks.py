"""The ways the widths outside blocks may be, which are chosen all at once: what each leaves to choose, and what that
costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fnatool.search.sampling import Member
from fnatool.search.solver import Budget
from passes.errors import UserError
from passes.network.analysis import Analysis
from passes.space.costs import Table, cost_tables, extremes
from passes.space.space import Choices, trunk_share

KNOBS = "**.width"  # how reports call the widths outside blocks


@dataclass(frozen=True)
class Trunk:
    """One way, by its number in the space: the choices with these widths, what they cost, and how wide it is beside the
    seed's.
    """

    number: int
    choices: Choices
    tables: Mapping[str, Table]
    share: float = 1.0

    def within(self, budgets: Sequence[Budget]) -> list[Budget]:
        """The same budgets for members with this trunk."""
        return [replace(budget, table=self.tables[budget.kind]) for budget in budgets]

    def keeps(self, budgets: Sequence[Budget]) -> bool:
        """Whether its cheapest member keeps every one of them."""
        return all(extremes(budget.table, self.choices)[0] <= budget.limit for budget in self.within(budgets))


@dataclass(frozen=True)
class Pick:
    """A member with its trunk."""

    trunk: Trunk
    member: Member


def trunks_of(analysis: Analysis, found: Choices) -> tuple[tuple[Trunk, ...], dict[str, str]]:
    """All trunks of the choices with what they cost, and why others of them cannot be.

    Raises UserError where the first of them cannot, or a free image size leaves multiply-adds open.
    """
    made, refused = [], {}
    for number in range(len(found.trunks)):
        share = trunk_share(analysis, found, number)
        try:
            made.append(Trunk(number, found.at(number), cost_tables(analysis, found.at(number)), share))
        except UserError as error:
            if not number:
                raise
            refused[f"{KNOBS} ×{share:.3g}"] = str(error)
    return tuple(made), refused


def extremes_of(trunks: Sequence[Trunk], kind: str) -> tuple[int, int]:
    """The costs of the cheapest and the dearest member of all whose costs of that kind are known."""
    found = [extremes(trunk.tables[kind], trunk.choices) for trunk in trunks if kind in trunk.tables]
    return min(low for low, _ in found), max(high for _, high in found)


def require_cheap(trunks: Sequence[Trunk], budgets: Sequence[Budget]) -> None:
    """Every budget by itself is kept by some member. Raises UserError."""
    for budget in budgets:
        low, _ = extremes_of(trunks, budget.kind)
        if budget.limit < low:
            raise UserError(
                f"the smallest member of this space has {low:,} {budget.kind}, the budget allows {budget.limit:,}"
            )
