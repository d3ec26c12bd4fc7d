"""A deployed folder: from the image to the answer as the model, or nothing."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from deployable import TASKS_OF, headed, pictures
from nets import Net
from PIL import Image
from tiny import model, net, save

import fnatool
from fnatool.cli.main import run
from fnatool.deploy import around as deploying
from fnatool.deploy import outputs
from fnatool.deploy.document import Batch, parsed_batch, trtexec_line
from fnatool.tasks.table import TASKS
from passes.deploy.preprocessing import Taking
from passes.errors import RefusedModel, UserError

SIZES = ((64, 64), (40, 90), (131, 57), (9, 200))
Options = fnatool.DeployOptions


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model for each style of head."""
    folder = tmp_path_factory.mktemp("models")
    return {style: headed(folder, style) for style in TASKS_OF}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def session(folder: str) -> ort.InferenceSession:
    return ort.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("style", TASKS_OF)
@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_the_graph_answers_as_the_model_for_images_of_any_size(
    style: str, target: str, models: dict[str, Path], here: Path
) -> None:
    made = fnatool.deploy(models[style], "out", options=Options(target=target))
    assert made.document.verified is not None
    assert sorted(path.name for path in Path("out").iterdir()) == ["deploy.json", "model.onnx"]
    assert json.loads(Path("out/deploy.json").read_text()) == json.loads(made.document.to_json())
    ops = {node.op_type for node in onnx.load("out/model.onnx").graph.node}
    assert "BatchNormalization" not in ops
    assert ("NonMaxSuppression" in ops) == (TASKS_OF[style] == "detection" and target == "onnxruntime")
    task = TASKS[TASKS_OF[style]]
    one, other = (fnatool.predict(source, pictures(here / "p", *SIZES)).answers for source in (models[style], "out"))
    for answer, again in zip(one, other, strict=True):
        assert task.apart(answer.prediction, again.prediction) <= (0.002 if target == "onnxruntime" else 0.05)
    if target == "tensorrt":
        assert made.document.trtexec is not None
        assert made.document.trtexec.startswith("trtexec --onnx=model.onnx --minShapes=image:1x32x32x3")


SHOWN, ANSWERED = "show the network what the model is shown", "answer as the model does"
WRONG = [
    *((style, "onnxruntime", SHOWN) for style in TASKS_OF),
    *((style, "tensorrt", ANSWERED) for style in TASKS_OF if style != "deeplabv3"),
]


@pytest.mark.parametrize(("style", "target", "does"), WRONG)
def test_a_graph_that_answers_otherwise_is_refused_and_nothing_is_written(
    style: str, target: str, does: str, models: dict[str, Path], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted error: pixels are scaled otherwise."""

    def brighter(*taking: object) -> Taking:
        right = Taking(*taking)  # type: ignore[arg-type]
        return replace(right, mean=tuple(value - 60 for value in right.mean))

    monkeypatch.setattr(deploying, "Taking", brighter)
    with pytest.raises(RefusedModel, match=f"^the deployed graph does not {does}"):
        fnatool.deploy(models[style], "out", options=Options(target=target, tolerance=1e-4))
    assert list(here.iterdir()) == []


def test_figures_before_and_after_are_told(tmp_path: Path, models: dict[str, Path]) -> None:
    from fnatool.tasks import scenes

    scenes.write_scenes(tmp_path / "scenes", scenes.SceneOptions("segmentation", 48, 4, 6, 0))
    fnatool.head(
        models["deeplabv3"].with_name("seed_deeplabv3.onnx"),
        "many.onnx",
        options=fnatool.HeadOptions(
            task="segmentation", classes="11", width=8, mean=(127.5,), scale=(127.5,), verify=False
        ),
    )
    made = fnatool.deploy("many.onnx", "out", options=Options(data=tmp_path / "scenes"))
    evaluated = fnatool.evaluate("many.onnx", tmp_path / "scenes", options=fnatool.EvaluateOptions(workers=0)).figures
    assert made.document.figures is not None
    assert made.document.figures["before"] == pytest.approx(evaluated, abs=5e-5)
    assert made.document.figures["after"] == pytest.approx(evaluated, abs=5e-5)


@pytest.mark.parametrize("style", ["linear", "deeplabv3", "retinanet"])
def test_several_images_are_answered_each_by_itself(style: str, models: dict[str, Path], here: Path) -> None:
    fnatool.deploy(models[style], "one", options=Options())
    made = fnatool.deploy(models[style], "any", options=Options(batch="1:2:4"))
    assert made.document.inputs[0].shape == ("batch", "height", "width", 3)
    images = np.stack([np.asarray(Image.open(path)) for path in pictures(here / "p", (50, 70), (50, 70), (50, 70))])
    images[1] = images[1, ::-1]
    names = [value.name for value in session("any").get_outputs()]
    together = dict(zip(names, session("any").run(None, {"image": images}), strict=True))
    for place in range(3):
        alone = {
            value.name: found
            for value, found in zip(
                session("one").get_outputs(),
                session("one").run(None, {"image": images[place : place + 1]}),
                strict=True,
            )
        }
        for name, found in alone.items():
            own = (
                together[name][together["image_of"] == place]
                if "image_of" in together
                else together[name][place : place + 1]
            )
            assert np.allclose(own, found, atol=1e-3), name


def test_parts_are_left_out_when_asked(models: dict[str, Path]) -> None:
    bare = fnatool.deploy(models["linear"], "bare", options=Options(preprocessing=False, postprocessing=False)).document
    assert ([v.shape for v in bare.inputs], [v.name for v in bare.outputs]) == ([(1, 3, 64, 64)], ["logits"])
    assert fnatool.predict("bare", pictures(Path("p"), (50, 60))).task == "classification"
    front = fnatool.deploy(models["retinanet"], "front", options=Options(postprocessing=False)).document
    assert ([v.name for v in front.inputs], [v.name for v in front.outputs]) == (["image"], ["cls_logits", "boxes"])
    end = fnatool.deploy(models["deeplabv3"], "end", options=Options(preprocessing=False)).document
    assert ([v.shape for v in end.inputs], [v.shape for v in end.outputs]) == ([(1, 3, 64, 64)], [(1, 64, 64)])
    with pytest.raises(UserError, match="no pre-processing; predict with the model itself"):
        fnatool.predict("end", pictures(Path("p"), (50, 60)))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_the_resize_of_images_of_one_size_is_computed_beforehand(layout: str, models: dict[str, Path]) -> None:
    how = Options(target="tensorrt", image_size=(40, 90), layout=layout)
    made = fnatool.deploy(models["deeplabv3"], "out", options=how)
    ops = {node.op_type for node in onnx.load("out/model.onnx").graph.node}
    assert not ops & {"Range", "Round", "Ceil", "Shape"}
    assert made.document.verified is not None
    assert made.document.verified["apart"] <= 0.002
    assert made.document.trtexec == "trtexec --onnx=model.onnx --saveEngine=engine.plan --timingCacheFile=timing.cache"
    with pytest.raises(UserError, match="takes images of 40×90 alone, and a picture has 50×60"):
        fnatool.predict("out", pictures(Path("p"), (50, 60)))


@pytest.mark.parametrize("style", ["linear", "deeplabv3", "simplebaseline"])
def test_half_precision_is_half_the_file(style: str, models: dict[str, Path]) -> None:
    sizes = []
    for precision in ("fp32", "fp16"):
        made = fnatool.deploy(
            models[style], precision, options=Options(precision=precision, postprocessing=False, preprocessing=False)
        )
        stored = onnx.load(f"{precision}/model.onnx").graph.initializer
        sizes.append(sum(len(tensor.raw_data) for tensor in stored))
        assert made.document.precision == precision
    assert sizes[1] < 0.6 * sizes[0]


def test_weights_that_an_old_file_lists_as_inputs_are_halved_too(here: Path) -> None:
    old = Net(size=8, opset=9)
    old.conv("x", "y", 64, 3)
    proto = old.model()
    proto.ir_version = 3
    proto.graph.input.append(onnx.helper.make_tensor_value_info("y.w", onnx.TensorProto.FLOAT, [64, 3, 3, 3]))
    save(proto, here / "old.onnx")
    fnatool.deploy("old.onnx", "out", options=Options(precision="fp16"))
    assert {tensor.data_type for tensor in onnx.load("out/model.onnx").graph.initializer} == {onnx.TensorProto.FLOAT16}


def test_layers_that_are_hurt_stay_in_single_precision(here: Path) -> None:
    """A layer whose weights are larger than float16 holds, while its values are not."""
    big = Net(size=8)
    big.conv("x", "a", 4, 3)
    big.conv("a", "b", 4, 3)
    big.conv("b", "c", 4, 3)
    big.weights["a.w"] *= 1e-3
    big.weights["b.w"] *= 1e5
    big.weights["c.w"] *= 1e-2
    for name in "defgh":
        big.conv(chr(ord(name) - 1), name, 4, 3)
    save(big.model("h"), here / "big.onnx")
    made = fnatool.deploy("big.onnx", "out", options=Options(precision="fp16", tolerance=0.005)).document
    assert made.kept_in_fp32 == ("b",)
    assert made.verified is not None
    assert made.verified["apart"] < 0.005


def test_a_model_without_a_task_is_folded_and_gets_its_batch(here: Path) -> None:
    save(net(), here / "net.onnx")
    made = fnatool.deploy("net.onnx", "out", options=Options(batch="1:2:4")).document
    assert (made.task, made.preprocessing, made.postprocessing) == (None, False, "none")
    assert made.inputs[0].shape == ("batch", 3, 8, 8)
    assert session("out").run(None, {"x": np.zeros((3, 3, 8, 8), np.float32)})[0].shape == (3, 4)
    fixed = fnatool.deploy("net.onnx", "two", options=Options(batch="2")).document
    assert (fixed.inputs[0].shape, fixed.outputs[0].shape) == ((2, 3, 8, 8), (2, 4))
    with pytest.raises(UserError, match="made of a model without a task"):
        fnatool.predict("out", pictures(here / "p", (8, 8)))


def test_a_network_that_mixes_its_samples_keeps_its_batch(here: Path) -> None:
    mixed = Net(size=8)
    mixed.op("ReduceMean", "m", mixed.conv("x", "a", 4, 3), axes=[0], keepdims=1)
    mixed.op("Sub", "y", "a", "m")
    save(mixed.model(), here / "mixed.onnx")
    with pytest.raises(RefusedModel, match="several samples together change"):
        fnatool.deploy("mixed.onnx", "out", options=Options(batch="2"))
    assert not Path("out").exists()


BAD = {
    "--batch 0": "goes from the least over the usual",
    "--batch x": "is no batch",
    "--batch 4:2:8": "goes from the least over the usual",
    "--size 32,32": "the model's input is fixed at [64, 64]",
    "--image-size 40": "is no height and width",
    "--image-size 40,50 --no-preprocessing": "of the images that pre-processing takes",
    "--data nowhere": "does not exist",
    "--target nothing": "is not one of",
    "--tolerance 2": "is not in the range",
    "--input z=1x3x8x8": "z",
}


@pytest.mark.parametrize("asked", BAD)
def test_bad_asks_are_one_message_and_nothing_is_written(
    asked: str, models: dict[str, Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["deploy", str(models["linear"]), "-o", "out", *asked.split()]
    assert run(line if "--target" in asked else [*line, "--target", "onnxruntime"]) == 2
    assert BAD[asked] in capsys.readouterr().err
    assert list(here.iterdir()) == []


def test_a_pose_is_answered_for_one_image_at_a_time(models: dict[str, Path], here: Path) -> None:
    with pytest.raises(UserError, match="one image at a time"):
        fnatool.deploy(models["simplebaseline"], "out", options=Options(batch="2"))
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("measure", [outputs._apart, outputs._mean_apart])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_overflows_in_narrower_numbers_is_never_near(measure: Callable[..., float], wrong: float) -> None:
    plain = np.arange(6, dtype=np.float32)
    other = plain.copy()
    assert measure(plain, other) == 0
    other[2] = wrong
    assert measure(plain, other) == np.inf


def test_an_operator_that_onnx_runtime_does_not_bring_is_one_message(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(net(), here / "own.onnx")
    own = onnx.load("own.onnx")
    own.graph.node[0].domain, own.graph.node[0].op_type = "com.acme", "Magic"
    own.opset_import.append(onnx.helper.make_opsetid("com.acme", 1))
    onnx.save(own, "own.onnx")
    before = sorted(here.iterdir())
    assert run(["deploy", "own.onnx", "--target", "onnxruntime", "-o", "out"]) == 2
    assert "com.acme::Magic" in capsys.readouterr().err
    assert sorted(here.iterdir()) == before


def test_operators_of_other_domains_and_new_opsets_are_not_for_engines(here: Path) -> None:
    text = "g (float[1,3,8,8] x) => (float[1,3,8,8] y) { y = com.microsoft.QuickGelu (x) }"
    header = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>'
    save(model(text, header=header), here / "foreign.onnx")
    with pytest.raises(
        UserError,
        match=r"com\.microsoft::QuickGelu .*tensorrt does not know operators of other domains; run it in ONNX Runtime",
    ):
        fnatool.deploy("foreign.onnx", "out", options=Options(target="tensorrt"))


def test_only_an_older_deployed_folder_is_replaced(models: dict[str, Path], here: Path) -> None:
    fnatool.deploy(models["linear"], "out")
    with pytest.raises(UserError, match="exists; choose another folder or pass --force"):
        fnatool.deploy(models["linear"], "out")
    fnatool.deploy(models["linear"], "out", options=Options(force=True))
    (here / "out/mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds 'mine\.txt', which this command has not written"):
        fnatool.deploy(models["linear"], "out", options=Options(force=True))
    assert (here / "out/mine.txt").read_text() == "mine"


def test_a_folder_that_was_changed_is_not_believed(models: dict[str, Path]) -> None:
    fnatool.deploy(models["linear"], "out")
    whole = Path("out/deploy.json").read_text()
    for text, why in (
        ("{}", "is not what 'fnatool deploy' writes"),
        (whole.replace('"sha256": "', '"sha256": "0'), "is not the file that"),
    ):
        Path("out/deploy.json").write_text(text)
        with pytest.raises(UserError, match=why):
            fnatool.predict("out", pictures(Path("p"), (8, 8)))


def test_a_missing_library_is_named(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'fnatool\[tensorrt-rtx\]'"):
        fnatool.deploy(models["linear"], "out", options=Options(target="tensorrt-rtx"))


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed (fnatool[tensorrt-rtx])"
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("style", TASKS_OF)
def test_an_engine_is_built(style: str, precision: str, models: dict[str, Path]) -> None:
    how = Options(target="tensorrt-rtx", precision=precision, verify=False)
    made = fnatool.deploy(models[style], "out", options=how)
    assert "engine.plan" in made.document.files
    assert Path("out/engine.plan").stat().st_size > 10_000


def test_the_line_for_trtexec_has_a_profile_for_what_is_free() -> None:
    batch = parsed_batch("1:8:32")
    assert batch == Batch(least=1, usual=8, most=32)
    line = trtexec_line({"x": ("batch", 3, 8, 8)}, batch, {})
    assert "--minShapes=x:1x3x8x8 --optShapes=x:8x3x8x8 --maxShapes=x:32x3x8x8" in line
    assert not any(flag in line for flag in ("fp16", "int8", "best"))


def test_a_deployed_folder_is_predicted_with_on_the_command_line(
    models: dict[str, Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["deploy", str(models["linear"]), "--target", "onnxruntime", "-o", "out"]) == 0
    said = capsys.readouterr().out
    assert "takes image uint8 1×height×width×3" in said
    assert "answers as the model does: at most 0.00% of an answer differs, on 5 pictures" in said
    (path,) = pictures(here / "p", (50, 60))
    assert run(["predict", "out", str(path), "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert run(["predict", str(models["linear"]), str(path), "--json"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert one["images"][0]["class"] == other["images"][0]["class"]
    assert one["images"][0]["probability"] == pytest.approx(other["images"][0]["probability"], abs=1e-5)
