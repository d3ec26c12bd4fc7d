"""α: what the search prefers. One softmax a block over its joint candidates, and skip where that is possible (FNA++).

Chance and few steps leave a choice undecided; what the seed has is the best guess then, since its parameters were learnt for that. `lean`
gives it a lead: log p = α + lead − log Σ exp (α + lead), and α is what the search learns beyond it.

Collapse to skip: a new or changed block disturbs the network until it has learnt, so that skipping wins at once; and what is skipped is
hardly sampled, so it never learns. `hold` is the guard: a floor under the probability of keeping a block, which anneals to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from passes.space.space import SKIP, Choices

INITIAL = 1e-3  # times a normal draw (FNA, its released code)
FLOOR = 0.5
ANNEALED = 0.75  # of the steps on α
TINY = 1e-12  # a floor that lets go of a block


class Costs(Protocol):
    """A cost table: what all members share, and per block what each candidate costs (passes.space.Table is one)."""

    @property
    def base(self) -> float: ...

    @property
    def blocks(self) -> Sequence[Sequence[float]]: ...


class Architecture(torch.nn.Module):
    """The parameters α of a space, [candidates] or [candidates + 1] a block (the last: skip); a block without a choice has none."""

    def __init__(self, choices: Choices, seed: int = 0) -> None:
        """Initial values are 1e-3 · randn, the same for the same seed."""
        super().__init__()
        self.choices = choices
        generator = torch.Generator().manual_seed(seed)
        self.alphas = torch.nn.ParameterDict()
        for block in choices.blocks:
            count = len(block.candidates) + block.skippable
            if count > 1:
                self.alphas[_key(block.stage, block.block)] = torch.nn.Parameter(INITIAL * torch.randn(count, generator=generator))
                self.register_buffer(_lead(block.stage, block.block), torch.zeros(count), persistent=False)

    def lean(self, member: Sequence[int | None], lead: float) -> None:
        """These choices (None: no opinion on a block) are exp(lead) times as likely as every other one as long as α says nothing."""
        for block, choice, row in zip(self.choices.blocks, member, self._leads(), strict=True):
            if row is not None and choice is not None:
                row.zero_()
                row[len(block.candidates) if choice == SKIP else choice] = lead

    def rows(self) -> list[Tensor | None]:
        """α of every block in order, None where it has no choice."""
        known = dict(self.alphas.items())
        return [known.get(_key(block.stage, block.block)) for block in self.choices.blocks]

    def _leads(self) -> list[Tensor | None]:
        known = dict(self.named_buffers())
        return [known.get(_lead(block.stage, block.block)) for block in self.choices.blocks]

    def _logits(self) -> list[Tensor | None]:
        """α with its lead."""
        return [None if row is None or lead is None else row + lead for row, lead in zip(self.rows(), self._leads(), strict=True)]

    def probabilities(self) -> list[Tensor]:
        """softmax(α + lead) of every block: one per candidate, and one more for skipping where that is possible."""
        return [torch.ones(1) if row is None else torch.softmax(row, 0) for row in self._logits()]

    def log_probabilities(self) -> list[list[float]]:
        """The logarithms of these as numbers: the scores that derivation works with."""
        return [[0.0] if row is None else torch.log_softmax(row.detach().double(), 0).tolist() for row in self._logits()]

    def expected_cost(self, table: Costs) -> Tensor:
        """base + Σ_b Σ_c P(b, c) · cost(b, c) in double precision; a skipped block costs nothing. Differentiable."""
        total = torch.tensor(float(table.base), dtype=torch.float64)
        for row, costs in zip(self.probabilities(), table.blocks, strict=True):
            values = torch.tensor(costs, dtype=torch.float64, device=row.device)
            total = total.to(row.device) + row[: len(costs)].double() @ values
        return total

    def entropy(self) -> Tensor:
        """The mean over the blocks with a choice of −Σ p log p, over its largest value: 1 undecided, 0 decided."""
        rows = [row for row in self._logits() if row is not None]
        if not rows:
            return torch.zeros(())
        return torch.stack([-(torch.softmax(row, 0) * torch.log_softmax(row, 0)).sum() / math.log(row.numel()) for row in rows]).mean()

    @torch.no_grad()
    def hold(self, floor: float) -> None:
        """Every block is kept with a probability of at least `floor` (0 ≤ floor < 1): where it is less, α of skip is lowered until it is.

        Of a block that the seed has not, the floor is at most what its lead leaves. To be called after each step on α. With a = α + lead:
        P(keep) = σ(log Σ_c exp a_c − a_skip), so the bound of a_skip is log Σ_c exp a_c − logit(floor).
        """
        if floor <= 0:
            return
        for block, row, lead in zip(self.choices.blocks, self.rows(), self._leads(), strict=True):
            if row is not None and lead is not None and block.skippable:
                least = max(min(floor, torch.softmax(lead, 0)[:-1].sum().item()), TINY)
                bound = torch.logsumexp((row + lead)[:-1], 0) - math.log(least / (1 - least))
                row[-1] = torch.minimum(row[-1], bound - lead[-1])


def _key(stage: int, block: int) -> str:
    return f"stage{stage}_block{block}"


def _lead(stage: int, block: int) -> str:
    return f"{_key(stage, block)}_lead"


def floor_at(progress: float, *, floor: float = FLOOR, annealed: float = ANNEALED) -> float:
    """The floor for `hold` at a progress from 0 to 1 of the steps on α: falls evenly from `floor` to 0 at `annealed`."""
    return floor * max(1 - progress / annealed, 0.0)


def cost_loss(cost: Tensor, *, weight: float, base: float, scale: float = 1.0) -> Tensor:
    """λ · log_τ(γ · cost) (FNA++) with λ `weight`, τ `base`, γ `scale`. Its gradient depends neither on γ nor on the unit of the cost."""
    return weight * torch.log(scale * cost) / math.log(base)
