"""`fnatool profile` as its user meets it: the whole, its parts and its nodes; and FNA's networks, counted as
published.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import SEED, Net, graph
from onnx import TensorProto, helper
from remaps import normalised, residual
from tiny import model, save

from benchmarks import zoo
from fnatool import specs
from fnatool.cli.main import run
from fnatool.files import model as files
from fnatool.model import inspect as inspecting
from fnatool.model.analysed import analyse_model, realises
from passes.network.analyse import analyse
from passes.network.profile import Profile, profile
from passes.target.apply import apply
from passes.target.planner import plan
from passes.target.spec import Spec

Capture = pytest.CaptureFixture[str]
Json = dict[str, object]


@pytest.fixture
def seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small seed in the working directory."""
    monkeypatch.chdir(tmp_path)
    save(residual(), tmp_path / "seed.onnx")
    return "seed.onnx"


def told(capsys: Capture, *arguments: str) -> str:
    """What profile prints; it must succeed and have nothing to complain about."""
    assert run(["profile", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def figures(found: Profile) -> list[tuple[int, int, int]]:
    return [(part.params, part.macs, part.activations) for part in found.parts]


def assert_parts_make_the_whole(found: Profile) -> None:
    assert tuple(map(sum, zip(*figures(found), strict=True))) == (
        found.whole.params,
        found.whole.macs,
        found.whole.activations,
    )
    assert max(part.peak for part in found.parts) == found.whole.peak
    assert {row.part for row in found.rows} <= {part.name for part in found.parts}


# --- the table and the JSON ---


def test_the_table_shows_the_parts_and_their_sum(seed: str, capsys: Capture) -> None:
    lines = told(capsys, seed).splitlines()
    assert lines[0] == "seed.onnx  1.473K parameters, 87.198K MAdds for x 1×3×8×8"
    rows = [line.split() for line in lines]
    assert ["part", "nodes", "parameters", "MAdds", "share", "activations", "at", "once"] in rows
    assert ["stem", "3", "174", "10.368K", "11.9%", "4.608", "kB", "3.072", "kB"] in rows
    assert ["stage0", "12", "1.264K", "76.800K", "88.1%", "24.576", "kB", "6.656", "kB"] in rows
    assert ["head", "3", "35", "30", "0.0%", "68", "B", "1.560", "kB"] in rows
    assert ["all", "18", "1.473K", "87.198K", "100.0%", "29.252", "kB", "6.656", "kB"] in rows


def test_the_json_has_the_keys_that_programs_rely_on(seed: str, capsys: Capture) -> None:
    found = json.loads(told(capsys, seed, "--json"))
    numbers = {"params", "macs", "activations", "peak_activations"}
    assert set(found) == numbers | {
        "model",
        "convention",
        "inputs",
        "meaning",
        "stem",
        "stages",
        "head",
        "nodes",
        "notes",
    }
    assert (found["model"], found["convention"], found["inputs"]) == ("seed.onnx", "conv", {"x": [1, 3, 8, 8]})
    assert set(found["meaning"]) == numbers
    assert set(found["stem"]) == set(found["head"]) == numbers
    assert [set(stage) for stage in found["stages"]] == [numbers | {"name"}]
    assert [found[key] for key in ("params", "macs", "activations", "peak_activations")] == [1473, 87_198, 29_252, 6656]
    assert found["nodes"][0] == {
        "name": "stem", "op": "Conv", "stage": "stem", "shape": [1, 6, 8, 8], "params": 162, "macs": 10_368,
        "activations": 1536
    }  # fmt: skip
    for key in ("params", "macs", "activations"):
        assert sum(part[key] for part in (found["stem"], *found["stages"], found["head"])) == found[key]
        assert sum(node[key] for node in found["nodes"]) == found[key]


def test_the_nodes_are_shown_where_asked_for(seed: str, capsys: Capture) -> None:
    assert "e0.n.r" not in told(capsys, seed)
    rows = [line.split() for line in told(capsys, seed, "--nodes").splitlines()]
    assert ["node", "op", "part", "output", "parameters", "MAdds", "activations"] in rows
    assert ["e0", "Conv", "stage0", "1×10×8×8", "540", "34.560K", "2.560", "kB"] in rows


def test_inspect_counts_the_same(seed: str, capsys: Capture) -> None:
    for name in (seed, "mobilenetv2_bn"):
        found = json.loads(told(capsys, name, "--json"))
        analysis = analyse_model(files.read(SEED if name != seed else seed))
        assert (found["params"], found["macs"]) == (analysis.cost.params, analysis.cost.macs)
        rows = inspecting.stage_rows(analysis)
        assert [(s["name"], s["params"], s["macs"]) for s in found["stages"]] == [
            (r["name"], r["params"], r["macs"]) for r in rows
        ]


def test_macs_and_activations_are_unknown_while_the_image_size_is_free(seed: str, capsys: Capture) -> None:
    proto = residual(batch="N")
    for axis in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.dim_param = "extent"
    save(proto, Path("free.onnx"))
    found = json.loads(told(capsys, "free.onnx", "--json"))
    assert (found["params"], found["macs"], found["activations"], found["peak_activations"]) == (1473, None, None, None)
    assert all(node["macs"] is None and node["shape"] is None for node in found["nodes"])
    assert "the image size is free, give one with --input" in told(capsys, "free.onnx", "--nodes")
    sized = json.loads(told(capsys, "free.onnx", "--json", "--input", "x=1x3x16x4"))
    assert (sized["macs"], sized["activations"], sized["inputs"]) == (87_198, 29_252, {"x": [1, 3, 16, 4]})
    two = json.loads(told(capsys, "free.onnx", "--json", "--input", "x=2x3x16x4"))
    assert (two["macs"], two["params"]) == (2 * 87_198, 1473)


def test_a_network_without_stages_is_all_head(seed: str, capsys: Capture) -> None:
    save(normalised(), Path("lrn.onnx"))
    found = json.loads(told(capsys, "lrn.onnx", "--json"))
    assert found["stages"] == []
    assert (found["stem"]["params"], found["head"]["params"]) == (0, found["params"])
    assert "everything is head" in told(capsys, "lrn.onnx")


def test_a_remapped_network_keeps_its_stages(seed: str, capsys: Capture) -> None:
    Path("spec.json").write_text(json.dumps({"version": 1, "knobs": {"stage0.depth": 1}}))
    assert run(["remap", seed, "--spec", "spec.json", "-o", "out.onnx"]) == 0
    capsys.readouterr()
    assert [stage["name"] for stage in json.loads(told(capsys, "out.onnx", "--json"))["stages"]] == ["stage0"]


# --- multiply-adds and parameters ---


def test_the_paper_counts_the_biases_of_convolutions_and_no_others() -> None:
    net = Net()
    net.classifier(net.relu(net.conv("x", "c", 6, 3, bias=True)))
    plain, paper = (profile(net.graph(), convention=convention).whole.macs for convention in ("conv", "paper"))
    assert (plain, paper) == (6 * 27 * 64 + 30, 6 * 27 * 64 + 6 * 64 + 30)


COUNTED = [
    ("Conv <group = 2, strides = [2, 2]> (x, w)", {"w": (6, 2, 3, 3)}, 6 * 2 * 9 * 9),
    ("Conv <group = 4, dilations = [2, 2]> (x, w)", {"w": (8, 1, 3, 3)}, 8 * 9 * 16),
    ("ConvTranspose <strides = [2, 2]> (x, w)", {"w": (4, 6, 2, 2)}, 4 * 64 * 6 * 4),
    ("ConvTranspose <group = 2> (x, w)", {"w": (4, 3, 2, 2)}, 4 * 64 * 3 * 4),
    ("MatMul (x, w)", {"w": (8, 5)}, 4 * 8 * 8 * 5),
    ("MatMul (x, x)", {}, 4 * 8 * 8 * 8),
    ('Einsum <equation = "bchw,dc->bdhw"> (x, w)', {"w": (6, 4)}, 4 * 64 * 6),
    ('Einsum <equation = "b...w,wv"> (x, w)', {"w": (8, 5)}, 4 * 8 * 8 * 5),
    ('Einsum <equation = "...w,wv,v->..."> (x, w, v)', {"w": (8, 5), "v": (5,)}, 4 * 8 * 8 * 5 + 4 * 8 * 5),
    ('Einsum <equation = "bchw,c->bchw"> (x, w)', {"w": (4,)}, 0),  # nothing is summed
    ('Einsum <equation = "bchw->bc"> (x)', {}, 0),
    ("Relu (x)", {}, 0),
]


@pytest.mark.parametrize(("line", "weights", "macs"), COUNTED, ids=[line for line, _, _ in COUNTED])
def test_multiply_adds_are_those_counted_by_hand(line: str, weights: dict[str, tuple[int, ...]], macs: int) -> None:
    found = profile(graph(f"g (float[1,4,8,8] x) => (float[N] y) {{ y = {line} }}", weights))
    assert found.whole.macs == macs
    assert found.whole.params == sum(int(np.prod(shape)) for shape in weights.values())


def test_attention_multiplies_twice() -> None:
    text = "g (float[1,2,5,8] q, float[1,2,7,8] k, float[1,2,7,3] v) => (float[1,2,5,3] y) { y = Attention (q, k, v) }"
    assert profile(graph(text, opset=23)).whole.macs == 2 * 5 * 7 * 8 + 2 * 5 * 7 * 3


def test_a_layer_applied_to_every_level_of_a_pyramid_counts_its_parameters_once() -> None:
    text = """
    g (float[1,4,8,8] x) => (float[1,6,8,8] a, float[1,6,4,4] b, float[1,6,2,2] c) {
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
        q = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (p)
        a = Conv (x, w, bias)
        b = Conv (p, w, bias)
        c = Conv (q, w, bias)
    }
    """
    found = profile(graph(text, {"w": (6, 4, 1, 1), "bias": (6,)}), convention="paper")
    assert found.whole.params == 24 + 6
    assert found.whole.macs == (24 + 6) * (64 + 16 + 4)
    assert [row.params for row in found.rows if row.op == "Conv"] == [30, 0, 0]


def test_running_statistics_are_no_parameters() -> None:
    net = Net()
    net.classifier(net.conv_bn_relu("x", "c", 6, 3))
    (norm,) = (row for row in profile(net.graph()).rows if row.op == "BatchNormalization")
    assert norm.params == 12


def test_the_weights_of_a_quantised_network_are_parameters() -> None:
    text = """
    g (float[1,4,8,8] x) => (float[1,6,8,8] y) {
        w = DequantizeLinear (q, scale, zero)
        y = Conv (x, w)
    }
    """
    weights = {"q": np.ones((6, 4, 1, 1), np.int8), "scale": np.array(0.5, np.float32), "zero": np.array(0, np.int8)}
    found = profile(graph(text, weights)).whole
    assert (found.params, found.macs) == (24, 24 * 64)


def test_what_cannot_be_counted_is_said(tmp_path: Path) -> None:
    net = Net()
    net.op("Magic", "m", net.conv("x", "c", 6, 3), domain="com.example")
    net.classifier(net.relu("m"))
    found = profile(net.graph())
    assert "com.example::Magic 'm': multiply-adds unknown, counted as none" in found.notes
    assert any("sizes unknown" in note for note in found.notes)


# --- activations ---


def test_activations_are_counted_by_hand() -> None:
    text = (
        "g (float[1,2] x) => (float[1,2] z) { a = Relu (x) b = Neg (x) c = Add (a, b) z = Cast <to = 1> (h) h = "
        "Cast <to = 10> (c) }"
    )
    found = profile(graph(text))
    assert [(row.name, row.activations, row.alive) for row in found.rows] == [
        ("a", 8, 16),  # x, a
        ("b", 8, 24),  # x, a, b
        ("c", 8, 24),  # a, b, c
        ("h", 4, 12),  # c, h
        ("z", 8, 12),  # h, z
    ]
    assert (found.whole.activations, found.whole.peak) == (36, 24)


def test_an_output_stays_until_the_end_and_a_skip_until_it_is_read() -> None:
    text = "g (float[1,4] x) => (float[1,4] a, float[1,4] d) { a = Relu (x) b = Neg (a) c = Neg (b) d = Add (c, x) }"
    assert [row.alive for row in profile(graph(text)).rows] == [32, 48, 64, 64]


# --- parts ---


def test_a_layer_between_stages_belongs_to_the_later_and_what_no_stage_needs_is_head() -> None:
    net = Net()
    y = net.conv_bn_relu("x", "stem", 6, 3)
    for stage, width in enumerate((6, 8)):
        if stage:
            net.relu(net.conv(y, "tap", 2))
            y = net.conv_bn_relu(y, "down", width, 3, stride=2)
        y = net.op("Add", f"s{stage}", y, net.conv_bn(net.conv_bn_relu(y, f"e{stage}", 10, 3), f"l{stage}", width))
    net.classifier(y)
    parts = {row.name: row.part for row in profile(net.graph("y", "tap.r")).rows}
    assert {parts["stem"], parts["stem.n"], parts["stem.n.r"]} == {"stem"}
    assert {parts["e0"], parts["s0"]} == {"stage0"}
    assert {parts["down"], parts["down.n.r"], parts["e1"], parts["s1"]} == {"stage1"}
    assert {parts["tap"], parts["tap.r"], parts["pool"], parts["y"]} == {"head"}


@pytest.mark.parametrize("export", zoo.REPRESENTATIVE, ids=lambda export: zoo.place(export).stem)
def test_the_parts_of_a_network_make_the_whole(export: zoo.Export) -> None:
    read = files.read(zoo.cached(export)).graph
    found = profile(read)
    assert_parts_make_the_whole(found)
    cost = analyse(read).cost
    assert (found.whole.params, found.whole.macs) == (cost.params, cost.macs)
    assert found.head.params
    assert not found.stages or (found.stem.macs and all(stage.macs for stage in found.stages))


# --- FNA's networks: kernel and expansion of every layer as the released configurations have them ---

SEED_LAYERS = [1, 2, 3, 4, 3, 3, 1]
WIDTHS = [32, 16, 24, 32, 64, 96, 160, 320]
LAYERS = {
    "fna-seg": [
        ["k3_e1"],
        ["k3_e6", "k3_e6", "skip", "skip"],
        ["k7_e6", "k3_e6", "k3_e6", "k3_e6"],
        ["k7_e6", "k7_e6", "k5_e6", "k7_e6", "k7_e6", "k5_e6"],
        ["k7_e6", "k7_e6", "k7_e6", "k7_e6", "skip", "skip"],
        ["k7_e6", "k5_e6", "skip", "skip"],
        ["k7_e3"],
    ],
    "fna-retinanet": [
        ["k3_e1"],
        ["k3_e6", "k3_e6", "skip", "skip"],
        ["k7_e6", "k5_e6", "skip", "skip"],
        ["k3_e6", "k5_e6", "k7_e6", "k3_e6"],
        ["k5_e6", "k7_e6", "skip", "skip"],
        ["k7_e6", "k7_e6", "k7_e3", "k7_e6"],
        ["k7_e6"],
    ],
    "fna-ssdlite": [
        ["k3_e1"],
        ["k5_e6", "skip", "skip", "skip"],
        ["k5_e6", "k5_e6", "k3_e6", "k5_e6"],
        ["k5_e6", "k7_e6", "k3_e6", "skip"],
        ["k7_e6", "k7_e6", "k7_e6", "k7_e6"],
        ["k5_e6", "k7_e6", "k7_e6", "skip"],
        ["k7_e6"],
    ],
}
SIZES = {"fna-seg": [1024, 2048], "fna-retinanet": [800, 1088], "fna-ssdlite": [320, 320]}
RESOLUTION = {"input.size", "output_stride"}


def published(name: str) -> dict[str, int]:
    """The knobs of stages and blocks that the layer lists mean."""
    knobs: dict[str, int] = {}
    for i, listed in enumerate(LAYERS[name]):
        layers = [layer for layer in listed if layer != "skip"]
        knobs[f"stage{i}.depth"], knobs[f"stage{i}.width"] = len(layers), WIDTHS[i + 1]
        for j, layer in enumerate(layers):
            kernel, expansion = (int(number) for number in layer.replace("k", "").split("_e"))
            knobs[f"stage{i}.block{j}.kernel"] = kernel
            if expansion > 1:
                knobs[f"stage{i}.block{j}.hidden"] = expansion * WIDTHS[i + (j > 0)]
    return knobs


def written(name: str) -> dict[str, object]:
    """The knobs in the bundled spec."""
    path = specs.bundled(name)
    assert path is not None
    document = json.loads(path.read_text())
    assert (set(document), document["version"]) == ({"version", "knobs"}, 1)
    return dict(document["knobs"])


def shape_only(name: str) -> Spec:
    """The bundled spec but for the resolution."""
    return Spec(
        {key: value for key, value in written(name).items() if key not in RESOLUTION and isinstance(value, int)}
    )


@pytest.mark.parametrize("name", specs.NAMES)
def test_a_bundled_spec_is_the_published_layer_list(name: str) -> None:
    knobs = written(name)
    resolution = {key: knobs.pop(key) for key in sorted(RESOLUTION & set(knobs))}
    assert resolution == {"input.size": SIZES[name]} | ({"output_stride": 16} if name == "fna-seg" else {})
    assert knobs == {key: value for key, value in published(name).items() if key != "stage0.depth"}


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> files.Model:
    """The bundled seed with a free image size."""
    proto = onnx.load(SEED)
    for axis, letter in zip(proto.graph.input[0].type.tensor_type.shape.dim[2:], "hw", strict=True):
        axis.dim_param = letter
    return files.read(save(proto, tmp_path_factory.mktemp("seed") / "free.onnx"))


def backbone(found: Profile, *, last: bool) -> tuple[str, str]:
    """Parameters in millions and multiply-adds in billions of stem and stages, with the convolution of 1280 channels if
    last.
    """
    parts = (found.stem, *found.stages)
    tail = [row for row in found.rows if last and row.name.startswith("head")]
    assert bool(tail) == last
    params, macs = (sum(getattr(piece, key) for piece in (*parts, *tail)) for key in ("params", "macs"))
    return f"{params / 1e6:.3f}", f"{macs / 1e9:.3f}" if last else f"{macs / 1e9:.2f}"


def at_stride_16(proto: files.Model) -> files.Model:
    """Strides after the fifth are 1: the map stays at 1/16. (Dilations do not change the cost.)"""
    strided = [node for node in proto.graph.nodes if node.op == "Conv" and set(node.attrs.get("strides", [1])) == {2}]
    for node in strided[4:]:
        node.attrs["strides"] = [1, 1]
        pad = (node.inputs[1].shape[2] - 1) // 2
        node.attrs["pads"] = [pad] * 4
    return proto


# parameters (M) and multiply-adds (B) of the backbones; with their heads they are what FNA publishes
PUBLISHED = [
    ("", [1024, 2048], ("1.812", "19.04")),
    ("fna-seg", [1024, 2048], ("1.711", "18.70")),
    ("", [800, 1088], ("1.812", "4.85")),
    ("fna-retinanet", [800, 1088], ("2.056", "4.82")),
    ("", [320, 320], ("2.224", "0.611")),
    ("fna-ssdlite", [320, 320], ("2.531", "0.683")),
]


@pytest.mark.parametrize(("name", "size", "expected"), PUBLISHED)
def test_the_published_networks_cost_what_is_published(
    name: str, size: list[int], expected: tuple[str, str], free: files.Model
) -> None:
    sizes = {"input": (1, 3, *size)}
    graph_ = free.graph.copy()
    table: Sequence[Sequence[dict[str, str]]] | None = None
    if name:
        found = plan(analyse(free.graph, sizes=sizes), shape_only(name))
        graph_, table = apply(free.graph, found), found.table
    if size == [1024, 2048]:
        graph_ = at_stride_16(files.Model(graph_, free.envelope, "", free.path)).graph
    counted = profile(graph_, sizes=sizes, table=table, convention="paper")
    assert_parts_make_the_whole(counted)
    assert backbone(counted, last=size == [320, 320]) == expected


def test_another_kernel_would_not_cost_what_is_published(free: files.Model) -> None:
    sizes = {"input": (1, 3, 320, 320)}
    wrong = Spec({**shape_only("fna-ssdlite").knobs, "stage3.block0.kernel": 7})
    counted = profile(apply(free.graph, plan(analyse(free.graph, sizes=sizes), wrong)), sizes=sizes, convention="paper")
    assert backbone(counted, last=True) != ("2.531", "0.683")


@pytest.mark.parametrize("name", specs.NAMES)
def test_layer_i_of_a_bundled_spec_comes_from_layer_i_of_the_seed_or_its_last(name: str, free: files.Model) -> None:
    found = plan(analyse(free.graph, sizes={"input": (1, 3, 64, 64)}), shape_only(name)).resolved
    for i, sources in found.sources.items():
        assert list(sources) == [min(j, SEED_LAYERS[i] - 1) for j in range(len(sources))]


# --- bundled specs by name ---


def test_a_bundled_spec_goes_by_its_name_and_a_file_of_that_name_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert specs.find("fna-seg") == specs.FOLDER / "fna-seg.json"
    Path("fna-seg").write_text("{}")
    assert specs.find("fna-seg") == Path("fna-seg")
    assert sorted(path.stem for path in specs.FOLDER.glob("*.json")) == sorted(specs.NAMES)


@pytest.mark.parametrize("seed", ["bn", "folded"])
@pytest.mark.parametrize("name", specs.NAMES)
def test_a_bundled_spec_remaps_a_mobilenetv2_to_the_published_cost(
    name: str, seed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = "mobilenetv2_bn" if seed == "bn" else str(folded(tmp_path / "folded.onnx"))
    assert run(["remap", path, "--spec", name, "-o", "out.onnx", "--no-verify"]) == 0
    made = files.read("out.onnx")
    assert realises(made, specs.find(name)) == []
    found = profile(made.graph)
    params, macs = next(expected for spec, _, expected in PUBLISHED if spec == name)
    counted = backbone(found, last=name == "fna-ssdlite")
    assert counted[1] == macs
    assert seed == "folded" or counted[0] == params  # a folded BatchNormalization has one parameter a channel, not two


def test_check_knows_the_bundled_specs_by_name_too(seed: str, capsys: Capture) -> None:
    assert run(["remap", "mobilenetv2_bn", "--spec", "fna-ssdlite", "-o", "out.onnx", "--no-verify"]) == 0
    assert run(["check", "out.onnx", "--spec", "fna-ssdlite"]) == 0
    assert run(["check", "mobilenetv2_bn", "--spec", "fna-ssdlite"]) == 1
    assert "'stage1.depth' should be 1, the model has 2" in capsys.readouterr().out


def folded(path: Path) -> Path:
    """The bundled seed with every BatchNormalization folded into the convolution before it."""
    proto = onnx.load(SEED)
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    maker = {node.output[0]: node for node in proto.graph.node}
    for norm in [node for node in proto.graph.node if node.op_type == "BatchNormalization"]:
        conv, (gamma, beta, mean, var) = maker[norm.input[0]], (arrays.pop(name) for name in norm.input[1:])
        epsilon = next(attribute.f for attribute in norm.attribute if attribute.name == "epsilon")
        scale = gamma / np.sqrt(var + epsilon)
        arrays[conv.input[1]] = arrays[conv.input[1]] * scale[:, None, None, None]
        arrays[f"{conv.name}.bias"] = beta - mean * scale
        conv.input.append(f"{conv.name}.bias")
        conv.output[0] = norm.output[0]
        proto.graph.node.remove(norm)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    return save(proto, path)


@pytest.mark.parametrize("command", [["remap", "seed.onnx", "--dry-run"], ["check", "seed.onnx"]])
def test_an_unknown_spec_is_one_message_that_lists_the_bundled_ones(
    command: list[str], seed: str, capsys: Capture
) -> None:
    assert run([*command, "--spec", "fna-det"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "there is no spec 'fna-det'" in captured.err
    assert "bundled are fna-seg, fna-retinanet, fna-ssdlite" in captured.err
    assert captured.err.count("\n") == 1


def test_a_bundled_spec_that_does_not_fit_says_what_it_is_for(seed: str, capsys: Capture) -> None:
    assert run(["remap", seed, "--spec", "fna-seg", "--dry-run"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("; the bundled spec 'fna-seg' is for MobileNetV2, with its seven stages\n")


# --- mistakes and terminals ---


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no.onnx"], 2, "'no.onnx' does not exist; give the path of an ONNX file"),
        (["."], 2, "'.' is a folder; give the ONNX file in it"),
        (["broken.onnx"], 1, "this is not an ONNX model"),
        (["seed.onnx", "--input", "z=1x3x8x8"], 2, "--input names 'z', but the inputs are: x"),
        (["seed.onnx", "--input", "x=1x4x8x8"], 2, "--input gives 'x' size 4 on axis 1, but the model fixes it to 3"),
    ],
)
def test_a_mistake_is_one_message(arguments: list[str], code: int, message: str, seed: str, capsys: Capture) -> None:
    Path("broken.onnx").write_bytes(b"no model")
    assert run(["profile", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_control_flow_is_refused_by_name(seed: str, capsys: Capture) -> None:
    body = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"])], "b", [], [helper.make_tensor_value_info("r", 1, [2])]
    )
    node = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=body, else_branch=body)
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    proto = helper.make_model(
        helper.make_graph([node], "g", ends, [helper.make_tensor_value_info("y", 1, [2])]), ir_version=8
    )
    save(proto, Path("if.onnx"))
    assert run(["profile", "if.onnx"]) == 1
    assert "'choice' has a subgraph" in capsys.readouterr().err


def test_a_network_without_weights_has_a_profile_too(seed: str, capsys: Capture) -> None:
    save(model("g (float[3] x) => (float[3] y) { y = Relu (x) }"), Path("a.onnx"))
    found = json.loads(told(capsys, "a.onnx", "--json"))
    assert (found["params"], found["macs"], found["activations"]) == (0, 0, 12)
    assert "part" in told(capsys, "a.onnx")


@pytest.mark.parametrize("form", ["", "--json", "--nodes"])
def test_a_reader_that_leaves_early_is_no_error(form: str) -> None:
    line = f"{sys.executable} -m fnatool profile mobilenetv2_bn {form} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_that_knows_only_ascii_is_no_error() -> None:
    command = [sys.executable, "-m", "fnatool", "profile", "mobilenetv2_bn"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\x1b" not in done.stdout
