"""α: what the search prefers. One softmax a block over its joint candidates, and skip where that is possible (FNA++).

Chance and few steps leave a choice undecided; what the seed has is the best guess then, since its parameters were
learnt for that. `lean` gives it a lead: log p = α + lead − log Σ exp (α + lead), and α is what the search learns beyond
it.

Collapse to skip: a new or changed block disturbs the network until it has learnt, so that skipping wins at once; and
what is skipped is hardly sampled, so it never learns. `hold` is the guard: a floor under the probability of keeping a
block, which anneals to nothing.
"""

from __future__ import annotations

import functools
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
    """The parameters α of a space, [candidates] or [candidates + 1] a block (the last: skip); a block without a choice
    has none.
    """

    def __init__(self, choices: Choices, seed: int = 0) -> None:
        """Initial values are 1e-3 · randn, the same for the same seed."""
        super().__init__()
        self.choices = choices
        generator = torch.Generator().manual_seed(seed)
        self.alphas = torch.nn.ParameterDict()
        self._shares: dict[str, float] = {}  # of keeping a block, by its lead alone
        for block in choices.blocks:
            count = len(block.candidates) + block.skippable
            if count > 1:
                self.alphas[_key(block.stage, block.block)] = torch.nn.Parameter(
                    INITIAL * torch.randn(count, generator=generator)
                )
                self.register_buffer(_lead(block.stage, block.block), torch.zeros(count), persistent=False)
        self._lean_on()

    def lean(self, member: Sequence[int | None], lead: float) -> None:
        """These choices (None: no opinion on a block) are exp(lead) times as likely as every other one as long as α
        says nothing.
        """
        for block, choice, row in zip(self.choices.blocks, member, self._leads(), strict=True):
            if row is not None and choice is not None:
                row.zero_()
                row[len(block.candidates) if choice == SKIP else choice] = lead
        self._lean_on()

    def _lean_on(self) -> None:
        """What the leads leave of keeping each block, as numbers: so no step on α waits for a device to read them."""
        for block, lead in zip(self.choices.blocks, self._leads(), strict=True):
            if lead is not None and block.skippable:
                self._shares[_key(block.stage, block.block)] = torch.softmax(lead, 0)[:-1].sum().item()

    def rows(self) -> list[Tensor | None]:
        """α of every block in order, None where it has no choice."""
        known = dict(self.alphas.items())
        return [known.get(_key(block.stage, block.block)) for block in self.choices.blocks]

    def _leads(self) -> list[Tensor | None]:
        known = dict(self.named_buffers())
        return [known.get(_lead(block.stage, block.block)) for block in self.choices.blocks]

    def _logits(self) -> list[Tensor | None]:
        """α with its lead."""
        return [
            None if row is None or lead is None else row + lead
            for row, lead in zip(self.rows(), self._leads(), strict=True)
        ]

    def probabilities(self) -> list[Tensor]:
        """softmax(α + lead) of every block: one per candidate, and one more for skipping where that is possible."""
        logits = self._logits()
        device = next((row.device for row in logits if row is not None), torch.device("cpu"))
        return [torch.ones(1, device=device) if row is None else torch.softmax(row, 0) for row in logits]

    def log_probabilities(self) -> list[list[float]]:
        """The logarithms of these as numbers: the scores that derivation works with."""
        return [
            [0.0] if row is None else torch.log_softmax(row.detach().double(), 0).tolist() for row in self._logits()
        ]

    def expected_cost(self, table: Costs) -> Tensor:
        """base + Σ_b Σ_c P(b, c) · cost(b, c) in double precision; a skipped block costs nothing. Differentiable."""
        rows = self.probabilities()
        total = torch.full((), float(table.base), dtype=torch.float64, device=rows[0].device)
        for row, costs in zip(rows, table.blocks, strict=True):
            total = total + row[: len(costs)].double() @ on_device(row.device, tuple(costs))
        return total

    def entropy(self) -> Tensor:
        """The mean over the blocks with a choice of −Σ p log p, over its largest value: 1 undecided, 0 decided."""
        rows = [row for row in self._logits() if row is not None]
        if not rows:
            return torch.zeros(())
        return torch.stack(
            [-(torch.softmax(row, 0) * torch.log_softmax(row, 0)).sum() / math.log(row.numel()) for row in rows]
        ).mean()

    @torch.no_grad()
    def hold(self, floor: float) -> None:
        """Every block is kept with a probability of at least `floor` (0 ≤ floor < 1): where it is less, α of skip is
        lowered until it is.

        Of a block that the seed has not, the floor is at most what its lead leaves. To be called after each step on α.
        With a = α + lead: P(keep) = σ(log Σ_c exp a_c − a_skip), so the bound of a_skip is log Σ_c exp a_c −
        logit(floor).
        """
        if floor <= 0:
            return
        for block, row, lead in zip(self.choices.blocks, self.rows(), self._leads(), strict=True):
            if row is not None and lead is not None and block.skippable:
                least = max(min(floor, self._shares[_key(block.stage, block.block)]), TINY)
                bound = torch.logsumexp((row + lead)[:-1], 0) - math.log(least / (1 - least))
                row[-1] = torch.minimum(row[-1], bound - lead[-1])


@functools.lru_cache(maxsize=4096)
def on_device(device: torch.device, costs: tuple[float, ...]) -> Tensor:
    """The costs of a block's candidates on a device, put there once."""
    return torch.tensor(costs, dtype=torch.float64, device=device)


def _key(stage: int, block: int) -> str:
    return f"stage{stage}_block{block}"


def _lead(stage: int, block: int) -> str:
    return f"{_key(stage, block)}_lead"


def floor_at(progress: float, *, floor: float = FLOOR, annealed: float = ANNEALED) -> float:
    """The floor for `hold` at a progress from 0 to 1 of the steps on α: falls evenly from `floor` to 0 at
    `annealed`.
    """
    return floor * max(1 - progress / annealed, 0.0)


def cost_loss(cost: Tensor, *, weight: float, base: float, scale: float = 1.0) -> Tensor:
    """λ · log_τ(γ · cost) (FNA++) with λ `weight`, τ `base`, γ `scale`. Its gradient depends neither on γ nor on the
    unit of the cost.
    """
    return weight * torch.log(scale * cost) / math.log(base)
