"""`fnatool fold` and `fnatool unfold` as their user meets them: data, messages, exit codes, and what the files hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net
from PIL import Image
from refusals import refused
from remaps import save_external, weights
from tiny import save

import fnatool
from fnatool.cli.main import run
from fnatool.files import model as files
from fnatool.model import calibration, pixels
from fnatool.model import fold as folding
from fnatool.model.analysed import STAGES_KEY, analyse_model, metadata
from fnatool.model.fold import UnfoldOptions
from fnatool.model.verified import verify_same
from fnatool.runtime.verify import run_inner
from passes.errors import RefusedModel, UserError

Capture = pytest.CaptureFixture[str]

MEAN, SCALE = (10.0, 20.0, 30.0), (50.0, 60.0, 70.0)
HOW = ["--mean", "10,20,30", "--scale", "50,60,70"]


def network(*, norms: bool, batch: int | str = "N", channels: int = 3) -> onnx.ModelProto:
    """A stem, two residual blocks and a classifier, with BatchNormalization or biases."""
    net = Net(channels)

    def conv(x: str, out: str, width: int, kernel: int = 1) -> str:
        return net.conv_bn(x, out, width, kernel) if norms else net.conv(x, out, width, kernel, bias=True)

    y = net.relu(conv("x", "stem", 6, 3))
    for k in range(2):
        y = net.op("Add", f"s{k}", y, conv(net.relu(conv(y, f"e{k}", 10, 3)), f"l{k}", 6))
    net.classifier(y)
    proto = net.model(batch=batch)
    proto.doc_string = "a test"
    proto.metadata_props.add(key="author", value="somebody")
    return proto


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a network with BatchNormalization, one without, and five images."""
    monkeypatch.chdir(tmp_path)
    save(network(norms=True), tmp_path / "bn.onnx")
    save(network(norms=False), tmp_path / "plain.onnx")
    (tmp_path / "photos" / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(5):
        place = tmp_path / "photos" / ("more" if index % 2 else ".")
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(place / f"{index}.png")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def ops(path: str) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


# --- fold ---


def test_fold_writes_the_network_without_batchnorm_and_says_how_exact_that_is(folder: Path, capsys: Capture) -> None:
    assert run(["fold", "bn.onnx", "-o", "out.onnx"]) == 0
    out = capsys.readouterr().out
    assert "5 BatchNorms folded: stem.n into stem …" in out
    assert "exact: 6 inner tensors compared in ONNX Runtime, worst drift " in out
    assert out.splitlines()[-1] == "→ out.onnx"
    assert "BatchNormalization" not in ops("out.onnx")
    assert run(["check", "out.onnx", "--against", "bn.onnx"]) == 0


def test_what_the_file_says_beside_its_graph_stays(folder: Path) -> None:
    assert run(["fold", "bn.onnx", "-o", "out.onnx"]) == 0
    made = onnx.load("out.onnx")
    assert made.doc_string == "a test"
    entries = {entry.key: entry.value for entry in made.metadata_props}
    assert entries["author"] == "somebody"
    assert len(json.loads(entries[STAGES_KEY])[0]) == 2


def test_what_stays_is_listed_by_reason(folder: Path, capsys: Capture) -> None:
    net = Net()
    net.classifier(net.bn(net.relu(net.bn(net.relu(net.conv_bn("x", "stem", 6, 3))))))
    save(net.model(), folder / "some.onnx")
    assert run(["fold", "some.onnx", "-o", "out.onnx"]) == 0
    out = capsys.readouterr().out
    assert "left: stem.n.r.n: it stands behind 'stem.n.r' (Relu), which has no weight to take it" in out
    assert "1 BatchNorms folded: stem.n into stem" in out


def test_where_nothing_can_be_folded_the_file_is_copied_byte_for_byte(folder: Path, capsys: Capture) -> None:
    assert run(["fold", "plain.onnx", "-o", "out.onnx"]) == 0
    assert "nothing changes: the result is the model, byte for byte (out.onnx)" in capsys.readouterr().out
    assert (folder / "out.onnx").read_bytes() == (folder / "plain.onnx").read_bytes()


def test_fold_without_verification_does_not_call_itself_exact(folder: Path, capsys: Capture) -> None:
    assert run(["fold", "bn.onnx", "-o", "out.onnx", "--no-verify"]) == 0
    out = capsys.readouterr().out
    assert "not verified" in out
    assert "exact" not in out


def test_external_data_stays_external(folder: Path) -> None:
    save_external(network(norms=True), folder / "big.onnx")
    assert run(["fold", "big.onnx", "-o", "out.onnx"]) == 0
    assert (folder / "out.onnx.data").exists()
    assert run(["fold", "bn.onnx", "-o", "inside.onnx"]) == 0
    inside, outside = weights(folder / "inside.onnx"), weights(folder / "out.onnx")
    assert inside.keys() == outside.keys()
    assert all(np.array_equal(inside[name], outside[name]) for name in inside)


@pytest.mark.parametrize("command", [["fold", "bn.onnx"], ["unfold", "plain.onnx", "--data", "random"]])
def test_no_file_is_overwritten(command: list[str], folder: Path, capsys: Capture) -> None:
    (folder / "there.onnx").write_text("mine")
    before = files_in(folder)
    assert run([*command, "-o", "there.onnx"]) == 2
    assert "exists; choose another output or pass --force" in refused(capsys)
    assert run([*command, "-o", command[1], "--force"]) == 2
    assert "never overwritten" in refused(capsys)
    assert files_in(folder) == before
    assert run([*command, "-o", "there.onnx", "--force"]) == 0


def test_a_wrong_result_is_refused_and_names_the_first_tensor(folder: Path) -> None:
    read = files.read("bn.onnx")
    analysis = analyse_model(read)
    made = folding.fold(read)
    conv = next(node for node in made.model.graph.nodes if node.name == "e0")
    conv.inputs[2].values = conv.inputs[2].values + np.float32(0.1)
    with pytest.raises(RefusedModel, match=r"'e0\.n' of node 'e0\.n' is the first to drift"):
        verify_same(read, made.model, analysis)


# --- unfold ---


def test_unfold_puts_batchnorm_back_and_changes_nothing(folder: Path, capsys: Capture) -> None:
    assert run(["unfold", "plain.onnx", "--data", "photos", *HOW, "-o", "out.onnx"]) == 0
    captured = capsys.readouterr()
    assert "5 BatchNorms put in: stem.bn behind stem …" in captured.out
    assert "exact: 6 inner tensors compared in ONNX Runtime" in captured.out
    assert captured.err == ""
    assert ops("out.onnx").count("BatchNormalization") == 5
    assert run(["check", "out.onnx", "--against", "plain.onnx"]) == 0
    assert run(["fold", "out.onnx", "-o", "back.onnx"]) == 0
    assert ops("back.onnx") == ops("plain.onnx")


def test_the_statistics_are_those_of_the_images(folder: Path) -> None:
    made = folding.unfold("plain.onnx", options=UnfoldOptions(data="photos", mean=MEAN, scale=SCALE))
    rows = []
    for path in sorted(Path("photos").rglob("*.png")):
        pixels = np.asarray(Image.open(path).resize((8, 8), Image.Resampling.BILINEAR, box=(5, 0, 25, 20)), np.float64)
        rows.append(((pixels - MEAN) / SCALE).transpose(2, 0, 1))
    feeds = {"x": np.stack(rows).astype(np.float32)}
    stem = run_inner(files.read("plain.onnx").graph, feeds, ["stem"], "it")["stem"].astype(np.float64)
    found = weights_of(made)
    assert np.allclose(found["stem.bn.beta"], stem.mean(axis=(0, 2, 3)), atol=1e-5)
    assert np.allclose(found["stem.bn.var"], stem.var(axis=(0, 2, 3)), rtol=1e-5)


def weights_of(made: folding.BatchNormResult) -> dict[str, np.ndarray]:
    return {t.name: t.values for node in made.model.graph.nodes for t in node.inputs if hasattr(t, "values")}


def test_noise_is_noise_and_says_so(folder: Path, capsys: Capture) -> None:
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert (
            run(["unfold", "plain.onnx", "--data", "random", "--images", "8", "--seed", seed, "-o", f"{out}.onnx"]) == 0
        )
    assert "note: the statistics are those of noise" in capsys.readouterr().out
    made = files_in(folder)
    assert made["a.onnx"] == made["b.onnx"] != made["c.onnx"]


def test_only_what_is_named_is_unfolded(folder: Path) -> None:
    assert run(["unfold", "plain.onnx", "--data", "random", "--images", "2", "--only", "e*", "-o", "out.onnx"]) == 0
    assert [node.name for node in onnx.load("out.onnx").graph.node if node.op_type == "BatchNormalization"] == [
        "e0.bn",
        "e1.bn",
    ]


def test_where_nothing_can_be_unfolded_the_file_is_copied_and_no_data_is_read(folder: Path, capsys: Capture) -> None:
    (folder / "empty").mkdir()
    assert run(["unfold", "bn.onnx", "--data", "empty", "-o", "out.onnx"]) == 0
    out = capsys.readouterr().out
    assert "left: stem, e0 and 3 more: a normalisation follows" in out
    assert "byte for byte" in out
    assert (folder / "out.onnx").read_bytes() == (folder / "bn.onnx").read_bytes()


def test_a_channel_that_never_varies_is_mentioned(folder: Path, capsys: Capture) -> None:
    proto = network(norms=False)
    weight = next(t for t in proto.graph.initializer if t.name == "e0.w")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[3] = 0
    weight.CopyFrom(onnx.numpy_helper.from_array(values, "e0.w"))
    save(proto, folder / "dead.onnx")
    assert run(["unfold", "dead.onnx", "--data", "random", "--images", "4", "-o", "out.onnx"]) == 0
    assert "1 convolutions have channels that never vary on this data, as 'e0'" in capsys.readouterr().out


@pytest.mark.parametrize(("key", "place"), [("fnatool.task", True), ("fnatool.source", False)])
def test_mean_and_scale_come_from_the_metadata(key: str, place: bool, folder: Path) -> None:
    proto = network(norms=False)
    how = {"mean": list(MEAN), "scale": list(SCALE)}
    proto.metadata_props.add(key=key, value=json.dumps({"input": how} if place else how))
    save(proto, folder / "knows.onnx")
    knows = weights_of(folding.unfold("knows.onnx", options=UnfoldOptions(data="photos")))
    told = weights_of(folding.unfold("plain.onnx", options=UnfoldOptions(data="photos", mean=MEAN, scale=SCALE)))
    assert np.array_equal(knows["stem.bn.var"], told["stem.bn.var"])


@pytest.mark.parametrize(
    "text", ["", "[]", "3", '{"input": {"mean": ["a"], "scale": [1]}}', '{"input": 5}', "not json"]
)
def test_damaged_metadata_is_not_believed(text: str, folder: Path) -> None:
    proto = network(norms=False)
    proto.metadata_props.add(key="fnatool.task", value=text)
    save(proto, folder / "odd.onnx")
    assert folding.unfold("odd.onnx", options=UnfoldOptions(data="photos")).notes[1] == pixels.WARNING


def test_a_grey_image_and_a_fixed_batch_are_what_the_network_gets(folder: Path) -> None:
    save(network(norms=False, batch=2, channels=1), folder / "grey.onnx")
    made = folding.unfold("grey.onnx", options=UnfoldOptions(data="photos", mean=(10.0,), scale=(50.0,)))
    rows = [np.asarray(Image.open(p).convert("L").resize((8, 8), Image.Resampling.BILINEAR, box=(5, 0, 25, 20))) for p in sorted(Path("photos").rglob("*.png"))]  # fmt: skip
    images = ((np.stack(rows).astype(np.float64) - 10) / 50)[:, None].astype(np.float32)
    graph = files.read("grey.onnx").graph
    pairs = [run_inner(graph, {"x": images[[i, (i + 1) % 5]]}, ["stem"], "it")["stem"][0] for i in range(5)]
    assert np.allclose(
        weights_of(made)["stem.bn.var"], np.stack(pairs).astype(np.float64).var(axis=(0, 2, 3)), rtol=1e-5
    )


@pytest.mark.parametrize("budget", [calibration.BUDGET, 10_000, 1])
def test_statistics_do_not_depend_on_how_much_is_held_at_a_time(
    budget: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "BUDGET", budget)
    found = weights_of(folding.unfold("plain.onnx", options=UnfoldOptions(data="random", images=7)))
    monkeypatch.setattr(calibration, "BUDGET", calibration.BUDGET)
    monkeypatch.setattr(calibration, "LARGEST_BATCH", 3)
    other = weights_of(folding.unfold("plain.onnx", options=UnfoldOptions(data="random", images=7)))
    assert all(np.allclose(found[name], other[name], rtol=1e-5, atol=1e-6) for name in found if ".bn." in name)


def test_large_means_do_not_spoil_the_variance() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((40, 3, 5, 5)) * 1e-3 + 1e5
    running = calibration._Running()
    for part in np.array_split(values, 7):
        running.add(part)
    found = running.moments()
    assert np.allclose(found.variance, values.var(axis=(0, 2, 3)), rtol=1e-6)
    assert np.allclose(found.mean, values.mean(axis=(0, 2, 3)), rtol=1e-12)


def test_an_input_of_channels_last_gets_its_images_so(folder: Path) -> None:
    net = Net()
    net.op("Transpose", "t", "x", perm=[0, 3, 1, 2])
    net.channels["t"] = 3
    net.classifier(net.relu(net.conv("t", "stem", 6, 3, bias=True)))
    proto = net.model()
    for axis, size in enumerate((1, 8, 8, 3)):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    del proto.graph.value_info[:]
    save(proto, folder / "last.onnx")
    made = weights_of(folding.unfold("last.onnx", options=UnfoldOptions(data="photos", mean=MEAN, scale=SCALE)))
    assert made["stem.bn.var"].shape == (6,)


def missing(folder: Path) -> list[str]:
    return ["nowhere", *HOW]


def empty(folder: Path) -> list[str]:
    (folder / "empty").mkdir()
    return ["empty", *HOW]


def broken(folder: Path) -> list[str]:
    whole = (folder / "photos" / "0.png").read_bytes()
    (folder / "photos" / "9.png").write_bytes(whole[: len(whole) // 2])
    return ["photos", *HOW]


MISTAKES: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "no folder": (missing, "'nowhere' is not a folder; --data takes a folder of images, or the word random"),
    "no images": (empty, "there is no image in 'empty'"),
    "a broken image": (broken, "9.png' cannot be read as an image"),
    "two of three": (
        lambda _: ["photos", "--mean", "1,2", "--scale", "1"],
        "has 3 channels, the mean 2 values; give one for each",
    ),
    "a scale of zero": (lambda _: ["photos", "--mean", "1", "--scale", "0"], "a scale of 0 would divide by zero"),
    "no number": (lambda _: ["photos", "--mean", "dark"], "'dark' is not a list of numbers"),
    "a pattern for nothing": (
        lambda _: ["random", "--only", "layer*"],
        "--only 'layer*' matches none of the 5 convolutions",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_data_that_does_not_fit_is_a_mistake_in_one_line(name: str, folder: Path, capsys: Capture) -> None:
    make, message = MISTAKES[name]
    arguments = make(folder)
    assert run(["unfold", "plain.onnx", "-o", "out.onnx", "--data", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out.onnx").exists()


def test_a_network_of_two_inputs_is_told_so(folder: Path) -> None:
    net = Net()
    net.classifier(net.relu(net.op("Add", "sum", net.conv("x", "stem", 3, 3), "z")))
    proto = net.model()
    proto.graph.input.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 3, 8, 8]))
    save(proto, folder / "two.onnx")
    with pytest.raises(UserError, match="on networks with one input; this one has x, z"):
        folding.unfold("two.onnx", options=UnfoldOptions(data="random"))


# --- from Python ---


def test_the_same_words_from_python(folder: Path) -> None:
    made = fnatool.unfold("plain.onnx", "out.onnx", options=fnatool.UnfoldOptions(data="random", images=4))
    assert made.verified is not None
    assert made.verified.worst <= 1e-5
    assert len(fnatool.fold("out.onnx", "back.onnx").changed) == 5
    with pytest.raises(UserError, match="exists"):
        fnatool.fold("bn.onnx", "back.onnx")
    assert metadata(files.read("back.onnx").envelope)["author"] == "somebody"
