"""Plans: where every target value comes from, and what is fresh."""

from __future__ import annotations

import tracemalloc

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from nets import Net, bundled, graph
from plans import arrays, blocks, bound, chain, indices, marked, remapped, seed

from passes import Spec, UserError, analyse, apply, plan
from passes.graph.view import view

# --- the fna rules: width ------------------------------------------------------------------------


def test_narrowing_keeps_the_first_channels() -> None:
    made = chain()
    _, found, target = remapped(made, {"node:c1.width": 4})
    old, new = arrays(made), arrays(target)
    assert indices(found, "c1.w") == {0: [0, 1, 2, 3]}
    assert indices(found, "c2.w") == {1: [0, 1, 2, 3]}
    np.testing.assert_array_equal(new["c1.w"], old["c1.w"][:4])
    np.testing.assert_array_equal(new["c2.w"], old["c2.w"][:, :4])
    for part in ("gamma", "beta", "mean", "var"):
        np.testing.assert_array_equal(new[f"c1.n.{part}"], old[f"c1.n.{part}"][:4])


def test_widening_copies_the_overlap_and_adds_a_little_noise() -> None:
    made = chain()
    _, found, target = remapped(made, {"node:c1.width": 9})
    old, new = arrays(made), arrays(target)
    assert indices(found, "c1.w") == {0: [0, 1, 2, 3, 4, 5, -1, -1, -1]}
    np.testing.assert_array_equal(new["c1.w"][:6], old["c1.w"])
    np.testing.assert_array_equal(new["c2.w"][:, :6], old["c2.w"])
    for fresh, fan_in in ((new["c1.w"][6:], 27), (new["c2.w"][:, 6:], 81)):
        assert 0.5 * bound(fan_in) < np.abs(fresh).max() <= bound(fan_in)
        assert (fresh != 0).all()


def test_fresh_entries_of_a_normalisation_are_neutral() -> None:
    made = chain()
    _, _, target = remapped(made, {"node:c2.width": 10})
    new = arrays(target)
    fresh = {part: new[f"c2.n.{part}"][[4, 9]].tolist() for part in ("gamma", "beta", "mean", "var")}
    assert fresh == {"gamma": [1, 1], "beta": [0, 0], "mean": [0, 0], "var": [1, 1]}
    assert new["c2.b"][[4, 9]].tolist() == [0, 0]


def test_groups_grow_by_the_same_number_of_channels() -> None:
    made = chain()
    _, found, target = remapped(made, {"node:c2.width": 12, "node:c3.width": 6})
    assert indices(found, "c3.w") == {0: [0, 1, -1, 2, 3, -1], 1: [0, 1, 2, 3, -1, -1]}
    assert indices(found, "c2.w") == {0: [0, 1, 2, 3, -1, -1, 4, 5, 6, 7, -1, -1]}
    assert indices(found, "fc.w") == {1: [0, 1, -1, 2, 3, -1]}
    assert arrays(target)["c3.w"].shape == (6, 6, 3, 3)


def test_a_depthwise_convolution_changes_its_groups() -> None:
    made, analysis = seed()
    target = apply(made, plan(analysis, Spec({"stage1.block0.hidden": 80})))
    node = view(target).by_name["blocks.1.dw"]
    assert node.attrs["group"] == 80
    assert view(target).values(node.inputs[1]).shape == (80, 1, 3, 3)


def test_an_unchanged_network_plans_nothing() -> None:
    made = chain()
    _, found, target = remapped(made, {})
    assert found.identity
    assert found.drifts == ()
    assert [(node.op, node.inputs) for node in view(target).nodes] == [
        (node.op, node.inputs) for node in view(made).nodes
    ]


# --- the fna rules: kernel ----------------------------------------------------------------------


def test_a_larger_kernel_has_the_seed_s_taps_in_its_centre_and_zeros_around() -> None:
    made = chain()
    _, found, target = remapped(made, {"node:c1.kernel": 7})
    assert indices(found, "c1.w") == {2: [-1, -1, 0, 1, 2, -1, -1], 3: [-1, -1, 0, 1, 2, -1, -1]}
    old, new = arrays(made)["c1.w"], arrays(target)["c1.w"]
    np.testing.assert_array_equal(new[:, :, 2:5, 2:5], old)
    assert np.count_nonzero(new) == np.count_nonzero(old)
    attrs = view(target).by_name["c1"].attrs
    assert (attrs["kernel_shape"], attrs["pads"]) == ([7, 7], [3, 3, 3, 3])


def test_a_smaller_kernel_is_the_centre() -> None:
    net = Net()
    net.classifier(net.conv("x", "c", 6, 7))
    made = net.graph()
    _, found, target = remapped(made, {"node:c.kernel": 3})
    assert indices(found, "c.w") == {2: [2, 3, 4], 3: [2, 3, 4]}
    np.testing.assert_array_equal(arrays(target)["c.w"], arrays(made)["c.w"][:, :, 2:5, 2:5])
    assert view(target).by_name["c"].attrs["pads"] == [1, 1, 1, 1]


def test_an_axis_of_one_tap_stays_one_and_dilation_spreads_the_pads() -> None:
    made = graph(
        """g (float[1,3,9,9] x) => (float[1,5,9,9] y) {
            c = Conv <pads = [0,2,0,2], dilations = [1,2]> (x, w)
            y = Conv (c, v)
        }""",
        {"w": (6, 3, 1, 3), "v": (5, 6, 1, 1)},
    )
    _, found, target = remapped(made, {"node:c.kernel": 5})
    assert indices(found, "w") == {3: [-1, 0, 1, 2, -1]}
    assert view(target).by_name["c"].attrs["pads"] == [0, 4, 0, 4]


def test_fresh_channels_of_a_larger_kernel_have_zeros_around_too() -> None:
    made = chain()
    _, _, target = remapped(made, {"node:c1.kernel": 5, "node:c1.width": 8}, strategy="preserve")
    border = arrays(target)["c1.w"].copy()
    border[:, :, 1:4, 1:4] = 0
    assert not border.any()


# --- the fna rules: depth -----------------------------------------------------------------------


def test_layer_i_takes_the_parameters_of_the_seed_s_layer_i_or_its_last() -> None:
    made, analysis = seed()
    found = plan(analysis, Spec({"stage1.depth": 4}))
    placed = {(p.place.block, p.place.source) for p in found.nodes if p.place is not None and p.place.stage == 1}
    assert placed == {(0, 0), (1, 1), (2, 1), (3, 1)}
    target = arrays(apply(made, found))
    copies = [take for take in found.takes if take.target != take.source]
    assert len(copies) == 2 * 15  # three convolutions and twelve tensors of their normalisations each
    for take in copies:
        np.testing.assert_array_equal(target[take.target], arrays(made)[take.source])


def test_a_shallower_stage_drops_its_last_blocks() -> None:
    made = blocks(3)
    analysis, found, target = remapped(made, {"stage0.depth": 1})
    kept = {node.name for node in view(target).nodes}
    assert kept == {node.name for node in analysis.view.nodes} - {
        n for b in analysis.stages[0].blocks[1:] for n in b.nodes
    }
    assert view(target).by_name["pool"].inputs == ("s0",)
    assert any("drops 2 of 3 blocks" in why for why in found.drifts)


def test_a_block_may_come_from_any_other() -> None:
    made = blocks(2)
    _, found, target = remapped(made, {"stage0.depth": 3, "stage0.block1.from": 0, "stage0.block2.from": 1})
    seen = view(target)
    assert found.origin()["e0_copy"] == "e0"
    assert [node.name for node in seen.nodes if node.op == "Add"] == ["s0", "s0_copy", "s1"]
    assert seen.producer[seen.by_name["e1"].inputs[0]] == "s0_copy"
    assert seen.by_name["pool"].inputs == ("s1",)


def test_copied_blocks_have_weights_of_their_own() -> None:
    _, _, target = remapped(blocks(1), {"stage0.depth": 3, "stage0.block2.hidden": 7})
    new = arrays(target)
    assert (new["e0.w"].shape[0], new["e0.w_copy"].shape[0], new["e0.w_copy_2"].shape[0]) == (10, 10, 7)


def test_a_graph_output_that_moves_to_a_new_last_block_keeps_its_name() -> None:
    made = blocks(2, pooled=False)
    _, found, target = remapped(made, {"stage0.depth": 3})
    seen = view(target)
    assert seen.outputs == ("y",)
    assert found.origin()[seen.producer["y"]] == "y"
    assert seen.producer["y"] != "y"
    assert found.table[0][-1]["exit"] == "y"
    assert [len(stage.blocks) for stage in analyse(target, table=found.table).stages] == [3]
    onnx.checker.check_model(gs.export_onnx(target), full_check=True)


def test_a_graph_output_that_moves_to_an_earlier_block_keeps_its_name() -> None:
    made = blocks(2, pooled=False)
    _, found, target = remapped(made, {"stage0.depth": 1})
    seen = view(target)
    assert seen.outputs == ("y",)
    assert found.origin()[seen.producer["y"]] == "s0"


# --- preserve -----------------------------------------------------------------------------------


def test_a_fresh_channel_is_heard_by_none_of_the_old_and_by_all_of_the_new() -> None:
    made = chain()
    _, _, target = remapped(made, {"node:c1.width": 9, "node:c2.width": 12}, strategy="preserve")
    new, old = arrays(target), arrays(made)
    fresh = np.isin(np.arange(12), [4, 5, 10, 11])  # c2 is read in two groups
    w = new["c2.w"]
    np.testing.assert_array_equal(w[~fresh][:, :6], old["c2.w"])
    assert not w[~fresh][:, 6:].any()
    assert w[fresh][:, 6:].all()
    assert w[fresh][:, :6].all()


def test_every_path_from_old_to_old_through_something_new_has_exactly_one_zero_factor() -> None:
    net = Net()
    y = net.conv_bn_relu("x", "c1", 3)
    y = net.conv_bn_relu(y, "c2", 3)
    net.classifier(net.conv_bn_relu(y, "c3", 3), 3)
    widths = {"node:c1.width": 5, "node:c2.width": 4, "node:c3.width": 6}
    _, _, target = remapped(net.graph(), widths, strategy="preserve")
    new = arrays(target)
    layers = [new["c2.w"][:, :, 0, 0], new["c3.w"][:, :, 0, 0], new["fc.w"]]
    for a in range(5):
        for b in range(4):
            for c in range(6):
                factors = [
                    *layers[0][b : b + 1, a],
                    *layers[1][c : c + 1, b],
                    *layers[2][:1, c],
                    *new["c1.w"][a, :, 0, 0],
                ]
                expected = 0 if a < 3 and b < 3 and c < 3 else None
                zeros = sum(factor == 0 for factor in factors)
                # old → new → old closes once per excursion: a return to an old channel is where the zero stands
                returns = sum(here >= 3 and there < 3 for here, there in ((a, b), (b, c), (c, 0)))
                assert zeros == returns
                assert expected is None or zeros == expected


def test_a_fresh_producer_copies_the_strongest_channels_with_a_little_noise() -> None:
    made = marked("c1.n.gamma")
    _, _, target = remapped(made, {"node:c1.width": 14}, strategy="preserve")
    old, new = arrays(made), arrays(target)
    models = np.argsort(-old["c1.n.gamma"])
    fresh = np.resize(models, 8)  # from the strongest on, and around again
    assert set(models[:2]) == {1, 4}
    for part in ("gamma", "beta", "mean", "var"):
        np.testing.assert_array_equal(new[f"c1.n.{part}"][6:], old[f"c1.n.{part}"][fresh])
    difference = np.abs(new["c1.w"][6:] - old["c1.w"][fresh]).reshape(8, -1).max(1)
    assert (difference > 0).all()
    assert (difference < 0.1 * old["c1.w"].std()).all()
    assert not np.array_equal(new["c1.w"][6], new["c1.w"][12])  # two copies of one channel differ


def test_a_copied_block_is_silent_in_its_last_affine_only() -> None:
    made = blocks(1)
    _, _, target = remapped(made, {"stage0.depth": 2, "stage0.block1.hidden": 14}, strategy="preserve")
    new = arrays(target)
    assert not new["l0.n.gamma_copy"].any()
    assert not new["l0.n.beta_copy"].any()
    assert new["e0.w_copy"].shape[0] == 14
    assert new["e0.w_copy"].all()
    assert new["l0.w_copy"].all()  # its own new channels are heard inside: one zero factor is enough
    np.testing.assert_array_equal(new["l0.w_copy"][:, :10], arrays(made)["l0.w"])


def test_a_block_that_is_no_copy_is_not_silenced() -> None:
    made = blocks(2)
    _, found, target = remapped(made, {"stage0.depth": 3}, strategy="preserve")
    for tensor in ("l0.n.gamma", "l1.n.gamma"):
        np.testing.assert_array_equal(arrays(target)[tensor], arrays(made)[tensor])
    assert sorted(take.target for take in found.takes if take.silent) == ["l1.n.beta_copy", "l1.n.gamma_copy"]


def normalised(kind: str) -> gs.Graph:
    net = Net()
    y = net.conv("x", "c1", 8, 3)
    y = net.op(kind, "n", y, size=3) if kind == "LRN" else net.op(kind, "n", y, axis=1)
    net.classifier(net.conv(y, "c2", 6))
    return net.graph()


@pytest.mark.parametrize(
    ("kind", "reason"), [("LRN", "neighbouring channels"), ("Softmax", "normalises over its channels")]
)
def test_preserve_refuses_growth_that_cannot_be_exact(kind: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        remapped(normalised(kind), {"node:c1.width": 12}, strategy="preserve")
    message = str(caught.value)
    assert message.startswith(f"'node:c1.width' cannot grow from 8 to 12 exactly: 'n' ({kind}) ")
    assert reason in message
    assert message.endswith("use --strategy fna, or --allow-drift to grow it by the fna rule")


def test_preserve_refuses_depth_that_cannot_be_silent() -> None:
    net = Net()
    y = net.conv_bn_relu("x", "stem", 6, 3)
    net.classifier(net.op("Add", "s", y, net.conv_bn_relu(y, "a", 6, 3)))
    with pytest.raises(
        UserError,
        match=r"'stage0.depth' cannot grow exactly: block 1 copies the seed's block 0, and the branch ends in "
        r"'a.n.r' \(Relu\)",
    ):
        remapped(net.graph(), {"stage0.depth": 2}, strategy="preserve")


def test_allowed_drift_grows_by_the_fna_rule_and_is_stated() -> None:
    made = normalised("LRN")
    _, found, target = remapped(made, {"node:c1.width": 12}, strategy="preserve", allow_drift=True)
    assert found.drifts == (
        "'node:c1.width' cannot grow from 8 to 12 exactly: 'n' (LRN) looks at neighbouring channels",
    )
    fresh = arrays(target)["c1.w"][8:]
    assert 0 < np.abs(fresh).max() <= bound(27)


def test_narrowing_what_is_normalised_over_channels_is_stated() -> None:
    _, found, _ = remapped(normalised("LRN"), {"node:c1.width": 4}, strategy="preserve")
    assert found.drifts == ("node:c1.width shrinks from 8 to 4: 'n' (LRN) looks at neighbouring channels",)


def test_growth_by_the_fna_rule_is_stated() -> None:
    _, found, _ = remapped(blocks(1), {"stage0.width": 8, "stage0.depth": 2})
    assert set(found.drifts) == {
        "stage0.depth grows from 1 to 2 by the fna rule",
        "stage0.width grows from 6 to 8 by the fna rule",
    }


# --- same seed, same bytes ----------------------------------------------------------------------


def content(strategy: str, rng_seed: int) -> bytes:
    _, _, target = remapped(chain(), {"node:c*.width": "x2"}, strategy=strategy, seed=rng_seed)
    return bytes(gs.export_onnx(target).SerializeToString())


@pytest.mark.parametrize("strategy", ["fna", "preserve"])
def test_the_same_seed_gives_the_same_bytes_and_another_one_others(strategy: str) -> None:
    assert content(strategy, 0) == content(strategy, 0)
    assert content(strategy, 0) != content(strategy, 1)


def test_the_noise_of_a_tensor_does_not_depend_on_the_rest_of_the_spec() -> None:
    one = arrays(remapped(chain(), {"node:c1.width": 9})[2])["c1.w"]
    other = arrays(remapped(chain(), {"node:c1.width": 9, "node:c2.kernel": 5})[2])["c1.w"]
    np.testing.assert_array_equal(one, other)


# --- the graph given ----------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["fna", "preserve"])
def test_the_arrays_of_the_graph_given_are_never_written(strategy: str) -> None:
    made = blocks(2)
    before = {name: array.copy() for name, array in arrays(made).items()}
    nodes = [(node.name, node.inputs, dict(node.attrs)) for node in view(made).nodes]
    for array in arrays(made).values():
        array.flags.writeable = False  # a write would raise
    remapped(made, {"stage0.width": 9, "stage0.depth": 4, "stage0.block0.hidden": 6, "**.kernel": 5}, strategy=strategy)
    assert [(node.name, node.inputs, dict(node.attrs)) for node in view(made).nodes] == nodes
    for name, array in arrays(made).items():
        np.testing.assert_array_equal(array, before[name])


def test_what_does_not_change_is_shared_with_the_graph_given() -> None:
    made = chain()
    given = arrays(made)
    _, _, target = remapped(made, {"node:c3.kernel": 5})
    assert np.shares_memory(given["c1.w"], arrays(target)["c1.w"])


def test_an_enormous_target_is_refused_before_memory_is_taken() -> None:
    with pytest.raises(UserError, match=r"the target would hold \d+ GiB of weights"):
        remapped(chain(), {"node:c1.width": 65536, "node:c2.width": 65536})


def test_an_enormous_target_is_refused_before_its_positions_take_memory() -> None:
    """256 blocks of 65536 channels: their index tables alone are gigabytes."""
    analysis = analyse(bundled())
    tracemalloc.start()
    with pytest.raises(UserError, match=r"the target would hold \d+ GiB of weights, or more"):
        plan(analysis, Spec({"stage2.depth": 256, "stage2.width": 65536, "stage2.*.hidden": 65536}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**27


# --- the order of nodes -------------------------------------------------------------------------


def test_copies_keep_the_order_of_nodes_of_the_block_they_copy() -> None:
    net = Net()
    y = net.conv_bn_relu("x", "stem", 6, 3)
    short, long = net.conv_bn(y, "short", 6), net.conv_bn(net.conv_bn_relu(y, "l1", 6, 3), "l2", 6)
    net.classifier(net.op("Add", "s", y, net.op("Add", "both", short, long)))
    target = remapped(net.graph(), {"stage0.depth": 3})[2]
    names = [node.name for node in target.nodes]
    block = [name for name in names if f"{name}_copy" in names]
    assert len(block) == 9
    for suffix in ("_copy", "_copy_2"):
        assert [name for name in names if name.endswith(suffix)] == [f"{name}{suffix}" for name in block]
