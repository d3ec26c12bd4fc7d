"""Rounds over many networks: each network once a round, in another order every time, so that what disturbs the machine
hits all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fnatool.latency.store import Store
from passes.graph.cutting import Bare


def missing(signatures: Sequence[str], store: Store, rounds: int) -> int:
    """How many timings are to be made until all have so many."""
    return sum(max(rounds - len(store.rounds(signature)), 0) for signature in signatures)


def measure(
    networks: Mapping[str, Bare],
    store: Store,
    rounds: int,
    *,
    timed: Callable[[Bare], int],
    done: Callable[[int], None],
    seed: int = 0,
) -> None:
    """Every network has at least so many timings in the store; `timed` makes one, `done` is called after each."""
    for number in range(rounds):
        order = np.random.default_rng([seed, number]).permutation(len(networks)).tolist()
        names = list(networks)
        for signature in (names[k] for k in order):
            if len(store.rounds(signature)) <= number:
                store.add(signature, timed(networks[signature]))
                done(1)


def estimate(rounds: Sequence[int]) -> float:
    """The nanoseconds that stand for all rounds: their lower quartile.

    Whatever disturbs a run makes it slower, so high values say little; and the least of all is the luck of a short
    network sooner than that of a long one.
    """
    return float(np.percentile(rounds, 25))
