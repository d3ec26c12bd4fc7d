"""Budgets in words: units, shares of what the seed costs, and what is none."""

from __future__ import annotations

import pytest

from passes.errors import UserError
from passes.space.budgets import parse_budget
from passes.space.costs import KINDS


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("madds=200M", "madds", 200_000_000),
        ("params=1.5M", "params", 1_500_000),
        ("latency=3ms", "latency", 3_000_000),
        ("latency=250us", "latency", 250_000),
        ("latency=0.5s", "latency", 500_000_000),
        ("madds=412", "madds", 412),
        ("madds = 1.2B", "madds", 1_200_000_000),
        ("madds=1_000", "madds", 1000),
    ],
)
def test_budgets_have_units(text: str, kind: str, limit: int) -> None:
    asked = parse_budget(text)
    assert (asked.kind, asked.limit(None), asked.relative) == (kind, limit, False)


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
@pytest.mark.parametrize(
    ("share", "limit"), [("0.6x", 600), ("x0.6", 600), ("0.6×", 600), ("60%", 600), ("1.25x", 1250), ("62.5 %", 625)]
)
def test_a_budget_may_be_a_share_of_what_the_seed_costs(kind: str, share: str, limit: int) -> None:
    asked = parse_budget(f"{kind}={share}")
    assert (asked.kind, asked.limit(1000), asked.relative) == (kind, limit, True)


def test_a_share_of_what_is_not_known_is_refused_with_what_to_say_instead() -> None:
    with pytest.raises(
        UserError, match="'latency=70%': what the seed costs in latency is not known, so give a number, as latency=3ms"
    ):
        parse_budget("latency=70%").limit(None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "madds",
        "madds=",
        "flops=3M",
        "madds=-1M",
        "madds=0",
        "madds=nan",
        "latency=3",
        "latency=infms",
        "madds=3X",
        "madds=x",
        "madds=%",
        "madds=-5%",
        "madds=0x",
        "madds=nan%",
        "madds=x1x",
        "params=3ms",
    ],
)
def test_what_is_no_budget_says_so(text: str) -> None:
    with pytest.raises(UserError, match=r"is no (budget|number)"):
        parse_budget(text)


def test_every_example_of_a_budget_is_one() -> None:
    for kind in KINDS:
        assert parse_budget(f"{kind.name}={kind.example}").kind == kind.name
