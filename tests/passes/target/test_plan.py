"""Plans: where every target value comes from, what is fresh, and that growth which must be exact is, on inner values."""

from __future__ import annotations

import functools
import tracemalloc
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from nets import Net, bundled, graph, named
from onnx import TensorProto, numpy_helper

from fnatool.runtime.verify import Verification, verify
from passes import Analysis, Plan, Spec, UserError, analyse, apply, plan
from passes.graph.view import view
from passes.network.cost import cost

Knobs = Mapping[str, int | str]


@functools.cache
def seed() -> tuple[gs.Graph, Analysis]:
    made = bundled()
    return made, analyse(made)


def chain() -> gs.Graph:
    """x → c1 (6) → c2 (8) → c3 (4, grouped in 2) → classifier, each with BatchNormalization and Relu."""
    net = Net()
    y = net.conv_bn_relu("x", "c1", 6, 3)
    y = net.conv_bn_relu(y, "c2", 8, 3, bias=True)
    y = net.conv_bn_relu(y, "c3", 4, 3, group=2)
    net.classifier(y)
    return net.graph()


def blocks(count: int = 2, *, pooled: bool = True) -> gs.Graph:
    """A stem and residual blocks of hidden width 10 at width 6."""
    net = Net()
    y = net.conv_bn_relu("x", "stem", 6, 3)
    for k in range(count):
        hidden = net.conv_bn_relu(y, f"e{k}", 10, 3)
        y = net.op("Add", f"s{k}" if pooled or k < count - 1 else "y", y, net.conv_bn(hidden, f"l{k}", 6))
    if pooled:
        net.classifier(y)
    return net.graph()


def remapped(made: gs.Graph, knobs: Knobs, **how: object) -> tuple[Analysis, Plan, gs.Graph]:
    analysis = analyse(made)
    found = plan(analysis, Spec(knobs), **how)  # type: ignore[arg-type]
    return analysis, found, apply(made, found)


def arrays(made: gs.Graph) -> dict[str, np.ndarray]:
    seen = view(made)
    return {name: seen.values(name) for name in seen.constants}


def indices(found: Plan, tensor: str) -> dict[int, list[int]]:
    take = next(take for take in found.takes if take.target == tensor)
    return {axis: along.index.tolist() for axis, along in take.axes.items()}


def bound(fan_in: int) -> float:
    """1e-5 · kaiming_uniform (FNA++, issue 18)."""
    return 1e-5 * float(np.sqrt(6 / fan_in))


# --- the fna rules: width -----------------------------------------------------------------------------------------------------------------


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
    assert [(node.op, node.inputs) for node in view(target).nodes] == [(node.op, node.inputs) for node in view(made).nodes]


# --- the fna rules: kernel ----------------------------------------------------------------------------------------------------------------


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


# --- the fna rules: depth -----------------------------------------------------------------------------------------------------------------


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
    assert kept == {node.name for node in analysis.view.nodes} - {n for b in analysis.stages[0].blocks[1:] for n in b.nodes}
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


# --- preserve -----------------------------------------------------------------------------------------------------------------------------


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
                factors = [*layers[0][b : b + 1, a], *layers[1][c : c + 1, b], *layers[2][:1, c], *new["c1.w"][a, :, 0, 0]]
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


@pytest.mark.parametrize(("kind", "reason"), [("LRN", "neighbouring channels"), ("Softmax", "normalises over its channels")])
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
        UserError, match=r"'stage0.depth' cannot grow exactly: block 1 copies the seed's block 0, and the branch ends in 'a.n.r' \(Relu\)"
    ):
        remapped(net.graph(), {"stage0.depth": 2}, strategy="preserve")


def test_allowed_drift_grows_by_the_fna_rule_and_is_stated() -> None:
    made = normalised("LRN")
    _, found, target = remapped(made, {"node:c1.width": 12}, strategy="preserve", allow_drift=True)
    assert found.drifts == ("'node:c1.width' cannot grow from 8 to 12 exactly: 'n' (LRN) looks at neighbouring channels",)
    fresh = arrays(target)["c1.w"][8:]
    assert 0 < np.abs(fresh).max() <= bound(27)


def test_narrowing_what_is_normalised_over_channels_is_stated() -> None:
    _, found, _ = remapped(normalised("LRN"), {"node:c1.width": 4}, strategy="preserve")
    assert found.drifts == ("node:c1.width shrinks from 8 to 4: 'n' (LRN) looks at neighbouring channels",)


def test_growth_by_the_fna_rule_is_stated() -> None:
    _, found, _ = remapped(blocks(1), {"stage0.width": 8, "stage0.depth": 2})
    assert set(found.drifts) == {"stage0.depth grows from 1 to 2 by the fna rule", "stage0.width grows from 6 to 8 by the fna rule"}


# --- exact, on inner values ---------------------------------------------------------------------------------------------------------------


def checked(made: gs.Graph, knobs: Knobs, **how: object) -> Verification:
    analysis, found, target = remapped(made, knobs, **how)
    return verify(made, target, analysis, found)


SIZES = {
    "reshape": """r = Reshape (a, split)
            t = Transpose <perm = [0,2,1,3,4]> (r)
            b = Reshape (t, back)""",
    "merge": """r = Reshape (a, flat)
            b = Reshape (r, back)""",
    "split": """p, q = Split <axis = 1> (a, halves)
            b = Concat <axis = 1> (q, p)""",
    "slice": """p = Slice (a, zero, four, one)
            q = Slice (a, four, all, one)
            b = Concat <axis = 1> (q, p)""",
    "slice from the end": """p = Slice (a, zero, last, one)
            q = Slice (a, last, all, one)
            b = Concat <axis = 1> (q, p)""",
    "gather": "b = Gather <axis = 1> (a, picks)",
    "expand": """g = GlobalAveragePool (a)
            e = Expand (g, back)
            b = Mul (a, e)""",
    "resize": 'b = Resize <mode = "nearest"> (a, nothing, nothing, back)',
}


def sized(name: str) -> gs.Graph:
    """x → a (8 channels) → the operators that know its size → b → c2 → y."""
    text = SIZES[name].replace("nothing", "")
    constants = {
        "split": [1, 2, 4, 6, 6], "back": [1, 8, 6, 6], "flat": [1, 8, 36], "halves": [4, 4], "zero": [0], "one": [1], "four": [4],
        "all": [1 << 40], "last": [-3], "picks": [3, 0, 7, 5, 6],
    }  # fmt: skip
    used = {key: np.array(value, np.int64) for key, value in constants.items() if key in text}
    return graph(
        f"""g (float[1,3,6,6] x) => (float[1,5,6,6] y) {{
            a = Conv (x, w)
            {text}
            c = Conv (b, v)
            d = Relu (c)
            y = Conv (d, u)
        }}""",
        {"w": (8, 3, 1, 1), "v": (6, 5 if name == "gather" else 8, 1, 1), "u": (5, 6, 1, 1), **used},
    )


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("factor", ["x2", "x0.5"])
def test_sizes_written_in_the_graph_follow_the_channels(name: str, factor: str) -> None:
    made = sized(name)
    analysis, found, target = remapped(made, {"node:a.*": factor}, strategy="preserve")
    wider = sum(knob.name.startswith("node:a.width") for knob in analysis.knobs.values())
    assert wider >= 1
    result = verify(made, target, analysis, found)
    assert result.exact
    assert result.worst <= result.tolerance
    onnx.checker.check_model(gs.export_onnx(target), full_check=True)
    assert arrays(target)["w"].shape[0] == {"x2": 16, "x0.5": 4}[factor]


@pytest.mark.parametrize("part", [0, 1])
def test_one_half_of_a_split_changes_alone(part: int) -> None:
    made = sized("split")
    name = ["node:a.width", "node:a.width2"][part]
    analysis, found, target = remapped(made, {name: 7}, strategy="preserve")
    sizes = [4, 4]
    sizes[part] = 7
    assert arrays(target)["halves"].tolist() == sizes
    assert verify(made, target, analysis, found).first is None


def test_a_number_that_counts_nothing_stays() -> None:
    made = sized("slice")
    _, _, target = remapped(made, {"node:a.*": "x2"}, strategy="preserve")
    new = arrays(target)
    assert new["one"].tolist() == [1]
    assert new["zero"].tolist() == [0]
    assert new["all"].tolist() == [1 << 40]


EXACT: list[tuple[str, Knobs]] = [
    ("width", {"stage2.width": 40}),
    ("hidden", {"stage2.block1.hidden": 224}),
    ("kernel", {"**.kernel": 5}),
    ("depth", {"stage1.depth": 4, "stage5.depth": 4}),
    ("all", {"stage*.width": "x1.25", "**.hidden": "x1.1", "stage3.*.kernel": 7, "stage4.depth": "+2"}),
    ("node", {"node:stem.width": 40, "node:head.width": 1300}),
    ("narrowing", {"stage3.width": 48, "stage4.block1.hidden": 400}),
    ("both ways", {"stage3.width": 48, "stage5.width": 200, "stage2.depth": 4}),
]


@pytest.mark.parametrize("knobs", [row[1] for row in EXACT], ids=[row[0] for row in EXACT])
def test_the_bundled_seed_keeps_its_inner_values(knobs: Knobs) -> None:
    made, analysis = seed()
    found = plan(analysis, Spec(knobs), strategy="preserve")
    result = verify(made, apply(made, found), analysis, found)
    assert result.exact
    assert len(result.drifts) > 50
    assert result.worst <= result.tolerance


def planted(made: gs.Graph, weight: str, axis: int) -> Verification:
    """Widen everything exactly, then exchange two entries of one weight of the target."""
    analysis, found, target = remapped(made, {"node:c*.width": "x2"}, strategy="preserve")
    assert verify(made, target, analysis, found).first is None
    for node in target.nodes:
        for slot, tensor in enumerate(node.inputs):
            if tensor.name == weight:
                values = np.array(tensor.values)
                order = np.arange(values.shape[axis])
                order[[0, 1]] = order[[1, 0]]
                node.inputs[slot] = gs.Constant(weight, np.ascontiguousarray(values.take(order, axis)))
    return verify(made, target, analysis, found)


@pytest.mark.parametrize(
    ("weight", "axis", "node"),
    [*((f"{node}.w", axis, node) for node in ("c1", "c2", "c3") for axis in (0, 1)), ("c1.n.gamma", 0, "c2")],
)
def test_two_exchanged_entries_of_a_weight_are_noticed_and_the_node_is_named(weight: str, axis: int, node: str) -> None:
    result = planted(chain(), weight, axis)
    assert result.first is not None
    assert result.first.node == node
    assert result.first.relative > 10 * result.tolerance


def test_a_copied_block_that_is_heard_is_noticed() -> None:
    made = blocks(2)
    analysis, found, target = remapped(made, {"stage0.depth": 3}, strategy="preserve")
    assert verify(made, target, analysis, found).first is None
    for node in target.nodes:
        for slot, tensor in enumerate(node.inputs):
            if tensor.name == "l1.n.gamma_copy":
                node.inputs[slot] = gs.Constant(tensor.name, np.full(tensor.shape, 0.1, np.float32))
    result = verify(made, target, analysis, found)
    assert result.first is not None
    assert result.first.node == "y"


def half(made: onnx.ModelProto) -> gs.Graph:
    """The same network in 16 bits."""
    for tensor in made.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for info in (*made.graph.input, *made.graph.output):
        info.type.tensor_type.elem_type = TensorProto.FLOAT16
    return named(made)


def test_half_precision_stays_half_precision_and_exact() -> None:
    net = Net()
    y = net.conv_bn_relu("x", "stem", 6, 3)
    hidden = net.conv_bn_relu(y, "e", 10, 3)
    net.classifier(net.op("Add", "s", y, net.conv_bn(hidden, "l", 6)))
    made = half(net.model())
    analysis, found, target = remapped(made, {"stage0.width": 9, "stage0.block0.hidden": 16, "stage0.depth": 2}, strategy="preserve")
    assert {array.dtype for array in arrays(target).values()} == {np.dtype(np.float16)}
    result = verify(made, target, analysis, found)
    assert result.exact
    assert result.worst <= result.tolerance


def test_fresh_fna_noise_survives_half_precision() -> None:
    net = Net()
    net.classifier(net.conv_bn_relu(net.conv_bn_relu("x", "c1", 6, 3), "c2", 8, 3))
    _, _, target = remapped(half(net.model()), {"node:c1.width": 9})
    fresh = arrays(target)["c1.w"][6:]
    assert fresh.dtype == np.float16
    assert np.count_nonzero(fresh) > fresh.size // 2


# --- which channels survive ---------------------------------------------------------------------------------------------------------------


def marked(part: str) -> gs.Graph:
    """The chain with channels 1 and 4 of c1 far larger than the others in one of its tensors."""
    made = chain()
    for node in made.nodes:
        for slot, tensor in enumerate(node.inputs):
            if tensor.name == part:
                values = np.array(tensor.values)
                values[[1, 4]] *= 50
                node.inputs[slot] = gs.Constant(tensor.name, values)
    return made


@pytest.mark.parametrize(("select", "part"), [("l1", "c1.w"), ("std", "c1.w"), ("bn", "c1.n.gamma")])
def test_a_ranking_keeps_the_same_channels_everywhere(select: str, part: str) -> None:
    made = marked(part)
    _, found, target = remapped(made, {"node:c1.width": 2}, select=select)
    for tensor, axis in (("c1.w", 0), ("c1.n.gamma", 0), ("c1.n.beta", 0), ("c1.n.mean", 0), ("c1.n.var", 0), ("c2.w", 1)):
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
    result = checked(chain(), {"node:c1.width": 3, "node:c2.width": 6, "node:c3.width": "-0"}, strategy="preserve", select=select)
    assert result.exact
    assert result.worst <= result.tolerance


def test_a_consumer_that_keeps_other_channels_is_noticed() -> None:
    made = marked("c1.w")
    analysis, found, target = remapped(made, {"node:c1.width": 2}, strategy="preserve", select="l1")
    for node in target.nodes:
        for slot, tensor in enumerate(node.inputs):
            if tensor.name == "c2.w":
                node.inputs[slot] = gs.Constant("c2.w", np.ascontiguousarray(arrays(made)["c2.w"][:, :2]))  # as if it ranked for itself
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


# --- same seed, same bytes ----------------------------------------------------------------------------------------------------------------


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


# --- the graph given --------------------------------------------------------------------------------------------------------------------


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


# --- what it costs ------------------------------------------------------------------------------------------------------------------------


def test_a_network_costs_what_its_convolutions_multiply() -> None:
    analysis = analyse(chain())
    pixels = 8 * 8
    assert analysis.cost.macs == pixels * 9 * (3 * 6 + 6 * 8 + 4 * 4) + 4 * 5
    weights = 6 * 27 + 8 * 54 + 8 + 4 * 36 + 4 * 5 + 5
    assert analysis.cost.params == weights + 2 * (6 + 8 + 4)  # running statistics are not parameters


def test_a_free_image_size_leaves_the_multiplications_unknown() -> None:
    made = chain()
    made.inputs[0].shape = [1, 3, "H", "W"]
    analysis = analyse(made)
    assert analysis.cost.macs is None
    assert analysis.cost.params == analyse(chain()).cost.params


def test_a_transposed_convolution_spreads_every_input() -> None:
    made = graph("g (float[1,4,5,5] x) => (float[1,6,10,10] y) { y = ConvTranspose <strides = [2,2]> (x, w) }", {"w": (4, 6, 2, 2)})
    analysis = analyse(made)
    assert cost(analysis.view, analysis.shapes).macs == 5 * 5 * 4 * 6 * 4


def test_the_bundled_seed_costs_what_mobilenetv2_does() -> None:
    _, analysis = seed()
    convolutions = sum(macs for name, macs in analysis.cost.node_macs.items() if analysis.view.by_name[name].op == "Conv")
    assert convolutions * 7**2 == 299_494_272 * 5**2  # 224 is 7 · 32 pixels, 160 is 5 · 32
    assert analysis.cost.params == 3_504_872 - 1000 * 1281 + 19 * 1281  # 19 classes instead of 1000


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
