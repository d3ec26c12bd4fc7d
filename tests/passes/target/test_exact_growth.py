"""Growth that must be exact is, on inner values, for written sizes and in half precision too; a planted error is
noticed.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from nets import Net, graph, named
from onnx import TensorProto, numpy_helper
from plans import Knobs, arrays, blocks, chain, remapped, seed

from fnatool.runtime.verify import Verification, verify
from passes import Spec, apply, plan

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
        "split": [1, 2, 4, 6, 6], "back": [1, 8, 6, 6], "flat": [1, 8, 36], "halves": [4, 4], "zero": [0], "one": [1],
        "four": [4], "all": [1 << 40], "last": [-3], "picks": [3, 0, 7, 5, 6],
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
    analysis, found, target = remapped(
        made, {"stage0.width": 9, "stage0.block0.hidden": 16, "stage0.depth": 2}, strategy="preserve"
    )
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
