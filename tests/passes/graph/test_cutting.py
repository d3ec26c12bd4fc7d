"""Cut-out parts compute what the network computes there; a signature tells shapes, operators and attributes, but no
names and values.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from cuts import space_net
from nets import bundled, named

from fnatool.latency.pieces import cut_up, input_sizes, member_graph
from fnatool.latency.timing import call, filled
from fnatool.runtime.verify import run_inner
from passes import Analysis, analyse
from passes.graph.cutting import bare, components, cut
from passes.graph.shapes import infer
from passes.graph.view import view
from passes.space.presets import preset
from passes.space.space import SKIP, Choices, choices


def parts_of(
    made: gs.Graph, analysis: Analysis, found: Choices, member: tuple[int, ...]
) -> tuple[gs.Graph, list[gs.Graph]]:
    """A member and all its parts."""
    plan, target = member_graph(made, analysis, found, member)
    seen = view(target)
    shapes = infer(seen, input_sizes(plan, target))
    places = {placed.node.name: placed.place for placed in plan.nodes}
    groups = [
        {name for name, place in places.items() if place == one}
        for one in dict.fromkeys(places.values())
        if one is not None
    ]
    outside = {name for name, place in places.items() if place is None}
    return target, [cut(target, seen, shapes, set(group)) for group in [*groups, *components(seen, outside)]]


def drift(target: gs.Graph, parts: list[gs.Graph]) -> float:
    """The largest difference between what a part makes of the network's own tensors and the network's own."""
    rng = np.random.default_rng(0)
    (entry,) = target.inputs
    feeds = {entry.name: rng.standard_normal(entry.shape).astype(np.float32)}
    names = list(dict.fromkeys(t.name for part in parts for t in (*part.inputs, *part.outputs) if t.name != entry.name))
    whole = {**feeds, **run_inner(target, feeds, names, "the member")}
    worst = 0.0
    for part in parts:
        outputs = [tensor.name for tensor in part.outputs]
        for name, values in run_inner(part, {t.name: whole[t.name] for t in part.inputs}, outputs, "a part").items():
            worst = max(worst, float(abs(values - whole[name]).max() / np.ptp(whole[name])))
    return worst


@pytest.mark.parametrize("member", [(0, SKIP, 3, SKIP), (7, 6, 5, 4), (2, SKIP, SKIP, SKIP)])
def test_the_parts_of_a_member_compute_what_it_computes_there(member: tuple[int, ...]) -> None:
    made, analysis, found = space_net()
    target, parts = parts_of(made, analysis, found, member)
    assert sum(len(part.nodes) for part in parts) == len(target.nodes)
    assert drift(target, parts) < 1e-5


def test_a_part_with_another_weight_is_noticed() -> None:
    made, analysis, found = space_net()
    target, parts = parts_of(made, analysis, found, (7, 6, 5, 4))
    weight = next(node.inputs[1] for node in parts[1].nodes if node.op == "Conv")
    weight.values = weight.values * np.float32(1.05)
    assert drift(target, parts) > 1e-4


def test_equal_candidates_of_several_blocks_are_one_network() -> None:
    made, analysis, found = space_net()
    pieces = cut_up(made, analysis, found)
    assert [len(row) for row in pieces.blocks] == [8] * 4
    assert len(set(pieces.blocks[0])) == 8
    assert set(map(tuple, pieces.blocks)) == {pieces.blocks[0]}
    assert len(pieces.rest) == 2
    assert len(pieces.networks) == 8 + 2


def test_the_published_space_takes_a_timing_for_every_two_candidates() -> None:
    made = bundled()
    analysis = analyse(made)
    pieces = cut_up(made, analysis, choices(analysis, preset("fna-detection", analysis)))
    assert sum(map(len, pieces.blocks)) == 127
    assert len(pieces.networks) == 69
    assert sum(len(network.model) for network in pieces.networks.values()) < 1 << 20


def conv(
    stride: int = 1, width: int = 6, name: str = "c", value: float = 1.0, kind: type = np.float32, clip: float = 6.0
) -> gs.Graph:
    """A convolution and a Clip."""
    rng = np.random.default_rng(0)
    dtype = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    nodes = [
        onnx.helper.make_node("Conv", ["x", f"{name}.w"], [name], name=name, strides=[stride] * 2),
        onnx.helper.make_node("Clip", [name, "", f"{name}.max"], ["y"], name=f"{name}.clip"),
    ]
    weights = {f"{name}.w": rng.standard_normal((width, 3, 3, 3)) * value, f"{name}.max": np.array(clip)}
    constants = [onnx.numpy_helper.from_array(values.astype(kind), key) for key, values in weights.items()]
    ends = [onnx.helper.make_tensor_value_info(key, dtype, shape) for key, shape in (("x", [1, 3, 9, 9]), ("y", None))]
    body = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    return named(onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8))


@pytest.mark.parametrize("other", [{"name": "other"}, {"value": 3.0}])
def test_names_and_the_values_of_weights_leave_the_signature(other: dict[str, object]) -> None:
    assert bare(conv(**other)).signature == bare(conv()).signature  # type: ignore[arg-type]


@pytest.mark.parametrize("other", [{"stride": 2}, {"width": 7}, {"kind": np.float16}, {"clip": 5.0}])
def test_attributes_shapes_types_and_numbers_change_the_signature(other: dict[str, object]) -> None:
    assert bare(conv(**other)).signature != bare(conv()).signature  # type: ignore[arg-type]


def test_another_size_of_the_input_changes_the_signature() -> None:
    assert bare(conv(), {"x": (1, 3, 16, 16)}).signature != bare(conv()).signature


def test_a_bare_network_has_no_weights_until_it_is_filled() -> None:
    original = conv()
    network = bare(original)
    assert [weight.shape for weight in network.weights] == [(6, 3, 3, 3)]
    assert [node.name for node in original.nodes] == ["c", "c.clip"]
    assert onnx.load_from_string(network.model).graph.initializer[0].dims == []
    assert {tuple(one.dims) for one in onnx.load_from_string(filled(network)).graph.initializer} == {(), (6, 3, 3, 3)}
    onnx.checker.check_model(filled(call()))
