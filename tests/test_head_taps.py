"""Where heads tap: names, the trunk, how maps lie in the image, and what each style taps by itself."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from nets import Net, bundled, graph
from seeds_of_heads import mobile, plain

from passes.analysis import Analysis, analyse
from passes.errors import UserError
from passes.heads.taps import Chart, before_last_stride, chart, last_exit, last_map, pyramid, trunk


def charted(net: Net, *outputs: str) -> Chart:
    return chart(net.analysis(*outputs))


def names(found: Chart, tensors: list[str]) -> list[str]:
    return [found.name_of(tensor) for tensor in tensors]


# --- the trunk --------------------------------------------------------------------------------------------------------------------------


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


# --- how maps lie -----------------------------------------------------------------------------------------------------------------------


def lie(net: Net, tensor: str) -> tuple[float, float, int] | None:
    found = charted(net, tensor).lies.get(tensor)
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
def test_a_map_lies_as_its_operators_say(op: str, attributes: dict[str, object], expected: tuple[float, float, int] | None) -> None:
    net = stem()
    net.op(op, "y", "a", **attributes)
    assert lie(net, "y") == expected


def test_a_map_may_be_finer_than_the_image() -> None:
    net = Net(size=16)
    net.conv("x", "a", 4, 3)
    net.op("Resize", "y", "a", "", net.constant("scales", [1, 1, 2, 2]), mode="nearest")
    assert lie(net, "y") == (0.5, 0.5, 1)


# --- names ------------------------------------------------------------------------------------------------------------------------------


def test_stages_blocks_nodes_and_tensors_are_names() -> None:
    found = charted(mobile())
    tensors = {name: found.tap(name).tensor for name in ("stage0.exit", "stage0.block0.exit", "stage3.exit", "s2b1d", "s2b1d.n")}
    assert list(tensors.values()) == ["s0b1a", "s0b0p.n", "s3b0p.n", "s2b1d", "s2b1d.n"]


def test_a_tap_says_its_channels_extent_and_stride() -> None:
    tap = charted(mobile()).tap("stage2.exit")
    assert (tap.channels, tap.space, tap.stride, tap.dtype, tap.axis) == (10, (4, 4), (Fraction(16), Fraction(16)), "float32", 1)


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
    padded = net.op("Pad", "pad", net.conv_bn_relu(y, "e", 24), net.constant("pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64))
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
        ("flat", "tap 'flat' is no map [N, channels, h, w] of the image (its shape is [1, 24]); this model has 'stage0.exit'"),
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


# --- what styles tap by themselves ------------------------------------------------------------------------------------------------------

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
