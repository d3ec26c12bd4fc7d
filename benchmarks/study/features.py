"""How far a network's features are from the seed's before it has learnt anything, on images that nothing has been
chosen by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fnatool.files import model as files
from fnatool.nn.layers import Norms
from fnatool.nn.reading import Reading
from fnatool.search.preparing import PreparedSearch
from fnatool.search.purposes import LabelledPurpose
from fnatool.supernet.members import up_to
from passes.network.analysis import Analysis

NORMS: tuple[Norms, ...] = ("batch", "running")
Features = Sequence[Sequence[Tensor]]  # batch by batch, the places of each


def features_apart(made: PreparedSearch, model: files.Model, analysis: Analysis) -> dict[str, float]:
    """d as the search by distance has it, but on images kept back, by the statistics of the batch and by the running
    ones.

    None where the network lacks a tensor that is compared or has it in another shape, or where there are no two images.
    """
    if made.purpose.counts[1] < 2:
        return {}
    places = same_places(made, analysis)
    own, other = made.analysis.shapes.shapes, analysis.shapes.shapes
    if any(own.get(a) is None or own.get(a) != other.get(b) for a, b in places):
        return {}
    seed, found = (
        reading(made.model, made.analysis, [a for a, _ in places]),
        reading(model, analysis, [b for _, b in places]),
    )
    purpose = made.purpose
    back = (
        replace(purpose, train=purpose.val)
        if isinstance(purpose, LabelledPurpose)
        else replace(purpose, used=purpose.kept)
    )
    batches = list(back.batches(made.model, made.config, seed, torch.device("cpu"))())
    weights = tuple(made.compared.values())
    return {
        f"features/{norms}": apart(features(found, batches, norms), features(seed, batches, norms), weights)
        for norms in NORMS
    }


def same_places(made: PreparedSearch, analysis: Analysis) -> list[tuple[str, str]]:
    """What is compared in the seed, each with its like in a network: at the exit of a stage that of its last block,
    whichever is left.
    """
    stages, others = made.analysis.stages, analysis.stages
    exits = {stage.blocks[-1].exit: other.blocks[-1].exit for stage, other in zip(stages, others, strict=False)}
    return [(name, exits.get(name, name)) for name in made.compared]


def reading(model: files.Model, analysis: Analysis, names: Sequence[str]) -> Reading:
    """The network up to these tensors."""
    return Reading(
        up_to(model.graph, names), {tensor.name: analysis.shapes.shapes[tensor.name] for tensor in model.graph.inputs}
    )


@torch.no_grad()
def features(of: Reading, batches: Sequence[tuple[Tensor, ...]], norms: Norms) -> Features:
    """What it computes as its outputs."""
    values = {weight.name: of.initial(weight) for weight in of.weights} | of.constants
    return [of(values, batch, norms=norms) for batch in batches]


def apart(found: Features, seed: Features, weights: Sequence[float]) -> float:
    """Σ_s w_s · Σ ‖found − seed‖² / Σ ‖seed − mean seed‖² / Σ_s w_s"""
    total = 0.0
    for place, weight in enumerate(weights):
        a, b = (torch.cat([batch[place] for batch in of]).double() for of in (found, seed))
        total += weight * float((a - b).square().sum() / (b - b.mean(0)).square().sum())
    return total / sum(weights)
