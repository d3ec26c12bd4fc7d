"""`fnatool head` as its user meets it: what it says and writes, and what it refuses with what to do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import sets
from nets import Net
from seeds_of_heads import mobile
from tiny import save

import fnatool
from fnatool import seeds
from fnatool.cli.main import run
from fnatool.files import model as files
from fnatool.files.interface import TASK_KEY
from fnatool.model import headed, names, upgrading
from fnatool.model.analysed import SPEC_KEY, STAGES_KEY, metadata, stored_stages
from fnatool.model.headed import HeadOptions, attach_to_model
from passes.errors import RefusedModel, UserError
from passes.heads import attach

Capture = pytest.CaptureFixture[str]
CLASSES = ("--classes", "3")
UNKNOWN = "ImageNet's, as nothing else is known"
WARNING = (
    "warning: nothing says how pixels become inputs of this network: ImageNet's mean and scale are a guess; "
    "--mean and --scale of "
    "'fnatool head' and 'fnatool unfold' say others (in the config of a search 'head.mean' and 'head.scale')"
)
DETECTION = ("--task", "detection", *CLASSES, "--levels", "3", "--width", "8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a seed in it."""
    monkeypatch.chdir(tmp_path)
    save(mobile().model(batch="N"), tmp_path / "seed.onnx")
    return tmp_path


def head(*arguments: str, seed: str = "seed.onnx", out: str = "out.onnx") -> int:
    return run(["head", seed, *arguments, "-o", out])


def record(path: str = "out.onnx") -> dict[str, object]:
    return json.loads(metadata(files.read(path).envelope)[TASK_KEY])


def refused(capsys: Capture) -> str:
    """The one message, in which nothing looks like an accident; nothing was written."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fnatool: ")
    assert captured.err.count("\n") == 1
    assert not Path("out.onnx").exists()
    return captured.err


# --- what it says and writes --------------------------------------------------------------------


def test_a_detector_says_what_it_taps_gives_reads_and_costs(folder: Path, capsys: Capture) -> None:
    assert head(*DETECTION) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.splitlines() == [
        "  taps stage1.exit: 8 channels, stride 8",
        "  taps stage2.exit: 10 channels, stride 16",
        "  taps stage3.exit: 12 channels, stride 32",
        captured.out.splitlines()[3],
        "  gives cls_logits [N, 756, 3]",
        "  gives boxes [N, 756, 4]",
        "  levels at stride (anchors): 8 (9), 16 (9), 32 (9)",
        f"  reads (pixel − (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375), {UNKNOWN}",
        WARNING,
        *captured.out.splitlines()[9:11],
        "what it taps is the seed's, bit for bit, in ONNX Runtime; the result runs and passes 'fnatool check'",
        "→ out.onnx",
    ]
    assert captured.out.splitlines()[9].startswith("parameters ")
    assert captured.out.splitlines()[3].startswith("  keeps ")
    onnx.checker.check_model("out.onnx", full_check=True)
    assert run(["check", "out.onnx"]) == 0


def test_the_record_of_a_detector_is_all_that_its_reader_needs(folder: Path) -> None:
    assert head(*DETECTION) == 0
    found = record()
    finest = found["levels"][0]  # type: ignore[index]
    assert (finest["stride"], finest["sizes"][:2], finest["ratios"][:4]) == (
        [8, 8],
        [32.0, 40.3175],
        [0.5, 0.5, 0.5, 1.0],
    )
    assert [level["stride"] for level in found.pop("levels")] == [[8, 8], [16, 16], [32, 32]]  # type: ignore[index,attr-defined]
    imagenet = {"mean": [123.675, 116.28, 103.53], "scale": [58.395, 57.12, 57.375]}
    assert found == {
        "version": 1,
        "task": "detection",
        "classes": ["class0", "class1", "class2"],
        "input": {"layout": "NCHW", "channels": "RGB", **imagenet, "size": [64, 64]},
        "box_weights": [1.0, 1.0, 1.0, 1.0],
        "scores": "sigmoid",
    }


def test_ssdlite_is_a_style_of_detection(folder: Path) -> None:
    assert head("--task", "detection", "--style", "ssdlite", *CLASSES, "--levels", "3") == 0
    found = record()
    assert (found["scores"], found["box_weights"]) == ("softmax", [10.0, 10.0, 5.0, 5.0])
    assert [level["stride"] for level in found["levels"]] == [[16, 16], [32, 32], [64, 64]]  # type: ignore[attr-defined]


def test_names_and_colours_are_the_users(folder: Path, capsys: Capture) -> None:
    Path("names.txt").write_text("road\n sky \nperson\n\n", encoding="utf-8")
    assert (
        head(
            "--task",
            "segmentation",
            "--classes",
            "names.txt",
            "--mean",
            "0",
            "--scale",
            "255,254,253.5",
            "--width",
            "8",
        )
        == 0
    )
    assert record()["classes"] == ["road", "sky", "person"]
    assert record()["input"] == {
        "layout": "NCHW",
        "channels": "RGB",
        "mean": [0.0] * 3,
        "scale": [255.0, 254.0, 253.5],
        "size": [64, 64],
    }
    assert "reads (pixel − (0)) / (255, 254, 253.5), as asked" in capsys.readouterr().out


def test_a_person_has_cocos_joints(folder: Path) -> None:
    assert head("--task", "pose", "--joints", "coco", "--width", "8") == 0
    pose = record()
    assert (pose["joints"][0], pose["sigmas"][0], pose["flip_pairs"][0]) == ("nose", 0.026, [1, 2])  # type: ignore[index]
    assert len(pose["joints"]) == len(pose["sigmas"]) == 17  # type: ignore[index]
    assert record()["classes"] == ["object"]


def test_joints_may_be_counted_or_described(folder: Path) -> None:
    document = {"joints": ["collar", "left", "right"], "sigmas": [0.05, 0.1, 0.1], "flip_pairs": [[1, 2]]}
    Path("joints.json").write_text(json.dumps(document))
    assert head("--task", "pose", "--joints", "joints.json", "--classes", "2", "--width", "8") == 0
    assert {key: record()[key] for key in document} == document
    assert record()["classes"] == ["class0", "class1"]
    assert head("--task", "pose", "--joints", "2", "--width", "8", "--force") == 0
    counted = {"joints": ["joint0", "joint1"], "sigmas": [0.05, 0.05], "flip_pairs": []}
    assert {key: record()[key] for key in counted} == counted


def test_kept_rows_are_the_seeds(folder: Path) -> None:
    assert head("--task", "classification", *CLASSES, "--keep-rows", "4,1") == 0
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load("out.onnx").graph.initializer}
    before = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load("seed.onnx").graph.initializer}
    np.testing.assert_array_equal(values["head.classifier.weight"][:2], before["fc.w"][[4, 1]])


def test_the_taps_are_the_users(folder: Path, capsys: Capture) -> None:
    assert head("--task", "segmentation", *CLASSES, "--taps", "stage1.exit", "--width", "8") == 0
    assert "taps stage1.exit: 8 channels, stride 8\n" in capsys.readouterr().out
    assert stored_stages(files.read("out.onnx").envelope) == stored_stages(files.read("out.onnx").envelope)
    assert len(json.loads(metadata(files.read("out.onnx").envelope)[STAGES_KEY])) == 2


def test_one_seed_gives_one_file_and_another_another(folder: Path) -> None:
    for out, number in (("a.onnx", "0"), ("b.onnx", "0"), ("c.onnx", "1")):
        assert head("--task", "segmentation", *CLASSES, "--width", "8", "--seed", number, "--no-verify", out=out) == 0
    contents = [Path(name).read_bytes() for name in ("a.onnx", "b.onnx", "c.onnx")]
    assert contents[0] == contents[1] != contents[2]


def test_what_is_not_verified_is_not_called_the_same(folder: Path, capsys: Capture) -> None:
    assert head("--task", "segmentation", *CLASSES, "--no-verify") == 0
    out = capsys.readouterr().out
    assert "not verified" in out
    assert "bit for bit" not in out


def test_remap_then_head_then_inspect(folder: Path, capsys: Capture) -> None:
    Path("spec.json").write_text(json.dumps({"version": 1, "knobs": {"stage2.depth": 3}}))
    assert run(["remap", "seed.onnx", "--spec", "spec.json", "-o", "deeper.onnx"]) == 0
    assert head(*DETECTION, seed="deeper.onnx") == 0
    capsys.readouterr()
    assert run(["inspect", "out.onnx", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [stage["depth"] for stage in found["stages"]] == [2, 1, 3, 1]
    assert "node:head.fpn.p3.width" in {knob["name"] for knob in found["knobs"]}
    assert SPEC_KEY in metadata(files.read("out.onnx").envelope)
    assert run(["remap", "out.onnx", "--spec", "spec.json", "-o", "same.onnx"]) == 0
    assert record("same.onnx") == record()


def test_the_colours_of_the_bundled_seed_and_of_its_remaps_are_known(folder: Path) -> None:
    Path("spec.json").write_text(json.dumps({"version": 1, "knobs": {"stage5.depth": 2}}))
    assert run(["remap", "mobilenetv2_bn", "--spec", "spec.json", "-o", "shorter.onnx", "--no-verify"]) == 0
    for seed in ("mobilenetv2_bn", "shorter.onnx"):
        assert head("--task", "segmentation", *CLASSES, "--width", "8", "--no-verify", "--force", seed=seed) == 0
        assert record()["input"]["mean"] == record()["input"]["scale"] == [127.5] * 3  # type: ignore[index]


def test_an_earlier_heads_colours_are_kept(folder: Path) -> None:
    assert head("--task", "segmentation", *CLASSES, "--mean", "1", "--scale", "2", "--no-verify", out="first.onnx") == 0
    assert head("--task", "segmentation", *CLASSES, "--no-verify", seed="first.onnx") == 0
    assert record()["input"]["mean"] == [1.0] * 3  # type: ignore[index]


def test_from_python_in_the_same_words(tmp_path: Path) -> None:
    seed = save(mobile().model(), tmp_path / "seed.onnx")
    made = fnatool.head(seed, tmp_path / "out.onnx", options=HeadOptions(task="segmentation", classes="4", width=8))
    assert made.description.task == "segmentation"
    assert (tmp_path / "out.onnx").exists()
    with pytest.raises(UserError, match="exists"):
        fnatool.head(seed, tmp_path / "out.onnx", options=HeadOptions(task="segmentation", classes="4", width=8))


# --- old opsets ---------------------------------------------------------------------------------


def old(opset: int = 9, mode: str = "linear") -> onnx.ModelProto:
    """Maps that are made coarser, and finer by an operator that is gone since opset 10."""
    net = Net(size=32, opset=opset)
    fine = net.conv_bn_relu("x", "fine", 4, 3, stride=2)
    coarse = net.conv_bn_relu(fine, "coarse", 4, 3, stride=2)
    net.op("Upsample", "up", coarse, net.constant("scales", [1, 1, 2, 2]), mode=mode)
    net.op("Add", "sum", "up", fine)
    net.classifier(net.conv_bn_relu("sum", "last", 8, 3))
    return net.model()


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_a_model_of_an_old_opset_is_converted(mode: str, folder: Path, capsys: Capture) -> None:
    save(old(mode=mode), folder / "old.onnx")
    assert head("--task", "segmentation", *CLASSES, "--width", "8", "--taps", "last.n.r", seed="old.onnx") == 0
    out = capsys.readouterr().out
    assert "note: converted from opset 9 to 11, by ONNX's own converter\n" in out
    assert "what it taps is the seed's, bit for bit" in out
    assert [entry.version for entry in onnx.load("out.onnx").opset_import if not entry.domain] == [11]
    resize = next(node for node in onnx.load("out.onnx").graph.node if node.op_type == "Resize")
    said = {attribute.name: attribute.s for attribute in resize.attribute}
    assert said == {"mode": mode.encode(), "coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}


def test_a_conversion_that_changes_values_is_refused(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the converter leaves it, half a pixel off."""
    save(old(), folder / "old.onnx")
    monkeypatch.setattr(upgrading, "_place_as_before", lambda made: None)
    assert head("--task", "segmentation", *CLASSES, "--taps", "last.n.r", seed="old.onnx") == 1
    assert (
        "ONNX's own converter changes what the model computes: 'last' drifts; export it again in a newer opset"
        in refused(capsys)
    )


def test_what_the_converter_cannot_do_is_said(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    save(old(), folder / "old.onnx")
    monkeypatch.setattr(upgrading, "_convert", lambda old, new, opset: "no adapter for this")
    assert head("--task", "segmentation", *CLASSES, seed="old.onnx") == 1
    said = refused(capsys)
    assert (
        "this model has opset 9, a head needs 11 or newer, and ONNX's own converter cannot do it: no adapter "
        "for this; export it" in said
    )


def test_names_that_look_like_markup_are_shown(folder: Path, capsys: Capture) -> None:
    save(mobile().model(batch="[/red]"), folder / "odd.onnx")
    assert head("--task", "segmentation", *CLASSES, "--width", "8", seed="odd.onnx") == 0
    assert "  gives mask_logits [[/red], 3, 2, 2]\n" in capsys.readouterr().out


# --- verification -------------------------------------------------------------------------------


def test_a_tap_that_is_not_the_seeds_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight before the tap is changed behind the back of the passes."""
    model = files.read("seed.onnx")
    original = attach

    def spoilt(*arguments: object, **how: object) -> object:
        made = original(*arguments, **how)  # type: ignore[arg-type]
        for node in made.graph.nodes:
            if node.name == "stem":
                node.inputs[1] = type(node.inputs[1])("stem.w", node.inputs[1].values * np.float32(1 + 1e-6))
        return made

    monkeypatch.setattr(headed, "attach", spoilt)
    with pytest.raises(
        RefusedModel, match=r"'s3b0p\.n', which the head taps, is not what it is in the seed; nothing was written"
    ):
        attach_to_model(model, HeadOptions(task="segmentation", classes="4", width=8))


def test_a_result_that_does_not_pass_the_check_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = files.read("seed.onnx")
    original = attach

    def spoilt(*arguments: object, **how: object) -> object:
        made = original(*arguments, **how)  # type: ignore[arg-type]
        made.graph.outputs[0].shape = [1, 5, 2, 2]
        return made

    monkeypatch.setattr(headed, "attach", spoilt)
    with pytest.raises(RefusedModel, match="the result would be broken: "):
        attach_to_model(model, HeadOptions(task="segmentation", classes="4", width=8))


# --- what it refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "segmentation"), "say how many classes segmentation has with --classes"),
        (("--task", "segmentation", "--classes", "0"), "classes: 0 is out of range, which goes from 1 to 65536"),
        (("--task", "segmentation", "--classes", "-4"), "classes: -4 is out of range"),
        (("--task", "segmentation", "--classes", "99999999999"), "classes: 99999999999 is out of range"),
        (("--task", "segmentation", "--classes", "no.txt"), "classes: 'no.txt' is neither a number nor a file"),
        (
            ("--task", "segmentation", "--classes", "empty.txt"),
            "there are 0 names; give 1 to 65536: one for every line of 'empty.txt'",
        ),
        (
            ("--task", "segmentation", "--classes", "twice.txt"),
            "line of 'twice.txt' 3 repeats 'a', which stands at 1 already",
        ),
        (("--task", "segmentation", "--classes", "gap.txt"), "line of 'gap.txt' 2 is empty"),
        (("--task", "segmentation", "--classes", "seed.onnx"), "'seed.onnx' cannot be read"),
        (("--task", "pose"), "say which joints a pose has with --joints"),
        (("--task", "pose", "--joints", "empty.txt"), "'empty.txt' is not JSON"),
        (("--task", "detection", *CLASSES, "--joints", "5"), "--joints is for poses, not for detection"),
        (
            ("--task", "pose", "--joints", "5", "--style", "ssdlite"),
            "'ssdlite' is no style of pose; there is 'simplebaseline'",
        ),
        (("--task", "segmentation", *CLASSES, "--taps", "stage3.exut"), "did you mean 'stage3.exit'?"),
        (
            ("--task", "segmentation", *CLASSES, "--keep-rows", "1"),
            "rows of a deeplabv3 head can be kept where the model has one",
        ),
        (("--task", "detection", *CLASSES), "an image of 64×64 is too small for 5 levels"),
        (
            ("--task", "segmentation", *CLASSES, "--mean", "1,2"),
            "the input 'x' has 3 channels, the mean 2 values; give one for each",
        ),
        (("--task", "segmentation", *CLASSES, "--scale", "1,0,1"), "a scale of 0 would divide by zero"),
        (("--task", "classification", *CLASSES, "--keep-rows", "7"), "the seed has no class 7"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    arguments: tuple[str, ...], message: str, folder: Path, capsys: Capture
) -> None:
    Path("empty.txt").write_text("\n\n")
    Path("twice.txt").write_text("a\nb\na\n")
    Path("gap.txt").write_text("a\n\nb\n")
    assert head(*arguments) == 2
    assert message in refused(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--mean", "a"),
        ("--mean", "nan"),
        ("--scale", "1e400"),
        ("--keep-rows", "1.5"),
        ("--keep-rows", "3-1"),
        ("--width", "x"),
    ],
)
def test_what_is_no_number_is_a_mistake(arguments: tuple[str, ...], folder: Path, capsys: Capture) -> None:
    assert head("--task", "segmentation", *CLASSES, *arguments) == 2
    assert arguments[0] in capsys.readouterr().err
    assert not Path("out.onnx").exists()


@pytest.mark.parametrize(
    "document",
    [
        "[]",
        "{}",
        '{"joints": "a"}',
        '{"joints": []}',
        '{"joints": ["a", "a"]}',
        '{"joints": ["a"], "sigmas": [0]}',
        '{"joints": ["a"], "sigmas": []}',
        '{"joints": ["a", "b"], "flip_pairs": [[0, 2]]}',
        '{"joints": ["a", "b"], "flip_pairs": [[1, 1]]}',
        '{"joints": ["a"], "more": 1}',
    ],
)
def test_joints_that_make_no_sense_are_a_mistake(document: str, tmp_path: Path) -> None:
    path = tmp_path / "joints.json"
    path.write_text(document)
    with pytest.raises(UserError):
        names.joints_of(str(path))


def test_neither_the_seed_nor_the_names_are_overwritten(folder: Path, capsys: Capture) -> None:
    Path("names.txt").write_text("a\nb\n")
    before = Path("seed.onnx").read_bytes()
    for out in ("seed.onnx", "names.txt"):
        assert head("--task", "segmentation", "--classes", "names.txt", "--force", out=out) == 2
        assert f"'{out}' is the input" in capsys.readouterr().err
    assert Path("seed.onnx").read_bytes() == before


def test_an_existing_file_is_overwritten_with_force_alone(folder: Path, capsys: Capture) -> None:
    Path("out.onnx").write_text("mine")
    assert head("--task", "segmentation", *CLASSES) == 2
    assert Path("out.onnx").read_text() == "mine"
    assert head("--task", "segmentation", *CLASSES, "--force", "--no-verify") == 0


def test_grey_pictures_need_to_be_told_how_they_are_scaled(folder: Path, capsys: Capture) -> None:
    save(mobile(channels=1).model(), Path("grey.onnx"))
    assert head("--task", "segmentation", *CLASSES, seed="grey.onnx") == 2
    assert "nothing is known of pixels of 1 channel(s): say how they are scaled with --mean and --scale" in refused(
        capsys
    )
    assert (
        head(
            "--task", "segmentation", *CLASSES, "--mean", "127.5", "--scale", "127.5", "--width", "8", seed="grey.onnx"
        )
        == 0
    )
    assert record()["input"]["channels"] == "GREY"  # type: ignore[index]


def test_a_model_that_is_none_is_refused(folder: Path, capsys: Capture) -> None:
    Path("seed.onnx").write_bytes(b"nonsense")
    assert head("--task", "segmentation", *CLASSES) == 1
    assert "is not an ONNX model" in refused(capsys)


def test_known_colours_are_those_of_bundled_seeds() -> None:
    assert set(seeds.PIXELS) <= set(seeds.NAMES)


# --- on a network that has a head ---------------------------------------------------------------


def test_other_classes_keep_the_pyramid_and_the_towers(folder: Path, capsys: Capture) -> None:
    assert head(*DETECTION, out="three.onnx") == 0
    capsys.readouterr()
    assert head("--task", "detection", "--classes", "5", "--keep-rows", "all", seed="three.onnx") == 0
    assert "  goes on from the model's own head: all of its weights but those of classes" in capsys.readouterr().out
    before, after = (weights_of(path) for path in ("three.onnx", "out.onnx"))
    assert before.keys() == after.keys()
    moved = [
        name for name in before if before[name].tobytes() != after[name].tobytes() and before[name].dtype.kind == "f"
    ]
    assert moved == ["head.cls.predictor.weight", "head.cls.predictor.bias"]
    old, new = (weights["head.cls.predictor.weight"].reshape(9, -1, 8, 3, 3) for weights in (before, after))
    np.testing.assert_array_equal(new[:, :3], old)
    assert record()["classes"] == [f"class{k}" for k in range(5)]


def test_what_is_asked_for_anew_is_fresh(folder: Path, capsys: Capture) -> None:
    assert head(*DETECTION, out="three.onnx") == 0
    assert head(*DETECTION, "--seed", "1", seed="three.onnx") == 0
    before, after = (weights_of(path) for path in ("three.onnx", "out.onnx"))
    assert (before["head.cls.conv0.weight"] != after["head.cls.conv0.weight"]).any()


def test_rows_of_a_head_that_was_folded_are_not_kept(folder: Path, capsys: Capture) -> None:
    assert head("--task", "segmentation", *CLASSES, out="three.onnx") == 0
    assert run(["fold", "three.onnx", "-o", "folded.onnx"]) == 0
    capsys.readouterr()
    assert head("--task", "segmentation", "--classes", "4", "--keep-rows", "all", seed="folded.onnx") == 2
    assert "has other weights than it was made with (folded?)" in refused(capsys)


def test_classes_and_joints_are_those_of_the_data(folder: Path, capsys: Capture) -> None:
    sets.image_folder(folder / "data")
    assert head("--task", "classification", "--data", "data") == 0
    assert record()["classes"] == list(sets.CLASSES)
    Path("out.onnx").unlink()
    capsys.readouterr()
    for arguments, said in (
        (
            ("--task", "classification", "--data", "data", *CLASSES),
            "--data names the classes of the head, so leave --classes and --joints out",
        ),
        (("--task", "detection", "--data", "data"), "is in no layout of detection data"),
        (("--task", "detection", "--data", "nowhere"), "'nowhere' does not exist; give the folder of the data"),
    ):
        assert head(*arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert said in captured.err
        assert not Path("out.onnx").exists()


def weights_of(path: str) -> dict[str, np.ndarray]:
    return {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(path).graph.initializer
        if tensor.name.startswith("head.")
    }
