"""Where heads tap: names, the trunk, how maps lie in the image, and what each style taps by itself."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from nets import Net, bundled, graph
from seeds_of_heads import mobile, plain

from passes.errors import UserError
from passes.heads import Attached, HeadSpec, attach, default_taps, seen_by
from passes.heads.taps import Chart, before_last_stride, chart, last_exit, last_map, pyramid
from passes.heads.trunk import trunk
from passes.network.analyse import analyse
from passes.network.analysis import Analysis


def charted(net: Net, *outputs: str) -> Chart:
    return chart(net.analysis(*outputs))


def names(found: Chart, tensors: list[str]) -> list[str]:
    return [found.name_of(tensor) for tensor in tensors]


# --- the trunk ----------------------------------------------------------------------------------


def test_the_trunk_is_what_every_path_passes() -> None:
    net = Net()
    y = net.conv("x", "stem", 4, 3)
    net.op("Add", "sum", net.conv(y, "left", 4), net.conv(net.conv(y, "right", 4), "more", 4))
    net.op("Relu", "y", "sum")
    assert trunk(net.analysis().view) == ("stem", "sum", "y")


def test_reading_a_shape_is_no_path() -> None:
    made = graph(
        """
        net (float[N,3,8,8] x) => (float[N,M] y) {
            a = Conv (x, w)
            s = Shape (x)
            n = Slice (s, zero, one, zero)
            b = Relu (a)
            t = Concat <axis = 0> (n, rest)
            y = Reshape (b, t)
        }
        """,
        {"w": (4, 3, 1, 1), "zero": np.array([0]), "one": np.array([1]), "rest": np.array([-1])},
    )
    assert trunk(analyse(made).view) == ("a", "b", "y")


def test_a_second_output_does_not_widen_the_trunk() -> None:
    net = Net()
    net.conv(net.conv("x", "a", 4), "y", 4)
    net.conv("a", "z", 4)
    assert trunk(net.analysis("y", "z").view) == ("a", "y")


# --- how maps lie -------------------------------------------------------------------------------


def grid(net: Net, tensor: str) -> tuple[float, float, int] | None:
    found = charted(net, tensor).grids.get(tensor)
    return None if found is None else (float(found.stride[0]), float(found.stride[1]), found.axis)


def stem() -> Net:
    """A map of stride 2."""
    net = Net(size=16)
    net.conv("x", "a", 4, 3, stride=2)
    return net


@pytest.mark.parametrize(
    ("op", "attributes", "expected"),
    [
        ("Relu", {}, (2, 2, 1)),
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 1, 1, 1]}, (4, 2, 1)),
        ("SpaceToDepth", {"blocksize": 2}, (4, 4, 1)),
        ("DepthToSpace", {"blocksize": 2}, (1, 1, 1)),
        ("Transpose", {"perm": [0, 2, 3, 1]}, (2, 2, 3)),
        ("Transpose", {"perm": [0, 1, 3, 2]}, None),
        ("GlobalAveragePool", {}, None),
        ("AveragePool", {"kernel_shape": [8, 8]}, None),
        ("Flatten", {}, None),
    ],
)
def test_a_map_lies_as_its_operators_say(
    op: str, attributes: dict[str, object], expected: tuple[float, float, int] | None
) -> None:
    net = stem()
    net.op(op, "y", "a", **attributes)
    assert grid(net, "y") == expected


def test_a_map_may_be_finer_than_the_image() -> None:
    net = Net(size=16)
    net.conv("x", "a", 4, 3)
    net.op("Resize", "y", "a", "", net.constant("scales", [1, 1, 2, 2]), mode="nearest")
    assert grid(net, "y") == (0.5, 0.5, 1)


# --- names --------------------------------------------------------------------------------------


def test_stages_blocks_nodes_and_tensors_are_names() -> None:
    found = charted(mobile())
    tensors = {
        name: found.tap(name).tensor
        for name in ("stage0.exit", "stage0.block0.exit", "stage3.exit", "s2b1d", "s2b1d.n")
    }
    assert list(tensors.values()) == ["s0b1a", "s0b0p.n", "s3b0p.n", "s2b1d", "s2b1d.n"]


def test_a_tap_says_its_channels_extent_and_stride() -> None:
    tap = charted(mobile()).tap("stage2.exit")
    assert (tap.channels, tap.space, tap.stride, tap.dtype, tap.axis) == (
        10,
        (4, 4),
        (Fraction(16), Fraction(16)),
        "float32",
        1,
    )


def test_hidden_is_the_expanded_map_after_its_activation() -> None:
    found = charted(mobile())
    tap = found.tap("stage3.block0.hidden")
    assert (tap.tensor, tap.channels, tap.space) == ("s3b0e.n.r", 40, (4, 4))


def test_hidden_is_gated_where_the_activation_is_written_out() -> None:
    net = Net()
    y = net.conv_bn("x", "stem", 6, 3)
    net.op("Sigmoid", "gate", net.conv_bn(y, "e", 24))
    net.op("Mul", "silu", "e.n", "gate")
    net.op("Add", "s", y, net.conv_bn(net.conv("silu", "d", 24, 3, group=0), "p", 6))
    net.classifier("s")
    assert charted(net).tap("stage0.block0.hidden").tensor == "silu"


def test_hidden_is_what_comes_before_a_pad() -> None:
    net = Net()
    y = net.conv_bn("x", "stem", 6, 3)
    padded = net.op(
        "Pad", "pad", net.conv_bn_relu(y, "e", 24), net.constant("pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    )
    net.weights["d.w"] = np.ones((24, 1, 3, 3), np.float32)
    net.op("Conv", "d", padded, "d.w", group=24, kernel_shape=[3, 3])
    net.op("Add", "s", y, net.conv_bn("d", "p", 6))
    net.classifier("s")
    assert charted(net).tap("stage0.block0.hidden").tensor == "e.n.r"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stage9.exit", "'stage9.exit' is no tap of this model; did you mean 'stage3.exit'? A tap is stageI.exit"),
        ("s2b1z", "did you mean 's2b1"),
        ("x", "tap 'x' is the input itself"),
        ("fc.w", "'fc.w' is no tap of this model"),
        (
            "flat",
            (
                "tap 'flat' is no map [N, channels, h, w] of the image (its shape is [1, 24]); this model has "
                "'stage0.exit'"
            ),
        ),
        ("pool", "tap 'pool' is no map"),
    ],
)
def test_what_is_no_tap_is_refused_with_what_is(name: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        charted(mobile()).tap(name)
    assert message in str(refused.value)


def test_a_tap_of_bytes_is_refused() -> None:
    net = stem()
    net.op("Greater", "mask", "a", net.constant("zero", 0.0))
    with pytest.raises(UserError, match="does not hold 16-, 32- or 64-bit floats"):
        charted(net, "mask").tap("mask")


# --- what styles tap by themselves --------------------------------------------------------------

DEFAULTS = (last_exit, last_map, pyramid, before_last_stride)


def defaults(analysis: Analysis) -> list[list[str]]:
    found = chart(analysis)
    return [names(found, list(choose(found))) for choose in DEFAULTS]


def test_the_bundled_seed_is_tapped_as_the_papers_do() -> None:
    assert defaults(analyse(bundled())) == [
        ["stage6.exit"],
        ["head.relu6"],
        ["stage2.exit", "stage4.exit", "stage6.exit"],
        ["stage5.block0.hidden", "head.relu6"],
    ]


def test_stages_are_tapped_at_their_last_exit_of_each_stride() -> None:
    net = mobile()
    assert defaults(net.analysis()) == [
        ["stage3.exit"],
        ["last.n.r"],
        ["stage1.exit", "stage2.exit", "stage3.exit"],
        ["stage3.block0.hidden", "last.n.r"],
    ]


def test_without_stages_the_last_map_of_each_stride_is_tapped() -> None:
    assert defaults(plain().analysis()) == [["p4"], ["p4"], ["c3.n.r", "c4.n.r", "p4"], ["c4.n.r", "p4"]]


def test_a_network_that_stays_fine_is_tapped_at_its_last_strides() -> None:
    assert defaults(plain(16, (2, 2)).analysis())[2] == ["c0.n.r", "c1.n.r", "p1"]


def test_ssd_taps_the_exit_where_the_next_block_is_narrower_inside() -> None:
    net = Net(size=32)
    y = net.conv_bn_relu("x", "stem", 16, 3, stride=2)
    inner = net.conv_bn_relu(net.conv_bn_relu(y, "a", 4), "b", 4, 3, stride=2)
    y = net.relu(net.op("Add", "s", net.conv_bn(inner, "c", 32), net.conv_bn(y, "d", 32, stride=2)))
    net.classifier(y)
    found = charted(net)
    assert names(found, before_last_stride(found)) == ["stem.n.r", "stage0.exit"]


def test_the_scores_of_a_convolutional_classifier_are_not_tapped() -> None:
    net = Net(size=16)
    y = net.conv_bn_relu("x", "body", 8, 3, stride=2)
    net.relu(net.conv(y, "scores", 5, bias=True))
    net.op("GlobalAveragePool", "pool", "scores.r")
    net.op("Flatten", "y", "pool")
    analysis = net.analysis()
    found = chart(analysis, "body.n.r")
    assert names(found, last_exit(found)) == ["body.n.r"]
    assert names(chart(analysis), last_exit(chart(analysis))) == ["scores.r"]


def test_a_network_without_maps_has_nothing_to_tap() -> None:
    net = Net()
    net.op("Flatten", "flat", "x")
    net.weights["w"] = np.ones((192, 4), np.float32)
    net.op("MatMul", "y", "flat", "w")
    with pytest.raises(UserError, match="no map"):
        last_exit(charted(net))


# --- networks of several outputs, and with decoders ---------------------------------------------


def up(net: Net, x: str, out: str) -> str:
    """Twice as fine."""
    return net.op("Resize", out, x, "", net.constant(f"{out}.scales", [1, 1, 2, 2]), mode="nearest")


def backbone(net: Net, widths: tuple[int, ...] = (4, 6, 8, 12, 16)) -> list[str]:
    """A convolution of stride 2 and one of stride 1 for each width: the last map of each stride."""
    found, y = [], "x"
    for k, width in enumerate(widths):
        y = net.conv_bn_relu(net.conv_bn_relu(y, f"c{k}a", width, 3, stride=2), f"c{k}b", width, 3)
        found.append(y)
    return found


def detector(widths: tuple[int, ...] = (4, 6, 8, 12, 16), tower: int = 4) -> tuple[Net, list[str]]:
    """A backbone, an FPN with laterals, and two predictions at each of strides 8, 16 and 32: the net and its outputs,
    finest first.
    """
    net = Net(size=64)
    maps = backbone(net, widths)[2:]
    top, outputs = "", []
    for k, c in reversed(list(enumerate(maps))):
        lateral = net.conv(c, f"lateral{k}", tower)
        top = net.op("Add", f"merged{k}", lateral, up(net, top, f"up{k}")) if top else lateral
        features = net.conv_bn_relu(top, f"tower{k}", tower, 3)
        outputs = [net.conv(features, f"cls{k}", 3), net.conv(features, f"box{k}", 4), *outputs]
    return net, outputs


def attached(net: Net, outputs: list[str], style: str, *taps: str) -> Attached:
    made = net.graph(*outputs)
    return attach(
        made,
        analyse(made),
        HeadSpec(style, 3, taps, levels=4 if style == "retinanet" else None),
        rng=np.random.default_rng(0),
    )


def test_a_detector_is_tapped_where_its_backbone_ends_whatever_output_is_first() -> None:
    net, outputs = detector()
    for order in (outputs, outputs[::-1]):
        found = chart(net.analysis(*order))
        assert names(found, pyramid(found)) == ["c2b.n.r", "c3b.n.r", "c4b.n.r"]
        assert names(found, last_exit(found)) == ["c4b.n.r"]
        assert names(found, before_last_stride(found)) == ["c3b.n.r", "c4b.n.r"]
    made = attached(net, outputs, "retinanet")
    kept = sum(
        array.size
        for name, array in net.weights.items()
        if name.startswith("c") and name[1].isdigit() and name[-1] in "wa"
    )
    assert made.kept[0] == kept
    assert made.kept[0] / made.kept[1] > 0.7


def test_the_second_half_of_a_u_net_is_not_tapped() -> None:
    net = Net(size=32)
    maps = backbone(net, (4, 6, 8))
    y = maps[-1]
    for k, skip in reversed(list(enumerate(maps[:-1]))):
        y = net.conv_bn_relu(
            net.op("Add", f"a{k}", net.conv(up(net, y, f"u{k}"), f"m{k}", net.channels[skip]), skip),
            f"d{k}",
            net.channels[skip],
        )
    net.conv(y, "mask", 2)
    found = chart(net.analysis("mask"))
    assert names(found, pyramid(found)) == ["c2b.n.r"]
    assert names(found, last_map(found)) == ["c2b.n.r"]


def test_of_branches_the_one_with_the_most_parameters_is_tapped() -> None:
    net = Net(size=32)
    y = backbone(net, (4, 4))[-1]
    for name, width in (("small", 4), ("large", 24)):
        net.conv_bn_relu(net.conv_bn_relu(y, f"{name}a", width, 3, stride=2), f"{name}b", width, 3)
        net.op("GlobalAveragePool", f"{name}.p", f"{name}b.n.r")
    found = chart(net.analysis("small.p", "large.p"))
    assert names(found, last_exit(found)) == ["largeb.n.r"]


def test_a_map_that_is_pooled_and_comes_back_is_no_level() -> None:
    net = Net(size=32)
    y = backbone(net, (8, 16, 32))[-1]
    pooled = net.op("AveragePool", "pool2", y, kernel_shape=[2, 2], strides=[2, 2])
    y = net.op("Concat", "cat", y, up(net, net.conv_bn_relu(pooled, "p", 2), "back"), axis=1)
    net.channels["cat"] = 34
    net.classifier(net.conv_bn_relu(y, "last", 32, 3))
    found = chart(net.analysis())
    assert names(found, last_map(found)) == ["last.n.r"]


def test_where_the_encoder_keeps_too_little_what_every_path_passes_is_tapped() -> None:
    """A network that goes down, comes up, and learns most there."""
    net = Net(size=32)
    down = net.conv_bn_relu(net.conv_bn_relu("x", "a", 4, 3, stride=2), "b", 4, 3, stride=2)
    y = net.op("Add", "s", up(net, down, "u"), "a.n.r")
    y = net.conv_bn_relu(net.conv_bn_relu(y, "c", 32, 3), "d", 32, 3)
    net.classifier(y)
    assert [tap.name for tap in attached(net, ["y"], "deeplabv3").taps] == ["d.n.r"]


def crowned() -> tuple[Net, list[str]]:
    """A detector that learns most at its finest level."""
    net, outputs = detector()
    y = net.conv_bn_relu(net.conv_bn_relu("merged0", "wide", 64, 3), "wider", 64, 3)
    return net, [*outputs, net.conv(y, "mask", 2)]


def test_a_classifier_of_a_sequence_along_axis_0_is_no_classifier_of_images() -> None:
    made = graph(
        """g (float[1,3,4,4] x) => (float[16,1,5] y) <int64[3] row = {1,8,16}> {
            c = Conv (x, w)
            r = Reshape (c, row)
            t = Transpose <perm = [2,0,1]> (r)
            y = MatMul (t, fc)
        }""",
        {"w": (8, 3, 1, 1), "fc": (8, 5)},
    )
    found = attach(made, analyse(made), HeadSpec("linear", 7), rng=np.random.default_rng(0))
    assert [tap.name for tap in found.taps] == ["c"]
    assert found.graph.outputs[0].shape == [1, 7]


def test_less_than_half_is_refused_with_what_keeps_more() -> None:
    net, outputs = crowned()
    with pytest.raises(UserError) as refused:
        attached(net, outputs, "deeplabv3")
    said = str(refused.value)
    assert "'c4b.n.r', which this head would tap, comes from " in said
    assert (
        "% of the seed's parameters only; say with --taps (in a config 'head.taps') what it is to read, such "
        "as 'wider.n.r' (" in said
    )
    assert [tap.name for tap in attached(net, outputs, "deeplabv3", "c4b.n.r").taps] == ["c4b.n.r"]


def test_layers_that_read_no_map_are_not_missed() -> None:
    """As in VGG: most is in dense layers, which no tap keeps."""
    net = Net(size=16)
    y = backbone(net, (4, 6))[-1]
    net.op("Flatten", "flat", y)
    net.weights["w"] = np.ones((96, 400), np.float32)
    net.op("Gemm", "hidden", "flat", "w")
    net.weights["v"] = np.ones((400, 5), np.float32)
    net.op("Gemm", "y", net.op("Relu", "act", "hidden"), "v")
    made = attached(net, ["y"], "deeplabv3")
    assert [tap.name for tap in made.taps] == ["c1b.n.r"]
    assert made.kept[0] / made.kept[1] < 0.05


def test_a_search_knows_by_name_what_its_members_tap() -> None:
    net, outputs = detector()
    assert default_taps(net.analysis(*outputs), HeadSpec("retinanet", 3)) == ("c2b.n.r", "c3b.n.r", "c4b.n.r")
    assert default_taps(mobile().analysis(), HeadSpec("linear", 3)) == ()


# --- what a head sees the network by ------------------------------------------------------------


def test_a_head_sees_a_network_by_its_taps_and_a_classifier_by_the_last_map_before_it_is_pooled() -> None:
    analysis = analyse(mobile().graph())
    assert seen_by(analysis, HeadSpec("linear", 3)) == ("last.n.r",)
    assert seen_by(analysis, HeadSpec("retinanet", 3, ("stage1.exit", "stage3.exit"))) == tuple(
        analysis.stages[i].blocks[-1].exit for i in (1, 3)
    )
