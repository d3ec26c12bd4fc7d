"""Members by slices: what they compute is what the remap of the seed does, whole or from a block on."""

from __future__ import annotations

import pytest
import torch
from supers import SEEDS, images, seed
from torch import Tensor

from fnatool.nn.reading import Reading
from fnatool.search.sampling import sample, uniform
from fnatool.supernet import members as sliced
from fnatool.supernet import variants
from fnatool.supernet.members import Members, members_of, up_to
from fnatool.supernet.slices import slicing
from passes import Spec, UserError, apply, plan
from passes.space.space import SKIP, Choices, without_growth
from passes.target.take import Take
from passes.target.width import SELECTIONS

SAME = 1e-4  # of the spread


def features(name: str) -> tuple[str, ...]:
    """What the last stage hands on."""
    return (seed(name)[1].stages[-1].blocks[-1].exit,)


def made(name: str, select: str = "first") -> Members:
    graph, analysis, found = seed(name)
    return members_of(graph, analysis, without_growth(analysis, found), features(name), select=select)


def remapped(name: str, spec: Spec, x: Tensor, select: str) -> Tensor:
    """The features of remap(seed, spec), read by torch, with the statistics of the batch."""
    graph, analysis, _ = seed(name)
    found = plan(analysis, spec, select=select)
    exit_ = [
        placed.node.outputs[0] for placed in found.nodes if placed.source == analysis.view.producer[features(name)[0]]
    ]
    (ends,) = exit_ if len(exit_) == 1 else exit_[-1:]
    reading = Reading(up_to(apply(graph, found), [ends]))
    (value,) = reading({weight.name: reading.initial(weight) for weight in reading.weights}, [x], norms="batch")
    return value


def some(found: Choices, count: int) -> list[tuple[int, ...]]:
    return [sample(found, uniform(found), seed=4, step=k) for k in range(count)]


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / (other.max() - other.min()).clamp(min=1e-12))


@pytest.mark.parametrize("select", SELECTIONS)
@pytest.mark.parametrize("name", ["residual", "gated", "smooth"])
def test_a_member_has_the_features_of_the_remap_by_the_same_selection(name: str, select: str) -> None:
    members, x = made(name, select), images(name, 4)
    for member in some(members.choices, 4):
        if member[-1] == SKIP:
            continue  # then the stage ends in another block
        (own,) = members.after(0, member, members.start([x]))
        assert apart(own, remapped(name, members.choices.spec(member), x, select)) <= SAME


def test_selections_differ() -> None:
    members = [made("residual", select) for select in ("first", "l1")]
    x = images("residual", 4)
    smallest = tuple(0 for _ in members[0].choices.blocks)
    (first,), (l1,) = ([*one.after(0, smallest, one.start([x]))] for one in members)
    assert apart(first, l1) > 0.01


@pytest.mark.parametrize("name", SEEDS)
def test_what_is_behind_a_block_gives_the_bits_of_the_whole(name: str) -> None:
    members, x = made(name), images(name, 3)
    own = members.choices.largest()
    state = members.start([x])
    for segment in members.segments:
        if segment.block is not None:
            for member in some(members.choices, 3):
                changed = (*own[: segment.block], member[segment.block], *own[segment.block + 1 :])
                before = {key: value.clone() for key, value in state.items()}
                (part,), (whole,) = (
                    members.after(segment.number, changed, state),
                    members.after(0, changed, members.start([x])),
                )
                assert torch.equal(part, whole)
                assert all(torch.equal(state[key], value) for key, value in before.items())
        members.step(segment, own, state)


def test_a_head_is_not_run() -> None:
    members = made("residual")
    run = {node for segment in members.segments for node in segment.nodes}
    assert run
    assert not run & {"pool", "flat", "y"}


def test_a_slice_beside_the_right_one_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def beside(take: Take):  # type: ignore[no-untyped-def]
        cut = slicing(take)
        return lambda tensor: cut(tensor.flip(0))

    monkeypatch.setattr(variants, "slicing", beside)
    members, x = made("residual", "l1"), images("residual", 4)
    smallest = tuple(0 for _ in members.choices.blocks)
    (own,) = members.after(0, smallest, members.start([x]))
    assert apart(own, remapped("residual", members.choices.spec(smallest), x, "l1")) > SAME


def test_a_tensor_that_is_not_there_is_named() -> None:
    graph, analysis, found = seed("residual")
    with pytest.raises(UserError, match="computes no tensor 'nothing'"):
        sliced.members_of(graph, analysis, found, ["nothing"])
