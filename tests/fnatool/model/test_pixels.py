"""How pixels become inputs: one answer for every command, from what is asked to what is guessed, and the same values
wherever they go.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from nets import Net
from PIL import Image
from seeds_of_heads import mobile
from tiny import save

from fnatool.cli.main import run
from fnatool.data.pixels import Pixels, grey, values_of
from fnatool.files import model as files
from fnatool.files.interface import SOURCE_KEY
from fnatool.model import pixels
from fnatool.model.analysed import metadata
from fnatool.model.fold import UnfoldOptions, unfold
from fnatool.model.headed import HeadOptions, attach_to_model
from fnatool.model.pixels import GUESS_KEY, WARNING, PixelOptions, Seen, pixels_of
from fnatool.nn import load
from fnatool.search.config import parse_search
from fnatool.search.emitting import ground
from fnatool.tasks.classification import Classification
from fnatool.tasks.description import Input
from fnatool.tasks.pixels import to_array, to_input
from fnatool.tasks.table import description_of
from fnatool.terminal import heard
from fnatool.training.in_runtime import predicting
from fnatool.training.model_and_data import inputs_of, sizes
from passes.errors import UserError
from passes.graph.view import view
from passes.heads.scaling import own_scaling

Capture = pytest.CaptureFixture[str]
NOTHING = PixelOptions()
TASK = {"input": {"mean": [1.0, 2.0, 3.0], "scale": [4.0, 5.0, 6.0], "channels": "BGR"}}
SOURCE = {"mean": [7.0, 8.0, 9.0], "scale": [10.0, 11.0, 12.0]}


def network(
    dtype: int = onnx.TensorProto.FLOAT, *, channels: int = 3, last: bool = False, scaled: bool = False
) -> onnx.ModelProto:
    """A convolution and a classifier; channels first or last; its input may be of another type, and scaled by the
    network itself.
    """
    net = Net(channels)
    y = "x"
    if last:
        net.op("Transpose", "first", y, perm=[0, 3, 1, 2])
        y = "first"
    if dtype != onnx.TensorProto.FLOAT:
        y = net.op("Cast", "cast", y, to=onnx.TensorProto.FLOAT)
    if scaled:
        y = net.op(
            "Add", "scaled", net.op("Mul", "halved", y, net.constant("half", 1 / 127.5)), net.constant("one", -1.0)
        )
    net.channels[y] = channels
    net.classifier(net.relu(net.conv(y, "stem", 6, 3, bias=True)))
    proto = net.model(batch="N")
    proto.graph.input[0].type.tensor_type.elem_type = dtype
    if last:
        for axis, size in enumerate((8, 8, channels), 1):
            proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    del proto.graph.value_info[:]
    return proto


def read(proto: onnx.ModelProto, folder: Path, **notes: object) -> files.Model:
    for key, value in notes.items():
        proto.metadata_props.add(key=f"fnatool.{key}", value=json.dumps(value))
    return files.read(save(proto, folder / "model.onnx"))


def answer(model: files.Model, asked: PixelOptions = NOTHING) -> Pixels:
    seen = view(model.graph)
    channels = 1 if "grey" in model.path.name else 3
    return pixels_of(model, seen, pixels.seen_as(seen, "x", channels), asked)


# --- the order of answers -----------------------------------------------------------------------


def test_what_is_asked_comes_before_what_is_recorded(tmp_path: Path) -> None:
    model = read(network(), tmp_path, task=TASK, source=SOURCE)
    assert answer(model, PixelOptions((0.0,), (255.0,), "RGB")) == Pixels((0.0,) * 3, (255.0,) * 3, "RGB", "as asked")


def test_the_record_of_a_task_comes_before_that_of_an_export(tmp_path: Path) -> None:
    model = read(network(scaled=True), tmp_path, task=TASK, source=SOURCE)
    assert answer(model) == Pixels((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "BGR", "as the model says")


def test_the_record_of_an_export_comes_before_the_graph(tmp_path: Path) -> None:
    model = read(network(scaled=True), tmp_path, source=SOURCE)
    assert answer(model) == Pixels((7.0, 8.0, 9.0), (10.0, 11.0, 12.0), "RGB", "as its export recorded")


def test_a_network_that_scales_by_itself_gets_pixels_as_they_are(tmp_path: Path) -> None:
    found = answer(read(network(scaled=True), tmp_path))
    assert found == Pixels((0.0,) * 3, (1.0,) * 3, "RGB", "as the network scales them itself ('scaled')")


def test_an_input_of_whole_numbers_gets_pixels_as_they_are(tmp_path: Path) -> None:
    found = answer(read(network(onnx.TensorProto.UINT8), tmp_path))
    assert found == Pixels((0.0,) * 3, (1.0,) * 3, "RGB", "as its input takes whole numbers (uint8)")


def test_imagenets_is_a_guess(tmp_path: Path) -> None:
    found = answer(read(network(), tmp_path))
    assert found.guessed
    assert found.mean == pixels.IMAGENET_MEAN
    assert answer(read(network(), tmp_path), PixelOptions(mean=(1.0,))).guessed
    assert not answer(read(network(), tmp_path), PixelOptions((1.0,), (1.0,))).guessed


def test_colours_in_the_other_order_have_their_own_mean(tmp_path: Path) -> None:
    found = answer(read(network(), tmp_path, source=SOURCE), PixelOptions(channels="BGR"))
    assert (found.mean, found.scale, found.channels) == ((9.0, 8.0, 7.0), (12.0, 11.0, 10.0), "BGR")
    assert answer(read(network(), tmp_path, task=TASK), PixelOptions(mean=(5.0, 6.0, 7.0))).channels == "BGR"


@pytest.mark.parametrize(
    "text",
    ['{"mean": [0], "scale": [0]}', '{"mean": [1, 2], "scale": [1, 2]}', '{"mean": [1e400], "scale": [1]}', "[", "7"],
)
def test_a_record_that_makes_no_sense_is_not_believed(text: str, tmp_path: Path) -> None:
    proto = network()
    proto.metadata_props.add(key=SOURCE_KEY, value=text)
    assert answer(files.read(save(proto, tmp_path / "model.onnx"))).guessed


@pytest.mark.parametrize(
    ("mean", "scale", "fits"),
    [
        ((0.0,), (1.0,), True),
        ((0.0,), (-1.0,), False),
        ((123.7,), (1.0,), False),
        ((0.0,), (255.0,), False),
        ((128.0,), (1.0,), False),
    ],
)
def test_a_scaling_that_bytes_cannot_carry_is_refused(mean: tuple[float], scale: tuple[float], fits: bool) -> None:
    image = Seen("x", 1, np.dtype(np.uint8))
    if fits:
        pixels.require_carried(image, mean, scale)
    else:
        with pytest.raises(UserError, match="'x' is of uint8, which cannot carry"):
            pixels.require_carried(image, mean, scale)


def test_signed_bytes_carry_centred_pixels() -> None:
    pixels.require_carried(Seen("x", 1, np.dtype(np.int8)), (128.0,), (1.0,))
    with pytest.raises(UserError, match="cannot carry"):
        pixels.require_carried(Seen("x", 1, np.dtype(np.int8)), (0.0,), (1.0,))


# --- what the graph tells -----------------------------------------------------------------------


def brightest(*steps: tuple[str, float]) -> float | None:
    """What the first operators of a network say its input is at its brightest."""
    net = Net()
    y = "x"
    for k, (op, value) in enumerate(steps):
        net.weights[f"c{k}"] = np.full((1, 3, 1, 1), value, np.float32)
        y = net.op(op, f"y{k}", y, f"c{k}")
    net.channels[y] = 3
    net.classifier(net.conv(y, "stem", 4, 3))
    found = own_scaling(net.analysis().view, "x")
    return None if found is None else found.brightest


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("Mul", 1 / 255)], 255),
        ([("Div", 127.5), ("Sub", 1.0)], 255),
        ([("Sub", 116.0), ("Mul", 1 / 58)], 255),
        ([("Sub", 104.0)], 255),
        ([("Mul", 1 / 255), ("Sub", 0.456), ("Div", 0.224)], 255),
        ([("Sub", 0.456), ("Div", 0.224)], 1),
        ([("Mul", 2.0), ("Sub", 1.0)], 1),
        ([("Mul", 255.0), ("Sub", 116.0)], 1),
        ([], None),
        ([("Mul", 0.458), ("Add", -0.03)], None),
        ([("Pow", 2.0)], None),
    ],
)  # fmt: skip
def test_the_first_operators_tell_what_pixels_are(steps: list[tuple[str, float]], expected: float | None) -> None:
    assert brightest(*steps) == expected


def test_a_normalisation_of_the_image_is_a_scaling() -> None:
    net = Net()
    values = {"g": 1.0, "b": 0.0, "m": 120.0, "v": 58.0**2}
    for name, value in values.items():
        net.weights[name] = np.full(3, value, np.float32)
    net.channels[net.op("BatchNormalization", "bn", "x", *values)] = 3
    net.classifier(net.conv("bn", "stem", 4, 3))
    found = own_scaling(net.analysis().view, "x")
    assert found is not None
    assert (found.node, found.brightest) == ("bn", 255)


def test_an_image_that_is_read_unscaled_too_is_not_scaled_by_the_network() -> None:
    net = Net()
    net.channels[net.op("Mul", "half", "x", net.constant("c", 1 / 255))] = 3
    net.op("Add", "sum", net.conv("half", "a", 4, 3), net.conv("x", "b", 4, 3))
    net.channels["sum"] = 4
    net.classifier("sum")
    assert own_scaling(net.analysis().view, "x") is None


# --- every command ------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with pictures in two classes."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for k in range(2):
                picture = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(picture).save(tmp_path / "data" / split / name / f"{k}.png")
    return tmp_path


HOW: dict[str, tuple[onnx.ModelProto, str]] = {
    "scaled": (network(scaled=True), "(pixel − (0)) / (1), as the network scales them itself ('scaled')"),
    "bytes": (network(onnx.TensorProto.UINT8), "(pixel − (0)) / (1), as its input takes whole numbers (uint8)"),
    "guess": (
        network(),
        "(pixel − (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375), ImageNet's, as nothing else is known",
    ),
}


@pytest.mark.parametrize("name", HOW)
def test_head_unfold_and_search_give_one_answer(name: str, photos: Path, capsys: Capture) -> None:
    proto, sentence = HOW[name]
    save(proto, photos / "seed.onnx")
    assert (
        run(["head", "seed.onnx", "--task", "classification", "--classes", "2", "-o", "out.onnx", "--no-verify"]) == 0
    )
    assert run(["unfold", "seed.onnx", "--data", "data", "-o", "bn.onnx", "--no-verify"]) == 0
    config = parse_search({"task": "classification", "data": {"path": "data"}})
    found = ground(files.read("seed.onnx"), config, unlabelled(("a", "b")))
    with heard():
        pixels.say(found.pixels)
    out = capsys.readouterr().out
    assert out.count(f"reads {sentence}\n") == 3
    assert out.count(WARNING) == (3 if name == "guess" else 0)


def unlabelled(classes: tuple[str, ...]) -> object:
    from fnatool.data.split import Split

    return Split(task="classification", name="train", root=Path("data"), layout="", classes=classes, items=())


def test_a_guess_is_remembered_by_whoever_reads_the_result(photos: Path, capsys: Capture) -> None:
    save(network(), photos / "seed.onnx")
    assert (
        run(["head", "seed.onnx", "--task", "classification", "--classes", "2", "-o", "out.onnx", "--no-verify"]) == 0
    )
    capsys.readouterr()
    assert run(["evaluate", "out.onnx", "--data", "data", "--workers", "0"]) == 0
    assert WARNING in capsys.readouterr().out
    assert (
        run(["head", "out.onnx", "--task", "classification", "--classes", "2", "-o", "twice.onnx", "--no-verify"]) == 0
    )
    assert "as an earlier head guessed\nwarning: " in capsys.readouterr().out
    told = ["--mean", "0", "--scale", "255"]
    assert (
        run(["head", "out.onnx", "--task", "classification", "--classes", "2", "-o", "told.onnx", "--no-verify", *told])
        == 0
    )
    assert metadata(files.read("told.onnx").envelope)[GUESS_KEY] == pixels.KNOWN
    capsys.readouterr()
    assert run(["evaluate", "told.onnx", "--data", "data", "--workers", "0"]) == 0
    assert "warning" not in capsys.readouterr().out


def test_a_search_is_told_in_its_config(tmp_path: Path) -> None:
    model = read(network(), tmp_path)
    config = parse_search({"task": "classification", "head": {"mean": [127.5], "scale": [127.5], "channels": "BGR"}})
    found = ground(model, config, unlabelled(("a", "b")))  # type: ignore[arg-type]
    assert found.pixels == Pixels((127.5,) * 3, (127.5,) * 3, "BGR", "as asked")
    read_by = description_of(metadata(found.finish(model, False, None)[0].envelope)).input
    assert (read_by.mean, read_by.scale, read_by.channels) == ((127.5,) * 3, (127.5,) * 3, "BGR")


def test_a_record_that_bytes_cannot_carry_is_refused_before_anything_runs(tmp_path: Path) -> None:
    model = read(network(onnx.TensorProto.UINT8), tmp_path)
    with pytest.raises(UserError, match="which cannot carry"):
        sizes(model, Classification(classes=("a", "b"), input=Input()), None)
    with pytest.raises(UserError, match="which cannot carry"):
        attach_to_model(model, HeadOptions(task="classification", classes="2", mean=(127.5,), scale=(127.5,)))


# --- the values ---------------------------------------------------------------------------------

TYPES = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.FLOAT16: np.float16,
    onnx.TensorProto.DOUBLE: np.float64,
    onnx.TensorProto.UINT8: np.uint8,
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
def test_training_evaluation_and_statistics_see_the_same_values(dtype: int, last: bool, tmp_path: Path) -> None:
    """What a network that gives back its input says it was given."""
    model = read(network(dtype, last=last), tmp_path)
    whole = dtype == onnx.TensorProto.UINT8
    how = Input(
        layout="NHWC" if last else "NCHW",
        **({"mean": (0.0,) * 3, "scale": (1.0,) * 3} if whole else {"mean": (3.3, 2.2, 1.1)}),
    )
    images = torch.arange(2 * 3 * 64, dtype=torch.int32).remainder(256).to(torch.uint8).reshape(2, 3, 8, 8)
    trained = inputs_of(load(model).origin.reading, images, how).numpy()
    assert trained.dtype == TYPES[dtype]
    np.testing.assert_array_equal(
        evaluated(images, Classification(classes=("a",), input=how), dtype, tmp_path), trained
    )
    measured = values_of(
        images[1].permute(1, 2, 0).numpy(), Pixels(how.mean, how.scale, "RGB", ""), np.dtype(TYPES[dtype])
    )
    np.testing.assert_array_equal(measured if last else measured.transpose(2, 0, 1), trained[1])


def evaluated(images: torch.Tensor, about: Classification, dtype: int, folder: Path) -> npt.NDArray[np.generic]:
    """The images as a session gets them."""
    shape = ["N", 8, 8, 3] if about.input.layout == "NHWC" else ["N", 3, 8, 8]
    ends = [onnx.helper.make_tensor_value_info(name, dtype, shape) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "same", ends[:1], ends[1:])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8),
        folder / "same.onnx",
    )
    return np.asarray(predicting(folder / "same.onnx", about)(images)["y"])


@pytest.mark.parametrize("channels", ["BGR", "GREY"])
def test_other_colours_are_the_same_in_torch_and_numpy(channels: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1, 3, 20, 30), dtype=np.uint8)
    count = 1 if channels == "GREY" else 3
    how = Input(channels=channels, mean=(100.1, 2.2, 3.3)[:count], scale=(7.7, 8.8, 9.9)[:count])
    picture = images[0].transpose(1, 2, 0)
    found = values_of(picture, Pixels(how.mean, how.scale, channels, ""), np.dtype(np.float32))
    np.testing.assert_array_equal(found.transpose(2, 0, 1), to_array(images, how)[0])


def test_grey_is_pillows() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(grey(picture)[..., 0], np.asarray(Image.fromarray(picture).convert("L")))
    whole = to_input(
        torch.from_numpy(picture.transpose(2, 0, 1).copy())[None], Input(channels="GREY", mean=(0.0,), scale=(1.0,))
    )
    np.testing.assert_array_equal(whole[0, 0].numpy(), grey(picture)[..., 0])


def test_statistics_are_of_colours_in_the_networks_order(photos: Path) -> None:
    save(network(), photos / "seed.onnx")
    rgb, bgr = (
        unfold("seed.onnx", options=UnfoldOptions(data="data", mean=(0,), scale=(1,), channels=order, verify=False))
        for order in ("RGB", "BGR")
    )
    means = [
        next(t for n in made.model.graph.nodes for t in n.inputs if t.name == "stem.bn.beta").values
        for made in (rgb, bgr)
    ]
    assert not np.allclose(*means)


# --- odd inputs ---------------------------------------------------------------------------------


def test_an_image_beyond_all_bounds_is_one_message(tmp_path: Path, capsys: Capture) -> None:
    net = mobile()
    proto = net.model()
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1 << 20
    del proto.graph.value_info[:]
    save(proto, tmp_path / "huge.onnx")
    assert (
        run(
            [
                "head",
                str(tmp_path / "huge.onnx"),
                "--task",
                "segmentation",
                "--classes",
                "2",
                "-o",
                str(tmp_path / "out.onnx"),
            ]
        )
        == 2
    )
    assert "takes images of 1,048,576×64; a task has images of at most 65,536 a side" in capsys.readouterr().err
