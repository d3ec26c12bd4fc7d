"""Blocks and stages of small networks, and why a block's copy can or cannot be silent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from nets import Net, bundled

from passes import Spec, UserError, apply, own_spec, plan
from passes.graph.view import view
from passes.network.analyse import analyse
from passes.network.analysis import Analysis
from passes.network.stages import stage_table


def depths(analysis: Analysis) -> list[int]:
    return [len(stage.blocks) for stage in analysis.stages]


def kinds(analysis: Analysis) -> list[list[str]]:
    return [[block.kind for block in stage.blocks] for stage in analysis.stages]


# --- what the networks of the field are made of -------------------------------------------------


def basic(net: Net, x: str, name: str, width: int, stride: int = 1) -> str:
    """Two 3×3 convolutions, addition, Relu; a projection where the shape changes (ResNet, 2015)."""
    y = net.conv_bn_relu(x, f"{name}a", width, 3, stride=stride)
    y = net.conv_bn(y, f"{name}b", width, 3)
    if stride > 1 or net.channels[x] != width:
        x = net.conv_bn(x, f"{name}p", width, 1, stride=stride)
    return net.relu(net.op("Add", name, y, x))


def plain(net: Net, x: str, name: str, width: int) -> str:
    """The same without an activation after the addition."""
    y = net.conv_bn_relu(x, f"{name}a", width, 3)
    return net.op("Add", name, x, net.conv_bn(y, f"{name}b", width, 3))


def inverted(net: Net, x: str, name: str, width: int, *, hidden: int = 12, stride: int = 1, gate: bool = False) -> str:
    """Pointwise, depthwise, (squeeze-excite,) linear pointwise; an addition where the shape stays (MobileNetV2, V3)."""
    y = net.conv_bn_relu(x, f"{name}e", hidden)
    y = net.conv_bn_relu(y, f"{name}d", hidden, 3, group=0, stride=stride)
    if gate:
        s = net.op("GlobalAveragePool", f"{name}s", y)
        s = net.op(
            "Sigmoid",
            f"{name}g",
            net.conv(net.relu(net.conv(s, f"{name}1", 4, bias=True)), f"{name}2", hidden, bias=True),
        )
        y = net.op("Mul", f"{name}m", y, s)
    y = net.conv_bn(y, f"{name}l", width)
    return net.op("Add", name, x, y) if stride == 1 and net.channels[x] == width else y


def scaled(net: Net, x: str, name: str, width: int) -> str:
    """Depthwise 7×7, LayerNorm over the last axis, two matrix products, layer scale (ConvNeXt)."""
    y = net.op("Transpose", f"{name}t", net.conv(x, f"{name}d", width, 7, group=0, bias=True), perm=[0, 2, 3, 1])
    affine = [net.constant(f"{name}.{part}", np.ones(width)) for part in ("gain", "shift")]
    y = net.op("LayerNormalization", f"{name}n", y, *affine, axis=-1)
    y = net.op("MatMul", f"{name}1", y, net.constant(f"{name}.w1", net.rng.standard_normal((width, 4 * width)) / 4))
    y = net.op("Gelu", f"{name}g", net.op("Add", f"{name}b", y, net.constant(f"{name}.b1", np.ones(4 * width))))
    y = net.op("MatMul", f"{name}2", y, net.constant(f"{name}.w2", net.rng.standard_normal((4 * width, width)) / 8))
    y = net.op("Mul", f"{name}s", y, net.constant(f"{name}.gamma", net.rng.uniform(0.5, 1, width)))
    out = net.op("Add", name, net.op("Transpose", f"{name}u", y, perm=[0, 3, 1, 2]), x)
    net.channels[out] = width
    return out


def preactivated(net: Net, x: str, name: str, width: int) -> str:
    """Norm and activation before each convolution; nothing after the addition (ResNet V2)."""
    y = net.conv(net.relu(net.bn(x, f"{name}n")), f"{name}a", width, 3)
    y = net.conv(net.relu(net.bn(y)), f"{name}b", width, 3)
    return net.op("Add", name, x, y)


def dense(net: Net, x: str, name: str, growth: int) -> str:
    """What comes in, joined with what it gives (DenseNet)."""
    y = net.conv_bn_relu(x, f"{name}a", growth, 3)
    out = net.op("Concat", name, x, y, axis=1)
    net.channels[out] = net.channels[x] + growth
    return out


def reparameterised(net: Net, x: str, name: str, width: int) -> str:
    """3×3, 1×1 and the identity, each normalised, summed (RepVGG in training form)."""
    three = net.conv_bn(x, f"{name}a", width, 3)
    one = net.conv_bn(x, f"{name}b", width, 1)
    return net.relu(net.op("Add", name, net.op("Add", f"{name}s", three, one), net.bn(x, f"{name}i")))


def stem(width: int = 8, opset: int = 20) -> tuple[Net, str]:
    net = Net(opset=opset)
    return net, net.conv_bn_relu("x", "stem", width, 3)


def repeated(block: Callable[..., str], count: int = 3, width: int = 8) -> Net:
    """A stem and some blocks of one kind."""
    net, y = stem(width)
    for k in range(count):
        y = block(net, y, f"k{k}", width)
    net.classifier(y)
    return net


def staged(block: Callable[..., str], depth: tuple[int, ...], **how: object) -> Net:
    """Stages of doubled width whose first block has stride 2, but for the first stage's."""
    net, y = stem()
    for i, blocks in enumerate(depth):
        for k in range(blocks):
            y = block(net, y, f"s{i}k{k}", 8 << i, stride=2 if k == 0 and i else 1, **how)
    net.classifier(y)
    return net


STAGES = [
    ("a residual block with activation", repeated(basic), [3]),
    ("a residual block without activation", repeated(plain), [3]),
    ("projections open stages", staged(basic, (2, 3, 2)), [2, 3, 2]),
    ("a linear bottleneck opens a stage", staged(inverted, (2, 3, 1)), [2, 3, 1]),
    ("squeeze-excite inside", staged(inverted, (2, 3, 1), gate=True), [2, 3, 1]),
    ("layer scale", repeated(scaled, 2), [2]),
    ("pre-activation", repeated(preactivated), [3]),
    ("parallel branches, summed", repeated(reparameterised), [3]),
    ("concatenation", repeated(dense, width=8), []),
]


@pytest.mark.parametrize(("net", "expected"), [row[1:] for row in STAGES], ids=[row[0] for row in STAGES])
def test_the_stages_are(net: Net, expected: list[int]) -> None:
    analysis = net.analysis()
    assert depths(analysis) == expected
    assert [analysis.knobs[f"stage{i}.depth"].value for i in range(len(expected))] == expected


def test_the_bundled_seed_has_the_stages_of_its_paper() -> None:
    analysis = analyse(bundled())
    assert depths(analysis) == [1, 2, 3, 4, 3, 3, 1]
    assert kinds(analysis)[:2] == [["bottleneck"], ["bottleneck", "residual"]]


def test_a_block_with_weights_on_both_arms_is_a_projection() -> None:
    analysis = staged(basic, (1, 2)).analysis()
    assert kinds(analysis) == [["residual"], ["projection", "residual"]]


def test_a_block_reaches_from_its_entry_to_the_activation_after_the_merge() -> None:
    block = repeated(basic).analysis().stages[0].blocks[1]
    assert (block.entry, block.exit, block.merge) == ("k0.r", "k1.r", "k1")
    assert set(block.nodes) == {"k1a", "k1a.n", "k1a.n.r", "k1b", "k1b.n", "k1", "k1.r"}


def test_a_dense_spatial_convolution_never_opens_a_stage() -> None:
    net, y = stem()
    y = net.conv_bn_relu(y, "c1", 8, 3)
    net.classifier(net.conv_bn(y, "c2", 8, 3))
    assert depths(net.analysis()) == []


def test_a_bottleneck_has_exactly_one_spatial_convolution() -> None:
    net, y = stem()
    y = net.conv_bn_relu(y, "e", 12)
    y = net.conv_bn_relu(y, "d1", 12, 3, group=0)
    y = net.conv_bn_relu(y, "d2", 12, 3, group=0)
    net.classifier(net.conv_bn(y, "l", 8))
    block = net.analysis().stages[0].blocks[0]
    assert (block.entry, block.exit) == ("d1.n.r", "l.n")


def test_a_bottleneck_ends_without_an_activation() -> None:
    net, y = stem()
    y = net.conv_bn_relu(y, "e", 12)
    y = net.conv_bn_relu(y, "d", 12, 3, group=0)
    net.classifier(net.conv_bn_relu(y, "l", 8))
    assert depths(net.analysis()) == []


def test_without_an_addition_the_stage_has_no_depth_to_change() -> None:
    knob = staged(inverted, (1,), hidden=12).analysis().knobs["stage0.depth"]
    assert knob.growth == "exact"
    net, y = stem()
    net.classifier(inverted(net, y, "k", 10))
    knob = net.analysis().knobs["stage0.depth"]
    assert (knob.growth, knob.why) == ("frozen", "no block of the stage keeps its shape, so none can be repeated")


def test_an_inner_tensor_used_outside_makes_it_no_block() -> None:
    net = repeated(basic, 2)
    assert depths(net.analysis()) == [2]
    assert depths(net.analysis("y", net.op("GlobalAveragePool", "tap", "k1a.n.r"))) == [1]


def test_an_inner_tensor_that_is_an_output_makes_it_no_block() -> None:
    net = repeated(basic, 2)
    assert depths(net.analysis("y", "k0a")) == [1]


def test_an_addition_without_weights_between_is_no_block() -> None:
    net, y = stem()
    net.classifier(net.op("Add", "s", y, net.op("Sigmoid", "g", y)))
    assert depths(net.analysis()) == []


def test_a_skip_over_the_whole_network_does_not_swallow_its_blocks() -> None:
    net = repeated(plain, 2)
    net.nodes.pop()
    net.nodes = [node for node in net.nodes if node.name not in ("pool", "flat")]
    net.op("Add", "long", "k1", "stem.n.r")
    net.classifier("long")
    assert depths(net.analysis()) == [2]


# --- silence ------------------------------------------------------------------------------------


def silences(net: Net) -> list[tuple[tuple[str, ...], str | None]]:
    return [(found.tensors, found.why) for found in net.analysis().silences.values()]


@pytest.mark.parametrize(
    ("block", "tensors"),
    [
        (basic, ("k0b.n.gamma", "k0b.n.beta")),
        (plain, ("k0b.n.gamma", "k0b.n.beta")),
        (preactivated, ("k0b.w",)),
        (scaled, ("k0.gamma",)),
    ],
)
def test_a_silent_copy_has_its_last_affine_at_zero(block: Callable[..., str], tensors: tuple[str, ...]) -> None:
    assert silences(repeated(block, 1)) == [(tensors, None)]


def test_a_bias_is_silenced_with_its_weight() -> None:
    net, y = stem()
    branch = net.conv(net.conv_bn_relu(y, "a", 8, 3), "b", 8, 3, bias=True)
    net.classifier(net.op("Add", "s", y, branch))
    assert silences(net) == [(("b.w", "b.b"), None)]


def test_a_gate_before_the_last_affine_changes_nothing() -> None:
    analysis = staged(inverted, (1,), gate=True)
    net, y = stem()
    net.classifier(inverted(net, y, "k", 8, gate=True))
    assert silences(net) == [(("kl.n.gamma", "kl.n.beta"), None)]
    assert silences(analysis) == [(("s0k0l.n.gamma", "s0k0l.n.beta"), None)]


def test_a_gate_behind_the_last_affine_is_looked_through() -> None:
    net, y = stem()
    branch = net.conv_bn(y, "a", 8, 3)
    gate = net.op("Sigmoid", "g", net.conv(net.op("GlobalAveragePool", "p", branch), "f", 8, bias=True))
    net.classifier(net.op("Add", "s", y, net.op("Mul", "m", branch, gate)))
    assert silences(net) == [(("a.n.gamma", "a.n.beta"), None)]


def test_a_branch_that_ends_in_a_relu_cannot_be_silent_and_learn() -> None:
    net, y = stem()
    net.classifier(net.op("Add", "s", y, net.conv_bn_relu(y, "a", 8, 3)))
    assert silences(net) == [((), "the branch ends in 'a.n.r' (Relu), behind which a silent copy could not learn")]


@pytest.mark.parametrize("kind", ["Add", "Sub"])
def test_a_normalisation_written_as_a_product_and_a_sum_or_difference_is_silenced(kind: str) -> None:
    net, y = stem()
    scale, bias = (net.constant(name, np.linspace(0.5, 1.5, 8).reshape(1, 8, 1, 1)) for name in ("scale", "bias"))
    net.classifier(net.op("Add", "s", y, net.op(kind, "n", net.op("Mul", "m", net.conv(y, "a", 8, 3), scale), bias)))
    assert silences(net) == [(("bias", "scale"), None)]
    assert worst_growth(net) == 0


def ended(kind: str, **attributes: float) -> Net:
    net, y = stem()
    y = net.op(kind, "first", net.conv_bn(y, "c", 8), **attributes)
    net.classifier(net.op(kind, "r", net.op("Add", "s", y, net.conv_bn(y, "a", 8, 3)), **attributes))
    return net


def test_an_activation_after_the_merge_that_acts_twice_is_the_reason() -> None:
    assert silences(ended("LeakyRelu")) == [((), "'r' (LeakyRelu) after the addition changes what passes it twice")]
    assert ended("LeakyRelu").analysis().knobs["stage0.depth"].growth == "approximate"


def test_a_relu_after_the_merge_passes_what_a_relu_made() -> None:
    assert silences(ended("Relu"))[0][1] is None


def test_a_thresholded_relu_after_the_merge_passes_what_one_made() -> None:
    net = ended("ThresholdedRelu", alpha=0.1)
    assert silences(net)[0][1] is None
    assert worst_growth(net) == 0


@pytest.mark.parametrize("kind", ["Neg", "Sin", "Atan", "LRN", "Tanh"])
def test_a_branch_that_ends_in_what_passes_zero_and_a_gradient_is_silent(kind: str) -> None:
    net, y = stem()
    branch = net.op(kind, "n", net.conv_bn(y, "a", 8, 3), **({"size": 3} if kind == "LRN" else {}))
    net.classifier(net.op("Add", "s", y, branch))
    assert silences(net) == [(("a.n.gamma", "a.n.beta"), None)]
    assert worst_growth(net) == 0


@pytest.mark.parametrize("kind", ["Abs", "Relu", "Exp", "Softplus"])
def test_a_branch_that_ends_in_what_stops_zero_or_its_gradient_is_not(kind: str) -> None:
    net, y = stem()
    net.classifier(net.op("Add", "s", y, net.op(kind, "n", net.conv_bn(y, "a", 8, 3))))
    assert silences(net) == [((), f"the branch ends in 'n' ({kind}), behind which a silent copy could not learn")]


def worst_growth(net: Net) -> float:
    """How far the outputs move when the stage gets a block more by `preserve`."""
    made = net.graph()
    analysis = analyse(made)
    found = plan(analysis, Spec({"stage0.depth": "+1"}), strategy="preserve")
    from fnatool.runtime.verify import verify

    return verify(made, apply(made, found), analysis, found).worst


def test_a_copy_stands_behind_a_relu_even_where_the_first_block_does_not() -> None:
    net, _ = stem()
    y = net.conv_bn("stem.n.r", "c", 8)
    net.classifier(net.relu(net.op("Add", "s", y, net.conv_bn(y, "a", 8, 3))))
    assert silences(net) == [(("a.n.gamma", "a.n.beta"), None)]


def bounded(first: tuple[float, float], last: tuple[float, float]) -> Net:
    net, y = stem()
    for name, bounds in (("first", first), ("r", last)):
        for part, value in zip(("low", "high"), bounds, strict=True):
            net.constant(f"{name}.{part}", value)
    y = net.op("Clip", "first", net.conv_bn(y, "c", 8), "first.low", "first.high")
    net.classifier(net.op("Clip", "r", net.op("Add", "s", y, net.conv_bn(y, "a", 8, 3)), "r.low", "r.high"))
    return net


def test_a_clip_after_the_merge_passes_what_the_same_clip_made() -> None:
    assert silences(bounded((0, 6), (0, 6)))[0][1] is None


def test_a_silent_copy_computes_its_entry() -> None:
    made = repeated(basic, 2).graph()
    analysis = analyse(made)
    found = plan(analysis, Spec({"stage0.depth": 4}), strategy="preserve")
    from fnatool.runtime.verify import verify

    result = verify(made, apply(made, found), analysis, found)
    assert result.exact
    assert result.worst <= result.tolerance


def rescaled(net: Net, x: str, name: str, width: int) -> str:
    """A branch, and the input with a scale for each channel (PoolFormer V2)."""
    y = net.conv_bn(net.conv_bn_relu(x, f"{name}a", width, 3), f"{name}b", width, 3)
    scale = net.constant(f"{name}.scale", net.rng.uniform(0.5, 2, (width, 1, 1)))
    return net.op("Add", name, net.op("Mul", f"{name}s", x, scale), y)


def nested(net: Net, x: str, name: str, width: int) -> str:
    """The shortcut in the inner one of two additions."""
    partial = net.op("Add", f"{name}p", net.conv_bn(x, f"{name}a", width, 3), x)
    return net.relu(net.op("Add", name, partial, net.conv_bn(x, f"{name}b", width, 1)))


def depthwise(net: Net, x: str, name: str, width: int) -> str:
    """Depthwise 3×3, 1×1 and the identity, each normalised; then the same of pointwise ones (MobileOne)."""
    for part, kernel, group in (("d", 3, 0), ("p", 1, 1)):
        one = net.conv_bn(x, f"{name}{part}a", width, kernel, group=group)
        two = net.conv_bn(x, f"{name}{part}b", width, 1, group=group)
        both = net.op("Add", f"{name}{part}s", net.bn(x, f"{name}{part}i"), one)
        x = net.relu(net.op("Add", f"{name}{part}", both, two))
    return x


WITHOUT_A_FREE_ARM = (reparameterised, rescaled, nested, depthwise)


@pytest.mark.parametrize("block", WITHOUT_A_FREE_ARM)
@pytest.mark.parametrize(
    "knobs",
    [
        {"stage0.depth": "+2"},
        {"stage0.depth": "+1", "stage0.width": 12},
        {"stage0.depth": "+1", "**.kernel*": "+2", "input.size": 16},
    ],
)
def test_a_copy_without_a_weight_free_shortcut_computes_its_entry(
    block: Callable[..., str], knobs: dict[str, int | str]
) -> None:
    from fnatool.runtime.verify import verify

    made = repeated(block, 2).graph()
    analysis = analyse(made)
    assert analysis.knobs["stage0.depth"].growth == "exact"
    found = plan(analysis, Spec(knobs), strategy="preserve")
    found = found.compared or found
    target = apply(made, found)
    result = verify(made, target, analysis, found)
    assert result.exact
    assert result.first is None
    assert depths(analyse(target)) == depths(analyse(target, table=found.table))
    again = analyse(target, table=found.table)
    back = apply(target, plan(again, Spec(own_spec(analysis).knobs)))
    assert all(np.array_equal(view(made).values(name), view(back).values(name)) for name in view(back).constants)


def test_an_identity_that_is_not_one_is_found() -> None:
    from fnatool.runtime.verify import verify

    made = repeated(reparameterised, 2).graph()
    analysis = analyse(made)
    found = plan(analysis, Spec({"stage0.depth": 3}), strategy="preserve")
    takes = tuple(replace(take, held=0.9 if take.held == 1 else take.held) for take in found.takes)
    result = verify(made, apply(made, replace(found, takes=takes)), analysis, found)
    assert result.first is not None


@pytest.mark.parametrize("block", WITHOUT_A_FREE_ARM)
def test_a_block_without_a_weight_free_shortcut_can_be_dropped(block: Callable[..., str]) -> None:
    made = repeated(block).graph()
    analysis = analyse(made)
    depth = analysis.knobs["stage0.depth"].value
    found = plan(analysis, Spec({"stage0.depth": depth - 1}))
    assert depths(analyse(apply(made, found), table=found.table))[0] == depth - 1


def test_a_normalised_shortcut_becomes_the_identity() -> None:
    (silence,) = repeated(reparameterised, 1).analysis().silences.values()
    assert silence.tensors == ("k0a.n.gamma", "k0a.n.beta", "k0b.n.gamma", "k0b.n.beta")
    assert dict(silence.held) == {"k0i.gamma": 1.0, "k0i.beta": 0.0, "k0i.mean": 0.0, "k0i.var": 1 - 1e-5}
    assert not silence.scales


def test_a_block_whose_arms_all_have_convolutions_is_copied_by_fna_alone() -> None:
    net, y = stem()
    three = net.conv_bn(y, "a", 8, 3)
    net.classifier(net.relu(net.op("Add", "s", three, net.conv_bn(y, "b", 8, 3, group=0))))
    made = net.graph()
    knob = analyse(made).knobs["stage0.depth"]
    why = "no arm of 's' is the block's input itself, or a normalisation or scale of it that could become that"
    assert (knob.growth, knob.why) == ("approximate", why)
    with pytest.raises(UserError, match="no arm of 's' is"):
        plan(analyse(made), Spec({"stage0.depth": 2}), strategy="preserve")
    found = plan(analyse(made), Spec({"stage0.depth": 2}))
    assert depths(analyse(apply(made, found), table=found.table)) == [2]


def test_a_block_that_doubles_its_input_says_so() -> None:
    net, y = stem()
    twice = net.op("Add", "p", net.conv_bn(y, "a", 8, 3), y)
    net.classifier(net.op("Add", "s", twice, y))
    assert silences(net) == [((), "'s' adds the block's input to itself")]


def test_a_block_of_other_channels_of_the_same_number_says_that_nothing_ties_them() -> None:
    net, y = stem()
    net.classifier(net.op("Add", "s", net.conv_bn(y, "a", 8, 3), net.conv_bn(y, "b", 8)))
    why = net.analysis().knobs["stage0.depth"].why
    assert (
        why == "nothing ties the channels that its block makes to those it reads, so a copy would not stay as wide as "
        "what it follows"
    )


def test_a_block_that_also_reads_fixed_channels_says_so() -> None:
    net, y = stem()
    y = net.op("Concat", "c", y, "x", axis=1)
    net.channels[y] = 11
    net.classifier(net.op("Add", "s", net.conv(y, "a", 11, 3), net.conv(net.conv(y, "b", 5), "d", 11)))
    assert "nothing ties" in (net.analysis().knobs["stage0.depth"].why or "")
    net, y = stem()
    both = net.op("Concat", "c", y, "x", axis=1)
    net.channels[both] = 11
    out = net.op("Add", "s", net.conv(both, "a", 11, 3), both)
    net.channels[out] = 11
    net.classifier(out)
    why = net.analysis().knobs["stage0.depth"].why
    assert (
        why
        == "some of the channels that its block reads are not those it makes but fixed ones, so no copy could follow it"
    )


def test_a_block_without_an_addition_that_gives_the_channels_it_reads_is_copied_and_dropped() -> None:
    net, y = stem()
    net.classifier(net.conv_bn_relu(net.conv(y, "deep", 8, 3, group=8), "point", 12))
    made = net.graph()
    knob = analyse(made).knobs["stage0.depth"]
    assert (knob.growth, knob.why) == ("approximate", "it has no addition whose branch could be silenced")
    found = plan(analyse(made), Spec({"stage0.depth": 3}))
    grown = apply(made, found)
    assert depths(analyse(grown, table=found.table)) == depths(analyse(grown)) == [3]
    back = plan(analyse(grown, table=found.table), Spec({"stage0.depth": 1}))
    assert depths(analyse(apply(grown, back), table=back.table)) == [1]
    old = [[{**row, "kind": "bottleneck"} for row in rows] for rows in stage_table(analyse(made).stages)]
    assert analyse(made, table=old).knobs["stage0.depth"] == knob


def test_a_stored_projection_that_keeps_its_channels_is_one_to_copy() -> None:
    made = repeated(reparameterised, 1).graph()
    found = analyse(made)
    table = [[{**row, "kind": "projection"} for row in rows] for rows in stage_table(found.stages)]
    assert analyse(made, table=table).knobs["stage0.depth"] == found.knobs["stage0.depth"]


# --- the stage table ----------------------------------------------------------------------------


def test_the_stage_table_gives_back_the_same_stages() -> None:
    made = staged(inverted, (2, 3, 1)).graph()
    found = analyse(made)
    again = analyse(made, table=stage_table(found.stages))
    assert again.stages == found.stages
    assert again.knobs == found.knobs


def test_a_stored_table_is_used_where_the_graph_says_otherwise() -> None:
    made = repeated(basic).graph()
    found = analyse(made)
    blocks = found.stages[0].blocks
    table = stage_table([replace(found.stages[0], blocks=blocks[:1]), replace(found.stages[0], blocks=blocks[1:])])
    assert depths(analyse(made, table=table)) == [1, 2]


def test_a_table_that_does_not_fit_is_left_aside() -> None:
    made = repeated(basic).graph()
    table = stage_table(analyse(made).stages)
    table[0][1] = {**table[0][1], "exit": "no such tensor"}
    assert depths(analyse(made, table=table)) == [3]


def test_a_deepened_network_keeps_its_stages() -> None:
    made = staged(inverted, (2, 2)).graph()
    found = plan(analyse(made), Spec({"stage0.depth": 4, "stage1.depth": 1}))
    target = apply(made, found)
    assert depths(analyse(target, table=found.table)) == [4, 1]
    assert depths(analyse(target)) == [4, 1]
