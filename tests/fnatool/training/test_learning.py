"""What `preserve` adds can learn: gradients reach every fresh entry within two training steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.trials import exact_growth
from fnatool import nn, seeds
from fnatool.files import model as files
from passes import Plan, Spec, analyse, apply, plan
from passes.target.take import Take

Tensors = dict[str, torch.Tensor]


def grown(strategy: str, spec: Spec | None = None) -> tuple[Plan, Tensors, nn.Reading]:
    """The bundled seed with everything exact grown: plan, weights (those that train want gradients), reading."""
    graph = files.read(seeds.DEFAULT).graph
    analysis = analyse(graph)
    made = plan(analysis, spec or exact_growth(analysis), strategy=strategy)
    reading = nn.Reading(apply(graph, made))
    weights = {
        weight.name: reading.initial(weight).requires_grad_(weight.role == "trained") for weight in reading.weights
    }
    return made, weights, reading


def gradients(weights: Tensors, reading: nn.Reading, steps: int) -> list[dict[str, np.ndarray]]:
    """The gradients of each of `steps` steps of plain SGD on one random batch."""
    torch.manual_seed(0)
    images, labels = torch.randn(4, 3, 96, 96), torch.tensor([0, 5, 11, 17])
    trainable = {name: w for name, w in weights.items() if w.requires_grad}
    found = []
    for _ in range(steps):
        loss = F.cross_entropy(reading(weights, [images])[0], labels)
        values = torch.autograd.grad(loss, list(trainable.values()))
        found.append({name: value.numpy() for name, value in zip(trainable, values, strict=True)})
        with torch.no_grad():
            for weight, value in zip(trainable.values(), values, strict=True):
                weight -= 1e-2 * value
    return found


def fresh(take: Take, shape: tuple[int, ...], role: str | None = None) -> np.ndarray:
    """Which entries of the target are fresh along an axis of that role."""
    mask = np.zeros(shape, bool)
    for axis, along in take.axes.items():
        if role is None or along.role == role:
            mask[(slice(None),) * axis + (along.index < 0,)] = True
    return mask


@pytest.fixture(scope="module")
def preserved() -> tuple[Plan, list[dict[str, np.ndarray]]]:
    made, weights, reading = grown("preserve")
    return made, gradients(weights, reading, 2)


def test_every_new_outgoing_weight_has_a_gradient_in_the_first_step(
    preserved: tuple[Plan, list[dict[str, np.ndarray]]],
) -> None:
    made, (first, _) = preserved
    outgoing = {
        t.target: fresh(t, first[t.target].shape, "consumes")
        for t in made.takes
        if t.target in first and not t.inside_silent
    }
    outgoing = {name: mask for name, mask in outgoing.items() if mask.any()}
    assert len(outgoing) > 30
    assert [name for name, mask in outgoing.items() if not np.abs(first[name][mask]).max() > 0] == []


def test_every_silenced_affine_has_a_gradient_in_the_first_step(
    preserved: tuple[Plan, list[dict[str, np.ndarray]]],
) -> None:
    made, (first, _) = preserved
    silent = [take.target for take in made.takes if take.silent]
    assert len(silent) == 10  # γ and β of five copied blocks
    assert [name for name in silent if not np.abs(first[name]).max() > 0] == []


def test_every_new_entry_and_every_copied_tensor_has_a_gradient_in_the_second_step(
    preserved: tuple[Plan, list[dict[str, np.ndarray]]],
) -> None:
    made, (_, second) = preserved
    dead = []
    for take in made.takes:
        if take.target not in second:
            continue
        mask = fresh(take, second[take.target].shape)
        if take.target != take.source:
            mask[...] = True
        if mask.any() and not np.abs(second[take.target][mask]).max() > 0:
            dead.append(take.target)
    assert dead == []


def test_channels_whose_incoming_and_outgoing_weights_are_both_zero_would_be_noticed_as_dead() -> None:
    made, weights, reading = grown("preserve", Spec({"stage3.block1.hidden": 480}))
    with torch.no_grad():
        for take in made.takes:
            if take.target in weights and take.axes:
                weights[take.target][torch.from_numpy(fresh(take, tuple(weights[take.target].shape)))] = 0
    second = gradients(weights, reading, 2)[1]
    assert any(
        np.abs(second[t.target][fresh(t, second[t.target].shape)]).max() == 0
        for t in made.takes
        if t.axes and t.target in second
    )
