"""The last choice of a search: a few architectures within the budget, drawn by what it prefers, and the best of them in
the super network.

α weighs every block by itself, on the mixture of all candidates; how its favourites work together shows only when they
run together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from fnatool import terminal
from fnatool.search.config import SearchConfig
from fnatool.search.sampling import Member
from fnatool.search.scoring import Scoring, chooser
from fnatool.search.solver import Budget, Scores, likeliest
from fnatool.supernet.network import SuperNetwork
from fnatool.tasks.finite import NotFinite
from passes.space.space import Choices


def choosing(network: SuperNetwork, how: SearchConfig, scoring: Scoring) -> Callable[[Sequence[Budget]], Member]:
    """What finds the best member within budgets: the finalist of the least loss."""

    def best(budgets: Sequence[Budget]) -> Member:
        scores = network.architecture.log_probabilities()
        members = finalists(network.choices, scores, budgets, how.search.finalists, seed=how.run.seed)
        if len(members) == 1:
            return members[0]
        progress = terminal.progress(f"the best of {len(members)} architectures", len(members))
        with chooser(network, scoring) as loss, progress as advance:

            def looked_at(member: Member) -> float:
                found = loss(member)
                advance(1)
                return found

            return least(members, looked_at)

    return best


DRAWS = 8  # for each finalist, before there are taken to be no others


def finalists(choices: Choices, scores: Scores, budgets: Sequence[Budget], count: int, *, seed: int) -> list[Member]:
    """Up to `count` distinct members within the budgets: the one of the highest score, then others by chance, the
    likelier the sooner.

    A draw is the best member by scores with Gumbel noise on each, which without budgets has the probability exp Σ score
    (perturb and maximise; Papandreou & Yuille 2011). Raises UserError where no member keeps the budgets.
    """
    found = {likeliest(choices, scores, budgets): None}
    for draw in range(DRAWS * count):
        if len(found) >= count:
            break
        rng = np.random.default_rng([seed, draw])
        noisy = [(np.asarray(row) + rng.gumbel(size=len(row))).tolist() for row in scores]
        found.setdefault(likeliest(choices, noisy, budgets))
    return list(found)


def least(members: Sequence[Member], loss: Callable[[Member], float]) -> Member:
    """The member of the least loss, the first of them where several have it; one alone is not looked at.

    One whose loss is no number, or that computes what is none, is left out. Raises NotFinite where all are.
    """
    if len(members) == 1:
        return members[0]
    losses: dict[Member, float] = {}
    broken: list[NotFinite] = []
    for member in members:
        try:
            losses[member] = loss(member)
        except NotFinite as error:
            broken.append(error)
    sound = {member: value for member, value in losses.items() if math.isfinite(value)}
    if not sound:
        why = str(broken[0]) if broken else f"their losses are {', '.join(str(value) for value in losses.values())}"
        raise NotFinite(
            f"none of the {len(members)} architectures looked at in the super network computes finite values: {why}"
        )
    return min(sound, key=lambda member: sound[member])
