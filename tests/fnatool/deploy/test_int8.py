"""A model in 8 bits: made of the user's samples, judged against the model, or refused."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from deployable import headed, pictures
from nets import Net
from tiny import net, save

import fnatool
from fnatool.cli.main import run
from fnatool.deploy import answering
from fnatool.deploy.answering import Answering
from fnatool.tasks.classification import Classified
from passes.errors import RefusedModel

Options = fnatool.DeployOptions


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures."""
    folder = tmp_path_factory.mktemp("seen")
    pictures(folder, *[(60 + k, 70) for k in range(12)])
    return folder


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier."""
    return headed(tmp_path_factory.mktemp("linear"), "linear")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arrays(folder: Path, count: int = 10, size: int = 8) -> Path:
    folder.mkdir()
    for k in range(count):
        np.save(folder / f"{k}.npy", np.random.default_rng(k).standard_normal((3, size, size)).astype(np.float32))
    return folder


def constants(path: str) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_weights_are_int8_and_answers_are_compared_on_pictures_that_were_kept_back(linear: Path, seen: Path) -> None:
    made = fnatool.deploy(linear, "out", options=Options(precision="int8", images=seen)).document
    assert made.quantised is not None
    assert made.quantised["samples"] + made.verified["pictures"] == 12  # type: ignore[index]
    stored = constants("out/model.onnx")
    weights = [values for values in stored.values() if values.ndim == 4]
    assert weights
    assert {values.dtype for values in weights} == {np.dtype(np.int8)}
    assert fnatool.predict("out", sorted(seen.iterdir())[:1]).task == "classification"


def test_the_same_seed_gives_the_same_file(linear: Path, seen: Path) -> None:
    for name in ("a", "b"):
        fnatool.deploy(linear, name, options=Options(precision="int8", images=seen, samples=8, verify=False))
    assert Path("a/model.onnx").read_bytes() == Path("b/model.onnx").read_bytes()


@pytest.mark.parametrize("style", ["deeplabv3", "retinanet", "simplebaseline"])
def test_other_tasks_are_quantised_too(style: str, here: Path, seen: Path) -> None:
    made = fnatool.deploy(
        headed(here, style), "out", options=Options(precision="int8", images=seen, tolerance=1.0)
    ).document
    assert made.verified is not None
    assert "DequantizeLinear" in {node.op_type for node in onnx.load("out/model.onnx").graph.node}


def test_the_resize_computed_beforehand_leaves_8_bits(linear: Path, seen: Path) -> None:
    fnatool.deploy(linear, "out", options=Options(precision="int8", images=seen, image_size=(50, 60), tolerance=1.0))
    assert np.dtype(np.int8) in {values.dtype for values in constants("out/model.onnx").values() if values.ndim == 4}


def test_a_model_without_a_task_is_made_of_arrays(here: Path) -> None:
    plain = Net(size=8)
    for before, after in ("xa", "ab", "bc"):
        plain.conv(before, after, 8, 3)
    save(plain.model("c"), here / "plain.onnx")
    made = fnatool.deploy(
        "plain.onnx", "out", options=Options(precision="int8", images=arrays(here / "x"), batch="4")
    ).document
    assert made.verified is not None
    assert 0 < made.verified["apart"] < 0.05


def test_what_engines_read_is_symmetric_with_biases_left_alone(linear: Path, seen: Path) -> None:
    fnatool.deploy(linear, "out", options=Options(precision="int8", target="tensorrt", images=seen))
    stored = constants("out/model.onnx")
    assert np.dtype(np.int32) not in {values.dtype for values in stored.values() if "quant" in str(values.dtype)}
    report = fnatool.check("out/model.onnx", options=fnatool.CheckOptions(target="tensorrt"))
    assert not {finding.code for finding in report.findings} & {"engine-quantised", "engine-operator", "engine-type"}


def test_weights_take_7_bits_when_asked(here: Path) -> None:
    save(net(), here / "net.onnx")
    full = fnatool.deploy(
        "net.onnx",
        "full",
        options=Options(precision="int8", images=arrays(here / "x"), reduce_range=False, verify=False),
    )
    seven = fnatool.deploy(
        "net.onnx", "seven", options=Options(precision="int8", images=here / "x", reduce_range=True, verify=False)
    ).document
    assert full.document.quantised["scheme"] == "U8S8, weights per channel"  # type: ignore[index]
    assert seven.quantised["scheme"] == "U8S8, weights per channel of 7 bits"  # type: ignore[index]
    assert (
        max(np.abs(values).max() for values in constants("full/model.onnx").values() if values.dtype == np.int8) == 127
    )
    assert (
        max(np.abs(values).max() for values in constants("seven/model.onnx").values() if values.dtype == np.int8) == 64
    )


def uneven() -> Net:
    """One layer makes a channel a thousand times as large as the others, and the next one takes that back."""
    made = Net(size=8)
    made.conv("x", "a", 4, 3)
    made.conv("a", "b", 4, 1)
    made.conv("b", "c", 4, 1)
    for name in "defgh":
        made.conv(chr(ord(name) - 1), name, 4, 3)
    made.weights["b.w"][0] *= 1e4
    made.weights["c.w"][:, 0] *= 1e-4
    return made


def test_layers_that_are_hurt_stay_in_single_precision(here: Path) -> None:
    save(uneven().model("h"), here / "uneven.onnx")
    made = fnatool.deploy(
        "uneven.onnx", "out", options=Options(precision="int8", images=arrays(here / "x"), tolerance=0.2)
    ).document
    assert {"b", "c"} & set(made.kept_in_fp32)
    assert len(made.kept_in_fp32) <= 4


def test_what_cannot_be_had_is_refused_with_what_is_hurt_most(here: Path) -> None:
    save(uneven().model("h"), here / "uneven.onnx")
    with pytest.raises(RefusedModel, match=r"what is hurt most is '[bc]'"):
        fnatool.deploy(
            "uneven.onnx", "out", options=Options(precision="int8", images=arrays(here / "x"), tolerance=1e-6)
        )
    assert not Path("out").exists()


def test_a_graph_that_answers_otherwise_without_optimisation_is_refused(
    linear: Path, seen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    right = answering.of_folder

    def wrong(folder: Path, provider: str, *, optimised: str = "all") -> Answering:
        made = right(folder, provider, optimised=optimised)
        return (
            made
            if optimised == "all"
            else replace(
                made,
                answer=lambda image, item: Classified(0, 9.0, np.full(3, 9.0, np.float32), np.zeros(3, np.float32)),
            )
        )

    monkeypatch.setattr(answering, "of_folder", wrong)
    with pytest.raises(RefusedModel, match="does not answer as the model does"):
        fnatool.deploy(linear, "out", options=Options(precision="int8", images=seen))


def test_the_figure_is_what_counts_where_there_are_labels(tmp_path: Path) -> None:
    from fnatool.tasks import scenes

    scenes.write_scenes(tmp_path / "scenes", scenes.SceneOptions("segmentation", 48, 12, 6, 0))
    headed(tmp_path, "deeplabv3")
    how = fnatool.HeadOptions(task="segmentation", classes="11", width=8, mean=(127.5,), scale=(127.5,), verify=False)
    fnatool.head(tmp_path / "seed_deeplabv3.onnx", "many.onnx", options=how)
    made = fnatool.deploy(
        "many.onnx", "out", options=Options(precision="int8", data=tmp_path / "scenes", tolerance=0.5)
    ).document
    assert made.figures is not None
    assert list(made.figures) == ["before", "after", "after, as written"]


@pytest.mark.parametrize(("after", "passes"), [(0.30, True), (0.29, False)])
def test_one_picture_of_a_hundred_less_is_a_point_and_two_are_more(
    after: float, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fnatool.deploy import gate, judging

    figures = iter([0.31, after])
    monkeypatch.setattr(judging, "figures", lambda whose, split, what: {"top1": next(figures)})
    described = SimpleNamespace(task="classification", adopting=lambda classes, joints: described)
    split = SimpleNamespace(classes=(), joints=(), items=(None,) * 100)
    one = Answering(Path("m"), "", described, lambda image, item: None, lambda image: {})  # type: ignore[arg-type]
    judge = gate._Judging(None, Options(precision="int8", data=Path("d")), None, None)  # type: ignore[arg-type]
    found = judge._figures(one, {"after": one}, lambda: split)  # type: ignore[arg-type, return-value]
    assert isinstance(found, dict) == passes
    assert judge._few() == []


def test_figures_of_few_pictures_are_said_to_tell_little(tmp_path: Path) -> None:
    from fnatool.tasks import scenes

    scenes.write_scenes(tmp_path / "scenes", scenes.SceneOptions("segmentation", 48, 12, 6, 0))
    headed(tmp_path, "deeplabv3")
    how = fnatool.HeadOptions(task="segmentation", classes="11", width=8, mean=(127.5,), scale=(127.5,), verify=False)
    fnatool.head(tmp_path / "seed_deeplabv3.onnx", "many.onnx", options=how)
    made = fnatool.deploy(
        "many.onnx", "out", options=Options(precision="fp16", data=tmp_path / "scenes", tolerance=0.1)
    ).document
    assert [note for note in made.notes if "one may weigh" in note]


BAD = {
    "": "give pictures with --images DIR, or labelled ones with --data DIR",
    "--images empty": "there are no pictures in 'empty'",
    "--images nowhere": "does not exist",
    "--images few": "int8 is made of at least 8 samples, and 'few' has 3",
    "--images seen --samples 4": "int8 is made of at least 8 samples, and not of 4",
    "--images broken": "that cannot be used",
    "--images seen --target tensorrt --reduce-range": "--reduce-range is for processors without instructions for int8",
    "--images seen --precision fp16": "--images and --reduce-range are for --precision int8",
    "--images seen --batch 4:2:8": "goes from the least over the usual",
}


@pytest.mark.parametrize("asked", BAD)
def test_bad_asks_are_one_message_and_nothing_is_written(
    asked: str, linear: Path, here: Path, seen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "empty").mkdir()
    (here / "seen").symlink_to(seen)
    pictures(here / "few", *[(20, 20)] * 3)
    pictures(here / "broken", *[(20, 20)] * 9)
    (here / "broken" / "bad.png").write_bytes(b"no picture")
    before = sorted(here.iterdir())
    line = ["deploy", str(linear), "-o", "out", *asked.split()]
    line += [] if "--target" in asked else ["--target", "onnxruntime"]
    line += [] if "--precision" in asked else ["--precision", "int8"]
    assert run(line) == 2
    said = capsys.readouterr().err
    assert BAD[asked] in said
    assert "Traceback" not in said
    assert sorted(here.iterdir()) == before


def test_a_model_in_8_bits_is_not_quantised_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(net(), here / "net.onnx")
    fnatool.deploy("net.onnx", "once", options=Options(precision="int8", images=arrays(here / "x"), verify=False))
    assert (
        run(
            [
                "deploy",
                "once/model.onnx",
                "--target",
                "onnxruntime",
                "--precision",
                "int8",
                "--images",
                "x",
                "-o",
                "twice",
            ]
        )
        == 2
    )
    assert "is quantised already" in capsys.readouterr().err
    assert not Path("twice").exists()


def test_a_network_of_other_channels_says_that_it_takes_no_pictures(
    here: Path, seen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    five = Net(size=8, channels=5)
    five.conv("x", "y", 4, 3)
    save(five.model(), here / "five.onnx")
    assert (
        run(
            [
                "deploy",
                "five.onnx",
                "--target",
                "onnxruntime",
                "--precision",
                "int8",
                "--images",
                str(seen),
                "-o",
                "out",
            ]
        )
        == 2
    )
    assert "which is no grey or RGB picture; give arrays" in capsys.readouterr().err


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed (fnatool[tensorrt-rtx])"
)
def test_an_engine_is_built_of_8_bits(linear: Path, seen: Path) -> None:
    made = fnatool.deploy(linear, "out", options=Options(precision="int8", target="tensorrt-rtx", images=seen)).document
    assert "engine.plan" in made.files
