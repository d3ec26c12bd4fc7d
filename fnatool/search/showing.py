"""A space in words: a row for blocks that may be the same, and what its smallest and largest member cost beside the
seed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from fnatool import terminal
from fnatool.search.preparing import PreparedSearch
from fnatool.search.trunks import extremes_of
from fnatool.search.words import SKIPPED, chosen_words, cost_text
from passes.space.budgets import AskedBudget, parse_budget
from passes.space.space import SKIP, Choices, SpaceBlock, log10_size


def show_space(made: PreparedSearch) -> None:
    """The space as a table, and the costs of its smallest and largest member, with the head."""
    console = terminal.console(wrap=False)
    grid = terminal.table(
        terminal.whole("blocks"), terminal.right("candidates"), terminal.whole("of"), terminal.whole("depth")
    )
    found = made.choices
    for i, group in itertools.groupby(found.blocks, key=lambda block: block.stage):
        blocks = list(group)
        least = found.least[i]
        depth = f"{least}…{len(blocks)}" if least < len(blocks) else str(least)
        for k, (names, block) in enumerate(_runs(blocks)):
            grid.add_row(names, str(len(block.candidates)), words(block), "" if k else depth)
    if found.blocks:
        console.print(grid)
    if len(made.trunks) > 1:
        console.print(f"widths outside blocks: {', '.join(f'×{trunk.share:.3g}' for trunk in made.trunks)}")
    console.print(f"10^{log10_size(made.whole):.1f} architectures; with the head:")
    for kind in made.tables:
        low, high = extremes_of(made.trunks, kind)
        own = made.own_cost(kind)
        seed = "" if own is None else f", the seed {cost_text(kind, own)}"
        limits = [asked for asked in map(parse_budget, made.config.cost.budget) if asked.kind == kind]
        limit = f"; the budget is {_limit(limits[0], own)}" if limits else ""
        console.print(
            f"  {kind}: the smallest {cost_text(kind, low)}{seed}, the largest {cost_text(kind, high)}{limit}"
        )


def _limit(asked: AskedBudget, own: int | None) -> str:
    """'40M', '60%, which is 36.722M'."""
    said = asked.text.partition("=")[2].strip()
    return f"{said}, which is {cost_text(asked.kind, asked.limit(own))}" if asked.relative else said


def words(block: SpaceBlock) -> str:
    """'kernel 3|5|7, hidden 48|96'"""
    tails = {tail: dict.fromkeys(row[tail] for row in block.candidates) for tail in block.candidates[0]}
    return ", ".join(f"{tail} {'|'.join(map(str, values))}" for tail, values in tails.items()) or "as in the seed"


def _runs(blocks: Sequence[SpaceBlock]) -> Iterator[tuple[str, SpaceBlock]]:
    """Blocks in a row with the same candidates: their names, and the first of them."""
    for _, group in itertools.groupby(blocks, key=words):
        first, *others = group
        yield (f"{first.name}…{others[-1].block}" if others else first.name), first


def rows(choices: Choices, member: Sequence[int | None]) -> dict[str, str]:
    """What a member chooses, block by block; None: nothing that could be chosen."""
    return {block.name: _chosen(block, k) for block, k in zip(choices.blocks, member, strict=True)}


def _chosen(block: SpaceBlock, k: int | None) -> str:
    if k is None:
        return "–"
    return SKIPPED if k == SKIP else chosen_words(block.candidates[k])
