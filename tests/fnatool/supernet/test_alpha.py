"""α and what is drawn from it: probabilities, cost, entropy, sampling, and the guard against collapse to skip."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from supers import one_hot, seed

from fnatool.search.sampling import sample, uniform
from fnatool.supernet.alpha import Architecture, cost_loss, floor_at
from fnatool.supernet.network import build
from passes.space.costs import Table, cost_tables
from passes.space.space import SKIP, Choices, Space, SpaceBlock, choices, members


def space(least: int = 1, blocks: int = 3) -> Choices:
    """A stage of blocks with two candidates each, of which the first stays."""
    rows = ({"kernel": 3}, {"kernel": 5})
    return Choices(tuple(SpaceBlock(0, j, j, rows, j > 0) for j in range(blocks)), {0: least}, {})


def decide(architecture: Architecture, member: tuple[int, ...]) -> None:
    with torch.no_grad():
        for row, wanted in zip(architecture.rows(), one_hot(architecture.choices, member), strict=True):
            if row is not None:
                row.copy_((wanted - 1) * 100)


def test_alpha_begins_undecided_and_the_same_for_the_same_seed() -> None:
    first, same, other = (Architecture(space(), k) for k in (0, 0, 1))
    assert [row.numel() for row in first.probabilities()] == [2, 3, 3]
    assert all(torch.equal(a, b) for a, b in zip(first.probabilities(), same.probabilities(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.probabilities(), other.probabilities(), strict=True))
    assert first.entropy().item() == pytest.approx(1, abs=1e-4)
    assert max(row.detach().abs().max().item() for row in first.parameters()) < 0.01
    for logs, row in zip(first.log_probabilities(), first.probabilities(), strict=True):
        assert [math.exp(value) for value in logs] == pytest.approx(row.tolist())


def test_what_the_seed_has_begins_with_a_lead_that_alpha_can_overcome() -> None:
    architecture = Architecture(space())
    before = {name: value.clone() for name, value in architecture.state_dict().items()}
    architecture.lean((1, None, SKIP), 2.0)
    first, second, third = (row.tolist() for row in architecture.probabilities())
    assert first[1] / first[0] == pytest.approx(math.exp(2), rel=0.01)
    assert second == pytest.approx([1 / 3] * 3, rel=0.01)
    assert third[2] / third[0] == pytest.approx(math.exp(2), rel=0.01)
    assert {name: value.tolist() for name, value in architecture.state_dict().items()} == {
        k: v.tolist() for k, v in before.items()
    }
    with torch.no_grad():
        for row in architecture.parameters():
            row[0] = 5
    assert all(row.argmax() == 0 for row in architecture.probabilities())
    architecture.lean((1, None, SKIP), 0.0)
    assert architecture.probabilities()[0][0] > 0.99


def test_making_one_takes_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    Architecture(space())
    assert torch.equal(before, torch.get_rng_state())


def test_a_block_without_a_choice_has_no_alpha() -> None:
    only = Choices((SpaceBlock(0, 0, 0, ({},), False), *space(blocks=2).blocks[1:]), {0: 1}, {})
    architecture = Architecture(only)
    assert len(list(architecture.parameters())) == 1
    assert architecture.probabilities()[0].tolist() == [1.0]
    assert architecture.log_probabilities()[0] == [0.0]


def test_the_expected_cost_of_a_decided_alpha_is_the_members() -> None:
    _, analysis, found = seed("residual")
    table = cost_tables(analysis, found)["madds"]
    architecture = Architecture(found)
    for member in itertools.islice(members(found), 0, None, 97):
        decide(architecture, member)
        assert architecture.expected_cost(table).item() == pytest.approx(table.of(member), rel=1e-12)
    assert architecture.entropy().item() == pytest.approx(0, abs=1e-6)


def test_a_step_down_the_expected_cost_makes_members_cheaper() -> None:
    table = Table(100, ((10, 20),) * 3)
    architecture = Architecture(space())
    before = architecture.expected_cost(table)
    cost_loss(before, weight=0.02, base=10).backward()
    with torch.no_grad():
        for row in architecture.parameters():
            row -= 1000 * row.grad
    assert architecture.expected_cost(table).item() < before.item() - 1


def test_the_cost_loss_is_the_published_one_and_its_gradient_knows_no_unit() -> None:
    cost = torch.tensor(1000.0, dtype=torch.float64, requires_grad=True)
    loss = cost_loss(cost, weight=9e-3, base=45, scale=10)
    assert loss.item() == pytest.approx(9e-3 * math.log(10 * 1000) / math.log(45))
    scaled = torch.autograd.grad(cost_loss(cost * 1e6, weight=9e-3, base=45), cost)[0]
    assert torch.autograd.grad(loss, cost)[0].item() == pytest.approx(scaled.item())


# --- sampling -----------------------------------------------------------------------------------


def test_a_draw_is_a_function_of_seed_and_step() -> None:
    found = space()
    draws = [sample(found, uniform(found), seed=s, step=k) for s in (0, 1) for k in range(50)]
    assert draws == [sample(found, uniform(found), seed=s, step=k) for s in (0, 1) for k in range(50)]
    assert draws[:50] != draws[50:]
    assert len(set(draws)) > 10


@pytest.mark.parametrize("least", [1, 2, 3])
def test_draws_follow_the_probabilities_given_that_enough_blocks_stay(least: int) -> None:
    found = space(least)
    rows = [[0.3, 0.7], [0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]
    exact = {}
    for member in members(found):
        exact[member] = math.prod(row[k] for row, k in zip(rows, member, strict=True))  # SKIP is the last
    total = sum(exact.values())
    drawn = Counter(sample(found, rows, seed=0, step=k) for k in range(4000))
    assert set(drawn) <= set(exact)
    for member, weight in exact.items():
        expected = weight / total
        assert drawn[member] / 4000 == pytest.approx(expected, abs=4 * math.sqrt(expected / 4000) + 1e-3)


def test_a_stage_that_would_skip_all_keeps_as_many_as_it_has_to() -> None:
    found = space(2)
    rows = [[0.5, 0.5], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    for step in range(20):
        member = sample(found, rows, seed=0, step=step)
        found.require_member(member)
        assert sum(k != SKIP for k in member) == 2


# --- the guard ----------------------------------------------------------------------------------


def test_holding_lifts_every_block_to_the_floor_and_no_further() -> None:
    architecture = Architecture(space())
    decide(architecture, (0, SKIP, 1))
    architecture.hold(0.3)
    kept = [row[:2].sum().item() for row in architecture.probabilities()]
    assert kept == pytest.approx([1, 0.3, 1], rel=1e-5)
    architecture.hold(0)
    assert [row[:2].sum().item() for row in architecture.probabilities()] == pytest.approx(kept)


def test_the_floor_holds_beside_a_lead() -> None:
    architecture = Architecture(space())
    architecture.lean((0, 0, SKIP), 3.0)
    decide(architecture, (0, SKIP, SKIP))
    architecture.hold(0.4)
    kept = [row[:2].sum().item() for row in architecture.probabilities()]
    assert kept == pytest.approx([1, 0.4, 2 / (2 + math.exp(3))], rel=1e-5)  # the last: a block that the seed has not


def test_the_floor_anneals_to_nothing() -> None:
    assert [floor_at(progress) for progress in (0, 0.375, 0.75, 1)] == pytest.approx([0.5, 0.25, 0, 0])


def searched(*, guarded: bool, steps: int = 200) -> float:
    """P(keep) of a block after a search for what the seed computes, at whose beginning the block is wrong and has to
    learn.

    Its branch is drawn anew and shifted by 5; α moves quickly, the weights slowly.
    """
    graph, analysis, _ = seed("residual")
    net = build(graph, analysis, choices(analysis, Space({"stage0.*.hidden": (4, 8), "stage0.depth": (1, 2)}))).train()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 3, 8, 8, generator=generator)
    target = net(x, net.choices.largest())["y"].detach()
    named = net.shared.named()
    with torch.no_grad():
        for name in ("e1.w", "l1.w"):
            named[name].copy_(named[name].std() * torch.randn(named[name].shape, generator=generator))
        named["l1.n.beta"] += 5
    weights = torch.optim.SGD(net.weight_parameters(), 0.0005, momentum=0.9)
    alphas = torch.optim.Adam(net.alphas, 1.0)
    for step in range(steps):
        member = sample(net.choices, [row.tolist() for row in net.architecture.probabilities()], seed=0, step=step)
        for optimiser, which in ((weights, member), (alphas, None)):
            optimiser.zero_grad()
            (net(x, which)["y"] - target).square().mean().backward()
            optimiser.step()
        if guarded:
            net.architecture.hold(floor_at(step / steps))
    return 1 - net.architecture.probabilities()[1][-1].item()


def test_an_unguarded_search_collapses_to_skip_and_a_guarded_one_does_not() -> None:
    assert searched(guarded=False) < 0.01
    assert searched(guarded=True) > 0.9
