"""The largest number within a budget."""

from __future__ import annotations

from collections.abc import Callable


class OverBudget(Exception):
    """Nothing that a row can do keeps the budget: why."""


def largest(cost: Callable[[int], int], limit: int, low: int, high: int) -> int:
    """The largest whole number from low to high whose cost is within the limit, where cost grows with it. Raises
    OverBudget for none.

    Where cost does not always grow, one whose successor, or some number before it, costs more.
    """
    least = cost(low)
    if least > limit:
        raise OverBudget(f"the least it can cost is {least:,}, and the budget is {limit:,}")
    if cost(high) <= limit:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if cost(middle) <= limit:
            low = middle
        else:
            high = middle
    return low
