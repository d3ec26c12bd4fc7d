"""Which samples make which batch: a pure function of (seed, step), so that a run can stop anywhere and go on to the
same result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from passes.errors import UserError

Key = tuple[int, int]  # epoch, index of the sample


@dataclass(frozen=True)
class TrainOrder:
    """The batches of steps start … steps−1 for process `rank` of `world`; each is a list of Keys, and a DataLoader's
    batch_sampler.

    Every epoch is a permutation of all samples; what does not fill a batch of all processes together is dropped.
    `batch` is that of one process: the samples of a step are the same for 4 × 8 as for 1 × 32, in the same order over
    the ranks.
    """

    samples: int
    batch: int
    steps: int  # at which training ends
    seed: int
    start: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.samples < self.batch * self.world:
            raise UserError(
                f"{self.samples} samples do not fill a batch of {self.batch} × {self.world} process(es); make "
                "the batch smaller"
            )

    @property
    def steps_per_epoch(self) -> int:
        return self.samples // (self.batch * self.world)

    def keys(self, step: int) -> list[Key]:
        """The samples of a step, for this process."""
        epoch, within = divmod(step, self.steps_per_epoch)
        first = (within * self.world + self.rank) * self.batch
        return [
            (epoch, int(index)) for index in _permutation(self.samples, self.seed, epoch)[first : first + self.batch]
        ]

    def __iter__(self) -> Iterator[list[Key]]:
        return (self.keys(step) for step in range(self.start, self.steps))

    def __len__(self) -> int:
        return max(self.steps - self.start, 0)


@lru_cache(maxsize=2)
def _permutation(samples: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(samples)


@dataclass(frozen=True)
class EvaluationOrder:
    """Every sample once, over all processes: batches of the samples rank, rank + world, … in order, the last one
    perhaps smaller.
    """

    samples: int
    batch: int
    rank: int = 0
    world: int = 1

    def __iter__(self) -> Iterator[list[Key]]:
        mine = range(self.rank, self.samples, self.world)
        return ([(0, index) for index in mine[first : first + self.batch]] for first in range(0, len(mine), self.batch))

    def __len__(self) -> int:
        return -(-len(range(self.rank, self.samples, self.world)) // self.batch)
