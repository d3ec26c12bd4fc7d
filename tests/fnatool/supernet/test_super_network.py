"""The super network: its members are remaps of the seed, its mixture with a decided α is the member, and steps change
what they should.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from nets import bundled
from supers import SEEDS, apart, images, network, one_hot, remapped, seed, trained
from torch import Tensor

from fnatool.runtime.verify import run_inner
from fnatool.search.sampling import sample, uniform
from fnatool.supernet import mixing, variants
from fnatool.supernet.network import RELAXATIONS, Relaxation, build
from fnatool.supernet.slices import slicing
from passes import UserError, analyse, apply, plan
from passes.space.presets import preset
from passes.space.space import SKIP, Space, choices, members
from passes.target.take import Take

REMAP = 1e-4  # of the spread: the fna rule's noise on what is widened
SAME = 1e-5


def some(name: str, count: int = 10) -> list[tuple[int, ...]]:
    """Random members of the space that the entangled super network has."""
    found = network(name).choices
    return [sample(found, uniform(found), seed=0, step=k) for k in range(count)]


# --- members are remaps -------------------------------------------------------------------------


@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("name", SEEDS)
def test_a_member_is_the_remap_of_the_seed(name: str, relaxation: Relaxation) -> None:
    net, x = network(name, relaxation), images(name)
    for step in range(3):
        member = sample(net.choices, uniform(net.choices), seed=1, step=step)
        assert (
            apart(net.forward_member(x, member, norms="running"), remapped(name, net.choices.spec(member), x)) <= REMAP
        )


def test_twenty_members_of_a_space_with_groups_are_remaps_of_the_seed() -> None:
    net, x = network("grouped"), images("grouped")
    for step in range(20):
        member = sample(net.choices, uniform(net.choices), seed=2, step=step)
        assert (
            apart(net.forward_member(x, member, norms="running"), remapped("grouped", net.choices.spec(member), x))
            <= REMAP
        )


def test_members_by_preserve_are_remaps_too_whichever_blocks_they_skip() -> None:
    graph, analysis, found = seed("residual")
    net, x = build(graph, analysis, found, strategy="preserve").train(), images("residual")
    every = list(members(net.choices))
    assert {member[1:].count(SKIP) for member in every} == {0, 1}  # of the copy; the original stays
    for member in every[::7]:
        target = apply(graph, plan(analysis, net.choices.spec(member), strategy="preserve"))
        expected = dict(run_inner(target, {"x": x.numpy()}, [tensor.name for tensor in target.outputs], "the member"))
        assert apart(net.forward_member(x, member, norms="running"), expected) <= REMAP


def test_members_of_the_bundled_seed_are_remaps_of_it() -> None:
    graph = bundled()
    analysis = analyse(graph)
    space = Space({**preset("fna-detection", analysis).knobs, "input.size": (64,)})
    net = build(graph, analysis, choices(analysis, space)).train()
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32))
    for step in range(3):
        member = sample(net.choices, uniform(net.choices), seed=0, step=step)
        target = apply(graph, plan(analysis, net.choices.spec(member)))
        expected = dict(run_inner(target, {"input": x.numpy()}, ["logits"], "the member"))
        assert apart(net.forward_member(x, member, norms="running"), expected) <= REMAP


@pytest.mark.parametrize("name", ["residual", "grouped", "gated", "headed"])
def test_a_slice_beside_the_right_one_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = slicing

    def beside(take: Take) -> Callable[[Tensor], Tensor]:
        cut = right(take)
        return lambda value: cut(value.roll(1, 1)) if value.dim() > 1 else cut(value)

    monkeypatch.setattr(variants, "slicing", beside)
    net, x = network(name), images(name)
    smallest = tuple(0 for _ in net.choices.blocks)
    assert apart(net.forward_member(x, smallest, norms="running"), remapped(name, net.choices.spec(smallest), x)) > 1e-2


def test_every_output_comes_out_and_a_skipped_block_is_not_run() -> None:
    net, x = network("headed"), images("headed", 2)
    whole = net.choices.largest()
    least = tuple(SKIP if block.skippable else k for block, k in zip(net.choices.blocks, whole, strict=True))
    assert SKIP in least
    saved: list[int] = []
    for member in (whole, least):
        kept: list[Tensor] = []

        def keep(value: Tensor, kept: list[Tensor] = kept) -> Tensor:
            kept.append(value)
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            assert set(net.forward_member(x, member)) == {"cls_logits", "boxes"}
        saved.append(len(kept))
    assert saved[1] < saved[0]


def test_what_is_no_member_is_refused() -> None:
    net, x = network("residual"), images("residual")
    with pytest.raises(UserError, match="a member chooses for each of the 3 blocks, not 1"):
        net.forward_member(x, (0,))
    with pytest.raises(UserError, match=r"stage0\.block0 has no candidate -1"):
        net.forward_member(x, (SKIP, 0, 0))
    with pytest.raises(UserError, match="relaxation 'both' is not one of entangled, paths"):
        build(*seed("residual"), relaxation="both")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the graph has the inputs x; image given"):
        net({"image": x})


# --- the mixture --------------------------------------------------------------------------------


@pytest.mark.parametrize("norms", ["running", "batch"])
@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("name", SEEDS)
def test_a_decided_mixture_is_the_member(name: str, relaxation: Relaxation, norms: Any) -> None:
    net, x = trained(name, relaxation), images(name, 4)
    for step in range(3):
        member = sample(net.choices, uniform(net.choices), seed=1, step=step)
        mixed = net.forward_mixed(x, norms=norms, probabilities=one_hot(net.choices, member))
        assert apart(mixed, net.forward_member(x, member, norms=norms)) <= SAME


@pytest.mark.parametrize("part", ["_channels", "_kernel"])
def test_a_mask_that_is_missing_is_noticed(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, part, lambda take, shape: np.ones([1] * len(shape), bool))
    net, x = trained("grouped"), images("grouped", 4)
    smallest = tuple(0 for _ in net.choices.blocks)
    mixed = net.forward_mixed(x, probabilities=one_hot(net.choices, smallest))
    assert apart(mixed, net.forward_member(x, smallest)) > 1e-2


@pytest.mark.parametrize("name", ["residual", "gated"])
def test_a_mixture_of_two_widths_reads_half_of_what_only_one_has(name: str) -> None:
    """By hand: the columns of the consumers halved where only the larger candidate has a channel."""
    net, x = network(name), images(name, 2)
    block = net.choices.blocks[0]
    small, large = (
        next(k for k, row in enumerate(block.candidates) if row == {**block.candidates[-1], "hidden": h})
        for h in (4, 8)
    )
    whole = net.choices.largest()
    probabilities = one_hot(net.choices, whole)
    probabilities[0] = torch.zeros_like(probabilities[0])
    probabilities[0][[small, large]] = 0.5
    by_hand = copy.deepcopy(net)
    readers = {"residual": ("l0.w",), "gated": ("l0.w", "q0.w")}[name]
    with torch.no_grad():
        for weight in readers:
            by_hand.shared.named()[weight][:, 4:] *= 0.5
    assert apart(net.forward_mixed(x, probabilities=probabilities), by_hand.forward_member(x, whole)) <= SAME


def test_a_knob_whose_channels_are_not_read_linearly_stays_at_its_largest_value() -> None:
    net = network("normalised")
    assert set(net.fixed) == {f"stage0.block{j}.hidden" for j in range(3)}
    assert all({row["hidden"] for row in block.candidates} == {8} for block in net.choices.blocks)
    assert any(
        "stage0.block1.hidden stays at its largest value: 'a1' (ReduceMean) reduces over its channels" in line
        for line in net.describe()
    )
    assert not network("normalised", "paths").fixed


def test_the_description_says_how_a_block_is_skipped() -> None:
    ways = {name: network(name).describe()[1] for name in ("residual", "smooth")}
    assert ways["residual"].endswith("or skipped (by its last affine)")
    assert ways["smooth"].endswith("or skipped (by weighing exit and entry)")


@pytest.mark.parametrize("name", ["residual", "smooth", "gated"])
def test_half_a_block_is_neither_the_block_nor_its_input(name: str) -> None:
    net, x = network(name), images(name, 2)
    whole = net.choices.largest()
    without = (*whole[:-1], SKIP)
    probabilities = one_hot(net.choices, whole)
    probabilities[-1] = 0.5 * probabilities[-1] + 0.5 * one_hot(net.choices, without)[-1]
    halves = [
        apart(net.forward_mixed(x, probabilities=probabilities), net.forward_member(x, member))
        for member in (whole, without)
    ]
    assert all(half > 1e-3 for half in halves)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_a_step_on_alpha_leaves_the_weights_alone(relaxation: Relaxation) -> None:
    net, x = network("grouped", relaxation), images("grouped", 4)
    net.forward_mixed(x)["y"].square().sum().backward()
    assert all(alpha.grad is not None and bool(alpha.grad.abs().max() > 0) for alpha in net.alphas)
    assert all(weight.grad is None for weight in net.weight_parameters())
    net.forward_mixed(x, train_weights=True)["y"].square().sum().backward()
    assert all(weight.grad is not None for weight in net.weight_parameters())


def test_the_gradient_of_alpha_is_the_slope_of_the_loss() -> None:
    net, x = network("gated").double(), images("gated", 4).double()
    net.forward_mixed(x)["y"].square().sum().backward()
    alpha = net.alphas[1]
    with torch.no_grad():
        for k in range(alpha.numel()):
            values = []
            for sign in (1, -1):
                alpha[k] += sign * 1e-5
                values.append(float(net.forward_mixed(x)["y"].square().sum()))
                alpha[k] -= sign * 1e-5
            assert (values[0] - values[1]) / 2e-5 == pytest.approx(float(alpha.grad[k]), rel=1e-4, abs=1e-7)


def test_mixed_precision_does_not_round_what_mixes_weights() -> None:
    net = network("grouped")
    masks = [
        mask
        for segment in net.segments
        for found in mixing.mixture(net.variants, segment).masks.values()
        for mask in found
    ]
    rows = [torch.softmax(torch.randn(len(block.candidates), generator=torch.Generator().manual_seed(k)), 0)
            for k, block in enumerate(net.choices.blocks)]  # fmt: skip
    assert len(masks) > 3
    for mask in masks:
        exact = mask.mixed(rows[mask.block])
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(mask.mixed(rows[mask.block]), exact)


@pytest.mark.parametrize(("name", "relaxation"), [("residual", "paths"), ("smooth", "entangled")])
def test_mixed_precision_does_not_round_the_gradients_of_what_weighs_outputs(
    name: str, relaxation: Relaxation, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(name, relaxation)
    segment = next(
        segment for segment in net.segments if segment.block is not None and net.choices.blocks[segment.block].skippable
    )
    assert segment.block is not None
    rows = [
        torch.full((len(block.candidates) + block.skippable,), 1 / 3, requires_grad=True)
        for block in net.choices.blocks
    ]
    row, count = rows[segment.block], len(net.choices.blocks[segment.block].candidates)
    entry, push, *made = (
        torch.randn(count + 2, 4, 6, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16().unbind()
    )
    given = iter(made)
    monkeypatch.setattr(net, "_run", lambda *_, **__: (next(given),))
    found = {segment.entry: entry}
    if relaxation == "paths":
        (y,) = net._weighed(segment, row, found, "batch", learn=False)
        wanted = torch.stack([(push.double() * value.double()).sum() for value in (*made, entry)])
    else:
        kept = [other[: len(block.candidates)] for other, block in zip(rows, net.choices.blocks, strict=True)]
        (y,) = net._mixed(segment, kept, net.shared.named(), found, keep=row[:count].sum(), norms="batch")
        wanted = torch.tensor([*[(push.double() * (made[0].double() - entry.double())).sum()] * count, 0.0])
    assert y.dtype == torch.bfloat16
    y.backward(push)
    assert row.grad is not None
    assert row.grad.double() == pytest.approx(wanted, rel=1e-4)


# --- steps --------------------------------------------------------------------------------------


def statistics(net: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.named_buffers()}


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_no_step_writes_running_statistics(relaxation: Relaxation) -> None:
    net, x = network("residual", relaxation), images("residual", 4)
    before = statistics(net)
    net.forward_member(x, some("residual", 1)[0])
    net.forward_mixed(x)
    net.recalibrate(some("residual", 1)[0], [x, 2 * x])
    assert before
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())


def test_a_recalibrated_member_has_the_mean_statistics_of_the_batches() -> None:
    net = network("residual")
    member = net.choices.largest()
    batches = [images("residual", 8), 3 * images("residual", 8)]
    found = net.recalibrate(member, batches)
    convolved = [torch.nn.functional.conv2d(x, net.shared.named()["stem.w"], padding=1) for x in batches]
    torch.testing.assert_close(found["stem.n.mean"], torch.stack([y.mean((0, 2, 3)) for y in convolved]).mean(0))
    torch.testing.assert_close(found["stem.n.var"], torch.stack([y.var((0, 2, 3)) for y in convolved]).mean(0))


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_a_member_recalibrated_on_a_batch_computes_on_it_what_the_batch_did(relaxation: Relaxation) -> None:
    net, x = network("grouped", relaxation), images("grouped", 64)
    for member in some("grouped", 3):
        found = net.recalibrate(member, [x])
        running = net.forward_member(x, member, norms="running", statistics=found)
        assert apart(running, net.forward_member(x, member)) <= 1e-2  # whole and unbiased variance differ by 1 / n
    with pytest.raises(UserError, match="not one batch"):
        net.recalibrate(member, [])


def test_a_weight_step_changes_the_member_and_nothing_else() -> None:
    net, x = network("residual"), images("residual", 4)
    member = (0, SKIP, 0)
    assert net.choices.blocks[0].candidates[0] == {"kernel": 3, "kernel2": 3, "hidden": 4}
    net.forward_member(x, member)["y"].square().sum().backward()
    named = net.shared.named()
    grad = named["e0.w"].grad
    assert grad is not None
    assert bool((grad[:4, :, 1:4, 1:4] != 0).any())
    outside = grad.clone()
    outside[:4, :, 1:4, 1:4] = 0
    assert not bool(outside.any())
    assert named["e1.w"].grad is None
    assert all(alpha.grad is None for alpha in net.alphas)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_its_state_is_saved_and_loaded(relaxation: Relaxation) -> None:
    net, x = trained("gated", relaxation), images("gated", 2)
    other = network("gated", relaxation)
    assert apart(other.forward_mixed(x), net.forward_mixed(x)) > 1e-3
    other.load_state_dict(net.state_dict())
    assert apart(other.forward_mixed(x), net.forward_mixed(x)) == 0
    assert apart(other(x, some("gated", 1)[0]), net(x, some("gated", 1)[0])) == 0


def test_all_members_of_a_small_space_run() -> None:
    net, x = network("residual"), images("residual", 2)
    every = list(members(net.choices))
    assert len(every) == net.choices.size
    with torch.no_grad():
        assert all(net(x, member)["y"].shape == (2, 5) for member in every[::37])


def test_the_weights_of_a_skipped_tap_are_kept() -> None:
    """A block that a head reads inside cannot be skipped; its copies can."""
    _, _, found = seed("headed")
    tapped = [block.name for block in found.blocks if not block.skippable]
    assert {block.stage for block in found.blocks if block.skippable} == {0}
    assert "stage0.block0" in tapped
