"""Budgets in words: `madds=200M`, `latency=3ms`, or a share of what the seed costs, `madds=0.6x`, `latency=70%`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from passes.errors import UserError
from passes.space.costs import BY_NAME, KINDS

TIMES = ("x", "×")


@dataclass(frozen=True)
class AskedBudget:
    """A limit as it was asked for: of a kind of cost, in units of its tables, or as a share of what the seed costs with
    its head.
    """

    text: str
    kind: str
    amount: float
    relative: bool = False

    def limit(self, own: int | None) -> int:
        """In units of the tables; own: what the seed costs, if that is known. Raises UserError where it is needed and
        not known.
        """
        if not self.relative:
            return int(self.amount)
        if own is None:
            example = BY_NAME[self.kind].example
            raise UserError(
                f"'{self.text}': what the seed costs in {self.kind} is not known, so give a number, as "
                f"{self.kind}={example}"
            )
        return int(self.amount * own)


def parse_budget(text: str) -> AskedBudget:
    """Raises UserError for anything that is no budget."""
    name, _, number = (part.strip() for part in text.partition("="))
    kind = BY_NAME.get(name)
    if kind is None:
        examples = [f"{kind.name}={kind.example}" for kind in KINDS]
        raise UserError(f"'{text}' is no budget; give one as {', '.join(examples[:-1])} or {examples[-1]}")
    body = number.replace("_", "")
    share = _share(body)
    if share is not None:
        return AskedBudget(text, name, share, relative=True)
    for unit, factor in kind.units.items():
        value = _number(body.removesuffix(unit)) if body.endswith(unit) else None
        if value is not None:
            return AskedBudget(text, name, value * factor)
    units = ", ".join(unit or "none" for unit in kind.units)
    raise UserError(
        f"'{text}': {number!r} is no number with a unit of {units}, nor a share of the seed's, as 0.6x or 60%"
    )


def _share(text: str) -> float | None:
    """'0.6x', 'x0.6' and '60%' are 0.6; None where text says no share."""
    if text.endswith("%"):
        value = _number(text[:-1])
        return None if value is None else value / 100
    for sign in TIMES:
        if text.startswith(sign) or text.endswith(sign):
            return _number(text.removeprefix(sign) if text.startswith(sign) else text.removesuffix(sign))
    return None


def _number(text: str) -> float | None:
    """A number above 0; None where text is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
