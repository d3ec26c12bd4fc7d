"""Channels that padding makes: as many as the amounts say, which follow the channels they are added to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from nets import Net, graph

from fnatool.runtime.verify import verify
from passes import Spec, apply, own_spec, plan
from passes.graph.normalise import normalise
from passes.graph.view import view
from passes.network.analyse import analyse
from passes.network.analysis import Analysis


def by_pad(net: Net, x: str, out: str, more: int, value: float | None = None) -> str:
    """A Pad of the channel axis."""
    inputs = [x, net.constant(f"{out}.pads", [0, 0, 0, 0, 0, more, 0, 0], np.int64)]
    if value is not None:
        inputs.append(net.constant(f"{out}.value", value))
    net.op("Pad", out, *inputs)
    net.channels[out] = net.channels[x] + more
    return out


def by_value(net: Net, x: str, out: str, more: int) -> str:
    """The same, of another value."""
    return by_pad(net, x, out, more, 0.5)


def by_concat(net: Net, x: str, out: str, more: int) -> str:
    """A Concat with a constant of zeros."""
    net.op("Concat", out, x, net.constant(f"{out}.zeros", np.zeros((1, more, 8, 8))), axis=1)
    net.channels[out] = net.channels[x] + more
    return out


def by_fill(net: Net, x: str, out: str, more: int) -> str:
    """A Concat with zeros of a shape that is computed."""
    net.op("Shape", f"{out}.shape", x)
    net.op("Gather", f"{out}.batch", f"{out}.shape", net.constant(f"{out}.first", [0], np.int64), axis=0)
    net.op("Concat", f"{out}.size", f"{out}.batch", net.constant(f"{out}.rest", [more, 8, 8], np.int64), axis=0)
    net.op("ConstantOfShape", f"{out}.zeros", f"{out}.size")
    net.op("Concat", out, x, f"{out}.zeros", axis=1)
    net.channels[out] = net.channels[x] + more
    return out


def by_expand(net: Net, x: str, out: str, more: int) -> str:
    """A Concat with one zero, spread."""
    net.op("Shape", f"{out}.shape", x)
    net.op("Gather", f"{out}.batch", f"{out}.shape", net.constant(f"{out}.first", [0], np.int64), axis=0)
    net.op("Concat", f"{out}.size", f"{out}.batch", net.constant(f"{out}.rest", [more, 8, 8], np.int64), axis=0)
    net.op("Expand", f"{out}.zeros", net.constant(f"{out}.zero", np.zeros((1, 1, 1))), f"{out}.size")
    net.op("Concat", out, x, f"{out}.zeros", axis=1)
    net.channels[out] = net.channels[x] + more
    return out


Pads = Callable[[Net, str, str, int], str]
WAYS: tuple[Pads, ...] = (by_pad, by_value, by_concat, by_fill, by_expand)


def padded(way: Pads = by_pad, batch: int | str = 1) -> gs.Graph:
    """Two blocks that make channels wider by padding their shortcut, and one that keeps them (as BlazeFace's)."""
    net = Net()
    x = net.conv_bn_relu("x", "stem", 8, 3)
    for name, width in (("k0", 12), ("k1", 16), ("k2", 16)):
        more = width - net.channels[x]
        y = net.conv_bn(net.conv(x, f"{name}d", net.channels[x], 3, group=0), f"{name}p", width)
        x = net.relu(net.op("Add", name, y, way(net, x, f"{name}s", more) if more else x))
    net.classifier(x)
    return net.graph(batch=batch)


def widths(analysis: Analysis) -> dict[str, int]:
    return {
        name: knob.value for name, knob in analysis.knobs.items() if knob.kind == "width" and knob.growth == "exact"
    }


def written(made: gs.Graph, name: str) -> list[int]:
    return view(made).values(name).tolist()


def remapped(
    seed: gs.Graph, knobs: Mapping[str, int | str], strategy: str = "fna", select: str = "first"
) -> tuple[gs.Graph, Analysis]:
    """The target, after a look at its inner values; the analysis with the target's stages."""
    analysis = analyse(seed)
    found = plan(analysis, Spec(dict(knobs)), strategy=strategy, select=select)
    target = apply(seed, found)
    result = verify(seed, target, analysis, found)
    assert result.first is None or not result.exact, result.first
    assert result.worst < np.inf
    return target, analyse(target, table=found.table)


@pytest.mark.parametrize(
    ("way", "batch"), [(way, batch) for way in WAYS for batch in (1, "N") if (way, batch) != (by_concat, "N")]
)
def test_what_is_padded_is_as_wide_as_what_it_is_added_to(way: Pads, batch: int | str) -> None:
    seed = padded(way, batch)
    assert sorted(widths(analyse(seed)).values()) == [4, 4, 8]
    target, analysis = remapped(seed, dict.fromkeys(widths(analyse(seed)), "x0.5"))
    assert sorted(widths(analysis).values()) == [2, 2, 4]
    assert view(target).values("k2p.w").shape == (8, 8, 1, 1)


@pytest.mark.parametrize("way", WAYS)
def test_growth_keeps_the_function_and_can_be_taken_back(way: Pads) -> None:
    seed = padded(way)
    analysis = analyse(seed)
    deeper = {name: 3 for name, knob in analysis.knobs.items() if knob.kind == "depth" and knob.growth == "exact"}
    assert deeper
    found = plan(
        analysis, Spec({name: 2 * value + 1 for name, value in widths(analysis).items()} | deeper), strategy="preserve"
    )
    target = apply(seed, found)
    result = verify(seed, target, analysis, found)
    assert result.exact
    assert result.first is None
    again = analyse(target, table=found.table)
    back = apply(target, plan(again, Spec(own_spec(analysis).knobs)))
    before, after = view(normalise(seed).graph), view(back)
    assert all(np.array_equal(before.values(name), after.values(name)) for name in before.constants)


@pytest.mark.parametrize("select", ["first", "bn", "l1", "std"])
def test_any_selection_keeps_the_same_channels_on_both_sides(select: str) -> None:
    remapped(padded(), {"**.width*": "x0.5"}, select=select)


def test_only_the_amount_changes() -> None:
    seed = padded()
    first, second = (name for name, value in widths(analyse(seed)).items() if value == 4)
    target, _ = remapped(seed, {first: 2, second: 6})
    assert written(target, "k0s.pads") == [0, 0, 0, 0, 0, 2, 0, 0]
    assert written(target, "k1s.pads") == [0, 0, 0, 0, 0, 6, 0, 0]


def test_padding_in_front_pads_in_front() -> None:
    net = Net()
    x = net.conv_bn_relu("x", "stem", 8, 3)
    pads = net.constant("pads", [0, 1, 0, 0, 0, 3, 0, 0], np.int64)
    net.op("Pad", "s", x, pads)
    net.channels["s"] = 12
    net.classifier(net.relu(net.op("Add", "m", net.conv_bn(x, "c", 12), "s")))
    seed = net.graph()
    three = next(name for name, value in widths(analyse(seed)).items() if value == 3)
    target, _ = remapped(seed, {three: 6}, "preserve")
    assert written(target, "pads") == [0, 1, 0, 0, 0, 6, 0, 0]


def test_channels_padded_and_then_only_read_stay() -> None:
    made = graph(
        """net (float[1,3,8,8] x) => (float[1,5,8,8] y) {
            a = Conv (x, u)
            p = Pad (a, pads)
            y = Conv (p, v)
        }""",
        {"u": (8, 3, 1, 1), "v": (5, 12, 1, 1), "pads": np.array([0, 0, 0, 0, 0, 4, 0, 0])},
    )
    target, analysis = remapped(made, {"node:a.width": 4})
    assert written(target, "pads") == [0, 0, 0, 0, 0, 4, 0, 0]
    assert view(target).values("v").shape == (5, 8, 1, 1)
    assert widths(analysis) == {"node:a.width": 4}


def test_channels_that_an_image_is_padded_with_stay() -> None:
    made = graph(
        """net (float[1,3,8,8] x) => (float[1,5,8,8] y) {
            p = Pad (x, pads)
            a = Conv (x, u)
            s = Add (a, p)
            y = Conv (s, v)
        }""",
        {"u": (8, 3, 1, 1), "v": (5, 8, 1, 1), "pads": np.array([0, 0, 0, 0, 0, 5, 0, 0])},
    )
    assert [knob.why for knob in analyse(made).knobs.values() if knob.value == 8] == [
        "'s' (Add) merges it with 'p', whose channels are fixed"
    ]


def test_repeated_channels_stay_with_the_reason() -> None:
    made = graph(
        """net (float[1,3,8,8] x) => (float[1,5,8,8] y) {
            a = Conv (x, u)
            p = Pad <mode = "edge"> (a, pads)
            y = Conv (p, v)
        }""",
        {"u": (8, 3, 1, 1), "v": (5, 10, 1, 1), "pads": np.array([0, 0, 0, 0, 0, 2, 0, 0])},
    )
    assert analyse(made).knobs["node:a.width"].why == "'p' (Pad) repeats some of its channels"
