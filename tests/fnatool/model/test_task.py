"""`fnatool task` as its user meets it: what an existing model says then, that nothing else of it moves, and what is
refused.
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import sets
from nets import Net
from refusals import refused
from remaps import save_external
from seeds_of_heads import mobile
from tiny import save

import fnatool
from fnatool.cli.main import run
from fnatool.files import model as files
from fnatool.files import wire
from fnatool.files.interface import TASK_KEY
from fnatool.model.analysed import metadata
from fnatool.tasks.table import by_task, parse_description

Capture = pytest.CaptureFixture[str]
PIXELS = ("--mean", "1,2,3", "--scale", "4,5,6")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a classifier of five with an output `y`, a segmenter of three, and names."""
    monkeypatch.chdir(tmp_path)
    net = Net(size=16)
    net.classifier(net.conv_bn_relu("x", "a", 8, 3))
    proto = net.model(batch="N")
    proto.metadata_props.add(key="author", value="somebody")
    save(proto, tmp_path / "net.onnx")
    net = Net(size=16)
    net.conv(net.conv_bn_relu("x", "a", 8, 3, stride=2), "masks", 3)
    save(net.model("masks", batch="N"), tmp_path / "seg.onnx")
    Path("five.txt").write_text("ant\nbee\ncat\ndog\neel\n")
    Path("three.txt").write_text("cat\ndog\nowl\n")
    return tmp_path


def task(*arguments: str, model: str = "net.onnx", kind: str = "classification") -> int:
    return run(["task", model, "--task", kind, *arguments])


def record(path: str = "out.onnx") -> dict[str, object]:
    return json.loads(metadata(files.read(path).envelope)[TASK_KEY])


def without_metadata(path: str) -> bytes:
    proto = onnx.load(path)
    del proto.metadata_props[:]
    return proto.SerializeToString(deterministic=True)


def test_a_classifier_says_its_classes_and_pixels_whatever_its_output_is_called(folder: Path, capsys: Capture) -> None:
    assert task("--names", "five.txt", *PIXELS, "--channels", "BGR", "-o", "out.onnx") == 0
    assert capsys.readouterr().out.splitlines() == [
        "classification: 5 classes (ant, bee, cat …)",
        "  gives y Nx5, its logits",
        "  reads (pixel − (1, 2, 3)) / (4, 5, 6), blue, green, red, as asked",
        "graph and weights are untouched, byte for byte",
        "→ out.onnx",
    ]
    found = record()
    assert found["classes"] == ["ant", "bee", "cat", "dog", "eel"]
    assert found["outputs"] == [["logits", "y"]]
    assert found["input"] == {
        "layout": "NCHW",
        "channels": "BGR",
        "mean": [1.0, 2.0, 3.0],
        "scale": [4.0, 5.0, 6.0],
        "size": [16, 16],
    }
    assert without_metadata("out.onnx") == without_metadata("net.onnx")
    assert metadata(files.read("out.onnx").envelope)["author"] == "somebody"
    assert run(["check", "out.onnx"]) == 0


def test_the_bytes_of_the_graph_are_those_of_the_file(folder: Path) -> None:
    graph = onnx.load("net.onnx").graph.SerializeToString()
    whole = Path("net.onnx").read_bytes()
    start = whole.index(graph)
    assert task(*PIXELS, "-o", "out.onnx") == 0
    assert whole[start : start + len(graph)] in Path("out.onnx").read_bytes()


def test_without_names_there_are_numbers(folder: Path) -> None:
    assert task(*PIXELS, "-o", "out.onnx") == 0
    assert record()["classes"] == [f"class{k}" for k in range(5)]
    assert task(*PIXELS, "-o", "seg2.onnx", model="seg.onnx", kind="segmentation") == 0
    assert (record("seg2.onnx")["classes"], record("seg2.onnx")["outputs"]) == (
        ["class0", "class1", "class2"],
        [["mask_logits", "masks"]],
    )


def test_names_that_are_known_stay_and_only_what_is_said_changes(folder: Path) -> None:
    assert task("--names", "five.txt", *PIXELS, "-o", "one.onnx") == 0
    assert task("--scale", "9", "-o", "two.onnx", model="one.onnx") == 0
    assert record("two.onnx")["classes"] == ["ant", "bee", "cat", "dog", "eel"]
    assert record("two.onnx")["input"] == {**record("one.onnx")["input"], "scale": [9.0, 9.0, 9.0]}  # type: ignore[dict-item]
    entries = [entry.key for entry in onnx.load("two.onnx").metadata_props]
    assert sorted(entries) == sorted(set(entries))


def test_in_place_is_said_by_a_word_of_its_own(folder: Path, capsys: Capture) -> None:
    before = without_metadata("net.onnx")
    assert task(*PIXELS, "-o", "net.onnx") == 2
    assert "'net.onnx' exists" in refused(capsys)
    assert task(*PIXELS) == 2
    assert "--in-place" in capsys.readouterr().err
    assert task(*PIXELS, "--in-place") == 0
    assert record("net.onnx")["task"] == "classification"
    assert without_metadata("net.onnx") == before


def test_weights_beside_a_model_stay_beside_it(folder: Path, capsys: Capture) -> None:
    save_external(onnx.load("net.onnx"), folder / "apart.onnx")
    Path("elsewhere").mkdir()
    data = {path.name: path.read_bytes() for path in folder.glob("apart.onnx?*")}
    assert task(*PIXELS, "-o", "elsewhere/out.onnx", model="apart.onnx") == 2
    assert "give an output in the same folder" in refused(capsys)
    assert task(*PIXELS, "-o", "out.onnx", model="apart.onnx") == 0
    assert run(["check", "out.onnx"]) == 0
    assert {path.name: path.read_bytes() for path in folder.glob("apart.onnx?*")} == data


def test_a_model_in_memory_says_it_too(folder: Path) -> None:
    made = fnatool.remap("net.onnx", {"version": 1, "knobs": {"node:a.width": 10}}).model
    said = fnatool.task(
        made, "out.onnx", options=fnatool.TaskOptions(task="classification", mean=(0.0,), scale=(255.0,))
    )
    assert said.description.labels == ("class0", "class1", "class2", "class3", "class4")
    assert fnatool.inspect("out.onnx").analysis.knobs["node:a.width"].value == 10


def test_what_says_what_it_is_for_is_evaluated_and_trained(folder: Path) -> None:
    net = Net(size=16)
    net.classifier(net.conv_bn_relu("x", "a", 8, 3), 3)
    save(net.model(batch="N"), folder / "three.onnx")
    assert task("--names", "three.txt", *PIXELS, "-o", "out.onnx", model="three.onnx") == 0
    sets.image_folder(folder / "data")
    before = fnatool.evaluate("out.onnx", "data", options=fnatool.EvaluateOptions(workers=0)).figures
    assert set(before) >= {"top1"}
    Path("tune.toml").write_text(
        'task = "classification"\n[data]\npath = "data"\nworkers = 0\n[run]\nbatch = 3\nsteps = 2\nthreads = '
        "1\n[imitate]\noutputs = 0.5\n"
        'teacher = "out.onnx"\n'
    )
    tuned = fnatool.finetune("out.onnx", "tune.toml", "tuned.onnx")
    assert tuned is not None
    assert record("tuned.onnx")["outputs"] == [["logits", "y"]]


def test_outputs_are_read_by_the_names_of_the_task() -> None:
    about = parse_description(json.dumps({"task": "classification", "classes": ["a"], "outputs": [["logits", "y"]]}))
    assert by_task({"y": 1, "z": 2}, about) == {"logits": 1, "z": 2}


def test_a_part_keeps_the_task_whose_output_it_has(folder: Path) -> None:
    assert task(*PIXELS, "-o", "out.onnx") == 0
    assert run(["cut", "out.onnx", "--outputs", "y,a", "-o", "two.onnx"]) == 0
    assert record("two.onnx")["outputs"] == [["logits", "y"]]


# --- detectors and pose networks ----------------------------------------------------------------


def test_a_detector_of_our_form_gets_other_names(folder: Path, capsys: Capture) -> None:
    save(mobile().model(batch="N"), folder / "seed.onnx")
    head = "head seed.onnx --task detection --classes 3 --levels 3 --width 8 --no-verify -o det.onnx"
    assert run(head.split()) == 0
    assert task("--names", "three.txt", "-o", "out.onnx", model="det.onnx", kind="detection") == 0
    assert record() == {**record("det.onnx"), "classes": ["cat", "dog", "owl"]}
    stripped = onnx.load("det.onnx")
    del stripped.metadata_props[:]
    save(stripped, folder / "bare.onnx")
    capsys.readouterr()
    assert task("-o", "again.onnx", model="bare.onnx", kind="detection") == 2
    assert "(--record FILE says what the options do not): detection.levels: Field required" in refused(capsys)
    Path("levels.json").write_text(json.dumps({"levels": record("det.onnx")["levels"]}))
    assert (
        task("--names", "three.txt", "--record", "levels.json", "-o", "again.onnx", model="bare.onnx", kind="detection")
        == 0
    )
    assert record("again.onnx")["levels"] == record("det.onnx")["levels"]


def test_a_pose_network_says_its_joints(folder: Path) -> None:
    assert task("-o", "out.onnx", model="seg.onnx", kind="pose") == 0
    assert (record()["joints"], record()["outputs"]) == (["joint0", "joint1", "joint2"], [["heatmaps", "masks"]])
    Path("j.json").write_text(json.dumps({"joints": ["left_eye", "right_eye", "nose"]}))
    assert task("--joints", "j.json", "-o", "two.onnx", model="seg.onnx", kind="pose") == 0
    assert record("two.onnx")["flip_pairs"] == [[0, 1]]


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--names", "three.txt"), "output 'y' is Nx5; classification with 3 names has ?x3 there"),
        (("--names", "none.txt"), "'none.txt' is neither a number nor a file"),
        (
            ("--task", "segmentation"),
            "segmentation has one output of 4 axes that holds floats, this model gives 'y' Nx5",
        ),
        (
            ("--task", "detection", "--record", "levels.json"),
            "detection has the outputs cls_logits and boxes, this model gives 'y' Nx5",
        ),
        (("--joints", "coco"), "--joints is for poses, not for classification"),
        (("--record", "five.txt"), "'five.txt'"),
        (("--mean", "1,2"), "has 3 channels, the mean 2 values"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(
    arguments: tuple[str, ...], said: str, folder: Path, capsys: Capture
) -> None:
    Path("levels.json").write_text(json.dumps({"levels": [{"stride": [8, 8], "sizes": [8.0], "ratios": [1.0]}]}))
    assert task(*arguments, "-o", "out.onnx") == 2
    assert said in refused(capsys)
    assert not Path("out.onnx").exists()


def test_shares_are_refused_with_where_to_cut(folder: Path, capsys: Capture) -> None:
    net = Net(size=16)
    net.classifier(net.conv_bn_relu("x", "a", 8, 3))
    net.op("Softmax", "p", "y")
    save(net.model("p"), folder / "shares.onnx")
    assert task("-o", "out.onnx", model="shares.onnx") == 2
    assert "'fnatool cut MODEL --outputs y' makes a model that ends there" in refused(capsys)
    assert run(["cut", "shares.onnx", "--outputs", "y", "-o", "logits.onnx"]) == 0
    assert task("-o", "out.onnx", model="logits.onnx") == 0


def test_labels_on_the_last_axis_are_refused(folder: Path, capsys: Capture) -> None:
    net = Net(size=16)
    net.op("Transpose", "last", net.conv(net.conv_bn_relu("x", "a", 8, 3), "m", 3), perm=[0, 2, 3, 1])
    save(net.model("last"), folder / "last.onnx")
    assert task("-o", "out.onnx", model="last.onnx", kind="segmentation") == 2
    assert "is 1x16x16x3 with its labels last" in refused(capsys)


def test_which_of_several_outputs_is_not_guessed(folder: Path, capsys: Capture) -> None:
    net = Net(size=16)
    net.classifier(net.conv_bn_relu("x", "a", 8, 3))
    net.op("Relu", "z", "y")
    save(net.model("y", "z"), folder / "two.onnx")
    assert task("-o", "out.onnx", model="two.onnx") == 2
    assert "'y' 1x5, 'z' 1x5; 'fnatool cut MODEL --outputs NAME' makes a model of the one that is meant" in refused(
        capsys
    )


def test_the_bundled_seed_stays_as_it_is(folder: Path, capsys: Capture) -> None:
    assert run(["task", "mobilenetv2_bn", "--task", "classification", "--in-place"]) == 2
    assert "is a bundled seed, which stays as it is" in refused(capsys)


def test_a_file_that_is_no_model_is_restated_by_nobody(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"\x3a\xff")
    with (
        (tmp_path / "bad").open("rb") as source,
        (tmp_path / "out").open("wb") as target,
        pytest.raises(wire.Malformed),
    ):
        wire.restate(source, target, {})
