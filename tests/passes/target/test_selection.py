"""Which channels survive where a network gets narrower: a ranking, the same everywhere."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from plans import arrays, blocks, chain, checked, indices, marked, remapped

from fnatool.runtime.verify import verify
from passes import Spec, UserError, analyse, plan
from passes.graph.view import view


@pytest.mark.parametrize(("select", "part"), [("l1", "c1.w"), ("std", "c1.w"), ("bn", "c1.n.gamma")])
def test_a_ranking_keeps_the_same_channels_everywhere(select: str, part: str) -> None:
    made = marked(part)
    _, found, target = remapped(made, {"node:c1.width": 2}, select=select)
    for tensor, axis in (
        ("c1.w", 0),
        ("c1.n.gamma", 0),
        ("c1.n.beta", 0),
        ("c1.n.mean", 0),
        ("c1.n.var", 0),
        ("c2.w", 1),
    ):
        assert indices(found, tensor) == {axis: [1, 4]}
        np.testing.assert_array_equal(arrays(target)[tensor], arrays(made)[tensor].take([1, 4], axis))


@pytest.mark.parametrize("select", ["l1", "std", "bn"])
def test_a_ranking_bears_weights_that_are_not_finite(select: str) -> None:
    made = chain()
    for name, values in view(made).constants.items():
        if name in ("c1.w", "c1.n.gamma"):
            values.values.reshape(-1)[0] = np.inf
    found = plan(analyse(made), Spec({"node:c1.width": 4}), select=select)
    (kept,) = (take.axes[0].index.tolist() for take in found.takes if take.target == "c1.w")
    assert len(kept) == 4


@pytest.mark.parametrize("select", ["first", "bn", "l1", "std"])
def test_what_survives_a_ranking_computes_what_the_masked_seed_does(select: str) -> None:
    result = checked(
        chain(), {"node:c1.width": 3, "node:c2.width": 6, "node:c3.width": "-0"}, strategy="preserve", select=select
    )
    assert result.exact
    assert result.worst <= result.tolerance


def test_a_consumer_that_keeps_other_channels_is_noticed() -> None:
    made = marked("c1.w")
    analysis, found, target = remapped(made, {"node:c1.width": 2}, strategy="preserve", select="l1")
    for node in target.nodes:
        for slot, tensor in enumerate(node.inputs):
            if tensor.name == "c2.w":
                # as if it ranked for itself
                node.inputs[slot] = gs.Constant("c2.w", np.ascontiguousarray(arrays(made)["c2.w"][:, :2]))
    result = verify(made, target, analysis, found)
    assert result.first is not None
    assert result.first.node == "c2"


def test_a_producer_that_keeps_other_channels_is_noticed() -> None:
    made = marked("c1.w")
    analysis, found, target = remapped(made, {"node:c1.width": 2}, strategy="preserve", select="l1")
    for node in target.nodes:
        for slot, tensor in enumerate(node.inputs):
            if tensor.name == "c1.w":
                node.inputs[slot] = gs.Constant("c1.w", np.array(arrays(made)["c1.w"][:2]))
    result = verify(made, target, analysis, found)
    assert result.first is not None
    assert result.first.node == "c1"


def test_a_ranking_counts_every_member_of_a_residual_trunk() -> None:
    _, found, _ = remapped(blocks(2), {"stage0.width": 3}, select="l1")
    kept = indices(found, "stem.w")[0]
    assert len(kept) == 3
    assert indices(found, "l0.w")[0] == kept
    assert indices(found, "l1.w")[0] == kept
    assert indices(found, "e1.w")[1] == kept


@pytest.mark.parametrize(("what", "how"), [("strategy", {"strategy": "other"}), ("selection", {"select": "other"})])
def test_an_unknown_way_lists_the_known_ones(what: str, how: dict[str, str]) -> None:
    with pytest.raises(UserError, match=f"{what} 'other' is not one of "):
        remapped(chain(), {}, **how)
